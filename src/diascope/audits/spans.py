"""Where in a prompt: the tokens of its request, of its named spans, and of what the template puts after the user's words.

    <prefix> request <tail>          tail: from the user's last token on, the answer's given beginning (prefill) included

Places, by name:

    last, last-1, last-2, ...    one token, counted from the end: where the model is about to answer
    request                      the mean over the tokens of the user's last message
    <name>                       the last token of the case's span of that name: an entity, a tool's result
    mean of <name>               the mean over the span's tokens
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.audits.cases import Case, Message
from diascope.models import ROLES, Model, render
from diascope.models.chat import chat_text, fitting

USER, ASSISTANT = ROLES.index("user"), ROLES.index("assistant")
MEAN = "mean of "


@dataclass(frozen=True)
class Prompt:
    """A case as the model reads it."""

    case: Case
    tokens: tuple[int, ...]
    role: tuple[int, ...]
    tail: int  # tokens after the user's last one
    spans: dict[str, slice]

    def place(self, name: str) -> slice:
        """The tokens of the place `name`; ValueError where the prompt has none of that name."""
        n = len(self.tokens)
        if found := re.fullmatch(r"last(?:-(\d+))?", name):
            back = int(found[1] or 0)
            if back >= self.tail:
                raise ValueError(f"{name} lies in the user's words: the template puts {self.tail} tokens after them")
            return slice(n - 1 - back, n - back)
        if name == "request":
            return self.spans["request"]
        if name.startswith(MEAN) and name not in self.spans:
            return self.span(name.removeprefix(MEAN))
        span = self.span(name)
        return slice(span.stop - 1, span.stop)

    def span(self, name: str) -> slice:
        """All tokens of the span `name`; ValueError where the prompt has none of that name."""
        if name not in self.spans:
            raise ValueError(f"case {self.case.id!r} has no span {name!r}: it has {', '.join(self.spans)}")
        return self.spans[name]

    def around(self, name: str) -> slice:
        """The tokens of the message in which the span `name` stands: those beside it that are of its role."""
        inside = self.span(name)
        start, stop, role = inside.start, inside.stop, self.role[inside.start]
        while start > 0 and self.role[start - 1] == role:
            start -= 1
        while stop < len(self.role) and self.role[stop] == role:
            stop += 1
        return slice(start, stop)


def ordinary(model: Model, tokens: Sequence[int], where: slice) -> Tensor:
    """The numbers of those of `tokens` in `where` that are not special."""
    numbers = torch.arange(len(tokens))[where]
    return numbers[model.ordinary(torch.tensor(tokens)[where])]


def ordinary_tail(model: Model, prompts: Sequence[Prompt]) -> Tensor:
    """bool [tail], of the last tokens that all of `prompts` have after the user's words: which are special in no prompt, so that a
    dictionary can say something of them. All of them where none is.
    """
    tail = min(p.tail for p in prompts)
    found = model.ordinary(torch.tensor([p.tokens[len(p.tokens) - tail :] for p in prompts])).all(0).cpu()
    return found if bool(found.any()) else torch.ones_like(found)


def prompt(model: Model, case: Case) -> Prompt:
    """The tokens of `case`, up to where the model's answer goes on, with its spans.

    Raises ValueError for a model without a chat template, for a template that rewrites messages, and for a span that no token holds.
    """
    messages = fitting(model, case.messages)
    found = render(model, messages, answer_next=True)
    given = list(model.tokenizer(case.prefill, add_special_tokens=False)["input_ids"]) if case.prefill else []
    tokens, role = [*found.tokens, *given], [*found.role, *[ASSISTANT] * len(given)]
    own = [i for i, r in enumerate(found.role) if r == USER]
    if not own:
        raise ValueError(f"case {case.id!r}: no token belongs to the user")
    first = own[-1]
    while first > 0 and found.role[first - 1] == USER:
        first -= 1
    spans = {"request": slice(first, own[-1] + 1), **_named(model, case, messages, len(found.tokens))}
    return Prompt(case, tuple(tokens), tuple(role), len(tokens) - own[-1] - 1, spans)


def _named(model: Model, case: Case, messages: list[Message], length: int) -> dict[str, slice]:
    if not case.spans:
        return {}
    text = chat_text(model, messages, answer_next=True)
    offsets = list(model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"])
    dropped = len(offsets) - length  # a second BOS
    out = {}
    for name, words in case.spans.items():
        start = text.rfind(words)
        inside = [i for i, (a, b) in enumerate(offsets) if start >= 0 and a < start + len(words) and b > start]
        if not inside:
            raise ValueError(f"case {case.id!r}: the span {name!r} stands in no token of the rendered conversation")
        out[name] = slice(max(0, inside[0] - dropped), inside[-1] + 1 - dropped)
    return out
