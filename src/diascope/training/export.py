"""From a trained member to a published dictionary: calibrate thresholds, fold the scales, prove it with probes.

Fold, with C_in and C_out the scales (one number a dimension) and n_j the length of a folded decoder row; a block reads
and writes its own stretches of them:

    W_enc = diag(1/C_in) E^T    b_enc' = b_enc - b_dec E^T (where b_dec is taken off the input)    W_dec = D diag(C_out)
    b_dec' = b_dec C_out        W_skip' = diag(1/C_in) W_skip diag(C_out)
    then W_dec /= n, W_enc *= n, b_enc' *= n, theta *= n: decoder rows of unit length, latents in activation units
    (TopK compares latents with one another, so all of its rows are divided by one number, their mean length)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diascope.dictionaries import Causal, Dictionary, TopK
from diascope.dictionaries.artefact import check_probe
from diascope.kernels import largest
from diascope.training.member import Member


def calibrate(member: Member, x: Tensor) -> float:
    """Set thresholds so that raw rows x [n, d_in] have the target L0 on average; returns the L0 before."""
    return member.rule.calibrate(member.pre_acts(x))


def fold(member: Member, model: str) -> Dictionary:
    """The dictionary on raw activations, with unit decoder rows; folding is done in float64."""
    m = _Exact(member)
    config = replace(
        member.config,
        model=model,
        activation=member.rule.exported,
        matryoshka=member.recipe.matryoshka,
        l0_target=member.recipe.l0_target,
    )
    tensors = {"b_enc": m.b_enc.clone(), "threshold": m.theta.clone(), "b_dec": m.b_dec * m.scale_out}
    for g, b in enumerate(m.blocks):
        suffix = f".{g}" if isinstance(config.map, Causal) else ""
        D, n = m.decoders[g] * m.scale_out[b.writes], m.lengths[b.latents]
        if member.centred:
            tensors["b_enc"][b.latents] -= m.encoders[g] @ m.b_dec[b.reads]
        tensors["b_enc"][b.latents] *= n
        tensors["threshold"][b.latents] *= n
        tensors[f"W_enc{suffix}"] = (m.encoders[g].t() / m.scale_in[b.reads][:, None] * n).contiguous()
        tensors[f"W_dec{suffix}"] = D / n[:, None]
        if m.skips:
            tensors[f"W_skip{suffix}"] = m.skips[g] / m.scale_in[b.reads][:, None] * m.scale_out[b.skips]
    return Dictionary(config, tensors)


class _Exact:
    """The member's tensors in float64, with the rule's export applied."""

    def __init__(self, member: Member) -> None:
        p = {name: value.double() for name, value in member.params.items()}
        self.blocks, n = member.blocks, range(len(member.blocks))
        encoders, self.b_enc, self.theta = member.rule.export([p[f"encoder.{g}"] for g in n], p["b_enc"])
        self.theta = self.theta.double()
        self.encoders = encoders
        self.decoders = [p[f"decoder.{g}"] for g in n]
        self.skips = [p[f"skip.{g}"] for g in n] if member.skips else []
        self.b_dec, self.scale_in, self.scale_out = p["b_dec"], member.scale_in.double(), member.scale_out.double()
        rows = zip(self.decoders, self.blocks, strict=True)
        self.lengths = torch.cat([(D * self.scale_out[b.writes]).norm(dim=1) for D, b in rows])
        if isinstance(member.rule.exported, TopK):
            self.lengths = self.lengths.mean().expand_as(self.lengths)


def probe(member: Member, x: Tensor) -> dict[str, Tensor]:
    """x [n, d_in] with latents and outputs of the *unfolded* member in float64, in the folded dictionary's units."""
    m = _Exact(member)
    scaled = x.double() / m.scale_in
    xc = scaled - m.b_dec if member.centred else scaled
    pre = torch.cat([xc[:, b.reads] @ E.t() for b, E in zip(m.blocks, m.encoders, strict=True)], 1) + m.b_enc
    if isinstance(member.rule.exported, TopK):
        f = largest(pre, member.rule.exported.k).dense()
    else:
        f = torch.where(pre > m.theta.clamp_min(0), pre, 0.0)
    y = m.b_dec.expand(len(x), -1).clone()
    for g, b in enumerate(m.blocks):
        y[:, b.writes] += f[:, b.latents] @ m.decoders[g]
        if m.skips:
            y[:, b.skips] += scaled[:, b.reads] @ m.skips[g]
    return {"x": x, "latents": (f * m.lengths).float(), "y_hat": (y * m.scale_out).float()}


def export(member: Member, model: str, x: Tensor) -> tuple[Dictionary, dict[str, Tensor]]:
    """The folded dictionary and its probe on raw rows x [n, d_in]; ValueError unless the two agree."""
    dictionary, evidence = fold(member, model), probe(member, x)
    check_probe(dictionary, evidence)
    return dictionary, evidence
