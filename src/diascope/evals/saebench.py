"""Cards in the schema of SAEBench (Karvonen et al. 2025, arXiv:2503.09532), so that its tables and plots take ours.

    outputs("sae", card)                 {"core": ..., "sparse_probing_sae_probes": ..., "absorption_first_letter": ...}
    write_saebench(folder, "sae", card)  one <eval type>.json each

Names and nesting are those of sae-bench 0.6.0 (`evals/*/eval_output.py`). Its core schema asks for a number in every field and
writes -1 where it has none; so do we, and name those fields under `eval_result_unstructured.not_measured`. `of_text` gives what a
card lacks, from the rows themselves.

Where the definitions are ours rather than theirs (said in `eval_result_unstructured.definitions`):
1. The ablation is the mean vector of training rows; theirs is zero, which on Gemma 3 costs what no dictionary could.
2. explained_variance is 1 - FVU about the global mean; theirs subtracts the squared mean of squares.
3. mse is the squared error of a token, averaged; theirs is divided by the number of tokens once more.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diascope.config import config_hash
from diascope.dictionaries import Dictionary
from diascope.evals.geometry import largest_cosine
from diascope.evals.text import EvalText
from diascope.models import Model
from diascope.storage.files import finite, write_json
from diascope.tokens import Sequences

NONE = -1  # what SAEBench itself writes for a number that does not exist
DEFINITIONS = {
    "ablation": "mean vector of the training rows (SAEBench: zero)",
    "explained_variance": "1 - sum |y - y_hat|^2 / sum |y - mean y|^2 over all counted tokens",
    "mse": "sum over dimensions, mean over tokens",
    "tokens": "special tokens are neither counted nor replaced",
}
KS = (1, 2, 5, 10, 20, 50, 100)  # numbers of latents for which its schema has fields


def outputs(
    name: str, card: Mapping[str, Any], more: Mapping[str, float] | None = None, *, millis: int | None = None
) -> dict[str, dict[str, Any]]:
    """Everything of a card that SAEBench has a place for, by its eval_type_id.

    `more` is what `of_text` gives; `millis` the time of the evaluation in ms since 1970 (now).
    """
    suite = card.get("suite") or {}
    found = {"core": core(card, more or {})}
    if "probing" in suite:
        found["sparse_probing_sae_probes"] = probing(suite["probing"])
    if (suite.get("absorption") or {}).get("result"):
        found["absorption_first_letter"] = absorption(suite["absorption"])
    when = int(time.time() * 1000) if millis is None else millis
    return {kind: _around(kind, name, card, body, when) for kind, body in found.items()}


def write_saebench(
    folder: str | Path, name: str, card: Mapping[str, Any], more: Mapping[str, float] | None = None
) -> list[Path]:
    """Write `<folder>/<eval type>.json` for each output; the paths."""
    paths = []
    for kind, output in outputs(name, card, more).items():
        paths.append(Path(folder) / f"{kind}.json")
        write_json(paths[-1], output)
    return paths


def core(card: Mapping[str, Any], more: Mapping[str, float]) -> dict[str, Any]:
    """Config, metrics and what was not measured, of SAEBench's "core"."""
    facts, rows = card.get("facts", {}), card["metrics"]
    own, mean = ({m: _plain(v) for m, v in (rows.get(row) or {}).items()} for row in ("dictionary", "mean"))
    kl, ablated, fvu, dead = own.get("kl"), mean.get("kl"), own.get("fvu"), own.get("dead")
    given = dict(more) | {
        "kl_div_score": None if kl is None or not ablated else 1 - kl / ablated,
        "kl_div_with_ablation": ablated,
        "kl_div_with_sae": kl,
        "ce_loss_score": own.get("recovered"),
        "ce_loss_with_ablation": mean.get("ce"),
        "ce_loss_with_sae": own.get("ce"),
        "ce_loss_without_sae": _plain((rows.get("clean") or {}).get("ce")),
        "explained_variance": None if fvu is None else 1 - fvu,
        "l0": own.get("l0"),
        "freq_over_10_percent": own.get("dense"),
        "frac_alive": None if dead is None else 1 - dead,
        "total_tokens_eval_reconstruction": facts.get("predictions"),
        "total_tokens_eval_sparsity_variance": facts.get("tokens"),
    }
    missing = sorted(f for fields in CORE.values() for f in fields if given.get(f) is None)
    metrics = {category: {f: NONE if given.get(f) is None else given[f] for f in fields} for category, fields in CORE.items()}
    config = {k: True for k in ("compute_kl", "compute_ce_loss", "compute_sparsity_metrics", "compute_variance_metrics")}
    config |= {"exclude_special_tokens_from_reconstruction": True} | {
        theirs: facts[ours]
        for theirs, ours in (("llm_dtype", "model_dtype"), ("dataset", "text"), ("context_size", "context"))
        if facts.get(ours)
    }
    return {"eval_config": config, "eval_result_metrics": metrics, "not_measured": missing}


