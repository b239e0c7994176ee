"""Peak memory of a training step over what arithmetic needs: parameters, gradients, optimiser state and one batch.

    python benchmarks/memory.py [--json] [--batch 4096] [--d 640] [--latents 16384] [--l0 64]

Each case runs in a process of its own: the member is made, two steps warm up the kernels, then the peak of resident memory is set
back (Linux: /proc/self/clear_refs) and five more steps run. Found is the peak less what the process had before the member was
there; needed is counted from the tensors' own sizes. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from train_step import our_cases, rows

from diascope.training import MemberRecipe, TrainingRecipe
from diascope.training.member import Member


def resident(field: str) -> float:
    """MB of VmRSS (now) or VmHWM (peak)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def megabytes(tensors: list[torch.Tensor]) -> float:
    return sum(t.numel() * t.element_size() for t in tensors) / 2**20


def one(args: argparse.Namespace) -> dict[str, float]:
    """MB needed and found for the case `args.case`."""
    recipe, product = our_cases(args)[args.case]
    small = argparse.Namespace(**{**vars(args), "batch": 64, "latents": 512, "d": 32, "l0": 4})
    steps(small, *our_cases(small)[args.case], 2)  # what compiling takes is no part of a step
    gc.collect()
    before = resident("VmRSS")
    member = steps(args, recipe, product, 2)
    Path("/proc/self/clear_refs").write_text("5")
    member_step(member, args, 5)
    peak = resident("VmHWM") - before
    tensors = [*member.params.values()]
    state = [*member._first.values(), *member._second.values()]
    batch = 4 * args.batch * (args.d if member.centred else 2 * args.d) / 2**20
    needed = 2 * megabytes(tensors) + megabytes(state) + batch  # gradients are as large as the parameters
    return {"needed": needed, "found": peak, "ratio": peak / needed}


def steps(args: argparse.Namespace, recipe: MemberRecipe, product: str, count: int) -> Member:
    run = TrainingRecipe((recipe,), batch=args.batch, lr=1e-5, lr_warmup=0, l0_warmup=0, beta1=0.9, dead_after=2**60,
                         decoder_start="he", product=product)  # fmt: skip
    member, scale = Member(recipe, run, (args.d,), (args.d,), 0), torch.ones(args.d)
    sample = rows(args, 0)[:1024]
    member.start(scale, scale, torch.zeros(args.d), sample, sample, [])
    if "theta" in member.params:
        member.params["theta"].fill_(0.1)
        member.rule.calibrate(member.pre_acts(sample))
    member_step(member, args, count)
    return member


def member_step(member: Member, args: argparse.Namespace, count: int) -> None:
    for i in range(count):
        x = rows(args, i)
        member.step(x, x if member.centred else rows(args, i + 1), i, 10**6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4096, help="rows a step (default: 4096)")
    parser.add_argument("--d", type=int, default=640, help="width of the rows (default: 640)")
    parser.add_argument("--latents", type=int, default=16_384, help="latents (default: 16384)")
    parser.add_argument("--l0", type=int, default=64, help="active latents a row (default: 64)")
    parser.add_argument("--case", default="", help="only this one, in this process (what the script calls itself with)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the table")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(one(args)))
        return
    found = {}
    shape = [f"--{n}={getattr(args, n)}" for n in ("batch", "d", "latents", "l0")]
    for case in our_cases(args):
        done = subprocess.run([sys.executable, __file__, *shape, "--case", case], capture_output=True, text=True, check=True)
        found[case] = json.loads(done.stdout)
    if args.json:
        print(json.dumps(found))
        return
    t = Table(
        "step", "needed MB", "found MB", "ratio", title=f"batch {args.batch}, d {args.d}, {args.latents} latents, L0 {args.l0}"
    )
    for name, row in found.items():
        t.add_row(name, *(f"{row[n]:.0f}" for n in ("needed", "found")), f"{row['ratio']:.2f}")
    Console(width=100).print(t)


if __name__ == "__main__":
    main()
