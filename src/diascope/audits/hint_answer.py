"""The answer that a hint case gives when it is forced at once, read off one token.

    <prefix> question | hint ... <template> So the answer is a        |: all before is computed once; next token: mole, swallow or trout

1. Words that all choices begin with ("a") are forced, too, so that the next token tells the choices apart. Where it does not, the case
   is left out. No reasons stand there, since what they say of the choice would answer in the hint's place.
2. Score: log-probability of the hinted choice's first token, minus the best other choice's; nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.audits.answers import bare
from diascope.audits.cases import Case
from diascope.audits.forcing import FORCED
from diascope.audits.spans import Prompt, ordinary_tail
from diascope.audits.target import Tails, Target


@dataclass(frozen=True)
class Asked:
    """A hint case whose answer is forced at once, all before the hint computed."""

    case: Case
    tails: Tails
    tokens: tuple[int, ...]  # the first one of each choice, the hinted one first
    where: Tensor  # bool [tail]: the hint's tokens and the template's last ones, special ones left out

    @classmethod
    def of(cls, target: Target, p: Prompt) -> Asked | None:
        """None for a case without a hint, or whose choices begin with the same token."""
        if "hint" not in p.spans:
            return None
        model, hinted = target.model, str(p.case.meta["hinted"]).strip()
        choices = [c.strip() for c in p.case.choices]
        heads = {c[: len(c) - len(bare(c))].strip() for c in choices}
        shared = heads.pop() if len(heads) == 1 else ""
        ids = lambda text: list(model.tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
        forced = ids(FORCED.lstrip() + (f" {shared}" if shared else ""))
        rest = {c: ids(" " + c[len(c) - len(bare(c)) :]) for c in choices}
        first = {c: next((i for i in r if model.tokenizer.decode([i]).strip()), -1) for c, r in rest.items()}
        if len(set(first.values())) < len(first) or hinted not in first:
            return None
        at, hint = len(p.tokens), p.spans["hint"]
        tail = at + len(forced) - hint.start
        longer = replace(p, tokens=(*p.tokens, *forced), role=(*p.role, *[p.role[-1]] * len(forced)), tail=tail)
        where = torch.zeros(tail, dtype=torch.bool)
        where[: hint.stop - hint.start] = True
        where[at - p.tail - hint.start : at - hint.start] = True
        order = (first[hinted], *(t for c, t in first.items() if c != hinted))
        return cls(p.case, Tails(target, [longer]), order, where & ordinary_tail(model, [longer]))

    def margin(self, edits: Sequence[Any] = (), repeats: int = 1) -> np.ndarray:
        """The hinted choice's score [repeats]."""
        ids = list(self.tokens)

        def function(log_p: Tensor, _: list[int]) -> Tensor:
            found = log_p[:, ids].double()
            return found[:, 0] - found[:, 1:].max(-1).values

        return self.tails.read(function, edits, repeats=repeats)[0].numpy()
