"""Evaluation results as terminal tables."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

COLUMNS = (
    ("l0", "L0"),
    ("fvu", "FVU"),
    ("fvu_standardised", "FVU std."),
    ("delta_ce", "ΔCE"),
    ("recovered", "recov."),
    ("dead", "dead"),
    ("dense", "dense"),
)
ROWS = (
    "dictionary", "affine_part", "ridge", "minus ridge", "token_pca", "retrained", "pca", "frozen_decoder", "random", "random_model",
    "mean",
)  # fmt: skip
PAIRED = ("dictionary", "minus ridge")  # rows whose intervals are shown
CHAT_ORDER = ("unchanged", "thresholds", "scratch", "tuned")  # what a fine-tuning has to beat, then itself
NAMES = {
    "dictionary": "dictionary",
    "affine_part": "its affine part",
    "token_pca": "per-token PCA",
    "pca": "fixed PCA",
    "frozen_decoder": "frozen decoder",
    "random_model": "random model",
}


def evaluation_table(name: str, card: Mapping[str, Any]) -> Group:
    """One dictionary beside its controls; the interval's half width stands under the dictionary's own numbers."""
    metrics, facts = card["metrics"], card["facts"]
    table = Table(title=Text(name), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for _, label in COLUMNS:
        table.add_column(label, justify="right", no_wrap=True)
    for row in (r for r in ROWS if r in metrics):
        table.add_row(
            NAMES.get(row, row),
            *(_value(metrics[row].get(key)) for key, _ in COLUMNS),
            style="bold" if row == "dictionary" else "",
        )
        if row in PAIRED:
            table.add_row("  95 % ±", *(_interval(metrics[row].get(key)) for key, _ in COLUMNS), style="dim")
    note = (
        f"{facts['tokens']:,} tokens of {facts['documents']} documents of {facts.get('text') or 'the given text'}; losses on {facts['predictions']:,} predictions, "
        f"clean CE {_value(metrics['clean']['ce'])}. FVU std.: every dimension divided by its deviation. ΔCE in nats a token; recovered against the mean vector; {facts['excluded']}."
    )
    return Group(table, Text(note, style="dim"))


def suite_table(card: Mapping[str, Any]) -> Table:
    """A card's suite: each family's numbers, half the width of their 95 % interval, and the same number of its controls."""
    table = Table(title=Text("suite"), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column, justify in (("", "left"), ("", "left"), ("value", "right"), ("95 % ±", "right"), ("beside it", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for family, entry in card["suite"].items():
        for i, (name, value) in enumerate(entry["result"].items()):
            beside = ", ".join(f"{c} {_value(r[name])}" for c, r in entry["controls"].items() if r.get(name) is not None)
            dense = entry["controls"].get("dense", {}).get("auroc all dimensions")
            beside = (
                f"dense {_value(dense)}, {beside}" if dense and name.startswith("auroc k") and " " not in name[6:] else beside
            )
            table.add_row("" if i else family, name, _value(value), _interval(value), Text(beside, style="dim"))
        if reason := entry["run"].get("reason"):
            table.add_row("" if entry["result"] else family, "nothing is said", "", "", Text(reason, style="dim"))
    return table


def catalogue_table(cards: Mapping[str, Mapping[str, Any]]) -> Table:
    """Many dictionaries, one line each; the width and L0 class that most of them share stand once, above."""
    columns = [c for c in COLUMNS if c[0] in ("l0", "fvu", "fvu_standardised", "delta_ce", "dead")]
    classes = Counter(m[0] for name in cards if (m := re.search(r"_width_[^_]+_l0_[^_]+", name)))
    common = classes.most_common(1)[0][0] if classes else ""
    table = Table(
        box=None, pad_edge=False, title=Text(f"..{common}" if common else ""), title_justify="left", title_style="dim"
    )
    table.add_column("", no_wrap=True)
    for _, label in columns:
        table.add_column(label, justify="right", no_wrap=True)
    for name, card in cards.items():
        own = card["metrics"]["dictionary"]
        short = name.replace("--", "/").replace(common, "", 1)
        table.add_row(Text(short), *(_value(own.get(key)) for key, _ in columns))
    return table


def chat_table(name: str, report: Mapping[str, Any]) -> Group:
    """A fine-tuning on conversations (recipes/chat.py): who is better, by how much, and what moved."""
    columns = [c for c in COLUMNS if c[0] in ("l0", "fvu", "fvu_standardised", "delta_ce", "dead")]
    table = Table(title=Text(name), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for _, label in columns:
        table.add_column(label, justify="right", no_wrap=True)
    judged = sorted(report["evaluations"], key=CHAT_ORDER.index)
    for row in judged:
        own = report["evaluations"][row]["metrics"]["dictionary"]
        table.add_row(row, *(_value(own.get(key)) for key, _ in columns), style="bold" if row == "tuned" else "")
        table.add_row("  95 % ±", *(_interval(own.get(key)) for key, _ in columns), style="dim")
    for row in (r for r in judged if r in report["tuned_minus"]):
        pair = report["tuned_minus"][row]
        table.add_row(f"tuned - {row}", *(_value(pair.get(key)) for key, _ in columns))
        table.add_row("  95 % ±", *(_interval(pair.get(key)) for key, _ in columns), style="dim")
    m, facts = report["moved"], report["evaluations"]["tuned"]["facts"]
    cosine, frequency = m["decoder_cosine"], m["frequency"]
    lines = [
        f"{facts['tokens']:,} tokens of {facts['documents']} held-out conversations; losses on {facts['predictions']:,} predictions",
        f"decoder cosines: median {cosine['0.5']:.3f}, 5 % below {cosine['0.05']:.3f}; {m['decoder_cosine_below']['0.9']:.1%} of latents below 0.9",
        f"latents that fire: {frequency['alive_before']:,} before, {frequency['alive_after']:,} after ({frequency['woke']:,} woke, "
        f"{frequency['fell_silent']:,} fell silent); {frequency['twice_as_often_or_half']:.1%} fire twice as often or half",
        "FVU after - before: "
        + ", ".join(
            f"{role} {_value(v['after_minus_before'])} ± {_interval(v['after_minus_before'])}" for role, v in m["fvu"].items()
        ),
    ]
    return Group(table, Text("\n".join(lines), style="dim"))


def _value(metric: Any) -> str:
    if metric is None:
        return ""
    value = metric["value"] if isinstance(metric, dict) else metric
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _interval(metric: Any) -> str:
    """Half the width of the 95 % interval; the card has both ends."""
    if not isinstance(metric, dict) or metric["low"] is None:
        return ""
    half = (metric["high"] - metric["low"]) / 2
    return f"{half:.1f}" if half >= 1 else f"{half:.3f}"


def timings_line(timings: Mapping[str, Any]) -> str:
    """Stages with their rates, and the peak memory."""
    stages = [
        f"{name} {t['seconds']:,.0f} s ({t['amount'] / max(t['seconds'], 0.1):,.0f} {t['unit']}/s)"
        for name, t in timings.items()
    ]
    return " · ".join(stages) + f" · peak memory {max(t['peak_gb'] for t in timings.values()):.1f} GB"


def mixing_line(mixing: Mapping[str, Any]) -> str:
    """What a mixing certificate says, beside an exact shuffle."""
    return (
        f"mixing: a batch of {mixing['batch']:,} rows holds {mixing['documents']:.0f} documents (exact shuffle "
        f"{mixing['documents_exact']:.0f}); beside a row stand {mixing['companions']:.2f} of its own document "
        f"({mixing['companions_expected']:.2f})"
    )


def plan_table(plan: Any) -> Group:
    """What `diascope plan` prints."""
    t = Table(
        "stage", "work", "time", "operations", "read", "written", title=f"{plan.recipe} on {plan.model}, {plan.machine.name}"
    )
    for column in t.columns[1:]:
        column.justify = "right"
    for s in plan.stages:
        work = f"{s.amount:,.0f} {s.unit}"
        t.add_row(s.name, work, _hours(s.seconds), f"{s.flops:.2g}" if s.flops else "", _size(s.read), _size(s.written))
    t.add_section()
    t.add_row("together", "", _hours(plan.seconds), "", _size(sum(s.read for s in plan.stages)), _size(plan.disk))
    verdict, recompute, month = plan.keep
    lines = [
        f"parameters {plan.parameters:,.0f}; memory on one device {_size(plan.memory)} of {_size(plan.machine.memory)}, the largest "
        f"dictionary {_size(plan.largest)} in training; disk {_size(plan.disk) or 'none'}",
        f"mixing: beside a row of a batch stand {plan.companions:.2f} of its own document",
    ]
    if plan.machine.price:
        lines.append(
            f"cost {plan.cost:,.2f} at {plan.machine.price:g} an hour; reading rows again would cost {recompute:,.2f} by the model, a "
            f"month of keeping them {month:,.2f}: {verdict}"
        )
    return Group(t, *(Text(line, style="dim") for line in lines))


def release_table(lines: Sequence[Any], tokens: float) -> Group:
    """The release, model by model."""
    total = {
        n: sum(getattr(x, n) for x in lines)
        for n in ("elements", "dictionaries", "parameters", "harvest_hours", "dense_hours", "sparse_hours")
    }

    def table(title: str, columns: Mapping[str, Callable[[Any], str]], last: Sequence[str]) -> Table:
        t = Table("", *columns, title=title)
        for column in t.columns[1:]:
            column.justify = "right"
        for x in lines:
            t.add_row(x.model.removeprefix("gemma-3-"), *(show(x) for show in columns.values()))
        t.add_section()
        t.add_row("all", *last)
        return t

    def hours(value: float) -> str:
        return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"

    models = table(
        "A token of Gemma 3, and an H100 at 40 %",
        {
            "d": lambda x: str(x.d_model), "layers": lambda x: str(x.layers), "attn_out": lambda x: str(x.attn_out),
            "GFLOP": lambda x: f"{x.gflop:.3g}", "elements": lambda x: f"{x.elements:,}",
            "tokens/s": lambda x: f"{x.tokens_per_second:,.0f}", "GB/s": lambda x: f"{x.gigabytes_per_second:.0f}",
        },
        ("", "", "", "", f"{total['elements']:,}", "", ""),
    )  # fmt: skip
    catalogue = table(
        f"its dictionaries, {tokens / 1e9:,.3g} billion tokens each: hours",
        {
            "dictionaries": lambda x: f"{x.dictionaries:,}", "parameters": lambda x: f"{x.parameters / 1e9:,.0f} G",
            "harvest": lambda x: hours(x.harvest_hours), "dense training": lambda x: hours(x.dense_hours),
            "encoder alone": lambda x: hours(x.sparse_hours),
        },
        (f"{total['dictionaries']:,}", f"{total['parameters'] / 1e9:,.0f} G", *(hours(total[f"{n}_hours"]) for n in ("harvest", "dense", "sparse"))),
    )  # fmt: skip
    note = f"{4 * total['elements'] / 1e6:.1f} MB a token in float32 over the five models: 110 PB are {110e6 / (4 * total['elements']):.0f} billion tokens"
    return Group(models, catalogue, Text(note, style="dim"))


def _hours(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _size(amount: float) -> str:
    if not amount:
        return ""
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if amount >= size:
            return f"{amount / size:.3g} {unit}"
    return f"{amount / 1e3:.3g} kB"


def inspection_table(facts: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], formats: Mapping[str, str]) -> Group:
    """What `diascope inspect` prints: facts, tensors, and what every format would keep."""
    about = Table(box=None, pad_edge=False, show_header=False)
    about.add_column(style="bold", no_wrap=True)
    about.add_column(overflow="fold")
    for name, value in facts.items():
        about.add_row(name, Text(value))
    listed = list(shapes.items())
    shown = listed if len(listed) <= 12 else [*listed[:6], ("...", ()), *listed[-5:]]
    about.add_row("tensors", Text("\n".join(f"{name} {list(shape)}" if shape else name for name, shape in shown)))
    targets = Table(
        box=None, pad_edge=False, title="can be written as", title_justify="left", title_style="bold", show_header=False
    )
    targets.add_column(no_wrap=True)
    targets.add_column(overflow="fold")
    for name, verdict in formats.items():
        targets.add_row(name, Text(verdict), style="dim" if verdict.startswith("no:") else "")
    return Group(about, Text(), targets)


def contrast_tables(found: Any, a: str, b: str, spelled: Mapping[int, str], top: int) -> list[Any]:
    """The latents that tell two groups apart, and the words that do, the strongest first (latents.contrast)."""
    tables = []
    for title, ranked in (("latents", found.latents), ("words", found.words)):
        table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("latent" if ranked is found.latents else "word", justify="right", no_wrap=True)
        for label in ("AUROC", f"in {a}", f"in {b}", "q"):
            table.add_column(Text(label[:24]), justify="right", no_wrap=True)
        for i in range(min(top, len(ranked.feature))):
            name = str(ranked.feature[i])
            if ranked is found.words:
                name = repr(spelled.get(int(ranked.feature[i]), "?"))
            shown = (f"{ranked.auroc[i]:.3f}", f"{ranked.rate_a[i]:.1%}", f"{ranked.rate_b[i]:.1%}", f"{ranked.q[i]:.2g}")
            table.add_row(Text(name), *shown, style="" if ranked.q[i] < 0.05 else "dim")
        found_out = int((ranked.q < 0.05).sum())
        best = "too few documents" if math.isnan(ranked.held_out) else f"{ranked.held_out:.3f}"
        note = f"{found_out:,} of {len(ranked.feature):,} tested have q < 0.05; the best one's AUROC where it was not chosen: {best}"
        tables += [table, Text(note, style="dim"), Text()]
    note = (
        f"{found.n_a:,} documents {a}, {found.n_b:,} {b}. AUROC above 0.5: larger in {a}. Largest activation in a document, count of a "
        "word; Mann-Whitney with ties, q by Benjamini and Hochberg; in: share of documents in which it occurs."
    )
    return [*tables, Text(note, style="dim")]


def graph_tables(graph: Any, small: Any, *, most: int = 12) -> list[Any]:
    """An attribution graph (`circuits.Graph`): what it explains, its scores, and of the pruned one the nodes that carry most."""
    from diascope.circuits.nodes import Kind  # here: other tables need no torch

    about = graph.about
    head = Table(box=None, pad_edge=False)
    head.add_column("explains", no_wrap=True)
    head.add_column("weight", justify="right")
    head.add_column("logit less the mean", justify="right")
    for node, name, weight in zip(graph.targets().tolist(), about["targets"], about["probabilities"]):
        head.add_row(Text(repr(name)), f"{weight:.3f}", f"{float(graph.value[node]):.2f}")
    nodes = Table(box=None, pad_edge=False)
    for column, justify in (
        ("node", "left"),
        ("influence", "right"),
        ("activation", "right"),
        ("predicted", "right"),
        ("measured", "right"),
    ):
        nodes.add_column(column, justify=justify, no_wrap=column != "node")  # type: ignore[arg-type]
    order = small.influence.argsort(descending=True).tolist()
    latents, others = (
        [n for n in order if (int(small.kind[n]) == Kind.LATENT) == yes and int(small.kind[n]) != Kind.TARGET]
        for yes in (True, False)
    )
    for n in latents[:most] + others[: most // 3]:  # a table of latents, and where the rest comes from
        numbers = (float(c[n]) for c in (small.activation, small.predicted, small.measured))
        nodes.add_row(
            Text(f"{small.name(n)}  {small.label(n)}".rstrip()),
            f"{float(small.influence[n]):.3f}",
            *("" if math.isnan(v) else f"{v:.2f}" for v in numbers),
        )
    s = about["scores"]
    note = (
        f"{about['latents']:,} active latents, {about['expanded']:,} expanded; pruned: {len(small):,} nodes, {len(small.edge):,} edges. "
        f"Replacement {s['replacement']:.2f}, completeness {s['completeness']:.2f} (of nodes with inputs {s['completeness_restricted']:.2f}), "
        f"open {s['open']:.3f}; closes to {about['closure']:.1e}. Influence: share of the targets' that passes through; predicted and "
        "measured: change of the first target when the latent is ablated."
    )
    return [head, Text(""), nodes, Text(note, style="dim")]
