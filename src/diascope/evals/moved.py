"""What moved when a dictionary was trained further: directions, firing rates and errors, latent by latent.

    decoder, encoder     cosine of each latent's rows before and after
    frequency            share of the rows on which it fires, before and after
    fvu                  before, after and after minus before, on the same rows (`evals.paired`), whole and by role

A latent with decoder cosine near 1 may keep its name; one far below needs to be looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from diascope.dictionaries import Dictionary
from diascope.evals.paired import Series, difference
from diascope.numerics import deviations

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Moved:
    """Per latent [S]: cosines, and shares of rows on which it fires; `errors` before and after, by role."""

    decoder: Tensor
    encoder: Tensor
    before: Tensor
    after: Tensor
    errors: dict[str, tuple[Series, Series]]
    rows: int

    def report(self, most: int = 20) -> dict[str, Any]:
        """JSON-ready: quantiles, shares, and the latents whose decoders turned most among those that fire."""
        alive = (self.before > 0) & (self.after > 0)
        ratio = (self.after[alive] / self.before[alive]).log2().abs()
        order = torch.where(self.after > 0, self.decoder, 2.0).argsort()[: min(most, int((self.after > 0).sum()))]
        latents = [
            {"latent": int(j), **{n: float(getattr(self, n)[j]) for n in ("decoder", "encoder", "before", "after")}}
            for j in order
        ]
        return {
            "schema": "diascope-moved-1",
            "rows": self.rows,
            "decoder_cosine": _quantiles(self.decoder),
            "encoder_cosine": _quantiles(self.encoder),
            "decoder_cosine_below": {str(c): float((self.decoder < c).float().mean()) for c in (0.5, 0.9, 0.99)},
            "frequency": {
                "alive_before": int((self.before > 0).sum()),
                "alive_after": int((self.after > 0).sum()),
                "woke": int(((self.before == 0) & (self.after > 0)).sum()),
                "fell_silent": int(((self.before > 0) & (self.after == 0)).sum()),
                "twice_as_often_or_half": float((ratio > 1).float().mean()) if len(ratio) else 0.0,
            },
            "fvu": {
                role: {
                    "before": asdict(a.fvu()),
                    "after": asdict(b.fvu()),
                    "after_minus_before": asdict(difference(b, a)["fvu"]),
                }
                for role, (a, b) in self.errors.items()
            },
            "turned_most": latents,
        }


@torch.no_grad()
def moved(
    before: Dictionary, after: Dictionary, x: Tensor, y: Tensor, documents: np.ndarray, roles: Mapping[str, np.ndarray] = {}
) -> Moved:
    """Compare two dictionaries of one shape on rows x [n, d_in], targets y [n, d_out] of `documents` [n].

    `roles` are further groups of rows by name, as masks [n]. Raises ValueError when the shapes differ.
    """
    if (
        before.config.widths_in != after.config.widths_in
        or before.d_sae != after.d_sae
        or len(before.blocks) != len(after.blocks)
    ):
        raise ValueError(f"a {before.config.title} and a {after.config.title} of another shape have no latents in common")
    pairs = [(d.decoders, d.encoders) for d in (before, after)]
    decoder = torch.cat([cosine_similarity(a, b, dim=1) for a, b in zip(pairs[0][0], pairs[1][0], strict=True)])
    encoder = torch.cat([cosine_similarity(a, b, dim=0) for a, b in zip(pairs[0][1], pairs[1][1], strict=True)])
    masks = {"all": np.ones(len(x), bool), **roles}
    errors = {
        name: (_series(before, x, y, documents, m), _series(after, x, y, documents, m)) for name, m in masks.items() if m.any()
    }
    return Moved(decoder, encoder, _frequency(before, x), _frequency(after, x), errors, len(x))


def _series(d: Dictionary, x: Tensor, y: Tensor, documents: np.ndarray, mask: np.ndarray) -> Series:
    here = torch.from_numpy(mask)
    x, y = x[here], y[here].double()
    error, centred, sd = y - d(x), y - y.mean(0), deviations(y)
    raw, around, scaled, scaled_around = (v.square().sum(1).numpy() for v in (error, centred, error / sd, centred / sd))
    return Series(raw, around, scaled, scaled_around, documents[mask])


def _frequency(d: Dictionary, x: Tensor) -> Tensor:
    return torch.bincount(d.encode(x).index, minlength=d.d_sae).float() / len(x)


def _quantiles(values: Tensor) -> dict[str, float]:
    return {str(q): float(v) for q, v in zip(QUANTILES, torch.quantile(values.float(), torch.tensor(QUANTILES)), strict=True)}
