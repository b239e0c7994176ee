"""Writing and reading a spool beside the disk's own speed for the same bytes.

    python benchmarks/spool.py [--folder DIR] [--rows 131072] [--runs 4] [--d 640] [--rounds 5] [--codec bfloat16]

A round; 1 to 3 in turn are first, second and third:
1. disk write: the bytes of the runs' files, written and flushed to disk (fsync) file by file.
2. spool write: RowWriter.write of the same rows (putting them in their stored order, moments, norms, hashing), flushed and renamed.
3. the same without hashing: SHA-256 of the rows left out.
4. disk read: the files of 1 from the disk (the page cache is dropped for them), front to back.
5. spool read: a new RowReader, cold, one epoch of shuffled batches of 4,096 rows over all runs at once; hashing (each file once, before its
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
from diascope.activations import files as writing
from diascope.activations import reader as module
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


class Unhashed:
    """A SHA-256 that takes no time."""

    def update(self, part: object) -> None:
        pass

    def hexdigest(self) -> str:
        return "0" * 64


def write_spool(spool: Path, runs: list[Rows], manifest: dict[str, object]) -> None:
    writer = RowWriter(spool, manifest)
    for r, rows in enumerate(runs):
        writer.write(r, rows)


def write_unhashed(spool: Path, runs: list[Rows], manifest: dict[str, object]) -> None:
    real = writing.hashlib
    writing.hashlib = argparse.Namespace(sha256=Unhashed)  # type: ignore[assignment]
    try:
        write_spool(spool, runs, manifest)
    finally:
        writing.hashlib = real


def write_raw(raw: Path, content: list[bytes]) -> None:
    raw.mkdir()
    for i, data in enumerate(content):
        with (raw / str(i)).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def one_round(folder: Path, runs: list[Rows], content: list[bytes], codec: str, d: int, turn: int) -> dict[str, float]:
    """Seconds of each part."""
    spool, raw, unhashed = folder / "spool", folder / "raw", folder / "unhashed"
    manifest = {"format": module.FORMAT, "sites": [str(SITE)], "widths": [d], "codec": codec}
    writes = [
        ("disk write", lambda: write_raw(raw, content)),
        ("spool write", lambda: write_spool(spool, runs, manifest)),
        ("the same without hashing", lambda: write_unhashed(unhashed, runs, manifest)),
    ]
    out = {}
    for name, work in writes[turn % 3 :] + writes[: turn % 3]:
        os.sync()  # what the last one left is not this one's
        out[name] = timed(work)
    files = sorted(spool.rglob("*.safetensors"))
    out["hashing"] = timed(lambda: [sha256_file(p) for p in files])
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
    for place in (spool, raw, unhashed):
        shutil.rmtree(place)
    return out


def stored(folder: Path, runs: list[Rows], codec: str, d: int) -> list[bytes]:
    """The content of the files that the runs' rows take."""
    write_spool(folder / "first", runs, {"format": module.FORMAT, "sites": [str(SITE)], "widths": [d], "codec": codec})
    content = [p.read_bytes() for p in sorted((folder / "first").rglob("*.safetensors"))]
    shutil.rmtree(folder / "first")
    return content


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
        content = stored(Path(place), runs, args.codec, args.d)
        rounds = [one_round(Path(place), runs, content, args.codec, args.d, turn) for turn in range(args.rounds)]
    size = float(sum(map(len, content)))
    t = Table("", "median s", "MB/s", title=f"{size / 1e6:,.0f} MB, {args.codec}, {args.rounds} rounds")
    for name in sorted(rounds[0]):
        seconds = statistics.median(r[name] for r in rounds)
        t.add_row(name, f"{seconds:.2f}", f"{size / seconds / 1e6:,.0f}")
    each = {
        "write, all told": [r["disk write"] / r["spool write"] for r in rounds],
        "write, without hashing": [r["disk write"] / r["the same without hashing"] for r in rounds],
        "read": [r["disk read"] / r["spool read"] for r in rounds],
        "read, what it takes warm apart": [r["disk read"] / max(r["spool read"] - r["the same, warm"], 1e-9) for r in rounds],
    }
    ratios = {name: statistics.median(found) for name, found in each.items()}
    out.print(t)
    for name, found in each.items():
        out.print(f"{name}: {ratios[name]:.2f} ({min(found):.2f} to {max(found):.2f}) of the disk's own speed (reach 0.8)")
    if args.json:
        print(json.dumps({"bytes": size, "ratios": ratios}))


if __name__ == "__main__":
    main()
