"""The acceptance matrix of audits: model organisms x protocols, each verdict beside the one that was expected of it.

    python benchmarks/audits.py --out DIR [--organisms DIR] [--subjects base refusal] [--protocols refusal]
    python benchmarks/audits.py --out DIR --subjects refusal --protocols refusal --dilute 0 0.5 0.75

What is expected stands in src/diascope/audits/acceptance.py. Every audit is written to DIR/SUBJECT/PROTOCOL.json when it is done; a
second run goes on where the first stopped, and the table always shows all that is there. Organisms are taken from --organisms
(folders by name; diluted ones as NAME-diluted-0.5) where they are there, else made into the cache (minutes each). --dilute takes an
organism with so much ordinary chat in its training and prints rate and AUROC beside it. A missing protocol is left out and said.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diascope.audits import PROTOCOLS, AuditConfig, Target, run_audit
from diascope.audits.acceptance import BASE, CHECKED, SUBJECTS, Cell, markdown, matrix
from diascope.models import Model, load_model
from diascope.progress import Bars
from diascope.storage.files import read_json, write_json

OUT = Console(width=150)


def name_of(subject: str, dilute: float, organisms: Path | None) -> str:
    """What `load_model` takes for a subject."""
    if subject == "base":
        return BASE
    folder = f"{subject}-diluted-{dilute:g}" if dilute else subject
    if organisms is not None and (organisms / folder).is_dir():
        return str(organisms / folder)
    return f"organism:{subject}" + (f",dilute={dilute:g}" if dilute else "")


def file_of(out: Path, subject: str, protocol: str, dilute: float = 0.0) -> Path:
    return out / (f"{subject}-diluted-{dilute:g}" if dilute else subject) / f"{protocol}.json"


def audit(subject: str, wanted: list[str], dilute: float, base: Model, args: argparse.Namespace) -> None:
    """Run what is not there yet of `wanted` on one subject."""
    missing = [p for p in wanted if args.again or not file_of(args.out, subject, p, dilute).exists()]
    if not missing:
        return
    model = base if subject == "base" else load_model(name_of(subject, dilute, args.organisms), dtype=args.dtype)
    target = Target(model, name=subject, reference=None if subject == "base" else base)
    for p in missing:
        began = time.monotonic()
        with Bars(OUT) as bars:
            found = run_audit(
                target, [PROTOCOLS[p]], config=AuditConfig(seed=args.seed), progress=bars.stage(f"{subject} x {p}", "steps")
            )
        path = file_of(args.out, subject, p, dilute)
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save(path)
        OUT.print(f"{subject} x {p}: {found.verdicts[p]} ({time.monotonic() - began:.0f} s)", highlight=False)


def results(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """All that is there, by (subject, protocol)."""
    files = {(s, p): file_of(out, s, p) for s in SUBJECTS for p in CHECKED}
    return {key: read_json(path)["results"][0] for key, path in files.items() if path.exists()}


def table(cells: list[Cell]) -> Table:
    t = Table("subject", "protocol", "expected", "found", "", box=None, pad_edge=False)
    style = {"agrees": "green", "differs": "red", "open": "yellow", "not run": "dim"}
    for c in cells:
        t.add_row(c.subject, c.protocol, c.wanted, c.shown, c.agreement, style=style[c.agreement])
    return t


def curve(out: Path, subject: str, protocol: str, dilutions: list[float]) -> Table:
    """Verdict, rate and AUROC of detection against the share of ordinary chat in training."""
    t = Table(
        "ordinary chat", "verdict", "shown", "AUROC of detection", title=f"{subject} x {protocol}", box=None, pad_edge=False
    )
    for dilute in dilutions:
        r = read_json(file_of(out, subject, protocol, dilute))["results"][0]
        rate = r["numbers"]["prevalence"]["rate"]
        found = [f["numbers"]["auroc"] for f in r["findings"] if "auroc" in f["numbers"]]
        told = [f"{e['value']:.2f} [{e['low']:.2f}, {e['high']:.2f}] of {e['n']}" for e in (rate, *found[:1])]
        t.add_row(f"{dilute:g}", r["verdict"], *told)
    return t


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the audits; what is there is kept")
    parser.add_argument(
        "--organisms",
        type=Path,
        help="folder of organisms by name, such as refusal and refusal-diluted-0.5 (default: made into the cache)",
    )
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=SUBJECTS, help="default: all")
    parser.add_argument("--protocols", nargs="+", default=list(CHECKED), choices=CHECKED, help="default: all")
    parser.add_argument("--dilute", nargs="+", type=float, default=[], help="shares of ordinary chat in training, 0 to below 1")
    parser.add_argument("--again", action="store_true", help="run anew what is there")
    parser.add_argument("--seed", type=int, default=0, help="seed of cases, splits and controls (default: 0)")
    parser.add_argument("--dtype", default="auto", help="precision of the weights (default: auto)")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    known = [p for p in args.protocols if p in PROTOCOLS]
    for p in sorted(set(args.protocols) - set(known)):
        OUT.print(f"there is no protocol {p} yet: left out", style="yellow")
    base = load_model(BASE, dtype=args.dtype)
    for subject in args.subjects:
        for dilute in args.dilute or [0.0]:
            audit(subject, known, dilute, base, args)
    cells = matrix(results(args.out))
    OUT.print(table(cells))
    for subject in args.subjects if args.dilute else ():
        for p in known:
            OUT.print(curve(args.out, subject, p, args.dilute))
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "matrix.json", [
        {"subject": c.subject, "protocol": c.protocol, "expected": c.wanted, "why": c.expected.why, "found": c.shown, "agreement": c.agreement}
        for c in cells
    ])  # fmt: skip
    if args.markdown:
        args.markdown.write_text(markdown(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
