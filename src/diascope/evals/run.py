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
for shares of latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.config import config_hash
from diascope.dictionaries import Dictionary
from diascope.dictionaries.site_maps import stretches
from diascope.evals.breakdown import breakdown
from diascope.evals.controls import controls, site_scale
from diascope.evals.latent_scaling import latent_scaling, of_two_models
from diascope.evals.paired import Series, difference
from diascope.evals.replace import Map, hidden_states, spliced
from diascope.evals.text import EvalText, Losses
from diascope.models import Model
from diascope.numerics import Estimate, deviations, ratio_over_documents, shares_over_documents
from diascope.storage.files import finite
from diascope.tokens import Sequences

JACKKNIFE = 200  # groups of documents at most


@dataclass(frozen=True)
class Evaluation:
    """The result for one dictionary: `metrics[row][metric]`, with row "dictionary", "clean" or a control's name."""

    name: str
    metrics: dict[str, dict[str, Estimate | float]]
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
    ce_tokens: int = 8192,
    text: str = "",
    domains: Mapping[str, str] = {},
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Evaluate `dictionaries` on packed `sequences` of held-out text.

    training_rows   gives (x, y) of training rows for a dictionary, on which its controls are fitted; None: no controls
    text            name of the text, for the card
    domains         the text that each document is from, by its name: errors and losses are then also given by domain
    ce_tokens       tokens on which losses are computed (the first sequences); the unembedding costs more than the trunk

    Returns one Evaluation a dictionary. Raises ValueError when a dictionary does not fit the model.
    """
    if not dictionaries:
        return {}
    for name, d in dictionaries.items():
        check_fits(model, name, d)
    whole = EvalText(model, sequences)
    short = EvalText(model, _first(sequences, ce_tokens))
    sites = list(dict.fromkeys(s for d in dictionaries.values() for s in d.sites))
    maps = {
        name: {"dictionary": Map(lambda x, y, d=d: d(x), spliced(d))}
        | _own_parts(d)
        | (controls(d, *training_rows(d), seed=seed) if training_rows else {})
        for name, d in dictionaries.items()
    }
    total, done = 1 + sum(map(len, maps.values())), 0
    progress(0, total, "clean model")
    vectors = whole.capture(sites)
    short.remember(min(s.layer for s in sites))
    clean = {name: text.hidden() for name, text in {"": short, **short.others}.items()}
    out = {}
    for name, d in dictionaries.items():
        x, y = d.inputs(vectors), d.targets(vectors)
        hidden: dict[tuple[str, int], Tensor] = {}
        for label, function in maps[name].items():
            done += 1
            progress(done, total, f"{name}: {label}")
            hidden |= {(label, i): h for i, h in enumerate(hidden_states(short, d, function))}
        progress(done, total, f"{name}: losses of {len(hidden) + 1} models on {int(short.predicts.sum())} predictions")
        losses = _losses(short, clean, d, hidden)
        ablated = averaged(losses, "mean")
        own = averaged(losses, "dictionary")
        unedited = losses["clean"].ce if own is None else own.ce - own.delta  # over two models the mean of both
        metrics: dict[str, dict[str, Estimate | float]] = {"clean": {"ce": _mean(unedited, short)}}
        series: dict[str, Series] = {}
        for label, function in maps[name].items():
            y_hat = function(x, y)
            metrics[label] = _fidelity(whole, y, y_hat, d.config.widths_out)
            if (spent := averaged(losses, label)) is not None:
                metrics[label] |= _loss_metrics(short, spent, ablated)
            delta = None if spent is None else spent.delta.double().numpy()
            errors = (*_errors(y, y_hat, d.config.widths_out), *_standardised(y, y_hat))
            kl = None if spent is None else spent.kl.double().numpy()
            series[label] = Series(*errors, whole.documents, delta, short.documents_of_predictions, kl)
            if label == "dictionary" and len(d.config.writes) > 1:
                metrics |= _by_site(d, whole, y, y_hat, short, losses)
        l0, sparsity = _sparsity(d, x, whole)
        metrics["dictionary"] |= sparsity
        series["dictionary"] = replace(series["dictionary"], l0=l0)
        if "ridge" in series:  # what latents add to the best affine map, on the same tokens
            metrics["minus ridge"] = dict(difference(series["dictionary"], series["ridge"]))
        facts = {"text": text} | _facts(model, d, sequences, whole, short, seed)
        details: dict[str, Any] = {"by": breakdown(series["dictionary"], whole, short, domains)}
        if of_two_models(d):
            details["latent_scaling"] = latent_scaling(d, x).card()
        out[name] = Evaluation(name, metrics, facts, series, details)
    return out


def check_fits(model: Model, name: str, d: Dictionary) -> None:
    """ValueError where `model` lacks a site of `d`, or has another width there."""
    for sites, widths in ((d.config.reads, d.config.widths_in), (d.config.writes, d.config.widths_out)):
        for site, width in zip(sites, widths, strict=True):
            if model.width(site) != width:
                raise ValueError(f"{name} has width {width} at {site}, but {model.name} has {model.width(site)} there")


def _own_parts(d: Dictionary) -> dict[str, Map]:
    """The affine part of a skip-transcoder by itself: what the sparse part has to improve on."""
    if not d.config.skip:
        return {}
    each = None
    if len(d.skips) > 1:
        each = tuple((lambda x, y, A=A, b=d.b_dec[w.skips]: x @ A + b) for A, w in zip(d.skips, d.blocks, strict=True))
    return {"affine_part": Map(lambda x, y: d.affine(x) + d.b_dec, each)}


def _losses(
    text: EvalText, clean: Mapping[str, Tensor], d: Dictionary, hidden: Mapping[tuple[str, int], Tensor]
) -> dict[Any, Losses]:
    """Losses of every pass, each against the clean run of the model in which it was made; the main model's as "clean"."""
    crosscoder = d.config.kind == "crosscoder"

    def owner(label: tuple[str, int]) -> str:
        name = d.config.writes[label[1]].model if crosscoder else None
        return name if name in text.others else ""

    out: dict[Any, Losses] = {}
    for name, one in (*text.others.items(), ("", text)):
        own = {label: h for label, h in hidden.items() if owner(label) == name}
        if own or not name:
            out |= one.losses(clean[name], own)  # the main model comes last: its clean losses are kept
    return out


