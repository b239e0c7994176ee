"""Bring a finished dictionary to another mean L0 by its thresholds alone."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.dictionaries.activations import JumpReLU
from diascope.dictionaries.dictionary import Dictionary

LEAST = 0.25  # no threshold falls below this share of what it was


@torch.no_grad()
def with_l0(d: Dictionary, x: Tensor, l0: float) -> Dictionary:
    """A copy whose thresholds are multiplied by the one factor at which rows x [n, d_in] have `l0` active latents on average.

    Raises ValueError for activations that have no thresholds. A factor below a quarter is not sought.
    """
    if not isinstance(d.config.activation, JumpReLU):
        raise ValueError(f"a {d.config.title} has no thresholds to set: its L0 is fixed")
    out = Dictionary(d.config, {name: t.clone() for name, t in d.tensors().items()})
    out.card, out.provenance = dict(d.card), dict(d.provenance)  # no probe: it was of the old thresholds
    unit, k = out.threshold.clamp_min(1e-12), max(1, round(l0 * len(x)))
    parts = []
    for b, block in enumerate(d.blocks):
        for chunk in x.split(1024):
            ratio = d.pre_acts(chunk, b) / unit[block.latents]
            parts.append(ratio[ratio > LEAST])
    ratios = torch.cat(parts)
    factor = float(torch.topk(ratios, k, sorted=False).values.min()) if len(ratios) > k else LEAST
    out.threshold.copy_(unit * factor)
    return out
