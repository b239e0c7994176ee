"""A map of a source's latents in two dimensions: by what they write (principal), or by who is near whom (neighbours).

`principal`: the two directions in which unit decoder rows vary most. Faithful, and for most dictionaries a small share of it all.

`Embedding`: latents that are near each other in decoder cosine stand near each other (the method of UMAP, McInnes, Healy and
Melville 2018, arXiv:1802.03426, sections 3.1 and 3.2, on the neighbours that the index has already, so that no search is made):
1. Edges join each latent to its nearest by cosine, with weight exp(-(d - d_nearest) / s), d = 1 - cosine, s the latent's
   mean of d - d_nearest; the two directions of an edge are joined as a + b - ab.
2. Positions start from the principal ones, both axes brought to one spread, or, without a decoder, at random.
3. In every epoch each edge is drawn with its weight as probability; drawn edges pull along the gradient of
   log 1 / (1 + a r^2b), and for each of them `AWAY` random latents push along that of log(1 - 1 / (1 + a r^2b)).
4. The step falls linearly to 0. Draws depend on (seed, epoch) alone, so a map that was interrupted ends as if it had not been.

What it cannot say: how far apart distant groups are, how dense they are, and anything of cosines beyond the nearest ones.
`kept` measures what it does say: of the index's neighbours, the share among the 50 nearest on the map (chance 50 / S).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diascope.latents.store import Record

A, B = 1.93, 0.79  # of the curve 1 / (1 + a r^2b): a minimal distance of 0
AWAY = 6  # latents that push, for one edge that pulls
PARTS = 8  # of an epoch, after each of which positions move
CLIP = 4.0  # longest single pull or push, before the step
SIDE = 4.0  # standard deviation of the start
ROWS = 32_768  # that the principal directions are found in
NEAR, LOOKED_AT = 50, 1000  # of `kept`


class Recorded(Protocol):
    """A source of an index (`diascope.latents.store.Source`)."""

    def __len__(self) -> int: ...

    def record(self, latent: int) -> Record:
        """What the index has of a latent."""
        ...


def principal(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """(positions [S, 2], share of the variance of unit decoder rows that they hold)."""
    step = max(1, len(rows) // ROWS)
    unit = _unit(rows[::step])
    mean = unit.mean(0)
    values, vectors = np.linalg.eigh(np.cov(unit - mean, rowvar=False).reshape(rows.shape[1], -1))
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1, 1)  # the sign is arbitrary
    found = np.concatenate([(_unit(part) - mean) @ axes for part in np.array_split(rows, max(1, len(rows) // 8192))])
    if found.shape[1] < 2:
        found = np.column_stack([found[:, 0], np.zeros(len(found))])
    total = max(float(values.sum()), 1e-12)
    return found.astype(np.float32), float(values[::-1][:2].sum()) / total


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def neighbours_of(source: Recorded) -> tuple[np.ndarray, np.ndarray]:
    """(latent [S, k], cosine [S, k]) of the nearest latents that the records name; -1 where there are fewer."""
    found = [_near(source, j) for j in range(len(source))]
    k = max(map(len, found), default=0)
    index, cosine = np.full((len(found), k), -1, np.int64), np.zeros((len(found), k), np.float32)
    for j, near in enumerate(found):
        for place, (other, value) in enumerate(near):
            index[j, place], cosine[j, place] = other, value
    return index, cosine


def _near(source: Recorded, latent: int) -> list[tuple[int, float]]:
    return [(other, c) for other, c in source.record(latent).neighbours if 0 <= other < len(source) and other != latent]


def edges(index: np.ndarray, cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(one end, other end, weight in (0, 1]) of every pair of neighbours, once."""
    S = len(index)
    if not (index >= 0).any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    there, d = index >= 0, 1 - cosine.astype(np.float64)
    beyond = np.where(there, d - d.min(1, keepdims=True, initial=np.inf, where=there), 0)
    scale = np.maximum(beyond.sum(1, keepdims=True) / np.maximum(there.sum(1, keepdims=True), 1), 1e-6)
    weight = np.exp(-beyond / scale)
    own, other, w = np.nonzero(there)[0], index[there], weight[there]
    pair, place = np.unique(np.minimum(own, other) * S + np.maximum(own, other), return_inverse=True)
    none = np.ones(len(pair))
    np.multiply.at(none, place, 1 - w)  # 1 - (1 - a)(1 - b) = a + b - ab
    return pair // S, pair % S, 1 - none


