"""What a dictionary makes of the audited tokens: latents of every case at each place, and how much of the vectors it misses.

1. Special tokens (BOS, turn markers) are left out: dictionaries are trained without them, Gemma Scope 2's as ours. A place that is such
   a token in some case is left out whole; where that leaves none, all are read.
2. A place of several tokens has the mean of its tokens' latents. The latents of their mean vector are something else: the model never
   holds that vector, and no dictionary is trained on such.
3. FVU = sum of |e|^2 over sum of |y - mean y|^2, e = y - y_hat; a place of a case counts as one row, each of its tokens as a share of it.
   Beside it, by place, sum of |e - mean e|^2 over sum of |y - mean y|^2 with the place's own means: of what differs there. That is
   harder, since most of what tells the template's tokens apart is which of them it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.audits import gates
from diascope.audits.spans import Prompt, ordinary
from diascope.audits.target import Target
from diascope.dictionaries import Dictionary
from diascope.numerics import Estimate


@dataclass(frozen=True)
class Encoded:
    """Latents of n cases and the dictionary's fidelity on the vectors that they are of."""

    latents: dict[str, Any]  # by place, scipy CSR [n, S]
    missed: np.ndarray  # [n, places]: squared error
    spread: np.ndarray  # [n, places]: squared distance from the mean target of all places
    own_missed: np.ndarray  # [places]: squared error about the place's mean error, sum over cases
    own_spread: np.ndarray  # [places]: squared distance from the place's own mean target, sum over cases
    l0: float  # active latents a token
    left_out: tuple[str, ...]  # places that are a special token in some case

    @property
    def fvu(self) -> float:
        """On all places of all cases."""
        return float(self.missed.sum() / self.spread.sum())

    @property
    def within(self) -> dict[str, float]:
        """By place, of what differs there: an error that all cases share is none. NaN where the cases do not differ."""
        some = self.own_spread > 1e-9 * self.spread.sum(0)
        share = np.divide(self.own_missed, self.own_spread, out=np.full(len(some), np.nan), where=some)
        return dict(zip(self.latents, share.tolist(), strict=True))

    def fidelity(self, change: Estimate, most_fvu: float) -> gates.Fidelity:
        """With the `change` of the outcome when the dictionary's output stands in the place of the vectors."""
        return gates.Fidelity(self.fvu, self.l0, change, most_fvu, self.missed.size, self.within, self.left_out)


@torch.no_grad()
def encoded(
    target: Target, prompts: Sequence[Prompt], d: Dictionary, places: Sequence[str], sides: np.ndarray | None = None
) -> Encoded:
    """Latents at `places` of all prompts; fidelity on those of `sides` [n] (bool), all where None."""
    where = {p: [ordinary(target.model, x.tokens, x.place(p)) for x in prompts] for p in places}
    kept = [p for p in places if all(map(len, where[p]))]
    left_out = tuple(p for p in places if p not in kept) if kept else ()
    if not kept:
        kept = list(places)
        where = {p: [torch.arange(len(x.tokens))[x.place(p)] for x in prompts] for p in places}
    found: list[Any] = [None] * len(prompts)
    for numbers in target.batches(prompts):
        seen = target.model.capture([list(prompts[i].tokens) for i in numbers], list(dict.fromkeys(d.sites)))
        for row, i in enumerate(numbers):
            x, y = (seen[site][row].float().cpu() for site in (d.site_in, d.site_out))
            found[i] = _of_case(d, x, y, [where[p][i] for p in kept])
    return _together(found, kept, np.ones(len(prompts), bool) if sides is None else sides, left_out)


@dataclass(frozen=True)
class _Case:
    """One case at P places; y are targets."""

    latents: Any  # CSR [P, S]
    missed: np.ndarray  # [P]
    square: np.ndarray  # [P]: mean |y|^2
    mean: np.ndarray  # [P, d_out]: mean y
    error: np.ndarray  # [P, d_out]: mean e
    l0: np.ndarray  # [P]


def _of_case(d: Dictionary, x: Tensor, y: Tensor, places: Sequence[Tensor]) -> _Case:
    """From vectors x [T, d_in] and y [T, d_out] of a prompt's tokens, and the tokens of each place."""
    from scipy.sparse import csr_matrix

    tokens = torch.cat(list(places))
    f = d.encode(x[tokens])
    error, target = (v.double().numpy() for v in (y[tokens] - d.decode(f, x[tokens]), y[tokens]))
    n = [len(p) for p in places]
    share: Any = csr_matrix(
        (np.repeat(1 / np.array(n), n), np.arange(len(tokens)), np.cumsum([0, *n])), shape=(len(n), len(tokens))
    )
    latents = csr_matrix((f.value.float().numpy(), f.index.numpy(), f.start.numpy()), shape=(len(tokens), d.d_sae))
    missed, square, l0 = np.square(error).sum(1), np.square(target).sum(1), f.counts.double().numpy()
    return _Case((share @ latents).tocsr(), share @ missed, share @ square, share @ target, share @ error, share @ l0)


def _together(found: Sequence[_Case], places: Sequence[str], sides: np.ndarray, left_out: tuple[str, ...]) -> Encoded:
    from scipy.sparse import vstack

    latents = {p: vstack([c.latents[k] for c in found], format="csr") for k, p in enumerate(places)}
    some = [c for c, counted in zip(found, sides, strict=True) if counted]
    missed, square, mean, error, l0 = (
        np.stack([getattr(c, name) for c in some]) for name in ("missed", "square", "mean", "error", "l0")
    )
    centre = mean.mean((0, 1))
    spread = square - 2 * mean @ centre + centre @ centre
    about = lambda squares, means: (squares.mean(0) - np.square(means.mean(0)).sum(-1)) * len(some)  # noqa: E731
    return Encoded(latents, missed, spread, about(missed, error), about(square, mean), float(l0.mean()), left_out)
