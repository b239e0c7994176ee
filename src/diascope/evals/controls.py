"""What a dictionary has to beat: maps that need no training of a dictionary, fitted on training rows.

mean            y_hat = E[y]                                  every row
pca             the first L0 principal components             a fixed subspace: nothing is chosen a token
token_pca       each row's own L0 largest PCA coefficients    a strong one: an orthogonal dictionary with free choice
random          random unit directions, tied encoder, thresholds set to the same L0, and the best single scale
ridge           the least-squares affine map of x             transcoders only
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diascope import rng
from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.numerics import ridge

Map = Callable[[Tensor, Tensor], Tensor]  # (x [n, d_in], y [n, d_out]) -> y_hat [n, d_out]


def controls(dictionary: Dictionary, x: Tensor, y: Tensor, *, seed: int = 0) -> dict[str, Map]:
    """Control maps fitted on training rows x [n, d_in] and y [n, d_out] (the same tensor for an SAE).

    PCA controls read the target itself; for a transcoder they are an upper bound that no map from x need reach.
    """
    mean = y.mean(0)
    k = round(dictionary.config.l0_target or 60)
    _values, basis = torch.linalg.eigh(((y - mean).t() @ (y - mean)).double())
    basis = basis.flip(1).float()  # largest variance first

    def pca(_: Tensor, target: Tensor) -> Tensor:
        top = basis[:, :k]
        return mean + (target - mean) @ top @ top.t()

    def token_pca(_: Tensor, target: Tensor) -> Tensor:
        c = (target - mean) @ basis
        keep = torch.zeros_like(c).scatter_(1, c.abs().topk(min(k, c.shape[1]), dim=1).indices, 1.0)
        return mean + (c * keep) @ basis.t()

    out: dict[str, Map] = {"mean": lambda _, target: mean.expand_as(target), "pca": pca, "token_pca": token_pca}
    out["random"] = _random(dictionary, x, y, seed)
    if dictionary.config.kind == "transcoder":
        out["ridge"] = _ridge(x, y)
    return out


def _ridge(x: Tensor, y: Tensor) -> Map:
    mx, my = x.mean(0), y.mean(0)
    xc = (x - mx).double()
    A = ridge(xc.t() @ xc, xc.t() @ (y - my).double()).float()
    return lambda source, _: (source - mx) @ A + my


def _random(dictionary: Dictionary, x: Tensor, y: Tensor, seed: int) -> Map:
    c = dictionary.config
    g = rng.torch_generator(seed, "random dictionary")
    W_dec = torch.randn(c.d_sae, c.d_out, generator=g)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    W_enc = W_dec.t() if c.kind == "sae" else torch.randn(c.d_in, c.d_sae, generator=g) / c.d_in**0.5
    mx, my = x.mean(0), y.mean(0)
    sample = (x[:2048] - mx) @ W_enc
    k = int((c.l0_target or 60) * len(sample))
    theta = sample.flatten().topk(k).values.min().clamp_min(0)
    config = DictionaryConfig(
        "sae" if c.kind == "sae" else "transcoder", c.model, c.site_in, c.site_out, c.d_in, c.d_out, c.d_sae
    )
    tensors = {
        "W_enc": W_enc,
        "W_dec": W_dec,
        "b_enc": -(mx @ W_enc),
        "b_dec": torch.zeros(c.d_out),
        "threshold": theta.expand(c.d_sae),
    }
    d = Dictionary(config, tensors)
    raw = d(x[:2048])
    scale = (raw * (y[:2048] - my)).sum() / raw.square().sum().clamp_min(1e-12)
    return lambda source, _: d(source) * scale + my
