"""A spool of rows: one row is the vectors of one token at every harvested site.

    <spool>/manifest.json                         written first: what the rows are (sites, widths, codec, hashes)
            runs/000000/<site>.safetensors        "rows" [n, d] in bfloat16
                        rows.safetensors          token, document, position [n]
                        moments.safetensors       mean and m2 a site, float64
                        done.json                 written last: rows in the run; without it the run does not count

A run is a pure function of its index, so a killed harvest redoes only the run that it was in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diascope.numerics import Moments
from diascope.sites import Site
from diascope.storage.files import commit_folder, read_json, reading, write_json


@dataclass(frozen=True)
class Rows:
    """Vectors [n, d] by site, and the token, document and position [n] of each row."""

    vectors: dict[Site, Tensor]
    token: Tensor
    document: Tensor
    position: Tensor


class RowWriter:
    """Writes a spool, one run at a time."""

    def __init__(self, folder: str | Path, manifest: dict[str, Any]) -> None:
        self.folder = Path(folder)
        path = self.folder / "manifest.json"
        if path.exists() and read_json(path) != manifest:
            raise ValueError(f"{folder} holds rows of another harvest: choose another folder or delete it")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, manifest)

    def has(self, run: int) -> bool:
        """Whether run number `run` is complete."""
        return (self._run(run) / "done.json").exists()

    def write(self, run: int, rows: Rows) -> None:
        """Commit one run: all its files or none."""
        with commit_folder(self._run(run), overwrite=True) as work:
            moments = {}
            for site, x in rows.vectors.items():
                m = Moments.of(x)
                if not torch.isfinite(m.m2).all():  # what is not finite in any row is not finite here
                    raise ValueError(f"{site} has values that are not finite in run {run}: is the model's dtype too narrow?")
                save_file({"rows": x.to(torch.bfloat16).contiguous()}, work / _file(site))
                moments |= {f"{site}.mean": m.mean, f"{site}.m2": m.m2}
            save_file(moments, work / "moments.safetensors")
            ids = {"token": rows.token, "document": rows.document, "position": rows.position}
            save_file({k: v.to(torch.int32).contiguous() for k, v in ids.items()}, work / "rows.safetensors")
            write_json(work / "done.json", {"rows": len(rows.token)})

    def _run(self, run: int) -> Path:
        return self.folder / "runs" / f"{run:06d}"


class RowReader:
    """Random access to the rows of a spool; the files are memory-mapped, so rows cost memory only while in use."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "manifest.json").exists():
            raise ValueError(f"{folder} is no spool of activations: it has no manifest.json")
        with reading(self.folder, "delete the spool and harvest again"):
            self._open()

    def _open(self) -> None:
        self.manifest = read_json(self.folder / "manifest.json")
        self.sites = tuple(Site.parse(s) for s in self.manifest["sites"])
        # digits only: a killed writer leaves hidden folders, and those may hold a done.json too
        done = sorted(p.parent for p in self.folder.glob("runs/[0-9]*/done.json"))
        if not done:
            raise ValueError(f"{self.folder} has no finished run: harvest first")
        self._runs = done
        counts = [read_json(run / "done.json")["rows"] for run in done]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._vectors = {site: [_mapped(run / _file(site)) for run in done] for site in self.sites}
        for run, rows, *parts in zip(done, counts, *self._vectors.values(), strict=True):
            if any(len(part) != rows for part in parts):
                raise ValueError(
                    f"{run} does not hold the {rows} rows that its done.json says: delete that folder and harvest again"
                )
        ids = [load_file(run / "rows.safetensors") for run in done]
        self.token, self.document, self.position = (
            torch.cat([i[name] for i in ids]) for name in ("token", "document", "position")
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def moments(self, site: Site) -> Moments:
        """The moments of all rows at `site`, merged from the runs."""
        total = Moments.empty(self._vectors[site][0].shape[1])
        for run, start, end in zip(self._runs, self._starts[:-1], self._starts[1:], strict=True):
            with reading(run / "moments.safetensors", f"delete {run} and harvest again"):
                data = load_file(run / "moments.safetensors")
                total = total.merge(Moments(int(end - start), data[f"{site}.mean"], data[f"{site}.m2"]))
        return total

    def norms(self, site: Site) -> Tensor:
        """|x| of every row at `site` [n]."""
        return torch.cat([x.float().norm(dim=1) for x in self._vectors[site]])

    def read(self, site: Site, index: Sequence[int] | np.ndarray) -> Tensor:
        """Rows `index` at `site`, in that order, [len(index), d] float32."""
        index = np.asarray(index)
        run = np.searchsorted(self._starts, index, side="right") - 1
        parts = self._vectors[site]
        out = torch.empty(len(index), parts[0].shape[1])
        for r in np.unique(run):
            here = np.flatnonzero(run == r)
            out[torch.from_numpy(here)] = parts[r][torch.from_numpy(index[here] - self._starts[r])].float()
        return out


def beside(reader: RowReader, sites: tuple[Site, ...], index: np.ndarray) -> Tensor:
    """Rows `index` at `sites`, side by side [len(index), sum of widths]."""
    return torch.cat([reader.read(s, index) for s in sites], 1)


def _file(site: Site) -> str:
    return f"{str(site).replace(':', '--')}.safetensors"  # some file systems allow no colon


def _mapped(path: Path) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor("rows")
