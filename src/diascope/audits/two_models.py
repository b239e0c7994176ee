"""Two models on the same tokens: where they part, which latents fire otherwise, and whether putting those back brings one to the other.

    reference A, target B, prompts, a dictionary of A (optional) -> divergence, frequency, patch: three findings

1. KL(A, B) of the next token at every position of every prompt; its mean over places (before the request, in it, after it, the last
   token) and over the sides of the contrast: prompts that wake the difference are its trigger. Distances of vectors a layer.
2. Latents of both models' vectors at the dictionary's site. A latent's rate in a group of prompts is the share of their tokens on
   which it fires; latents are tested for B minus A by exchanging A and B inside groups (statistics.search: p pays for the search, q is
   Benjamini's and Hochberg's). The `most` strongest ones with q <= level are chosen on training and validation groups, tested on test ones.
3. Latent scaling (Minder et al. 2025, arXiv:2504.02922), for one dictionary over both: with f a latent's activations in B and d its
   row, beta(Y) = d . (Y^T f) / (|f|^2 |d|^2) and nu = beta(y_A) / beta(y_B), y less the dictionary's bias: near 0, B alone has it.
4. Patch, on test prompts: in B, the chosen latents are given A's activations at the template's last ordinary tokens, all else stays. Effect:
   how many nats of KL at the last token that takes away. Controls: as many other latents that fire as often. Beside it: all latents,
   and A's whole vectors at the same tokens (the most that this site can do there).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.audits import statistics
from diascope.audits.latent_sets import OfLatents, masks
from diascope.audits.operators import Intervention, Whole
from diascope.audits.spans import Prompt, ordinary, ordinary_tail
from diascope.audits.study import others_alike
from diascope.audits.target import Tails, Target
from diascope.dictionaries import Dictionary
from diascope.numerics import Estimate
from diascope.sites import Site

FULL = 4  # prompts whose whole vocabulary is held at every position
PLACES = ("before", "request", "after", "last")


# -- where they part -------------------------------------------------------------------------------------------------------
@torch.no_grad()
def divergence(a: Target, b: Target, prompts: Sequence[Prompt]) -> list[np.ndarray]:
    """KL(A, B) of the next token at every position of every prompt, nats: one [T] a prompt."""
    out: list[np.ndarray] = [np.empty(0)] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens))
    for start in range(0, len(order), FULL):
        numbers = order[start : start + FULL]
        ids = [list(prompts[i].tokens) for i in numbers]
        one, two = (t.model.logits(ids).float().log_softmax(-1) for t in (a, b))
        kl = kl_of(one, two).cpu().numpy()
        for row, i in enumerate(numbers):
            out[i] = kl[row, : len(prompts[i].tokens)].astype(np.float64)
    return out


def kl_of(a: Tensor, b: Tensor) -> Tensor:
    """KL(a, b) over the last axis of two log-probabilities, nats."""
    return (a.exp() * (a - b)).sum(-1).clamp_min(0)


def by_place(kl: Sequence[np.ndarray], prompts: Sequence[Prompt], groups: np.ndarray, seed: int) -> dict[str, Estimate]:
    """The mean KL at each of PLACES, a prompt being one observation; intervals over groups."""
    found = {name: np.array([_mean(k, p, name) for k, p in zip(kl, prompts, strict=True)]) for name in PLACES}
    return {name: statistics.mean(v, groups, seed=seed) for name, v in found.items() if not np.isnan(v).any()}


def _mean(kl: np.ndarray, p: Prompt, name: str) -> float:
    request, n = p.spans["request"], len(kl)
    where = {"before": slice(1, request.start), "request": request, "after": slice(n - p.tail, n), "last": slice(n - 1, n)}[
        name
    ]
    return float(kl[where].mean()) if len(kl[where]) else float("nan")


def distances(a: Target, b: Target, prompts: Sequence[Prompt]) -> dict[str, float]:
    """|y_B - y_A| / |y_A| at the last token after each block, the mean over prompts."""
    one, two = (t.vectors(prompts, t.sites, ["last"])[:, :, 0] for t in (a, b))
    relative = ((two - one).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-12)).mean(0)
    return {str(site): float(r) for site, r in zip(b.sites, relative, strict=True)}


# -- latents ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Firing:
    """What a dictionary sees of both models, A first."""

    rates: tuple[np.ndarray, np.ndarray]  # [groups, S]: share of the tokens of a group's prompts on which each latent fires
    groups: tuple[str, ...]
    nu: np.ndarray  # [S], latent scaling; nan where a latent does not fire in B
    fvu: tuple[float, float]

    def contrast(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rates [2 n, S], whether of B [2 n], group [2 n]) of the groups numbered `rows`."""
        one, two = (r[rows] for r in self.rates)
        return np.concatenate([one, two]), np.repeat([False, True], len(rows)), np.tile(rows, 2)


