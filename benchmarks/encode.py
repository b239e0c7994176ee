"""Inference: encode and decode of finished dictionaries, sparse as we do it against dense products, from 16k to 1M latents.

    python benchmarks/encode.py [--json] [--rows 1024] [--d 640] [--latents 16384 65536 262144 1048576] [--l0 64]

Dense: f = (x W + b) masked by the threshold, all latents written, then f W_dec. Ours: `Dictionary.encode` and `Dictionary.decode`.
The product alone, a few rows at a time into the same memory, is the limit of both. Interleaved rounds, medians. Random weights; the
threshold is set so that L0 is what was asked for. Where the dense matrices would not fit in --memory, that column stays empty.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.kernels import rows_together
from diascope.progress import Bars

SITE = ("L1.resid_post",)


def dictionary(args: argparse.Namespace, latents: int) -> tuple[Dictionary, torch.Tensor]:
    """A random SAE, and rows at which its L0 is about the one asked for."""
    g = torch.Generator().manual_seed(latents)
    x = torch.randn(args.rows, args.d, generator=g)
    W = torch.empty(latents, args.d)
    for part in W.split(16_384):  # one allocation, filled in place
        part.normal_(generator=g)
        part /= part.norm(dim=1, keepdim=True)
    bar = float(torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - args.l0 / latents)))  # x . unit row is normal
    config = DictionaryConfig("random", SITE, SITE, (args.d,), (args.d,), latents)
    tensors = {"W_enc": W.t(), "W_dec": W, "b_enc": torch.zeros(latents), "b_dec": torch.zeros(args.d),
               "threshold": torch.full((latents,), bar)}  # fmt: skip
    return Dictionary(config, tensors), x


def cases(d: Dictionary, x: torch.Tensor, memory: float) -> dict[str, Callable[[], object]]:
    W = d.encoders[0]
    step = rows_together(d.d_sae, W.device)
    room = torch.empty(step, d.d_sae)

    def product() -> None:
        for rows in x.split(step):
            torch.mm(rows, W, out=room[: len(rows)])

    def dense_latents() -> torch.Tensor:
        pre = torch.addmm(d.b_enc, x, W)
        return pre * (pre > d.threshold)

    found: dict[str, Callable[[], object]] = {
        "product": product, "encode": lambda: d.encode(x), "encode, decode": lambda: d(x),
    }  # fmt: skip
    if 3 * 4 * len(x) * d.d_sae < memory * 1e9:
        found |= {"dense encode": dense_latents, "dense encode, decode": lambda: dense_latents() @ d.decoders[0] + d.b_dec}
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024, help="rows encoded together (default: 1024)")
    parser.add_argument("--d", type=int, default=640, help="width of the rows (default: 640)")
    parser.add_argument(
        "--latents", type=int, nargs="+", default=[2**14, 2**16, 2**18, 2**20], help="widths of the dictionaries"
    )
    parser.add_argument("--l0", type=int, default=64, help="active latents a row (default: 64)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default: 7)")
    parser.add_argument("--memory", type=float, default=4.0, help="GB that the dense way may take (default: 4)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    args = parser.parse_args()
    found: dict[int, dict[str, float]] = {}
    with Bars(Console(stderr=True)) as bars:
        say = bars.stage("encode", "widths")
        for done, latents in enumerate(args.latents):
            d, x = dictionary(args, latents)
            table = cases(d, x, args.memory)
            seconds: dict[str, list[float]] = {name: [] for name in table}
            for i in range(args.rounds + 1):
                for name, case in table.items():
                    began = time.perf_counter()
                    case()
                    if i:
                        seconds[name].append(time.perf_counter() - began)
            base = np.array(seconds["product"])
            found[latents] = {f"{n} ms": 1e3 * float(np.median(s)) for n, s in seconds.items()}
            found[latents] |= {f"{n} ratio": float(np.median(np.array(s) / base)) for n, s in seconds.items() if n != "product"}
            found[latents]["l0"] = float(d.encode(x).counts.float().mean())
            say(done + 1, len(args.latents), f"{latents:,} latents")
    if args.json:
        print(json.dumps(found))
        return
    names = ["product ms", *(f"{n} ratio" for n in ("encode", "encode, decode", "dense encode", "dense encode, decode")), "l0"]
    t = Table("latents", *names, title=f"{args.rows} rows of {args.d}; ratios are over the product alone")
    for latents, row in found.items():
        t.add_row(f"{latents:,}", *(f"{row[n]:.2f}" if n in row else "" for n in names))
    Console(width=120).print(t)


if __name__ == "__main__":
    main()
