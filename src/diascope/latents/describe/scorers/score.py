"""What a score is, and the three statistics behind all of them.

Chance is exact: balanced accuracy gives any constant answer 1/2 whatever the shares of positives, AUROC counts ties half,
correlation with something constant is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diascope.latents.describe.judge import Message

CHANCE = {
    "detection": 0.5, "fuzzing": 0.5, "intruder": 0.2, "simulation": 0.0, "overlap": 0.5, "embedding": 0.5, "surprisal": 0.5,
    "output": 0.5, "lookup": 0.0, "purity": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Score:
    """A number, the judgements behind it, and the judge's answers that could not be read (counted as wrong)."""

    value: float
    n: int
    failures: int = 0


@dataclass(frozen=True)
class Quiz:
    """Questions for a judge, and how its answers become a score. Whoever asks needs to know nothing else."""

    questions: tuple[str, ...]
    max_tokens: int  # of an answer
    grade: Callable[[Sequence[str]], Score]


def conversation(question: str) -> list[Message]:
    """A question as a conversation. No system message: some chat templates refuse one."""
    return [{"role": "user", "content": question}]


def take(ask: Callable[[Sequence[Message], int], str], quiz: Quiz) -> Score:
    """Put the questions to `ask(messages, max_tokens)` (such as `Replay.text`) one after another, and grade the answers."""
    return quiz.grade([ask(conversation(q), quiz.max_tokens) for q in quiz.questions])


def balanced_accuracy(truth: Sequence[bool], said: Sequence[bool | None]) -> Score:
    """Mean of the two classes' shares of right answers; None, an answer that could not be read, is wrong.

    Any constant answer gets exactly 1/2. Raises ValueError where one of the classes is empty.
    """
    right = np.array([s is not None and s == t for t, s in zip(truth, said, strict=True)], bool)
    of = np.asarray(truth, bool)
    if of.all() or not of.any():
        raise ValueError("balanced accuracy needs cases of both classes")
    value = (float(right[of].mean()) + float(right[~of].mean())) / 2
    return Score(value, len(of), sum(s is None for s in said))


def auroc(positive: Sequence[float] | np.ndarray, negative: Sequence[float] | np.ndarray) -> Score:
    """The chance that a positive's number is larger than a negative's, ties counted half (Mann and Whitney)."""
    a, b = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    assert len(a) and len(b)
    ordered = np.sort(b)
    below, upto = np.searchsorted(ordered, a, "left"), np.searchsorted(ordered, a, "right")
    return Score(float((below + upto).mean() / 2 / len(b)), len(a) + len(b))


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation; 0 where one of them is constant."""
    x, y = (np.asarray(v, np.float64) - np.mean(v) for v in (x, y))
    size = float(np.sqrt(np.square(x).sum() * np.square(y).sum()))
    return float((x * y).sum() / size) if size > 1e-12 else 0.0
