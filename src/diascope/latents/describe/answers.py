"""Reading a judge's answers: lenient about what stands around them, strict about what they say."""

from __future__ import annotations

import json
import re

NUMBERS = re.compile(r"\[[\s\d,]*\]")
PAIR = re.compile(r"(\d+)\s*[:=\t]\s*(\d+(?:\.\d+)?)")


def said(answer: str) -> str:
    """The answer without what a reasoning model thought aloud before it."""
    return re.sub(r"(?s)^.*</think>", "", answer).strip() if "</think>" in answer else answer.strip()


def chosen(answer: str, count: int) -> set[int] | None:
    """The last list of numbers in the answer, `[]` for none; None where there is no list, or one with numbers beyond 1..count."""
    found = NUMBERS.findall(said(answer))
    if not found:
        return None
    try:
        numbers = json.loads(found[-1])
    except json.JSONDecodeError:
        return None
    return set(numbers) if all(1 <= n <= count for n in numbers) else None


def one_of(answer: str, count: int) -> int | None:
    """The one number in the answer; None where there is none, several different ones, or one beyond 1..count."""
    numbers = {int(n) for n in re.findall(r"(?<![\d.])\d{1,4}(?![\d.]*\d)", said(answer))}
    (only,) = numbers if len(numbers) == 1 else (0,)
    return only if 1 <= only <= count else None


def strengths(answer: str, count: int) -> list[float] | None:
    """Strengths 0 to 10 of `count` tokens from lines "number: strength", those not named being 0; None where nothing can be read.

    The word "none" says that all are 0. A token or strength out of range makes the whole answer unreadable.
    """
    text = said(answer)
    pairs = [(int(a), float(b)) for a, b in PAIR.findall(text)]
    if not pairs:
        return [0.0] * count if re.search(r"\bnone\b", text, re.IGNORECASE) else None
    if any(not 1 <= a <= count or b > 10 for a, b in pairs):
        return None
    values = [0.0] * count
    for a, b in pairs:
        values[a - 1] = b
    return values
