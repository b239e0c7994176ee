"""Words that are one token, and what the model holds at each of them in a task that asks for its first letter.

The prompt is ten solved examples and then the word, `"\\n word has the first letter: W"`; vectors are read at the word. What follows
the word cannot reach it, so the examples are computed once and each word costs one token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from diascope import rng
from diascope.evals.entry import Unmeasurable
from diascope.evals.subject import Subject, Vectors
from diascope.models import Model

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORD = re.compile(r"[▁Ġ]([a-z]{3,})")  # a space before it, as SentencePiece and byte-level BPE spell one
EXAMPLES = 10


@dataclass(frozen=True)
class Words:
    """Words with their letters (0 to 25); a fifth of each letter's are for testing."""

    words: tuple[str, ...]
    ids: tuple[int, ...]
    letter: np.ndarray  # [n]
    test: np.ndarray  # [n] bool
    examples: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The solved examples."""
        return "".join(f"\n {w} has the first letter: {w[0].upper()}" for w in self.examples) + "\n"


def words_of(model: Model, per_letter: int, *, seed: int = 0) -> Words:
    """At most `per_letter` words a letter, and other ones for the examples; which ones depends on the seed alone.

    Raises Unmeasurable where the vocabulary has too few such words.
    """
    found = {m[1]: i for token, i in model.tokenizer.get_vocab().items() if (m := _WORD.fullmatch(token))}
    order = sorted(found, key=lambda w: rng.unit_hash(seed, w))
    if len(order) < 4 * EXAMPLES:
        raise Unmeasurable(f"{model.name} has {len(order)} tokens that are words of three letters or more: too few to spell")
    examples, order = order[:EXAMPLES], order[EXAMPLES:]
    chosen, test = [], []
    for letter in LETTERS:
        own = [w for w in order if w[0] == letter][:per_letter]
        chosen += own
        test += [i % 5 == 4 for i in range(len(own))]
    letters = np.array([LETTERS.index(w[0]) for w in chosen])
    return Words(tuple(chosen), tuple(found[w] for w in chosen), letters, np.array(test), tuple(examples))


def read(subject: Subject, words: Words) -> Vectors:
    """Vectors [n, d] at every site, at each word."""
    return subject.next_to(subject.model.tokenize(words.prompt), words.ids)
