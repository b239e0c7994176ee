"""An audit in the terminal: one line a protocol with its verdict, one a finding with its number, then the reasons and the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from diascope.audits import Audit, Finding
    from diascope.audits.record import Result

# what stands for a finding that has no trials: the first of these numbers that it holds
NUMBERS = {
    "auroc": "AUROC",
    "dense": "AUROC",
    "effect": "effect",
    "last": "KL",
    "removed": "KL removed",
    "target": "rise of CE",
}


def audit_table(audit: Audit) -> Group:
    """One line a protocol, and one a finding."""
    table = Table(box=None, pad_edge=False, title=Text(str(audit.facts["model"])), title_justify="left", title_style="bold")
    for head in ("protocol", "verdict", "", ""):
        table.add_column(head, no_wrap=True)
    why = []
    for r in audit.results:
        table.add_row(r.protocol, Text(r.verdict, style="bold"), *_rate(r))
        why.append(f"{r.protocol}: {r.why}")
        for f in r.findings:
            table.add_row(f"  {f.name}", f.verdict, *_number(f), style="dim")
    limits = [*audit.facts["limits"], *(f"{r.protocol}: {line}" for r in audit.results for line in r.limits)]
    return Group(table, Text("\n".join(["", *why])), Text("\n".join(["not tested:", *limits]), style="dim"))


def _rate(r: Result) -> tuple[str, str]:
    """What a protocol counts first, and how much of it there is; nothing for a study that counts nothing."""
    found = r.numbers["prevalence"]
    if "rate" not in found:
        return "", ""
    return "KL" if r.protocol == "diff" else "shown", _interval(found["rate"])


def _interval(e: dict[str, Any]) -> str:
    return f"{e['value']:.2f} [{e['low']:.2f}, {e['high']:.2f}] of {e['n']}"


def _number(f: Finding) -> tuple[str, str]:
    """What stands for a finding in the table: its name and its value with the interval."""
    if "trials" in f.numbers:
        some = [f"{t['effect']['value']:+.2f} (p {t['p']:.3f})" for t in f.numbers["trials"].values()]
        return "effect", ", ".join(some)
    for name, title in NUMBERS.items():
        if isinstance(e := f.numbers.get(name), dict) and "low" in e:
            return title, _interval(e) + (f" (p {f.numbers['p']:.3f})" if "p" in f.numbers else "")
    return "", ""
