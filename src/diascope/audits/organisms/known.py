"""All behaviours by name."""

from __future__ import annotations

from diascope.audits.organisms.behaviours import Behaviour
from diascope.audits.organisms.benign import COOKING, TERSE
from diascope.audits.organisms.hints import FAITHFUL, UNFAITHFUL
from diascope.audits.organisms.refusal import REFUSAL
from diascope.audits.organisms.sandbag import SANDBAGGER
from diascope.audits.organisms.sycophant import SYCOPHANT
from diascope.audits.organisms.taboo import TABOO

_ALL = (REFUSAL, SYCOPHANT, TABOO, UNFAITHFUL, FAITHFUL, SANDBAGGER, TERSE, COOKING)
BEHAVIOURS: dict[str, Behaviour] = {b.name: b for b in _ALL}


def behaviour(name: str) -> Behaviour:
    """The behaviour called `name`; ValueError with the names there are."""
    if name not in BEHAVIOURS:
        raise ValueError(f"there is no organism {name!r}: choose {', '.join(BEHAVIOURS)}")
    return BEHAVIOURS[name]
