"""Run the model over packed sequences and keep the vectors of ordinary tokens.

A run covers a fixed range of sequences, so it is a pure function of (plan, run index); runs that are already
committed are passed over. Special tokens (BOS above all: its norm is 2 to 13 times the median) are no rows.
Several processes may harvest into one folder: each takes runs that nobody holds, and waits for the others at the end.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diascope import rng
from diascope.activations import Layout, RowReader, Rows, RowWriter
from diascope.activations.reader import FORMAT
from diascope.activations.writer import run_folder
from diascope.config import to_data
from diascope.harvest.spot_check import spot_check
from diascope.models import Model
from diascope.sites import Site
from diascope.tokens import Sequences

WAIT = 0.5  # seconds between looks at what other harvesters have finished


@dataclass(frozen=True)
class Harvest:
    """What to harvest."""

    sites: tuple[str, ...]
    """Sites to keep, in any dialect; all of them come from one forward pass."""
    run_sequences: int = 32
    """Sequences a run (the unit of resumption)."""
    batch_sequences: int = 4
    """Sequences a forward pass."""
    codec: str = "bfloat16"
    """How rows are stored (activations/codecs.py)."""
    not_finite: str = "refuse"
    """Rows with values that are not finite: "refuse" stops and names the first, "leave out" stores none of them and counts."""
    seed: int = 0
    """Seed of the order in which a run's rows are stored."""

    @property
    def parsed(self) -> tuple[Site, ...]:
        return tuple(Site.parse(s) for s in self.sites)

    def run(self, number: int, sequences: Sequences) -> range:
        """The sequences of one run."""
        start = number * self.run_sequences
        return range(start, min(start + self.run_sequences, len(sequences)))


def fingerprint(array: np.ndarray) -> str:
    """A short hash of an array's shape and values."""
    return hashlib.sha256(str(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def layout_of(model: Model, sequences: Sequences, plan: Harvest) -> Layout:
    """How many rows each run has, before any is made."""
    rows = sequences.rows(model).sum(1)
    return Layout(np.add.reduceat(rows, np.arange(0, len(rows), plan.run_sequences)).tolist(), plan.seed)


def manifest_of(model: Model, sequences: Sequences, plan: Harvest) -> dict[str, Any]:
    """What identifies the rows of a harvest (docs/protocol.md, section 3)."""
    identity = {"tokens": fingerprint(sequences.tokens), "positions": fingerprint(sequences.positions)}
    if model.companions:
        identity["companions"] = ", ".join(f"{name}: {other.name}" for name, other in model.companions.items())
    if sequences.role is not None:
        identity["roles"] = fingerprint(sequences.role)
    return {
        "format": FORMAT,
        "sites": [str(s) for s in plan.parsed],
        "widths": [model.width(s) for s in plan.parsed],
        "codec": plan.codec,
        "seed": plan.seed,
        "not_finite": plan.not_finite,
        "model": model.name,
        "model_dtype": str(model.dtype).removeprefix("torch."),
        "plan": to_data(plan),
        "documents": list(sequences.names),
        **identity,
    }


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
    writer = RowWriter(folder, manifest_of(model, sequences, plan))
    total, context = sequences.tokens.size, sequences.tokens.shape[1]
    left = list(range(-(-len(sequences) // plan.run_sequences)))
    if (
        not writer.vault.local
    ):  # nobody can claim a run there, so each begins somewhere else, and passes over what it finds done
        first = rng.key(os.getpid(), socket.gethostname()) % max(len(left), 1)
        left = left[first:] + left[:first]
    # one run is written while the next is computed; whatever is claimed when something breaks is given up
    with ExitStack() as claims, ThreadPoolExecutor(1, "diascope-spool") as disk:
        while left:
            passed, writing = [], None
            for run in left:
                which, claim = plan.run(run, sequences), claims.enter_context(ExitStack())
                if not claim.enter_context(writer.vault.claim(run_folder(run))):
                    passed.append(run)  # another harvester has it
                    continue
                if writer.has(run):
                    claim.close()
                else:
                    rows, facts = checked_run(model, sequences, plan, run, lambda sequence: progress(sequence * context, total))
                    _finish(writing)
                    writing = disk.submit(writer.write, run, rows, facts), claim
                    del rows
                progress(which.stop * context, total)
            _finish(writing)
            left = [run for run in passed if not writer.has(run)]
            if left:
                time.sleep(WAIT)
    return RowReader(folder)


def _finish(writing: tuple[Future[None], ExitStack] | None) -> None:
    """Wait until a run is written, and give up the claim on it."""
    if writing:
        with writing[1]:
            writing[0].result()


def checked_run(
    model: Model, sequences: Sequences, plan: Harvest, run: int, progress: Callable[[int], None] = lambda sequence: None
) -> tuple[Rows, dict[str, Any]]:
    """The rows of a run, and what its spot check said."""
    which = plan.run(run, sequences)
    rows = run_rows(model, sequences, plan, which, progress)
    return rows, {"spot_check": spot_check(model, sequences, plan.parsed, which, rows)}


def run_rows(
    model: Model, sequences: Sequences, plan: Harvest, which: range, progress: Callable[[int], None] = lambda sequence: None
) -> Rows:
    """The rows of the sequences `which`, in the order of the text; `progress(sequences done)`."""
    vectors: dict[Site, list[torch.Tensor]] = {s: [] for s in plan.parsed}
    ids: dict[str, list[np.ndarray]] = {"token": [], "document": [], "position": [], "next_token": []}
    for start in range(which.start, which.stop, plan.batch_sequences):
        here = slice(start, min(start + plan.batch_sequences, which.stop))
        part = sequences.part(here.start, here.stop)
        seen = model.capture(
            torch.from_numpy(part.tokens).long(), plan.parsed, positions=torch.from_numpy(part.positions).long()
        )
        kept = part.rows(model)
        keep = torch.from_numpy(kept)
        for site, found in vectors.items():
            found.append(seen[site][keep.to(seen[site].device)].cpu())
        of_tokens = {
            "token": part.tokens,
            "document": part.document,
            "position": part.positions,
            "next_token": part.following(),
        }
        for name, found in ids.items():
            found.append(of_tokens[name][kept])
        progress(here.stop)
    joined = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in ids.items()}
    return Rows({s: torch.cat(v) for s, v in vectors.items()}, **joined)
