"""The model as the suite reads it: vectors of short texts at the dictionaries' sites, each text computed once for all of them.

last(texts)            the vectors at each text's last token: what a probe reads
next_to(prefix, ids)   the vectors at one more token after a common prefix, whose keys and values are computed once
once(key, compute)     what does not depend on the dictionary (probes of vectors, what the model knows): computed for the first one
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.latents.dataset import alike_in_length
from diascope.models import Model
from diascope.sites import Site

Vectors = dict[Site, Tensor]
T = TypeVar("T")


class Once:
    """Things by key, each computed when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, compute: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def forget(self) -> None:
        """Let all of it go."""
        self._known.clear()


class Subject:
    """`model` read at all sites of some dictionaries; what was read once is kept (float32)."""

    def __init__(
        self,
        model: Model,
        dictionaries: Iterable[Dictionary],
        *,
        context: int = 128,
        progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    ) -> None:
        """`context` is the number of tokens read of a text: the BOS and the last ones."""
        self.model, self.context, self.progress = model, context, progress
        self.sites = list(dict.fromkeys(s for d in dictionaries for s in d.sites))
        self.once = Once()
        self._row: dict[str, int] = {}
        self._parts: dict[Site, list[Tensor]] = {s: [] for s in self.sites}

    def last(self, texts: Sequence[str]) -> Vectors:
        """Vectors [len(texts), d] at every site, at the last token of each text."""
        new = [t for t in dict.fromkeys(texts) if t not in self._row]
        ids = [self._tokens(t) for t in new]
        done = 0
        for batch in alike_in_length([len(t) for t in ids]):
            seen = self.model.capture([ids[i] for i in batch], self.sites)
            end = seen.attention.sum(1) - 1
            for site in self.sites:
                self._parts[site].append(seen[site][torch.arange(len(batch), device=end.device), end].float().cpu())
            for i in batch:
                self._row[new[i]] = len(self._row)
            done += len(batch)
            self.progress(done, len(new), "reading texts")
        rows = torch.tensor([self._row[t] for t in texts], dtype=torch.int64)
        return {site: self._whole(site)[rows] for site in self.sites}

    def _whole(self, site: Site) -> Tensor:
        parts = self._parts[site]
        if len(parts) > 1:
            parts[:] = [torch.cat(parts)]
        return parts[0] if parts else torch.zeros(0, self.model.width(site))

    def _tokens(self, text: str) -> list[int]:
        ids = self.model.tokenize(text)
        if len(ids) <= self.context:
            return ids
        first = 0 if self.model.bos_id is None else 1
        return ids[:first] + ids[first - self.context :]

    def next_to(self, prefix: Sequence[int], ids: Sequence[int]) -> Vectors:
        """Vectors [len(ids), d] at every site, at the token ids[i] standing alone after the tokens `prefix`."""
        self.progress(0, len(ids), "reading words")
        return {site: x.float().cpu() for site, x in self.model.capture_next(prefix, ids, self.sites).items()}
