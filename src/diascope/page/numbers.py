"""Numbers of a card or an audit as people read them: the value and its interval, with as many digits as they need.

An entry is a number, null, or {"value", "low", "high", "n", ...}; everything else is no number here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval (None where there is none) and how many tokens or items it is of."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    documents: int | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The interval, or the value twice."""
        return (self.value if self.low is None else self.low, self.value if self.high is None else self.high)

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def number(entry: Any) -> Number | None:
    """A card's entry as a Number; None where it holds no finite one."""
    if isinstance(entry, Mapping):
        value = _finite(entry.get("value"))
        if value is None:
            return None
        low, high = _finite(entry.get("low")), _finite(entry.get("high"))
        whole = {k: int(v) for k in ("n", "documents") if (v := _finite(entry.get(k))) is not None}
        return Number(value, *((low, high) if low is not None and high is not None else (None, None)), **whole)
    value = _finite(entry)
    return None if value is None else Number(value)


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def shown(value: float) -> str:
    """A number with as many digits as the card's readers need: 1,234; 59.8; 0.137; 3.2e-05."""
    size = abs(value)
    if size >= 1000 or (size >= 10 and size == int(size)):
        return f"{value:,.0f}".replace("-", "−")
    if size and size < 0.0005:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.{1 if size >= 10 else 3}f}".replace("-", "−")


def plus_minus(n: Number) -> str:
    """ "± 0.012", or nothing where there is no interval."""
    if n.half is None:
        return ""
    digits = 1 if max(abs(n.value), n.half) >= 10 else 3
    return "± < 0.001" if digits == 3 and 0 < n.half < 0.0005 else f"± {n.half:.{digits}f}"


def words(name: str) -> str:
    """ "mean_full_absorption" as "mean full absorption"."""
    return name.replace("_", " ").strip()
