"""The verb `audit`: run protocols on a chat model, list them, check a file of cases; two models, monitors, transcripts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from diascope.cli.audit_compare import AuditCompare
from diascope.cli.audit_table import audit_table
from diascope.cli.audit_transcript import MakeMonitor, ReadTranscript
from diascope.cli.terminal import ends, out
from diascope.progress import Bars

if TYPE_CHECKING:
    from diascope.audits import Audit, AuditConfig, CaseSet
    from diascope.audits.protocols import Kind
    from diascope.audits.studies import Needs


@dataclass
class Run:
    """Audit a model by one or more protocols or studies; writes audit.json and report.html."""

    protocols: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names as `diascope audit ls` lists them, or all (of the protocols)."""
    model: Annotated[str, tyro.conf.arg(aliases=["-m"])] = "smollm2-135m-instruct"
    """Chat model (a base model for hallucination alone): package alias, hub id, folder or .gguf file."""
    out: Path = Path("audit")
    """Folder to write; an audit.json and a report.html in it are replaced."""
    dictionary: Annotated[str, tyro.conf.arg(aliases=["-d"])] = ""
    """Dictionary of that model: folder of any readable format, or another name of it; without one the dense half runs."""
    sites: tuple[str, ...] = ()
    """Where the dictionary reads and writes, for formats that do not say: one site, or IN:OUT."""
    base: str = ""
    """The model that it was made from: secret and diff compare with it. An adapter and an organism say it themselves."""
    cases: Path | None = None
    """A .jsonl file of cases in place of the protocol's own; then give one protocol."""
    latent: int | None = None
    """steer: the latent of the dictionary."""
    words: tuple[str, ...] = ()
    """steer: words that the latent should make the model say; by default those that its row promotes."""
    latents: Path | None = None
    """datadiff: a folder of documents that `diascope encode` wrote."""
    labels: tuple[str, ...] = ()
    """datadiff: two labels of those documents."""
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
        from diascope.audits import PROTOCOLS, AuditConfig, CaseSet, protocol
        from diascope.audits.studies import STUDIES
        from diascope.storage.files import check_target

        names = tuple(PROTOCOLS) if self.protocols == ("all",) else self.protocols
        if not names:
            raise ValueError(f"give at least one of {', '.join([*PROTOCOLS, *STUDIES])}, or all")
        chosen, studies = [protocol(n) for n in names if n not in STUDIES], [n for n in names if n in STUDIES]
        config = AuditConfig(seed=self.seed, controls=self.controls)
        target_file = self.out / "audit.json"
        check_target(target_file)
        cases = CaseSet.load(self.cases) if self.cases else None
        if cases and len(names) > 1:
            raise ValueError(f"one set of cases is for one protocol, got {len(names)}")
        with Bars(out) as bars:
            given = self._given(bars, cases)
            audit = self._carry_out(chosen, studies, given, config, bars)
        audit.save(target_file)
        out.print(audit_table(audit))
        page = write_report(target_file)
        out.print(f"written: {target_file}, {page}", style="dim", markup=False)

    def _given(self, bars: Bars, cases: CaseSet | None) -> Needs:
        """Model, base and dictionary, loaded."""
        from diascope.audits.studies import Needs
        from diascope.dictionaries import load_dictionary
        from diascope.models import load_model
        from diascope.models.load import base_name

        say = bars.stage("model", "")
        opened = {"dtype": self.dtype, "device": self.device, "progress": lambda line: say(0, 0, line)}
        model = load_model(self.model, **opened)
        made_from = self.base or base_name(self.model)
        base = load_model(made_from, **opened) if made_from else None
        say(1, 1, model.name)
        d = load_dictionary(self.dictionary, sites=ends(self.sites)) if self.dictionary else None
        return Needs(model, d, base, self.latent, self.words, self.latents, self.labels, cases, self.batch)

    def _carry_out(self, chosen: list[Kind], studies: list[str], given: Needs, config: AuditConfig, bars: Bars) -> Audit:
        """Behaviours first, then studies; one record of both."""
        from diascope.audits import Audit, Target, run_audit
        from diascope.audits.plain import PlainTarget
        from diascope.audits.studies import lacks, run_studies

        for name in studies:
            lacks(name, given)
        made = []
        if chosen:
            kind = PlainTarget if all(getattr(p, "plain", False) for p in chosen) else Target
            target = kind(given.model, batch=self.batch, reference=given.base)
            say = bars.stage("audit", "protocols")
            made.append(run_audit(target, chosen, given.dictionary, config, cases=given.cases, progress=say))
        if studies:
            made.append(run_studies(studies, given, config, progress=bars.stage("studies", "studies")))
        facts = {k: v for a in reversed(made) for k, v in a.facts.items()}
        return Audit(facts, tuple(r for a in made for r in a.results))