def averaged(losses: Mapping[Any, Losses], label: str) -> Losses | None:
    """Losses of a map, averaged over its passes (a crosscoder has one a site); None where there are none."""
    passes = [v for k, v in losses.items() if k != "clean" and k[0] == label]
    if len(passes) < 2:
        return passes[0] if passes else None
    return Losses(*(torch.stack([getattr(p, f.name) for p in passes]).double().mean(0) for f in fields(Losses)))


def _by_site(
    d: Dictionary, text: EvalText, y: Tensor, y_hat: Tensor, short: EvalText, losses: Mapping[Any, Losses]
) -> dict[str, dict[str, Estimate | float]]:
    """Each site by itself: its FVU and, for a crosscoder, what replacing it alone costs."""
    rows = {}
    for i, (site, w) in enumerate(zip(d.config.writes, stretches(d.config.widths_out), strict=True)):
        row = _fidelity(text, y[:, w], y_hat[:, w], (w.stop - w.start,))
        if ("dictionary", 1) in losses:
            row |= _loss_metrics(short, losses["dictionary", i], losses.get(("mean", i)))
        rows[f"dictionary at {site}"] = row
    return rows


def _mean(values: Tensor, text: EvalText) -> Estimate:
    v = values.double().numpy()
    return ratio_over_documents(v, np.ones_like(v), text.documents_of_predictions)


