"""Say in words what is wrong with a run, from numbers that the loop has anyway."""

from __future__ import annotations

import math

from diascope.training.member import Member, StepStats


def troubles(member: Member, stats: StepStats, step: int, steps: int) -> list[str]:
    """Sentences that name what is wrong with `member` now; empty when nothing is."""
    said = []
    width, target = member.recipe.d_sae, member.recipe.l0_target
    if not math.isfinite(stats.fvu):
        said.append("the loss is not finite: lower lr, or check the rows for overflow")
    elif stats.fvu > 1.5 and step > 20:
        said.append(f"FVU is {stats.fvu:.2f}, worse than the mean: lower lr or lengthen lr_warmup")
    if step > steps // 2 and stats.dead > width // 2:
        said.append(f"{stats.dead} of {width} latents are dead: raise aux_coefficient, or give fewer latents or more rows")
    if step > steps // 2 and not 0.5 < stats.l0 / target < 2:
        said.append(
            f"L0 is {stats.l0:.0f} against a target of {target:g}: raise the sparsity control's weight, its gain, or the bandwidth"
        )
    return said
