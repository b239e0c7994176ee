"""A Pareto plot as SVG: one metric against L0, intervals as whiskers, fronts, controls as open marks, labels that keep clear.

1. Axes: L0 logarithmic; the metric too where all of its values are positive and span more than a factor of 4.
2. Each group (dictionaries whose targets are the same) has a colour; its front joins the points that no other of the group
   beats in both.
3. Labels keep clear of everything (labels.py). Past `LABELS` dictionaries only points on a front are named; all have a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from diascope.evals.report.labels import LETTER, Box, around, labels
from diascope.page.markup import text
from diascope.page.numbers import Number, shown

LABELS, COLOURS = 24, 8
HEIGHT, LEFT, TOP, BOTTOM = 400.0, 48.0, 14.0, 40.0


@dataclass(frozen=True)
class Point:
    """A dictionary in the plot: its short name, group, L0, the metric, and its controls' values by kind of mark."""

    name: str
    group: int
    x: Number
    y: Number
    controls: dict[str, float] = field(default_factory=dict)


MARKS = {"token_pca": "per-token PCA", "pca": "fixed PCA", "ridge": "ridge map"}


def pareto(points: Sequence[Point], title: str, *, width: float, letters: int, place: str) -> str:
    """The plot, `width` px wide in its own units, labels cut at `letters`; `place` is its CSS class."""
    drawn, missing = _drawn(points, title, width, letters, 10.0)
    if missing and width > 500:
        drawn, _ = _drawn(points, title, width, letters, 14.0 + LETTER * letters)
    return f'<svg class="plot {place}" viewBox="0 0 {width:g} {HEIGHT:g}" role="img" aria-label="{text(title)} against L0">{drawn}</svg>'


def _drawn(points: Sequence[Point], title: str, width: float, letters: int, margin: float) -> tuple[str, int]:
    """(shapes, how many labels found no place) with a `margin` on the right."""
    inner = (LEFT, TOP, width - margin, HEIGHT - BOTTOM)
    xs = [e for p in points for e in p.x.ends] + [p.x.value for p in points]
    near = _near([p.y.value for p in points], [v for p in points for v in p.controls.values()])
    to_x, x_ticks = scale(xs, inner[0], inner[2], log=min(xs) > 0)
    ys = [p.y.value for p in points] + near
    log = min(ys) > 0 and max(ys) > 4 * min(ys)
    whiskers = [e for p in points for e in p.y.ends if not log or e > min(ys) / 3]
    to_y, y_ticks = scale(ys + whiskers, inner[3], inner[1], log=log)
    at = [(to_x(p.x.value), to_y(p.y.value)) for p in points]
    fronts = {
        g: front([i for i, p in enumerate(points) if p.group == g], points) for g in dict.fromkeys(p.group for p in points)
    }
    shapes = [_axes(inner, x_ticks, y_ticks, to_x, to_y, title)]
    shapes += [_front_line([at[i] for i in order], g) for g, order in fronts.items()]
    shapes += [_controls(p, to_x, to_y, inner) for p in points]
    shapes += [_whiskers(p, to_x, to_y) for p in points] + [_dot(p, *xy) for p, xy in zip(points, at, strict=True)]
    taken = [around(x, y, 6.0) for x, y in at] + [
        around(to_x(p.x.value), to_y(v), 5.0) for p in points for v in p.controls.values()
    ]
    lines = [(x, to_y(p.y.ends[0]), x, to_y(p.y.ends[1])) for p, (x, _) in zip(points, at, strict=True)]
    lines += [(to_x(p.x.ends[0]), y, to_x(p.x.ends[1]), y) for p, (_, y) in zip(points, at, strict=True)]
    lines += [(*a, *b) for order in fronts.values() for a, b in _steps([at[i] for i in order])]
    best = {i for order in fronts.values() for i in order}
    named = sorted(range(len(points)), key=lambda i: (i not in best, at[i][1]))
    named = named if len(points) <= LABELS else [i for i in named if i in best][:LABELS]
    named = [(points[i].name, at[i]) for i in named]
    written, missing = labels(named, taken, lines, inner, width, letters)
    return "".join(shapes) + written, missing


def front(members: Sequence[int], points: Sequence[Point]) -> list[int]:
    """The members that no other equals or beats in both coordinates while beating it in one, by rising L0."""
    found: list[int] = []
    for i in sorted(members, key=lambda i: (points[i].x.value, points[i].y.value)):
        if not found or points[i].y.value < points[found[-1]].y.value:
            found.append(i)
    return found


