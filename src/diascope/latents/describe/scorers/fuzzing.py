"""Fuzzing: the judge says whether the marked tokens are those on which the feature is active (Paulo et al. 2024). Chance 1/2.

Every test positive is shown once: half with the tokens marked on which the latent fires, half with as many others. So a
description must say which tokens, not only what the text is about.
"""

from __future__ import annotations

import numpy as np

from diascope import rng
from diascope.latents.describe.scorers.detection import listed
from diascope.latents.describe.scorers.score import Quiz
from diascope.latents.describe.windows import Examples, Window

QUESTION = """A language model has a feature that is active on some tokens of some texts. This is a description of it:

{description}

Below are {count} texts with some tokens marked <<like this>>. In which of them are the marked tokens those on which the feature is active?
Any number of them may be right, also none or all.

{texts}

Answer with a list of the texts' numbers in square brackets and nothing else, such as [2, 5], or [] for none."""


def elsewhere(window: Window, draw: np.random.Generator) -> np.ndarray | None:
    """As many offsets as it fires on, drawn among those on which it does not; None where there are not as many."""
    silent = np.flatnonzero(window.activations == 0)
    count = len(window.fired)
    return np.sort(draw.permutation(silent)[:count]) if 0 < count <= len(silent) else None


def fuzzing(description: str, examples: Examples, *, together: int = 10, seed: int = 0) -> Quiz | None:
    """Ask of every test positive whether its marks are right; None where fewer than two windows can be marked both ways."""
    draw = rng.generator(seed, "fuzzing", examples.latent)
    wrong = [(w, marks) for w in examples.positive if (marks := elsewhere(w, draw)) is not None]
    if len(wrong) < 2:
        return None
    order = draw.permutation(len(wrong))
    half = len(wrong) // 2
    cases = [(wrong[i][0].marked(wrong[i][0].fired), True) for i in order[:half]]
    cases += [(wrong[i][0].marked(wrong[i][1]), False) for i in order[half:]]
    return listed(QUESTION, description, cases, together, seed, "fuzzing", "order", examples.latent)
