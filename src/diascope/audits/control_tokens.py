"""Control tokens: what the template puts after the user's words, and the first tokens that the model then writes itself.

    <prefix> request <tail> answer ...        control tokens: the tail and `BEGUN` tokens of the answer

There a model is about to answer, and holds what its answer will turn on without saying it (Cywinski et al. 2025, arXiv:2505.14352).
The reference model is given the same tokens, those of the answer included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from diascope.audits.spans import Prompt, ordinary
from diascope.audits.target import Target
from diascope.models import Model
from diascope.sites import Site

BEGUN = 4


@dataclass(frozen=True)
class Control:
    """Requests with the beginnings of their answers, and which of their tokens are control tokens."""

    rows: tuple[tuple[int, ...], ...]
    first: tuple[int, ...]  # the first control token of each row; the last is the row's last
    part: np.ndarray  # [n] str: train, validation, test
    group: np.ndarray  # [n] str

    @classmethod
    def of(
        cls, model: Model, prompts: Sequence[Prompt], answers: Sequence[str], part: np.ndarray, numbers: np.ndarray
    ) -> Control:
        """The requests numbered `numbers` of `prompts`, to which the model gave `answers`."""
        own = [list(model.tokenizer(answers[i], add_special_tokens=False)["input_ids"])[:BEGUN] for i in numbers]
        return cls(
            tuple((*prompts[i].tokens, *begun) for i, begun in zip(numbers, own, strict=True)),
            tuple(len(prompts[i].tokens) - prompts[i].tail for i in numbers),
            part[numbers],
            np.array([prompts[i].case.group for i in numbers]),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> int:
        """Control tokens of all rows."""
        return sum(len(row) - first for row, first in zip(self.rows, self.first, strict=True))

    def vectors(
        self, target: Target, sites: Sequence[Site], *, whole: bool = False, special: bool = True
    ) -> Iterator[tuple[list[int], list[list[Tensor]]]]:
        """A batch at a time: numbers of rows, and for each site the vectors [tokens, d] of each of those rows' control tokens.

        With `whole` those of all its tokens but the first; without `special` (as a dictionary is trained) none of special tokens, where
        others are left.
        """
        order = sorted(range(len(self)), key=lambda i: len(self.rows[i]))
        for start in range(0, len(order), target.batch):
            numbers = order[start : start + target.batch]
            seen = target.model.capture([list(self.rows[i]) for i in numbers], list(sites))
            where = [self._where(target.model, i, whole, special) for i in numbers]
            yield numbers, [[seen[site][row, w] for row, w in enumerate(where)] for site in sites]

    def _where(self, model: Model, i: int, whole: bool, special: bool) -> slice | Tensor:
        where = slice(1 if whole else self.first[i], len(self.rows[i]))
        some = ordinary(model, self.rows[i], where)
        return where if special or not len(some) else some