def _errors(y: Tensor, y_hat: Tensor, widths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(squared error, squared deviation) of every row [n], each site divided by its variance where there are several."""
    by_site = site_scale(y.double(), widths).square()
    squared, centred = (y.double() - y_hat).square(), (y.double() - y.double().mean(0)).square()
    return (squared / by_site).sum(1).numpy(), (centred / by_site).sum(1).numpy()


def _standardised(y: Tensor, y_hat: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The same with every dimension divided by its own deviation."""
    mu, sd = y.double().mean(0), deviations(y.double())
    return ((y - y_hat) / sd).square().sum(1).numpy(), ((y - mu) / sd).square().sum(1).numpy()


def _fidelity(text: EvalText, y: Tensor, y_hat: Tensor, widths: tuple[int, ...]) -> dict[str, Estimate | float]:
    docs, norm = text.documents, (y / site_scale(y.double(), widths)).norm(dim=1)
    usual = (norm <= 3 * norm.median()).numpy()
    error, variance = _errors(y, y_hat, widths)
    return {
        "fvu": ratio_over_documents(error, variance, docs),
        "fvu_no_outliers": ratio_over_documents(error[usual], variance[usual], docs[usual]),
        "fvu_standardised": ratio_over_documents(*_standardised(y, y_hat), docs),
    }


def _loss_metrics(text: EvalText, spliced: Losses, ablated: Losses | None) -> dict[str, Estimate | float]:
    out: dict[str, Estimate | float] = {
        "ce": _mean(spliced.ce, text),
        "delta_ce": _mean(spliced.delta, text),
        "kl": _mean(spliced.kl, text),
        "top1": _mean(spliced.same, text),
    }
    if ablated is not None:
        num, den = (ablated.delta - spliced.delta).double().numpy(), ablated.delta.double().numpy()
        out["recovered"] = ratio_over_documents(num, den, text.documents_of_predictions)
    return out


@torch.no_grad()
def _sparsity(d: Dictionary, x: Tensor, text: EvalText) -> tuple[np.ndarray, dict[str, Estimate | float]]:
    """Active latents of every row [n], and the metrics of it."""
    _, document = np.unique(text.documents, return_inverse=True)
    group = torch.from_numpy(document % JACKKNIFE)
    G, S = int(group.max()) + 1, d.d_sae
    fired, lengths = torch.zeros(G * S, dtype=torch.int64), []
    for chunk, owner in zip(x.split(2048), group.split(2048), strict=True):
        latents = d.encode(chunk)
        lengths.append(latents.counts)
        fired += torch.bincount(owner[latents.rows] * S + latents.index, minlength=G * S)
    l0 = torch.cat(lengths).double().numpy()
    counts, rows, documents = fired.view(G, S).numpy(), np.bincount(group, minlength=G), int(document.max()) + 1
    return l0, {
        "l0": ratio_over_documents(l0, np.ones_like(l0), text.documents),
        "dead": shares_over_documents(counts, rows, lambda c, n: c == 0, documents),
        "dense": shares_over_documents(counts, rows, lambda c, n: c > 0.1 * n, documents),
    }


def _facts(model: Model, d: Dictionary, sequences: Sequences, text: EvalText, short: EvalText, seed: int) -> dict[str, Any]:
    return {
        "model": model.name,
        "model_dtype": str(model.dtype).removeprefix("torch."),
        "kind": d.config.kind,
        "sites_in": list(d.config.sites_in),
        "sites_out": list(d.config.sites_out),
        "context": sequences.tokens.shape[1],
        "tokens": int(text.rows.sum()),
        "predictions": int(short.predicts.sum()),
        "documents": len(np.unique(text.documents)),
        "documents_of_predictions": len(np.unique(short.documents_of_predictions)),
        "excluded": "special tokens (BOS, padding) and a chat template's prefix, neither counted nor replaced",
        "ablation": "mean vector of the training rows",
        "data": config_hash(sequences.tokens.tolist()),
        "seed": seed,
        "interval": "95 %, percentile bootstrap over documents, 1000 draws; shares of latents: jackknife over documents",
    }


def _first(sequences: Sequences, tokens: int) -> Sequences:
    n = max(1, min(len(sequences), tokens // sequences.tokens.shape[1]))
    return sequences.part(0, n)
