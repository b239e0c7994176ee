"""Rows of a file or data set as a stream: (number, where it stands, its columns), whatever the size.

.jsonl     one JSON object a line      .parquet     batch by batch
.csv       with a header line          hf:<name>    a data set of the hub or of a folder, streamed (extra: datasets)
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

Row = tuple[int, str, Any]
EXTRA = "pip install 'diascope[datasets]'"


def stream_rows(name: str) -> Iterator[Row]:
    """The rows of `name`. Raises ValueError for a missing file, an unknown kind, bytes that are no UTF-8, and what is not JSON."""
    if name.startswith("hf:"):
        return _hub(name[3:])
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no file {name!r}")
    if path.suffix not in READERS:
        raise ValueError(f"{name} has no rows: give {', '.join(READERS)}, or hf:<data set>")
    return READERS[path.suffix](path)


def _lines(path: Path) -> Iterator[str]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8 text (byte {offset + error.start}): convert it, or pass jsonl or parquet"
                ) from error
            offset += len(line)


def _jsonl(path: Path) -> Iterator[Row]:
    for i, line in enumerate(_lines(path)):
        if line.strip():
            try:
                yield i, f"{path}, line {i + 1}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{path}, line {i + 1} is not JSON: {error}") from error


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    try:
        for i, row in enumerate(csv.DictReader(_lines(path))):
            yield i, f"{path}, row {i + 1}", row
    except csv.Error as error:
        raise ValueError(f"{path} is not CSV: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError(f"reading parquet needs pyarrow: {EXTRA}") from error
    number = count()
    for batch in parquet.ParquetFile(path).iter_batches(4096):
        for row in batch.to_pylist():
            i = next(number)
            yield i, f"{path}, row {i + 1}", row


def _hub(name: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"reading {name} needs the datasets package: {EXTRA}") from error
    for i, row in enumerate(datasets.load_dataset(name, split="train", streaming=True)):
        yield i, f"{name}, row {i + 1}", row


READERS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
