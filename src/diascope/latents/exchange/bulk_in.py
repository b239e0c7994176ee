"""Neuronpedia's bulk files into an index: their own data sets', or those that bulk.py writes.

Only the columns that an index has are read, by the names of the site's tables; a file of its database export and one of
SAEDashboard's exporter are the same to this. What is damaged is named by file and line.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from diascope.latents.exchange.bulk import KINDS, Progress, nothing
from diascope.latents.exchange.intake import Counts, Intake, Row, read_in
from diascope.latents.exchange.stage import Stage


class _Neuron(msgspec.Struct):
    layer: str
    index: str | int
    modelId: str = ""
    maxActApprox: float | None = 0.0
    frac_nonzero: float | None = 0.0
    freq_hist_data_bar_heights: list[float] = []
    freq_hist_data_bar_values: list[float] = []
    pos_str: list[str] = []
    pos_values: list[float] = []
    neg_str: list[str] = []
    neg_values: list[float] = []
    topkCosSimIndices: list[int] = []
    topkCosSimValues: list[float] = []


class _Activation(msgspec.Struct):
    layer: str
    index: str | int
    tokens: list[str]
    values: list[float]
    modelId: str = ""
    binMin: float | None = None
    binMax: float | None = None
    binContains: float | None = None
    qualifyingTokenIndex: int | None = None


class _Explanation(msgspec.Struct):
    layer: str
    index: str | int
    description: str
    modelId: str = ""
    notes: str | None = None
    typeName: str | None = None
    explanationModelName: str | None = None


_ROWS = {"features": _Neuron, "activations": _Activation, "explanations": _Explanation}


def read_bulk(folder: str | Path, target: str | Path, *, progress: Progress = nothing) -> tuple[Path, Counts]:
    """Write an index `target` of the bulk files in `folder`: one source's folder, or one of several sources of one model.

    Gives the index and counts of what was left out. The same call goes on where it was interrupted. Raises ValueError for
    files that are damaged (with the line) or of several models, and where there is nothing to read.
    """
    places = sorted(p.parent for p in Path(folder).rglob("features") if p.is_dir())
    if not places:
        raise ValueError(
            f"{folder} has no bulk files: a source's folder holds features/batch-0.jsonl.gz, activations/ and explanations/"
        )
    models = {p: _of(p) for p in places}
    if len({m for m, *_ in models.values()}) > 1:
        raise ValueError(
            f"{folder} holds several models ({', '.join(sorted({m for m, *_ in models.values()}))}): import one at a time"
        )
    files = [
        Intake(path, number, kind)
        for number, place in enumerate(places)
        for kind in KINDS
        for path in sorted((place / kind).glob("*.jsonl*"), key=lambda p: (len(p.name), p.name))
    ]
    metas = [_meta(*found) for found in models.values()]
    return read_in(Path(folder), Path(target), files, models[places[0]][0], metas, lambda f, s: _rows(f, s), progress=progress)


def _of(place: Path) -> tuple[str, str, str, int]:
    """(model, set, source, tokens swept) of a source's folder, as its own row says, else as its folders are called."""
    path = place / "source.jsonl"
    if path.is_file() and (lines := path.read_text(encoding="utf-8").split("\n")) and lines[0].strip():
        try:
            row = msgspec.json.decode(lines[0], type=dict[str, Any])
            swept = int(row.get("num_prompts") or 0) * int(row.get("num_tokens_in_prompt") or 0)
            return str(row["modelId"]), str(row["setName"]), str(row["id"]), swept
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged or of another version ({error}): fetch it again") from error
    return place.parent.name, place.name.partition("-")[2] or place.name, place.name, 0


def _meta(model: str, set_name: str, source: str, swept: int) -> dict[str, Any]:
    return {
        "name": source, "kind": "", "title": f"{model}/{source} of Neuronpedia", "config": {"model": model}, "card": {}, "provenance": {},
        "tokens_swept": swept, "logit_vocabulary": 0, "neuronpedia": {"model": model, "set": set_name, "source": source},
    }  # fmt: skip


def _rows(file: Intake, stage: Stage) -> Iterator[Row]:
    """The rows of a file, tokens numbered."""
    decode = msgspec.json.Decoder(_ROWS[file.kind]).decode
    opened = gzip.open(file.path, "rb") if file.path.suffix == ".gz" else file.path.open("rb")
    with opened as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _row(decode(line), stage)
                except (ValueError, msgspec.DecodeError) as error:
                    raise ValueError(f"{file.path}, line {number}: {error}: fetch the file again") from error


def _row(found: Any, stage: Stage) -> Row:
    latent = int(found.index)
    if isinstance(found, _Neuron):
        return Row.neuron(
            stage, latent, found.maxActApprox or 0.0, found.frac_nonzero or 0.0,
            (found.freq_hist_data_bar_heights, found.freq_hist_data_bar_values), (found.pos_str, found.pos_values),
            (found.neg_str, found.neg_values), (found.topkCosSimIndices, found.topkCosSimValues),
        )  # fmt: skip
    if isinstance(found, _Activation):
        interval = (found.binMin, found.binMax, found.binContains)
        return Row.example(stage, latent, found.tokens, found.values, interval, found.qualifyingTokenIndex)
    writer = ", ".join(s for s in (found.explanationModelName, found.typeName) if s) or "Neuronpedia"
    return Row.said(latent, found.notes or writer, found.description)