def scale(values: Sequence[float], start: float, end: float, *, log: bool) -> tuple[Callable[[float], float], list[float]]:
    """A map from values to px between `start` and `end` with some room, and its ticks; values outside stay at the edge."""
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** 0.07, 1.08)
        low, high = low / room, high * room
        forward: Callable[[float], float] = math.log
    else:
        room = 0.07 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = low - room, high + room
        forward = float

    def to(value: float) -> float:
        inside = min(max(value, low), high)
        return start + (end - start) * (forward(inside) - forward(low)) / (forward(high) - forward(low))

    return to, ticks(low, high, log=log)


def ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round numbers between `low` and `high`: 1, 2 and 5 times powers of ten, or an even step."""
    span = math.log10(high / low) if log else 0.0
    if log and span > 0.5:
        steps = (1, 2, 5) if span < 2.5 else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [v for p in powers for s in steps if low <= (v := s * 10.0**p) <= high]
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _near(own: Sequence[float], controls: Sequence[float]) -> list[float]:
    """Controls that the axis is stretched for: those within 4 times the worst dictionary; farther ones sit at the edge."""
    limit = 4 * max(map(abs, own))
    return [v for v in controls if abs(v) <= limit]


def _axes(inner: Box, xs: list[float], ys: list[float], to_x: Callable, to_y: Callable, title: str) -> str:
    left, top, right, bottom = inner
    out = [f'<line class="grid" x1="{left:g}" x2="{right:.1f}" y1="{to_y(v):.1f}" y2="{to_y(v):.1f}"/>' for v in ys]
    out += [f'<text x="{left - 6:g}" y="{to_y(v) + 4:.1f}" text-anchor="end">{text(_tick(v))}</text>' for v in ys]
    out += [f'<text x="{to_x(v):.1f}" y="{bottom + 15:g}" text-anchor="middle">{text(_tick(v))}</text>' for v in xs]
    out.append(f'<path class="axis" fill="none" d="M{left:g} {top:g} V{bottom:g} H{right:.1f}"/>')
    out.append(f'<text x="{(left + right) / 2:.1f}" y="{bottom + 32:g}" text-anchor="middle">L0, active latents a token</text>')
    return "".join(out) + f'<text x="{left + 6:g}" y="{top + 8:g}">{text(title)}</text>'


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _front_line(path: Sequence[tuple[float, float]], group: int) -> str:
    """A staircase: between two points the better guarantee is the left one's."""
    if len(path) < 2:
        return ""
    d = f"M{path[0][0]:.1f} {path[0][1]:.1f}" + "".join(f" H{x:.1f} V{y:.1f}" for x, y in path[1:])
    return f'<path class="front" stroke="var(--c{group % COLOURS})" d="{d}"/>'


def _steps(path: Sequence[tuple[float, float]]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    pairs = list(pairwise(path))
    return [(a, (b[0], a[1])) for a, b in pairs] + [((b[0], a[1]), b) for a, b in pairs]


def _controls(p: Point, to_x: Callable, to_y: Callable, inner: Box) -> str:
    x = to_x(p.x.value)
    return "".join(
        f"<g><title>{text(f'{MARKS[kind]} beside {p.name}: {shown(v)}')}</title>{mark(kind, x, to_y(v))}</g>"
        for kind, v in p.controls.items()
    )


def mark(kind: str, x: float, y: float) -> str:
    """The open mark of a control."""
    if kind == "token_pca":
        return f'<circle class="control" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
    if kind == "pca":
        return f'<rect class="control" x="{x - 3.2:.1f}" y="{y - 3.2:.1f}" width="6.4" height="6.4"/>'
    return f'<path class="control" d="M{x:.1f} {y - 4.6:.1f} l4.6 4.6 l-4.6 4.6 l-4.6 -4.6 Z"/>'


def _whiskers(p: Point, to_x: Callable, to_y: Callable) -> str:
    colour, x, y = f"var(--c{p.group % COLOURS})", to_x(p.x.value), to_y(p.y.value)
    out = ""
    if p.y.half is not None:
        out += f'<line class="spread" stroke="{colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{to_y(p.y.ends[0]):.1f}" y2="{to_y(p.y.ends[1]):.1f}"/>'
    if p.x.half is not None:
        out += f'<line class="spread" stroke="{colour}" y1="{y:.1f}" y2="{y:.1f}" x1="{to_x(p.x.ends[0]):.1f}" x2="{to_x(p.x.ends[1]):.1f}"/>'
    return out


def _dot(p: Point, x: float, y: float) -> str:
    about = text(f"{p.name}: {shown(p.y.value)} at L0 {shown(p.x.value)}")
    return f'<circle class="point" fill="var(--c{p.group % COLOURS})" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{about}</title></circle>'
