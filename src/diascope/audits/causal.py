"""Does a direction move the behaviour? Chosen on validation cases, tried once on test cases, against hundreds of controls.

1. Fitted on training groups that switch: the positive case shows the behaviour, the negative one does not. What the others hold blurs
   the difference: a model that refuses half of the harmless requests has refusal on both sides of harmful - harmless.
2. Candidates: the mean difference at every one of the template's tokens and every layer below `DEEPEST` of the depth (what the last
   ones hold is the next token itself).
3. Chosen on validation groups that switch (Arditi et al. 2024, arXiv:2406.11717, section 2.3 and appendix C): candidates
   that fail one of the protocol's trials, or damage neutral prompts (KL), are dropped; of the rest, the one whose least effect is
   largest, each trial's effects in units of their spread over candidates, since all trials have to be passed. KL is read in that order,
   until `LISTED` are kept: it decides nothing beyond the first. AUROC plays no part: a direction that detects perfectly may control
   nothing.
4. On test cases, all of them, each trial with its effect a case (edited minus clean, in the trial's direction), an interval over
   groups, and controls of each family (controls.py), made on the same training vectors. p is the largest of the pooled p and of each
   family's.
5. Beside it: the wrong sign, the wrong layer, other doses (doses.py), and for the chosen edit what the model then writes and what it
   breaks (damage.py).

p is valid for a direction that was not searched for by its effect. The choice of 3 is such a search, on other cases: where every
candidate is noise, the one that moves most on validation cases moves more than most controls on test cases, too. A protocol with
several trials pays for it, since noise hardly passes all of them; where there is one trial alone, `p_chosen` has to pass as well
(statistics.py).

Operators: ablate projects the direction out of the residual stream everywhere (operators.everywhere); add and subtract put the
difference of means, as long as it is, at the one site and on the tail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diascope.audits import controls, gates, statistics, verdict
from diascope.audits.detect import Data
from diascope.audits.operators import Along, Intervention, Plus, Times, everywhere
from diascope.audits.outcomes import Outcome, scores
from diascope.audits.protocol import Trial
from diascope.audits.readouts import Readout, mean_difference
from diascope.audits.statistics import ordered
from diascope.audits.target import Tails, Target
from diascope.numerics import Estimate
from diascope.sites import Site

Training = tuple[np.ndarray, np.ndarray, Sequence[str]]  # vectors at the direction's place [n, d], labels, groups: for controls
DEEPEST = 0.8
LISTED = 12  # candidates that are kept and written down
LEAST = 5  # groups, at least, that a direction is fitted on


def intervention(target: Target, operator: str, direction: np.ndarray, site: Site, dose: float = 1.0) -> Intervention:
    """The edit of `operator` along `direction` [d], or along each of [R, d]; `dose` in multiples of the whole edit, at most 1 of ablate."""
    v = torch.from_numpy(np.asarray(direction, np.float32))
    label = operator if dose == 1.0 else f"{operator} x {dose:g}"
    if operator == "ablate":
        assert 0.0 <= dose <= 1.0, f"what is there cannot be taken out {dose:g} times"
        return Intervention(Along(v, Times(1.0 - dose)), everywhere(target.model), label=label)
    sign = {"add": 1.0, "subtract": -1.0}[operator]
    return Intervention(Along(v, Plus(sign * dose)), (site,), label=label)


def effects(
    outcome: Outcome, tails: Tails, trial: Trial, directions: np.ndarray, site: Site, clean: np.ndarray, dose: float = 1.0
) -> np.ndarray:
    """How far each direction [K, d] moves the score the trial's way, a case: [n, K]; `dose` as `intervention` has it."""
    together = max(1, tails.target.rows // min(tails.target.batch, len(tails.prompts)))
    parts = []
    for start in range(0, len(directions), together):
        some = directions[start : start + together]
        edit = intervention(tails.target, trial.operator, some, site, dose)
        found = scores(outcome, tails, [edit], repeats=len(some))
        parts.append(found.reshape(len(clean), -1) - clean[:, None])
    return trial.sign * np.concatenate(parts, 1)


# -- choosing --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tried:
    """A candidate on validation cases."""

    readout: Readout
    moved: tuple[Estimate, ...]  # mean effect, a trial
    neutral: Estimate | None  # KL on neutral prompts, of the first trial's edit; None where it was not read (see 3 above)
    kept: bool


def telling(y: np.ndarray, event: np.ndarray, group: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """bool [n]: the `rows` of groups that switch: every positive case (y) shows the behaviour, and no negative one does.

    Whole groups, so that labels can be permuted inside each of them: a positive case without its negative one would keep its label in
    every permutation, and all controls a part of what is tested. Where fewer than `LEAST` groups switch, all `rows`: so few fit nothing.
    """
    switched = _switched(y, event, group, rows)
    return rows & np.isin(group, switched) if len(switched) >= LEAST else rows


def switch(y: np.ndarray, event: np.ndarray, group: np.ndarray, rows: np.ndarray) -> bool:
    """Whether enough groups of `rows` switch, so that `telling` has these alone."""
    return len(_switched(y, event, group, rows)) >= LEAST


def _switched(y: np.ndarray, event: np.ndarray, group: np.ndarray, rows: np.ndarray) -> list[str]:
    return [g for g in np.unique(group[rows]) if (event == y)[rows & (group == g)].all()]


def candidates(data: Data, event: np.ndarray, n_layers: int) -> list[Readout]:
    """The mean difference of each layer that is not too deep, at each of the template's tokens, on the telling training groups."""
    train, held = telling(data.y, event, data.group, data.rows("train")), data.rows("validation")
    even, found = np.ones(int(held.sum())), []
    for s, site in enumerate(data.sites):
        for p, place in enumerate(data.places):
            if site.layer < DEEPEST * n_layers and place.startswith("last"):
                direction, bias = mean_difference(data.vectors[train, s, p], data.y[train])
                score = data.vectors[held, s, p].astype(np.float64) @ direction
                auroc = float(ordered(data.y[held], score)(even))
                found.append(Readout("mean difference", site, place, direction, bias, auroc))
    return found


def choose(
    target: Target,
    outcome: Outcome,
    trials: Sequence[Trial],
    candidates: Sequence[Readout],
    sides: dict[str, Tails],
    neutral: Tails,
    most_kl: float,
    *,
    seed: int = 0,
) -> list[Tried]:
    """Candidates by what they do on validation cases (`sides`: positive and negative), the chosen one first."""
    moved = [_moved(outcome, t, candidates, sides[t.side], seed) for t in trials]
    calm = np.array([p.case.group for p in neutral.prompts])
    values = np.array([[e.value for e in own] for own in moved])  # [trials, candidates]
    least = (values / np.maximum(values.std(1, keepdims=True), 1e-30)).min(0)
    tried: list[Tried] = []
    for i in sorted(range(len(candidates)), key=lambda i: -least[i]):
        c, kl = candidates[i], None
        if values[:, i].min() > 0 and sum(t.kept for t in tried) < LISTED:
            each = gates.kl_on(neutral, [intervention(target, trials[0].operator, c.direction, c.site)])
            kl = statistics.mean(each, calm, seed=seed)
        tried.append(Tried(c, tuple(own[i] for own in moved), kl, kl is not None and kl.value <= most_kl))
    return sorted(tried, key=lambda t: not t.kept)


def _moved(outcome: Outcome, trial: Trial, candidates: Sequence[Readout], tails: Tails, seed: int) -> list[Estimate]:
    """The mean effect of each candidate in one trial; those of one site share forward passes."""
    groups, clean = np.array([p.case.group for p in tails.prompts]), scores(outcome, tails)
    found: dict[int, Estimate] = {}
    for site in dict.fromkeys(c.site for c in candidates):
        own = [i for i, c in enumerate(candidates) if c.site == site]
        directions = np.stack([candidates[i].direction for i in own])
        each = effects(outcome, tails, trial, directions, site, clean)
        found |= {i: statistics.mean(column, groups, seed=seed) for i, column in zip(own, each.T, strict=True)}
    return [found[i] for i in range(len(candidates))]


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
    p_chosen: float | None  # with the choice among candidates paid for; None where other trials pay for it
    wrong_sign: Estimate | None  # the opposite edit (of add and subtract)
    wrong_layer: Estimate | None  # the same vector half the depth away (of add and subtract)

    def passed(self, level: float) -> bool:
        return not self.why(level)

    def why(self, level: float) -> str:
        """Why it does not pass; "" where it does."""
        paid = (self.p_chosen or 0.0) <= level
        return verdict.beats(self.p, self.effect.low, level) or (
            "" if paid else "not with the choice among candidates paid for"
        )


def test(
    outcome: Outcome,
    trial: Trial,
    readout: Readout,
    tails: Tails,
    training: Training,
    *,
    chosen_from: int = 1,
    k: int = controls.LEAST + 2,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Effect:
    """`readout`'s direction in one trial on the cases of `tails`; controls are made from `training`.

    `chosen_from` is how many candidates it is the best of in this very trial, where no other trial has to be passed as well.
    """
    groups = np.array([p.case.group for p in tails.prompts])
    clean = scores(outcome, tails)
    moved = effects(outcome, tails, trial, readout.direction[None], readout.site, clean)[:, 0]
    found: dict[str, np.ndarray] = {}
    for number, (family, some) in enumerate(controls.dealt(k).items()):
        progress(number, len(controls.FAMILIES), f"{trial.name}: {family}")
        drawn = controls.directions(family, readout.direction, *training, some, seed=seed)
        found[family] = effects(outcome, tails, trial, drawn, readout.site, clean).mean(0)
    observed = float(moved.mean())
    by_family = {family: statistics.p_value(observed, values) for family, values in found.items()}
    pooled = statistics.p_value(observed, np.concatenate(list(found.values())))
    sign = layer = None
    if trial.operator != "ablate":
        n = tails.target.model.n_layers
        other = Site((readout.site.layer + n // 2) % n, readout.site.kind)
        turned = effects(outcome, tails, trial, -readout.direction[None], readout.site, clean)[:, 0]
        moved_there = effects(outcome, tails, trial, readout.direction[None], other, clean)[:, 0]
        sign, layer = (statistics.mean(x, groups, seed=seed) for x in (turned, moved_there))
    p = max(pooled, *by_family.values())
    paid = max(statistics.p_chosen(observed, values, chosen_from) for values in found.values()) if chosen_from > 1 else None
    return Effect(
        trial,
        statistics.mean(clean, groups, seed=seed),
        statistics.mean(moved, groups, seed=seed),
        found,
        by_family | {"pooled": pooled},
        p,
        paid,
        sign,
        layer,
    )


def opposite(edit: Intervention) -> Intervention:
    """The edit with its direction turned round."""
    assert isinstance(edit.what, Along)
    return replace(edit, what=replace(edit.what, direction=-edit.what.direction), label=f"{edit.label}, wrong sign")
