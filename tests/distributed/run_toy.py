"""A whole run on the toy model as one of several processes that share its weights: python run_toy.py FOLDER WORKSPACE."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from diascope.distributed import joined
from diascope.models.toy import toy_model
from diascope.recipes.run import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "durability"))
from kills import recipe


def main() -> None:
    torch.set_num_threads(1)
    folder, workspace = map(Path, sys.argv[1:])
    world = int(os.environ["WORLD_SIZE"])
    team = joined("dict=2" if world > 1 else "")
    run = Run(recipe(folder), workspace, model=toy_model(), team=team, shard_model=True)
    run.carry_out()
    held = sum(
        p.to_local().numel() if isinstance(p, DTensor) else p.numel() for b in run.model.parts.blocks for p in b.parameters()
    )
    everything = sum(p.numel() for b in run.model.parts.blocks for p in b.parameters())
    (workspace / f"held-{world}-{team.everyone.rank}.json").write_text(json.dumps([held, everything]))


if __name__ == "__main__":
    main()
