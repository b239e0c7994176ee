"""Which latents tell two groups of documents apart, and do they do more than the documents' words? (latents/dataset.py holds both)

    result = DATADIFF.run(LatentData(folder), "a", "b")

1. Documents are dealt to training (half), validation (a fifth, joined to training here) and test by lot; a document is one observation:
   a latent's largest activation in it, a word's count.
2. On training documents the latent, and the word, with the largest difference of means over its deviation is chosen; its p is by
   the largest statistic of each permutation of the labels over all of them.
3. On test documents: AUROC of either, and the paired difference. A latent that does no better than a word explains nothing new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diascope import rng
from diascope.audits import record, statistics
from diascope.audits.record import Result
from diascope.audits.study import result
from diascope.audits.verdict import Finding
from diascope.latents.dataset import LatentData

LEAST = 10  # documents of either side in the test


@dataclass(frozen=True)
class DataDiff:
    """Two labels of a folder of encoded documents."""

    name: str = "datadiff"
    asks: str = "Does a latent tell two groups of documents apart, beyond their words?"
    most: int = 10
    """Latents and words in the table."""
    limits: tuple[str, ...] = ("documents as they are: what else the two groups differ in (length, source) is not taken out",)

    def run(
        self,
        data: LatentData,
        a: str,
        b: str,
        *,
        level: float = 0.05,
        permutations: int = statistics.PERMUTATIONS,
        seed: int = 0,
        say: Callable[[str], None] = lambda note: None,
    ) -> Result:
        """Contrast the documents labelled `a` with those labelled `b`. ValueError where a label is missing."""
        counts = data.counts()
        if a == b or min(counts.get(a, 0), counts.get(b, 0)) < 2:
            raise ValueError(
                f"{a!r} has {counts.get(a, 0)} documents and {b!r} {counts.get(b, 0)}: labels are {', '.join(map(repr, counts))}"
            )
        rows = np.flatnonzero(np.isin(data.label, (a, b)))
        is_a = np.asarray(data.label)[rows] == a
        test = dealt(is_a, seed)
        words, vocabulary = data.words()
        spelled = data.spelled()
        sides = {"latents": data.per_document("max")[rows], "words": words[rows]}
        found: dict[str, Any] = {}
        for name, x in sides.items():
            say(name)
            found[name] = _chosen(x.tocsr(), is_a, test, permutations, seed)
        gate = None
        if min(int(is_a[test].sum()), int((~is_a[test]).sum())) < LEAST:
            gate = "underpowered", f"fewer than {LEAST} test documents of one side"
        finding = self._finding(found, is_a[test], level, gate, seed, a, b, lambda j: spelled.get(int(vocabulary[j]), "?"))
        cases = {"n": len(rows), "labels": {a: int(is_a.sum()), b: int((~is_a).sum())}, "test": int(test.sum()), "seed": seed}
        return result(self, [finding], {"prevalence": {}}, cases, gate=gate)

    def _finding(
        self,
        found: dict[str, Any],
        y: np.ndarray,
        level: float,
        gate: tuple[str, str] | None,
        seed: int,
        a: str,
        b: str,
        word_of: Callable[[int], str],
    ) -> Finding:
        own, words = found["latents"], found["words"]
        each = np.arange(len(y))
        numbers: dict[str, Any] = {
            n: statistics.auroc(y, f.score, each, seed=seed) for n, f in (("auroc", own), ("words", words))
        }
        ours, theirs = statistics.ordered(y, own.score), statistics.ordered(y, words.score)
        numbers["minus_words"] = statistics.bootstrap(lambda w: ours(w) - theirs(w), each, seed=seed)
        word = gate or self._word(numbers, float(own.selected.p_family[own.order[0]]), level)
        numbers = record.plain(numbers, split="test", seed=seed)
        numbers |= {
            "latents": [self._row(own, j, j) for j in own.order[: self.most].tolist()],
            "top_words": [self._row(words, j, word_of(j)) for j in words.order[: self.most].tolist()],
            "discoveries": int((own.selected.q <= level).sum()), "searched": len(own.selected.q),
        }  # fmt: skip
        return Finding("detection", f"latent {int(own.order[0])} tells {a!r} from {b!r} documents", *word, numbers)

    def _word(self, numbers: dict[str, Any], p: float, level: float) -> tuple[str, str]:
        if numbers["auroc"].low <= 0.5 or p > level:
            return "not-distinguishable", "no latent stands out among all that were searched, and holds on test documents"
        if numbers["minus_words"].low <= 0:
            return "confounded", "one word may do as well"
        return "detects", "unseen documents are told apart, beyond the best word"

    @staticmethod
    def _row(f: Any, j: int, name: Any) -> dict[str, Any]:
        s = f.selected
        return {"name": name, "statistic": float(s.statistic[j]), "p_family": float(s.p_family[j]), "q": float(s.q[j])}


@dataclass(frozen=True)
class _Chosen:
    """The order of the features on training documents, and what the first scores on test documents [n]."""

    order: np.ndarray
    selected: statistics.Selected
    score: np.ndarray


def _chosen(x: Any, is_a: np.ndarray, test: np.ndarray, permutations: int, seed: int) -> _Chosen:
    train = np.flatnonzero(~test)
    found = statistics.search(x[train], is_a[train], train, draws=permutations, seed=seed)
    order = np.argsort(-np.abs(found.statistic), kind="stable")
    first = int(order[0])
    score = np.asarray(x[np.flatnonzero(test)][:, [first]].toarray(), np.float64)[:, 0]
    return _Chosen(order, found, score * (1.0 if found.statistic[first] >= 0 else -1.0))


def dealt(is_a: np.ndarray, seed: int) -> np.ndarray:
    """Which documents are for the test: three tenths of either side, by lot."""
    test = np.zeros(len(is_a), bool)
    for side in (True, False):
        rows = np.flatnonzero(is_a == side)
        drawn = rng.generator(seed, "datadiff", side).permutation(rows)
        test[drawn[: max(1, round(0.3 * len(rows)))]] = True
    return test


DATADIFF = DataDiff()
