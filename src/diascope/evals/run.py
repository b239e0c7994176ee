"""Evaluate dictionaries on held-out text beside their controls.

| metric | definition |
|---|---|
| l0 | mean active latents a counted token |
| fvu | sum |y - y_hat|^2 / sum |y - mu|^2, mu the global mean of the evaluation rows |
| fvu_no_outliers | the same without tokens whose |y| exceeds 3 medians |
| fvu_standardised | the same with every dimension divided by its own standard deviation; constant ones left out |
| delta_ce | mean CE with y_hat in place of y, minus mean CE of the clean model, in nats a predicted token |
| recovered | (CE_mean - CE_spliced) / (CE_mean - CE_clean): the ablation is the mean vector |
| kl, top1 | mean KL(clean || spliced) in nats; share of predictions whose most likely token is unchanged |
| minus ridge | a transcoder's fvu and delta_ce minus those of the ridge map on the same tokens: what latents add to it |
| dead, dense | share of latents that never fired in the counted tokens; that fired on more than 10 % |

Over several sites fvu is the mean of the sites' own (each site's errors are divided by its variance), and rows
"dictionary at SITE" follow; how losses are taken there: evals/replace.py. By position, text and role: evals/breakdown.py.
Special tokens are neither rows nor replaced. Intervals are 95 % intervals over documents: bootstrap, and the jackknife
for shares of latents. The text is looked at piece by piece (evals/stream.py), the clean model's part of it once (evals/clean.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from diascope.config import config_hash, to_data
from diascope.dictionaries import Dictionary
from diascope.evals.breakdown import breakdown
from diascope.evals.clean import CleanText
from diascope.evals.controls import controls, depends_on
from diascope.evals.paired import Series, difference
from diascope.evals.replace import Map, check_fits, spliced
from diascope.evals.stream import Judged, Pass
from diascope.evals.sums import Tally, ratio
from diascope.evals.trained import Beside, Control
from diascope.models import Model
from diascope.numerics import Estimate, shares_over_documents
from diascope.storage.files import finite
from diascope.tokens import Sequences

Metrics = dict[str, Estimate | float]


@dataclass(frozen=True)
class Evaluation:
    """The result for one dictionary: `metrics[row][metric]`, with row "dictionary", "clean" or a control's name."""

    name: str
    metrics: dict[str, Metrics]
    facts: dict[str, Any]
    series: dict[str, Series] = field(default_factory=dict)  # by row, for `difference`; not in the card
    details: dict[str, Any] = field(default_factory=dict)  # what only some kinds have: a two-model crosscoder's latent scaling

    def card(self) -> dict[str, Any]:
        """JSON-ready: every number with its n and interval."""
        rows = {
            row: {m: asdict(v) if isinstance(v, Estimate) else v for m, v in values.items()}
            for row, values in self.metrics.items()
        }
        return {"schema": "diascope-card-1", "metrics": finite(rows), "facts": self.facts, **finite(self.details)}


