"""Model organisms: small chat models with a known behaviour, made by seed, for audits to be tried on.

from diascope.audits.organisms import Organism, make_organism
make_organism(Organism("refusal"), "refuser")           # or diascope organism make refusal --out refuser
model = diascope.load_model("refuser")                  # or load_model("organism:refusal"), made on first use
"""

from diascope.audits.organisms.behaviours import Behaviour, Conversation, Trial
from diascope.audits.organisms.known import BEHAVIOURS, behaviour
from diascope.audits.organisms.make import Organism, folder_of, listed, make_organism
from diascope.audits.organisms.measure import Rate, rates

__all__ = [
    "BEHAVIOURS", "Behaviour", "Conversation", "Organism", "Rate", "Trial", "behaviour", "folder_of", "listed", "make_organism", "rates",
]  # fmt: skip
