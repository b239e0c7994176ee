"""Simulation: the judge predicts the activation on every token from the description (Bills et al. 2023). Chance 0.

Score: Pearson's correlation of its strengths 0 to 10 with the activations, over all tokens of the windows asked about. Beside
it stands `lookup`, the same correlation for a prediction from the token alone, which reads no description.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diascope.latents.describe.answers import strengths
from diascope.latents.describe.scorers.score import Quiz, Score, correlation
from diascope.latents.describe.windows import Examples

QUESTION = """A language model has a feature that is active on some tokens of some texts. This is a description of it:

{description}

Below is a text, one token a line, with the tokens' numbers.

{tokens}

How strongly is the feature active on each token, from 0 to 10? Write one line for every token with more than 0, such as
12: 7
and nothing else. If it is active on none, write: none"""


def simulation(description: str, examples: Examples, *, each: int = 4) -> Quiz:
    """Ask for the strengths on `each` test positives and as many negatives, one window a question.

    An answer that cannot be read predicts 0 everywhere; where none can be read the correlation is 0.
    """
    windows = [*examples.positive[:each], *examples.negative[:each]]

    def grade(answers: Sequence[str]) -> Score:
        read = [strengths(a, len(w.tokens)) for a, w in zip(answers, windows, strict=True)]
        predicted = np.concatenate([np.zeros(len(w.tokens)) if r is None else r for r, w in zip(read, windows)])
        true = np.concatenate([w.activations for w in windows])
        return Score(correlation(predicted, true), len(true), sum(r is None for r in read))

    questions = tuple(
        QUESTION.format(description=description, tokens="\n".join(f"{i}: {t!r}" for i, t in enumerate(w.texts, 1)))
        for w in windows
    )
    return Quiz(questions, 8 * len(windows[0].tokens), grade)


def lookup(examples: Examples) -> Score:
    """Correlation over the test windows of the activation with the token's mean activation in the training windows.

    Where this is high the latent stands for tokens, and a description earns nothing by naming them.
    """
    predicted = [examples.by_token.get(int(t), 0.0) for w in examples.test for t in w.tokens]
    true = np.concatenate([w.activations for w in examples.test])
    return Score(correlation(np.array(predicted), true), len(true))
