"""Decoder rows of a workspace's dictionaries as NumPy arrays: browsing needs no torch for cosines and maps.

Only our own artefact is read (docs/protocol.md, section 2), which is what an index is built of. Of a dictionary that writes at
several sites the rows are those at the last one, which every latent writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from diascope.storage.files import read_json, reading

STRETCH = 16  # rows that are read together


def decoder_rows(folder: str | Path, *, some: int = 0) -> np.ndarray | None:
    """W_dec [S, d] float32 of the dictionary in `folder`; None where there is none of ours.

    With `some`, about that many rows alone, in stretches spread evenly, without reading the others. Raises ValueError where the
    dictionary is damaged.
    """
    folder = Path(folder)
    path = folder / "weights.safetensors"
    if not path.is_file() or not (folder / "config.json").is_file():
        return None
    with reading(path, "fetch or export it again"):
        width = int(read_json(folder / "config.json")["dictionary"]["widths_out"][-1])
        with safe_open(path, "numpy") as file:
            names = sorted((n for n in file.keys() if n.split(".")[0] == "W_dec"), key=_number)
            parts = [_read(file.get_slice(name), -(-some // len(names)))[:, -width:] for name in names]
        return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts), np.float32)


def _read(rows: Any, some: int) -> np.ndarray:
    """All rows of a tensor in a file, or `some` of them."""
    n = rows.get_shape()[0]
    if not some or some >= n:
        return rows[:]
    starts = range(0, n, max(STRETCH, n * STRETCH // some))
    return np.concatenate([rows[first : first + STRETCH] for first in starts])


def _number(name: str) -> int:
    _, _, number = name.partition(".")
    return int(number or 0)


def cosines(a: np.ndarray, b: np.ndarray, *, block: int = 4096) -> np.ndarray:
    """Cosine of each row of `a` with the same row of `b` [S] float32; 0 where one of them is zero."""
    out = np.zeros(len(a), np.float32)
    for first in range(0, len(a), block):
        x, y = a[first : first + block], b[first : first + block]
        size = np.sqrt((x * x).sum(1) * (y * y).sum(1))
        out[first : first + block] = np.divide((x * y).sum(1), size, out=np.zeros_like(size), where=size > 0)
    return out
