"""Gates that no finding skips: is the behaviour there, is it what it seems, does the dictionary see these tokens, what breaks.

Prevalence is counted over pairs at risk: groups whose negative case does not show the behaviour. The rate is the share of them whose
positive case does, with Wilson's interval.

    vacuous        the interval ends below the least prevalence that the protocol declares
    underpowered   it holds the declared prevalence, or fewer than `LEAST` pairs are at risk: more cases are needed
    shown          it begins at or above it, and switches the other way (negative shows it, positive does not) are rarer: the 95 %
                   interval of the difference of both sides' rates lies above 0

Confound: twins are harmless, or neutral, and share the positive cases' words. With r the rates of positive, negative and twin cases,
(r_twin - r_negative) / (r_positive - r_negative) >= 1/2 with an interval of r_twin - r_negative above 0 says that the behaviour
follows the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diascope.audits import statistics
from diascope.audits.operators import Intervention
from diascope.audits.target import Tails, Target
from diascope.dictionaries import Dictionary
from diascope.numerics import Estimate

LEAST = 5  # pairs at risk: one switch of one pair has an interval from 0.21


@dataclass(frozen=True)
class Prevalence:
    """How often the behaviour shows, and what follows: shown, vacuous, underpowered or noise."""

    rate: Estimate  # of switches, over groups at risk
    least: float
    sides: dict[str, Estimate]  # rate of the event by label
    difference: Estimate  # rate of positive minus negative cases, over groups

    @property
    def outcome(self) -> str:
        if self.rate.high < self.least:
            return "vacuous"
        if self.rate.low < self.least or self.rate.n < LEAST:
            return "underpowered"
        return "shown" if self.difference.low > 0 else "noise"


def prevalence(
    events: np.ndarray, label: Sequence[str], group: Sequence[str], sides: tuple[str, str], least: float, *, seed: int = 0
) -> Prevalence:
    """From whether each case shows the behaviour [n]; `sides` are the positive and the negative label, both once a group."""
    labels, groups = np.array(label), np.array(group)
    order = sorted(set(groups.tolist()))
    rows = [_rates(events, labels, groups, order, side) for side in sides]
    positive, negative = rows
    at_risk = negative < 0.5
    switched = int((positive[at_risk] >= 0.5).sum())
    rates = {
        name: statistics.wilson(int(events[labels == name].sum()), int((labels == name).sum()))
        for name in sorted(set(labels.tolist()))
    }
    difference = statistics.mean(positive - negative, np.array(order), seed=seed)
    return Prevalence(statistics.wilson(switched, int(at_risk.sum())), least, rates, difference)


def _rates(events: np.ndarray, labels: np.ndarray, groups: np.ndarray, order: list[str], side: str) -> np.ndarray:
    """The share of each group's cases of one side that show the event [groups]."""
    return np.array([events[(groups == g) & (labels == side)].mean() for g in order])


@dataclass(frozen=True)
class Confound:
    """How much of the contrast twins show, too."""

    twin: Estimate  # rate of the event on twins
    difference: Estimate  # twin minus negative, over groups
    share: float  # of the contrast positive - negative
    found: bool


def confound(
    events: np.ndarray, label: Sequence[str], group: Sequence[str], sides: tuple[str, str], twin: str, *, seed: int = 0
) -> Confound:
    """Whether twins show the behaviour as well; every group has one."""
    labels, groups = np.array(label), np.array(group)
    order = sorted(set(groups.tolist()))
    positive, negative, twins = (_rates(events, labels, groups, order, side) for side in (*sides, twin))
    difference = statistics.mean(twins - negative, np.array(order), seed=seed)
    contrast = float((positive - negative).mean())
    share = float((twins - negative).mean()) / contrast if contrast > 0 else float("nan")
    rate = statistics.wilson(int(events[labels == twin].sum()), int((labels == twin).sum()))
    return Confound(rate, difference, share, bool(share >= 0.5 and difference.low > 0))


@dataclass(frozen=True)
class Fidelity:
    """How well a dictionary gives back the very vectors that are audited."""

    fvu: float  # at the audited places, of all cases
    l0: float
    delta_score: Estimate  # outcome with the dictionary's output in place of the vectors, minus without; over groups
    most_fvu: float
    rows: int  # places of cases
    within: dict[str, float]  # by place, FVU of errors and vectors each less the place's mean: of what differs between cases
    left_out: tuple[str, ...]  # places that are a special token in some case

    @property
    def passed(self) -> bool:
        return self.fvu <= self.most_fvu


@torch.no_grad()
def missed(d: Dictionary, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a dictionary on inputs x [n, d_in] and targets y [n, d_out], each [n]: squared error, squared distance from the mean target, L0.

    FVU is the first's sum over the second's.
    """
    rows = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    latents = d.encode(rows)
    y_hat, target = d.decode(latents, rows).double().numpy(), y.astype(np.float64)
    return np.square(target - y_hat).sum(1), np.square(target - target.mean(0)).sum(1), latents.counts.double().numpy()


def fvu_of(d: Dictionary, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """FVU and L0 of a dictionary on inputs x [n, d_in] and targets y [n, d_out]."""
    left, whole, l0 = missed(d, x, y)
    return float(left.sum() / whole.sum()), float(l0.mean())


@dataclass(frozen=True)
class Damage:
    """What an edit does where it should do nothing, with what is allowed."""

    kl: Estimate  # KL(clean, edited) of the next token, on neutral prompts; nats
    delta_ce: Estimate  # on reference text, edited at every ordinary token; nats a token
    accuracy: Estimate  # change of the share of right answers on easy questions
    most_kl: float
    most_ce: float
    most_lost: float

    @property
    def passed(self) -> bool:
        lost = self.accuracy.value >= -self.most_lost
        return self.kl.value <= self.most_kl and self.delta_ce.value <= self.most_ce and lost


def kl_on(tails: Tails, edits: Sequence[Intervention]) -> np.ndarray:
    """KL(clean, edited) of the next token of every prompt [n], nats."""
    clean = tails.clean

    def against(log_p: torch.Tensor, numbers: list[int]) -> torch.Tensor:
        before = clean[numbers]
        return (before.exp() * (before - log_p)).sum(-1).clamp_min(0)

    return tails.read(against, edits)[:, 0].double().numpy()


@torch.no_grad()
def ce_change(target: Target, texts: Sequence[str], edits: Sequence[Intervention]) -> tuple[np.ndarray, np.ndarray]:
    """Per predicted token: CE under `edits` (at every ordinary token) minus CE without, and the text that it belongs to."""
    model, change, owner = target.model, [], []
    for number, text in enumerate(texts):
        ids = torch.tensor(model.tokenize(text))[None]
        where = model.ordinary(ids)
        found = []
        for active in ((), edits):
            made = [e for edit in active for e in edit.edits(where)[0]]
            with model.edit(*made):
                log_p = model.logits(ids).float().log_softmax(-1).cpu()
            found.append(-log_p[0, :-1].gather(-1, ids[0, 1:, None].cpu())[:, 0].double().numpy())
        change.append(found[1] - found[0])
        owner.append(np.full(len(found[0]), number))
    return np.concatenate(change), np.concatenate(owner)
