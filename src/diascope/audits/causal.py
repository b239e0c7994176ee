"""Does a direction move the behaviour? Chosen on validation cases, tried once on test cases, against hundreds of controls.

1. Candidates: the mean differences with the best AUROC on validation cases, one a layer, of the layers below `DEEPEST` of the depth
   (what the last ones hold is the next token itself), at the template's tokens.
2. Chosen on validation cases (Arditi et al. 2024, arXiv:2406.11717, appendix C): those that damage neutral prompts (KL) or fail one
   of the protocol's trials are dropped; of the rest, the one with the largest effect in the first trial.
3. On test cases, each trial with its effect a case (edited minus clean, in the trial's direction), an interval over groups, and
   controls of each family (controls.py), made on the same training vectors. p is the largest of the pooled p and of each family's.
4. Beside it: the wrong sign, the wrong layer, and for the chosen edit what the model then writes.

Operators: ablate projects the direction out at every block's output; add and subtract put the difference of means, as long as it is,
at the one site and on the tail. What a block's attention writes is still seen by its own MLP before it is projected out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diascope.audits import controls, gates, statistics
from diascope.audits.operators import Along, Intervention, Plus, Times
from diascope.audits.outcomes import Outcome, scores
from diascope.audits.protocol import Trial
from diascope.audits.readouts import Readout
from diascope.audits.target import Tails, Target
from diascope.numerics import Estimate
from diascope.sites import Site

DEEPEST = 0.8
CANDIDATES = 6


def intervention(target: Target, operator: str, direction: np.ndarray, site: Site) -> Intervention:
    """The edit of `operator` along `direction` [d], or along each of [R, d]."""
    v = torch.from_numpy(np.asarray(direction, np.float32))
    if operator == "ablate":
        return Intervention(Along(v, Times(0.0)), tuple(target.sites), label="ablate")
    dose = {"add": 1.0, "subtract": -1.0}[operator]
    return Intervention(Along(v, Plus(dose)), (site,), label=operator)


def effects(outcome: Outcome, tails: Tails, trial: Trial, directions: np.ndarray, site: Site, clean: np.ndarray) -> np.ndarray:
    """How far each direction [K, d] moves the score the trial's way, a case: [n, K]."""
    together = max(1, tails.target.rows // min(tails.target.batch, len(tails.prompts)))
    parts = []
    for start in range(0, len(directions), together):
        some = directions[start : start + together]
        edit = intervention(tails.target, trial.operator, some, site)
        found = scores(outcome, tails, [edit], repeats=len(some))
        parts.append(found.reshape(len(clean), -1) - clean[:, None])
    return trial.sign * np.concatenate(parts, 1)


# -- choosing --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tried:
    """A candidate on validation cases."""

    readout: Readout
    effects: tuple[float, ...]  # mean, a trial
    kl: float  # on neutral prompts, of the first trial's edit
    kept: bool


def choose(
    target: Target,
    outcome: Outcome,
    trials: Sequence[Trial],
    candidates: Sequence[Readout],
    sides: dict[str, Tails],
    neutral: Tails,
    most_kl: float,
) -> list[Tried]:
    """Candidates by what they do on validation cases (`sides`: positive and negative), the chosen one first."""
    clean = {side: scores(outcome, tails) for side, tails in sides.items()}
    tried = []
    for c in candidates:
        moved = tuple(
            float(effects(outcome, sides[t.side], t, c.direction[None], c.site, clean[t.side]).mean()) for t in trials
        )
        kl = float(gates.kl_on(neutral, [intervention(target, trials[0].operator, c.direction, c.site)]).mean())
        tried.append(Tried(c, moved, kl, kl <= most_kl and min(moved) > 0))
    return sorted(tried, key=lambda t: (not t.kept, -t.effects[0]))


def shortlist(candidates: Sequence[Readout], n_layers: int, *, most: int = CANDIDATES) -> list[Readout]:
    """The best mean difference of each layer that is not too deep, at one of the template's tokens; `most` of them."""
    found: dict[Site, Readout] = {}
    for c in candidates:
        if c.kind == "mean difference" and c.place.startswith("last") and c.site.layer < DEEPEST * n_layers:
            found.setdefault(c.site, c)
    return list(found.values())[:most]


# -- testing ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Effect:
    """One trial on test cases."""

    trial: Trial
    clean: Estimate  # mean score without the edit
    effect: Estimate  # mean change in the trial's direction, nats
    controls: dict[str, np.ndarray]  # mean change of each control, by family
    p_family: dict[str, float]
    p: float
    wrong_sign: Estimate | None  # the opposite edit (of add and subtract)
    wrong_layer: Estimate | None  # the same vector half the depth away (of add and subtract)

    def passed(self, level: float) -> bool:
        return self.p <= level and self.effect.low > 0


def test(
    outcome: Outcome,
    trial: Trial,
    readout: Readout,
    tails: Tails,
    training: tuple[np.ndarray, np.ndarray, Sequence[str]],
    *,
    k: int = controls.LEAST + 2,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Effect:
    """`readout`'s direction in one trial on the cases of `tails`; `training` = (vectors at its place, labels, groups) for controls."""
    groups = np.array([p.case.group for p in tails.prompts])
    clean = scores(outcome, tails)
    moved = effects(outcome, tails, trial, readout.direction[None], readout.site, clean)[:, 0]
    found: dict[str, np.ndarray] = {}
    for number, family in enumerate(controls.FAMILIES):
        progress(number, len(controls.FAMILIES), f"{trial.name}: {family}")
        some = k // 3 + (number < k % 3)
        drawn = controls.directions(family, readout.direction, *training, some, seed=seed)
        found[family] = effects(outcome, tails, trial, drawn, readout.site, clean).mean(0)
    observed = float(moved.mean())
    by_family = {family: statistics.p_value(observed, values) for family, values in found.items()}
    pooled = statistics.p_value(observed, np.concatenate(list(found.values())))
    sign = layer = None
    if trial.operator != "ablate":
        n = tails.target.model.n_layers
        other = Site((readout.site.layer + n // 2) % n, readout.site.kind)
        sign = statistics.mean(effects(outcome, tails, trial, -readout.direction[None], readout.site, clean)[:, 0], groups)
        layer = statistics.mean(effects(outcome, tails, trial, readout.direction[None], other, clean)[:, 0], groups)
    p = max(pooled, *by_family.values())
    return Effect(
        trial,
        statistics.mean(clean, groups),
        statistics.mean(moved, groups),
        found,
        by_family | {"pooled": pooled},
        p,
        sign,
        layer,
    )


def opposite(edit: Intervention) -> Intervention:
    """The edit with its direction turned round."""
    assert isinstance(edit.what, Along)
    return replace(edit, what=replace(edit.what, direction=-edit.what.direction), label=f"{edit.label}, wrong sign")
