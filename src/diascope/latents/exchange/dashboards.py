"""SAEDashboard's batches (batch-0.json ...), as its Neuronpedia runner writes them, out of an index and into one.

    batch-<k>.json   {"model_id", "layer", "sae_set", "sae_id_suffix", "features": [{"feature_index", "activations": [...], ...}]}

The keys are those of SAEDashboard's NeuronpediaDashboardBatch and its feature and activation (sae_dashboard/neuronpedia). Their
numbers have three places, here they are whole. Of a batch that is read all is in memory, as in theirs; written is one latent
at a time. Descriptions and decoder cosines have no place in it (their correlated features are alike in activations).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from diascope.latents.exchange.bulk import Progress, fingerprint, nothing, some_of
from diascope.latents.exchange.ids import Names, names
from diascope.latents.exchange.intake import Counts, Intake, Row, read_in
from diascope.latents.exchange.rows import activations, neuron
from diascope.latents.exchange.stage import Stage
from diascope.latents.store import Index, Source
from diascope.storage.files import check_target, commit_file, read_json, reading, write_json

FORMAT = "diascope-dashboards-1"
BATCH = 128  # latents a file
_LISTS = (
    "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "correlated_neurons_indices",
    "correlated_neurons_l1", "correlated_neurons_pearson", "neg_str", "neg_values", "pos_str", "pos_values",
    "freq_hist_data_bar_heights", "freq_hist_data_bar_values", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
    "decoder_weights_dist", "vector",
)  # fmt: skip


def write_dashboards(
    index: Index, folder: str | Path, *, source: str = "", batch: int = BATCH, progress: Progress = nothing
) -> Path:
    """Write one source of `index` (the only one, where none is named) to `folder` as batch-0.json and so on.

    The same call goes on where it was interrupted. Raises ValueError for a source that the index lacks, where several could be
    meant, and where `folder` holds other files.
    """
    check_target(folder)
    chosen = some_of(index, [source] if source else [])
    if len(chosen) > 1:
        raise ValueError(f"a folder of batches has one source: say which of {', '.join(s.name for s in chosen)}")
    one, n, folder = chosen[0], names(index)[chosen[0].name], Path(folder)
    _claim(folder, {"format": FORMAT, "index": fingerprint(index, one), "batch": batch})
    for number, start in enumerate(range(0, len(one), batch)):
        progress(start, len(one), n.source)
        path = folder / f"batch-{number}.json"
        if not path.exists():
            _write(path, index, one, n, range(start, min(start + batch, len(one))))
    progress(len(one), len(one), "")
    return folder


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    path = folder / "run_settings.json"  # where theirs says how it was made
    if path.exists() and read_json(path) != identity:
        raise ValueError(f"{folder} holds other batches: choose another folder, or delete it")
    if not path.exists() and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files: choose another folder")
    write_json(path, identity)


def _write(path: Path, index: Index, source: Source, n: Names, latents: range) -> None:
    head = {"model_id": n.model, "layer": int(n.source.partition("-")[0]), "sae_set": n.set, "sae_id_suffix": None}
    with commit_file(path) as work, work.open("wb") as file:
        file.write(msgspec.json.encode(head)[:-1] + b', "features": [')
        for place, latent in enumerate(latents):
            file.write((b",\n" if place else b"\n") + msgspec.json.encode(_feature(index, source, n, latent)))
        file.write(b"\n]}\n")


def _feature(index: Index, source: Source, n: Names, latent: int) -> dict[str, Any]:
    row = neuron(index, source, latent, n)
    shown = [
        {
            "bin_min": a["binMin"],
            "bin_max": a["binMax"],
            "bin_contains": a["binContains"],
            "tokens": a["tokens"],
            "values": a["values"],
            "qualifying_token_index": a["qualifyingTokenIndex"],
        }
        for a in activations(index, source, latent, n)
    ]
    run = {"n_prompts_total": len(index.tokens), "n_tokens_in_prompt": int(index.tokens.shape[1]), "dataset": ""}
    return {
        "feature_index": latent,
        **{name: row[name] for name in _LISTS},
        **{f"correlated_features_{what}": [] for what in ("indices", "l1", "pearson")},
        "frac_nonzero": row["frac_nonzero"],
        **run,
        "activations": shown,
    }


# -- in -------------------------------------------------------------------------------------------------------------------
class _Activation(msgspec.Struct):
    tokens: list[str]
    values: list[float]
    bin_min: float | None = None
    bin_max: float | None = None
    bin_contains: float | None = None
    qualifying_token_index: int | None = None


class _Feature(msgspec.Struct):
    feature_index: int
    activations: list[_Activation] = []
    frac_nonzero: float = 0.0
    freq_hist_data_bar_heights: list[float] = []
    freq_hist_data_bar_values: list[float] = []
    pos_str: list[str] = []
    pos_values: list[float] = []
    neg_str: list[str] = []
    neg_values: list[float] = []
    n_prompts_total: int = 0
    n_tokens_in_prompt: int = 0


class _Batch(msgspec.Struct):
    features: list[_Feature]
    model_id: str = ""
    layer: int = 0
    sae_set: str = ""
    sae_id_suffix: str | None = None


def read_dashboards(folder: str | Path, target: str | Path, *, progress: Progress = nothing) -> tuple[Path, Counts]:
    """Write an index `target` of the batches in `folder`. Gives the index and counts of what was left out.

    The same call goes on where it was interrupted. Raises ValueError for damaged batches, and where there is none.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("batch-*.json"), key=lambda p: (len(p.name), p.name))
    if not paths:
        raise ValueError(f"{folder} has no batches: SAEDashboard writes batch-0.json and so on")
    first = _opened(paths[0])
    if first.layer < 0 or not first.model_id:
        raise ValueError(f"{paths[0]} names no model: SAEDashboard's Neuronpedia runner writes model_id, layer and sae_set")
    tokens = max((f.n_prompts_total * f.n_tokens_in_prompt for f in first.features), default=0)
    suffix = f"__{first.sae_id_suffix}" if first.sae_id_suffix else ""
    source = f"{first.layer}-{first.sae_set}{suffix}"
    meta = {
        "name": source, "kind": "", "title": f"{first.model_id}/{source} of SAEDashboard", "config": {"model": first.model_id}, "card": {},
        "provenance": {}, "tokens_swept": tokens, "logit_vocabulary": 0,
        "neuronpedia": {"model": first.model_id, "set": first.sae_set, "source": source},
    }  # fmt: skip
    files = [Intake(path, 0, "batch") for path in paths]
    return read_in(folder, Path(target), files, first.model_id, [meta], _rows, progress=progress)


def _opened(path: Path) -> _Batch:
    with reading(path, "write it again"):
        return msgspec.json.decode(path.read_bytes(), type=_Batch)


def _rows(file: Intake, stage: Stage) -> Iterator[Row]:
    for found in _opened(file.path).features:
        yield from _of(found, stage)


def _of(found: _Feature, stage: Stage) -> Iterable[Row]:
    latent = found.feature_index
    yield Row.neuron(
        stage, latent, max((max(a.values, default=0.0) for a in found.activations), default=0.0), found.frac_nonzero,
        (found.freq_hist_data_bar_heights, found.freq_hist_data_bar_values), (found.pos_str, found.pos_values),
        (found.neg_str, found.neg_values), ([], []),
    )  # fmt: skip
    for a in found.activations:
        interval = (a.bin_min, a.bin_max, a.bin_contains)
        yield Row.example(stage, latent, a.tokens, a.values, interval, a.qualifying_token_index)
