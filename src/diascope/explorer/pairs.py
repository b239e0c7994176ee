"""Two sources latent by latent: one dictionary on two models, or one that was fine-tuned from the other. Needs no torch.

1. Every source of the workspace's index and of those beside it (folders index-*) has a label: its name, with the folder's in
   front where that is another one.
2. Two sources are a pair where they have equally many latents at the same sites and
   a. are the same dictionary (equal config, model apart, equal thresholds, and equal decoders where these are here; where they
      are not, thresholds must differ among latents: two of TopK have none), read on two models or texts, or
   b. point the same way: the mean cosine of their decoders, latent by latent, is at least `ALIKE`, which nothing but a common
      start brings about (of unrelated dictionaries it is about 0).
3. Of a pair: densities, largest activations, cosine, and how surprising the change of density is,
       z = (n_b / N_b - n_a / N_a) / sqrt(n_a / N_a^2 + n_b / N_b^2)
   with n firings in N tokens (one added to each n). It takes tokens for independent; those of one document are not, so that z
   is too large in size: an order to look in, no test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diascope.explorer.decoders import cosines, decoder_rows
from diascope.latents.order import smallest
from diascope.latents.store import Index, Source

ALIKE = 0.5
SAMPLE = 512  # latents in which it is first seen whether two decoders are alike
COLUMNS = ("latent", "change", "ratio", "density_a", "density_b", "max_a", "max_b", "cosine")


@dataclass(frozen=True)
class Side:
    """One source of a pair, in its index."""

    label: str
    index: Index
    source: Source
    dictionary: Path

    @property
    def about(self) -> dict[str, Any]:
        """What a reader must know of it."""
        meta = self.source.meta
        return {
            "label": self.label,
            "source": self.source.name,
            "model": self.index.meta["model"],
            "title": str(meta.get("title", "")),
            "tokens": int(meta.get("tokens_swept") or 0),
        }


@dataclass(frozen=True)
class Pair:
    """Two sources whose latents belong together by number."""

    a: Side
    b: Side
    why: str

    @property
    def same_texts(self) -> bool:
        """Whether both were read on the same tokens."""
        one, other = self.a.index.tokens, self.b.index.tokens
        return one is other or (one.shape == other.shape and bool(np.array_equal(one, other)))

    def columns(self) -> dict[str, np.ndarray]:
        """`COLUMNS` [S] float64; nan where nothing is known."""
        a, b = self.a.source, self.b.source
        S = len(a)
        density = [np.asarray(s.columns["density"], np.float64) for s in (a, b)]
        tokens = [max(float(s.meta.get("tokens_swept") or 0), 1.0) for s in (a, b)]
        count = [p * n + 1 for p, n in zip(density, tokens, strict=True)]
        spread = np.sqrt(count[0] / tokens[0] ** 2 + count[1] / tokens[1] ** 2)
        largest = [np.asarray(s.columns.get("max_activation", np.full(S, np.nan)), np.float64) for s in (a, b)]
        rows = [decoder_rows(side.dictionary) for side in (self.a, self.b)]
        both = rows[0] is not None and rows[1] is not None and rows[0].shape == rows[1].shape == (S, rows[0].shape[1])
        cosine = cosines(rows[0], rows[1]) if both else np.full(S, np.nan)  # type: ignore[arg-type]
        if not both and self.why == SAME:
            cosine = np.ones(S)
        return {
            "latent": np.arange(S, dtype=np.float64),
            "change": (density[1] - density[0]) / spread,
            "ratio": np.log2((count[1] / tokens[1]) / (count[0] / tokens[0])),
            "density_a": density[0],
            "density_b": density[1],
            "max_a": largest[0],
            "max_b": largest[1],
            "cosine": np.asarray(cosine, np.float64),
        }


SAME = "the same dictionary"


def sides(index: Index, workspace: Path) -> list[Side]:
    """Every source of the workspace. ValueError where an index beside the first one is damaged."""
    found = [Side(name, index, source, workspace / "dictionaries" / name) for name, source in index.sources.items()]
    for path in sorted(workspace.glob("index-*/index.json")):
        other = Index(path.parent)
        label = path.parent.name
        found += [Side(f"{label}/{n}", other, s, workspace / "dictionaries" / n) for n, s in other.sources.items()]
    return found


def pairs(given: list[Side]) -> list[Pair]:
    """All pairs among `given`, the earlier one first."""
    found = [(a, b, related(a, b)) for i, a in enumerate(given) for b in given[i + 1 :]]
    return [Pair(a, b, why) for a, b, why in found if why]


def related(a: Side, b: Side) -> str:
    """Why two sources are a pair; "" where they are none."""
    if len(a.source) != len(b.source) or _sites(a.source) != _sites(b.source):
        return ""
    alike_outside = _same(a.source, b.source)
    rows = [decoder_rows(side.dictionary, some=SAMPLE) for side in (a, b)]
    if rows[0] is None or rows[1] is None:
        return SAME if alike_outside and len(np.unique(a.source.columns["threshold"])) > 1 else ""
    if rows[0].shape != rows[1].shape:
        return ""
    if alike_outside and np.array_equal(rows[0], rows[1]):
        return SAME
    alike = float(cosines(rows[0], rows[1]).mean())
    return f"decoders that point the same way (mean cosine {alike:.2f})" if alike >= ALIKE else ""


def _sites(source: Source) -> list[list[str]]:
    """Where it reads and writes, without the models' names."""
    config = source.meta.get("config") or {}
    return [[str(s).rpartition(":")[2] for s in config.get(key) or ()] for key in ("sites_in", "sites_out")]


def _same(a: Source, b: Source) -> bool:
    """Whether config, model apart, and thresholds are equal."""
    one, other = ({k: v for k, v in (s.meta.get("config") or {}).items() if k != "model"} for s in (a, b))
    thresholds = [s.columns.get("threshold") for s in (a, b)]
    if not one or one != other or thresholds[0] is None or thresholds[1] is None:
        return False
    return bool(np.allclose(thresholds[0], thresholds[1], rtol=1e-5, atol=1e-7, equal_nan=True))


def ordered(columns: dict[str, np.ndarray], *, sort: str, descending: bool, offset: int, limit: int) -> tuple[int, list[int]]:
    """(how many latents fired in one of the two, those on this stretch); change and ratio are sorted by size. KeyError for no column."""
    if sort not in columns:
        raise KeyError(f"no column {sort!r}: there are {', '.join(COLUMNS)}")
    chosen = np.flatnonzero((columns["density_a"] > 0) | (columns["density_b"] > 0))
    key = columns[sort][chosen]
    key = np.abs(key) if sort in ("change", "ratio") else key
    key = np.where(np.isnan(key), np.inf, -key if descending else key)  # what is not known comes last
    end = min(offset + limit, len(chosen))
    return len(chosen), chosen[smallest(key, end)[offset:]].tolist() if end > offset else []
