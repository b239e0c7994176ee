"""Sparse products against dense ones in float64, and their exact repetition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diascope.kernels import decode, latent_gradient, select_above, weight_gradient


def sample(seed, rows=7, width=12, bar=0.4):
    g = torch.Generator().manual_seed(seed)
    pre = torch.randn(rows, width, generator=g, dtype=torch.float64)
    W, G = torch.randn(width, 5, generator=g, dtype=torch.float64), torch.randn(rows, 5, generator=g, dtype=torch.float64)
    return pre, torch.where(pre > bar, pre, 0.0), select_above(pre, bar), W, G


@settings(deadline=None)
@given(st.integers(0, 50), st.sampled_from([0.4, 1.5, 99.0]))
def test_products_equal_the_dense_ones(seed, bar):
    _pre, dense, f, W, G = sample(seed, bar=bar)
    assert torch.equal(f.dense(), dense) and torch.equal(f.counts, (dense != 0).sum(1))
    assert torch.allclose(decode(f, W), dense @ W)
    assert torch.allclose(weight_gradient(f, G), dense.t() @ G)
    assert torch.allclose(latent_gradient(f, G, W), (G @ W.t())[f.rows, f.index])


def test_encode_and_decode_are_differentiable_both_ways():
    pre, *_ = sample(3)
    pre.requires_grad_()
    W = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda p, w: decode(select_above(p, 0.4), w), (pre, W))


def test_a_step_repeats_bit_for_bit():
    g = torch.Generator().manual_seed(0)
    pre, W, G = torch.randn(256, 2048, generator=g), torch.randn(2048, 64, generator=g), torch.randn(256, 64, generator=g)
    f = select_above(pre, 1.8)
    for product in (lambda: decode(f, W), lambda: weight_gradient(f, G), lambda: latent_gradient(f, G, W)):
        first = product()
        assert all(torch.equal(first, product()) for _ in range(5))


@pytest.mark.parametrize("keep_even", [True, False])
def test_dropping_entries_keeps_rows_in_place(keep_even):
    _, dense, f, *_ = sample(1)
    keep = (f.index % 2 == 0) == keep_even
    expected = dense.clone()
    expected[:, 1 if keep_even else 0 :: 2] = 0
    assert torch.equal(f.kept(keep).dense(), expected)
