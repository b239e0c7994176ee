"""The sparse half: can a few latents of a dictionary say what the dense readout says, at its own site?

1. Latents of every case at each place (encoded.py).
2. Each latent is tested on training cases by permuting labels inside groups; the largest statistic of each permutation over all
   latents makes p pay for the search (statistics.search), q controls false discoveries beside it.
3. k latents by the training statistic, and a logistic probe on them; place and k are chosen on validation cases.
4. coverage@k: the R^2 with which k decoder rows give a direction at the dictionary's output (orthogonal matching pursuit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diascope.audits import statistics
from diascope.audits.statistics import Selected, ordered
from diascope.dictionaries import Dictionary
from diascope.evals.probes import Probe, fit
from diascope.sites import ADDED, STREAM

KS = (1, 2, 5, 10)
WRITTEN = STREAM + ADDED  # sites whose vectors the unembedding can read


@dataclass(frozen=True)
class Few:
    """k latents and a probe on them."""

    place: str
    latents: tuple[int, ...]
    probe: Probe
    validation: float  # AUROC there
    selected: Selected  # of all latents, at this place

    def score(self, f: Any) -> np.ndarray:
        """[n] of latents f [n, S] (scipy's sparse)."""
        return self.probe.score(f[:, list(self.latents)].toarray())


def search(
    f: dict[str, Any],
    y: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    draws: int = statistics.PERMUTATIONS,
    seed: int = 0,
) -> list[Few]:
    """The best probe for each k, from latents f {place: [n, S]}; by rising k."""
    best: dict[int, Few] = {}
    even = np.ones(int(validation.sum()))
    for place, latents in f.items():
        found = statistics.search(latents[train], y[train], groups[train], draws=draws, seed=seed)
        order = np.argsort(-np.abs(found.statistic), kind="stable")
        for k in ks:
            chosen = tuple(order[:k].tolist())
            probe = fit(latents[train][:, list(chosen)].toarray(), y[train].astype(int), standardise=True, balanced=True)
            held = probe.score(latents[validation][:, list(chosen)].toarray())
            worth = float(ordered(y[validation], held)(even))
            if k not in best or worth > best[k].validation:
                best[k] = Few(place, chosen, probe, worth, found)
    return [best[k] for k in sorted(best)]


def coverage(d: Dictionary, direction: np.ndarray, k: int) -> float:
    """R^2 of `direction` [d_out] by the best k decoder rows that matching pursuit finds."""
    from sklearn.linear_model import orthogonal_mp

    W, v = d.W_dec.detach().double().cpu().numpy().T, direction.astype(np.float64)
    rest = v - W @ orthogonal_mp(W, v, n_nonzero_coefs=min(k, W.shape[1]))
    return float(1 - rest @ rest / (v @ v))


def words_of(model: Any, d: Dictionary, latent: int) -> list[str]:
    """`promoted` of what `latent` writes; none where the dictionary does not write into the residual stream (attn_out, mlp_in)."""
    row = next(iter(d.direction(latent).values())).detach().cpu().numpy()
    return promoted(model, row) if d.site_out.kind in WRITTEN and len(row) == model.d_model else []


def promoted(model: Any, direction: np.ndarray, n: int = 8) -> list[str]:
    """The tokens whose logits `direction` raises most, through the final norm's gain (logit lens)."""
    gain = model.final_norm_gain().cpu()
    logits = model.unembedding.float().cpu() @ (gain * torch.from_numpy(np.asarray(direction, np.float32)))
    ordinary = model.ordinary(torch.arange(len(logits))).cpu()
    return [model.tokenizer.decode([int(i)]) for i in torch.where(ordinary, logits, -torch.inf).topk(n).indices]
