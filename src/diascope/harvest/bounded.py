"""A spool of bounded size: harvesters write ahead of training, which takes away what it has passed.

    manifest.json   of the harvest, with "bounded": bytes that rows may take
    reading.json    window: the one that training is in, counted over all epochs; finished: it needs no more; training: which one
    runs/           those of that window and of the next: together at most the bound

Two windows fit the bound, so nothing has to be counted: a harvester writes the runs of these two that are missing, and waits
while none is. Training asks for a run that is not there yet: it waits where a harvester holds it, and makes it itself where
nobody does. So training alone also ends, and goes on after a crash wherever it stood; a run is a pure function of its number.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diascope import rng
from diascope.activations import WINDOW, Batches, RowReader, RowWriter
from diascope.activations.batches import opened_by, windows
from diascope.activations.reader import row_bytes
from diascope.activations.writer import run_folder
from diascope.distributed import ALONE, Axis
from diascope.harvest.worker import WAIT, Harvest, checked_run, layout_of, manifest_of
from diascope.models import Model
from diascope.numerics import Moments
from diascope.sites import Site
from diascope.tokens import Sequences

READING = "reading.json"


class BoundedReader(RowReader):
    """The interface of RowReader over runs that come and go. `seed` is training's, which orders the windows."""

    def __init__(
        self,
        model: Model,
        sequences: Sequences,
        plan: Harvest,
        folder: str | Path,
        *,
        disk: float = 4e9,
        seed: int = 0,
        training: str = "",
        cache: Path | None = None,
    ) -> None:
        """`disk` bytes bound what lies in `folder`, which may be s3://BUCKET/PREFIX (what is fetched takes as much again). One training at a
        time may read it; `training` names it, so that harvesters do not take another's end for its own.

        Raises ValueError where two runs do not fit, or where `folder` holds rows of another harvest.
        """
        if plan.not_finite != "refuse":
            raise ValueError("rows that are not finite can be left out only of a whole spool, which knows them beforehand")
        self.model, self.sequences, self.plan, self.seed, self.training = model, sequences, plan, seed, training
        manifest = manifest_of(model, sequences, plan) | {"bounded": disk}
        layout, row = layout_of(model, sequences, plan), row_bytes(manifest)
        if disk < 2 * row * (largest := int(layout.counts.max())):
            raise ValueError(
                f"two runs of {largest:,} rows take {2 * largest * row / 1e9:.2g} GB, more than the {disk / 1e9:.2g} GB given to rows: "
                "give more (--row-bytes)"
            )
        self._writer = RowWriter(folder, manifest)
        self._there: set[int] = set()
        super().__init__(folder, window=int(min(WINDOW, disk / row / 2)), cache=cache, cache_bytes=disk)
        self.layout, self.usable, self.done = layout, None, []

    def _open_runs(self, cache_bytes: float) -> None:
        self._runs = [run_folder(r) for r in range(-(-len(self.sequences) // self.plan.run_sequences))]

    def batches(self, batch: int, epochs: float) -> Batches:
        """The stream that training reads."""
        return Batches(self.layout, batch, epochs, self.seed, window=self.window)

    def position(self) -> tuple[int, bool]:
        """The window that this training is in, the first before it has begun, and whether it needs no more."""
        known = self.vault.read(READING) or {}
        return (int(known["window"]), bool(known["finished"])) if known.get("training") == self.training else (0, False)

    def moments(self, site: Site, runs: Sequence[int] | np.ndarray | None = None) -> Moments:
        """The moments at `site` of all rows, or of those of some runs, which are made where they are missing."""
        chosen = range(len(self._runs)) if runs is None else [int(r) for r in runs]
        for r in chosen:
            self._path(r, "moments.safetensors")  # what goes wrong in making them is no damaged file
        return super().moments(site, chosen)

    def norms(self, site: Any) -> None:
        """Not known before the rows are made."""
        return None

    def documents(self, index: np.ndarray) -> np.ndarray:
        """The document of each row [len(index)]."""
        return self.sequences.document[self.sequences.rows(self.model)][index]

    def wanted(self, window: int) -> list[int]:
        """The runs of a window of the stream and of the next, in the order in which they are needed."""
        both = [opened_by(self.layout, self.window, self.seed, w) for w in (window, window + 1)]
        return list(dict.fromkeys(np.concatenate(both).tolist()))

    def come_to(self, window: int, *, everyone: Axis = ALONE.everyone, finished: bool = False) -> None:
        """Let go of the runs that neither this window nor the next holds; the first process deletes them."""
        everyone.wait()  # nobody reads any more what goes now
        wanted = set(self.wanted(window))
        for r in self._there - wanted:
            self._forget(self._runs[r])
        self.vault.keep_fetched({self._runs[r] for r in wanted})
        self._checked = {p for p in self._checked if int(p.parent.name) in wanted}
        self._there &= wanted
        if everyone.rank == 0:
            self.vault.write(READING, {"window": window, "finished": finished, "training": self.training})
            for r in {int(n) for n in self.vault.names("runs")} - wanted:
                self.vault.delete(run_folder(r))
            self.vault.sweep("runs")
        everyone.wait()  # nobody looks for rows while others take them away

    def open_window(self, window: int, *, everyone: Axis = ALONE.everyone) -> None:
        """Make the runs of a window that are missing, each in one process; what a harvester is at is left to it."""
        runs = opened_by(self.layout, self.window, self.seed, window).tolist()
        missing = everyone.objects([r for r in runs if not self._writer.has(r)])[0]
        for r in missing[everyone.rank :: everyone.size]:
            self.make(r)
        everyone.wait()

    def _path(self, r: int, name: str) -> Path:
        while r not in self._there:
            if self.make(r):
                self._there.add(r)
            else:
                time.sleep(WAIT)
        return super()._path(r, name)

    def make(self, r: int) -> bool:
        """See that run `r` is there, making it if nobody else is at it; whether it is."""
        if self._writer.has(r):
            return True
        with self.vault.claim(run_folder(r)) as mine:
            if mine and not self._writer.has(r):
                self._writer.write(r, *checked_run(self.model, self.sequences, self.plan, r))
            return mine


def feed(reader: BoundedReader, batches: Batches, *, progress: Callable[[int, int, str], None] = lambda *_: None) -> None:
    """Keep the spool of `reader` full for a training that reads `batches`, until that has come to its last window.

    Any number of processes may do so. `progress(runs, runs, note)` is of the whole stream.
    """
    each = [len(w) for w in windows(reader.layout, reader.window, reader.seed, 0)]  # every epoch has as many, as long
    before = np.concatenate(
        [[0], np.cumsum(each * (-(-batches.windows // len(each))))]
    )  # runs before each window of the stream
    total = int(before[batches.windows])
    while True:
        now, finished = reader.position()
        if finished:
            break
        now = min(now, batches.windows - 1)
        wanted = reader.wanted(now)[: int(before[min(now + 2, batches.windows)] - before[now])]
        left = [r for r in wanted if not reader.vault.has(run_folder(r))]
        done = int(before[now]) + len(wanted) - len(left)
        progress(done, total, "" if left else "the spool is full: waiting for training")
        if not reader.vault.local and left:  # nobody can claim a run there, so each begins somewhere else
            turn = rng.key(os.getpid(), socket.gethostname()) % len(left)
            left = left[turn:] + left[:turn]
        if not any(reader.make(r) for r in left):
            time.sleep(WAIT)
    progress(total, total, "")
