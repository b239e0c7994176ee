"""Write a spool of rows, one run at a time (docs/protocol.md, section 3).

    <spool>/manifest.json                         written first: what the rows are (sites, widths, codec, hashes)
            runs/000000/<site>.safetensors        rows [n, d], as the codec stores them
                        rows.safetensors          token, document, position, next_token [n], norm.<site> [n]
                        moments.safetensors       mean and m2 a site, float64
                        done.json                 rows, what the codec cost, the manifest's hash
                        sha256.json               hashes of the run's files; without it the run does not count

The disk writes a site's rows while they are hashed and the next are put in order (files.py). A run is a pure function of its
number, so a killed harvest redoes only the run that it was in, and of two harvesters that write the same run the first one wins.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from diascope.activations.codecs import OF_ROWS, Codec, Stored, codec
from diascope.activations.files import OrderedFiles
from diascope.activations.layout import stored_order
from diascope.activations.rows import Rows
from diascope.numerics import Moments
from diascope.sites import Site
from diascope.storage.files import write_json
from diascope.storage.seals import seal
from diascope.storage.vault import vault

POLICIES = ("refuse", "leave out")  # for rows with values that are not finite


class RowWriter:
    """Writes a spool. The manifest's "codec", "seed" and "not_finite" say how."""

    def __init__(self, folder: str | Path, manifest: dict[str, Any]) -> None:
        self.vault = vault(folder)
        known = self.vault.read("manifest.json")
        if known is not None and known != manifest:
            raise ValueError(f"{folder} holds rows of another harvest: choose another folder or delete it")
        self.codec: Codec = codec(manifest.get("codec", "bfloat16"))
        self.seed = int(manifest.get("seed", 0))
        self.policy = manifest.get("not_finite", "refuse")
        if self.policy not in POLICIES:
            raise ValueError(f"not_finite is {self.policy!r}: choose one of {', '.join(POLICIES)}")
        if known is None:
            self.vault.write("manifest.json", manifest)
        self._manifest = manifest_hash(manifest)

    def has(self, run: int) -> bool:
        """Whether run number `run` is complete."""
        return self.vault.has(run_folder(run))

    def write(self, run: int, rows: Rows, facts: dict[str, Any] | None = None) -> None:
        """Commit one run: all its files or none; `facts` go into done.json. A run that is there already stays as it is."""
        usable = self._usable(run, rows)
        order = torch.from_numpy(stored_order(self.seed, run, len(rows.token))).long()
        ids = {"token": rows.token, "document": rows.document, "position": rows.position, "next_token": rows.next_token}
        columns = {k: v[order].to(torch.int32) for k, v in ids.items()}
        if usable is not None:
            columns["usable"] = usable[order]
        moments, measured = dict[str, Tensor](), {}
        try:
            with self.vault.commit(run_folder(run)) as work, OrderedFiles(order, flush=self.vault.local) as files:
                for site, given in rows.vectors.items():
                    x = given if usable is None else torch.where(usable[:, None], given, torch.zeros_like(given))
                    stored = self.codec.encode(x)
                    files.write(work / file_of(site), stored, OF_ROWS)
                    m = Moments.of(x if usable is None else x[usable])
                    moments |= {f"{site}.mean": m.mean, f"{site}.m2": m.m2}
                    columns[f"norm.{site}"] = _norms(x)[order]
                    measured[str(site)] = {"mean_square": m.mean_square, "codec_fvu": self._cost(stored, x, m)}
                save_file(moments, work / "moments.safetensors")
                save_file({k: v.contiguous() for k, v in columns.items()}, work / "rows.safetensors")
                done = {"rows": len(order), "not_finite": 0 if usable is None else int((~usable).sum()), "sites": measured}
                write_json(work / "done.json", done | (facts or {}) | {"manifest": self._manifest}, flush=False)
                seal(work, files.hashes())
        except FileExistsError:  # another harvester was first; a run is a pure function of its number
            if not self.has(run):
                raise

    def _cost(self, stored: Stored, x: Tensor, moments: Moments) -> float:
        """The squared error of the codec over the variance."""
        if len(stored) == 1 and stored["rows"].dtype == x.dtype:  # as the model gave them
            return 0.0
        error = sum(
            float((self.codec.decode(stored, slice(i, i + 4096)) - x[i : i + 4096].float()).square().sum(dtype=torch.float64))
            for i in range(0, len(x), 4096)
        )
        return error / max(float(moments.m2.sum()), 1e-300)

    def _usable(self, run: int, rows: Rows) -> Tensor | None:
        """Which rows are finite at every site [n]; None where all are."""
        good = torch.ones(len(rows.token), dtype=torch.bool)
        for site, x in rows.vectors.items():
            if torch.isfinite(x.sum()):  # what is not finite in any row is not finite here
                continue
            finite = torch.isfinite(x).all(1)
            if not finite.all() and self.policy == "refuse":
                first = int((~finite).nonzero()[0])
                raise ValueError(
                    f"{site} has values that are not finite in {int((~finite).sum())} of {len(x)} rows of run {run}, the first at "
                    f"position {int(rows.position[first])} of document {int(rows.document[first])} (token {int(rows.token[first])}): "
                    'compute in float32 (dtype="float32" in the recipe), or leave such rows out (--not-finite "leave out", with '
                    "--store spool)"
                )
            good &= finite
        return None if good.all() else good


def _norms(x: Tensor) -> Tensor:
    """|x| of every row [n] float32, 1 MB at a time: what is made float32 stays in the cache."""
    return torch.cat([part.float().norm(dim=1) for part in x.split(max(1, 2**18 // x.shape[1]))])


def run_folder(run: int) -> str:
    """Where run number `run` stands in its spool."""
    return f"runs/{run:06d}"


def manifest_hash(manifest: dict[str, Any]) -> str:
    """What runs know their manifest by."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_of(site: Site) -> str:
    """A site's file in a run."""
    return f"{str(site).replace(':', '--')}.safetensors"  # some file systems allow no colon
