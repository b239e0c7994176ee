"""Read a spool: rows in any order, memory-mapped, so that they cost memory only while in use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from diascope.activations.batches import WINDOW
from diascope.activations.codecs import codec
from diascope.activations.layout import Layout
from diascope.activations.writer import file_of, manifest_hash, run_folder
from diascope.distributed import ALONE, Axis
from diascope.numerics import Moments
from diascope.sites import Site
from diascope.storage.files import read_json, reading
from diascope.storage.seals import SEAL, check_seal
from diascope.storage.vault import vault

FORMAT = "diascope-spool-2"
OPEN = 8192  # files that are mapped at once


class RowReader:
    """Random access to the rows of a spool, numbered in the order of the text."""

    def __init__(
        self, folder: str | Path, *, window: int = WINDOW, cache: Path | None = None, cache_bytes: float = 50e9
    ) -> None:
        """`folder` may be s3://BUCKET/PREFIX; its runs are then fetched when they are first read, and `cache_bytes` of them kept."""
        self.folder, self.window = Path(folder), window
        self.vault = vault(folder, cache=cache, cache_bytes=cache_bytes)
        if self.vault.local and not (self.folder / "manifest.json").exists():
            raise ValueError(f"{folder} is no spool of activations: it has no manifest.json")
        with reading(str(self.vault), "delete the spool and harvest again"):
            self._open()
            self._open_runs(cache_bytes)

    def _open(self) -> None:
        """What the manifest says."""
        self.manifest = self.vault.read("manifest.json")
        if self.manifest is None:
            raise ValueError(f"{self.vault} is no spool of activations: it has no manifest.json")
        self.vault.cached_as(manifest_hash(self.manifest), self._forget)
        if self.manifest.get("format", FORMAT) != FORMAT:
            raise ValueError(f"{self.vault} is of another version ({self.manifest['format']}): delete it and harvest again")
        self.sites = tuple(Site.parse(s) for s in self.manifest["sites"])
        self._codec = codec(self.manifest.get("codec", "bfloat16"))
        self._open_files: OrderedDict[tuple[int, str], dict[str, Tensor]] = OrderedDict()
        self._checked: set[Path] = set()

    def _open_runs(self, cache_bytes: float) -> None:
        """All runs, which must be there."""
        there = [int(n) for n in self.vault.names("runs") if n.isdecimal()]
        if self.manifest.get("bounded"):
            raise ValueError(f"{self.vault} is a bounded spool: its runs come and go with the training that reads them")
        if not there:
            raise ValueError(f"{self.vault} has no finished run: harvest first")
        if len(there) <= there[-1]:
            raise ValueError(f"{self.vault} lacks run {min(set(range(there[-1])) - set(there))}: harvest again")
        self._runs = [run_folder(r) for r in there]
        self.done = [read_json(self._path(r, "done.json")) for r in range(len(self._runs))]
        if self.done[0].get("manifest") not in (None, manifest_hash(self.manifest)):
            raise ValueError(
                f"{self.vault}/manifest.json is damaged, or was changed (its hash is not the one in its runs): delete the spool and "
                "harvest again"
            )
        self.layout = Layout([d["rows"] for d in self.done], int(self.manifest.get("seed", 0)))
        if not self.vault.local:  # two windows are open where a batch straddles them
            self.window = max(1, int(min(self.window, cache_bytes / row_bytes(self.manifest) / 2)))
        if self.vault.local:  # what is missing or cut short is said now; the bytes are compared when they are first read
            for r in range(len(self._runs)):
                for name in ("rows.safetensors", *map(file_of, self.sites)):
                    self._tensors(r, name, checked=False)
        self.usable = self._column("usable") if any(d.get("not_finite") for d in self.done) else None

    def _path(self, r: int, name: str) -> Path:
        """A file of a run, compared with its hash before its first use: what is read is what was written."""
        path = self.vault.file(self._runs[r], name)
        if path not in self._checked:
            check_seal(path.parent, [name], way_out=self._again(r))
            self._checked.add(path)
        return path

    def _again(self, r: int) -> str:
        return f"delete {self.vault}/{self._runs[r]} and harvest again"

    def _tensors(self, r: int, name: str, *, checked: bool = True) -> dict[str, Tensor]:
        """The tensors of a run's file, memory-mapped."""
        path = self._path(r, name) if checked else self.vault.file(self._runs[r], name)
        if (r, name) not in self._open_files:
            found = _mapped(path)
            rows = next((found[n] for n in ("rows", "token") if n in found), None)
            if rows is not None and len(rows) != (wanted := int(self.layout.counts[r])):
                raise ValueError(f"{path} does not hold the {wanted} rows that its run should have: {self._again(r)}")
            self._open_files[r, name] = found
            while len(self._open_files) > OPEN:
                self._open_files.popitem(last=False)
        return self._open_files[r, name]

    def _forget(self, run: str) -> None:
        """Let go of a run that has left the cache: its bytes are free only then."""
        r = self._runs.index(run)
        self._open_files = OrderedDict((k, v) for k, v in self._open_files.items() if k[0] != r)

    def come_to(self, window: int, *, everyone: Axis = ALONE.everyone, finished: bool = False) -> None:
        """Nothing goes: a spool keeps its rows."""

    def open_window(self, window: int, *, everyone: Axis = ALONE.everyone) -> None:
        """Nothing to make: all rows are there."""

    def __len__(self) -> int:
        return len(self.layout)

    def moments(self, site: Site, runs: Sequence[int] | np.ndarray | None = None) -> Moments:
        """The moments at `site` of all usable rows, or of those of some runs, merged from what each run stored."""
        total = Moments.empty(self.manifest["widths"][self.sites.index(site)])
        for r in range(len(self._runs)) if runs is None else map(int, runs):
            with reading(f"{self.vault}/{self._runs[r]}/moments.safetensors", self._again(r)):
                data = self._tensors(r, "moments.safetensors")
                n = int(self.layout.counts[r]) - (self.done[r].get("not_finite", 0) if self.done else 0)
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
            out[here] = self._tensors(r, "rows.safetensors")[name].numpy()[places]
        return out

    def read(self, site: Site, index: Sequence[int] | np.ndarray) -> Tensor:
        """Rows `index` at `site`, in that order, [len(index), d] float32."""
        index = np.asarray(index)
        out = torch.empty(len(index), self.manifest["widths"][self.sites.index(site)], dtype=torch.float32)
        for r, here, places in self._places(index):
            stored, first = self._tensors(r, file_of(site)), int(places[0])
            if (np.diff(places) == 1).all():  # a lane, front to back: nothing to gather
                found = self._codec.decode(stored, slice(first, first + len(places)))
            else:
                found = self._codec.decode(stored, torch.from_numpy(places).long())
            step = int(here[1] - here[0]) if len(here) > 1 else 1
            if (np.diff(here) == step).all():  # one of lanes of equal length: converted where it goes
                out[int(here[0]) : int(here[-1]) + 1 : step].copy_(found)
            else:
                out.index_copy_(0, torch.from_numpy(here), found.float())
        return out

    def codec_fvu(self, site: Site) -> float:
        """What the codec cost at `site`: squared error over variance, over all runs."""
        counts = self.layout.counts
        return float(np.average([d["sites"][str(site)]["codec_fvu"] for d in self.done], weights=counts))

    def check(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Compare every file with its hash; ValueError that names the first which differs. `progress(runs done, runs)`."""
        for r, run in enumerate(self._runs):
            seal = self.vault.file(run, SEAL)
            for name in read_json(seal):
                self.vault.file(run, name)
            check_seal(seal.parent, way_out=self._again(r))
            progress(r + 1, len(self._runs))

    def _column(self, name: str) -> np.ndarray:
        """A column of rows.safetensors in the order of the text [rows]; True in runs without it."""
        parts = []
        for r in range(len(self._runs)):
            ids = self._tensors(r, "rows.safetensors")
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


def row_bytes(manifest: dict[str, Any]) -> float:
    """Bytes of one row at all sites, with its ids and norms."""
    stored = codec(manifest.get("codec", "bfloat16"))
    return sum(stored.bytes_per_row(w) + 4 for w in manifest["widths"]) + 16


def _mapped(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118: no dict
