"""Writing and reading a spool beside the disk's own speed for the same bytes.

    python benchmarks/spool.py [--folder DIR] [--rows 131072] [--runs 4] [--d 640] [--rounds 5] [--codec bfloat16]

A round, in a new order each time:
1. disk write: the bytes of the runs' files, written and flushed to disk (fsync) file by file.
2. spool write: RowWriter.write of the same rows, flushed; what of that is hashing, moments and norms is measured apart on the same rows.
3. disk read: those files from the disk (the page cache is dropped for them), front to back.
4. spool read: a new RowReader, cold, one epoch of shuffled batches of 4,096 rows over all runs at once; hashing (each file once, before its
   first use, which reads it) apart.
Ratios are of bytes a second, medians over rounds. The disk is the folder's; give one on the disk that you mean.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from diascope.activations import Batches, RowReader, Rows, RowWriter
from diascope.activations import reader as module
from diascope.numerics import Moments
from diascope.sites import Site
from diascope.storage.files import sha256_file

SITE = Site(12, "resid_post")


def cold(files: list[Path]) -> None:
    """Drop files from the page cache."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def timed(work: object) -> float:
    began = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - began


def one_round(folder: Path, runs: list[Rows], codec: str, d: int) -> dict[str, float]:
    """Seconds of each part, and the bytes."""
    spool, raw = folder / "spool", folder / "raw"
    manifest = {"format": module.FORMAT, "sites": [str(SITE)], "widths": [d], "codec": codec}

    def write_spool() -> None:
        writer = RowWriter(spool, manifest)
        for r, rows in enumerate(runs):
            writer.write(r, rows)

    out = {"spool write": timed(write_spool)}
    files = sorted(p for p in spool.rglob("*.safetensors"))
    content = [p.read_bytes() for p in files]
    out["bytes"] = float(sum(map(len, content)))

    def write_raw() -> None:
        raw.mkdir()
        for i, data in enumerate(content):
            with (raw / str(i)).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    out["disk write"] = timed(write_raw)
    out["hashing"] = timed(lambda: [sha256_file(p) for p in files])
    out["moments"] = timed(lambda: [(Moments.of(r.vectors[SITE]), r.vectors[SITE].float().norm(dim=1)) for r in runs])
    cold(files)
    cold(copies := sorted(raw.iterdir()))

    def read_raw() -> None:
        for path in copies:
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass

    out["disk read"] = timed(read_raw)
    checked = module.check_seal
    try:
        module.check_seal = lambda *a, **k: True  # hashing is reported apart: it reads the file, and then nothing is cold

        def read_spool() -> None:
            reader = RowReader(spool)
            batches = Batches(reader.layout, 4096, 1.0, 0)
            for step in range(batches.steps):
                reader.read(SITE, batches[step])

        out["spool read"] = timed(read_spool)
        out["the same, warm"] = timed(read_spool)  # what it takes to put rows in order and make them float32
    finally:
        module.check_seal = checked
    shutil.rmtree(spool), shutil.rmtree(raw)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: the system's temporary one)")
    parser.add_argument("--rows", type=int, default=131_072, help="rows a run (default: 131072)")
    parser.add_argument("--runs", type=int, default=4, help="runs (default: 4)")
    parser.add_argument("--d", type=int, default=640, help="elements a row (default: 640)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--codec", default="bfloat16", help="codec (default: bfloat16)")
    parser.add_argument("--json", action="store_true", help="also print one line of JSON")
    args, out = parser.parse_args(), Console(width=110)
    ids = torch.arange(args.rows)
    runs = [Rows({SITE: torch.randn(args.rows, args.d).bfloat16()}, ids, ids, ids, ids) for _ in range(args.runs)]
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        rounds = [one_round(Path(place), runs, args.codec, args.d) for _ in range(args.rounds)]
    size = rounds[0]["bytes"]
    t = Table("", "median s", "MB/s", title=f"{size / 1e6:,.0f} MB, {args.codec}, {args.rounds} rounds")
    for name in rounds[0]:
        if name != "bytes":
            seconds = statistics.median(r[name] for r in rounds)
            t.add_row(name, f"{seconds:.2f}", f"{size / seconds / 1e6:,.0f}")
    ratios = {
        "write": statistics.median(r["disk write"] / r["spool write"] for r in rounds),
        "write, hashing and moments apart": statistics.median(
            r["disk write"] / (r["spool write"] - r["hashing"] - r["moments"]) for r in rounds
        ),
        "read": statistics.median(r["disk read"] / r["spool read"] for r in rounds),
        "read, what it takes warm apart": statistics.median(
            r["disk read"] / max(r["spool read"] - r["the same, warm"], 1e-9) for r in rounds
        ),
    }
    out.print(t)
    for name, ratio in ratios.items():
        out.print(f"{name}: {ratio:.2f} of the disk's own speed (reach 0.8)")
    if args.json:
        print(json.dumps({"bytes": size, "ratios": ratios}))


if __name__ == "__main__":
    main()
