"""Edits that a dictionary makes: splice its output, steer, clamp or ablate a latent; plain functions for `model.edit`.

A dictionary of one site gives one Edit. One that writes several gives one a site, which share what they know within a
forward pass: sites come in the order of computation, so the first of them starts afresh.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diascope.dictionaries.activations import TopK
from diascope.dictionaries.site_maps import Causal, OneToOne
from diascope.edits import Edit, Edits
from diascope.kernels import SparseLatents, decode, select_above
from diascope.sites import STREAM, Site

if TYPE_CHECKING:
    from diascope.dictionaries.dictionary import Dictionary


def splice(d: Dictionary, keep_error: bool) -> Edits:
    """y_hat in place of y. A cross-layer dictionary reads each site as the edited model has it: the replacement model.

    Raises ValueError for a joint crosscoder, whose first output needs inputs that are not computed yet.
    """

    def kept(y: Tensor, y_hat: Tensor) -> Tensor:
        return y_hat + (y.float() - y_hat).detach() if keep_error else y_hat

    if isinstance(d.config.map, OneToOne):
        return Edit(d.site_in, d.site_out, lambda x, y: kept(y, d(x.float())), label=f"splice {d.site_out}")
    _need_blocks(d)
    written: list[Tensor] = []  # y_hat so far of all output sites, in this forward pass

    def write(g: int, x: Tensor, y: Tensor) -> Tensor:
        rows = x.float().reshape(-1, x.shape[-1])
        if g == 0:
            written[:] = [d.b_dec.expand(len(rows), -1).clone()]
        block = d.blocks[g]
        written[0][:, block.writes] += decode(_encoded(d, g, rows), d.decoders[g])
        y_hat = written[0][:, block.skips]
        y_hat = y_hat + rows @ d.skips[g] if d.config.skip else y_hat
        return kept(y, y_hat.view(y.shape))

    pairs = zip(d.config.reads, d.config.writes, strict=True)
    return tuple(Edit(a, b, lambda x, y, g=g: write(g, x, y), label=f"splice {b}") for g, (a, b) in enumerate(pairs))


def _encoded(d: Dictionary, g: int, rows: Tensor) -> SparseLatents:
    """Active latents of block g alone, of its own input [n, d]."""
    b = d.blocks[g]
    return select_above(torch.addmm(d.b_enc[b.latents], rows, d.encoders[g]), d.threshold[b.latents].clamp_min(0))


def steer(d: Dictionary, latent: int, dose: float) -> Edits:
    """Add dose * direction at every site that the latent writes."""
    _need_finite("dose", dose)
    edits = [
        Edit(site, site, lambda _, y, v=v * dose: y + v.to(y), label=f"steer {latent} by {dose:g}")
        for site, v in _added(d, latent).items()
    ]
    return edits[0] if len(edits) == 1 else tuple(edits)


def _added(d: Dictionary, latent: int) -> dict[Site, Tensor]:
    """What an edit adds at each site, for a shift by the latent's direction there.

    In the residual stream what was added at one site arrives at the next, so only the difference of the directions is added.
    """
    found: dict[Site, Tensor] = {}
    carried: dict[str | None, Tensor] = {}  # by model: nothing flows from one into another
    for site, v in d.direction(latent).items():
        residual = site.kind in STREAM
        found[site] = v - carried[site.model] if residual and site.model in carried else v
        carried = {**carried, site.model: v} if residual else {}
    return found


def clamp(d: Dictionary, latent: int, value: float) -> Edits:
    """Add (value - activation) * direction at every site that the latent writes.

    Raises ValueError for a joint crosscoder, whose activations need inputs that are not computed yet.
    """
    _need_finite("value", value)
    g = d.block_of(latent)
    one_site = isinstance(d.config.map, OneToOne)
    if not one_site:
        _need_blocks(d)
    read, known = d.config.reads[g], []
    column, j = d.encoders[g][:, latent - d.blocks[g].latents.start], latent

    def activation(x: Tensor) -> Tensor:
        if isinstance(d.config.activation, TopK):
            return d.encode(x.float()).dense()[..., j]
        pre = x.float() @ column + d.b_enc[j]
        return torch.where(pre > d.threshold[j].clamp_min(0), pre, 0.0)

    def write(first: bool, direction: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if first:
            known[:] = [activation(x)]
        return y.float() + (value - known[0])[..., None] * direction

    label = f"clamp {latent} at {value:g}"
    edits = [
        Edit(read, site, lambda x, y, n=n, v=v: write(n == 0, v, x, y), label=label)
        for n, (site, v) in enumerate(_added(d, latent).items())
    ]
    return edits[0] if one_site else tuple(edits)


def _need_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"the {name} of an edit is {value}: give a finite number")


def _need_blocks(d: Dictionary) -> None:
    """ValueError unless each site's latents can be known from that site alone."""
    if isinstance(d.config.activation, TopK):
        raise ValueError(
            f"this {d.config.kind} chooses its {d.config.activation.k} latents among all sites, and the first site is written before "
            "the last is computed: train it with BatchTopK, whose threshold needs no comparison"
        )
    if not isinstance(d.config.map, Causal):
        raise ValueError(
            f"a {d.config.kind} over {len(d.config.sites_in)} sites reads all of them, and the first is written before the last "
            "is computed: encode a captured text, or evaluate it (each site is then replaced from the clean model's vectors)"
        )
