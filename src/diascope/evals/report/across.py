"""Many dictionaries on one page: a table, two Pareto plots, their suites side by side, and every card behind a click.

Dictionaries are grouped by what they stand for (model, sites written, data): FVU can be compared within a group alone, and only
there one may be said to beat another. The table is ordered by group, then L0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from diascope.evals.report.card import Card, card_body, sites, suite_rows
from diascope.evals.report.labels import cut
from diascope.evals.report.metrics import METRICS, label
from diascope.evals.report.plot import COLOURS, MARKS, Point, mark, pareto
from diascope.page.markup import SORT, details, page, text
from diascope.page.numbers import Number, number, plus_minus, shown, words

COLUMNS = ("l0", "fvu", "fvu_standardised", "delta_ce", "kl", "recovered", "dead", "dense")
PLOTS = {"fvu": "FVU", "delta_ce": "ΔCE, nats a token"}
SUITE_RESULTS = 4  # of each metric family that the table across dictionaries shows


def report_html(cards: Mapping[str, Card], *, title: str = "Dictionaries compared") -> str:
    """A self-contained page for several dictionaries' cards, by name. Raises ValueError where there is none."""
    if not cards:
        raise ValueError("there is no card to report: evaluate at least one dictionary")
    for name, card in cards.items():
        if not isinstance(card.get("metrics"), Mapping):
            raise ValueError(f"the card of {name} has no metrics: pass what Evaluation.card() gives, or what card.json holds")
    keys = list(dict.fromkeys(_target(card) for card in cards.values()))
    group = {name: keys.index(_target(card)) for name, card in cards.items()}
    order = sorted(cards, key=lambda name: (group[name], _l0(cards[name])))
    ranked, short = {name: cards[name] for name in order}, shorter(order)
    body = [
        f"<h1>{text(title)}</h1>",
        f"<p class=soft>{text(_scope(ranked, len(keys)))}</p>",
        _table(ranked, short, group, len(keys)),
        _plots(ranked, short, group, keys),
        _suites(ranked, short),
        "<h2>Cards</h2>",
        *(details(name, card_body(name, card)) for name, card in ranked.items()),
        "<footer>Intervals are 95 % intervals over documents. diascope</footer>",
    ]
    return page(title, "".join(body), script=SORT)


def _target(card: Card) -> tuple[str, ...]:
    """What a dictionary stands for: only those with the same may be compared in FVU."""
    f = card.get("facts", {})
    return (str(f.get("model", "")), sites(f.get("sites_out") or ()), str(f.get("data", "")))


def _l0(card: Card) -> float:
    n = _own(card, "l0")
    return n.value if n else float("inf")


def _own(card: Card, metric: str) -> Number | None:
    return number((card["metrics"].get("dictionary") or {}).get(metric))


def _scope(cards: Mapping[str, Card], targets: int) -> str:
    facts = [c.get("facts", {}) for c in cards.values()]
    models = ", ".join(dict.fromkeys(str(f.get("model", "?")) for f in facts))
    texts = ", ".join(dict.fromkeys(str(f.get("text") or "held-out text") for f in facts))
    start = f"{len(cards)} dictionar{'y' if len(cards) == 1 else 'ies'} of {models}, judged on {texts}."
    for key, words_for in (("kind", "All are of kind {}."), ("sites_out", "All write {}.")):
        if len(cards) > 1 and (same := _same(facts, key)):
            start += " " + words_for.format(same)
    if targets == 1:
        return start
    return f"{start} They stand for {targets} different targets: FVU can be compared among those of one target alone."


def _same(facts: Sequence[Mapping[str, Any]], key: str) -> str:
    """What all have for `key`, as words; "" where they differ or say nothing."""
    found = {sites(f[key]) if key == "sites_out" else str(f[key]) for f in facts if f.get(key)}
    return found.pop() if len(found) == 1 and all(f.get(key) for f in facts) else ""


def _table(cards: Mapping[str, Card], short: Mapping[str, str], group: Mapping[str, int], groups: int) -> str:
    """One line a dictionary; the best of each group in bold where they differ. What all share is no column."""
    columns = [m for m in COLUMNS if any(_own(c, m) for c in cards.values())]
    best = {(g, m): _best(m, [c for n, c in cards.items() if group[n] == g]) for g in range(groups) for m in columns}
    facts = {name: card.get("facts", {}) for name, card in cards.items()}
    said = [k for k in ("kind", "sites_out") if len(cards) == 1 or not _same(list(facts.values()), k)]
    head = "".join(f'<th scope="col">{text({"kind": "kind", "sites_out": "writes"}[k])}</th>' for k in said)
    head += "".join(f'<th class="num" scope="col">{text(label(m))}</th>' for m in columns)
    lines = []
    for name, card in cards.items():
        of = {"kind": facts[name].get("kind") or "–", "sites_out": sites(facts[name].get("sites_out") or ()) or "–"}
        cells = "".join(f"<td>{text(of[k])}</td>" for k in said)
        cells += "".join(cell(n := _own(card, m), n is not None and n.value == best[group[name], m]) for m in columns)
        lines.append(f"<tr>{_named(name, short)}{cells}</tr>")
    return _sortable(head, lines)


def _named(name: str, short: Mapping[str, str]) -> str:
    return f'<th scope="row" title="{text(name)}">{text(cut(short[name], 60))}</th>'


