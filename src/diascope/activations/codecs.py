"""How rows are stored. A codec turns rows [n, d] into tensors that hold one row each, and any of them back.

| codec | bytes an element | squared error over variance, Gemma 3 270M (benchmarks/codecs.py) |
|---|---|---|
| float32 | 4 | 0 |
| bfloat16 | 2 | 3e-6 to 3e-5; 0 where the model itself computes in bfloat16 |
| int8-blocks | 1.06 | 5e-5 to 1e-3, in small dimensions to 6e-2: one bfloat16 scale for 32 neighbouring elements |
| int8-standardised | 1 + 4/d | 6e-5 to 1.4e-4 in all dimensions: each by its own mean and deviation, then one scale a row |

What a codec cost is measured on every run (`done.json`, docs/protocol.md); the table only says what to expect. float16 is no
codec: Gemma's residuals reach beyond its 65,504.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Stored = dict[str, Tensor]
Index = Tensor | slice
BLOCK = 32  # elements that share a scale
OF_ROWS = ("rows", "scale")  # tensors with an entry a row; the others are of all rows together


@dataclass(frozen=True)
class Codec:
    """`encode(rows [n, d])` gives tensors; `decode(tensors, index)` gives rows [len(index), d], in float32 or as they are stored."""

    encode: Callable[[Tensor], Stored]
    decode: Callable[[Mapping[str, Tensor], Index], Tensor]
    bytes_per_row: Callable[[int], float]
    """Bytes of one row of d elements."""


def _plain(dtype: torch.dtype) -> Codec:
    return Codec(
        lambda x: {"rows": x.to(dtype).contiguous()},
        lambda stored, index: stored["rows"][index],
        lambda d: d * dtype.itemsize,
    )


def _blocks_encode(x: Tensor) -> Stored:
    x = x.float()
    n, d = x.shape
    padded = torch.nn.functional.pad(x, (0, -d % BLOCK)).view(n, -1, BLOCK)
    scale = (padded.abs().amax(2) / 127).clamp_min(1e-30).to(torch.bfloat16)
    q = (padded / scale.float()[..., None]).round_().clamp_(-127, 127)  # the scale may have been rounded down
    return {"rows": q.to(torch.int8).view(n, -1)[:, :d].contiguous(), "scale": scale.contiguous()}


def _blocks_decode(stored: Mapping[str, Tensor], index: Index) -> Tensor:
    q = stored["rows"][index].float()
    return q.mul_(stored["scale"][index].float().repeat_interleave(BLOCK, 1)[:, : q.shape[1]])


def _standardised_encode(x: Tensor) -> Stored:
    x = x.float()
    mean = x.mean(0)
    deviation = (x - mean).square().mean(0).sqrt().clamp_min(1e-12)  # a dimension that never varies is its mean
    z = (x - mean) / deviation
    scale = (z.abs().amax(1) / 127).clamp_min(1e-30)
    return {"rows": (z / scale[:, None]).round_().to(torch.int8), "scale": scale, "mean": mean, "deviation": deviation}


def _standardised_decode(stored: Mapping[str, Tensor], index: Index) -> Tensor:
    z = stored["rows"][index].float().mul_(stored["scale"][index][:, None])
    return z.mul_(stored["deviation"]).add_(stored["mean"])


CODECS: dict[str, Codec] = {
    "float32": _plain(torch.float32),
    "bfloat16": _plain(torch.bfloat16),
    "int8-blocks": Codec(_blocks_encode, _blocks_decode, lambda d: d + 2 * -(-d // BLOCK)),
    "int8-standardised": Codec(_standardised_encode, _standardised_decode, lambda d: d + 4),
}


def codec(name: str) -> Codec:
    """The codec called `name`; ValueError that says which there are."""
    if name == "float16":
        raise ValueError("float16 cannot hold Gemma's residuals, which pass 65,504: choose bfloat16, or int8-standardised")
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}: choose one of {', '.join(CODECS)}")
    return CODECS[name]
