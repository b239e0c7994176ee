"""Latents as data: what fires on every document of a dataset of any size, in sparse columns.

    <folder>/dataset.json            format, model, dictionary (hash of its weights), sites, context, documents a shard
             shards/000000/firings.parquet    document int64, position int32, token int32, latent int32, activation float32
                           documents.parquet  document int64, label string, token list<int32> (those counted), length int32 (all tokens), text
                           vocabulary.parquet token int32, text: the tokens that stand in it
                           sha256.json        a shard without it does not exist

1. The dataset is read as a stream, a shard of documents at a time; a shard that stands is passed over, so the same call goes on.
2. In a shard documents are sorted by length and share forward passes with their like; each is a sequence of its own, cut at `context`.
3. Special tokens are no rows, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diascope.dictionaries import Dictionary, weights_hash
from diascope.models import Model
from diascope.storage.files import check_target, commit_folder, read_json, reading, write_json
from diascope.storage.seals import SEAL, check_seal, seal

FORMAT = "diascope-latents-1"
BATCH_TOKENS = 2048  # of a forward pass, padding included


def encode_dataset(
    model: Model,
    d: Dictionary,
    dataset: Iterable[Any],
    folder: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    context: int = 512,
    shard: int = 256,
    progress: Callable[[int], None] = lambda documents: None,
) -> LatentData:
    """Encode every document of `dataset` with `d` into `folder`, and open it.

    `dataset` yields strings, (text, label) pairs, or mappings with the columns `text` and, where there are any, `label`: a list, a
    generator, a data set of the datasets library. It must yield the same documents again when an interrupted call is made again.
    `context` tokens of a document are read; `shard` documents are committed together; `progress(documents done)`.
    Raises ValueError for what is no text, and where `folder` holds latents of another model, dictionary or setting.
    """
    if context < 2 or shard < 1:
        raise ValueError(f"context is {context} and shard {shard}: give at least 2 tokens, and 1 document")
    folder = Path(folder)
    identity = {
        "format": FORMAT, "model": model.name, "dictionary": weights_hash([d]), "d_sae": d.d_sae, "reads": list(map(str, d.config.reads)),
        "context": context, "shard": shard,
    }  # fmt: skip
    known = folder / "dataset.json"
    if known.exists() and read_json(known) != identity:
        raise ValueError(f"{folder} holds latents of another model, dictionary or setting: choose another folder, or delete it")
    check_target(known)
    write_json(known, identity)
    stream, done = (_document(row, i, text, label) for i, row in enumerate(dataset)), 0
    for number in range(2**40):
        part = list(islice(stream, shard))
        place = folder / "shards" / f"{number:06d}"
        if part and not (place / SEAL).exists():
            with commit_folder(place) as work:
                _write(work, _encoded(model, d, part, done, context, progress))
                seal(work)
        done += len(part)
        progress(done)
        if len(part) < shard:
            return LatentData(folder)
    raise AssertionError


def _document(row: Any, i: int, text: str, label: str) -> tuple[str, str]:
    """(text, label) of one row; an unlabelled one has the label ""."""
    if isinstance(row, str):
        row = (row, "")
    if isinstance(row, Mapping):
        if text not in row:
            raise ValueError(f"document {i} has no column {text!r}: its columns are {', '.join(map(str, row))}")
        row = row[text], row.get(label)
    if not (isinstance(row, tuple | list) and len(row) == 2 and isinstance(row[0], str)):
        raise ValueError(
            f"document {i} is {str(row)[:60]!r}: give a text, a (text, label) pair, or a mapping with a text column"
        )
    return row[0], "" if row[1] is None else str(row[1])


@torch.no_grad()
def _encoded(
    model: Model, d: Dictionary, part: list[tuple[str, str]], first: int, context: int, progress: Callable[[int], None]
) -> dict[str, Mapping[str, Any]]:
    """The tables of a shard; firings are sorted by document, position and latent."""
    ids = [model.tokenize(t) for t, _ in part]
    whole = [len(t) for t in ids]
    ids = [t[:context] for t in ids]
    counted: list[np.ndarray] = [np.zeros(0, np.int32)] * len(part)
    found: list[tuple[np.ndarray, ...]] = []
    encoded = first
    for batch in alike_in_length([len(t) for t in ids]):
        seen = model.capture([ids[i] for i in batch], d.config.reads)
        row, position = (x.cpu().numpy() for x in seen.mask.nonzero(as_tuple=True))
        document = np.asarray(batch)[row]
        f = d.encode(d.inputs({s: x[seen.mask].float() for s, x in seen.items()}))
        at = f.rows.numpy()
        token = seen.tokens[seen.mask].cpu().numpy()
        for i in batch:
            counted[i] = token[document == i].astype(np.int32)
        encoded += len(batch)
        progress(encoded)
        found.append((document[at] + first, position[at], token[at], f.index.numpy(), f.value.float().numpy()))
    names = {"document": np.int64, "position": np.int32, "token": np.int32, "latent": np.int32, "activation": np.float32}
    columns = [np.concatenate(c) for c in zip(*found)] if found else [np.zeros(0)] * 5
    order = np.lexsort((columns[3], columns[1], columns[0]))
    firings = {n: c[order].astype(t) for (n, t), c in zip(names.items(), columns)}
    standing = np.unique(np.concatenate(counted))
    documents = {
        "document": np.arange(first, first + len(part)), "label": [name for _, name in part], "token": counted,
        "length": np.asarray(whole, np.int32), "text": [t for t, _ in part],
    }  # fmt: skip
    vocabulary = {"token": standing, "text": [model.tokenizer.decode([t]) for t in standing.tolist()]}
    return {"firings": firings, "documents": documents, "vocabulary": vocabulary}


def alike_in_length(lengths: list[int]) -> Iterator[list[int]]:
    """Numbers of texts with some tokens in batches, alike in length, so that little is padded."""
    order = [i for i in np.argsort(lengths, kind="stable").tolist() if lengths[i]]
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _write(work: Path, tables: dict[str, Mapping[str, Any]]) -> None:
    pyarrow, parquet = _arrow()
    for name, columns in tables.items():
        parquet.write_table(pyarrow.table(columns), work / f"{name}.parquet", compression="zstd")


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError("latents as data are parquet files, which need pyarrow: pip install 'diascope[datasets]'") from error
    return pyarrow, parquet


class LatentData:
    """What `encode_dataset` wrote. `folder`/shards/*/firings.parquet may be read by anything that reads parquet."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "dataset.json").is_file():
            raise ValueError(f"{folder} holds no latents of a dataset: it has no dataset.json")
        with reading(self.folder, "delete it and encode again"):
            self.facts = read_json(self.folder / "dataset.json")
            if self.facts.get("format") != FORMAT:
                raise ValueError(f"{folder} is of another version ({self.facts.get('format')}): delete it and encode again")
        self.d_sae = int(self.facts["d_sae"])
        self.shards = sorted(p.parent for p in self.folder.glob(f"shards/[!.]*/{SEAL}"))
        _, self._parquet = _arrow()
        tables = [self._read(s, "documents") for s in self.shards]
        self.label = (
            np.concatenate([t["label"].to_numpy(zero_copy_only=False) for t in tables]) if tables else np.zeros(0, object)
        )
        lists = [t["token"].combine_chunks() for t in tables]
        self._token = np.concatenate([x.flatten().to_numpy() for x in lists]) if tables else np.zeros(0, np.int32)
        lengths = [x.value_lengths().to_numpy() for x in lists]
        self.tokens = np.concatenate(lengths) if tables else np.zeros(0, np.int32)  # counted ones of each document

    def __len__(self) -> int:
        return len(self.label)

    def counts(self) -> dict[str, int]:
        """Documents by label, the most frequent first."""
        names, n = np.unique(self.label.astype(str), return_counts=True)
        return {str(names[i]): int(n[i]) for i in np.argsort(-n, kind="stable")}

    def _read(self, shard: Path, name: str) -> Any:
        way_out = f"delete {shard} and encode again"
        with reading(shard, way_out):
            check_seal(shard, [f"{name}.parquet"], way_out=way_out)
            return self._parquet.read_table(shard / f"{name}.parquet")

    def text(self, document: int) -> str:
        """The text of one document."""
        shard, place = divmod(document, int(self.facts["shard"]))
        return self._read(self.shards[shard], "documents")["text"][place].as_py()

    def firings(self) -> Iterator[dict[str, np.ndarray]]:
        """The columns of firings, shard by shard."""
        for shard in self.shards:
            table = self._read(shard, "firings")
            yield {n: table[n].to_numpy() for n in table.column_names}

    def per_document(self, what: str = "max") -> Any:
        """One row a document, one column a latent, sparse (scipy CSR [documents, d_sae] float32).

        `what`: "max" or "sum" of a latent's activations, "mean" over the document's counted tokens, or "count" of its firings.
        """
        return self._sparse("latent", "activation", what, self.d_sae)

    def spelled(self) -> dict[int, str]:
        """The text of every token that stands in a document, by its id."""
        tables = [self._read(s, "vocabulary") for s in self.shards]
        return {i: text for t in tables for i, text in zip(t["token"].to_pylist(), t["text"].to_pylist())}

    def words(self) -> tuple[Any, np.ndarray]:
        """The bag of words beside: how often each counted token stands in each document (CSR), and the columns' token ids."""
        vocabulary, column = np.unique(self._token, return_inverse=True)
        document = np.repeat(np.arange(len(self)), self.tokens)
        return _csr(document, column, np.ones(len(column)), "sum", (len(self), len(vocabulary))), vocabulary

    def _sparse(self, column: str, value: str, what: str, width: int) -> Any:
        if what not in ("max", "sum", "mean", "count"):
            raise ValueError(f"what is {what!r}: choose max, sum, mean or count")
        parts = [(f["document"], f[column], f[value]) for f in self.firings()]
        document, index, x = (np.concatenate(c) if parts else np.zeros(0, np.int64) for c in zip(*parts or [((), (), ())]))
        out = _csr(
            document, index, np.ones_like(x) if what == "count" else x, "max" if what == "max" else "sum", (len(self), width)
        )
        if what == "mean":
            out.data /= np.repeat(np.maximum(self.tokens, 1), np.diff(out.indptr)).astype(np.float32)
        return out


def _csr(row: np.ndarray, column: np.ndarray, value: np.ndarray, how: str, shape: tuple[int, int]) -> Any:
    """Entries of the same place are summed, or the largest is taken."""
    from scipy.sparse import csr_matrix

    if not len(row):
        return csr_matrix(shape, dtype=np.float32)
    key = row.astype(np.int64) * shape[1] + column
    order = np.argsort(key, kind="stable")
    begins = np.flatnonzero(np.diff(key[order], prepend=-1))
    reduce = np.maximum if how == "max" else np.add
    data = reduce.reduceat(value[order].astype(np.float32), begins)
    places = key[order][begins]
    return csr_matrix((data, (places // shape[1], places % shape[1])), shape=shape)
