"""Read a spool: rows in any order, memory-mapped, so that they cost memory only while in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from diascope.activations.batches import WINDOW
from diascope.activations.codecs import codec
from diascope.activations.layout import Layout
from diascope.activations.writer import file_of, numbers, run_folder
from diascope.numerics import Moments
from diascope.sites import Site
from diascope.storage.files import read_json, reading, sha256_file
from diascope.storage.seals import check_seal

FORMAT = "diascope-spool-2"


class RowReader:
    """Random access to the rows of a spool, numbered in the order of the text."""

    def __init__(self, folder: str | Path, *, window: int = WINDOW) -> None:
        self.folder, self.window = Path(folder), window
        if not (self.folder / "manifest.json").exists():
            raise ValueError(f"{folder} is no spool of activations: it has no manifest.json")
        with reading(self.folder, "delete the spool and harvest again"):
            self._open()

    def _open(self) -> None:
        self.manifest = read_json(self.folder / "manifest.json")
        if self.manifest.get("format", FORMAT) != FORMAT:
            raise ValueError(f"{self.folder} is of another version ({self.manifest['format']}): delete it and harvest again")
        self.sites = tuple(Site.parse(s) for s in self.manifest["sites"])
        self._codec = codec(self.manifest.get("codec", "bfloat16"))
        there = numbers(self.folder)
        if not len(there):
            raise ValueError(f"{self.folder} has no finished run: harvest first")
        if len(there) <= there[-1]:
            raise ValueError(f"{self.folder} lacks run {int(np.setdiff1d(np.arange(there[-1]), there)[0])}: harvest again")
        self._runs = [run_folder(self.folder, int(r)) for r in there]
        for run in self._runs:
            check_seal(run, ["done.json"], way_out=f"delete {run} and harvest again")
        self.done = [read_json(run / "done.json") for run in self._runs]
        path = self.folder / "manifest.json"
        if self.done[0].get("manifest") not in (None, sha256_file(path)):
            raise ValueError(
                f"{path} is damaged, or was changed (its hash is not the one in its runs): delete the spool and harvest again"
            )
        self._checked: set[Path] = set()
        self.layout = Layout([d["rows"] for d in self.done], int(self.manifest.get("seed", 0)))
        self._ids = [_mapped(run / "rows.safetensors") for run in self._runs]
        self._vectors = {site: [_mapped(run / file_of(site)) for run in self._runs] for site in self.sites}
        for run, rows, *parts in zip(self._runs, self.layout.counts, *self._vectors.values(), strict=True):
            if any(len(part["rows"]) != rows for part in parts):
                raise ValueError(
                    f"{run} does not hold the {rows} rows that its done.json says: delete that folder and harvest again"
                )
        self.usable = self._column("usable") if any(d.get("not_finite") for d in self.done) else None

    def __len__(self) -> int:
        return len(self.layout)

    def moments(self, site: Site, runs: Sequence[int] | np.ndarray | None = None) -> Moments:
        """The moments at `site` of all usable rows, or of those of some runs, merged from what each run stored."""
        total = Moments.empty(self._vectors[site][0]["rows"].shape[1])
        for r in range(len(self._runs)) if runs is None else runs:
            path = self._runs[r] / "moments.safetensors"
            self._check(int(r), path.name)
            with reading(path, f"delete {self._runs[r]} and harvest again"):
                data = load_file(path)
                n = self.done[r]["rows"] - self.done[r].get("not_finite", 0)
                total = total.merge(Moments(n, data[f"{site}.mean"], data[f"{site}.m2"]))
        return total

    def norms(self, site: Site) -> np.ndarray:
        """|x| of every row at `site` [rows]."""
        return self._column(f"norm.{site}")

    def documents(self, index: np.ndarray) -> np.ndarray:
        """The document of each row [len(index)]."""
        return self.column("document", index)

    def column(self, name: str, index: np.ndarray) -> np.ndarray:
        """What rows.safetensors says of rows `index`: token, document, position or next_token [len(index)]."""
        out = np.empty(len(index), np.int32)
        for r, here, places in self._places(np.asarray(index)):
            self._check(r, "rows.safetensors")
            out[here] = self._ids[r][name].numpy()[places]
        return out

    def read(self, site: Site, index: Sequence[int] | np.ndarray) -> Tensor:
        """Rows `index` at `site`, in that order, [len(index), d] float32."""
        index, parts = np.asarray(index), self._vectors[site]
        out = torch.empty(len(index), parts[0]["rows"].shape[1])
        for r, here, places in self._places(index):
            self._check(r, file_of(site))
            out[torch.from_numpy(here)] = self._codec.decode(parts[r], torch.from_numpy(places).long())
        return out

    def codec_fvu(self, site: Site) -> float:
        """What the codec cost at `site`: squared error over variance, over all runs."""
        counts = self.layout.counts
        return float(np.average([d["sites"][str(site)]["codec_fvu"] for d in self.done], weights=counts))

    def check(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Compare every file with its hash; ValueError that names the first which differs. `progress(runs done, runs)`."""
        for i, run in enumerate(self._runs):
            check_seal(run, way_out=f"delete {run} and harvest again")
            progress(i + 1, len(self._runs))

    def _check(self, r: int, name: str) -> None:
        """Compare a file with its hash before its first use: what is read is what was written."""
        path = self._runs[r] / name
        if path not in self._checked:
            check_seal(path.parent, [name], way_out=f"delete {path.parent} and harvest again")
            self._checked.add(path)

    def _column(self, name: str) -> np.ndarray:
        """A column of rows.safetensors in the order of the text [rows]; True in runs without it."""
        parts = []
        for r, ids in enumerate(self._ids):
            self._check(r, "rows.safetensors")
            found = ids[name].numpy() if name in ids else np.ones(int(self.layout.counts[r]), bool)
            parts.append(found[self.layout.places(r)])
        return np.concatenate(parts)

    def _places(self, index: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """(run, which of `index` lie in it, their places in its file) for each run with any."""
        run = self.layout.runs_of(index)
        found = []
        for r in np.unique(run).tolist():
            here = np.flatnonzero(run == r)
            found.append((r, here, self.layout.places(r)[index[here] - self.layout.starts[r]]))
        return found


def _mapped(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118: no dict
