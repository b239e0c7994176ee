"""A base model under audit: cases are plain text, without turns.

The text is the case's last message and its prefill. `entity` is the last token of the case's span of that name; the tail is what comes
after it, so that last, last-1, ... are the template's tokens here as they are in chat. Refusals and roles do not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diascope.audits.cases import Case
from diascope.audits.spans import Prompt
from diascope.audits.target import Target
from diascope.models import ROLES, Model

TEXT = ROLES.index("text")


@dataclass
class PlainTarget(Target):
    """A model with or without a chat template, read as text."""

    def __post_init__(self) -> None:
        self.name = self.name or self.model.name

    def prompts(self, cases: Sequence[Case]) -> list[Prompt]:
        """The cases as plain text."""
        return [plain(self.model, c) for c in cases]


def plain(model: Model, case: Case) -> Prompt:
    """The tokens of a case's text with its spans; ValueError for a span that no token holds."""
    text = case.request + case.prefill
    tokens = model.tokenize(text)
    offsets = list(model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"])
    opened = len(tokens) - len(offsets)  # BOS
    spans = {"request": slice(opened, len(tokens))}
    for name, words in case.spans.items():
        start = text.rfind(words)
        inside = [i for i, (a, b) in enumerate(offsets) if start >= 0 and a < start + len(words) and b > start]
        if not inside:
            raise ValueError(f"case {case.id!r}: the span {name!r} stands in no token of the text")
        spans[name] = slice(inside[0] + opened, inside[-1] + 1 + opened)
    after = len(tokens) - spans["entity"].stop if "entity" in spans else 0
    return Prompt(case, tuple(tokens), (TEXT,) * len(tokens), max(1, after), spans)
