"""The kernels on GPUs, in Triton. No atomics: every sum has one order, so a step repeats bit for bit.

One program owns a row (or a latent, or a block of entries) and a stretch of the dimensions. Gradients of weights sort the
entries by latent once and are then the same gather as a decode. Tested in Triton's interpreter against plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diascope.kernels.latents import SparseLatents, starts
from diascope.kernels.reference import EPSILON, AdamStep

WIDE = 1024  # entries of a row looked at together
ENTRIES, DIMENSIONS = 16, 256  # of a gathered tile


def _launch(kernel: Any, grid: tuple[int, ...], *given: Any, **constants: Any) -> None:
    """Run a kernel over a grid of programs, unless it is empty."""
    if all(grid):
        kernel[grid](*given, **constants)


# -- selection
@triton.jit
def _count_above(pre, bar, bar_step, counts, S, WIDE: tl.constexpr):
    row, block = tl.program_id(0), tl.program_id(1)
    j = block * WIDE + tl.arange(0, WIDE)
    inside = j < S
    x = tl.load(pre + row.to(tl.int64) * S + j, mask=inside, other=float("-inf")).to(tl.float32)
    hit = (x > tl.load(bar + j * bar_step, mask=inside, other=0.0)) & inside
    tl.store(counts + row * tl.num_programs(1) + block, tl.sum(hit.to(tl.int32), axis=0))


@triton.jit
def _write_above(pre, bar, bar_step, offset, index, value, S, WIDE: tl.constexpr):
    row, block = tl.program_id(0), tl.program_id(1)
    j = block * WIDE + tl.arange(0, WIDE)
    inside = j < S
    x = tl.load(pre + row.to(tl.int64) * S + j, mask=inside, other=float("-inf")).to(tl.float32)
    hit = (x > tl.load(bar + j * bar_step, mask=inside, other=0.0)) & inside
    at = tl.load(offset + row * tl.num_programs(1) + block) + tl.cumsum(hit.to(tl.int32), axis=0) - 1
    tl.store(index + at, j.to(tl.int64), mask=hit)
    tl.store(value + at, x, mask=hit)


def select_above(pre_acts: Tensor, threshold: Tensor | float) -> SparseLatents:
    """As `reference.select_above`: counted, then written in order; the second reading comes from the cache."""
    n, S = pre_acts.shape
    pre, device = pre_acts.contiguous(), pre_acts.device
    bar = threshold.float().expand(S).contiguous() if isinstance(threshold, Tensor) else torch.tensor([threshold], dtype=torch.float32, device=device)  # fmt: skip
    grid = (n, max(1, triton.cdiv(S, WIDE)))
    counts = torch.empty(grid, dtype=torch.int32, device=device)
    step = int(isinstance(threshold, Tensor))
    _launch(_count_above, grid, pre, bar, step, counts, S, WIDE=WIDE)
    offset = starts(counts.view(-1).long())
    total = int(offset[-1])
    index, value = torch.empty(total, dtype=torch.int64, device=device), torch.empty(total, dtype=torch.float32, device=device)
    _launch(_write_above, grid, pre, bar, step, offset, index, value, S, WIDE=WIDE)
    return SparseLatents(offset[:: grid[1]].contiguous(), index, value, S)


@triton.jit
def _keys(pre, j, S):
    """Positive numbers as integers of the same order; everything else, NaN included, as 0."""
    x = tl.load(pre + j, mask=j < S, other=0.0).to(tl.float32)
    return tl.where(x > 0, x, 0.0).to(tl.int32, bitcast=True)


@triton.jit
def _largest(pre, index, value, counts, S, k, WIDE: tl.constexpr):
    """The k-th key bit by bit, from the highest; then all above it and the first of those that equal it."""
    row = tl.program_id(0)
    pre += row.to(tl.int64) * S
    cut = tl.zeros((), tl.int32)
    for b in range(31):
        trial = cut | (1 << (30 - b))
        passed = tl.zeros((), tl.int32)
        for j0 in range(0, S, WIDE):
            passed += tl.sum((_keys(pre, j0 + tl.arange(0, WIDE), S) >= trial).to(tl.int32), axis=0)
        cut = tl.where(passed >= k, trial, cut)
    over = tl.zeros((), tl.int32)
    for j0 in range(0, S, WIDE):
        over += tl.sum((_keys(pre, j0 + tl.arange(0, WIDE), S) > cut).to(tl.int32), axis=0)
    room = tl.where(cut > 0, k - over, 0)
    at, equal = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    for j0 in range(0, S, WIDE):
        j = j0 + tl.arange(0, WIDE)
        key = _keys(pre, j, S)
        same = key == cut
        hit = (key > cut) | (same & (equal + tl.cumsum(same.to(tl.int32), axis=0) <= room))
        place = row.to(tl.int64) * k + at + tl.cumsum(hit.to(tl.int32), axis=0) - 1
        tl.store(index + place, j.to(tl.int64), mask=hit)
        tl.store(value + place, key.to(tl.float32, bitcast=True), mask=hit)
        at += tl.sum(hit.to(tl.int32), axis=0)
        equal += tl.sum(same.to(tl.int32), axis=0)
    tl.store(counts + row, at.to(tl.int64))


def largest(pre_acts: Tensor, k: int) -> SparseLatents:
    """As `reference.largest`; among equal entries the first are taken."""
    (n, S), device = pre_acts.shape, pre_acts.device
    k = min(k, S)
    index, value = torch.empty(n, k, dtype=torch.int64, device=device), torch.empty(n, k, device=device)
    counts = torch.empty(n, dtype=torch.int64, device=device)
    _launch(_largest, (n,), pre_acts.contiguous(), index, value, counts, S, k, WIDE=WIDE)
    kept = torch.arange(k, device=device) < counts[:, None]
    return SparseLatents(starts(counts), index[kept], value[kept], S)


# -- products
@triton.jit
def _gathered_sum(start, index, value, weight, out, d, ENTRIES: tl.constexpr, DIMENSIONS: tl.constexpr):
    """out[b] = sum of value * weight[index] over the entries of row b, a tile of entries at a time."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * DIMENSIONS + tl.arange(0, DIMENSIONS)
    total = tl.zeros((DIMENSIONS,), tl.float32)
    first, last = tl.load(start + row), tl.load(start + row + 1)
    for e0 in range(first, last, ENTRIES):
        e = e0 + tl.arange(0, ENTRIES)
        i = tl.load(index + e, mask=e < last, other=0)
        v = tl.load(value + e, mask=e < last, other=0.0)
        w = tl.load(weight + i[:, None] * d + c[None, :], mask=(e < last)[:, None] & (c < d)[None, :], other=0.0)
        total += tl.sum(v[:, None] * w, axis=0)
    tl.store(out + row * d + c, total, mask=c < d)


