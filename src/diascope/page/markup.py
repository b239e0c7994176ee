"""The page around an evaluation card or an audit's report: style, light and dark, narrow, wide and printed; and the few pieces that all of it uses.

Everything that comes from a card goes through `text`, so that a dictionary's name can hold any character.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

STYLE = """
:root { color-scheme: light dark;
  --back: #fbfaf8; --panel: #fff; --ink: #1c1b19; --soft: #67635c; --line: #e4e0d9; --accent: #9a4a00; --own: #c25d00; --other: #9b958b; --wash: #f6efe6;
  --c0: #c25d00; --c1: #0a6ebd; --c2: #0b7f66; --c3: #a3357c; --c4: #6b5bc4; --c5: #7a6a00; --c6: #c0392b; --c7: #4a5a6a;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
@media (prefers-color-scheme: dark) { :root {
  --back: #151412; --panel: #1e1c1a; --ink: #ece8e1; --soft: #a19b91; --line: #35322e; --accent: #ffb066; --own: #ff9d42; --other: #857f76; --wash: #2a251f;
  --c0: #ff9d42; --c1: #5cb3f5; --c2: #3ec9a7; --c3: #e884c4; --c4: #a89bff; --c5: #cfbd4a; --c6: #ff8a7d; --c7: #9fb2c4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); }
main { max-width: 1400px; margin: 0 auto; padding: 1.6rem clamp(0.8rem, 3vw, 2.2rem) 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 0.3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 0.2rem; } h3 { font-size: 0.95rem; margin: 0; }
p { margin: 0.3rem 0; max-width: 75ch; overflow-wrap: anywhere; } .soft { color: var(--soft); } .small { font-size: 0.85rem; }
.headlines { display: grid; grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: 0.8rem; margin: 1.1rem 0 0.4rem; }
.headline, .panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 0.75rem 0.95rem; }
.headline b { display: block; font-size: 1.6rem; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
.headline span { color: var(--soft); font-size: 0.85rem; display: block; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 0.8rem; margin-top: 0.7rem; align-items: start; }
.panel > .soft { font-size: 0.8rem; line-height: 1.35; margin: 0.1rem 0 0.5rem; }
.bars { display: grid; grid-template-columns: minmax(4.5rem, auto) minmax(56px, 1fr) auto; gap: 0.12rem 0.6rem; align-items: center; font-size: 0.85rem; }
.bars > .name { overflow-wrap: anywhere; } .bars > .num { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 0.12rem 0.8rem; font-size: 0.85rem; margin-top: 0.35rem; } .figures > .num { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.bars small, .figures small { color: var(--soft); } .own { font-weight: 650; } .bars svg { width: 100%; height: 14px; display: block; overflow: visible; }
.track { stroke: var(--line); } .zero { stroke: var(--soft); stroke-dasharray: 2 2; }
.fill { fill: var(--other); opacity: 0.28; } .whisker { stroke: var(--other); stroke-width: 2.5; } .dot { fill: var(--other); }
.mine .fill { fill: var(--own); } .mine .whisker { stroke: var(--own); } .mine .dot { fill: var(--own); }
.scroll { overflow-x: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 10px; margin-top: 0.7rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.87rem; } th, td { padding: 0.35rem 0.75rem; border-bottom: 1px solid var(--line); text-align: left; font-weight: 400; vertical-align: baseline; }
thead th { color: var(--soft); font-size: 0.82rem; white-space: nowrap; } tbody tr:last-child > * { border-bottom: 0; }
tbody th { position: sticky; left: 0; background: var(--panel); min-width: 7.5rem; max-width: 22rem; overflow-wrap: anywhere; }
td.num, th.num { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } td small { color: var(--soft); margin-left: 0.25em; } td.best { font-weight: 650; }
thead button { all: unset; cursor: pointer; } thead button:hover { color: var(--accent); } thead button:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
[aria-sort=ascending] button::after { content: " ↑"; } [aria-sort=descending] button::after { content: " ↓"; }
details { margin-top: 0.9rem; } summary { cursor: pointer; color: var(--accent); overflow-wrap: anywhere; } details.inner { margin: 0.6rem 0 0; font-size: 0.88rem; }
dl { display: grid; grid-template-columns: minmax(6rem, auto) minmax(0, 1fr); gap: 0.2rem 1rem; margin: 0.6rem 0; font-size: 0.88rem; max-width: 110ch; } dt { color: var(--soft); overflow-wrap: anywhere; max-width: 24ch; } dd { margin: 0; overflow-wrap: anywhere; } dd > dl { margin: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 0.9rem; margin-top: 0.7rem; } figure { margin: 0; } figcaption { color: var(--soft); font-size: 0.8rem; line-height: 1.4; margin-top: 0.4rem; }
.plot { width: 100%; height: auto; display: block; } .plot text { fill: var(--soft); font-size: 11px; } .plot .label { fill: var(--ink); } .plot .axis { stroke: var(--line); } .plot .grid { stroke: var(--line); opacity: 0.6; } .plot .leader { stroke: var(--soft); stroke-width: 0.7; opacity: 0.7; }
.plot .front { fill: none; stroke-width: 1.4; opacity: 0.65; } .plot .control { fill: var(--panel); stroke: var(--other); stroke-width: 1.2; } .plot .spread { stroke-width: 1.4; } .plot .point { stroke: var(--panel); stroke-width: 1; }
.narrow { display: none; } .legend { display: flex; flex-wrap: wrap; gap: 0.15rem 1rem; font-size: 0.83rem; color: var(--soft); margin-top: 0.3rem; } .legend span { white-space: normal; overflow-wrap: anywhere; } .legend svg { width: 12px; height: 12px; margin-right: 0.35em; vertical-align: -1px; overflow: visible; }
footer { margin-top: 2.4rem; border-top: 1px solid var(--line); padding-top: 0.7rem; color: var(--soft); font-size: 0.82rem; overflow-wrap: anywhere; }
@media (max-width: 560px) { .narrow { display: block; } .wide { display: none; } tbody th { max-width: 9.5rem; } th, td { padding: 0.35rem 0.55rem; } dl { grid-template-columns: minmax(0, 1fr); gap: 0; } dd { margin-bottom: 0.35rem; } .headline b { font-size: 1.35rem; } }
@media print { :root { color-scheme: light; --back: #fff; --panel: #fff; --ink: #000; --soft: #444; --line: #bbb; --accent: #000; --own: #b35300; --other: #777; --wash: #fff; --c0: #c25d00; --c1: #0a6ebd; --c2: #0b7f66; --c3: #a3357c; --c4: #6b5bc4; --c5: #7a6a00; --c6: #c0392b; --c7: #4a5a6a; font-size: 10.5pt; }
  main { max-width: none; padding: 0; } .panel, .headline, figure, tr { break-inside: avoid; } h2 { break-after: avoid; } .scroll { overflow: visible; border: 0; } tbody th { position: static; } .fill, .whisker, .dot, .point { print-color-adjust: exact; } }
"""
# sorting is a comfort: the table is complete and ordered without it
SORT = """
for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button"); button.append(...head.childNodes); head.append(button);
  button.onclick = () => {
    const table = head.closest("table"), column = head.cellIndex, up = head.ariaSort !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
    head.ariaSort = up ? "ascending" : "descending";
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => { const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const by = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y; return up ? by : -by; };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  };
}
"""


def text(value: object) -> str:
    """Any value as text that is safe between tags and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def page(title: str, body: str, *, script: str = "") -> str:
    """A whole HTML document; `body` is markup, `title` is text."""
    end = f"<script>{script}</script>" if script else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main>{end}</body></html>\n"
    )


def details(summary: str, body: str, *, inner: bool = False) -> str:
    """Something that opens on a click; `summary` is text, `body` markup. Nothing where the body is empty."""
    return f"<details{' class=inner' if inner else ''}><summary>{text(summary)}</summary>{body}</details>" if body else ""


def pairs(items: Iterable[tuple[object, str]]) -> str:
    """A list of names (text) and what they mean (markup)."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{value}</dd>" for name, value in items)
    return f"<dl>{rows}</dl>" if rows else ""


def anything(value: Any) -> str:
    """Any JSON value as markup: objects as nested lists, lists in a line, numbers short."""
    if isinstance(value, Mapping):
        return pairs((k, anything(v)) for k, v in value.items()) or "–"
    if isinstance(value, list | tuple):
        flat = [anything(v) for v in value]
        return ("".join(flat) if any(f.startswith("<dl") for f in flat) else ", ".join(flat)) or "–"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return text(f"{value:.6g}")
    return text(f"{value:,}" if isinstance(value, int) else value)
