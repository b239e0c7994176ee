"""The kernels on GPUs, in Triton. No atomics: every sum has one order, so a step repeats bit for bit.

One program owns a row (or a latent, or a block of entries) and a stretch of the dimensions. Gradients of weights sort the
entries by latent once and are then the same gather as a decode. Tested in Triton's interpreter against plain torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diascope.kernels.latents import Columns, Product, SparseLatents, starts
from diascope.kernels.reference import EPSILON, AdamStep

WIDE = 1024  # entries of a row looked at together
ENTRIES, DIMENSIONS = 8, 128  # of a gathered tile, which one warp works on: the fastest of what was tried on an H200
LONG = 64  # entries of a latent from which on they are summed before its row's turn in the optimiser comes
SEARCHED = 128  # candidates of a row looked at together


def _launch(kernel: Any, grid: tuple[int, ...], *given: Any, **constants: Any) -> None:
    """Run a kernel over a grid of programs, unless it is empty."""
    if all(grid):
        kernel[grid](*given, **constants)


# -- selection
@triton.jit
def _above(pre, bar, row_step, column_step, row, j, S):
    """Entries j of a row in fp32, and which of them lie above their bar."""
    inside = j < S
    x = tl.load(pre + row.to(tl.int64) * S + j, mask=inside, other=float("-inf")).to(tl.float32)
    return x, (x > tl.load(bar + row * row_step + j * column_step, mask=inside, other=0.0)) & inside


@triton.jit
def _count_above(pre, bar, row_step, column_step, counts, S, WIDE: tl.constexpr):
    row, block = tl.program_id(0), tl.program_id(1)
    _, hit = _above(pre, bar, row_step, column_step, row, block * WIDE + tl.arange(0, WIDE), S)
    tl.store(counts + row * tl.num_programs(1) + block, tl.sum(hit.to(tl.int32), axis=0))


@triton.jit
def _write_above(pre, bar, row_step, column_step, offset, index, value, S, WIDE: tl.constexpr):
    row, block = tl.program_id(0), tl.program_id(1)
    first = tl.load(offset + row * tl.num_programs(1) + block)
    if tl.load(offset + row * tl.num_programs(1) + block + 1) > first:
        j = block * WIDE + tl.arange(0, WIDE)
        x, hit = _above(pre, bar, row_step, column_step, row, j, S)
        at = first + tl.cumsum(hit.to(tl.int32), axis=0) - 1
        tl.store(index + at, j.to(tl.int64), mask=hit)
        tl.store(value + at, x, mask=hit)


def select_above(pre_acts: Tensor, threshold: Tensor | float) -> SparseLatents:
    """As `reference.select_above`: counted, then written in order; stretches in which nothing was found are not read again."""
    bar = threshold.float().expand(pre_acts.shape[1]).contiguous() if isinstance(threshold, Tensor) else pre_acts.new_full((1,), threshold, dtype=torch.float32)  # fmt: skip
    return _selected(pre_acts, bar, 0, int(isinstance(threshold, Tensor)))


def _selected(pre_acts: Tensor, bar: Tensor, row_step: int, column_step: int) -> SparseLatents:
    """The entries above a bar of their row, of their column, or of all."""
    n, S = pre_acts.shape
    pre, device = pre_acts.contiguous(), pre_acts.device
    grid = (n, max(1, triton.cdiv(S, WIDE)))
    counts = torch.empty(grid, dtype=torch.int32, device=device)
    _launch(_count_above, grid, pre, bar, row_step, column_step, counts, S, WIDE=WIDE)
    offset = starts(counts.view(-1))
    total = int(offset[-1])
    index, value = torch.empty(total, dtype=torch.int64, device=device), torch.empty(total, dtype=torch.float32, device=device)
    _launch(_write_above, grid, pre, bar, row_step, column_step, offset, index, value, S, WIDE=WIDE)
    return SparseLatents(offset[:: grid[1]].contiguous(), index, value, S)


@triton.jit
def _group_maxima(pre, out, S, groups, GROUP: tl.constexpr, TOGETHER: tl.constexpr):
    """The largest of every GROUP neighbours of a row; NaN counts as nothing."""
    row, g = tl.program_id(0), tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER)
    j = g[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    x = tl.load(pre + row.to(tl.int64) * S + j, mask=j < S, other=0.0).to(tl.float32)
    tl.store(out + row * groups + g, tl.max(tl.where(x > 0, x, 0.0), axis=1), mask=g < groups)


def _group(S: int, k: int) -> int:
    """How many neighbours make a group: of at least 4 k groups, so that few of the largest share one; 1 where S is too small."""
    return 1 << max(0, (S // (4 * k)).bit_length() - 1) if k else 1


def largest(pre_acts: Tensor, k: int) -> SparseLatents:
    """As `reference.largest`; among equal entries the first are taken.

    1. The k-th largest of the groups' maxima is a lower bound of a row's k-th largest: k entries at least reach it.
    2. What reaches it (about k + k^2 / 8k entries where they lie anywhere) is gathered, and the k largest of that are kept.
    """
    n, S = pre_acts.shape
    k, group = min(k, S), min(1024, _group(S, min(k, S)))
    bar = torch.zeros(n, device=pre_acts.device)
    if group > 1:
        groups, together = triton.cdiv(S, group), max(1, WIDE // group)
        maxima = torch.empty(n, groups, device=pre_acts.device)
        grid = (n, triton.cdiv(groups, together))
        _launch(_group_maxima, grid, pre_acts.contiguous(), maxima, S, groups, GROUP=group, TOGETHER=together)
        least = maxima.topk(k, dim=1, sorted=False).values.amin(1)
        bar = torch.nextafter(least, torch.full_like(least, -1)).clamp_min(0)
    return strongest(_selected(pre_acts, bar, 1, 0), k)


@triton.jit
def _keys(value, e, last):
    """Positive numbers as integers of the same order; everything else as 0."""
    x = tl.load(value + e, mask=e < last, other=0.0)
    return tl.where(x > 0, x, 0.0).to(tl.int32, bitcast=True)


@triton.jit
def _strongest(start, index, value, into, entry, counts, k, ENTRIES: tl.constexpr):
    """The k-th key of a row bit by bit, from the highest; then all above it and the first of those that equal it."""
    row = tl.program_id(0).to(tl.int64)
    first, last = tl.load(start + row), tl.load(start + row + 1)
    cut, over = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    for b in range(31):
        trial = cut | (1 << (30 - b))
        passed = tl.zeros((), tl.int32)
        for e0 in range(first, last, ENTRIES):
            passed += tl.sum((_keys(value, e0 + tl.arange(0, ENTRIES), last) >= trial).to(tl.int32), axis=0)
        cut = tl.where(passed >= k, trial, cut)
        over = tl.where(passed >= k, over, passed)  # of the last bar that too few pass, which is the next key after `cut`
    room = tl.where(cut > 0, k - over, 0)
    at, equal = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    for e0 in range(first, last, ENTRIES):
        e = e0 + tl.arange(0, ENTRIES)
        key = _keys(value, e, last)
        same = key == cut
        hit = (key > cut) | (same & (equal + tl.cumsum(same.to(tl.int32), axis=0) <= room))
        place = row * k + at + tl.cumsum(hit.to(tl.int32), axis=0) - 1
        tl.store(into + place, tl.load(index + e, mask=hit, other=0), mask=hit)
        tl.store(entry + place, key.to(tl.float32, bitcast=True), mask=hit)
        at += tl.sum(hit.to(tl.int32), axis=0)
        equal += tl.sum(same.to(tl.int32), axis=0)
    tl.store(counts + row, at.to(tl.int64))


def strongest(latents: SparseLatents, k: int) -> SparseLatents:
    """As `reference.strongest`."""
    n, device = len(latents), latents.index.device
    index, value = torch.empty(n, k, dtype=torch.int64, device=device), torch.empty(n, k, device=device)
    counts = torch.empty(n, dtype=torch.int64, device=device)
    _launch(_strongest, (n,), latents.start, latents.index, latents.value, index, value, counts, k, ENTRIES=SEARCHED)
    if int(counts.sum()) == n * k:
        kept = slice(None)
        index, value = index.view(-1), value.view(-1)
    else:
        kept = torch.arange(k, device=device) < counts[:, None]
    return SparseLatents(starts(counts), index[kept], value[kept], latents.d_sae, latents.shape)


# -- products
@triton.jit
def _gathered_sum(
    which, start, index, value, entry, weight, out, d,
    LISTED: tl.constexpr, COLUMNS: tl.constexpr, ENTRIES: tl.constexpr, DIMENSIONS: tl.constexpr,
):  # fmt: skip
    """out[b] = sum of value * weight[index] over the entries of row b (or of the b-th of a list), a tile of entries at a time; of a
    column, the rows are gathered."""
    place = tl.program_id(0).to(tl.int64)
    row = tl.load(which + place) if LISTED else place
    c = tl.program_id(1) * DIMENSIONS + tl.arange(0, DIMENSIONS)
    total = tl.zeros((DIMENSIONS,), tl.float32)
    first, last = tl.load(start + row), tl.load(start + row + 1)
    for e0 in range(first, last, ENTRIES):
        e = e0 + tl.arange(0, ENTRIES)
        inside = e < last
        if COLUMNS:
            e = tl.load(entry + e, mask=inside, other=0)
        i = tl.load(index + e, mask=inside, other=0)
        v = tl.load(value + e, mask=inside, other=0.0)
        w = tl.load(weight + i[:, None] * d + c[None, :], mask=inside[:, None] & (c < d)[None, :], other=0.0)
        total += tl.sum(v[:, None] * w, axis=0)
    tl.store(out + place * d + c, total, mask=c < d)


def _summed(
    start: Tensor, index: Tensor, value: Tensor, weight: Tensor, entry: Tensor | None = None, which: Tensor | None = None
) -> Tensor:
    n, d = len(start) - 1 if which is None else len(which), weight.shape[1]
    out = torch.empty(n, d, device=weight.device)
    grid = (n, triton.cdiv(d, DIMENSIONS))
    given = (which, start, index, value.contiguous(), entry, weight.contiguous(), out, d)
    given = tuple(start if g is None else g for g in given)  # in the place of what is not read
    tile = {"ENTRIES": ENTRIES, "DIMENSIONS": DIMENSIONS, "num_warps": 1}
    _launch(_gathered_sum, grid, *given, LISTED=which is not None, COLUMNS=entry is not None, **tile)
    return out


def decode(latents: SparseLatents, weight: Tensor) -> Tensor:
    """As `reference.decode`."""
    return _summed(latents.start, latents.index, latents.value, weight)


def columns(latents: SparseLatents) -> Columns:
    """As `reference.columns`. Keys of 32 bits take half the passes of 64."""
    latent, entry = torch.sort(latents.index.int(), stable=True)
    ends = torch.arange(latents.d_sae + 1, dtype=torch.int32, device=latent.device)
    return Columns(torch.searchsorted(latent, ends), entry)


def column_sums(latents: SparseLatents, columns: Columns) -> Tensor:
    """As `reference.column_sums`, in the same order every time, which adding by atomics is not."""
    if not len(columns.entry):
        return latents.value.new_zeros(latents.d_sae)
    return torch.segment_reduce(latents.value[columns.entry], "sum", offsets=columns.start, initial=0.0)


def weight_gradient(latents: SparseLatents, gradient: Tensor, columns: Columns) -> Tensor:
    """As `reference.weight_gradient`: a gather once the entries are sorted by latent."""
    return _summed(columns.start, latents.rows, latents.value, gradient, columns.entry)


@triton.jit
def _dots(rows, index, gradient, weight, out, nnz, d, ENTRIES: tl.constexpr, DIMENSIONS: tl.constexpr):
    """out[e] = gradient[row of e] . weight[index[e]]; lanes are added up once, at the end."""
    e = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    row, i = tl.load(rows + e, mask=e < nnz, other=0), tl.load(index + e, mask=e < nnz, other=0)
    total = tl.zeros((ENTRIES, DIMENSIONS), tl.float32)
    for c0 in range(0, d, DIMENSIONS):
        c = c0 + tl.arange(0, DIMENSIONS)
        inside = (e < nnz)[:, None] & (c < d)[None, :]
        g = tl.load(gradient + row[:, None] * d + c[None, :], mask=inside, other=0.0)
        w = tl.load(weight + i[:, None] * d + c[None, :], mask=inside, other=0.0)
        total += g * w
    tl.store(out + e, tl.sum(total, axis=1), mask=e < nnz)


def latent_gradient(latents: SparseLatents, gradient: Tensor, weight: Tensor) -> Tensor:
    """As `reference.latent_gradient`."""
    nnz, d = len(latents.index), weight.shape[1]
    out = torch.empty(nnz, device=weight.device)
    grid = (triton.cdiv(nnz, ENTRIES),)
    given = (latents.rows, latents.index, gradient.contiguous(), weight.contiguous(), out, nnz, d)
    _launch(_dots, grid, *given, ENTRIES=ENTRIES, DIMENSIONS=DIMENSIONS, num_warps=1)
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
def _stepped(v, g, m, f, inside, lr, beta1, beta2, scale1, scale2, clip, epsilon, UNIT_ROWS: tl.constexpr, FIRST: tl.constexpr):
    """Adam on one whole row: its new value and moments."""
    if UNIT_ROWS:
        g -= tl.sum(v * g, axis=0) * v
    m = beta2 * m + (1 - beta2) * g * g
    if FIRST:
        f += (1 - beta1) * (g - f)
        g = f * scale1
    ratio = g / (tl.sqrt(m * scale2) + epsilon)
    over, under = ratio > clip, ratio < -clip  # so written, a broken ratio stays broken
    v -= lr * tl.where(over, clip, tl.where(under, -clip, ratio))
    if UNIT_ROWS:
        v /= tl.sqrt(tl.sum(tl.where(inside, v * v, 0.0), axis=0))
    return v, m, f


@triton.jit
def _adam(
    value, gradient, second, first, lr, beta1, beta2, scale1, scale2, clip, epsilon, d,
    UNIT_ROWS: tl.constexpr, FIRST: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    c = tl.arange(0, WHOLE)
    at, inside = tl.program_id(0).to(tl.int64) * d + c, c < d
    v, g = tl.load(value + at, mask=inside, other=0.0), tl.load(gradient + at, mask=inside, other=0.0)
    m = tl.load(second + at, mask=inside, other=0.0)
    f = tl.load(first + at, mask=inside, other=0.0) if FIRST else m
    v, m, f = _stepped(v, g, m, f, inside, lr, beta1, beta2, scale1, scale2, clip, epsilon, UNIT_ROWS, FIRST)
    tl.store(value + at, v, mask=inside)
    tl.store(second + at, m, mask=inside)
    if FIRST:
        tl.store(first + at, f, mask=inside)


@triton.jit
def _added(g, first, last, slot, summed, entry, rows, value, gradient, c, inside, d, TOGETHER: tl.constexpr):
    """g + the sum of value * gradient[row] over the entries of a column, some at a time; of a long column it is there already."""
    if slot >= 0:
        g += tl.load(summed + slot.to(tl.int64) * d + c, mask=inside, other=0.0)
        first = last
    for e0 in range(first, last, TOGETHER):
        e = e0 + tl.arange(0, TOGETHER)
        p = tl.load(entry + e, mask=e < last, other=0)
        r, x = tl.load(rows + p, mask=e < last, other=0), tl.load(value + p, mask=e < last, other=0.0)
        part = tl.load(gradient + r[:, None] * d + c[None, :], mask=(e < last)[:, None] & inside[None, :], other=0.0)
        g += tl.sum(x[:, None] * part, axis=0)
    return g


@triton.jit
def _adam_of(
    value, slots0, summed0, start0, entry0, rows0, value0, gradient0, slots1, summed1, start1, entry1, rows1, value1, gradient1,
    second, first,
    lr, beta1, beta2, scale1, scale2, clip, epsilon, d,
    UNIT_ROWS: tl.constexpr, FIRST: tl.constexpr, TWO: tl.constexpr, WHOLE: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """`_adam`, the gradient of its row summed on the way: of a row that nothing touched only the second moment changes."""
    s = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, WHOLE)
    at, inside = s * d + c, c < d
    a0, b0, slot0 = tl.load(start0 + s), tl.load(start0 + s + 1), tl.load(slots0 + s)
    touched = b0 > a0
    if TWO:
        a1, b1, slot1 = tl.load(start1 + s), tl.load(start1 + s + 1), tl.load(slots1 + s)
        touched = touched | (b1 > a1)
    m = tl.load(second + at, mask=inside, other=0.0)
    if touched or FIRST:
        g = _added(
            tl.zeros((WHOLE,), tl.float32), a0, b0, slot0, summed0, entry0, rows0, value0, gradient0, c, inside, d, TOGETHER
        )
        if TWO:
            g = _added(g, a1, b1, slot1, summed1, entry1, rows1, value1, gradient1, c, inside, d, TOGETHER)
        v = tl.load(value + at, mask=inside, other=0.0)
        f = tl.load(first + at, mask=inside, other=0.0) if FIRST else m
        v, m, f = _stepped(v, g, m, f, inside, lr, beta1, beta2, scale1, scale2, clip, epsilon, UNIT_ROWS, FIRST)
        tl.store(value + at, v, mask=inside)
        if FIRST:
            tl.store(first + at, f, mask=inside)
    else:
        m *= beta2
    tl.store(second + at, m, mask=inside)


def _sources(product: Product, columns: Columns) -> tuple[Tensor, ...]:
    """What `_adam_of` reads of a product: where the sums of long columns are [S] (-1: nowhere), they themselves, and all entries."""
    latents, rows = product.latents, product.rows.contiguous()
    value, places = latents.value.contiguous(), latents.places
    if "long" not in places:
        often = (columns.start[1:] - columns.start[:-1]) >= LONG
        places["long"] = often.nonzero().squeeze(1), torch.where(often, often.cumsum(0) - 1, -1).int()
    which, slots = places["long"]
    summed = _summed(columns.start, latents.rows, value, rows, columns.entry, which) if len(which) else rows
    return slots, summed, columns.start, columns.entry, latents.rows, value, rows


def _numbers(step: AdamStep) -> tuple[Any, ...]:
    return (step.lr, step.beta1, step.beta2, 1 / step.first_correction, 1 / step.second_correction, step.clip or float("inf"), EPSILON)  # fmt: skip


def _tiles(d: int, first: Tensor | None, unit_rows: bool) -> dict[str, Any]:
    """A row is in registers as a whole: up to 32 numbers a thread of each of its tensors."""
    whole = triton.next_power_of_2(d)
    return {"UNIT_ROWS": unit_rows, "FIRST": first is not None, "WHOLE": whole, "num_warps": 4}


def adam(
    value: Tensor, gradient: Tensor, second: Tensor, first: Tensor | None, step: AdamStep, *, unit_rows: bool = False
) -> None:
    """As `reference.adam`, in one pass over each row."""
    n, d = value.shape
    moments = (second, second if first is None else first)
    _launch(_adam, (n,), value, gradient.contiguous(), *moments, *_numbers(step), d, **_tiles(d, first, unit_rows))


def adam_of(
    value: Tensor,
    products: Sequence[tuple[Product, Columns]],
    second: Tensor,
    first: Tensor | None,
    step: AdamStep,
    *,
    unit_rows: bool = False,
) -> None:
    """As `reference.adam_of`, in one pass over each row; of gradients, only those of latents that fire often are in memory.

    One program goes through all entries of a latent, so those that have many are summed before, many programs to each.
    """
    n, d = value.shape
    parts = [_sources(p, c) for p, c in products]
    moments = (second, second if first is None else first)
    tiles = _tiles(d, first, unit_rows) | {"TWO": len(parts) == 2}
    tiles["TOGETHER"] = max(1, min(4, 4096 // tiles["WHOLE"]))
    _launch(_adam_of, (n,), value, *parts[0], *parts[-1], *moments, *_numbers(step), d, **tiles)
