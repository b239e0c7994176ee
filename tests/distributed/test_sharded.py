"""A language model spread over processes (FSDP2) gives the rows, dictionaries and metrics of one process."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from diascope.distributed import Axis, Team
from diascope.models.toy import toy_model
from diascope.recipes.run import Run

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "durability"))
from kills import hashes, recipe
from test_team import port

SCRIPT = Path(__file__).parent / "run_toy.py"


def run(world, folder, workspace):
    env = os.environ | {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder), str(workspace)]
    processes = [subprocess.Popen(command, env=env | {"RANK": str(r)}, stderr=subprocess.PIPE, text=True) for r in range(world)]
    for p in processes:
        _, said = p.communicate(timeout=240)
        assert p.returncode == 0, said[-3000:]


def test_a_sharded_model_gives_the_same_run(tmp_path):
    recipe(tmp_path)  # writes the text
    for world, name in ((1, "one"), (2, "two")):
        run(world, tmp_path, tmp_path / name)
    one, two = (hashes(tmp_path / name) for name in ("one", "two"))
    rows = {name for name in one if name.startswith("spool/")}
    assert len(rows) > 20 and one == two  # rows, dictionaries with their cards, index: every file
    for rank in (0, 1):  # each holds about half of the blocks
        held, everything = json.loads((tmp_path / "two" / f"held-2-{rank}.json").read_text())
        assert 0.4 * everything < held < 0.8 * everything  # toy widths do not divide evenly


def test_only_a_whole_spool_goes_with_a_sharded_model(tmp_path):
    with pytest.raises(ValueError, match="harvest together"):
        Run(
            replace(recipe(tmp_path), store="live"),
            tmp_path / "w",
            model=toy_model(),
            team=Team(everyone=Axis(2)),
            shard_model=True,
        )