@torch.no_grad()
def firing(a: Target, b: Target, prompts: Sequence[Prompt], d: Dictionary) -> Firing:
    """Latents of every token of every prompt but the first and special ones, in both models."""
    names = tuple(dict.fromkeys(p.case.group for p in prompts))
    number = {g: i for i, g in enumerate(names)}
    count, tokens = np.zeros((2, len(names), d.d_sae)), np.zeros(len(names))
    squared, beta = torch.zeros(d.d_sae), torch.zeros(2, d.d_sae)
    left, moments = [0.0, 0.0], [_Spread(), _Spread()]
    W = d.W_dec.detach().float()
    for numbers in b.batches(prompts):
        seen = [t.model.capture([list(prompts[i].tokens) for i in numbers], list(dict.fromkeys(d.sites))) for t in (a, b)]
        for row, i in enumerate(numbers):
            p = prompts[i]
            g, where = number[p.case.group], ordinary(b.model, p.tokens, slice(1, len(p.tokens)))
            x, y = ([s[site][row, where].float().cpu() for s in seen] for site in (d.site_in, d.site_out))
            tokens[g] += len(y[0])
            latents = [d.encode(v) for v in x]
            for m in (0, 1):
                count[m, g] += np.bincount(latents[m].index.numpy(), minlength=d.d_sae)
                left[m] += float((y[m] - d.decode(latents[m], x[m])).double().square().sum())
                moments[m].add(y[m])
                beta[m] += ((latents[1].dense().T @ (y[m] - d.b_dec)) * W).sum(1)
            squared.index_add_(0, latents[1].index, latents[1].value.square())
    nu = torch.where((squared > 0) & (beta[1].abs() > 1e-6), beta[0] / beta[1], torch.nan)
    rates = count / np.maximum(tokens, 1)[None, :, None]
    return Firing((rates[0], rates[1]), names, nu.numpy(), (left[0] / moments[0].total, left[1] / moments[1].total))


class _Spread:
    """The sum of squares about the mean of rows that come in parts."""

    def __init__(self) -> None:
        self.n, self.sum, self.square = 0, torch.zeros(1, dtype=torch.float64), 0.0

    def add(self, rows: Tensor) -> None:
        self.n += len(rows)
        self.sum = self.sum + rows.double().sum(0)
        self.square += float(rows.double().square().sum())

    @property
    def total(self) -> float:
        return max(self.square - float(self.sum.square().sum()) / max(self.n, 1), 1e-30)


# -- patch -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Patched:
    """Nats of KL(A, B) at the last token of test prompts: before, taken away by the chosen latents, and beside them."""

    before: Estimate
    removed: Estimate
    share: float  # of what was there
    p: float
    controls: np.ndarray  # [K], mean nats removed
    all_latents: Estimate
    whole_vectors: Estimate


@torch.no_grad()
def patch(
    a: Target,
    b: Target,
    prompts: Sequence[Prompt],
    d: Dictionary,
    chosen: np.ndarray,
    rate: np.ndarray,
    *,
    controls: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda note: None,
) -> Patched:
    """Give B the activations that `chosen` latents have in A. `rate` [S] is how often latents fire: controls are drawn alike."""
    draw = rng.generator(seed, "patch controls")
    sets = [chosen, *others_alike(rate, chosen, controls, draw)]
    rows = masks(d, [*sets, np.arange(d.d_sae)])  # all latents last
    order = sorted(prompts, key=lambda p: len(p.tokens))  # so that a batch of Tails holds them in this order
    parts = []
    for start in range(0, len(order), b.batch):
        progress(f"patch: prompt {start} of {len(order)}")
        parts.append(_patched(a, b, order[start : start + b.batch], d, rows))
    kl = np.concatenate(parts)  # [n, 1 + sets + all + vectors]
    groups = np.array([p.case.group for p in order])
    removed = kl[:, :1] - kl[:, 1:]
    found = removed[:, 1 : len(sets)].mean(0)
    mean = lambda v: statistics.mean(v, groups, seed=seed)  # noqa: E731
    p = statistics.p_value(float(removed[:, 0].mean()), found)
    share = float(removed[:, 0].mean() / max(kl[:, 0].mean(), 1e-12))
    return Patched(mean(kl[:, 0]), mean(removed[:, 0]), share, p, found, mean(removed[:, -2]), mean(removed[:, -1]))


def _patched(a: Target, b: Target, prompts: Sequence[Prompt], d: Dictionary, sets: Tensor) -> np.ndarray:
    """KL(A, B) at the last token of one batch: without an edit, under each of `sets`, and with A's whole vectors."""
    ours, theirs = Tails(b, prompts), Tails(a, prompts)
    target = theirs.read(lambda log_p, _: log_p)[:, 0]
    measure = lambda log_p, numbers: kl_of(target[numbers], log_p)  # noqa: E731
    x, y = (_tail(a, prompts, site, ours.tail) for site in (d.site_in, d.site_out))
    f = d.encode(x.reshape(-1, x.shape[-1])).dense().view(*x.shape[:-1], -1)
    where = ordinary_tail(b.model, prompts)
    found = [ours.read(measure)]
    together = max(1, b.rows // len(prompts))
    for some in sets.split(together):
        found.append(ours.read(measure, [Intervention(OfLatents(d, f, some, where), label="A's latents")], repeats=len(some)))
    found.append(ours.read(measure, [Intervention(Whole(y, where), (d.site_out,), label="A's vectors")]))
    return torch.cat(found, 1).double().numpy()


def _tail(a: Target, prompts: Sequence[Prompt], site: Site, tail: int) -> Tensor:
    """A's vectors at the last `tail` tokens [prompts, tail, d]."""
    seen: Any = a.model.capture([list(p.tokens) for p in prompts], [site])[site].float().cpu()
    return torch.stack([seen[row, len(p.tokens) - tail : len(p.tokens)] for row, p in enumerate(prompts)])
