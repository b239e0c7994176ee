"""The compiled kernels against plain torch: the same entries, the same sums up to rounding, the same bits every time.

Those for GPUs run in Triton's interpreter, or on a GPU where there is one.
"""

# ruff: noqa: E402
import os
import sys

import pytest
import torch

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before the first kernel is defined

from hypothesis import given, settings
from hypothesis import strategies as st

from diascope import kernels
from diascope.kernels import AdamStep, cpu, reference
from diascope.kernels.latents import Columns

try:
    from diascope.kernels import gpu
except ImportError:  # Triton is made for Linux
    assert sys.platform != "linux"
    gpu = None


class OnCard:
    """The kernels for GPUs, called with a processor's tensors; what they write over is written over here too."""

    def __getattr__(self, name):
        def call(*given, **options):
            there = [moved(g, "cuda") for g in given]
            found = getattr(gpu, name)(*there, **options)
            for here, sent in zip(given, there, strict=True):
                if isinstance(here, torch.Tensor):
                    here.copy_(sent)
            several = isinstance(found, tuple) and not isinstance(found, Columns)
            return tuple(moved(f, "cpu") for f in found) if several else moved(found, "cpu")

        return call


def moved(thing, device):
    if isinstance(thing, kernels.SparseLatents):
        parts = (getattr(thing, n).to(device) for n in ("start", "index", "value"))
        return kernels.SparseLatents(*parts, thing.d_sae, thing.shape)
    if isinstance(thing, Columns):
        return Columns(*(t.to(device) for t in thing))
    if isinstance(thing, list):
        return [(kernels.Product(moved(p.latents, device), p.rows.to(device)), moved(c, device)) for p, c in thing]
    return thing.to(device) if isinstance(thing, torch.Tensor) else thing


COMPILED = [pytest.param(k, id=n) for n, k in (("cpu", cpu), ("gpu", OnCard() if GPU and gpu else gpu)) if k]
compiled = pytest.mark.parametrize("kernel", COMPILED)


def interpreted(kernel):
    """Whether a kernel runs in Triton's interpreter, hundreds of times slower: it is given smaller cases."""
    return kernel is gpu and not GPU


def case(seed, rows=70, width=200, d=33):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=g), torch.randn(width, d, generator=g), torch.randn(rows, d, generator=g)


def same(a, b):
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("start", "index", "value"))


@compiled
@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 30), st.sampled_from([-9.0, 0.0, 1.3, 99.0]), st.sampled_from([(1, 1), (2, 0), (3, 64), (6, 200), (2, 1100)])
)
def test_selection_finds_the_same_entries(kernel, seed, bar, shape):
    pre, *_ = case(seed, *shape)
    assert same(kernel.select_above(pre, bar), reference.select_above(pre, bar))
    bars = bar + 0.1 * torch.arange(shape[1])
    assert same(kernel.select_above(pre, bars), reference.select_above(pre, bars))
    for k in (1, 5, 64, 10**6):
        assert same(kernel.largest(pre, k), reference.largest(pre, k))


@compiled
def test_a_row_unlike_the_one_before_still_gives_its_k_largest(kernel):
    pre, *_ = case(0)
    pre *= torch.logspace(3, -3, len(pre))[torch.randperm(len(pre), generator=torch.Generator().manual_seed(1)), None]
    pre[5], pre[9] = -1.0, 0.0
    assert same(kernel.largest(pre, 7), reference.largest(pre, 7))


@compiled
@pytest.mark.parametrize("shape", [(5, 1500), (3, 4096), (2, 33)])
def test_the_largest_of_many_more_are_found(kernel, shape):
    """Where k is a small share of the width: peers in one group, rows that hold fewer, ties at the bar."""
    pre = case(7, *shape)[0]
    pre[0, :9] = 5.0 + torch.arange(9) % 3  # the largest lie side by side
    pre[1] = pre[1].round()  # many equal
    pre[-1, 3:] = -1.0
    for k in (1, 4, 17):
        top = pre.clamp_min(0).sort(dim=1, descending=True, stable=True)
        expected = torch.zeros_like(pre).scatter(1, top.indices[:, :k], top.values[:, :k])  # of equal ones the first
        assert torch.equal(kernel.largest(pre, k).dense(), expected)
        assert same(kernel.strongest(reference.select_above(pre, 0.0), k), kernel.largest(pre, k))


@pytest.mark.skipif(gpu is None, reason="Triton is made for Linux")
def test_every_group_has_its_largest():
    """A group that is left out would only lower the bar: more is searched, and the same is found."""
    device = "cuda" if GPU else "cpu"
    pre = case(11, 3, 50)[0].to(device)
    pre[1, 7] = float("nan")
    found = torch.full((3, 13), float("nan"), device=device)
    gpu._launch(gpu._group_maxima, (3, 7), pre, found, 50, 13, GROUP=4, TOGETHER=2)
    expected = torch.nn.functional.pad(pre, (0, 2)).nan_to_num(0.0).clamp_min(0).view(3, 13, 4).amax(2)
    assert torch.equal(found, expected)


@compiled
def test_of_equal_entries_the_first_are_taken(kernel):
    found = kernel.largest(torch.tensor([[1.0, 2, 2, 3, 2, 0, -1]]), 3)
    assert found.index.tolist() == [1, 2, 3]
    assert kernel.largest(torch.tensor([[0.0, 0, 0, -1]]), 2).index.tolist() == []


@compiled
def test_what_is_not_a_number_is_not_selected(kernel):
    pre = torch.tensor([[float("nan"), 1.0, float("inf"), float("-inf")]])
    assert kernel.select_above(pre, 0.5).index.tolist() == [1, 2] == kernel.largest(pre, 3).index.tolist()