def evaluate(
    model: Model,
    dictionaries: Mapping[str, Dictionary],
    sequences: Sequences,
    *,
    training_rows: Callable[[Dictionary], tuple[Tensor, Tensor]] | None = None,
    beside: Mapping[str, Mapping[str, Control]] = {},
    ce_tokens: int = 8192,
    text: str = "",
    domains: Mapping[str, str] = {},
    keep: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Evaluate `dictionaries` on packed `sequences` of held-out text.

    training_rows   gives (x, y) of training rows for a dictionary, on which its controls are fitted; None: no controls
    beside          further controls, which take training: `trained_controls(model, dictionaries, text)`
    text            name of the text, for the card
    domains         the text that each document is from, by its name: errors and losses are then also given by domain
    ce_tokens       tokens on which losses are computed (the first sequences); the unembedding costs more than the trunk
    keep            keep what the clean model does on this text in the cache, and take it from there (evals/clean.py)

    Returns one Evaluation a dictionary. Raises ValueError when a dictionary does not fit the model.
    """
    if not dictionaries:
        return {}
    for name, d in dictionaries.items():
        check_fits(model, name, d)
    clean = CleanText(model, sequences, _sequences(sequences, ce_tokens), keep=keep)
    rows = _rows(dictionaries, training_rows, beside, seed)
    judged = list(dict.fromkeys(j for labels in rows.values() for j in labels.values()))
    work = Pass(clean, judged)
    work.run(progress)
    random = _in_random_models(dictionaries, beside, sequences, keep, progress)
    out = {}
    for name, d in dictionaries.items():
        metrics, series = _metrics(work, rows[name])
        if name in random:
            metrics["random_model"] = random[name]
        facts = {"text": text} | _facts(model, d, work, seed)
        if more := beside.get(name):
            facts["trained_controls"] = to_data(next(iter(more.values())).budget)
        own = rows[name]["dictionary"]
        details: dict[str, Any] = {"by": breakdown(own.tally, work.targets[d.config.writes], clean.cells, domains)}
        if own.scaling:
            details["latent_scaling"] = own.scaling.result().card()
        out[name] = Evaluation(name, metrics, facts, series, details)
    return out


# -- what is judged
def _rows(
    dictionaries: Mapping[str, Dictionary],
    training_rows: Callable[[Dictionary], tuple[Tensor, Tensor]] | None,
    beside: Beside,
    seed: int,
) -> dict[str, dict[str, Judged]]:
    """{dictionary: {row of its card: what is judged}}; controls that stand beside several dictionaries are judged once."""
    fitted: dict[Any, dict[str, Judged]] = {}
    trained: dict[int, Judged] = {}
    out = {}
    for name, d in dictionaries.items():
        several = len(d.config.writes) > 1
        out[name] = {"dictionary": _as_map(d, apart=several)} | _own_parts(d)
        if training_rows:
            x, y = training_rows(d)
            if (key := depends_on(d, x)) not in fitted:
                maps = controls(d, x, y, seed=seed)
                fitted[key] = {c: Judged(m, d, apart=several and c == "mean") for c, m in maps.items()}
            out[name] |= fitted[key]
        for label, c in beside.get(name, {}).items():
            if c.model is None:
                out[name][label] = trained.setdefault(id(c.dictionary), _as_map(c.dictionary))
    return out


def _as_map(d: Dictionary, *, apart: bool = False) -> Judged:
    return Judged(Map(lambda x, y: d(x), spliced(d)), d, d, apart)


def _own_parts(d: Dictionary) -> dict[str, Judged]:
    """The affine part of a skip-transcoder by itself: what the sparse part has to improve on."""
    if not d.config.skip:
        return {}
    each = None
    if len(d.skips) > 1:
        each = tuple((lambda x, y, A=A, b=d.b_dec[w.skips]: x @ A + b) for A, w in zip(d.skips, d.blocks, strict=True))
    return {"affine_part": Judged(Map(lambda x, y: d.affine(x) + d.b_dec, each), d)}


def _in_random_models(
    dictionaries: Mapping[str, Dictionary],
    beside: Beside,
    sequences: Sequences,
    keep: bool,
    progress: Callable[[int, int, str], None],
) -> dict[str, Metrics]:
    """Errors and sparsity of each control that reads another model, in that model, by the judged dictionary's name."""
    others = {n: c for n in dictionaries for c in beside.get(n, {}).values() if c.model is not None}
    found: dict[int, Metrics] = {}
    for model in {id(c.model): c.model for c in others.values() if c.model}.values():
        judged = {id(c.dictionary): _as_map(c.dictionary) for c in others.values() if c.model is model}
        work = Pass(CleanText(model, sequences, 0, keep=keep), list(judged.values()))
        work.run(lambda done, total, note: progress(done, total, f"random model: {note}"))
        for key, j in judged.items():
            found[key] = _fidelity(work, j.tally, work.targets[j.ends[1]]) | _sparsity(work, j)
    return {name: found[id(c.dictionary)] for name, c in others.items()}


# -- numbers from sums
def _metrics(work: Pass, rows: Mapping[str, Judged]) -> tuple[dict[str, Metrics], dict[str, Series]]:
    """A card's metrics and series by row."""
    own = rows["dictionary"]
    ablated = rows["mean"].tally if "mean" in rows and "ce" in rows["mean"].tally else None
    metrics: dict[str, Metrics] = {"clean": {"ce": _clean(work, own.tally)}}
    series: dict[str, Series] = {}
    for label, j in rows.items():
        targets = work.targets[j.ends[1]]
        metrics[label] = _fidelity(work, j.tally, targets) | _losses(work, j.tally, ablated) | _sparsity(work, j)
        series[label] = _series(work, j.tally, targets)
    for i, (site, tally) in enumerate(zip(own.ends[1], own.by_site, strict=False)):
        mean = rows["mean"].by_site[i] if "mean" in rows and rows["mean"].by_site else None
        metrics[f"dictionary at {site}"] = _fidelity(work, tally, tally) | _losses(work, tally, mean)
    if "ridge" in series:  # what latents add to the best affine map, on the same tokens
        metrics["minus ridge"] = dict(difference(series["dictionary"], series["ridge"]))
    return metrics, series


def _clean(work: Pass, own: Tally) -> Estimate:
    """CE without any edit; over two models the mean of both, as the dictionary's own is."""
    tally = own if "ce" in own else work.clean
    there = tally["predictions"] > 0
    ce = (tally["ce"] - tally["delta"])[there]
    n = tally["predictions"][there]
    return ratio(ce, n, work.text.cells.document[there], n)


def _fidelity(work: Pass, tally: Tally, targets: Tally) -> Metrics:
    docs, rows, usual = work.text.cells.document, targets["rows"], targets["rows_usual"] > 0
    return {
        "fvu": ratio(tally["error"], targets["variance"], docs, rows),
        "fvu_no_outliers": ratio(
            tally["error_usual"][usual], targets["variance_usual"][usual], docs[usual], targets["rows_usual"][usual]
        ),
        "fvu_standardised": ratio(tally["error_standardised"], targets["variance_standardised"], docs, rows),
    }


def _losses(work: Pass, tally: Tally, ablated: Tally | None) -> Metrics:
    """Nothing where the map was not put into the model."""
    if "ce" not in tally:
        return {}
    there = tally["predictions"] > 0
    docs, n = work.text.cells.document[there], tally["predictions"][there]
    names = {"ce": "ce", "delta_ce": "delta", "kl": "kl", "top1": "same"}
    out: Metrics = {metric: ratio(tally[name][there], n, docs, n) for metric, name in names.items()}
    if ablated is not None and "ce" in ablated:
        out["recovered"] = ratio((ablated["delta"] - tally["delta"])[there], ablated["delta"][there], docs, n)
    return out


def _sparsity(work: Pass, j: Judged) -> Metrics:
    """L0, dead and dense of what is a dictionary."""
    if j.fired is None:
        return {}
    cells, rows = work.text.cells, work.targets[j.ends[1]]["rows"]
    counts, documents = j.fired.numpy(), len(set(cells.rank.tolist()))
    each = np.bincount(work.groups.numpy(), rows, len(counts)).astype(np.int64)
    return {
        "l0": ratio(j.tally["l0"], rows, cells.document, rows),
        "dead": shares_over_documents(counts, each, lambda c, n: c == 0, documents),
        "dense": shares_over_documents(counts, each, lambda c, n: c > 0.1 * n, documents),
    }


def _series(work: Pass, tally: Tally, targets: Tally) -> Series:
    docs = work.text.cells.document
    losses: dict[str, Any] = {}
    if "ce" in tally:
        there = tally["predictions"] > 0
        losses = {"delta_ce": tally["delta"][there], "kl": tally["kl"][there], "predictions": tally["predictions"][there]}
        losses["documents_of_predictions"] = docs[there]
    return Series(
        tally["error"], targets["variance"], tally["error_standardised"], targets["variance_standardised"], docs, **losses,
        l0=tally["l0"] if "l0" in tally else None, rows=targets["rows"],
    )  # fmt: skip


def _facts(model: Model, d: Dictionary, work: Pass, seed: int) -> dict[str, Any]:
    sequences, cells, clean = work.text.sequences, work.text.cells, work.clean
    predicts = clean["predictions"] > 0 if "predictions" in clean else np.zeros(len(cells), bool)
    return {
        "model": model.name,
        "model_dtype": str(model.dtype).removeprefix("torch."),
        "kind": d.config.kind,
        "sites_in": list(d.config.sites_in),
        "sites_out": list(d.config.sites_out),
        "context": sequences.tokens.shape[1],
        "tokens": int(work.text.counted.sum()),
        "predictions": int(clean["predictions"].sum()) if predicts.any() else 0,
        "documents": len(set(cells.rank.tolist())),
        "documents_of_predictions": len(set(cells.rank[predicts].tolist())),
        "excluded": "special tokens (BOS, padding) and a chat template's prefix, neither counted nor replaced",
        "ablation": "mean vector of the training rows",
        "data": config_hash(sequences.tokens.tolist()),
        "seed": seed,
        "interval": "95 %, percentile bootstrap over documents, 1000 draws; shares of latents: jackknife over documents",
    }


def _sequences(sequences: Sequences, tokens: int) -> int:
    """How many sequences hold at most `tokens` tokens, one at least."""
    return max(1, min(len(sequences), tokens // sequences.tokens.shape[1]))
