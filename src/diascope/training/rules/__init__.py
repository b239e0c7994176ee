"""Training rules: how pre-activations become latents, one file an activation.

A rule selects candidates from the pre-activations, turns them into activations, and says what a gradient in the
activations is worth in the pre-activations and in its own parameters. `RULES` is the registry: a new activation is one
file here, one entry there, and a record in dictionaries/activations.py.
"""

from diascope.dictionaries.activations import BatchTopK, Gated, JumpReLU, ReLU, TopK
from diascope.training.rules.batch_top_k import BatchTopKRule
from diascope.training.rules.gated import GatedRule
from diascope.training.rules.jump_relu import JumpReLURule
from diascope.training.rules.relu import ReLURule
from diascope.training.rules.rule import Gradients, Rule
from diascope.training.rules.top_k import TopKRule

RULES: dict[type, type[Rule]] = {
    BatchTopK: BatchTopKRule,
    Gated: GatedRule,
    JumpReLU: JumpReLURule,
    ReLU: ReLURule,
    TopK: TopKRule,
}

__all__ = ["RULES", "Gradients", "Rule"]
