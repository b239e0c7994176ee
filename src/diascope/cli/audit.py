"""The verb `audit`: run protocols on a chat model, list them, check a file of cases; monitors and transcripts (audit_transcript.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Group
from rich.table import Table
from rich.text import Text

from diascope.cli.audit_compare import AuditCompare
from diascope.cli.audit_transcript import MakeMonitor, ReadTranscript
from diascope.cli.terminal import ends, out
from diascope.progress import Bars

if TYPE_CHECKING:
    from diascope.audits import Audit, Finding
    from diascope.audits.record import Result


@dataclass
class Run:
    """Audit a chat model by one or more protocols; writes audit.json and report.html."""

    protocols: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names as `diascope audit ls` lists them, or all."""
    model: Annotated[str, tyro.conf.arg(aliases=["-m"])] = "smollm2-135m-instruct"
    """Chat model (a base model for hallucination alone): package alias, hub id, folder or .gguf file."""
    out: Path = Path("audit")
    """Folder to write; an audit.json and a report.html in it are replaced."""
    dictionary: Annotated[str, tyro.conf.arg(aliases=["-d"])] = ""
    """Dictionary of that model: folder of any readable format, or another name of it; without one the dense half runs."""
    sites: tuple[str, ...] = ()
    """Where the dictionary reads and writes, for formats that do not say: one site, or IN:OUT."""
    base: str = ""
    """The model that it was made from: `secret` compares with it. An adapter and an organism say it themselves."""
    cases: Path | None = None
    """A .jsonl file of cases in place of the protocol's own; then give one protocol."""
    seed: int = 0
    """Seed of cases, splits, permutations and controls."""
    controls: int = 201
    """Control directions a trial; at least 199."""
    batch: int = 16
    """Prompts read together."""
    dtype: str = "auto"
    """Precision of the weights: float32, bfloat16, or auto (bfloat16 where the machine multiplies it)."""
    device: str = "cpu"
    """cpu, cuda, or auto."""

    def run(self) -> None:
        from diascope.audits import PROTOCOLS, AuditConfig, CaseSet, Target, protocol, run_audit
        from diascope.audits.plain import PlainTarget
        from diascope.dictionaries import load_dictionary
        from diascope.models import load_model
        from diascope.models.load import base_name
        from diascope.storage.files import check_target

        names = tuple(PROTOCOLS) if self.protocols == ("all",) else self.protocols
        if not names:
            raise ValueError(f"give at least one protocol: {', '.join(PROTOCOLS)}, or all")
        chosen = [protocol(name) for name in names]
        config = AuditConfig(seed=self.seed, controls=self.controls)
        target_file = self.out / "audit.json"
        check_target(target_file)
        given = CaseSet.load(self.cases) if self.cases else None
        with Bars(out) as bars:
            say = bars.stage("model", "")
            opened = {"dtype": self.dtype, "device": self.device, "progress": lambda line: say(0, 0, line)}
            model = load_model(self.model, **opened)
            made_from = self.base or base_name(self.model)
            base = load_model(made_from, **opened) if made_from else None
            say(1, 1, model.name)
            d = load_dictionary(self.dictionary, sites=ends(self.sites)) if self.dictionary else None
            kind = PlainTarget if all(getattr(p, "plain", False) for p in chosen) else Target
            audit = run_audit(
                kind(model, batch=self.batch, reference=base),
                chosen,
                d,
                config,
                cases=given,
                progress=bars.stage("audit", "protocols"),
            )
        audit.save(target_file)
        out.print(audit_table(audit))
        page = write_report(target_file)
        out.print(f"written: {target_file}, {page}", style="dim", markup=False)


def write_report(audit: Path) -> Path:
    """report.html beside an audit.json."""
    from diascope.audits.report import report_html
    from diascope.storage.files import commit_file, read_json

    page = audit.with_name("report.html")
    with commit_file(page) as work:
        work.write_text(report_html(read_json(audit)), encoding="utf-8")
    return page


