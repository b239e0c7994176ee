"""A rule in the place of a language model, for benchmarks of the machinery: it names the marked words, and looks for named words.

    python benchmarks/describe.py DICTIONARY --judge scripted:rule_judge:judge --server

It costs nothing and is the same everywhere, so it shows what the scorers, the controls and a bad server do; it says nothing about what a
language model's descriptions are worth.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def judge(messages: Sequence[dict[str, str]], max_tokens: int) -> str:
    """The answer to any question of `diascope.latents.describe`."""
    question = messages[0]["content"]
    texts = re.findall(r"(?m)^\d+\. (.*)$", question)
    if "have in common" in question:
        common = Counter(word for text in texts for word in _marked(text) if word).most_common(4)
        return "Description: the words " + ", ".join(f'"{word}"' for word, _ in common)
    if "does not belong" in question:
        words = [set(_marked(text)) for text in texts]
        alike = [sum(bool(a & b) for b in words) for a in words]
        return str(alike.index(min(alike)) + 1)
    said = question.partition("Below")[0].partition("promotes")[0]
    named = {word.strip().lower() for word in re.findall(r'"([^"]+)"', said)}
    if "How strongly" in question:
        tokens = re.findall(r"(?m)^(\d+): ['\"](.*)['\"]$", question)
        return "\n".join(f"{n}: 8" for n, token in tokens if token.strip().lower() in named) or "none"
    seen = _marked if "marked tokens" in question else lambda text: re.findall(r"\w+|[^\w\s]", text.lower())
    return str([i for i, text in enumerate(texts, 1) if named & set(seen(text))])


def _marked(text: str) -> list[str]:
    return [word.strip().lower() for word in re.findall(r"<<(.*?)>>", text)]
