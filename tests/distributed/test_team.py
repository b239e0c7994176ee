"""One process equals several, along every axis and for every kind; a checkpoint of some serves any number; a dead one is not waited for."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diascope.distributed.launch import parsed
from diascope.training.shards import dealt, read, share, together

sys.path.insert(0, str(Path(__file__).parent))
from train_toy import MEMBERS, recipe

SCRIPT = Path(__file__).parent / "train_toy.py"
KINDS = "batchtopk,topk,jumprelu,relu,gated,clt,crosscoder"
STEPS = 30  # past the warm-ups, and half of them after "late" begins
ALL = [*KINDS.split(","), "late"]
BLOCKS = {name: [32, 32] if name in ("clt", "crosscoder") else [64] for name in MEMBERS}


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def start(world, *arguments):
    """Processes as torchrun would start them."""
    env = os.environ | {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port(), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen([sys.executable, str(SCRIPT), *map(str, arguments)], env=env | {"RANK": str(r)}, stderr=subprocess.PIPE, text=True)
        for r in range(world)
    ]  # fmt: skip


def run(world, *arguments):
    processes = start(world, *arguments)
    for p in processes:
        _, said = p.communicate(timeout=240)
        assert p.returncode == 0, said[-3000:]


@pytest.fixture(scope="module")
def alone(reader, tmp_path_factory):
    """What one process makes of all steps."""
    folder = tmp_path_factory.mktemp("alone")
    run(1, reader.folder, folder, "", f"{KINDS},late", STEPS)
    return folder


def worst(a, b, names):
    """The largest difference of any parameter, and its name."""
    found = []
    for name in names:
        states = [read(f / "checkpoint", name, BLOCKS[name], 0, 1) for f in (a, b)]
        assert states[0].keys() == states[1].keys()
        found += [(float((states[0][k].double() - states[1][k].double()).abs().max()), f"{name} {k}")
                  for k in states[0] if not k.startswith(("first", "second", "since", "scalars"))]  # fmt: skip
    return max(found)


@pytest.mark.parametrize("axes", ["data=2", "latent=2", "dict=2"])
def test_two_processes_equal_one(reader, alone, tmp_path, axes):
    run(2, reader.folder, tmp_path, axes, f"{KINDS},late", STEPS)
    error, where = worst(alone, tmp_path, ALL)
    assert error < 1e-5, where
    for name in ALL:
        ours, theirs = (torch.load(f / f"{name}.pt", weights_only=True) for f in (alone, tmp_path))
        assert all(torch.allclose(ours[k], theirs[k], rtol=1e-3, atol=1e-4) for k in ours), name
    assert len((alone / "log.jsonl").read_text().splitlines()) == len((tmp_path / "log.jsonl").read_text().splitlines())


def test_a_checkpoint_of_two_goes_on_with_one_and_with_four(reader, tmp_path, alone):
    run(2, reader.folder, tmp_path / "two", "latent=2", f"{KINDS},late", STEPS, 12)
    assert len(list((tmp_path / "two" / "checkpoint").glob("clt.*-of-2.safetensors"))) == 2
    for world, axes in ((1, ""), (4, "latent=2,data=2")):
        shutil.copytree(tmp_path / "two", tmp_path / str(world))
        run(world, reader.folder, tmp_path / str(world), axes, f"{KINDS},late", STEPS)
        error, where = worst(alone, tmp_path / str(world), ALL)
        assert error < 1e-5, where


def test_when_one_dies_the_run_ends_with_its_reason_or_starts_again(reader, alone, tmp_path):
    """Under torchrun: rank 1 is killed at step 15 of the first attempt; without restarts all end, with one they go on."""

    def torchrun(restarts):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--max-restarts",
            restarts,
            "--master-port",
            port(),
        ]
        arguments = [SCRIPT, reader.folder, tmp_path, "data=2", f"{KINDS},late", STEPS]
        env = os.environ | {"OMP_NUM_THREADS": "1", "DIE": "1:15"}
        return subprocess.run(
            [*map(str, command + arguments)], env=env, capture_output=True, text=True, timeout=240, check=False
        )

    ended = torchrun(0)
    assert ended.returncode != 0 and "Signal 9" in ended.stderr
    assert (tmp_path / "checkpoint" / "state.json").exists() and not list(tmp_path.glob("*.pt"))
    again = torchrun(1)
    assert again.returncode == 0, again.stderr[-3000:]
    error, where = worst(alone, tmp_path, ALL)
    assert error < 1e-5, where


def test_shares_make_the_whole_again():
    g = torch.Generator().manual_seed(0)
    for name, shape, blocks in (("encoder.1", (12, 3), [12, 12]), ("second.b_enc", (24,), [12, 12]), ("b_dec", (5,), [12, 12])):
        whole = torch.randn(*shape, generator=g)
        parts = [share(name, whole, blocks, r, 3) for r in range(3)]
        assert torch.equal(together(name, parts, blocks), whole)
        assert len(parts[0]) == (len(whole) if name == "b_dec" else len(whole) // 3)


def test_members_that_start_from_one_another_stay_together():
    hands = dealt(recipe(f"{KINDS},late", 10), 4)
    assert sorted(n for h in hands for n in h) == sorted(MEMBERS) and all(hands)
    assert any({"batchtopk", "late"} <= h for h in hands)
    with pytest.raises(ValueError, match="members that can be trained apart"):
        dealt(recipe("batchtopk,late", 10), 2)


@pytest.mark.parametrize(
    ("text", "world", "sizes"),
    [("", 4, (1, 1, 4)), ("latent=2", 4, (1, 2, 2)), ("dict=2,latent=2", 4, (2, 2, 1)), ("data=1,dict=3", 3, (3, 1, 1))],
)
def test_axes_are_read_and_data_takes_what_is_left(text, world, sizes):
    assert tuple(parsed(text, world).values()) == sizes


@pytest.mark.parametrize(
    ("text", "says"), [("latent=3", "make them equal"), ("rows=2", "no axis"), ("dict=0", "no axis"), ("dict", "no axis")]
)
def test_axes_that_make_no_sense_are_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parsed(text, 4)
