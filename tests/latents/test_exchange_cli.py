"""`diascope export` and `diascope import`: what they say, and that wrong input ends with a sentence."""

import json

import msgspec
import numpy as np
import pytest

from diascope.cli.export import Export, Import
from diascope.latents.describe.shelf import Description
from diascope.latents.store import Example, ExampleGroup, Index, Record, write_source


@pytest.fixture
def workspace(tmp_path):
    """A workspace with an index of two small sources, written by hand."""
    folder = tmp_path / "w" / "index"
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "tokens.npy", np.arange(40, dtype=np.int32).reshape(2, 20))
    (folder / "corpus" / "strings.json").write_text(json.dumps({str(i): f" t{i}" for i in range(40)}))
    record = Record(
        [ExampleGroup("top", 2.0, 2.0, 1.0, [Example(0, 1, 5, 2, [(2, 255), (3, 40)])])],
        [1],
        [(4, 0.5)],
        [(5, -0.5)],
        [(1, 0.9)],
    )
    empty = Record([], [], [], [], [(0, 0.9)])
    columns = {"density": np.array([0.5, 0.0], np.float32), "max_activation": np.array([2.0, 0.0], np.float32)}
    for number, name in enumerate(["sae", "tc"]):
        meta = {
            "name": name,
            "kind": "sae",
            "title": name,
            "config": {"sites_in": [f"L{number}.resid_post"]},
            "card": {},
            "tokens_swept": 40,
            "logit_vocabulary": 40,
        }
        write_source(
            folder / "sources" / str(number),
            meta,
            columns,
            [msgspec.msgpack.encode(r) for r in (record, empty)],
            {0: [Description("me", "fires here")]},
        )
    (folder / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": "org/toy"}))
    return tmp_path / "w"


def test_there_and_back(workspace, tmp_path, capsys):
    Export(workspace, tmp_path / "np", to="neuronpedia").run()
    assert "toy/0-diascope-res-2" in capsys.readouterr().out.replace("\n", "")
    Import(tmp_path / "np", tmp_path / "back").run()
    assert "0-diascope-res-2 (2 latents), 1-diascope-res-2 (2 latents)" in capsys.readouterr().out.replace("\n", "")
    assert Index(tmp_path / "back").sources["1-diascope-res-2"].description(0) == "fires here"
    Export(workspace, tmp_path / "sd", to="saedashboard", source=("1-diascope-res-2",)).run()
    Import(tmp_path / "sd", tmp_path / "again").run()
    assert list(Index(tmp_path / "again").sources) == ["1-diascope-res-2"]
    Export(workspace, tmp_path / "site").run()
    assert "bytes a latent" in capsys.readouterr().out.replace("\n", " ") and (tmp_path / "site" / "index.html").is_file()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": ("sae",)}, "leave --source out"),
        ({"to": "saedashboard"}, "say which of sae, tc"),
        ({"to": "saedashboard", "source": ("sae", "tc")}, "one --source"),
        ({"to": "neuronpedia", "source": ("nope",)}, "no source 'nope'"),
    ],
)
def test_wrong_asking_gets_a_sentence(workspace, tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        Export(workspace, tmp_path / "out", **options).run()
    assert not (tmp_path / "out").exists()


def test_what_is_no_index_or_no_files_is_named(workspace, tmp_path):
    with pytest.raises(ValueError, match="is no index"):
        Export(tmp_path, tmp_path / "out").run()
    with pytest.raises(ValueError, match="is no folder"):
        Import(tmp_path / "nothing", tmp_path / "out").run()
    with pytest.raises(ValueError, match="no bulk files"):
        Import(workspace, tmp_path / "out").run()
    Export(workspace, tmp_path / "np", to="neuronpedia").run()
    with pytest.raises(ValueError, match="exists already"):
        Import(tmp_path / "np", workspace).run()
