"""Sparse encode, decode and their gradients: the dense way is one matrix product each, these are its sparse equals.

Each function has a reference in plain torch (reference.py) and two compiled forms, which take fp32: for processors (cpu.py)
and, where Triton is, for GPUs (gpu.py). Everything else runs the reference. All give the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from math import gcd
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from diascope.kernels import cpu, reference
from diascope.kernels.latents import Columns, Product, SparseLatents, merged, rows_together, stacked
from diascope.kernels.reference import AdamStep

__all__ = [
    "AdamStep", "Product", "SparseLatents", "adam", "adam_of", "column_sums", "columns", "decode", "largest", "latent_gradient", "merged", "prefix_errors",
    "rows_together", "select_above", "stacked", "strongest", "weight_gradient",
]  # fmt: skip


def _for(*tensors: Tensor, half: bool = False) -> Any:
    if any(t.dtype != torch.float32 and not (half and t.dtype == torch.bfloat16) for t in tensors):
        return reference
    place = {t.device.type for t in tensors}
    return cpu if place == {"cpu"} else _gpu() if place == {"cuda"} else reference


@cache
def _gpu() -> ModuleType:
    """Triton comes with torch's builds for GPUs; importing it takes a second that processors need not wait for."""
    try:
        return import_module("diascope.kernels.gpu")
    except ImportError:
        return reference


def _attached(found: SparseLatents, pre_acts: Tensor) -> SparseLatents:
    """`found` with values that carry gradients back to pre_acts, where they are wanted."""
    return found.with_values(pre_acts[found.rows, found.index]) if pre_acts.requires_grad else found


def select_above(pre_acts: Tensor, threshold: Tensor | float) -> SparseLatents:
    """The entries of pre_acts [B, S] that lie strictly above `threshold` (a number or [S]); differentiable in pre_acts.

    Values of bfloat16 pre-activations come in fp32.
    """
    bars = (threshold,) if isinstance(threshold, Tensor) else ()
    found = _for(pre_acts, *bars, half=True).select_above(pre_acts.detach(), threshold)
    return _attached(found, pre_acts)


def largest(pre_acts: Tensor, k: int) -> SparseLatents:
    """The k largest positive entries of each row of pre_acts [B, S]; differentiable in pre_acts."""
    return _attached(_for(pre_acts, half=True).largest(pre_acts.detach(), k), pre_acts)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, latents: SparseLatents) -> Tensor:
        ctx.save_for_backward(value, weight)
        ctx.latents = latents
        return _for(value, weight).decode(latents, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (G,), (value, weight) = gradients, ctx.saved_tensors
        to_value, to_weight, _ = ctx.needs_input_grad
        return (
            latent_gradient(ctx.latents, G, weight) if to_value else None,
            weight_gradient(ctx.latents.with_values(value), G) if to_weight else None,
            None,
        )


def decode(latents: SparseLatents, weight: Tensor) -> Tensor:
    """f W: [B, d] of latents [B, S] and weight [S, d]; differentiable in both."""
    value = latents.value.to(weight.dtype)
    if torch.is_grad_enabled() and (value.requires_grad or weight.requires_grad):
        return _Decode.apply(value, weight, latents.with_values(value.detach()))  # type: ignore[no-any-return]
    return _for(value, weight).decode(latents.with_values(value), weight)  # type: ignore[no-any-return]


def latent_gradient(latents: SparseLatents, gradient: Tensor, weight: Tensor) -> Tensor:
    """(G W^T) at the entries of `latents` [nnz], of gradient [B, d] and weight [S, d]."""
    return _for(gradient, weight).latent_gradient(latents, gradient, weight)  # type: ignore[no-any-return]


def weight_gradient(latents: SparseLatents, gradient: Tensor) -> Tensor:
    """f^T G: [S, d] of latents [B, S] and gradient [B, d]."""
    return _for(latents.value, gradient).weight_gradient(latents, gradient, columns(latents))  # type: ignore[no-any-return]


def columns(latents: SparseLatents) -> Columns:
    """The entries latent by latent; found once for all latents of the same places."""
    if "columns" not in latents.places:
        latents.places["columns"] = _for(latents.value).columns(latents)
    return latents.places["columns"]  # type: ignore[no-any-return]


def column_sums(latents: SparseLatents) -> Tensor:
    """The sum of each latent's entries [S]: f^T 1."""
    return _for(latents.value).column_sums(latents, columns(latents))  # type: ignore[no-any-return]


def strongest(latents: SparseLatents, k: int) -> SparseLatents:
    """Each row's k largest entries, of latents whose values are positive; of equal ones the first."""
    return _for(latents.value).strongest(latents, k)  # type: ignore[no-any-return]


def prefix_errors(written: Tensor, base: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and error of nested prefixes, of what each of their P segments writes [B, P, d]; `written` is used up.

    y_hat_p = base + the segments up to p, base [d] or [B, d]; loss = sum_p w_p |y_hat_p - target|^2 / B. Returns the loss's
    derivative in each segment's output [B, P, d] (in the first: in base), and the error of the longest prefix [B, d].
    """
    return _for(written, base, target).prefix_errors(written, base, target, weights)  # type: ignore[no-any-return]


def adam(
    value: Tensor, gradient: Tensor, second: Tensor, first: Tensor | None, step: AdamStep, *, unit_rows: bool = False
) -> None:
    """One step of Adam on `value` [n, d] (or [n]) in place, with its moments (`first` is None for beta1 = 0); `gradient` is used up.

    With `unit_rows` the part of the gradient along each row is taken out first, and rows have length 1 afterwards.
    """
    if value.ndim == 1:
        wide = gcd(len(value), 256)  # vectors are seen as rows
        value, gradient, second = (t.view(-1, wide) for t in (value, gradient, second))
        first = None if first is None else first.view(-1, wide)
    _for(value, gradient, second).adam(value, gradient, second, first, step, unit_rows=unit_rows)


def adam_of(
    value: Tensor, products: Sequence[Product], second: Tensor, first: Tensor | None, step: AdamStep, *, unit_rows: bool = False
) -> None:
    """`adam` on `value` [S, d] with the sum of one or two products as its gradient, which is never in memory as a whole."""
    tensors = (value, second, *(t for p in products for t in (p.latents.value, p.rows)))
    found = [(p, columns(p.latents)) for p in products]
    _for(*tensors).adam_of(value, found, second, first, step, unit_rows=unit_rows)
