"""Similarity of description and window: do the windows in which the latent fires resemble its description more? Chance 1/2.

overlap     TF-IDF vectors of words, weighed by how rare they are in the training windows
embedding   vectors of a sentence model, given as a function (embedder.MiniLM)
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from diascope.latents.describe.scorers.score import Score, auroc
from diascope.latents.describe.windows import Examples

Embed = Callable[[Sequence[str]], np.ndarray]  # texts to unit vectors [n, d]


class TfIdf:
    """Words of a text as a sparse vector: 1 + log of the count, times the inverse document frequency (Salton and Buckley 1988)."""

    def __init__(self, texts: Iterable[str]) -> None:
        """`texts`: what the frequencies are counted over."""
        counts: Counter[str] = Counter()
        total = 0
        for text in texts:
            counts.update(set(words(text)))
            total += 1
        self._idf = {word: math.log((1 + total) / (1 + n)) + 1 for word, n in counts.items()}
        self._rarest = math.log(1 + total) + 1  # of a word that was never seen

    def __call__(self, text: str) -> dict[str, float]:
        """The vector of `text`, of unit length; empty where there is no word."""
        found = {w: (1 + math.log(n)) * self._idf.get(w, self._rarest) for w, n in Counter(words(text)).items()}
        size = math.sqrt(sum(v * v for v in found.values()))
        return {w: v / size for w, v in found.items()}


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, and single other marks: a latent may well fire on commas alone."""
    return re.findall(r"\w+|[^\w\s]", text.lower().replace('"', " "))


def overlap(description: str, examples: Examples, tfidf: TfIdf) -> Score:
    """AUROC of the cosine between the description's and the windows' TF-IDF vectors."""
    own = tfidf(description)

    def similar(text: str) -> float:
        other = tfidf(text)
        return sum(v * other.get(w, 0.0) for w, v in own.items())

    return auroc([similar(w.text) for w in examples.positive], [similar(w.text) for w in examples.negative])


def embedding(description: str, examples: Examples, embed: Embed) -> Score:
    """AUROC of the cosine between the description's and the windows' embeddings."""
    vectors = embed([description, *(w.text for w in examples.test)])
    similar = vectors[1:] @ vectors[0]
    n = len(examples.positive)
    return auroc(similar[:n], similar[n:])
