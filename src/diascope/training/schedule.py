"""Schedules as pure functions of the step, so that a resumed run continues exactly."""

from __future__ import annotations

import math

from diascope.training.recipe import TrainingRecipe


def learning_rate(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """Cosine warm-up from 0.1 lr, constant, then linear to zero over the last `lr_decay` of the run."""
    warm = min(recipe.lr_warmup, steps // 4)
    if step < warm:
        return recipe.lr * (0.1 + 0.9 * 0.5 * (1 - math.cos(math.pi * step / warm)))
    decay = recipe.lr_decay * steps
    return recipe.lr * min(1.0, (steps - step) / decay) if decay else recipe.lr


def pressure(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """How much of the full sparsity pressure acts at `step`: linear from 0 to 1 over `l0_warmup` steps."""
    warm = min(recipe.l0_warmup, steps // 3)
    return min(1.0, step / warm) if warm else 1.0
