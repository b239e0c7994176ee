"""Steering: a text as the model would go on, beside the same with latents or vectors pushed.

Flow: a latent or a vector -> Push (how, how far) -> edits -> stream (models' decode steps) -> Pair of tokens, step by step.
"""

from diascope.latents.steering.push import METHODS, Push, typical_norms
from diascope.latents.steering.sides import Pair, side_by_side
from diascope.latents.steering.steps import Token, stream

__all__ = ["METHODS", "Pair", "Push", "Token", "side_by_side", "stream", "typical_norms"]
