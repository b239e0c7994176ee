"""Maps of an index's sources: made in a thread of their own, kept in the index, gone on with where they were left.

    sources/<k>/map.safetensors        positions [S, 2] float32 of the finished neighbour embedding; metadata: about (JSON)
                map.safetensors.part   the same of one that is not finished, with its epoch; never sealed

The principal map is computed when it is asked for: it takes a second. Positions of the embedding depend on the index and on
the decoder alone. Where the index cannot be written to, a finished map is held in memory, and says so.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from diascope.explorer.decoder_map import Embedding, kept, neighbours_of, principal
from diascope.explorer.decoders import decoder_rows
from diascope.latents.store import Index, Source
from diascope.storage.files import commit_file, reading
from diascope.storage.seals import resealed

NAME = "map.safetensors"
PART = f"{NAME}.part"
FORMAT = "diascope-map-1"
EVERY = 5.0  # seconds between checkpoints
Map = tuple[np.ndarray, dict[str, Any]]  # positions [S, 2], about


def read_map(path: Path, latents: int) -> Map | None:
    """The map in a file; None where there is none. ValueError where it is damaged, or of another source."""
    if not path.is_file():
        return None
    with reading(path, "delete it: it is made again"):
        with safe_open(path, "numpy") as file:
            about, positions = json.loads((file.metadata() or {})["about"]), file.get_tensor("positions")
        if about.get("format") != FORMAT or positions.shape != (latents, 2):
            raise ValueError(f"{path} is no map of these {latents} latents: delete it, it is made again")
    return positions, about


def write_map(path: Path, positions: np.ndarray, about: dict[str, Any]) -> None:
    """Write a map, whole or not at all."""
    with commit_file(path) as work:
        save_file({"positions": np.ascontiguousarray(positions)}, work, {"about": json.dumps(about | {"format": FORMAT})})


def make_map(
    index: Index,
    source: Source,
    dictionary: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    epochs: int = 0,
) -> Map:
    """The neighbour embedding of a source, from the index or made and written into it; killed, the same call goes on.

    `dictionary` is the folder with the decoder, which gives the outline; it may be missing. Where the index cannot be written
    to, what is known of the map says so (`unsaved`). Raises ValueError where the index names no neighbours.
    """
    folder = index.folder / "sources" / str(source.number)
    if (there := read_map(folder / NAME, len(source))) is not None:
        return there
    near = neighbours_of(source)
    if not (near[0] >= 0).any():
        raise ValueError(f"the index names no neighbours of {source.name}'s latents: there is nothing to make a map of")
    rows = decoder_rows(dictionary)
    found = _begun(folder / PART, near, None if rows is None or len(rows) != len(source) else principal(rows)[0], epochs)
    about = {
        "kind": "neighbours",
        "neighbours": near[0].shape[1],
        "epochs": found.epochs,
        "outline": "random" if rows is None else "principal",
    }
    saved = time.monotonic()
    while not found.done:
        found.advance()
        progress(found.epoch, found.epochs)
        if time.monotonic() - saved > EVERY:
            with contextlib.suppress(OSError):  # a read-only index: then a killed map is begun anew
                write_map(folder / PART, found.positions, about | {"epoch": found.epoch})  # float64: as if it had not stopped
            saved = time.monotonic()
    positions = found.positions.astype(np.float32)
    about["kept"] = kept(positions, near)
    try:
        with resealed(index.folder, f"sources/{source.number}/{NAME}") as path:
            write_map(path, positions, about)
        (folder / PART).unlink(missing_ok=True)
    except OSError as error:
        about["unsaved"] = f"the index cannot be written to ({error})"
    return positions, about


def _begun(path: Path, near: tuple[np.ndarray, np.ndarray], start: np.ndarray | None, epochs: int) -> Embedding:
    """The embedding at its last checkpoint, or at its beginning."""
    found = Embedding.begin(near, start, epochs=epochs)
    try:
        left = read_map(path, len(near[0]))
    except ValueError:  # half of a file of an earlier version: the map is only derived
        left = None
    if left and left[1].get("epochs") == found.epochs and left[0].dtype == np.float64:
        found.positions, found.epoch = left[0], int(left[1]["epoch"])
    return found


class Maps:
    """The maps of an index, one being made at a time."""

    def __init__(self, index: Index, workspace: Path) -> None:
        self.index, self.workspace = index, workspace
        self._made: dict[tuple[str, str], Map] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._one = threading.Lock()  # a map takes a processor: the next waits
        self._lock = threading.Lock()

    def _dictionary(self, source: Source) -> Path:
        return self.workspace / "dictionaries" / source.name

    def about(self, source: Source) -> dict[str, Any]:
        """What maps there are, and how far the one is that is being made."""
        state = self._states.get(source.name, {"state": "none"})
        if state["state"] == "none" and self.get(source, "neighbours") is not None:
            state = {"state": "ready"}
        has = (self._dictionary(source) / "weights.safetensors").is_file()
        return {**state, "principal": has, "latents": len(source)}

    def known(self, source: Source, kind: str) -> Map | None:
        """A map that was asked for before; None where it would have to be read or computed."""
        return self._made.get((source.name, kind))

    def get(self, source: Source, kind: str) -> Map | None:
        """A map that there is: positions and what is known of it. ValueError where its file is damaged."""
        key = (source.name, kind)
        if key not in self._made:
            found = self._principal(source) if kind == "principal" else self._read(source)
            if found is None:
                return None
            self._made[key] = found
        return self._made[key]

    def _read(self, source: Source) -> Map | None:
        return read_map(self.index.folder / "sources" / str(source.number) / NAME, len(source))

    def _principal(self, source: Source) -> Map | None:
        rows = decoder_rows(self._dictionary(source))
        if rows is None or len(rows) != len(source):
            return None
        positions, share = principal(rows)
        return positions, {"kind": "principal", "share": share}

    def start(self, source: Source) -> dict[str, Any]:
        """Begin to make the neighbour map, unless it is there or being made; the state."""
        with self._lock:
            state = self.about(source)
            if state["state"] in ("ready", "waiting", "making"):
                return state
            self._states[source.name] = {"state": "waiting", "done": 0, "total": 0}
        threading.Thread(target=self._make, args=(source,), name=f"map of {source.name}", daemon=True).start()
        return self.about(source)

    def _make(self, source: Source) -> None:
        def tell(done: int, total: int) -> None:
            self._states[source.name] = {"state": "making", "done": done, "total": total}

        with self._one:
            try:
                self._made[source.name, "neighbours"] = make_map(self.index, source, self._dictionary(source), progress=tell)
                self._states[source.name] = {"state": "ready"}
            except (ValueError, OSError, MemoryError) as error:  # shown on the page; browsing goes on
                self._states[source.name] = {"state": "failed", "problem": str(error) or type(error).__name__}
