"""The kernels on processors, compiled by numba at their first use and kept in its cache.

Rows (or latents) are shared out to a pool of threads in blocks; every sum runs over its entries in their order, so
results are the same bits on any number of threads. No kernel starts threads of its own, so any thread may call them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from torch import Tensor

from diascope.kernels.latents import Columns, Product, SparseLatents
from diascope.kernels.reference import EPSILON, AdamStep, column_sums, strongest

__all__ = [
    "adam", "adam_of", "column_sums", "columns", "decode", "largest", "latent_gradient", "prefix_errors", "select_above", "strongest",
    "weight_gradient",
]  # fmt: skip

T = TypeVar("T")
LARGEST_BLOCK = 2**24  # entries of pre-activations in one block: what a block may find has room for all of them


def _compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """Sums may be reordered into vector lanes, always in the same way; NaN and infinity keep their meaning."""
    return numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy")(f)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "diascope-kernel")


def _spread(work: Callable[[int, int], T], total: int, least: int = 1) -> list[T]:
    """`work(first, last)` over blocks of at least `least` that together are 0..total, in order of the blocks."""
    threads = torch.get_num_threads()
    blocks = max(1, min(8 * threads, total // max(least, 1)))
    edges = [total * i // blocks for i in range(blocks + 1)]
    if blocks == 1 or threads == 1:
        return [work(a, b) for a, b in itertools.pairwise(edges)]
    return list(_pool(threads, os.getpid()).map(work, edges[:-1], edges[1:]))


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().contiguous().numpy()


# -- selection
LANES = 64  # entries looked at together: most such stretches hold nothing


@_compiled
def _above(pre, bar, counts, index, value):
    """Entries of pre [n, S] above bar [S] into index and value; the rows' counts; returns how many there are."""
    n, S = pre.shape
    whole = S // LANES * LANES
    at = 0
    for b in range(n):
        row = pre[b]
        began = at
        for j0 in range(0, whole, LANES):
            hits = np.float32(0)  # floating point, since such sums go into the widest vectors
            for j in range(j0, j0 + LANES):
                hits += np.float32(1) if row[j] > bar[j] else np.float32(0)
            if hits > 0:
                for j in range(j0, j0 + LANES):
                    if row[j] > bar[j]:
                        index[at] = j
                        value[at] = row[j]
                        at += 1
        for j in range(whole, S):
            if row[j] > bar[j]:
                index[at] = j
                value[at] = row[j]
                at += 1
        counts[b] = at - began
    return at


@_compiled
def _gathered(row, bar, near):
    """Entries of row [S] strictly above one bar, in order, into near; how many."""
    S = len(row)
    whole = S // LANES * LANES
    found = 0
    for j0 in range(0, whole, LANES):
        hits = np.float32(0)
        for j in range(j0, j0 + LANES):
            hits += np.float32(1) if row[j] > bar else np.float32(0)
        if hits > 0:
            for j in range(j0, j0 + LANES):
                if row[j] > bar:
                    near[found] = j
                    found += 1
    for j in range(whole, S):
        if row[j] > bar:
            near[found] = j
            found += 1
    return found


@_compiled
def _largest(pre, k, counts, index, value):
    """The k largest positive entries of each row of pre [n, S]; among equals the first."""
    n, S = pre.shape
    near = np.empty(S, np.int64)
    bar = np.float32(0.0)  # what the row before had as its k-th: most of this row lies below it
    at = 0
    for b in range(n):
        row = pre[b]
        guess = np.float32(0.8) * bar
        found = _gathered(row, guess, near)
        while found < k and guess > 0:
            guess = np.float32(0.5) * guess if guess > np.float32(1e-3) * bar else np.float32(0.0)
            found = _gathered(row, guess, near)
        cut, room = guess, 0  # taken are all strictly above `cut`, and of those equal to it the first `room`
        if found > k:
            cut = np.partition(row[near[:found]], found - k)[found - k]
            bar = cut
            over = 0
            for i in range(found):
                over += row[near[i]] > cut
            room = k - over
        began = at
        for i in range(found):
            entry = row[near[i]]
            if entry > cut or (entry == cut and room > 0):
                room -= entry == cut
                index[at] = near[i]
                value[at] = entry
                at += 1
        counts[b] = at - began
    return at


