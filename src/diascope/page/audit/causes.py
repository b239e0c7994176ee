"""Does a direction move it: trials beside their controls, what was then written, damage, and the candidates on validation."""

from __future__ import annotations

from collections.abc import Mapping

from diascope.page.audit.marks import Axis, Row, around, figure, panel, rows, table
from diascope.page.audit.read import Data, amount, at, finding, items, objects, section
from diascope.page.markup import text
from diascope.page.numbers import shown

RATES = {"0": 0.0, "0.5": 0.5, "1": 1.0}


def causes(result: Data) -> str:
    """All panels of the causal half, as markup; nothing where it was not tried."""
    numbers = section(finding(result, "causal"), "numbers")
    unit = str(at(result, "numbers", "prevalence", "unit") or "")
    trials = "".join(_trial(str(name), t, unit) for name, t in section(numbers, "trials").items() if isinstance(t, Mapping))
    written = "".join(
        _written(str(name), rates) for name, rates in section(numbers, "written").items() if isinstance(rates, Mapping)
    )
    return trials + written + _damage(section(numbers, "damage")) + _direction(numbers)


def _trial(name: str, t: Data, unit: str) -> str:
    families = section(t, "p_family")
    given = [Row("the direction", t.get("effect"), strong=True, signed=True)]
    given += [
        Row(f"controls: {family}", ribbon=c, signed=True, about=f"p {_p(families.get(family))}")
        for family, c in section(t, "controls").items()
    ]
    given += [Row("wrong sign", t.get("wrong_sign"), signed=True), Row("wrong layer", t.get("wrong_layer"), signed=True)]
    kept = [r for r in given if amount(r.entry) is not None or r.ribbon]
    axis = around(
        kept, {"0": 0.0}, f"change the {'raising' if t.get('raises') else 'lowering'} way" + (f", {unit}" if unit else "")
    )
    p = amount(t.get("p"))
    said = "beats its controls" if t.get("passed") else "controls do as much"
    note = (
        f"Should {'raise' if t.get('raises') else 'lower'} the score: {said}"
        + ("" if p is None else f", p {shown(p)}, the largest over families")
        + "."
    )
    clean = (
        f"<p class=small>score without the edit: {figure(t.get('clean'), unit)}</p>"
        if amount(t.get("clean")) is not None
        else ""
    )
    mark = "✓" if t.get("passed") else "✕"
    return panel(f"Trial: {name} {mark}", rows(kept, axis) + clean, note, kind="wide-panel")


def _p(value: object) -> str:
    found = amount(value)
    return "?" if found is None else shown(found)


def _written(name: str, rates: Data) -> str:
    drawn = rows(
        [Row(str(kind), rate, strong=kind == "edited") for kind, rate in rates.items()],
        Axis(0.0, 1.0, RATES, "rate of the behaviour"),
    )
    return panel(
        f"What is then done: {name}",
        drawn,
        "Rate of the behaviour on test cases, as it is and under the edit; Wilson's intervals.",
    )


def _damage(found: Data) -> str:
    limits = (
        ("KL on neutral prompts, nats", "kl", "most_kl", 1),
        ("ΔCE on reference text, nats a token", "delta_ce", "most_ce", 1),
        ("change of right answers", "accuracy", "most_lost", -1),
    )
    lines = []
    for label, key, most, sign in limits:
        value, limit = amount(found.get(key)), amount(found.get(most))
        if value is None:
            continue
        allowed = "–" if limit is None else f"{'at most ' if sign > 0 else 'at least '}{shown(sign * limit)}"
        good = limit is None or (value <= limit if sign > 0 else value >= -limit)
        lines.append([text(label), figure(found[key], signed=True), text(allowed), "✓" if good else "✕ too much"])
    return panel(
        "Damage",
        table(["what", "change", "allowed", ""], lines, numeric=(1,)),
        "Of the first trial's edit, where it should do nothing.",
    )


def _direction(numbers: Data) -> str:
    """Which direction was tried, how it relates to the detecting one, and which others were not taken."""
    readout = section(numbers, "readout")
    if not readout:
        return ""
    cosine = amount(numbers.get("cosine_to_detection"))
    promoted = ", ".join(repr(str(w)) for w in items(numbers, "promotes"))
    start = f"The {readout.get('kind', 'direction')} at {readout.get('site', '?')}, {readout.get('place', '?')}."
    beside = "" if cosine is None else f" Cosine to the direction that detects: {cosine:.2f}; neither is proof of the other."
    lines = [
        [
            text(f"{c.get('site', '?')}, {c.get('place', '?')}"),
            ", ".join(figure(e, signed=True) for e in items(c, "effects")) or "–",
            figure(c.get("kl")),
            "kept" if c.get("kept") else "dropped",
        ]
        for c in objects(numbers, "candidates")
    ]
    listed = table(["candidate, on validation", "effect a trial", "KL", ""], lines, numeric=(1, 2))
    words = f"<p class=small>Its unembedding promotes {text(promoted)}.</p>" if promoted else ""
    return panel("The direction", f"<p class=small>{text(start + beside)}</p>{words}{listed}")
