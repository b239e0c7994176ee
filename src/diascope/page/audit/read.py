"""Reading audit.json for the report: tolerant of parts that are not there, strict about what it is at all.

An audit of a later or earlier program may lack a part, or hold one that this report does not know: what is missing is not drawn,
what is unknown stands under "All numbers".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FORMAT = "diascope-audit-1"  # record.FORMAT, which this module must not import: it needs torch
Data = Mapping[str, Any]


def checked(audit: Data) -> Data:
    """`audit` itself; ValueError where it is no audit of this format."""
    found = audit.get("format") if isinstance(audit, Mapping) else None
    if found != FORMAT:
        raise ValueError(
            f"this is no audit that can be reported: its format is {found!r}, not {FORMAT!r}; pass what audit.json holds"
        )
    if not isinstance(audit.get("facts"), Mapping) or not isinstance(audit.get("results"), Sequence):
        raise ValueError("this audit has no facts or no results: audit.json is damaged; run the audit again")
    return audit


def at(data: Any, *path: str) -> Any:
    """What stands under a path of keys; None where a step is missing."""
    for key in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def section(data: Any, *path: str) -> Data:
    """The object under a path; empty where there is none."""
    found = at(data, *path)
    return found if isinstance(found, Mapping) else {}


def items(data: Any, *path: str) -> Sequence[Any]:
    """The list under a path; empty where there is none."""
    found = at(data, *path)
    return found if isinstance(found, list | tuple) else ()


def objects(data: Any, *path: str) -> list[Data]:
    """The objects of the list under a path."""
    return [x for x in items(data, *path) if isinstance(x, Mapping)]


def amount(entry: Any) -> float | None:
    """A finite number, or the value of an estimate; None for anything else."""
    if isinstance(entry, Mapping):
        entry = entry.get("value")
    if isinstance(entry, bool) or not isinstance(entry, int | float) or not math.isfinite(entry):
        return None
    return float(entry)


def ends(entry: Any) -> tuple[float, float] | None:
    """The ends of an estimate's interval; None where it has none."""
    low, high = amount(at(entry, "low")), amount(at(entry, "high"))
    return (low, high) if low is not None and high is not None else None


def results(audit: Data) -> list[Data]:
    """One object a protocol."""
    return objects(audit, "results")


def findings(result: Data) -> Iterator[tuple[str, Data]]:
    """(name, finding) of a protocol."""
    for f in objects(result, "findings"):
        yield str(f.get("name", "finding")), f


def finding(result: Data, name: str) -> Data:
    """The finding called `name`; empty where there is none."""
    return next((f for n, f in findings(result) if n == name), {})
