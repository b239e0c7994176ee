"""Harvest over the bare trunk: the same sequences through the same model, with nothing read, and with rows of 1, 8 and all sites.

    python benchmarks/harvest.py [--model gemma-3-270m] [--tokens 8192] [--rounds 5] [--dtype auto] [--json]

Sites are the residuals after each block: the last one alone, eight of them, all. A harvest writes a spool with moments and hashes
and flushes it to disk; the trunk runs the same batches and keeps nothing. Interleaved rounds; medians of the rounds' own ratios. A round
of up to 16,384 tokens is one run, whose writing nothing overlaps: with more, a run is written while the next is computed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from diascope.harvest import Harvest, harvest
from diascope.models import load_model
from diascope.progress import Bars
from diascope.tokens import open_corpus, pack


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m", help="the subject (default: gemma-3-270m)")
    parser.add_argument("--tokens", type=int, default=8_192, help="tokens a round (default: 8192)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--dtype", default="auto", help="precision of the model (default: auto, what a run takes)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    args = parser.parse_args()
    model = load_model(args.model, dtype=args.dtype, device=args.device)
    finished = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
    sequences = pack(model, open_corpus("wikipedia-sample").documents, context=512, max_tokens=args.tokens)
    layers = model.n_layers
    chosen = {"1 site": [layers - 1], "8 sites": np.linspace(0, layers - 1, 8).astype(int).tolist(), "all": list(range(layers))}
    plans = {name: Harvest(tuple(f"L{i}.resid_post" for i in found)) for name, found in chosen.items()}
    batch = plans["all"].batch_sequences

    def trunk() -> None:
        for start in range(0, len(sequences), batch):
            part = sequences.part(start, min(start + batch, len(sequences)))
            model.hidden(torch.from_numpy(part.tokens).long(), positions=torch.from_numpy(part.positions).long())

    seconds: dict[str, list[float]] = {name: [] for name in ("trunk", *plans)}
    with Bars(Console(stderr=True)) as bars, tempfile.TemporaryDirectory() as folder:
        say = bars.stage("rounds", "rounds")
        for i in range(args.rounds + 1):
            for name in seconds:
                began = time.perf_counter()
                if name == "trunk":
                    trunk()
                    finished()
                else:
                    harvest(model, sequences, plans[name], Path(folder) / "spool")
                if i:
                    seconds[name].append(time.perf_counter() - began)
                shutil.rmtree(Path(folder) / "spool", ignore_errors=True)
            say(i + 1, args.rounds + 1, "")
    base = np.array(seconds["trunk"])
    found = {"tokens_a_second": args.tokens / float(np.median(base)), "dtype": str(model.dtype).removeprefix("torch.")}
    found |= {name: float(np.median(np.array(s) / base)) for name, s in seconds.items() if name != "trunk"}
    if args.json:
        print(json.dumps(found))
        return
    t = Table(
        "", "time over the bare trunk's", title=f"{args.model}, {found['dtype']}, {found['tokens_a_second']:.0f} tokens/s bare"
    )
    for name in plans:
        t.add_row(name, f"{found[name]:.3f}")
    Console(width=100).print(t)


if __name__ == "__main__":
    main()
