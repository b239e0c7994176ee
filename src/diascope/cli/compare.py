"""The verb `compare`: two dictionaries on the same tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Group
from rich.table import Table
from rich.text import Text

from diascope.cli.terminal import ends, out
from diascope.config import within
from diascope.progress import Bars

if TYPE_CHECKING:
    from diascope.evals.compare import Comparison

LABELS = {"fvu": "FVU", "fvu_standardised": "FVU std.", "delta_ce": "ΔCE", "kl": "KL", "l0": "L0"}
LEVEL = 0.05  # corrected p values below it are called a difference


@dataclass
class Compare:
    """Compare two dictionaries on the same tokens: differences with paired intervals, and paired tests over documents."""

    a: Annotated[str, tyro.conf.Positional]
    """Folder of any readable format, hub path, SAELens release and id, or Neuronpedia id."""
    b: Annotated[str, tyro.conf.Positional]
    """The other one; differences are a minus b."""
    sites: tuple[str, ...] = ()
    """Where both read and write, for formats that do not say: one site, or IN:OUT (several parted by commas)."""
    model: str = "gemma-3-270m"
    """The model that they were trained on."""
    text: str = "wikipedia-passages"
    """Evaluation text."""
    field: str = "text"
    """Text column of jsonl and parquet."""
    tokens: int = 16_384
    """Tokens for FVU and L0."""
    ce_tokens: int = 8_192
    """Tokens for CE and KL; the unembedding costs more than the trunk."""
    context: int = 512
    """Tokens a sequence."""
    draws: int = 10_000
    """Sign patterns of the test; where all patterns of the documents are no more than this, all are counted."""
    seed: int = 0
    """Seed of the sign patterns."""
    json: Path | None = None
    """Also write the comparison to this file."""

    def run(self) -> None:
        from diascope.dictionaries import load_dictionary
        from diascope.evals import evaluate
        from diascope.evals.compare import compare
        from diascope.models import load_model
        from diascope.storage.files import check_target, write_json
        from diascope.tokens import open_corpus, pack

        within("context", self.context, 32, 2**20, "tokens a sequence")
        within("tokens", self.tokens, self.context, 2**60, "tokens, at least one sequence")
        within("ce-tokens", self.ce_tokens, self.context, 2**60, "tokens, at least one sequence")
        within("draws", self.draws, 1, 10**7, "sign patterns")
        if self.a == self.b:
            raise ValueError(f"both are {self.a}: give two dictionaries")
        if self.json:
            if self.json.is_dir():
                raise ValueError(f"cannot write {self.json}: it is a folder")
            check_target(self.json)
        dictionaries = {p: load_dictionary(p, sites=ends(self.sites)) for p in (self.a, self.b)}
        with Bars(out) as bars:
            say = bars.stage("model", "")
            model = load_model(self.model, progress=lambda line: say(0, 0, line))
            say(1, 1, model.name)
            documents = open_corpus(self.text, field=self.field).documents
            sequences = pack(model, documents, context=self.context, max_tokens=self.tokens)
            found = evaluate(
                model,
                dictionaries,
                sequences,
                ce_tokens=self.ce_tokens,
                text=self.text,
                progress=bars.stage("evaluate", "maps"),
            )
        comparison = compare(found[self.a], found[self.b], draws=self.draws, seed=self.seed)
        if self.json:
            write_json(self.json, comparison.data())
        out.print()
        out.print(comparison_table(comparison))


def comparison_table(c: Comparison) -> Group:
    """One line a metric: a, b, their difference with its interval, and the corrected p values."""
    table = Table(title=Text("a - b"), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for head in ("a", "b", "a - b", "95 %", "p", "Wilcoxon"):
        table.add_column(head, justify="right", no_wrap=True)
    for metric, p in c.metrics.items():
        interval = f"{_value(p.difference.low, sign=True)} .. {_value(p.difference.high, sign=True)}"
        values = (_value(p.a.value), _value(p.b.value), _value(p.difference.value, sign=True), interval)
        style = "bold" if p.p < LEVEL else ""
        table.add_row(LABELS[metric], *values, _p(p.p), _p(p.p_wilcoxon), style=style)
    lines = [f"a: {c.a}", f"b: {c.b}", *(verdict(c) or ["no metric differs beyond chance"])]
    lines += [f"not compared: {LABELS[m]}, {why}" for m, why in c.left_out.items()] + list(c.notes)
    f = c.facts
    exact = all(p.exact for p in c.metrics.values())
    how = "all sign patterns" if exact else f"{f['draws']:,} sign patterns"
    lines.append(
        f"{f['tokens']:,} tokens of {f['documents']} documents of {f['text'] or 'the given text'}; losses on {f['predictions']:,} predictions. "
        f"Intervals: documents resampled in pairs. p: {how} over documents, by Holm over {len(c.metrics)} metrics"
    )
    return Group(table, Text("\n".join(lines), style="dim"))


def verdict(c: Comparison) -> list[str]:
    """Which metrics differ beyond chance, in words."""
    return [
        f"a has the {'lower' if p.difference.value < 0 else 'higher'} {LABELS[metric]}: {p.difference}, p = {_p(p.p)}"
        for metric, p in c.metrics.items()
        if p.p < LEVEL
    ]


def _value(value: float, *, sign: bool = False) -> str:
    if value != value:
        return "–"
    return f"{value:{'+' if sign else ''}.{2 if abs(value) >= 10 else 4}f}"


def _p(p: float) -> str:
    if p != p:
        return "–"
    return f"{p:.1e}" if p < 0.001 else f"{p:.3f}"
