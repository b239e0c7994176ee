"""Rows of one metric as small bars with their intervals, and the same numbers in full as a table.

1. A metric's rows share one axis that holds 0. It ends at the largest number that is at most `FAR` times the dictionary's own:
   one hopeless control would squeeze all others into a point. Farther ones are cut at the edge and end in an arrow.
2. A bar runs from 0 to the value, a line over it from one end of the interval to the other; the number stands beside it.

`Rows` is {row: {metric: Number}}, as in a card's "metrics"; the row "dictionary" is drawn in the accent colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diascope.evals.report.metrics import METRICS, label, row_name
from diascope.page.markup import text
from diascope.page.numbers import Number, plus_minus, shown

Rows = Mapping[str, Mapping[str, Number]]
OWN = ("dictionary", "minus ridge")
FAR = 6.0
WIDTH = 100.0  # units of a bar's drawing, stretched to its column


def panels(rows: Rows, metrics: Sequence[str]) -> str:
    """One panel a metric with the rows that have it; metrics of the dictionary alone stand together, since a bar beside nothing says nothing."""
    found, alone = [], {}
    for metric in metrics:
        own = {r: ms[metric] for r, ms in rows.items() if metric in ms}
        if list(own) == ["dictionary"]:
            alone[metric] = own["dictionary"]
        elif own:
            found.append(panel(metric, own))
    if alone:
        found.append(_figures(alone))
    return f'<div class="panels">{"".join(found)}</div>' if found else ""


def _figures(alone: Mapping[str, Number]) -> str:
    """Numbers with nothing to stand beside: a short list."""
    lines = [
        f'<span class="name" title="{text(METRICS[m].definition if m in METRICS else "")}">{text(label(m))}</span>'
        f'<span class="num own">{shown(n.value)} <small>{plus_minus(n)}</small></span>'
        for m, n in alone.items()
    ]
    return f'<section class="panel"><h3>of the dictionary alone</h3><div class="figures">{"".join(lines)}</div></section>'


def panel(metric: str, rows: Mapping[str, Number]) -> str:
    """One metric: its name, what it means, and a bar for every row."""
    low, high = axis(rows)
    lines = [
        f'<span class="name{" own" if row in OWN else ""}">{text(row_name(row))}</span>'
        f"{bar(n, low, high, mine=row in OWN)}"
        f'<span class="num{" own" if row in OWN else ""}">{shown(n.value)} <small>{plus_minus(n)}</small></span>'
        for row, n in rows.items()
    ]
    about = METRICS[metric].definition if metric in METRICS else ""
    note = f'<div class="soft">{text(about)}</div>' if about else ""
    return f'<section class="panel"><h3>{text(label(metric))}</h3>{note}<div class="bars">{"".join(lines)}</div></section>'


def axis(rows: Mapping[str, Number]) -> tuple[float, float]:
    """The ends of the axis that `rows` share; see step 1 of the module."""
    values = list(rows.values())
    own = max((abs(e) for row in OWN if row in rows for e in rows[row].ends), default=0.0)
    near = [n for n in values if not own or max(map(abs, n.ends)) <= FAR * own] or values
    low, high = min(0.0, *(n.ends[0] for n in near)), max(0.0, *(n.ends[1] for n in near))
    return (low, high) if high > low else (0.0, 1.0)


def bar(n: Number, low: float, high: float, *, mine: bool = False) -> str:
    """A bar from 0 to the value and a line over its interval, on an axis from `low` to `high`."""

    def at(value: float) -> float:
        return WIDTH * (min(max(value, low), high) - low) / (high - low)

    zero, end = at(0.0), at(n.value)
    shapes = [
        f'<line class="track" x1="0" x2="{WIDTH:g}" y1="7" y2="7" vector-effect="non-scaling-stroke"/>',
        f'<rect class="fill" x="{min(zero, end):.2f}" y="2" width="{abs(end - zero):.2f}" height="10"/>',
    ]
    if low < 0:
        shapes.append(f'<line class="zero" x1="{zero:.2f}" x2="{zero:.2f}" y1="0" y2="14" vector-effect="non-scaling-stroke"/>')
    if n.half is not None:
        first, last = at(n.ends[0]), at(n.ends[1])
        shapes.append(
            f'<line class="whisker" x1="{first:.2f}" x2="{last:.2f}" y1="7" y2="7" vector-effect="non-scaling-stroke"/>'
        )
    if n.value > high:  # cut: two chevrons say that it goes on
        shapes.append(f'<path class="dot" d="M{WIDTH - 5:g} 1 L{WIDTH:g} 7 L{WIDTH - 5:g} 13 Z"/>')
    elif n.value < low:
        shapes.append('<path class="dot" d="M5 1 L0 7 L5 13 Z"/>')
    else:
        shapes.append(
            f'<line class="whisker" x1="{end:.2f}" x2="{end:.2f}" y1="2" y2="12" vector-effect="non-scaling-stroke"/>'
        )
    own = ' class="mine"' if mine else ""
    return f'<svg{own} viewBox="0 0 {WIDTH:g} 14" preserveAspectRatio="none" aria-hidden="true">{"".join(shapes)}</svg>'


def table(rows: Rows, metrics: Sequence[str], *, first: str = "") -> str:
    """All numbers with the ends of their intervals and what they are of."""
    kept = [m for m in metrics if any(m in ms for ms in rows.values())]
    if not kept:
        return ""
    head = "".join(f'<th class="num" scope="col">{text(label(m))}</th>' for m in kept)
    body = "".join(
        f'<tr><th scope="row">{text(row_name(row))}</th>{"".join(_cell(ms.get(m)) for m in kept)}</tr>'
        for row, ms in rows.items()
    )
    head = f'<th scope="col">{text(first)}</th>{head}'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(n: Number | None) -> str:
    if n is None:
        return '<td class="num"></td>'
    interval = "" if n.half is None else f"<br><small>{shown(n.ends[0])} to {shown(n.ends[1])}</small>"
    of = [f"{amount:,} {unit}" for amount, unit in ((n.n, "counted"), (n.documents, "documents")) if amount is not None]
    return f'<td class="num" title="{text(" of ".join(of))}">{shown(n.value)}{interval}</td>'
