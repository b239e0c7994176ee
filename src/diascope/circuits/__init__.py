"""Attribution graphs: which latents make a model say what it says, and interventions that check it."""

from diascope.circuits.graph import Graph
from diascope.circuits.influence import Scores, influences, prune, scores
from diascope.circuits.nodes import Kind
from diascope.circuits.swap import Place, swap
from diascope.circuits.targets import DirectionTarget, LatentTarget, Target, TokenTarget, TopLogits
from diascope.circuits.trace import TraceConfig, trace
from diascope.circuits.verify import verify

__all__ = [
    "DirectionTarget", "Graph", "Kind", "LatentTarget", "Place", "Scores", "Target", "TokenTarget", "TopLogits", "TraceConfig",
    "influences", "prune", "scores", "swap", "trace", "verify",
]  # fmt: skip