@_compiled
def _widened(bits):
    """bfloat16 numbers, given as their bits, in fp32: the same bits with sixteen zeros behind them."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _selected(pre_acts: Tensor, per_row: int, search: Callable[..., Any]) -> SparseLatents:
    """Latents found block by block of rows by `search(pre, counts, index, value)`, at most `per_row` in each."""
    half = pre_acts.dtype == torch.bfloat16
    pre = _array(pre_acts.view(torch.uint16) if half else pre_acts)
    n, S = pre.shape
    counts = np.zeros(n, np.int64)

    def block(a: int, b: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        found = []
        step = max(1, (LARGEST_BLOCK // 64 // max(S, 1)) if half else LARGEST_BLOCK // max(per_row, 1))
        for c in range(a, b, step):
            d = min(b, c + step)
            # pages that are not written take no memory
            index, value = np.empty((d - c) * per_row, np.int64), np.empty((d - c) * per_row, np.float32)
            at = search(_widened(pre[c:d]) if half else pre[c:d], counts[c:d], index, value)
            found.append((index[:at].copy(), value[:at].copy()))
        return found

    parts = [part for found in _spread(block, n, 16) for part in found]
    start = np.zeros(n + 1, np.int64)
    np.cumsum(counts, out=start[1:])
    index, value = (torch.from_numpy(np.concatenate([p[i] for p in parts]) if parts else np.empty(0)) for i in (0, 1))
    return SparseLatents(torch.from_numpy(start), index.long(), value.float(), S)


def select_above(pre_acts: Tensor, threshold: Tensor | float) -> SparseLatents:
    """As `reference.select_above`."""
    S = pre_acts.shape[1]
    bar = _array(threshold.expand(S)) if isinstance(threshold, Tensor) else np.full(S, threshold, np.float32)
    return _selected(pre_acts, S, lambda pre, counts, index, value: _above(pre, bar, counts, index, value))


def largest(pre_acts: Tensor, k: int) -> SparseLatents:
    """As `reference.largest`; among equal entries the first are taken."""
    k = min(k, pre_acts.shape[1])
    return _selected(pre_acts, k, lambda pre, counts, index, value: _largest(pre, k, counts, index, value))


# -- products
@_compiled
def _add(row, e, last, index, value, weight):
    """row += the sum of value * weight[index] over the entries e..last, four at a time."""
    d = len(row)
    while e + 4 <= last:
        v0, v1, v2, v3 = value[e], value[e + 1], value[e + 2], value[e + 3]
        w0, w1, w2, w3 = weight[index[e]], weight[index[e + 1]], weight[index[e + 2]], weight[index[e + 3]]
        for c in range(d):
            row[c] += (v0 * w0[c] + v1 * w1[c]) + (v2 * w2[c] + v3 * w3[c])
        e += 4
    while e < last:
        v, w = value[e], weight[index[e]]
        for c in range(d):
            row[c] += v * w[c]
        e += 1


@_compiled
def _decode(start, index, value, weight, out):
    """out[b] = sum of value * weight[index] over the entries of row b."""
    n, d = out.shape
    for b in range(n):
        row = out[b]
        for c in range(d):
            row[c] = 0
        _add(row, start[b], start[b + 1], index, value, weight)


@_compiled
def _dots(start, index, gradient, weight, out):
    """out[e] = gradient[b] . weight[index[e]] for the entries e of row b."""
    n, d = gradient.shape
    for b in range(n):
        row = gradient[b]
        for e in range(start[b], start[b + 1]):
            w = weight[index[e]]
            total = np.float32(0)
            for c in range(d):
                total += row[c] * w[c]
            out[e] = total


@_compiled
def _columns(index, into, entry):
    """The entries sorted by latent (a counting sort, which keeps the rows' order): where each latent begins, and which they are."""
    for e in range(len(index)):
        into[index[e] + 1] += 1
    for s in range(len(into) - 1):
        into[s + 1] += into[s]
    at = into[:-1].copy()
    for e in range(len(index)):
        s = index[e]
        entry[at[s]] = e
        at[s] += 1


def columns(latents: SparseLatents) -> Columns:
    """As `reference.columns`."""
    index = _array(latents.index)
    into, entry = np.zeros(latents.d_sae + 1, np.int64), np.empty_like(index)
    _columns(index, into, entry)
    return Columns(torch.from_numpy(into), torch.from_numpy(entry))


def decode(latents: SparseLatents, weight: Tensor) -> Tensor:
    """As `reference.decode`."""
    return _summed(_array(latents.start), _array(latents.index), _array(latents.value), _array(weight))


def _summed(start: Any, index: Any, value: Any, weight: Any) -> Tensor:
    out = np.empty((len(start) - 1, weight.shape[1]), np.float32)
    _spread(lambda a, b: _decode(start[a : b + 1], index, value, weight, out[a:b]), len(out), 16)
    return torch.from_numpy(out)


def latent_gradient(latents: SparseLatents, gradient: Tensor, weight: Tensor) -> Tensor:
    """As `reference.latent_gradient`."""
    start, index, G, W = map(_array, (latents.start, latents.index, gradient, weight))
    out = np.empty(len(index), np.float32)
    _spread(lambda a, b: _dots(start[a : b + 1], index, G[a:b], W, out), len(G), 16)
    return torch.from_numpy(out)


def weight_gradient(latents: SparseLatents, gradient: Tensor, columns: Columns) -> Tensor:
    """As `reference.weight_gradient`."""
    return _summed(*_by_latent(latents, columns), _array(gradient))


def _by_latent(latents: SparseLatents, columns: Columns) -> tuple[Any, Any, Any]:
    """Where each latent begins, and the rows and values of its entries."""
    start, entry = columns
    return _array(start), _array(latents.rows[entry]), _array(latents.value[entry])


@_compiled
def _prefix_errors(written, base, step, target, scale, last):
    """`step` is 1 where every row has a base of its own, 0 where all share the first."""
    n, P, d = written.shape
    for b in range(n):
        error, y, b0 = last[b], target[b], base[b * step]
        for c in range(d):
            error[c] = b0[c] - y[c]
        for p in range(P):
            segment, w = written[b, p], scale[p]
            for c in range(d):
                error[c] += segment[c]
                segment[c] = w * error[c]
        for p in range(P - 2, -1, -1):
            segment, longer = written[b, p], written[b, p + 1]
            for c in range(d):
                segment[c] += longer[c]


def prefix_errors(written: Tensor, base: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """As `reference.prefix_errors`, in one pass."""
    G, b, y = _array(written), _array(base.reshape(-1, base.shape[-1])), _array(target)
    scale = _array((2 / len(y) * weights).to(written))
    step, last = int(base.ndim == 2), np.empty_like(y)
    _spread(lambda i, j: _prefix_errors(G[i:j], b[i * step :], step, y[i:j], scale, last[i:j]), len(y), 16)
    return torch.from_numpy(G), torch.from_numpy(last)


# -- the optimiser
@_compiled
def _adam_row(v, g, m, f, lr, beta1, beta2, scale1, scale2, clip, epsilon, unit_rows):
    """One row of the parameter, with its gradient and moments; the gradient is used up."""
    d, one = len(v), np.float32(1)
    if unit_rows:
        along = np.float32(0)
        for c in range(d):
            along += g[c] * v[c]
        for c in range(d):
            g[c] -= along * v[c]
    for c in range(d):
        m[c] = beta2 * m[c] + (one - beta2) * g[c] * g[c]
    if beta1 > 0:
        for c in range(d):
            f[c] += (one - beta1) * (g[c] - f[c])
            g[c] = f[c] * scale1
    square = np.float32(0)
    for c in range(d):
        ratio = g[c] / (np.sqrt(m[c] * scale2) + epsilon)
        v[c] -= lr * min(max(ratio, -clip), clip)
        square += v[c] * v[c]
    if unit_rows:
        shrink = one / np.sqrt(square)
        for c in range(d):
            v[c] *= shrink


@_compiled
def _adam(value, gradient, second, first, lr, beta1, beta2, scale1, scale2, clip, epsilon, unit_rows):
    for i in range(len(value)):
        _adam_row(value[i], gradient[i], second[i], first[i], lr, beta1, beta2, scale1, scale2, clip, epsilon, unit_rows)


@_compiled
def _adam_of(
    value, start0, index0, entry0, rows0, start1, index1, entry1, rows1, second, first,
    lr, beta1, beta2, scale1, scale2, clip, epsilon, unit_rows,
):  # fmt: skip
    """`_adam`, with each row's gradient made when its turn comes: of two products, the second of which may be empty.

    A row that nothing touched stays, where there is no first moment: its gradient is 0, and only the second moment decays.
    """
    n, d = value.shape
    g = np.empty(d, np.float32)
    for i in range(n):
        m = second[i]
        if beta1 == 0 and start0[i] == start0[i + 1] and start1[i] == start1[i + 1]:
            for c in range(d):
                m[c] *= beta2
            continue
        for c in range(d):
            g[c] = 0
        _add(g, start0[i], start0[i + 1], index0, entry0, rows0)
        _add(g, start1[i], start1[i + 1], index1, entry1, rows1)
        _adam_row(value[i], g, m, first[i], lr, beta1, beta2, scale1, scale2, clip, epsilon, unit_rows)


def adam(
    value: Tensor, gradient: Tensor, second: Tensor, first: Tensor | None, step: AdamStep, *, unit_rows: bool = False
) -> None:
    """As `reference.adam`, in one pass over each row."""
    v, g, m = value.numpy(), _array(gradient), second.numpy()
    f = m if first is None else first.numpy()
    singles = _singles(first, step)
    _spread(lambda a, b: _adam(v[a:b], g[a:b], m[a:b], f[a:b], *singles, unit_rows), len(v), 16)


def _singles(first: Tensor | None, step: AdamStep) -> tuple[Any, ...]:
    numbers = (step.lr, step.beta1 if first is not None else 0.0, step.beta2, 1 / step.first_correction,
               1 / step.second_correction, step.clip or np.inf, EPSILON)  # fmt: skip
    return tuple(map(np.float32, numbers))


def adam_of(
    value: Tensor,
    products: Sequence[tuple[Product, Columns]],
    second: Tensor,
    first: Tensor | None,
    step: AdamStep,
    *,
    unit_rows: bool = False,
) -> None:
    """As `reference.adam_of`, in one pass over each row, the gradients of which are never in memory together."""
    v, m = value.numpy(), second.numpy()
    f = m if first is None else first.numpy()
    parts = [(*_by_latent(p.latents, c), _array(p.rows)) for p, c in products]
    none = (np.zeros(len(v) + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), parts[0][3])
    (s0, *one), (s1, *two) = parts if len(parts) == 2 else (*parts, none)
    singles = _singles(first, step)

    def rows(a: int, b: int) -> None:
        _adam_of(v[a:b], s0[a : b + 1], *one, s1[a : b + 1], *two, m[a:b], f[a:b], *singles, unit_rows)

    _spread(rows, len(v), 16)
