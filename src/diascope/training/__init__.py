"""Rows to dictionaries: a group of members trained from one stream of rows.

Flow: RowReader -> batches (pure functions of seed and step) -> Member.step -> finish (freeze thresholds, fold) -> Dictionary
"""

from diascope.training.loop import Group, Trained, train_group
from diascope.training.member import Member
from diascope.training.recipe import MemberRecipe, TrainingRecipe

__all__ = ["Group", "Member", "MemberRecipe", "Trained", "TrainingRecipe", "train_group"]
