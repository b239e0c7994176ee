"""The subject: load any Hugging Face decoder, read and edit it at sites.

model = load_model("gemma-3-270m")
acts = model.capture("The Eiffel Tower is in Paris", ["L12.resid_post"])
acts["L12.resid_post"]        # [B, T, d_model]; acts.mask says which positions are real, non-special tokens
"""

from diascope.models.chat import ROLES, render, template_prefix
from diascope.models.generation import continuations
from diascope.models.load import hub_name, load_model
from diascope.models.model import Capture, Model

__all__ = ["ROLES", "Capture", "Model", "continuations", "hub_name", "load_model", "render", "template_prefix"]
