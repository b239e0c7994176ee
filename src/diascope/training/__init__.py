"""Rows to dictionaries: a group of members trained from one stream of rows.

Flow: RowReader -> batches (pure functions of seed and step) -> Member.step -> finish (freeze thresholds, fold) -> Dictionary
"""

from diascope.training.loop import Group, Trained, train_group
from diascope.training.member import Member
from diascope.training.recipe import MemberRecipe, TrainingRecipe
from diascope.training.sparsity import Coefficient, Controller, FrequencyPenalty, QuadraticL0

__all__ = [
    "Coefficient", "Controller", "FrequencyPenalty", "Group", "Member", "MemberRecipe", "QuadraticL0", "Trained",
    "TrainingRecipe", "train_group",
]  # fmt: skip
