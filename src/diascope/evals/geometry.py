"""What the weights and the firing rates say: redundancy, how decoder and encoder lie to one another, and how often latents fire.

redundancy          mean over latents of the largest cosine of its decoder row with another's
doubles             share of latents for which that cosine exceeds 0.9
encoder . decoder   mean cosine of a latent's encoder column and decoder row, where both live at the same sites
reconstruction bias E|y_hat|^2 / E[y . y_hat], both about the mean of y: below 1 a dictionary shrinks (Rajamanoharan et al. 2024,
                    appendix; there the output is what is divided)
density quantiles   share of tokens on which a latent fires: at 10 %, 50 %, 90 % of the latents that fired
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.evals.entry import Entry
from diascope.numerics import Estimate, ratio_over_documents


@dataclass(frozen=True)
class Geometry:
    """Cosines above `double` make two latents the same."""

    double: float = 0.9


@torch.no_grad()
def geometry(d: Dictionary, x: Tensor, y: Tensor, documents: np.ndarray, config: Geometry | None = None) -> Entry:
    """Of a dictionary, its inputs x [n, d_in] and targets y [n, d_out], with the document of each row [n]."""
    config = config or Geometry()
    nearest = torch.cat([largest_cosine(W) for W in d.decoders]).numpy()
    counts, bias = _streamed(d, x, y, documents)
    # a dictionary of which nothing fires writes one vector: its products with y about the mean are rounding
    bias = bias if counts.any() else None
    result: dict[str, Estimate | float | None] = {
        "redundancy": float(nearest.mean()),
        "doubles": float((nearest > config.double).mean()),
        "reconstruction bias": bias,
    }
    if d.config.sites_in == d.config.sites_out and len(d.blocks) == 1:
        result["encoder . decoder"] = float(torch.cosine_similarity(d.W_enc.t(), d.W_dec, dim=1).mean())
    density = counts[counts > 0] / len(x)
    if len(density):
        result |= {f"density at {q} %": float(np.quantile(density, q / 100)) for q in (10, 50, 90)}
    run = {"tokens": len(x), "latents": d.d_sae, "latents that fired": int((counts > 0).sum())}
    histogram = np.histogram(np.log10(density), bins=np.arange(-6, 0.5, 0.5))[0] if len(density) else []
    return Entry(config, run, result, details={"density, half decades from 1e-6": list(map(int, histogram))})


def largest_cosine(W: Tensor, *, chunk: int = 2048) -> Tensor:
    """The largest cosine of each row of W [n, d] with another row [n]; a zero row has 0, and a lone one too."""
    W = W / W.norm(dim=1, keepdim=True).clamp_min(1e-30)
    if len(W) < 2:
        return torch.zeros(len(W))
    out = []
    for first in range(0, len(W), chunk):
        c = W[first : first + chunk] @ W.t()
        c[torch.arange(len(c)), torch.arange(first, first + len(c))] = -2
        out.append(c.amax(1))
    return torch.cat(out)


def _streamed(d: Dictionary, x: Tensor, y: Tensor, documents: np.ndarray) -> tuple[np.ndarray, Estimate]:
    """(firings a latent [S], reconstruction bias), some rows at a time."""
    counts, mean = torch.zeros(d.d_sae, dtype=torch.int64), y.double().mean(0)
    above, below = [], []
    for a, b in zip(x.split(2048), y.split(2048), strict=True):
        f = d.encode(a)
        counts += torch.bincount(f.index, minlength=d.d_sae)
        y_hat = d.decode(f, a if d.config.skip else None).double() - mean
        above.append(y_hat.square().sum(1))
        below.append((y_hat * (b.double() - mean)).sum(1))
    return counts.numpy(), ratio_over_documents(torch.cat(above).numpy(), torch.cat(below).numpy(), documents)
