"""Train toy members for some steps as one of several processes: python train_toy.py SPOOL FOLDER AXES KINDS STEPS [STOP_AT].

Started by torchrun, or with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set; test_team.py does so.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from diascope.activations import RowReader
from diascope.dictionaries import BatchTopK, Causal, Gated, JumpReLU, Matryoshka, ReLU, SampledMatryoshka, TopK
from diascope.distributed import joined
from diascope.training import FrequencyPenalty, MemberRecipe, QuadraticL0, TrainingRecipe
from diascope.training.loop import Group, train_group

IN, OUT, IN2, OUT2 = "L1.mlp_in", "L1.mlp_out", "L10.mlp_in", "L10.mlp_out"
NESTED = Matryoshka((8, 64), (1.0, 1.0))

MEMBERS = {
    "batchtopk": MemberRecipe("batchtopk", IN, IN, d_sae=64, activation=BatchTopK(4), matryoshka=NESTED, l0_target=4.0),
    "topk": MemberRecipe("topk", IN, OUT, d_sae=64, activation=TopK(4), matryoshka=None, skip=True, l0_target=4.0),
    "jumprelu": MemberRecipe("jumprelu", IN, IN, d_sae=64, activation=JumpReLU(0.3), matryoshka=NESTED, l0_target=4.0,
                             sparsity=QuadraticL0(0.05, reduction="token"), frequency=FrequencyPenalty()),
    "relu": MemberRecipe("relu", IN, IN, d_sae=64, activation=ReLU(), matryoshka=SampledMatryoshka(), l0_target=4.0),
    "gated": MemberRecipe("gated", IN, OUT, d_sae=64, activation=Gated(), matryoshka=None, l0_target=4.0),
    "clt": MemberRecipe("clt", (IN, IN2), (OUT, OUT2), Causal(), 64, BatchTopK(6), NESTED, skip=True, l0_target=6.0),
    "crosscoder": MemberRecipe("crosscoder", (IN, IN2), (IN, IN2), Causal(), 64, TopK(6), None, l0_target=6.0),
    "late": MemberRecipe("late", IN, IN, d_sae=64, activation=BatchTopK(4), matryoshka=NESTED, l0_target=4.0, start="member:batchtopk",
                         begins=0.5),
}  # fmt: skip


def recipe(kinds: str, steps: int) -> TrainingRecipe:
    members = tuple(MEMBERS[k] for k in kinds.split(","))
    return TrainingRecipe(
        members, epochs=steps * 256 / 4000, batch=256, lr=3e-4, lr_warmup=5, l0_warmup=10, beta1=0.9, beta2=0.99, theta_start=0.1,
        dead_after=1000, aux_k=8, checkpoint_every=0.05,
    )  # fmt: skip


class Doubles(RowReader):
    """The same rows in float64."""

    def read(self, site, index):
        return super().read(site, index).double()


def dying(done: int, total: int, note: str) -> None:
    """With DIE=RANK:STEP that process is killed there, in its first life."""
    rank, _, step = os.environ.get("DIE", "").partition(":")
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if step and os.environ["RANK"] == rank and first and done == int(step) * 256:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    spool, folder, axes, kinds, steps, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # in fp32 a hard selection grows the last bit of a product to 1e-3 in 50 steps
    team = joined(axes)
    reader = Doubles(spool)
    if rest:  # stop there, with a checkpoint
        group = Group(recipe(kinds, int(steps)), reader, folder, "toy", team)
        left = iter(range(group.step, int(rest[0])))
        group.run(lambda *_: None, lambda: next(left, None) is None)
        return
    trained = train_group(recipe(kinds, int(steps)), reader, folder, model="toy", team=team, progress=dying)
    if team.first:
        for t in trained:
            torch.save({k: v for k, v in t.dictionary.tensors().items()}, Path(folder) / f"{t.recipe.name}.pt")


if __name__ == "__main__":
    main()
