"""Run the model over packed sequences and keep the vectors of ordinary tokens.

A run covers a fixed range of sequences, so it is a pure function of (plan, run index); runs that are already
committed are passed over. Special tokens (BOS above all: its norm is 2 to 13 times the median) are no rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from diascope.activations import RowReader, Rows, RowWriter
from diascope.config import to_data
from diascope.models import Model
from diascope.sites import Site
from diascope.tokens import Sequences


@dataclass(frozen=True)
class Harvest:
    """What to harvest."""

    sites: tuple[str, ...]
    """Sites to keep, in any dialect; all of them come from one forward pass."""
    run_sequences: int = 32
    """Sequences a run (the unit of resumption)."""
    batch_sequences: int = 4
    """Sequences a forward pass."""


def fingerprint(array: np.ndarray) -> str:
    """A short hash of an array's shape and values."""
    return hashlib.sha256(str(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def harvest(
    model: Model,
    sequences: Sequences,
    plan: Harvest,
    folder: str | Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RowReader:
    """Write the rows of `sequences` at the plan's sites into the spool `folder`, and open it.

    `progress(done, total)` is called in tokens. Raises ValueError for a site that the model lacks.
    """
    sites = [Site.parse(s) for s in plan.sites]
    identity = {"tokens": fingerprint(sequences.tokens), "positions": fingerprint(sequences.positions)}
    if model.companions:
        identity["companions"] = ", ".join(f"{name}: {other.name}" for name, other in model.companions.items())
    if sequences.role is not None:
        identity["roles"] = fingerprint(sequences.role)
    manifest = {
        "format": "diascope-spool-1",
        "sites": [str(s) for s in sites],
        "widths": [model.width(s) for s in sites],
        "codec": "bfloat16",
        "model": model.name,
        "model_dtype": str(model.dtype).removeprefix("torch."),
        "plan": to_data(plan),
        "documents": list(sequences.names),
        **identity,
    }
    writer = RowWriter(folder, manifest)
    total = sequences.tokens.size
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1, "diascope-spool") as disk:  # one run is written while the next is computed
        for run, start in enumerate(range(0, len(sequences), plan.run_sequences)):
            stop = min(start + plan.run_sequences, len(sequences))
            if not writer.has(run):
                rows = _rows(model, sequences, sites, range(start, stop), plan.batch_sequences, progress, total)
                if writing:
                    writing.result()
                writing = disk.submit(writer.write, run, rows)
                del rows
            progress(stop * sequences.tokens.shape[1], total)
        if writing:
            writing.result()
    return RowReader(folder)


def _rows(
    model: Model,
    sequences: Sequences,
    sites: list[Site],
    which: range,
    batch: int,
    progress: Callable[[int, int], None],
    total: int,
) -> Rows:
    vectors: dict[Site, list[torch.Tensor]] = {s: [] for s in sites}
    ids: dict[str, list[np.ndarray]] = {"token": [], "document": [], "position": []}
    rows = sequences.rows(model)
    for start in range(which.start, which.stop, batch):
        here = slice(start, min(start + batch, which.stop))
        tokens = torch.from_numpy(sequences.tokens[here]).long()
        positions = torch.from_numpy(sequences.positions[here]).long()
        seen = model.capture(tokens, sites, positions=positions)
        kept = rows[here]
        keep = torch.from_numpy(kept)
        for site in sites:
            vectors[site].append(seen[site][keep.to(seen[site].device)].cpu())
        ids["token"].append(sequences.tokens[here][kept])
        ids["document"].append(sequences.document[here][kept])
        ids["position"].append(sequences.positions[here][kept])
        progress(here.stop * sequences.tokens.shape[1], total)
    joined = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in ids.items()}
    return Rows({s: torch.cat(v) for s, v in vectors.items()}, **joined)
