"""Spools: rows come back in the order of the text whatever their order on disk; damage, bad values and rivals are met."""

import json
import shutil

import numpy as np
import pytest
import torch

from diascope.activations import RowReader, Rows, RowWriter
from diascope.activations.writer import file_of
from diascope.sites import Site
from diascope.storage.seals import seal

SITE = Site(0, "resid_post")
OTHER = Site(1, "mlp_out")


def manifest(**settings):
    return {"format": "diascope-spool-2", "sites": [str(SITE), str(OTHER)], "widths": [4, 4], "codec": "float32", **settings}


def rows(run, n=10):
    ids = torch.arange(n) + 100 * run
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(run))
    return Rows({SITE: x, OTHER: 2 * x}, ids, ids // 3, ids % 3, ids + 1)


def written(place):
    writer = RowWriter(place, manifest())
    for run in range(2):
        writer.write(run, rows(run))
    return place


@pytest.fixture
def spool(tmp_path):
    return written(tmp_path / "s")


@pytest.fixture(params=["folder", "s3"])
def anywhere(request, tmp_path):
    """The same spool in a folder and in an S3-compatible store."""
    return written(tmp_path / "s" if request.param == "folder" else request.getfixturevalue("bucket"))


def test_rows_come_back_in_the_order_of_the_text(anywhere):
    reader = RowReader(anywhere)
    index = np.array([13, 2, 2, 19, 0])
    for site, factor in ((SITE, 1), (OTHER, 2)):
        whole = factor * torch.cat([rows(0).vectors[SITE], rows(1).vectors[SITE]])
        assert torch.equal(reader.read(site, index), whole[index])
        assert np.allclose(reader.norms(site), whole.norm(dim=1))
    assert reader.column("token", index).tolist() == [103, 2, 2, 109, 0]
    assert reader.column("next_token", index).tolist() == [104, 3, 3, 110, 1]
    assert reader.documents(index).tolist() == [34, 0, 0, 36, 0]
    stored = reader._tensors(0, file_of(SITE))["rows"]
    assert not torch.equal(stored, rows(0).vectors[SITE])  # on disk they lie shuffled, alike at all sites
    assert torch.equal(2 * stored, reader._tensors(0, file_of(OTHER))["rows"])


def test_moments_are_those_of_the_rows(anywhere):
    reader = RowReader(anywhere)
    x = torch.cat([rows(0).vectors[SITE], rows(1).vectors[SITE]]).double()
    m = reader.moments(SITE)
    assert torch.allclose(m.mean, x.mean(0)) and torch.allclose(m.variance, x.var(0, unbiased=False))
    assert torch.allclose(reader.moments(SITE, [1]).mean, x[10:].mean(0))


def test_what_a_killed_writer_left_is_not_counted(spool):
    shutil.copytree(spool / "runs" / "000001", spool / "runs" / ".000001.abcd.partial")
    assert len(RowReader(spool)) == 20


def test_the_first_of_two_writers_of_a_run_wins(anywhere):
    """The second one's rows are others, which a pure function would not give: the first one's stand."""
    RowWriter(anywhere, manifest()).write(1, rows(7))
    assert RowReader(anywhere).column("token", np.array([10])).tolist() == [100]


def test_a_place_holds_rows_of_one_harvest(anywhere):
    with pytest.raises(ValueError, match="another harvest"):
        RowWriter(anywhere, manifest(seed=1))


def test_a_missing_run_is_named(spool):
    RowWriter(spool, manifest()).write(3, rows(3))
    with pytest.raises(ValueError, match="lacks run 2"):
        RowReader(spool)


def bad_rows():
    r = rows(0)
    r.vectors[SITE][4, 1], r.vectors[OTHER][7, 0] = float("nan"), float("inf")
    return r


def test_a_value_that_is_not_finite_is_refused_with_site_and_row(tmp_path):
    writer = RowWriter(tmp_path, manifest())
    with pytest.raises(ValueError, match=r"L0\.resid_post .* 1 of 10 rows of run 0, the first at position 1 of document 1"):
        writer.write(0, bad_rows())
    assert not writer.has(0)


def test_rows_that_are_not_finite_can_be_left_out_and_are_counted(tmp_path):
    RowWriter(tmp_path, manifest(not_finite="leave out")).write(0, bad_rows())
    reader = RowReader(tmp_path)
    assert reader.done[0]["not_finite"] == 2 and reader.usable.tolist() == [i not in (4, 7) for i in range(10)]
    good = rows(0).vectors[SITE][reader.usable].double()
    assert torch.allclose(reader.moments(SITE).mean, good.mean(0))
    assert torch.isfinite(reader.read(SITE, np.arange(10))).all()


@pytest.mark.parametrize("codec", ["bfloat16", "int8-blocks", "int8-standardised"])
def test_what_a_codec_cost_is_measured_on_every_run(tmp_path, codec):
    RowWriter(tmp_path, manifest(codec=codec)).write(0, rows(0, 200))
    reader, x = RowReader(tmp_path), rows(0, 200).vectors[SITE]
    y = reader.read(SITE, np.arange(200))
    fvu = float((x - y).double().square().sum() / (x - x.mean(0)).double().square().sum())
    assert reader.codec_fvu(SITE) == pytest.approx(fvu, rel=1e-3) and 0 < fvu < 1e-3


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("manifest.json", b"{}", "damaged"),
        ("manifest.json", json.dumps({"format": "diascope-spool-1"}).encode(), "another version"),
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
    if says.startswith("does not hold"):
        seal((spool / file).parent)  # changed on purpose
    with pytest.raises(ValueError, match=says):
        RowReader(spool)