@dataclass
class Report:
    """Write report.html, one offline page, from an audit.json."""

    audit: Annotated[Path, tyro.conf.Positional]
    """The audit.json, or the folder that holds it."""

    def run(self) -> None:
        from diascope.audits.compare import read_audit

        path = self.audit / "audit.json" if self.audit.is_dir() else self.audit
        read_audit(path)
        out.print(f"written: {write_report(path)}", style="dim", markup=False)


@dataclass
class Ls:
    """List the protocols: what each asks, its sides, and what it measures."""

    def run(self) -> None:
        from diascope.audits import PROTOCOLS

        table = Table(box=None, pad_edge=False)
        for head in ("protocol", "asks", "sides", "least"):
            table.add_column(head)
        for name, p in PROTOCOLS.items():
            table.add_row(name, p.asks, " / ".join(p.labels), f"{p.least:.0%}")
        out.print(table)


@dataclass
class Lint:
    """Check a .jsonl file of cases: pairs, labels, choices, spans, lengths. Exit code 1 where something is wrong."""

    data: Annotated[Path, tyro.conf.Positional]
    """The file."""
    protocol: str = ""
    """Also check the labels that this protocol needs."""

    def run(self) -> None:
        from diascope.audits import CaseSet, protocol

        labels = protocol(self.protocol).labels if self.protocol else ()
        cases = CaseSet.load(self.data)
        said = cases.lint(labels)
        for sentence in said:
            out.print(sentence, markup=False, highlight=False)
        if said:
            raise SystemExit(1)
        out.print(f"{len(cases)} cases in {len({c.group for c in cases.cases})} groups: nothing is wrong", markup=False)


@dataclass
class AuditCommand:
    """Audit a chat model: does it show a behaviour, can it be read, does a direction move it, and beside which controls."""

    what: Annotated[
        Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Ls, tyro.conf.subcommand("ls")]
        | Annotated[Lint, tyro.conf.subcommand("lint")]
        | Annotated[MakeMonitor, tyro.conf.subcommand("monitor")]
        | Annotated[ReadTranscript, tyro.conf.subcommand("transcript")]
        | Annotated[AuditCompare, tyro.conf.subcommand("compare")]
        | Annotated[Report, tyro.conf.subcommand("report")],
        tyro.conf.arg(name=""),
    ] = field(default_factory=Ls)

    def run(self) -> None:
        self.what.run()


def audit_table(audit: Audit) -> Group:
    """One line a protocol, and one a finding."""
    table = Table(box=None, pad_edge=False, title=Text(str(audit.facts["model"])), title_justify="left", title_style="bold")
    for head in ("protocol", "verdict", "", ""):
        table.add_column(head, no_wrap=True)
    why = []
    for r in audit.results:
        table.add_row(r.protocol, Text(r.verdict, style="bold"), "shown", _rate(r))
        why.append(f"{r.protocol}: {r.why}")
        for f in r.findings:
            table.add_row(f"  {f.name}", f.verdict, *_number(f), style="dim")
    limits = [*audit.facts["limits"], *(f"{r.protocol}: {line}" for r in audit.results for line in r.limits)]
    return Group(table, Text("\n".join(["", *why])), Text("\n".join(["not tested:", *limits]), style="dim"))


def _rate(r: Result) -> str:
    rate = r.numbers["prevalence"]["rate"]
    return f"{rate['value']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}] of {rate['n']}"


def _number(f: Finding) -> tuple[str, str]:
    """What stands for a finding in the table: its name and its value with the interval."""
    if "auroc" in f.numbers:
        a = f.numbers["auroc"]
        return "AUROC", f"{a['value']:.2f} [{a['low']:.2f}, {a['high']:.2f}] of {a['n']}"
    if "trials" in f.numbers:
        some = [f"{t['effect']['value']:+.2f} (p {t['p']:.3f})" for t in f.numbers["trials"].values()]
        return "effect", ", ".join(some)
    return "", ""
