"""What ordinary chat in an organism's training hides of it, drawn: what is shown, what is detected, what is caused, against the share.

    python benchmarks/audits.py --out DIR --subjects refusal --protocols refusal --dilute 0 0.5 0.75 0.9
    python benchmarks/dilution_curve.py DIR refusal refusal docs/img/dilution.svg

Reads the audits DIR/SUBJECT[-diluted-SHARE]/PROTOCOL.json and writes one picture that is legible in light and dark: each panel has one
estimate a share with its 95 % interval; a filled mark passed its test (the trial's p, or the whole interval above what says nothing).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from diascope.page.audit.curve import ticks
from diascope.storage.files import read_json

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 236.0, 220.0, 40.0, 34.0, 40.0, 12.0
STYLE = """text { font: 11px system-ui, sans-serif; fill: #444 } .title { font-weight: 600; fill: #111 } .grid { stroke: #ddd } .axis { stroke: #888; fill: none }
.nothing { stroke: #888; stroke-dasharray: 3 3 } .mark { stroke: #2563a8; stroke-width: 2; fill: #fff } .passed { fill: #2563a8 } .join { stroke: #2563a8; fill: none; opacity: .35 }
.back { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #bbb } .title { fill: #eee } .grid { stroke: #333 } .back { fill: #15181c }
.mark { stroke: #7fb2ea; fill: #15181c } .passed { fill: #7fb2ea } .join { stroke: #7fb2ea } }"""


@dataclass(frozen=True)
class Mark:
    """One estimate at one share of ordinary chat."""

    share: float
    value: float
    low: float
    high: float
    passed: bool


@dataclass(frozen=True)
class Panel:
    title: str
    nothing: float  # the value that says that nothing is there
    marks: tuple[Mark, ...]
    axis: tuple[float, float] | None = None  # None: as far as the intervals reach


def audits(folder: Path, subject: str, protocol: str) -> dict[float, dict[str, Any]]:
    """The one result of every audit that is there, by share of ordinary chat."""
    found = {0.0: folder / subject / f"{protocol}.json"}
    found |= {float(p.name.rpartition("-")[2]): p / f"{protocol}.json" for p in folder.glob(f"{subject}-diluted-*")}
    return {share: read_json(path)["results"][0] for share, path in sorted(found.items()) if path.exists()}


def panels(results: dict[float, dict[str, Any]]) -> list[Panel]:
    """Rate of the behaviour, AUROC of its detection, and every trial of the causal finding."""
    found = [
        _panel("shown, rate of pairs at risk", 0.0, results, lambda r: (r["numbers"]["prevalence"]["rate"], None), (0.0, 1.0)),
        _panel("detected, AUROC", 0.5, results, lambda r: (_finding(r, "detection").get("auroc"), None), (0.0, 1.0)),
    ]
    trials = dict.fromkeys(t for r in results.values() for t in _finding(r, "causal").get("trials", {}))
    for name in trials:

        def trial(r: dict[str, Any], name: str = name) -> tuple[Any, float | None]:
            own = _finding(r, "causal").get("trials", {}).get(name, {})
            return own.get("effect"), own.get("p")

        found.append(_panel(f"caused, {name}, nats", 0.0, results, trial))
    return found


def _finding(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next((f["numbers"] for f in result["findings"] if f["name"] == name), {})


def _panel(title: str, nothing: float, results: dict[float, dict[str, Any]], of: Any, axis: Any = None) -> Panel:
    marks = []
    for share, result in results.items():
        entry, p = of(result)
        if entry:
            passed = entry["low"] > nothing and (p is None or p <= 0.05)
            marks.append(Mark(share, entry["value"], entry["low"], entry["high"], passed))
    return Panel(title, nothing, tuple(marks), axis)


def drawing(panels: Sequence[Panel], name: str) -> str:
    """The picture as SVG."""
    width = len(panels) * (WIDTH + GAP) - GAP
    body = "".join(f'<g transform="translate({i * (WIDTH + GAP):g} 0)">{_drawn(p)}</g>' for i, p in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {HEIGHT:g}" width="{width:g}" height="{HEIGHT:g}" role="img" '
        f'aria-label="{escape(name)}"><style>{STYLE}</style><rect class="back" width="{width:g}" height="{HEIGHT:g}"/>{body}</svg>\n'
    )


def _drawn(panel: Panel) -> str:
    low, high = panel.axis or (
        min(panel.nothing, *(m.low for m in panel.marks)), max(panel.nothing, *(m.high for m in panel.marks))
    )  # fmt: skip
    room = 0.06 * (high - low)
    low, high, bottom, right = low - room, high + room, HEIGHT - BOTTOM, WIDTH - 12

    def x(share: float) -> float:
        return LEFT + 14 + (right - LEFT - 24) * share

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (value - low) / (high - low)

    out = [f'<text class="title" x="{LEFT - 30:g}" y="16">{escape(panel.title)}</text>']
    for v in ticks(low, high):
        out.append(f'<line class="grid" x1="{LEFT:g}" x2="{right:g}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>')
        out.append(f'<text x="{LEFT - 5:g}" y="{y(v) + 4:.1f}" text-anchor="end">{f"{v:g}".replace("-", "−")}</text>')
    zero = y(panel.nothing)
    out.append(f'<line class="nothing" x1="{LEFT:g}" x2="{right:g}" y1="{zero:.1f}" y2="{zero:.1f}"/>')
    out.append(f'<path class="axis" d="M{LEFT:g} {TOP:g} V{bottom:g} H{right:g}"/>')
    out.append(f'<path class="join" d="M{" L".join(f"{x(m.share):.1f} {y(m.value):.1f}" for m in panel.marks)}"/>')
    for m in panel.marks:
        at, kind = x(m.share), "mark passed" if m.passed else "mark"
        out.append(f'<text x="{at:.1f}" y="{bottom + 15:g}" text-anchor="middle">{m.share:g}</text>')
        out.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{y(m.low):.1f}" y2="{y(m.high):.1f}"/>')
        out.append(f'<circle class="{kind}" cx="{at:.1f}" cy="{y(m.value):.1f}" r="4"/>')
    out.append(
        f'<text x="{(LEFT + right) / 2:g}" y="{bottom + 32:g}" text-anchor="middle">ordinary chat in training, share</text>'
    )
    return "".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the audits that benchmarks/audits.py wrote")
    parser.add_argument("subject", help="organism, such as refusal")
    parser.add_argument("protocol", help="protocol, such as refusal")
    parser.add_argument("out", type=Path, help="picture to write (SVG)")
    args = parser.parse_args()
    results = audits(args.folder, args.subject, args.protocol)
    if not results:
        parser.error(f"{args.folder} has no audit of {args.subject} by {args.protocol}: make them with benchmarks/audits.py")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(drawing(panels(results), f"{args.protocol} of {args.subject} against dilution"), encoding="utf-8")


if __name__ == "__main__":
    main()
