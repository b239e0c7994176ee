"""Neuronpedia's bulk files out of an index: gzipped JSON lines of features, activations and explanations.

    <folder>/<modelId>/<sourceId>/release.jsonl, model.jsonl, sourceset.jsonl, source.jsonl   one row each
                                  features/batch-0.jsonl.gz       rows of the table Neuron, 1,024 latents a file
                                  activations/batch-0.jsonl.gz    rows of Activation, of the same latents
                                  explanations/batch-0.jsonl.gz   rows of Explanation, of the same latents
                                  export.json                     which index it is of; theirs lack it

The layout is that of the site's data sets and of its own importer (hijohnnylin/neuronpedia: export-data.py, api/admin/import).
Each file is written whole or not at all, and one that is there is left: the same call goes on where it was interrupted. In
memory is one latent.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from diascope.latents.exchange.ids import Names, names
from diascope.latents.exchange.rows import CREATOR, activations, explanations, neuron
from diascope.latents.store import Index, Source
from diascope.storage.files import check_target, commit_file, read_json, sha256_file, write_json

FORMAT = "diascope-neuronpedia-export-1"
BATCH = 1024  # latents a file
LEVEL = 5  # of gzip, as theirs
KINDS = ("features", "activations", "explanations")
Progress = Callable[[int, int, str], None]


def nothing(done: int, total: int, note: str = "") -> None:
    """No progress is told."""


def write_bulk(
    index: Index, folder: str | Path, *, sources: Iterable[str] = (), creator: str = CREATOR, progress: Progress = nothing
) -> list[Path]:
    """Write `sources` of `index` (all, where none is named) below `folder`; gives the folder of each.

    Raises ValueError for a source that the index lacks, and where `folder` holds files of another index.
    """
    check_target(folder)
    chosen = some_of(index, sources)
    called, total, done, out = names(index), sum(map(len, chosen)), 0, []
    for source in chosen:
        n = called[source.name]
        place = Path(folder) / n.model / n.source
        _claim(place, {"format": FORMAT, "index": fingerprint(index, source), "creator": creator, "batch": BATCH})
        for name, row in heads(index, source, n, creator).items():
            _write_lines(place / f"{name}.jsonl", [row], packed=False)
        for start in range(0, len(source), BATCH):
            progress(done + start, total, f"{n.model}/{n.source}")
            _write_batch(index, source, n, creator, place, start)
        done += len(source)
        out.append(place)
    progress(total, total, "")
    return out


def some_of(index: Index, sources: Iterable[str]) -> list[Source]:
    """The sources by their own names or ids, all where none is named; ValueError for one that the index lacks."""
    by_id = {n.source: name for name, n in names(index).items()}
    chosen = [by_id.get(name, name) for name in sources]
    if missing := [name for name in chosen if name not in index.sources]:
        raise ValueError(f"there is no source {missing[0]!r}; there are {', '.join(index.sources)}")
    return [index.sources[name] for name in dict.fromkeys(chosen)] or list(index.sources.values())


def fingerprint(index: Index, source: Source) -> str:
    """The hash of the files of one source and of the corpus: which index this is."""
    own, corpus = index.folder / "sources" / str(source.number), index.folder / "corpus"
    digest = hashlib.sha256()
    for path in sorted([*own.iterdir(), *corpus.iterdir()]):
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _claim(place: Path, identity: dict[str, Any]) -> None:
    """Say whose files `place` holds; ValueError where others' are there."""
    path = place / "export.json"
    if path.exists():
        if read_json(path) != identity:
            raise ValueError(
                f"{place} holds an export of another index, or with other settings: choose another folder, or delete it"
            )
        return
    if place.exists() and any(place.iterdir()):
        raise ValueError(f"{place} holds other files: choose another folder")
    write_json(path, identity)


def heads(index: Index, source: Source, n: Names, creator: str) -> dict[str, dict[str, Any]]:
    """The rows of the tables above a source: release, model, sourceset and source."""
    model, title = str(index.meta["model"]), str(source.meta.get("title", source.name))
    by = {"creatorId": creator, "visibility": "PUBLIC"}
    release = {
        "name": f"{n.model}-{n.set}",
        "description": title,
        "descriptionShort": title,
        "creatorName": "diascope",
        "urls": [],
    }
    set_row = {
        "modelId": n.model,
        "name": n.set,
        "description": title,
        "creatorName": "diascope",
        "releaseName": release["name"],
    }
    text = {"num_prompts": len(index.tokens), "num_tokens_in_prompt": int(index.tokens.shape[1])}
    return {
        "release": release | by,
        "model": {"id": n.model, "displayName": model, "displayNameShort": n.model, "instruct": n.model.endswith("-it"), "layers": 0,
                  "neuronsPerLayer": 0, "owner": ""} | by,
        "sourceset": set_row | by | {"hasDashboards": True, "type": "", "urls": []},
        "source": {"id": n.source, "modelId": n.model, "setName": n.set, "hasDashboards": True, "dataset": None, "notes": title} | text | by,
    }  # fmt: skip


def _write_batch(index: Index, source: Source, n: Names, creator: str, place: Path, start: int) -> None:
    latents = range(start, min(start + BATCH, len(source)))
    makes: dict[str, Callable[[int], list[dict[str, Any]]]] = {
        "features": lambda j: [neuron(index, source, j, n, creator)],
        "activations": lambda j: activations(index, source, j, n, creator),
        "explanations": lambda j: explanations(source, j, n, creator),
    }
    for kind in KINDS:
        make = makes[kind]
        _write_lines(place / kind / f"batch-{start // BATCH}.jsonl.gz", (row for j in latents for row in make(j)))


def _write_lines(path: Path, rows: Iterable[dict[str, Any]], *, packed: bool = True) -> None:
    """One row a line; nothing is done where the file is there."""
    if path.exists():
        return
    with commit_file(path) as work, work.open("wb") as raw:
        # no time and no name in the file: the same index gives the same bytes
        file = gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=LEVEL, mtime=0) if packed else raw
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")
        if packed:
            file.close()