def _summed(start: Tensor, index: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    n, d = len(start) - 1, weight.shape[1]
    out = torch.empty(n, d, device=weight.device)
    grid = (n, triton.cdiv(d, DIMENSIONS))
    _launch(_gathered_sum, grid, start, index, value, weight.contiguous(), out, d, ENTRIES=ENTRIES, DIMENSIONS=DIMENSIONS)
    return out


def decode(latents: SparseLatents, weight: Tensor) -> Tensor:
    """As `reference.decode`."""
    return _summed(latents.start, latents.index, latents.value, weight)


def weight_gradient(latents: SparseLatents, gradient: Tensor) -> Tensor:
    """As `reference.weight_gradient`: sorted by latent once, then a gather."""
    order = torch.argsort(latents.index, stable=True)
    start = starts(torch.bincount(latents.index, minlength=latents.d_sae))
    return _summed(start, latents.rows[order], latents.value[order], gradient)


@triton.jit
def _dots(rows, index, gradient, weight, out, nnz, d, ENTRIES: tl.constexpr, DIMENSIONS: tl.constexpr):
    """out[e] = gradient[row of e] . weight[index[e]]."""
    e = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    row, i = tl.load(rows + e, mask=e < nnz, other=0), tl.load(index + e, mask=e < nnz, other=0)
    total = tl.zeros((ENTRIES,), tl.float32)
    for c0 in range(0, d, DIMENSIONS):
        c = c0 + tl.arange(0, DIMENSIONS)
        inside = (e < nnz)[:, None] & (c < d)[None, :]
        g = tl.load(gradient + row[:, None] * d + c[None, :], mask=inside, other=0.0)
        w = tl.load(weight + i[:, None] * d + c[None, :], mask=inside, other=0.0)
        total += tl.sum(g * w, axis=1)
    tl.store(out + e, total, mask=e < nnz)


def latent_gradient(latents: SparseLatents, gradient: Tensor, weight: Tensor) -> Tensor:
    """As `reference.latent_gradient`."""
    nnz, d = len(latents.index), weight.shape[1]
    out = torch.empty(nnz, device=weight.device)
    grid = (triton.cdiv(nnz, ENTRIES),)
    _launch(
        _dots,
        grid,
        latents.rows,
        latents.index,
        gradient.contiguous(),
        weight.contiguous(),
        out,
        nnz,
        d,
        ENTRIES=ENTRIES,
        DIMENSIONS=DIMENSIONS,
    )
    return out


# -- nested prefixes
@triton.jit
def _prefix_errors(written, base, base_step, target, scale, last, P, d, DIMENSIONS: tl.constexpr):
    """`base_step` is d where every row has a base of its own, 0 where all share one."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * DIMENSIONS + tl.arange(0, DIMENSIONS)
    inside = c < d
    error = tl.load(base + row * base_step + c, mask=inside) - tl.load(target + row * d + c, mask=inside)
    segment = written + row * P * d + c
    for p in range(P):
        error += tl.load(segment + p * d, mask=inside)
        tl.store(segment + p * d, tl.load(scale + p) * error, mask=inside)
    tl.store(last + row * d + c, error, mask=inside)
    after = tl.zeros((DIMENSIONS,), tl.float32)
    for q in range(P):
        p = P - 1 - q
        after += tl.load(segment + p * d, mask=inside)
        tl.store(segment + p * d, after, mask=inside)


def prefix_errors(written: Tensor, base: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """As `reference.prefix_errors`, in one pass."""
    n, P, d = written.shape
    written, base, target = written.contiguous(), base.contiguous(), target.contiguous()
    scale, last = ((2 / n) * weights).to(written), torch.empty_like(target)
    grid = (n, triton.cdiv(d, DIMENSIONS))
    _launch(_prefix_errors, grid, written, base, d * (base.ndim == 2), target, scale, last, P, d, DIMENSIONS=DIMENSIONS)
    return written, last


# -- the optimiser
@triton.jit
def _adam(
    value, gradient, second, first, lr, beta1, beta2, scale1, scale2, clip, epsilon, d,
    UNIT_ROWS: tl.constexpr, FIRST: tl.constexpr, DIMENSIONS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * d
    along = tl.zeros((), tl.float32)
    if UNIT_ROWS:
        for c0 in range(0, d, DIMENSIONS):
            c = c0 + tl.arange(0, DIMENSIONS)
            v = tl.load(value + row + c, mask=c < d, other=0.0)
            along += tl.sum(v * tl.load(gradient + row + c, mask=c < d, other=0.0), axis=0)
    square = tl.zeros((), tl.float32)
    for c0 in range(0, d, DIMENSIONS):
        c = c0 + tl.arange(0, DIMENSIONS)
        inside = c < d
        v = tl.load(value + row + c, mask=inside, other=0.0)
        g = tl.load(gradient + row + c, mask=inside, other=0.0) - along * v
        m = beta2 * tl.load(second + row + c, mask=inside, other=0.0) + (1 - beta2) * g * g
        tl.store(second + row + c, m, mask=inside)
        if FIRST:
            f = tl.load(first + row + c, mask=inside, other=0.0)
            f += (1 - beta1) * (g - f)
            tl.store(first + row + c, f, mask=inside)
            g = f * scale1
        ratio = g / (tl.sqrt(m * scale2) + epsilon)
        over, under = ratio > clip, ratio < -clip  # so written, a broken ratio stays broken
        ratio = tl.where(over, clip, tl.where(under, -clip, ratio))
        v -= lr * ratio
        square += tl.sum(tl.where(inside, v * v, 0.0), axis=0)
        tl.store(value + row + c, v, mask=inside)
    if UNIT_ROWS:
        length = tl.sqrt(square)
        for c0 in range(0, d, DIMENSIONS):
            c = c0 + tl.arange(0, DIMENSIONS)
            tl.store(value + row + c, tl.load(value + row + c, mask=c < d, other=0.0) / length, mask=c < d)


def adam(
    value: Tensor, gradient: Tensor, second: Tensor, first: Tensor | None, step: AdamStep, *, unit_rows: bool = False
) -> None:
    """As `reference.adam`, in one pass over each row (three where rows are brought to length 1)."""
    n, d = value.shape
    numbers: tuple[Any, ...] = (step.lr, step.beta1, step.beta2, 1 / step.first_correction, 1 / step.second_correction,
                                step.clip or float("inf"), EPSILON)  # fmt: skip
    _launch(
        _adam,
        (n,),
        value,
        gradient.contiguous(),
        second,
        second if first is None else first,
        *numbers,
        d,
        UNIT_ROWS=unit_rows,
        FIRST=first is not None,
        DIMENSIONS=DIMENSIONS,
    )
