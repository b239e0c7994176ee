"""Codecs: what each costs in squared error, and that a row comes back alone as it does among others."""

import pytest
import torch

from diascope.activations.codecs import CODECS, codec


def heavy_rows():
    """Like Gemma's residuals: a few dimensions hold most of the variance, far from zero."""
    g = torch.Generator().manual_seed(0)
    scale = torch.ones(200)
    scale[[7, 80]] = 300
    return torch.randn(500, 200, generator=g) * scale + 50 * torch.randn(200, generator=g)


@pytest.mark.parametrize(("name", "low", "high"), [("float32", 0, 0), ("bfloat16", 1e-7, 2e-5), ("int8-blocks", 1e-6, 2e-3), ("int8-standardised", 1e-6, 2e-4)])  # fmt: skip
def test_a_codec_costs_what_it_says(name, low, high):
    x = heavy_rows()
    stored = codec(name).encode(x)
    whole = codec(name).decode(stored, slice(None))
    fvu = float((whole - x).double().square().sum() / (x - x.mean(0)).double().square().sum())
    assert low <= fvu <= high
    pick = torch.tensor([499, 3, 3, 250])
    assert torch.equal(codec(name).decode(stored, pick), whole[pick])
    per_row = sum(t.numel() * t.element_size() for k, t in stored.items() if len(t) == len(x)) / len(x)
    assert per_row == pytest.approx(CODECS[name].bytes_per_row(200), abs=0.5)


def test_standardising_spares_the_small_dimensions():
    x = heavy_rows()
    small = [i for i in range(200) if i not in (7, 80)]

    def fvu(name):
        back = codec(name).decode(codec(name).encode(x), slice(None))[:, small]
        return float((back - x[:, small]).square().sum() / (x[:, small] - x[:, small].mean(0)).square().sum())

    assert fvu("int8-standardised") < 1e-3 < fvu("int8-blocks")


def test_rows_of_zeros_and_constant_dimensions_survive():
    x = torch.zeros(4, 40)
    x[:, 3] = 7.0
    for name in CODECS:
        back = codec(name).decode(codec(name).encode(x), slice(None)).float()
        assert torch.isfinite(back).all() and torch.allclose(back, x, atol=0.06), name


@pytest.mark.parametrize(("name", "says"), [("float16", "65,504"), ("int4", "choose one of")])
def test_what_is_no_codec_is_refused(name, says):
    with pytest.raises(ValueError, match=says):
        codec(name)
