"""Intruder: which of five windows does not belong (Chang et al. 2009; for latents, Paulo and Belrose 2025). Chance 1/5.

It needs no description: it says whether the latent means one thing at all. Four windows in which it fires, with its tokens
marked, and one in which it does not, with as many drawn tokens marked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diascope import rng
from diascope.latents.describe.answers import one_of
from diascope.latents.describe.scorers.detection import numbered
from diascope.latents.describe.scorers.score import Quiz, Score
from diascope.latents.describe.windows import Examples

QUESTION = """Below are five texts with some tokens marked <<like this>>. In four of them the marked tokens have something in common; one does not belong.

{texts}

Which one does not belong? Answer with its number and nothing else."""


def intruder(examples: Examples, *, trials: int = 5, seed: int = 0) -> Quiz | None:
    """Up to `trials` questions, each with four other positives and another negative; None where there are not enough."""
    draw = rng.generator(seed, "intruder", examples.latent)
    inside = draw.permutation(len(examples.positive))
    outside = draw.permutation(len(examples.negative))
    count = min(trials, len(inside) // 4, len(outside))
    if not count:
        return None
    questions, places = [], []
    for trial in range(count):
        members = [examples.positive[i] for i in inside[4 * trial : 4 * trial + 4]]
        stranger = examples.negative[outside[trial]]
        marks = int(np.median([len(w.fired) for w in members]))
        texts = [w.marked(w.fired) for w in members]
        places.append(int(draw.integers(5)))
        texts.insert(places[-1], stranger.marked(draw.permutation(len(stranger.tokens))[:marks]))
        questions.append(QUESTION.format(texts=numbered(texts)))

    def grade(answers: Sequence[str]) -> Score:
        found = [one_of(a, 5) for a in answers]
        right = [f == place + 1 for f, place in zip(found, places, strict=True)]
        return Score(float(np.mean(right)), len(right), sum(f is None for f in found))

    return Quiz(tuple(questions), 16, grade)
