"""Reading others' files into a stage, and an index out of it: what bulk files and batches share.

1. Every file is one transaction of the stage; files that are named there are not read again.
2. Left out, and counted: examples without any activation above 0, repeats of an example of the same latent in the same
   interval, and descriptions without a text.
3. A file that cannot be read ends the import with its name, and the stage stays: the same call goes on with that file.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diascope.latents.describe.shelf import Description
from diascope.latents.exchange.rebuild import Progress, write_index
from diascope.latents.exchange.stage import Stage, StagedExample, StagedNeuron
from diascope.storage.files import check_target, reading

Counts = dict[str, int]
Interval = tuple[float | None, float | None, float | None]  # binMin, binMax, binContains as files have them
ZERO, REPEATED, UNSAID = "examples without activation", "repeated examples", "empty descriptions"


@dataclass(frozen=True)
class Intake:
    """One file to read: of which source, and what it holds."""

    path: Path
    source: int
    kind: str


@dataclass(frozen=True)
class Row:
    """One row as the stage takes it; `left_out` says why it does not."""

    latent: int
    staged: StagedNeuron | StagedExample | Description | None
    left_out: str = ""

    @classmethod
    def neuron(
        cls, stage: Stage, latent: int, largest: float, density: float, histogram: tuple[Sequence[float], Sequence[float]],
        top: tuple[Sequence[str], Sequence[float]], bottom: tuple[Sequence[str], Sequence[float]],
        near: tuple[Sequence[int], Sequence[float]],
    ) -> Row:  # fmt: skip
        """A latent's own row. ValueError where lists that belong together are not as long as each other."""
        _finite("maxActApprox and frac_nonzero", [largest, density])
        heights, centres = histogram
        if heights and len(heights) != len(centres):
            raise ValueError(f"a histogram has {len(heights)} heights and {len(centres)} values")
        pairs = [_pairs([stage.number(t) for t in texts], values, "tokens") for texts, values in (top, bottom)]
        return cls(
            latent,
            StagedNeuron(
                largest, density, list(heights), list(centres), *pairs, neighbours=_pairs(near[0], near[1], "neighbours")
            ),
        )

    @classmethod
    def example(
        cls, stage: Stage, latent: int, tokens: Sequence[str], values: Sequence[float], interval: Interval, peak: int | None
    ) -> Row:
        """One example. ValueError where tokens and values are not as many."""
        if len(tokens) != len(values):
            raise ValueError(f"an example of {latent} has {len(tokens)} tokens and {len(values)} values")
        _finite("values", values)
        fired = [(i, float(v)) for i, v in enumerate(values) if v > 0]
        if not fired:
            return cls(latent, None, ZERO)
        if peak is None or not 0 <= peak < len(values) or not values[peak] > 0:
            peak = max(fired, key=lambda f: f[1])[0]
        low, high, share = interval
        if low is None or high is None or share is None or low < 0 or share < 0:
            low, high, share = -1.0, -1.0, -1.0  # one of the strongest
        return cls(latent, StagedExample(stage.text(tokens), len(tokens), peak, low, high, share, fired))

    @classmethod
    def said(cls, latent: int, by: str, text: str) -> Row:
        """One description."""
        return cls(latent, Description(by, text.strip()) if text.strip() else None, "" if text.strip() else UNSAID)


def read_in(
    folder: Path,
    target: Path,
    files: Sequence[Intake],
    model: str,
    metas: Sequence[dict[str, Any]],
    rows: Callable[[Intake, Stage], Iterable[Row]],
    *,
    progress: Progress,
) -> tuple[Path, Counts]:
    """Read `files` by `rows(file, stage)` and write the index `target`; gives it and how many rows were left out, by why."""
    if target.exists():
        raise ValueError(f"{target} exists already: choose another folder, or delete it")
    parts = target.with_name(f".{target.name}.parts")
    check_target(parts)
    with Stage(parts) as stage:
        for done, file in enumerate(files):
            name = file.path.relative_to(folder).as_posix()
            progress(done, len(files), name)
            if not stage.done(name, file.path.stat().st_size):
                _read(file, name, stage, rows)
        progress(len(files), len(files), "")
        written = write_index(stage, target, model, metas, progress=progress)
        counts = stage.counts()
    shutil.rmtree(parts, ignore_errors=True)
    return written, counts


def _read(file: Intake, name: str, stage: Stage, rows: Callable[[Intake, Stage], Iterable[Row]]) -> None:
    counts, before = Counter[str](), set[tuple[int, ...]]()
    stage.begin()
    try:
        with reading(file.path, "fetch it again"):
            for row in rows(file, stage):
                if isinstance(row.staged, StagedExample):
                    e = row.staged
                    key = (file.source, row.latent, e.text, e.peak, hash((e.low, e.high)))
                    if key in before:  # a latent's examples stand in one file
                        counts[REPEATED] += 1
                        continue
                    before.add(key)
                _add(stage, file.source, row, counts)
    except BaseException:
        stage.undo()
        raise
    stage.end(name, file.path.stat().st_size, counts)


def _add(stage: Stage, source: int, row: Row, counts: Counter[str]) -> None:
    if row.staged is None:
        counts[row.left_out] += 1
    elif isinstance(row.staged, StagedNeuron):
        stage.add_neuron(source, row.latent, row.staged)
    elif isinstance(row.staged, StagedExample):
        stage.add_example(source, row.latent, row.staged)
    else:
        stage.add_said(source, row.latent, row.staged)


def _pairs(keys: Sequence[int], values: Sequence[float], what: str) -> list[tuple[int, float]]:
    if len(keys) != len(values):
        raise ValueError(f"there are {len(keys)} {what} and {len(values)} values of them")
    _finite(f"values of {what}", values)
    return [(int(k), float(v)) for k, v in zip(keys, values, strict=True)]


def _finite(what: str, values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{what} must be finite numbers")
