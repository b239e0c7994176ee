"""From a trained member to a published dictionary: calibrate thresholds, fold the scales, prove it with probes.

Fold, with C_in and C_out the scales (numbers or one a dimension) and n_j the length of a folded decoder row:

    W_enc = diag(1/C_in) E^T    b_enc' = b_enc - b_dec E^T (SAE)    W_dec = D diag(C_out)    b_dec' = b_dec C_out
    W_skip' = diag(1/C_in) W_skip diag(C_out)
    then W_dec /= n, W_enc *= n, b_enc' *= n, theta *= n: decoder rows of unit length, latents in activation units
"""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.dictionaries import Dictionary, DictionaryConfig, JumpReLU
from diascope.dictionaries.artefact import check_probe
from diascope.kernels import select_above
from diascope.training.member import Member


def calibrate(member: Member, x: Tensor) -> float:
    """Set thresholds so that raw rows x [n, d_in] have the target L0 on average; returns the L0 before.

    BatchTopK gets one common threshold, the k-th largest pre-activation over the rows (this is its conversion to
    JumpReLU); a JumpReLU's own thresholds are multiplied by one factor.
    """
    x = x / member.scale_in
    xc = x - member.b_dec if member.is_sae else x
    k = round(member.recipe.l0_target * len(x))
    unit = member.theta.clamp_min(1e-12) if member.jump else torch.full_like(member.theta, max(member.guess, 1e-12))
    found = _ratios(member, xc, unit, 0.5)
    if len(found) < k:  # the last batch's bar was no guide: look at everything positive
        found = _ratios(member, xc, unit, 0.0)
    bar = float(torch.topk(found, min(k, len(found)), sorted=False).values.min())
    member.theta = unit * bar
    return float((found > 1).sum()) / len(x)


def _ratios(member: Member, xc: Tensor, unit: Tensor, least: float) -> Tensor:
    """Pre-activations over `unit` [S], those above `least`, of all rows together."""
    parts = []
    for chunk in xc.split(1024):
        near = select_above(torch.addmm(member.b_enc, chunk, member.encoder.t()), least * unit)
        parts.append(near.value / unit[near.index])
    return torch.cat(parts)


def fold(member: Member, model: str) -> Dictionary:
    """The dictionary on raw activations, with unit decoder rows; folding is done in float64."""
    m = {k: v.double() for k, v in member.state().items() if v.is_floating_point()}
    b_enc = m["b_enc"] - (m["encoder"] @ m["b_dec"] if member.is_sae else 0)
    W_dec = m["decoder"] * m["scale_out"]
    n = W_dec.norm(dim=1)
    tensors = {
        "W_enc": m["encoder"].t() / m["scale_in"][:, None] * n,
        "W_dec": W_dec / n[:, None],
        "b_enc": b_enc * n,
        "b_dec": m["b_dec"] * m["scale_out"],
        "threshold": m["theta"] * n,
    }
    if member.skip is not None:
        tensors["W_skip"] = m["skip"] / m["scale_in"][:, None] * m["scale_out"]
    recipe = member.recipe
    config = DictionaryConfig(
        kind="sae" if member.is_sae else "transcoder",
        model=model,
        site_in=recipe.site_in,
        site_out=recipe.site_out,
        d_in=member.encoder.shape[1],
        d_out=member.decoder.shape[1],
        d_sae=recipe.d_sae,
        activation=recipe.activation if isinstance(recipe.activation, JumpReLU) else JumpReLU(),
        matryoshka=recipe.matryoshka,
        skip=member.skip is not None,
        l0_target=recipe.l0_target,
    )
    return Dictionary(config, tensors)


def probe(member: Member, x: Tensor) -> dict[str, Tensor]:
    """x [n, d_in] with latents and outputs of the *unfolded* member in float64, in the folded dictionary's units."""
    m = {k: v.double() for k, v in member.state().items() if v.is_floating_point()}
    x64 = x.double()
    scaled = x64 / m["scale_in"]
    pre = (scaled - m["b_dec"] if member.is_sae else scaled) @ m["encoder"].t() + m["b_enc"]
    f = torch.where(pre > m["theta"].clamp_min(0), pre, 0.0)
    y = f @ m["decoder"] + m["b_dec"] + (scaled @ m["skip"] if member.skip is not None else 0)
    length = (m["decoder"] * m["scale_out"]).norm(dim=1)
    return {"x": x, "latents": (f * length).float(), "y_hat": (y * m["scale_out"]).float()}


def export(member: Member, model: str, x: Tensor) -> tuple[Dictionary, dict[str, Tensor]]:
    """The folded dictionary and its probe on raw rows x [n, d_in]; AssertionError-free only if the two agree."""
    dictionary, evidence = fold(member, model), probe(member, x)
    check_probe(dictionary, evidence)
    return dictionary, evidence
