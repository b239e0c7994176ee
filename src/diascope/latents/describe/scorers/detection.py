"""Detection: the judge says which windows a description applies to (Paulo et al. 2024, section 4.2). Chance 1/2.

Scored by balanced accuracy: peers that report plain accuracy give "none of them" 0.714 where two of seven windows fire.
"""

from __future__ import annotations

from collections.abc import Sequence

from diascope import rng
from diascope.latents.describe.answers import chosen
from diascope.latents.describe.scorers.score import Quiz, Score, balanced_accuracy
from diascope.latents.describe.windows import Examples

QUESTION = """A language model has a feature that is active on some texts. This is a description of it:

{description}

Below are {count} texts. In which of them would the feature be active? Any number of them may be right, also none or all.

{texts}

Answer with a list of the texts' numbers in square brackets and nothing else, such as [2, 5], or [] for none."""


def numbered(texts: Sequence[str]) -> str:
    """Texts one a line, with their numbers; line ends within are written as ⏎."""
    return "\n".join(f"{i}. {' '.join(t.replace(chr(10), ' ⏎ ').split(chr(13)))}" for i, t in enumerate(texts, 1))


def listed(
    question: str, description: str, cases: Sequence[tuple[str, bool]], together: int, seed: int, *names: str | int
) -> Quiz:
    """A quiz of yes-or-no cases (text, truth), in keyed order, `together` to a question, answered by lists of numbers."""
    order = rng.generator(seed, *names).permutation(len(cases))
    parts = [[cases[i] for i in order[at : at + together]] for at in range(0, len(order), together)]

    def grade(answers: Sequence[str]) -> Score:
        truth, said = [], []
        for part, answer in zip(parts, answers, strict=True):
            numbers = chosen(answer, len(part))
            truth += [t for _, t in part]
            said += [None if numbers is None else i in numbers for i in range(1, len(part) + 1)]
        return balanced_accuracy(truth, said)

    questions = tuple(
        question.format(description=description, count=len(p), texts=numbered([text for text, _ in p])) for p in parts
    )
    return Quiz(questions, 16 + 4 * together, grade)


def detection(description: str, examples: Examples, *, together: int = 10, seed: int = 0) -> Quiz:
    """Ask of every test window whether `description` applies; positives are windows in which the latent fires."""
    cases = [(w.text, True) for w in examples.positive] + [(w.text, False) for w in examples.negative]
    return listed(QUESTION, description, cases, together, seed, "detection", examples.latent)