@dataclass
class Embedding:
    """A neighbour embedding on its way: `positions` [S, 2] after `epoch` of `epochs`."""

    positions: np.ndarray
    edges: tuple[np.ndarray, np.ndarray, np.ndarray]
    epochs: int
    epoch: int = 0
    seed: int = 0

    @classmethod
    def begin(
        cls, near: tuple[np.ndarray, np.ndarray], start: np.ndarray | None, *, epochs: int = 0, seed: int = 0
    ) -> Embedding:
        """Before the first epoch. `start` [S, 2] gives the outline; without it the outline is random. epochs 0 chooses by size."""
        S = len(near[0])
        generator = np.random.default_rng([seed, S])
        outline = generator.normal(size=(S, 2)) if start is None else start.astype(np.float64)
        spread = np.maximum(outline.std(0), 1e-9)  # both axes alike: far apart says nothing, and room is needed in both
        begin = (outline - outline.mean(0)) / spread * SIDE + generator.normal(scale=1e-3, size=(S, 2))
        return cls(begin, edges(*near), epochs or (300 if S <= 65_536 else 150), 0, seed)

    @property
    def done(self) -> bool:
        """Whether all epochs were made."""
        return self.epoch >= self.epochs

    def advance(self) -> None:
        """One epoch."""
        generator = np.random.default_rng([self.seed, 1, self.epoch])
        step = 1 - self.epoch / self.epochs
        one, other, weight = self.edges
        drawn = np.flatnonzero(generator.random(len(weight)) < weight)
        generator.shuffle(drawn)
        for part in np.array_split(drawn, PARTS):
            self._move(one[part], other[part], generator, step)
        self.epoch += 1

    def _move(self, one: np.ndarray, other: np.ndarray, generator: np.random.Generator, step: float) -> None:
        Y, S = self.positions, len(self.positions)
        if not len(one):
            return
        between = Y[one] - Y[other]
        r2 = np.maximum((between**2).sum(1), 1e-12)
        pull = np.clip((-2 * A * B * r2 ** (B - 1) / (1 + A * r2**B))[:, None] * between, -CLIP, CLIP)
        own = np.concatenate([one, other]).repeat(AWAY)
        apart = Y[own] - Y[generator.integers(0, S, len(own))]
        q2 = (apart**2).sum(1)
        push = np.clip((2 * B / ((0.001 + q2) * (1 + A * q2**B)))[:, None] * apart, -CLIP, CLIP)
        ends = np.concatenate([one, other, own])
        forces = np.concatenate([pull, -pull, push])
        for axis in (0, 1):
            Y[:, axis] += step * np.bincount(ends, forces[:, axis], S)


def kept(positions: np.ndarray, near: tuple[np.ndarray, np.ndarray], *, seed: int = 0) -> float:
    """Of the neighbours of up to 1,000 latents, the share among their 50 nearest on the map; nan where nobody has neighbours."""
    index, _ = near
    S = len(positions)
    asked = np.flatnonzero((index >= 0).any(1)) if index.size else np.zeros(0, np.int64)
    asked = np.random.default_rng([seed, 2]).permutation(asked)[:LOOKED_AT]
    found = total = 0
    for j in asked.tolist():
        far = ((positions - positions[j]) ** 2).sum(1)
        far[j] = np.inf
        close = np.argpartition(far, min(NEAR, S - 1) - 1)[:NEAR] if S > 1 else np.zeros(0, np.int64)
        own = index[j][index[j] >= 0]
        found, total = found + int(np.isin(own, close).sum()), total + len(own)
    return found / total if total else float("nan")


def squared(positions: np.ndarray) -> np.ndarray:
    """Positions [S, 2] as uint16 in one square, both axes alike; the few outermost (1 in 1,000 a side) stand at its edge."""
    low, high = np.quantile(positions, 0.001, axis=0), np.quantile(positions, 0.999, axis=0)
    half = max(float((high - low).max()) / 2, 1e-9) * 1.03
    unit = (positions - (low + high) / 2) / (2 * half) + 0.5
    return np.rint(np.clip(unit, 0, 1) * 65535).astype(np.uint16)