CORE = {
    "model_behavior_preservation": ("kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"),
    "model_performance_preservation": (
        "ce_loss_score", "ce_loss_with_ablation", "ce_loss_with_sae", "ce_loss_without_sae",
    ),
    "reconstruction_quality": ("explained_variance", "explained_variance_legacy", "mse", "cossim"),
    "shrinkage": ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"),
    "sparsity": ("l0", "l1"),
    "token_stats": ("total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"),
    "misc_metrics": (
        "freq_over_1_percent", "freq_over_10_percent", "normalized_freq_over_1_percent", "normalized_freq_over_10_percent",
        "average_max_encoder_cosine_sim", "average_max_decoder_cosine_sim", "frac_alive",
    ),
}  # fmt: skip


def probing(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The suite's k-sparse probing as "sparse_probing_sae_probes"; fields without a number are null there."""
    c, result = entry.get("config") or {}, entry.get("result") or {}
    dense = _plain(((entry.get("controls") or {}).get("dense") or {}).get("auroc all dimensions"))
    tasks = (entry.get("details") or {}).get("tasks") or {}
    config = {"dataset_names": list(tasks) or list(c.get("tasks") or ()), "ks": list(c.get("ks") or ()), "reg_type": "l2"}
    config |= {"random_seed": c["seed"]} if "seed" in c else {}
    details = [
        {"dataset_name": task, "llm_test_auc": _plain(row.get("dense"))}
        | {f"sae_top_{k}_test_auc": _plain(row[f"k{k}"]) for k in KS if f"k{k}" in row}
        for task, row in tasks.items()
    ]
    sae = {f"sae_top_{k}_test_auc": _plain(result[f"auroc k{k}"]) for k in KS if f"auroc k{k}" in result}
    metrics = {"llm": {"llm_test_auc": dense}, "sae": sae}
    return {"eval_config": config, "eval_result_metrics": metrics, "eval_result_details": details}


def absorption(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The suite's first-letter absorption as "absorption_first_letter"."""
    c, result = entry.get("config") or {}, entry.get("result") or {}
    letters = [v for v in (entry.get("details") or {}).values() if isinstance(v, Mapping)]
    given = {
        "mean_absorption_fraction_score": _plain(result.get("absorption")),
        "mean_full_absorption_score": _plain(result.get("full absorption")),
        "mean_num_split_features": _plain(result.get("main latents")),
        "std_dev_absorption_fraction_score": _deviation([v.get("absorption") for v in letters]),
        "std_dev_full_absorption_score": _deviation([v.get("full") for v in letters]),
        "std_dev_num_split_features": _deviation([len(v["main"]) for v in letters if "main" in v]),
    }
    names = {
        "min_GT_probe_f1": "probe_f1",
        "min_feats_for_eval": "letters",
        "max_k_value": "splits",
        "f1_jump_threshold": "jump",
    }
    config = {theirs: c[ours] for theirs, ours in (names | {"random_seed": "seed"}).items() if ours in c}
    mean = {k: NONE if v is None else v for k, v in given.items()}
    missing = sorted(k for k, v in given.items() if v is None)
    return {"eval_config": config, "eval_result_metrics": {"mean": mean}, "not_measured": missing}


def of_text(model: Model, d: Dictionary, sequences: Sequences) -> dict[str, float]:
    """What `measured` gives on the counted tokens of packed `sequences`: those that the card is of."""
    seen = EvalText(model, sequences).capture(list(d.sites))
    return measured(d, d.inputs(seen), d.targets(seen))


@torch.no_grad()
def measured(d: Dictionary, x: Tensor, y: Tensor) -> dict[str, float]:
    """What SAEBench's core asks for and a card lacks, of inputs x [n, d_in] and targets y [n, d_out]; by its field names."""
    sums = {k: 0.0 for k in ("explained_variance_legacy", "mse", "cossim", "l2_norm_in", "l2_norm_out", "l2_ratio", "l1")}
    counts, squared, product, mu = torch.zeros(d.d_sae, dtype=torch.int64), 0.0, 0.0, y.double().mean(0)
    for a, b in zip(x.split(2048), y.split(2048), strict=True):
        f = d.encode(a)
        y_hat, b = d.decode(f, a if d.config.skip else None).double(), b.double()
        error, size, size_hat, dot = (b - y_hat).square().sum(1), b.norm(dim=1), y_hat.norm(dim=1), (b * y_hat).sum(1)
        counts += torch.bincount(f.index, minlength=d.d_sae)
        squared, product = squared + float(size_hat.square().sum()), product + float(dot.sum())
        rows = {
            "explained_variance_legacy": 1 - error / (b - mu).square().sum(1),
            "mse": error,
            "cossim": dot / (size * size_hat).clamp_min(1e-30),
            "l2_norm_in": size,
            "l2_norm_out": size_hat,
            "l2_ratio": size_hat / torch.where(size < 1e-4, 1.0, size),
            "l1": f.value.double().abs(),
        }
        sums = {k: sums[k] + float(v.sum()) for k, v in rows.items()}
    means = {k: v / len(x) for k, v in sums.items()}
    return means | {"relative_reconstruction_bias": squared / product} | _of_weights(d) | _densities(counts.double() / len(x))


def _of_weights(d: Dictionary) -> dict[str, float]:
    """Each latent's largest cosine with another's weights, averaged over latents."""
    decoder, encoder = (torch.cat([largest_cosine(W) for W in Ws]) for Ws in (d.decoders, [W.t() for W in d.encoders]))
    return {
        "average_max_decoder_cosine_sim": float(decoder.mean()),
        "average_max_encoder_cosine_sim": float(encoder.mean()),
    }


def _densities(density: Tensor) -> dict[str, float]:
    total, out = float(density.sum()) or 1.0, {}
    for percent in (1, 10):
        often = density > percent / 100
        out[f"freq_over_{percent}_percent"] = float(often.double().mean())
        out[f"normalized_freq_over_{percent}_percent"] = float(density[often].sum()) / total
    return out


def _around(kind: str, name: str, card: Mapping[str, Any], body: Mapping[str, Any], millis: int) -> dict[str, Any]:
    """What is the same in all of its outputs."""
    facts = card.get("facts", {})
    config = {"model_name": str(facts.get("model", ""))} | body["eval_config"]
    output = {
        "eval_type_id": kind,
        "eval_config": config,
        "eval_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"diascope:{kind}:{name}:{config_hash(finite(dict(card)))}")),
        "datetime_epoch_millis": millis,
        "eval_result_metrics": body["eval_result_metrics"],
        "eval_result_details": body.get("eval_result_details", []),
        "sae_bench_commit_hash": "none: written by diascope",
        "sae_lens_id": name,
        "sae_lens_release_id": None,
        "sae_lens_version": None,
        "sae_cfg_dict": {k: facts[k] for k in ("model", "kind", "sites_in", "sites_out") if k in facts},
        "eval_result_unstructured": {"definitions": DEFINITIONS, "not_measured": body.get("not_measured", []), "facts": facts},
    }
    return finite(output)


def _plain(entry: Any) -> float | None:
    """A card's number without its interval; None where there is none."""
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return finite(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _deviation(values: list[Any]) -> float | None:
    """The standard deviation over letters, as SAEBench takes it (n - 1); None of fewer than two."""
    known = [float(v) for v in values if isinstance(v, int | float)]
    return float(torch.tensor(known, dtype=torch.float64).std()) if len(known) > 1 else None
