"""Do a few latents say it: the dictionary's fidelity on these very vectors, the latents with what they promote, probes by size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diascope.page.audit.marks import figure, panel, table
from diascope.page.audit.read import Data, amount, finding, items, objects, section
from diascope.page.markup import text
from diascope.page.numbers import shown

Link = Callable[[int], str]  # the address of a latent's page; "" where there is none


def latents(result: Data, link: Link) -> str:
    """All panels of the sparse half, as markup; nothing without a dictionary."""
    numbers = section(finding(result, "sparse"), "numbers")
    return _table(numbers, link) + _fidelity(section(numbers, "fidelity"), numbers.get("place", "?")) + _sizes(numbers)


def _table(numbers: Data, link: Link) -> str:
    lines = [
        [
            _named(found.get("latent"), link),
            _share(found, "positive"),
            _share(found, "negative"),
            figure(found.get("statistic"), signed=True),
            figure(found.get("p_family"), "by the largest statistic of each permutation, over all latents"),
            figure(found.get("q"), "Benjamini and Hochberg"),
            text(", ".join(repr(str(w)) for w in items(found, "promotes"))) or "–",
        ]
        for found in objects(numbers, "latents")
    ]
    head = ["latent", "fires, positive", "fires, negative", "statistic", "p, search paid", "q", "promotes"]
    searched, passed = amount(numbers.get("searched")), amount(numbers.get("discoveries"))
    note = f"Read at {numbers.get('place', '?')}."
    if searched is not None and passed is not None:
        note += f" {passed:,.0f} of {searched:,.0f} latents have q at most 0.05."
    return panel("Latents", table(head, lines, numeric=(1, 2, 3, 4, 5)), note, kind="wide-panel")


def _named(latent: Any, link: Link) -> str:
    found = amount(latent)
    if found is None:
        return "–"
    address = link(int(found))
    return f'<a href="{text(address)}">{int(found)}</a>' if address else str(int(found))


def _share(found: Data, side: str) -> str:
    share = amount(section(found, "fires").get(side))
    if share is None:
        return "–"
    return f'<span class="share" style="--w:{100 * min(max(share, 0.0), 1.0):.0f}%">{share:.0%}</span>'


def _fidelity(found: Data, place: Any) -> str:
    within = section(found, "within").get(place)
    lines = [
        [
            "FVU on the audited vectors",
            figure(found.get("fvu"), f"{amount(found.get('rows')) or 0:.0f} places of cases"),
            f"at most {_shown(found.get('most_fvu'))}",
        ],
        [f"of what differs between cases at {text(str(place))}", figure(within), ""],
        ["L0", figure(found.get("l0")), ""],
        ["change of the score, spliced", figure(found.get("delta_score"), signed=True), ""],
    ]
    kept = [line for line in lines if line[1] != "–"]
    left = ", ".join(str(p) for p in items(found, "left_out"))
    special = f" Left out: {left}, special tokens, which dictionaries are not trained on." if left else ""
    passed = "It passes." if found.get("passed") else "It fails: what latents say here says little of the model."
    if (amount(within) or 0.0) >= 1:
        passed += " But it loses what differs between cases there: where no latent tells them apart, that may be the dictionary's doing."
    return panel(
        "Fidelity of the dictionary",
        table(["what", "value", "allowed"], kept, numeric=(1,)),
        f"On the tokens that are audited.{special} {passed}",
    )


def _shown(value: Any) -> str:
    found = amount(value)
    return "?" if found is None else shown(found)


def _sizes(numbers: Data) -> str:
    """AUROC on validation by how many latents, and how much of the dense direction so many of them span."""
    coverage = section(numbers, "coverage")
    lines = [
        [text(k), figure(section(numbers, "validation", k).get("auroc"), "split validation"), figure(coverage.get(k))]
        for k in sorted(section(numbers, "validation"), key=lambda k: int(k) if str(k).isdigit() else 0)
    ]
    body = table(["latents", "AUROC, validation", "coverage of the dense direction"], lines, numeric=(1, 2))
    if body and amount(numbers.get("minus_dense")) is not None:
        body += f"<p class=small>chosen latents minus the dense readout, on test cases: {figure(numbers['minus_dense'], signed=True)}</p>"
    return panel("How many latents", body, "Coverage is the R² of the best so many decoder rows.")
