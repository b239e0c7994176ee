"""The firings of chosen latents in a file, so that a run that goes on need not sweep its text again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from diascope.latents.examples import Firings
from diascope.storage.files import commit_file, reading

NAME = "firings.safetensors"


def only(firings: Firings, latents: Sequence[int]) -> Firings:
    """The firings of `latents` alone; all others look as if they never fired."""
    count = np.zeros(len(firings.start) - 1, np.int64)
    count[list(latents)] = np.diff(firings.start)[list(latents)]
    entries = np.concatenate([np.arange(*firings.of(j).indices(len(firings.activation))) for j in sorted(latents)])
    start = np.concatenate([[0], np.cumsum(count)])
    return Firings(start, firings.activation[entries], firings.sequence[entries], firings.position[entries], firings.tokens)


def keep(folder: Path, firings: Firings) -> None:
    """Write `firings` into `folder`, whole or not at all."""
    columns = {"activation": firings.activation, "sequence": firings.sequence, "position": firings.position}
    columns |= {"start": firings.start.astype(np.int64), "tokens": np.array([firings.tokens], np.int64)}
    with commit_file(folder / NAME) as work:
        save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, work)


def kept(folder: Path) -> Firings | None:
    """What `keep` wrote into `folder`; None where it wrote nothing. ValueError where the file is damaged."""
    path = folder / NAME
    if not path.exists():
        return None
    with reading(path, "delete it: the text is then swept again"):
        columns = load_file(path)
        return Firings(
            columns["start"], columns["activation"], columns["sequence"], columns["position"], int(columns["tokens"][0])
        )
