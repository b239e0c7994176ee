"""Detection: does a readout tell the sides of unseen cases apart, and does anything simpler do as well?

The readout was chosen on training and validation cases (readouts.py). Here it meets the test cases, once:

1. AUROC with its interval over groups; p by permuting the test labels inside groups.
2. Beside it on the same cases: each kind of probe at its own best place, length, words, and readouts that were fitted anew on
   permuted training labels at the chosen place.
3. AUROC minus the best text baseline's, with a paired interval; AUROC against twins.
4. Fitted anew on three resamples of the training groups (seeds); without one source at a time, where there are several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diascope import rng
from diascope.audits import baselines, controls, statistics
from diascope.audits.cases import Case
from diascope.audits.readouts import FITS, Readout, Search
from diascope.audits.statistics import ordered
from diascope.numerics import Estimate
from diascope.sites import Site

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Data:
    """Cases of both sides (and twins) with their vectors at all sites and places."""

    cases: Sequence[Case]
    vectors: np.ndarray  # [n, sites, places, d]
    label: np.ndarray  # [n] str
    group: np.ndarray  # [n] str
    part: np.ndarray  # [n] str: train, validation, test
    positive: str
    negative: str
    twin: str
    sites: Sequence[Site]
    places: Sequence[str]

    @property
    def y(self) -> np.ndarray:
        return self.label == self.positive

    @property
    def sides(self) -> np.ndarray:
        """bool [n]: positive or negative, no twin."""
        return np.isin(self.label, (self.positive, self.negative))

    def rows(self, part: str) -> np.ndarray:
        """bool [n]: the positive and negative cases of one part."""
        return self.sides & (self.part == part)

    def at(self, readout: Readout) -> np.ndarray:
        """[n, d] at the readout's site and place."""
        return self.vectors[:, list(self.sites).index(readout.site), list(self.places).index(readout.place)]


@dataclass(frozen=True)
class Detection:
    """What the chosen readout is worth on test cases, and what stands beside it."""

    readout: Readout
    auroc: Estimate
    p: float
    kinds: dict[str, Estimate]  # the best of each kind
    text: dict[str, Estimate]
    margin: Estimate  # dense minus the best text baseline
    permuted: np.ndarray  # AUROC of readouts fitted on permuted labels [k]
    twin: Estimate | None  # positive cases against twins
    seeds: tuple[float, ...]
    sources: dict[str, float]


def test(
    data: Data, search: Search, *, draws: int = statistics.PERMUTATIONS, k: int = controls.LEAST, seed: int = 0
) -> Detection:
    """The best readout of `search` on the test cases."""
    best, rows = search.best, data.rows("test")
    y, groups = data.y[rows], data.group[rows]
    score = best.score(data.at(best))
    text = {name: s[rows] for name, s in baselines.scores(data.cases, data.y, data.rows("train")).items()}
    strongest = max(text, key=lambda name: float(ordered(y, text[name])(np.ones(len(y)))))
    dense, simple = ordered(y, score[rows]), ordered(y, text[strongest])
    return Detection(
        readout=best,
        auroc=statistics.auroc(y, score[rows], groups, seed=seed),
        p=_p(y, score[rows], groups, draws, seed),
        kinds={kind: statistics.auroc(y, (c := search.of(kind)).score(data.at(c))[rows], groups, seed=seed) for kind in FITS},
        text={name: statistics.auroc(y, s, groups, seed=seed) for name, s in text.items()},
        margin=statistics.bootstrap(lambda w: dense(w) - simple(w), groups, seed=seed),
        permuted=_permuted(data, best, k, seed),
        twin=_twin(data, score, seed),
        seeds=_seeds(data, best),
        sources=_sources(data, best),
    )


def _p(y: np.ndarray, score: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> float:
    """How often labels permuted inside the groups of the test give an AUROC as large."""
    drawn = statistics.permutations(y, groups, draws=draws, seed=seed)
    even = np.ones(len(y))
    return statistics.p_value(
        float(ordered(y, score)(even)), np.array([float(ordered(labels, score)(even)) for labels in drawn])
    )


def _permuted(data: Data, best: Readout, k: int, seed: int) -> np.ndarray:
    train, rows = data.rows("train"), data.rows("test")
    x = data.at(best)
    made = controls.permuted(x[train], data.y[train], data.group[train].tolist(), k, seed=seed)
    even, found = np.ones(int(rows.sum())), x[rows].astype(np.float64) @ made.T
    return np.array([float(ordered(data.y[rows], column)(even)) for column in found.T])


def _twin(data: Data, score: np.ndarray, seed: int) -> Estimate | None:
    rows = (data.part == "test") & np.isin(data.label, (data.positive, data.twin))
    if not data.twin or not (data.label[rows] == data.twin).any():
        return None
    return statistics.auroc(data.y[rows], score[rows], data.group[rows], seed=seed)


def _again(data: Data, best: Readout, train: np.ndarray, rows: np.ndarray) -> float:
    """AUROC on `rows` of the readout fitted anew on the cases numbered `train`."""
    x = data.at(best)
    direction, bias = FITS[best.kind](x[train], data.y[train])
    return float(ordered(data.y[rows], x[rows].astype(np.float64) @ direction + bias)(np.ones(int(rows.sum()))))


def _seeds(data: Data, best: Readout) -> tuple[float, ...]:
    train = data.rows("train")
    groups = np.unique(data.group[train])
    found = []
    for s in SEEDS:
        drawn = rng.generator(s, "resample").choice(groups, len(groups))
        numbers = np.concatenate([np.flatnonzero(train & (data.group == g)) for g in drawn])
        found.append(_again(data, best, numbers, data.rows("test")))
    return tuple(found)


def _sources(data: Data, best: Readout) -> dict[str, float]:
    """AUROC on the test cases of each source, fitted without it."""
    source = np.array([c.source for c in data.cases])
    found = {}
    for name in np.unique(source[data.sides]):
        rows, train = data.rows("test") & (source == name), data.rows("train") & (source != name)
        if all(0 < data.y[some].sum() < some.sum() for some in (rows, train)):
            found[str(name)] = _again(data, best, np.flatnonzero(train), rows)
    return found if len(found) > 1 else {}
