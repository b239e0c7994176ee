"""Two processes on one folder: one is told who holds it."""

import subprocess
import sys

import pytest

from diascope.storage.lock import HOLDER, held

HOLD = (
    "import sys; from diascope.storage.lock import held\nwith held(sys.argv[1]): print('holding', flush=True); sys.stdin.read()"
)


def test_a_second_process_is_told_who_is_at_work(tmp_path):
    folder = tmp_path / "w"
    other = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline() == "holding\n"
    with pytest.raises(ValueError, match=f"in use by process {other.pid} on .* since .*: wait until it is done"), held(folder):
        raise AssertionError("both hold it")
    other.kill()  # what a killed process held is free again
    other.wait()
    with held(folder), held(folder):  # and one process may hold it twice
        assert (folder / HOLDER).exists()
    assert not (folder / HOLDER).exists()
