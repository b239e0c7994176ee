"""Keys and values of the tokens before what changes: computed once a prompt, put together for any batch.

An audit reads the same prompts over and over: their scores, their answers, and both again under hundreds of edits that act on the last
few tokens alone. What stands before these tokens is the same each time. Positions are counted from a row's first token that is not
padding, so a row's keys do not depend on the batch that it was computed in, and rows of several batches can stand in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from diascope.models.model import Capture, Model
from diascope.sites import Site

MOST = 2**30  # bytes of keys and values that are kept; beyond, all is let go
Row = tuple[int, ...]
Layers = list[tuple[Tensor, Tensor]]  # keys and values of one row, each [heads, n, d], a layer


class Prefixes:
    """Of one model, whose weights stay as they are; `batch` rows are computed together."""

    def __init__(self, model: Model, *, batch: int = 16, most: int = MOST) -> None:
        self.model, self.batch, self.most = model, batch, most
        self.computed = 0  # rows so far
        self._kept: dict[Row, Layers] = {}
        self._parts = True  # whether this model's cache can be taken apart, as far as was seen

    def past(self, tokens: Tensor, attention: Tensor) -> Any:
        """The key-value cache after `tokens` [B, T], padded on the left as `attention` [B, T] says; None where T is 0.

        It may be grown. Where edits are active, or the cache is none that rows can be taken from (a sliding window that has been
        passed, states of another kind, layers that share keys), all of it is computed.
        """
        if not tokens.shape[1]:
            return None
        rows = [tuple(t[a].tolist()) for t, a in zip(tokens, attention, strict=True)]
        if not self.usable(tokens.shape[1]) or not self._complete(set(rows) - {()}):
            self.computed += len(rows)
            return self.model.decode_step(tokens, attention, None)[1]
        past = self._together(rows, tokens.shape[1])
        self._let_go()
        return past

    def capture(self, rows: Sequence[Sequence[int]], sites: Sequence[Site], first: Sequence[int]) -> Capture:
        """`model.capture` of token ids, whose pass also gives the keys and values of each row's `first` tokens, which are kept."""
        longest, prefixes = max(map(len, rows)), [tuple(row[:n]) for row, n in zip(rows, first, strict=True)]
        if not self.usable(longest) or set(prefixes) <= set(self._kept):
            return self.model.capture(rows, sites)
        past = self._empty()
        seen = self.model.capture(rows, sites, past=past)
        layers: Any = past.layers
        if all(_holds(x, longest) for x in layers):  # blocks above the deepest site do not run
            for number, row in enumerate(prefixes):
                n = len(row)
                self._kept[row] = [(_row(x.keys, number, 0, n), _row(x.values, number, 0, n)) for x in layers]
            self._let_go()
        return seen

    def usable(self, n: int) -> bool:
        """Whether prefixes of `n` tokens can be kept: no edit is active, and the cache then holds the keys of all of them."""
        if not self._parts or not self.model.resumes:
            return False
        return all(type(x) is DynamicLayer or _slides_beyond(x, n) for x in self._empty().layers)

    def _let_go(self) -> None:
        if sum(k.nbytes + v.nbytes for row in self._kept.values() for k, v in row) > self.most:
            self._kept = {}

    def _complete(self, rows: set[Row]) -> bool:
        """Keep the layers of all `rows`; False where this model's cache does not allow it."""
        missing = sorted(rows - set(self._kept), key=lambda r: (len(r), r))
        for start in range(0, len(missing), self.batch):
            some = missing[start : start + self.batch]
            tokens, attention = self.model.batch([list(r) for r in some], padding_side="left")
            past = self.model.decode_step(tokens, attention, None)[1]
            layers: Any = getattr(past, "layers", ())
            self._parts = type(past) is DynamicCache and all(_holds(x, tokens.shape[1]) for x in layers)
            if not self._parts:
                return False
            self.computed += len(some)
            last = tokens.shape[1]
            for number, row in enumerate(some):
                first = last - len(row)
                self._kept[row] = [(_row(x.keys, number, first, last), _row(x.values, number, first, last)) for x in layers]
        return True

    def _empty(self) -> DynamicCache:
        return DynamicCache(config=self.model.parts.config)

    def _together(self, rows: list[Row], n: int) -> DynamicCache:
        past = self._empty()
        for number, layer in enumerate(zip(*self._columns(rows, n), strict=True)):
            past.update(torch.stack([k for k, _ in layer]), torch.stack([v for _, v in layer]), number)
        return past

    def _columns(self, rows: list[Row], n: int) -> Iterator[Layers]:
        """Each row's layers, padded on the left to `n` tokens."""
        some = next(self._kept[r] for r in rows if r)
        for row in rows:
            own = self._kept[row] if row else [(k[:, :0], v[:, :0]) for k, v in some]
            yield [(F.pad(k, (0, 0, n - len(row), 0)), F.pad(v, (0, 0, n - len(row), 0))) for k, v in own]


def _slides_beyond(layer: Any, n: int) -> bool:
    """Whether a layer's window has not let go of any of `n` tokens."""
    return type(layer) is DynamicSlidingWindowLayer and n < layer.sliding_window


def _holds(layer: Any, n: int) -> bool:
    """Whether a filled layer has the keys of `n` tokens, [B, heads, n, d]."""
    keys = getattr(layer, "keys", None)
    return isinstance(keys, Tensor) and keys.ndim == 4 and keys.shape[-2] == n


def _row(x: Tensor, number: int, first: int, last: int) -> Tensor:
    """Tokens `first` to `last` of one row of x [B, heads, T, d], on memory of their own."""
    return x[number, :, first:last].clone()
