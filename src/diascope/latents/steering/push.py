"""A push: one direction, the way in which it is changed, and how far.

With y a vector at the site, v the direction and c = y.v / v.v the multiple of v that y holds along it:

additive     y + dose v                       what most people mean by steering
orthogonal   y + (dose - c) v                 what y holds along v is replaced: it holds exactly dose v afterwards
cap          y + (min(c, dose) - c) v         at most dose v: nothing happens where y holds less; -v and -dose make a floor
clamp        y + (dose - f(x)) v              latents only: f(x) is the latent's own activation, of the dictionary's input

Doses count directions as they are stored. A latent's is its decoder row, so its doses are activations; `per_norm` says how
many of them make one typical vector at the site, `typical_norms` what is typical.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.edits import Edit, flat
from diascope.models.model import Model
from diascope.sites import Site

METHODS = ("additive", "orthogonal", "cap", "clamp")


@dataclass(frozen=True)
class Push:
    """`dose` of a direction at every site that it is written to. Made by `of_latent` and `of_vector`."""

    direction: Mapping[Site, Tensor]
    """The direction [d] at each site."""
    dose: float
    """How much of it, in multiples of the direction."""
    method: str = "additive"
    """additive, orthogonal, cap or clamp."""
    latent: tuple[Dictionary, int] | None = None
    """Whose direction it is, where it is a latent's."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"there is no method {self.method!r}: there is {', '.join(METHODS)}")
        if not math.isfinite(self.dose):
            raise ValueError(f"the dose is {self.dose}: give a finite number")
        if self.method == "clamp" and self.latent is None:
            raise ValueError("clamp sets a latent's activation, and a vector has none: use orthogonal for a vector")
        lengths = {site: float(v.norm()) for site, v in self.direction.items()}
        if not lengths or not all(math.isfinite(n) and n > 0 for n in lengths.values()):
            raise ValueError(f"a direction needs a finite length above 0, got {lengths}: it points nowhere")

    @classmethod
    def of_latent(cls, d: Dictionary, latent: int, *, dose: float, method: str = "additive") -> Push:
        """Push along what `latent` of `d` writes; a dose of 1 is one unit of its activation."""
        written = {site: v for site, v in d.direction(latent).items() if bool(v.any())}
        return cls(written, dose, method, (d, latent))

    @classmethod
    def of_vector(cls, site: str | Site, vector: Tensor | Sequence[float], *, dose: float, method: str = "additive") -> Push:
        """Push along `vector` [d] at `site`; a dose of 1 adds it once."""
        v = torch.as_tensor(vector, dtype=torch.float32).detach()
        if v.ndim != 1:
            raise ValueError(f"a vector has one axis, this has shape {tuple(v.shape)}")
        return cls({Site.parse(site): v}, dose, method)

    def edits(self) -> tuple[Edit, ...]:
        """For `model.edit`. ValueError where a latent's activation cannot be known while the model runs (crosscoders)."""
        if self.latent is not None and self.method in ("additive", "clamp"):
            d, j = self.latent
            return flat([d.steer(j, dose=self.dose) if self.method == "additive" else d.clamp(j, self.dose)])
        return tuple(
            Edit(site, site, self._along(v), label=f"{self.method} {self.dose:g}") for site, v in self.direction.items()
        )

    def per_norm(self, norms: Mapping[Site, float]) -> float:
        """How many directions are as long as a typical vector, at the first site that is written (`typical_norms`)."""
        first = min(self.direction, key=lambda s: s.depth)
        return norms[first] / float(self.direction[first].norm())

    def _along(self, v: Tensor) -> Any:
        if self.method == "additive":
            return lambda _, y: y + (self.dose * v).to(y)

        def function(_: Tensor, y: Tensor) -> Tensor:
            w = v.to(y.device, torch.float32)
            held = y.float() @ w / (w @ w)
            wanted = held.clamp_max(self.dose) if self.method == "cap" else torch.full_like(held, self.dose)
            return y.float() + (wanted - held)[..., None] * w

        return function


def typical_norms(model: Model, sites: Sequence[Site], tokens: Any) -> dict[Site, float]:
    """The median length of the model's vectors at `sites`, over the ordinary tokens of `tokens` (texts, or ids [B, T])."""
    seen = model.capture(tokens, list(sites))
    if not bool(seen.mask.any()):
        raise ValueError("these tokens are all special: give some text to measure what is typical on")
    return {site: float(seen[site][seen.mask].float().norm(dim=-1).median()) for site in sites}


def check_sites(model: Model, pushes: Sequence[Push]) -> None:
    """ValueError for a site that `model` lacks, that is another model's, or whose width a direction does not have."""
    for push in pushes:
        for site, v in push.direction.items():
            if site.model not in (None, model.name):
                raise ValueError(f"{site} is a site of the model {site.model!r}: steer that one")
            if model.width(site) != len(v):
                raise ValueError(
                    f"{site} of {model.name} has vectors of {model.width(site)} numbers, the direction has {len(v)}"
                )
