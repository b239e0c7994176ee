"""Labels of a plot's points that touch nothing drawn.

Best points first: each label takes the nearest of 24 places around its point that is free; one that finds none goes to a row of
the margin on the right, with a line to its point. Where there is no margin, the tooltip and the table name what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from diascope.page.markup import text

LETTER = 6.1  # width of a letter at 11 px, in px: a little more than the average of sans-serif faces
Box = tuple[float, float, float, float]  # left, top, right, bottom
Line = tuple[float, float, float, float]  # from x, y to x, y, level or upright


def around(x: float, y: float, r: float) -> Box:
    """The square of 2 r about a point."""
    return (x - r, y - r, x + r, y + r)


def labels(
    named: Sequence[tuple[str, tuple[float, float]]],
    taken: Sequence[Box],
    lines: Sequence[Line],
    inner: Box,
    width: float,
    letters: int,
) -> tuple[str, int]:
    """Markup of the labels of `named` (name, point) that keep clear of the boxes `taken`, of `lines` and of one another, and how
    many found no place.

    `inner` is the plot's area, `width` the drawing's; names are cut at `letters`.
    """
    out, left_over, taken = [], [], list(taken)
    for whole, (x, y) in named:
        name = cut(whole, letters)
        box = next((b for b in _places(x, y, LETTER * len(name)) if _free(b, taken, lines, inner, width)), None)
        if box is None:
            left_over.append((name, x, y))
            continue
        taken.append(box)
        out.append(_leader(x, y, box))
        out.append(f'<text class="label" x="{box[0]:.1f}" y="{box[3] - 3.5:.1f}">{text(name)}</text>')
    margin = inner[2] + 8
    missing = 0
    for name, x, y in sorted(left_over, key=lambda entry: entry[2]):
        row = _free_row(y, margin, LETTER * len(name), taken, inner) if margin + LETTER * len(name) <= width else None
        if row is None:
            missing += 1
        else:
            taken.append((margin, row - 7, margin + LETTER * len(name), row + 7))
            out.append(f'<line class="leader" x1="{x + 6:.1f}" y1="{y:.1f}" x2="{margin - 2:.1f}" y2="{row:.1f}"/>')
            out.append(f'<text class="label" x="{margin:.1f}" y="{row + 3.5:.1f}">{text(name)}</text>')
    return "".join(out), missing


def _places(x: float, y: float, wide: float) -> list[Box]:
    """24 boxes for a label, the nearest and most readable first: right, left, above, below, and farther ones."""
    found = []
    for r in (8.0, 16.0, 26.0):
        d = r * 0.75
        starts = [(x + r, y - 7), (x - r - wide, y - 7), (x - wide / 2, y - r - 14), (x - wide / 2, y + r)]
        starts += [(x + d, y - d - 14), (x + d, y + d), (x - d - wide, y - d - 14), (x - d - wide, y + d)]
        found += [(a, b, a + wide, b + 14) for a, b in starts]
    return found


def _leader(x: float, y: float, box: Box) -> str:
    """A line from a point to a label that stands apart from it; nothing where it is close."""
    end = (min(max(x, box[0]), box[2]), min(max(y, box[1] + 3), box[3] - 2))
    dx, dy = end[0] - x, end[1] - y
    far = (dx * dx + dy * dy) ** 0.5
    if far < 13:
        return ""
    start = (x + 6 * dx / far, y + 6 * dy / far)
    return f'<line class="leader" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _free(box: Box, taken: Sequence[Box], lines: Sequence[Line], inner: Box, width: float) -> bool:
    inside = box[0] >= inner[0] + 2 and box[1] >= inner[1] + 14 and box[2] <= width - 2 and box[3] <= inner[3] - 1
    return inside and not any(_touch(box, other) for other in taken) and not any(_crosses(box, line) for line in lines)


def _free_row(y: float, margin: float, wide: float, taken: Sequence[Box], inner: Box) -> float | None:
    """The free row of the margin that is nearest to `y`."""
    rows = [inner[1] + 8 + 14 * k for k in range(int((inner[3] - inner[1] - 8) // 14))]
    free = [r for r in rows if not any(_touch((margin, r - 7, margin + wide, r + 7), other) for other in taken)]
    return min(free, key=lambda r: abs(r - y), default=None)


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _crosses(box: Box, line: Line) -> bool:
    """Whether a level or upright line runs through the box."""
    x0, x1 = sorted((line[0], line[2]))
    y0, y1 = sorted((line[1], line[3]))
    return x0 <= box[2] and x1 >= box[0] and y0 <= box[3] and y1 >= box[1]


def cut(name: str, letters: int) -> str:
    """`name` with its middle left out where it is longer than `letters`."""
    if len(name) <= letters:
        return name
    head = (letters - 1) // 2
    return f"{name[:head]}…{name[len(name) - (letters - 1 - head) :]}"
