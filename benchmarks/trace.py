"""Tracing one prompt: time and extra peak memory beside circuit-tracer, on the same model, prompt and transcoders.

    python benchmarks/trace.py 'W/dictionaries/transcoder_all--*' --python PEER/bin/python --work DIR [--json]

Both sides run in processes of their own with the weights read before, turn about. Ours computes the inputs of every latent
with an influence of at least --least; theirs is then asked for a graph of as many latents (max_feature_nodes), which it
chooses by an estimate, and at each of --batch-sizes, of which its best counts for time and for memory separately. At a length
where its default batch of 512 does not fit the memory it is not tried. The peers' environment: docs/oracles.md.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

TEXT = (
    "Long before the railway came, the valley was known for its clocks, its bells and its bad roads. "
    "The city lies on a river, and in the old days the only bridge over it was made of wood. People came from the hills to sell "
    "wool, cheese and salt, and they stayed for three days before they went back. The capital of Italy is the city of"
)
THEIRS = Path(__file__).parent.parent / "tests" / "oracles" / "circuits_real.py"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionaries", nargs="+", help="one transcoder a layer, with * if you like")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--python", help="of an environment that has circuit-tracer; without it ours runs alone")
    parser.add_argument("--work", type=Path, default=Path("trace_work"), help="for the checkpoint and the set in their formats")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[16, 64], help="tokens of the prompt, its last (default: 16 64)"
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32], help="of circuit-tracer (default: 8 32)")
    parser.add_argument("--least", type=float, default=1e-3, help="influence from which we expand (default: 1e-3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, turn about (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    return parser.parse_args()


def settled() -> int:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(field: str) -> int:
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(field))
    return int(line.split()[1]) * 1024


def ours(args: argparse.Namespace, tokens: list[int]) -> dict[str, Any]:
    """One process of ours: a run to warm up, then one that counts."""
    import diascope
    from diascope.circuits import TraceConfig, trace
    from diascope.dictionaries import load_dictionary

    model = diascope.load_model(args.model, dtype="float32")
    given = [load_dictionary(p) for name in args.dictionaries for p in sorted(glob(name))]
    for p in (*model.module.parameters(), *(t for d in given for t in d.parameters())):
        p.sum()
    config = TraceConfig(least=args.least)
    trace(model, given, [tokens], config=TraceConfig(least=0.05))
    before, began = settled(), time.perf_counter()
    g = trace(model, given, [tokens], config=config)
    return {"seconds": time.perf_counter() - began, "extra_bytes": memory("VmHWM") - before, "expanded": g.about["expanded"],
            "latents": g.about["latents"], "closure": g.about["closure"]}  # fmt: skip


def run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compared(args: argparse.Namespace, length: int) -> dict[str, Any]:
    """Both sides at one length, turn about."""
    import diascope

    model = diascope.load_model(args.model, dtype="float32")
    ids = model.tokenize(TEXT)
    tokens = [ids[0], *ids[-(length - 1) :]]
    assert len(tokens) == length
    listed = ",".join(map(str, tokens))
    mine = [sys.executable, __file__, *args.dictionaries, "--model", args.model, "--least", str(args.least), "--ours", listed]
    found: dict[str, list[dict[str, Any]]] = {"ours": []}
    for _ in range(args.rounds):
        found["ours"].append(run(mine))
        for size in args.batch_sizes if args.python else ():
            command = [args.python, str(THEIRS), "timed", str(args.work / "model"), str(args.work / "set"), listed]
            command += ["--batch-size", str(size), "--max-nodes", str(found["ours"][0]["expanded"]), "--repeats", "2"]
            row = run(command)
            found.setdefault(f"batch {size}", []).append(row | {k: row[k][-1] for k in ("seconds", "extra_bytes")})
    return {"length": length, "found": found}


def summary(entry: dict[str, Any]) -> dict[str, Any]:
    """Medians of each side and of each round's ratio to ours, by the peer's best batch size."""
    found = entry["found"]
    mine = found.pop("ours")
    row = {
        "tokens": entry["length"],
        "expanded": mine[0]["expanded"],
        "latents": mine[0]["latents"],
        "closure": mine[0]["closure"],
    }
    for what, unit in (("seconds", 1.0), ("extra_bytes", 1e6)):
        base = np.array([r[what] for r in mine])
        row[f"ours_{what}"] = float(np.median(base)) / unit
        theirs = {name: np.array([r[what] for r in rows]) for name, rows in found.items()}
        if theirs:
            best = min(theirs, key=lambda n: float(np.median(theirs[n])))
            row |= {
                f"theirs_{what}": float(np.median(theirs[best])) / unit,
                f"best_{what}": best,
                f"ratio_{what}": float(np.median(theirs[best] / base)),
            }
    return row


def main() -> None:
    args = arguments()
    if args.ours:
        print(json.dumps(ours(args, [int(i) for i in args.ours.split(",")])))
        return
    if args.python and not (args.work / "set").exists():
        folders = [p for name in args.dictionaries for p in sorted(glob(name))]
        subprocess.run([sys.executable, str(THEIRS), "subject", str(args.work / "model"), args.model], check=True)
        subprocess.run([sys.executable, str(THEIRS), "export", str(args.work / "set"), *folders], check=True)
    rows = [summary(compared(args, n)) for n in args.lengths]
    if args.json:
        print(json.dumps(rows))
        return
    table = Table("tokens", "active", "expanded", "ours s", "theirs s", "ratio", "ours MB", "theirs MB", "ratio", box=None)
    for r in rows:
        cells = [f"{r[k]:.1f}" if k in r else "" for k in ("ours_seconds", "theirs_seconds", "ratio_seconds")]
        cells += [f"{r[k]:,.0f}" if k in r else "" for k in ("ours_extra_bytes", "theirs_extra_bytes")]
        table.add_row(
            str(r["tokens"]), f"{r['latents']:,}", f"{r['expanded']:,}", *cells, f"{r.get('ratio_extra_bytes', 0):.1f}"
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
