"""What a run of descriptions stands on: its identity, its latents and their windows.

1. A new run sweeps its text, draws its latents by key, and keeps their firings beside its identity.
2. A run that goes on must be the same one (model, dictionary, text, settings, judge); it takes latents and firings from its folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diascope.config import within
from diascope.dictionaries import Dictionary, weights_hash
from diascope.latents.describe.kept import keep, kept, only
from diascope.latents.describe.windows import Grid, Sampling
from diascope.latents.examples import Firings, live_rows, sweep
from diascope.models import Model
from diascope.storage.files import read_json, write_json
from diascope.tokens import Sequences

FORMAT = "diascope-describe-1"
NAME = "describe.json"


class Ground:
    """The ground of the run in `folder`; `own` says what else makes it this run and no other."""

    def __init__(
        self, model: Model, dictionary: Dictionary, sequences: Sequences, folder: Path, own: Mapping[str, Any]
    ) -> None:
        self.model, self.dictionary, self.sequences, self.folder = model, dictionary, sequences, folder
        text = hashlib.sha256(np.ascontiguousarray(sequences.tokens).tobytes())
        text.update("\n".join(sequences.names).encode())
        self.identity = {
            "format": FORMAT, "model": model.name, "dictionary": weights_hash([dictionary]), "text": text.hexdigest()[:16], **own,
        }  # fmt: skip

    def begin(
        self,
        latents: int | Sequence[int],
        sampling: Sampling,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[list[int], Grid]:
        """The latents (how many to draw, or which) and all windows. ValueError where the folder holds another run."""
        if isinstance(latents, int):
            within("latents", latents, 1, 2**31)
        elif not latents or not 0 <= min(latents) <= max(latents) < self.dictionary.d_sae:
            raise ValueError(f"latents are {list(latents)[:3]}: give some of 0 to {self.dictionary.d_sae - 1}, or how many")
        asked = latents if isinstance(latents, int) else sorted(dict.fromkeys(map(int, latents)))
        self.identity["asked"] = asked
        before = self._before()
        firings = (kept(self.folder) if before else None) or self._swept(progress)
        grid = Grid(self.model, self.sequences, firings, sampling)
        if before:
            return before, grid
        chosen = grid.draw(asked) if isinstance(asked, int) else asked
        keep(self.folder, only(firings, chosen))
        return chosen, grid

    def stand(self, latents: list[int]) -> dict[str, Any]:
        """Write the identity, with the latents that were drawn."""
        self.identity["latents"] = latents
        write_json(self.folder / NAME, self.identity)
        return self.identity

    def _before(self) -> list[int] | None:
        """The latents of the run that the folder holds; None where it holds none."""
        if not (self.folder / NAME).exists():
            return None
        known = read_json(self.folder / NAME)
        differs = [k for k in self.identity if not isinstance(known, dict) or known.get(k) != self.identity[k]]
        if differs:
            raise ValueError(
                f"{self.folder} holds another run (other {', '.join(differs)}): choose another folder, or delete it"
            )
        return known["latents"]

    def _swept(self, progress: Callable[[int, int], None]) -> Firings:
        total = int(self.sequences.rows(self.model).sum())
        rows = live_rows(self.model, self.sequences, list(self.dictionary.config.reads))
        return sweep({"d": self.dictionary}, rows, progress=lambda done: progress(done, total))["d"]
