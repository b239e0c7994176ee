"""Train on a bounded spool as one of several processes: python bounded_toy.py SPOOL FOLDER AXES; without AXES alone, on a whole spool.

Each process notes the runs that it made in FOLDER/made-RANK.txt, and the first the most runs that lay in the spool in FOLDER/most.txt.
With DIE=RANK:STEP that process is killed there, in its first life; CHECKPOINT_TO is where checkpoints are copied.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from diascope.activations import RowReader, RowWriter
from diascope.distributed import joined
from diascope.harvest import BoundedReader, harvest
from diascope.models.toy import toy_model
from diascope.training.loop import train_group

sys.path.insert(0, str(Path(__file__).parents[1] / "harvest"))
from bounded_cases import PLAN, RECIPE, bytes_of_six, text


class Doubles(BoundedReader):
    """The same rows in float64."""

    def read(self, site, index):
        return super().read(site, index).double()


class WholeDoubles(RowReader):
    """The same."""

    def read(self, site, index):
        return super().read(site, index).double()


class Noting(RowWriter):
    """Notes what it writes."""

    notes = Path()

    def write(self, run, rows, facts=None):
        super().write(run, rows, facts)
        with self.notes.open("a") as file:
            file.write(f"{run}\n")


def main() -> None:
    spool, folder, axes = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # in fp32 a hard selection grows the last bit of a product (train_toy.py)
    team = joined(axes)
    folder.mkdir(parents=True, exist_ok=True)
    model = toy_model()
    sequences = text(model)
    bound = bytes_of_six(model, sequences)
    reader = Doubles(model, sequences, PLAN, spool, disk=bound)
    reader._writer.__class__, Noting.notes = Noting, folder / f"made-{team.everyone.rank}.txt"
    if not axes:
        reader = WholeDoubles(harvest(model, sequences, PLAN, f"{spool}-whole").folder, window=reader.window)
    rank, _, step = os.environ.get("DIE", "").partition(":")
    most = 0

    def progress(done: int, total: int, note: str) -> None:
        nonlocal most
        most = max(most, len(reader.vault.names("runs")))
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if step and int(rank) == team.everyone.rank and first and done == int(step) * RECIPE.batch:
            os.kill(os.getpid(), signal.SIGKILL)

    recipe = replace(RECIPE, checkpoint_every=0.05)
    place = os.environ.get("CHECKPOINT_TO", "")
    train_group(recipe, reader, folder, model="toy", team=team, progress=progress, checkpoint_to=place)
    if team.first:
        (folder / "most.txt").write_text(str(most))


if __name__ == "__main__":
    main()
