"""Keys and values of the tokens before what changes: computed once a prompt, put together for any batch.

An audit reads the same prompts over and over: their scores, their answers, and both again under hundreds of edits that act on the last
few tokens alone. What stands before these tokens is the same each time. Positions are counted from a row's first token that is not
padding, so a row's keys do not depend on the batch that it was computed in, and rows of several batches can stand in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from diascope.models.model import Model

MOST = 2**30  # bytes of keys and values that are kept; beyond, what is not asked for just now is let go
Row = tuple[int, ...]
Layers = list[tuple[Tensor, Tensor]]  # keys and values of one row, each [heads, n, d], a layer


class Prefixes:
    """Of one model, whose weights stay as they are; `batch` rows are computed together."""

    def __init__(self, model: Model, *, batch: int = 16, most: int = MOST) -> None:
        self.model, self.batch, self.most = model, batch, most
        self.computed = 0  # rows so far
        self._kept: dict[Row, Layers] = {}

    def past(self, tokens: Tensor, attention: Tensor) -> Any:
        """The key-value cache after `tokens` [B, T], padded on the left as `attention` [B, T] says; None where T is 0.

        It may be grown. Where edits are active, or the cache is none that rows can be taken from (a sliding window that has been
        passed, states of another kind, layers that share keys), all of it is computed.
        """
        if not tokens.shape[1]:
            return None
        rows = [tuple(t[a].tolist()) for t, a in zip(tokens, attention, strict=True)]
        if not self.model.resumes or not self._complete(set(rows) - {()}):
            self.computed += len(rows)
            return self.model.decode_step(tokens, attention, None)[1]
        return self._together(rows, tokens.shape[1])

    def _complete(self, rows: set[Row]) -> bool:
        """Keep the layers of all `rows`; False where this model's cache does not allow it."""
        missing = sorted(rows - set(self._kept), key=lambda r: (len(r), r))
        for start in range(0, len(missing), self.batch):
            some = missing[start : start + self.batch]
            tokens, attention = self.model.batch([list(r) for r in some], padding_side="left")
            past = self.model.decode_step(tokens, attention, None)[1]
            if not self._plain(past, tokens.shape[1]):
                return False
            self.computed += len(some)
            for number, row in enumerate(some):
                self._kept[row] = [(_row(x.keys, number, len(row)), _row(x.values, number, len(row))) for x in past.layers]
        if sum(k.nbytes + v.nbytes for row in self._kept.values() for k, v in row) > self.most:
            self._kept = {row: self._kept[row] for row in rows}
        return True

    def _plain(self, past: Any, n: int) -> bool:
        """Whether each layer holds the keys and values of all `n` tokens, so that they can be taken apart and put together."""
        if not isinstance(past, DynamicCache):
            return False
        alike = [type(x) for x in past.layers] == [type(x) for x in self._empty().layers]
        held = [getattr(x, "keys", None) for x in past.layers]
        return alike and all(isinstance(k, Tensor) and k.ndim == 4 and k.shape[-2] == n for k in held)

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


def _row(x: Tensor, number: int, n: int) -> Tensor:
    """The last `n` tokens of one row of x [B, heads, T, d], on memory of their own."""
    return x[number, :, x.shape[-2] - n :].clone()