def write_report(audit: Path) -> Path:
    """report.html beside an audit.json."""
    from diascope.audits.report import report_html
    from diascope.storage.files import commit_file, read_json

    page = audit.with_name("report.html")
    with commit_file(page) as work:
        work.write_text(report_html(read_json(audit)), encoding="utf-8")
    return page


@dataclass
class Diff:
    """Compare a chat model with the one that it was made from: `audit run diff`, with less to say."""

    model: Annotated[str, tyro.conf.Positional]
    """The fine-tune: folder (an adapter's too), hub id, package alias or .gguf file."""
    base: Annotated[str, tyro.conf.Positional] = ""
    """The model that it was made from; an adapter and an organism say it themselves."""
    out: Path = Path("audit")
    """Folder to write; an audit.json and a report.html in it are replaced."""
    dictionary: Annotated[str, tyro.conf.arg(aliases=["-d"])] = ""
    """Dictionary of the base model; without one the models' outputs are compared alone."""
    sites: tuple[str, ...] = ()
    """Where the dictionary reads and writes, for formats that do not say: one site, or IN:OUT."""
    cases: Path | None = None
    """A .jsonl file of cases: prompts in place of the packaged ones."""
    seed: int = 0
    """Seed of prompts, splits, permutations and controls."""
    controls: int = 201
    """Sets of other latents that are put back; at least 199."""
    dtype: str = "auto"
    """Precision of the weights: float32, bfloat16, or auto."""
    device: str = "cpu"
    """cpu, cuda, or auto."""

    def run(self) -> None:
        Run(("diff",), **{f.name: getattr(self, f.name) for f in fields(self)}).run()


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
    """List the protocols, with what each asks and its sides, and the studies, with what each needs."""

    def run(self) -> None:
        from diascope.audits import PROTOCOLS
        from diascope.audits.studies import NEEDS, STUDIES

        table = Table(box=None, pad_edge=False)
        for head in ("protocol", "asks", "sides", "least"):
            table.add_column(head)
        for name, p in PROTOCOLS.items():
            table.add_row(name, p.asks, " / ".join(p.labels), f"{p.least:.0%}")
        out.print(table)
        more = Table(box=None, pad_edge=False)
        for head in ("study", "asks", "needs"):
            more.add_column(head)
        for name, study in STUDIES.items():
            more.add_row(name, study.asks, NEEDS[name])
        out.print(more)


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
    """Audit a model: does it show a behaviour, can it be read, does a direction move it, and beside which controls."""

    what: Annotated[
        Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Ls, tyro.conf.subcommand("ls")]
        | Annotated[Lint, tyro.conf.subcommand("lint")]
        | Annotated[MakeMonitor, tyro.conf.subcommand("monitor")]
        | Annotated[ReadTranscript, tyro.conf.subcommand("transcript")]
        | Annotated[Diff, tyro.conf.subcommand("diff")]
        | Annotated[AuditCompare, tyro.conf.subcommand("compare")]
        | Annotated[Report, tyro.conf.subcommand("report")],
        tyro.conf.arg(name=""),
    ] = field(default_factory=Ls)

    def run(self) -> None:
        self.what.run()
