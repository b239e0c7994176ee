"""Rows that the model makes when they are asked for: nothing on disk, the same batches.

A run is a pure function of its number, so the reader makes it when its window opens and forgets it when memory is needed.
Stored in float32, a spool of the same plan gives the same numbers to the bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.activations import WINDOW, Rows
from diascope.distributed import ALONE, Axis
from diascope.harvest.worker import Harvest, layout_of, manifest_of, run_rows
from diascope.models import Model
from diascope.numerics import Moments
from diascope.sites import Site
from diascope.tokens import Sequences


class LiveReader:
    """The interface of RowReader over a model. `memory` bytes of rows are held; half of them is the window, for a batch that
    straddles two windows reads both."""

    def __init__(
        self,
        model: Model,
        sequences: Sequences,
        plan: Harvest,
        *,
        memory: float = 4e9,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.model, self.sequences, self.plan, self.progress = model, sequences, plan, progress
        self.sites = plan.parsed
        self.manifest: dict[str, Any] = manifest_of(model, sequences, plan) | {"codec": "live"}
        self.layout = layout_of(model, sequences, plan)
        self.usable = None
        row = sum(model.width(s) for s in self.sites) * model.dtype.itemsize
        self.window, largest = int(min(WINDOW, memory / row / 2)), int(self.layout.counts.max())
        if self.window < largest:
            raise ValueError(
                f"two runs of {largest:,} rows take {2 * largest * row / 1e9:.2g} GB, more than the {memory / 1e9:.2g} GB given to live "
                "rows: give more, or store them (--store spool)"
            )
        self._runs: OrderedDict[int, Rows] = OrderedDict()
        self._moments: dict[tuple[int, Site], Moments] = {}
        self._most = 2 * (self.window // largest)
        self.made = 0  # tokens run through the model

    def __len__(self) -> int:
        return len(self.layout)

    def read(self, site: Site, index: Sequence[int] | np.ndarray) -> Tensor:
        """Rows `index` at `site`, in that order, [len(index), d] float32; their runs are made where they are not in memory."""
        index = np.asarray(index)
        run = self.layout.runs_of(index)
        out = torch.empty(len(index), self.model.width(site))
        for r in np.unique(run).tolist():
            here = np.flatnonzero(run == r)
            rows = self._run(r).vectors[site]
            out[torch.from_numpy(here)] = rows[torch.from_numpy(index[here] - self.layout.starts[r])].float()
        return out

    def moments(self, site: Site, runs: Sequence[int] | np.ndarray | None = None) -> Moments:
        """The moments at `site` of all rows, or of those of some runs."""
        total = Moments.empty(self.model.width(site))
        for r in range(len(self.layout.counts)) if runs is None else [int(r) for r in runs]:
            if (r, site) not in self._moments:
                self._run(r)
            total = total.merge(self._moments[r, site])
        return total

    def norms(self, site: Site) -> None:
        """Not known before the rows are made."""
        return None

    def come_to(self, window: int, *, everyone: Axis = ALONE.everyone, finished: bool = False) -> None:
        """Nothing to do: what was not read for longest goes when room is needed."""

    def open_window(self, window: int, *, everyone: Axis = ALONE.everyone) -> None:
        """Nothing to do: a run is made when its first row is read, by every process for itself."""

    def documents(self, index: np.ndarray) -> np.ndarray:
        """The document of each row [len(index)]."""
        return self.sequences.document[self.sequences.rows(self.model)][index]

    def _run(self, r: int) -> Rows:
        if r in self._runs:
            self._runs.move_to_end(r)
            return self._runs[r]
        while len(self._runs) >= self._most:  # first room, then the new run
            self._runs.popitem(last=False)
        which = self.plan.run(r, self.sequences)
        rows = run_rows(self.model, self.sequences, self.plan, which)
        for site, x in rows.vectors.items():
            if not torch.isfinite(x).all():
                bad = int((~torch.isfinite(x).all(1)).nonzero()[0])
                raise ValueError(
                    f"{site} has values that are not finite in run {r}, the first at position {int(rows.position[bad])} of document "
                    f"{int(rows.document[bad])}: compute in float32, or store the rows, where such rows can be left out"
                )
            self._moments[r, site] = Moments.of(x)
        self._runs[r] = rows
        self.made += len(which) * self.sequences.tokens.shape[1]
        self.progress(self.made, self.sequences.tokens.size)
        return rows
