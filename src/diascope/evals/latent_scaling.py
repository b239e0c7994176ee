"""Latents that one of two models seems to have alone: are they really its own? (Minder, Dumas et al. 2025, arXiv:2504.02922)

A crosscoder over models a and b gives every latent two decoder rows. Where the row for a is near zero the latent looks like b's
own, and often is not: the penalty may have shrunk a's row (complete shrinkage), or other latents may write the same for a
(latent decoupling). Latent scaling asks the data. With f [n] the latent's activations and d its row for b,

    beta(Y) = d . (Y^T f) / (|f|^2 |d|^2)         how much of f d there is in Y [n, d]
    nu_error          = beta(y_a - y_hat_a + own part of a) / beta(y_b - y_hat_b + own part of b)
    nu_reconstruction = beta(y_hat_a - own part of a) / beta(y_hat_b)

Near 0 both: the latent is b's own. nu_error near 1: a's row was shrunk away. nu_reconstruction near 1: other latents write it
for a. The same with a and b exchanged for latents that look like a's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.dictionaries.site_maps import stretches
from diascope.kernels import weight_gradient

OWN = 0.1  # relative norms within this of 0 or 1 look like one model's own
PRESENT = 0.5  # a latent counts as its model's own when both ratios are below


@dataclass(frozen=True)
class LatentScaling:
    """Per latent [S]: relative norm (0 only a, 1 only b), and the two ratios towards the model whose row is longer."""

    norm: Tensor
    error: Tensor
    reconstruction: Tensor
    fired: Tensor  # rows on which it fires
    sites: tuple[str, str]

    def card(self, most: int = 20) -> dict[str, Any]:
        """JSON-ready: for each model's site how many latents look like its own, how many are, and the clearest of them."""
        models: dict[str, Any] = {}
        for name, near in zip(self.sites, (self.norm < OWN, self.norm > 1 - OWN), strict=True):
            looks = near & (self.fired > 0)
            own = looks & (self.error.abs() < PRESENT) & (self.reconstruction.abs() < PRESENT)
            worst = torch.maximum(self.error.abs(), self.reconstruction.abs())
            first = torch.where(looks, worst, torch.inf).argsort()[: min(most, int(looks.sum()))]
            models[name] = {
                "look_like_its_own": int(looks.sum()),
                "are_its_own": int(own.sum()),
                "shrunk_away": int((looks & (self.error >= PRESENT)).sum()),
                "written_by_others": int((looks & (self.reconstruction >= PRESENT)).sum()),
                "clearest": [
                    {"latent": int(j), "norm": float(self.norm[j]), "nu_error": float(self.error[j]),
                     "nu_reconstruction": float(self.reconstruction[j]), "fired": int(self.fired[j])}
                    for j in first
                ],
            }  # fmt: skip
        shared = ((self.norm >= OWN) & (self.norm <= 1 - OWN) & (self.fired > 0)).sum()
        silent = int((self.fired == 0).sum())
        return {"schema": "diascope-latent-scaling-1", "sites": models, "shared": int(shared), "silent": silent}


def of_two_models(d: Dictionary) -> bool:
    """Whether `d` is a crosscoder over one site of each of two models, of one width."""
    models, widths = {s.model for s in d.config.writes}, d.config.widths_out
    return d.config.kind == "crosscoder" and len(widths) == len(models) == 2 and widths[0] == widths[1] and len(d.blocks) == 1


class Scaling:
    """Latent scaling piece by piece: `add` rows, then ask for the `result`.

    Raises ValueError for other dictionaries than two-model crosscoders.
    """

    def __init__(self, d: Dictionary) -> None:
        if not of_two_models(d):
            raise ValueError(f"latent scaling compares two models at one site each; this is a {d.config.title}")
        self.d, self.places = d, dict(zip("ab", stretches(d.config.widths_out), strict=True))
        self.rows = [d.W_dec.detach()[:, w] for w in self.places.values()]
        self.lengths = [r.norm(dim=1) for r in self.rows]
        self.direction = torch.where((self.lengths[1] >= self.lengths[0])[:, None], self.rows[1], self.rows[0])
        self.squared, self.fired = torch.zeros(d.d_sae), torch.zeros(d.d_sae)
        self.products = {f"{key} {name}": torch.zeros(d.d_sae) for key in ("error", "reconstruction") for name in "ab"}

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Rows x [n, 2 d_model]."""
        d = self.d
        for part in x.split(4096):
            f = d.encode(part)
            y_hat = d.decode(f)
            self.squared.index_add_(0, f.index, f.value.square())
            self.fired.index_add_(0, f.index, torch.ones_like(f.value))
            for name, where in self.places.items():
                left, written = part[:, where] - y_hat[:, where], y_hat[:, where] - d.b_dec[where]
                for key, Y in (("error", left), ("reconstruction", written)):
                    self.products[f"{key} {name}"] += (weight_gradient(f, Y.contiguous()) * self.direction).sum(1)

    @torch.no_grad()
    def result(self) -> LatentScaling:
        """Of all rows that were added."""
        d, lengths, square = self.d, self.lengths, self.direction.square().sum(1)
        norm = 0.5 * (1 + (lengths[1] - lengths[0]) / torch.maximum(*lengths).clamp_min(1e-12))
        scale = (self.squared * square).clamp_min(1e-12)
        beta = {key: value / scale for key, value in self.products.items()}
        own = [(r * self.direction).sum(1) / square.clamp_min(1e-12) for r in self.rows]  # a row's share of d
        towards_b = lengths[1] >= lengths[0]
        error = _ratio(beta["error a"] + own[0], beta["error b"] + own[1], towards_b)
        reconstruction = _ratio(
            beta["reconstruction a"] - torch.where(towards_b, own[0], 0.0),
            beta["reconstruction b"] - torch.where(towards_b, 0.0, own[1]),
            towards_b,
        )
        return LatentScaling(norm, error, reconstruction, self.fired, (d.config.sites_out[0], d.config.sites_out[1]))


def latent_scaling(d: Dictionary, x: Tensor) -> LatentScaling:
    """Latent scaling of a two-model crosscoder on rows x [n, 2 d_model].

    Raises ValueError for other dictionaries.
    """
    scaling = Scaling(d)
    scaling.add(x)
    return scaling.result()


def _ratio(a: Tensor, b: Tensor, towards_b: Tensor) -> Tensor:
    """a / b where b is the longer, else b / a; 0 where the divisor is."""
    top, below = torch.where(towards_b, a, b), torch.where(towards_b, b, a)
    return torch.where(
        below.abs() > 1e-6, top / below.where(below.abs() > 1e-6, torch.ones_like(below)), torch.zeros_like(below)
    )