def _sortable(head: str, lines: list[str]) -> str:
    head = f'<th scope="col">dictionary</th>{head}'
    return f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _best(metric: str, cards: list[Card]) -> float | None:
    values = [n.value for c in cards if (n := _own(c, metric))]
    better = METRICS[metric].better
    if len(set(values)) < 2 or not better:
        return None
    return max(values) if better > 0 else min(values)


def cell(n: Number | None, best: bool = False) -> str:
    """A table's cell: the number, half its interval, and the plain value for sorting."""
    if n is None:
        return '<td class="num" data-value="">–</td>'
    small = f"<small>{plus_minus(n)}</small>" if n.half is not None else ""
    return f'<td class="num{" best" if best else ""}" data-value="{n.value!r}">{shown(n.value)}{small}</td>'


def _plots(cards: Mapping[str, Card], short: Mapping[str, str], group: Mapping[str, int], keys: list[tuple[str, ...]]) -> str:
    figures, shown_groups = [], set()
    for metric, title in PLOTS.items():
        points = [
            Point(short[name], group[name], x, y, _controls(card, metric))
            for name, card in cards.items()
            if (x := _own(card, "l0")) and (y := _own(card, metric))
        ]
        missing = len(cards) - len(points)
        if not points:
            continue
        shown_groups |= {p.group for p in points}
        note = f" {missing} without {label(metric)} or L0 {'is' if missing == 1 else 'are'} not drawn." if missing else ""
        drawn = pareto(points, title, width=680, letters=24, place="wide") + pareto(
            points, title, width=350, letters=14, place="narrow"
        )
        figures.append(f'<figure class="panel">{drawn}<figcaption>{text(_caption(metric) + note)}</figcaption></figure>')
    if not figures:
        return ""
    return f'<h2>Cost against sparsity</h2>{_legend(cards, {g: keys[g] for g in sorted(shown_groups)})}<div class="plots">{"".join(figures)}</div>'


def _caption(metric: str) -> str:
    start = "Lower and farther left is better; a staircase joins dictionaries of one target that no other of it beats in both."
    own = "Controls stand at their dictionary's L0; one that is far worse stands at the upper edge."
    return f"{start} {own} " + (
        "FVU can be compared within one colour only." if metric == "fvu" else "Whiskers are 95 % intervals."
    )


def _controls(card: Card, metric: str) -> dict[str, float]:
    return {k: n.value for k in MARKS if (n := number((card["metrics"].get(k) or {}).get(metric)))}


def _legend(cards: Mapping[str, Card], keys: Mapping[int, tuple[str, ...]]) -> str:
    several, data = (len({key[i] for key in keys.values()}) > 1 for i in (0, 2))
    entries = []
    for g, (model, written, text_hash) in keys.items():
        name = " · ".join([*([model] if several else []), written or "unknown target", *([text_hash[:8]] if data else [])])
        dot = f'<svg viewBox="0 0 12 12" aria-hidden="true"><circle cx="6" cy="6" r="5" fill="var(--c{g % COLOURS})"/></svg>'
        entries.append(f"<span>{dot}{text(cut(name, 60))}</span>")
    for kind, name in MARKS.items():
        if any(_controls(c, m) and kind in _controls(c, m) for c in cards.values() for m in PLOTS):
            shape = mark(kind, 6, 6)
            entries.append(
                f'<span><svg class="plot" style="display:inline" viewBox="0 0 12 12" aria-hidden="true">{shape}</svg>{text(name)}</span>'
            )
    return f'<div class="legend">{"".join(entries)}</div>'


def _suites(cards: Mapping[str, Card], short: Mapping[str, str]) -> str:
    """A table a metric family: its first results across dictionaries."""
    families = dict.fromkeys(k for c in cards.values() for k, e in (c.get("suite") or {}).items() if isinstance(e, Mapping))
    out = []
    for family in families:
        rows = {n: suite_rows(c["suite"][family])["dictionary"] for n, c in cards.items() if family in (c.get("suite") or {})}
        results = list(dict.fromkeys(m for ms in rows.values() for m in ms))[:SUITE_RESULTS]
        if results:
            out.append(f"<h2>{text(words(family).capitalize())}</h2>{_suite_table(rows, short, results)}")
    return "".join(out)


def _suite_table(rows: Mapping[str, Mapping[str, Number]], short: Mapping[str, str], results: list[str]) -> str:
    head = "".join(f'<th class="num" scope="col">{text(label(r))}</th>' for r in results)
    return _sortable(
        head, [f"<tr>{_named(name, short)}{''.join(cell(ms.get(r)) for r in results)}</tr>" for name, ms in rows.items()]
    )


def shorter(names: Sequence[str]) -> dict[str, str]:
    """Names without what all of them begin and end with, cut at the borders of words."""
    if len(names) < 2:
        return {n: n for n in names}
    words_of = {n: re.split(r"(?<=[/\-_ .])", n) for n in names}
    start = _shared(list(words_of.values()))
    rest = {n: ws[start:] for n, ws in words_of.items()}
    end = _shared([ws[::-1] for ws in rest.values()])
    kept = {n: "".join(ws[: len(ws) - end]).rstrip("/-_ .") for n, ws in rest.items()}
    return kept if all(kept.values()) and len(set(kept.values())) == len(names) else {n: n for n in names}


def _shared(lists: Sequence[Sequence[str]]) -> int:
    """How many first items all lists share; at least one is left of each."""
    longest = min(map(len, lists)) - 1
    return next((i for i in range(longest) if len({items[i] for items in lists}) > 1), max(0, longest))