@compiled
def test_bfloat16_is_searched_as_what_it_says(kernel):
    pre = case(0, rows=8, width=1300)[0].bfloat16()
    assert same(kernel.select_above(pre, 1.3), reference.select_above(pre.float(), 1.3))
    assert same(kernel.largest(pre, 9), kernel.largest(pre.float(), 9))
    assert same(kernels.select_above(pre, 1.3), reference.select_above(pre, 1.3))


@compiled
@pytest.mark.parametrize("bar", [0.5, 1.9, 99.0])
@pytest.mark.parametrize("d", [33, 300])
def test_products_agree(kernel, bar, d):
    pre, W, G = case(1, *((40, 100) if interpreted(kernel) else (70, 200)), d=d)
    f = reference.select_above(pre, bar)
    found, expected = kernel.columns(f), reference.columns(f)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    cases = {"decode": (f, W), "latent_gradient": (f, G, W), "weight_gradient": (f, G, expected), "column_sums": (f, expected)}
    for name, args in cases.items():
        ours, other = getattr(kernel, name)(*args), getattr(reference, name)(*args)
        assert ours.shape == other.shape and torch.allclose(ours, other, rtol=1e-5, atol=1e-5), name


@pytest.mark.parametrize("kernel", [*COMPILED, pytest.param(reference, id="reference")])
@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("own_base", [True, False])
def test_nested_prefixes_agree_with_autograd(kernel, levels, own_base):
    g = torch.Generator().manual_seed(4)
    written, y = torch.randn(50, levels, 33, generator=g), torch.randn(50, 33, generator=g)
    base, w = torch.randn(*((50, 33) if own_base else (33,)), generator=g), torch.rand(levels, generator=g, dtype=torch.float64)
    leaf, start = written.double().requires_grad_(), base.double().requires_grad_()
    error = leaf.cumsum(1) + (start[:, None] if own_base else start) - y.double()[:, None]
    (w[None, :, None] * error.square()).sum().div(50).backward()
    G, last = kernel.prefix_errors(written.clone(), base, y, w)
    assert torch.allclose(G.double(), leaf.grad, atol=1e-5) and torch.allclose(last.double(), error[:, -1], atol=1e-5)
    assert torch.allclose(G[:, 0].double() if own_base else G[:, 0].double().sum(0), start.grad, atol=1e-5)


@compiled
@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_ten_steps_of_adam_agree(kernel, unit_rows, beta1, clip):
    _, W, _ = case(2, width=12 if interpreted(kernel) else 40, d=300)
    W = torch.nn.functional.normalize(W, dim=1)
    state = [[W.clone(), torch.zeros_like(W), torch.zeros_like(W) if beta1 else None] for _ in range(2)]
    for step in range(10):
        g = torch.randn(W.shape, generator=torch.Generator().manual_seed(step)) * 10 ** (step / 5 - 1)
        for module, (value, second, first) in zip((kernel, reference), state, strict=True):
            module.adam(value, g.clone(), second, first, AdamStep(0.01, beta1, 0.99, step, clip), unit_rows=unit_rows)
    for ours, other in zip(*state, strict=True):
        assert (ours is None and other is None) or torch.allclose(ours, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@compiled
@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("d", [33, 300])
def test_adam_needs_no_gradient_in_memory(kernel, unit_rows, beta1, count, d):
    """Rows that nothing touches among them: their values stay, their second moments decay."""
    rows, width, steps = (40, 12, 3) if interpreted(kernel) else (150, 40, 6)
    _, W, _ = case(2, width=width, d=d)
    W = torch.nn.functional.normalize(W, dim=1)
    state = [[W.clone(), torch.zeros_like(W), torch.zeros_like(W) if beta1 else None] for _ in range(2)]
    for step in range(steps):
        products = []
        for i in range(count):
            pre, _, G = case(10 * step + i, rows=rows, width=width, d=d)
            pre[:, step::4] = -1.0
            pre[:, 7] = 2.0  # fires in every row
            f = reference.select_above(pre, 1.5)
            products.append((kernels.Product(f, G * 10 ** (step / 3 - 1)), reference.columns(f)))
        for module, (value, second, first) in zip((kernel, reference), state, strict=True):
            module.adam_of(value, products, second, first, AdamStep(0.01, beta1, 0.99, step), unit_rows=unit_rows)
    for ours, other in zip(*state, strict=True):
        assert (ours is None and other is None) or torch.allclose(ours, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_the_same_bits_on_one_thread_and_on_many():
    pre, W, G = case(3, rows=400, width=500, d=64)
    threads = torch.get_num_threads()

    def everything():
        f = kernels.select_above(pre, 1.0)
        value = W.clone()
        kernels.adam(
            value, kernels.weight_gradient(f, G), torch.zeros_like(W), None, AdamStep(0.1, 0.0, 0.9, 0), unit_rows=True
        )
        return [f.index, kernels.largest(pre, 9).value, kernels.decode(f, W), kernels.latent_gradient(f, G, W), value]

    try:
        torch.set_num_threads(1)
        one = everything()
        torch.set_num_threads(3)
        assert all(torch.equal(a, b) for a, b in zip(one, everything(), strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("kernel", [*COMPILED, pytest.param(reference, id="reference")])
def test_a_broken_gradient_is_not_clipped_into_a_sound_one(kernel, clip):
    value, gradient = torch.ones(2, 5), torch.ones(2, 5)
    gradient[0, 2], gradient[1, 1] = float("nan"), float("inf")
    kernel.adam(value, gradient, torch.zeros(2, 5), None, AdamStep(0.1, 0.0, 0.99, 0, clip))
    assert value.isnan().nonzero().tolist() == [[0, 2], [1, 1]]
