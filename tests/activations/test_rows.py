"""Spools: what a killed or damaged one does to its reader."""

import json
import shutil

import pytest
import torch

from diascope.activations import RowReader, Rows, RowWriter
from diascope.sites import Site

SITE = Site(0, "resid_post")


@pytest.fixture
def spool(tmp_path):
    writer = RowWriter(tmp_path / "s", {"format": "diascope-spool-1", "sites": [str(SITE)], "widths": [4]})
    for run in range(2):
        writer.write(run, Rows({SITE: torch.randn(10, 4)}, *(torch.arange(10) for _ in range(3))))
    return tmp_path / "s"


def test_what_a_killed_writer_left_is_not_counted(spool):
    shutil.copytree(spool / "runs" / "000001", spool / "runs" / ".000001.abcd.partial")
    assert len(RowReader(spool)) == 20


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("manifest.json", b"{}", "damaged"),
        ("runs/000000/done.json", b"{}", "damaged"),
        ("runs/000000/done.json", json.dumps({"rows": 3}).encode(), "does not hold the 3 rows"),
        ("runs/000001/L0.resid_post.safetensors", b"\x09\0\0\0", "damaged"),
        ("runs/000001/rows.safetensors", None, "missing"),
    ],
)
def test_damage_is_one_sentence(spool, file, content, says):
    if content is None:
        (spool / file).unlink()
    else:
        (spool / file).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        RowReader(spool)
