"""Members of one shape: one stacked product against a product a member, for the encoder products of a group's step.

    python benchmarks/stacked.py [--members 18] [--rows 1024] [--d 640] [--latents 256 1024 4096] [--json]

"alone": a product a member, in turn. "batched": torch.bmm over members that read their own rows (one a layer). "wide": one
product with all encoders side by side, for members that read the same rows. Interleaved rounds, medians of ratios to "alone".
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table


def measured(members: int, rows: int, d: int, latents: int, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Median milliseconds of "alone", and the two ratios to it."""
    g = torch.Generator().manual_seed(latents)
    x = torch.randn(members, rows, d, generator=g).to(dtype)
    W = (torch.randn(members, d, latents, generator=g) / d**0.5).to(dtype)
    wide = W.permute(1, 0, 2).reshape(d, -1).contiguous()
    out = torch.empty(members, rows, latents, dtype=dtype)
    out_wide = torch.empty(rows, members * latents, dtype=dtype)
    cases = {
        "alone": lambda: [torch.mm(x[i], W[i], out=out[i]) for i in range(members)],
        "batched": lambda: torch.bmm(x, W, out=out),
        "wide": lambda: torch.mm(x[0], wide, out=out_wide),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for i in range(rounds + 1):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            if i:
                seconds[name].append(time.perf_counter() - began)
    alone = np.array(seconds["alone"])
    found = {"alone ms": 1e3 * float(np.median(alone))}
    return found | {name: float(np.median(np.array(seconds[name]) / alone)) for name in ("batched", "wide")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=18)
    parser.add_argument("--rows", type=int, default=1024, help="rows of a batch (default: 1024)")
    parser.add_argument("--d", type=int, default=640, help="width of the rows (default: 640)")
    parser.add_argument("--latents", type=int, nargs="+", default=[256, 1024, 4096], help="latents a member")
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (default: 9)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    args = parser.parse_args()
    found = {
        f"{latents} {name}": measured(args.members, args.rows, args.d, latents, dtype, args.rounds)
        for latents in args.latents
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    if args.json:
        print(json.dumps(found))
        return
    table = Table(
        "latents, dtype",
        "alone ms",
        "batched",
        "wide",
        title=f"{args.members} members, {args.rows} rows of {args.d}; ratios to alone",
    )
    for name, row in found.items():
        table.add_row(name, f"{row['alone ms']:.0f}", f"{row['batched']:.2f}", f"{row['wide']:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
