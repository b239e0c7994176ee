"""Kills, full and read-only disks: what stood before stands, what was begun goes on, and the sentence says why.

The long form of the kills: python tests/durability/kills.py --kills 50 --workspace DIR (docs/scale.md has its figures).
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from diascope.dictionaries import load_dictionary, save_dictionary

HERE = Path(__file__).parent


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_files(tmp_path):
    done = subprocess.run(
        [sys.executable, str(HERE / "kills.py"), "--kills", "3", "--workspace", str(tmp_path / "k")], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    assert json.loads(done.stdout)["kills"] >= 3 and json.loads(done.stdout)["files"] > 30


@contextmanager
def mounted(path: Path, size: str):
    """A file system of its own, of `size`."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting needs root; CI has it")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_is_said_and_earlier_artefacts_stand(tmp_path, make_dictionary):
    with mounted(tmp_path / "disk", "1m") as disk:
        small = save_dictionary(make_dictionary(S=64), disk / "small")
        before = sorted(p.name for p in disk.iterdir())
        with pytest.raises((OSError, ValueError, RuntimeError), match=r"No space left|28"):
            save_dictionary(make_dictionary(S=40_000), disk / "large")
        assert sorted(p.name for p in disk.iterdir()) == before
        load_dictionary(small)


def test_the_command_line_says_a_full_disk_in_one_sentence(tmp_path, make_dictionary):
    source = save_dictionary(make_dictionary(S=40_000), tmp_path / "source")
    with mounted(tmp_path / "disk", "1m") as disk:
        done = diascope("convert", source, disk / "out", "--to", "saelens")
        assert done.returncode == 2 and "o space left" in done.stderr and "Traceback" not in done.stderr
        assert list(disk.iterdir()) == []


def test_a_read_only_disk_is_said_before_the_work(tmp_path, make_dictionary):
    source = save_dictionary(make_dictionary(), tmp_path / "source")
    with mounted(tmp_path / "disk", "4m") as disk:
        kept = save_dictionary(make_dictionary(), disk / "kept")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = diascope("convert", source, disk / "out", "--to", "saelens")
        assert done.returncode == 2 and "ead-only" in done.stderr and "Traceback" not in done.stderr
        done = diascope("train", "--workspace", disk / "w")
        assert (
            done.returncode == 2 and "ead-only" in done.stderr and "model" not in done.stdout and "harvest" not in done.stdout
        )
        load_dictionary(kept)


def diascope(*arguments):
    command = [sys.executable, "-c", "from diascope.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "400"})
