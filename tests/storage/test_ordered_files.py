"""Files that are written part by part, hashed and flushed on the way: to the bit what safetensors writes, and what their seal says."""

import errno
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from diascope.activations import files as module
from diascope.activations.codecs import CODECS, OF_ROWS, codec
from diascope.activations.files import OrderedFiles
from diascope.storage.files import sha256_file


@pytest.mark.parametrize("part", [64, 1000, 2**23])
@pytest.mark.parametrize("name", CODECS)
def test_it_is_what_safetensors_writes(name, part, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", part)  # less than a row, some rows, all of them
    x = torch.randn(301, 70, generator=torch.Generator().manual_seed(0)) * 100
    order = torch.randperm(301, generator=torch.Generator().manual_seed(1))
    stored = codec(name).encode(x)
    with OrderedFiles(order) as files:
        for i in range(3):  # the buffers go round over several files
            files.write(tmp_path / f"ours-{i}", stored, OF_ROWS)
        hashes = files.hashes()
    save_file({k: v[order] if k in OF_ROWS else v for k, v in stored.items()}, tmp_path / "theirs")
    theirs = (tmp_path / "theirs").read_bytes()
    for i in range(3):
        assert (tmp_path / f"ours-{i}").read_bytes() == theirs and hashes[f"ours-{i}"] == sha256_file(tmp_path / "theirs")
    there = load_file(tmp_path / "ours-0")
    back = codec(name).decode(there, slice(0, 301)).float()
    assert torch.equal(back, codec(name).decode(stored, slice(0, 301)).float()[order])


def test_what_is_hashed_is_what_was_given_however_slow_hashing_is(tmp_path, monkeypatch):
    """A buffer is not used again before it was hashed."""
    real = module.hashlib.sha256

    class Slow:
        def __init__(self):
            self.digest = real()

        def update(self, part):
            time.sleep(0.002)
            self.digest.update(part)

        def hexdigest(self):
            return self.digest.hexdigest()

    monkeypatch.setattr(module, "PART", 4096)
    monkeypatch.setattr(module.hashlib, "sha256", Slow)
    x = torch.randn(2000, 16)
    with OrderedFiles(torch.randperm(2000), flush=False) as files:
        for i in range(3):
            files.write(tmp_path / str(i), {"rows": x}, OF_ROWS)
        hashes = files.hashes()
    monkeypatch.undo()
    assert all(sha256_file(tmp_path / name) == found for name, found in hashes.items()) and len(hashes) == 3


def test_a_disk_that_fails_while_it_is_flushed_is_said(tmp_path, monkeypatch):
    def fails(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module.os, "fdatasync", fails)
    with OrderedFiles(torch.arange(10)) as files:
        files.write(tmp_path / "x", {"rows": torch.zeros(10, 4)}, OF_ROWS)
        with pytest.raises(OSError, match="Input/output"):
            files.hashes()
