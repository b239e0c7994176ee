"""Neuronpedia's bulk files and SAEDashboard's batches: out, in, and what stands in them against the index itself."""

import gzip
import json
import shutil

import numpy as np
import pytest
import torch

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.latents.build import build_index
from diascope.latents.describe.shelf import Description, shelve
from diascope.latents.examples import live_rows
from diascope.latents.exchange import bulk, bulk_in, read_bulk, read_dashboards, write_bulk, write_dashboards
from diascope.latents.exchange.ids import names, width
from diascope.latents.exchange.rebuild import rebinned
from diascope.latents.store import Index
from diascope.tokens import Document, pack

S, DEAD = 96, 7
WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()


def dictionary(seed=0):
    g = torch.Generator().manual_seed(seed)
    tensors = {
        "W_enc": torch.randn(32, S, generator=g) / 5, "W_dec": torch.nn.functional.normalize(torch.randn(S, 32, generator=g), dim=1),
        "b_enc": torch.zeros(S), "b_dec": torch.zeros(32), "threshold": torch.full((S,), 1.0),
    }  # fmt: skip
    tensors["b_enc"][DEAD] = -1e6
    return Dictionary(DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", 32, 32, S), tensors)


@pytest.fixture(scope="module")
def index(toy, tmp_path_factory):
    r = np.random.default_rng(0)
    docs = [Document(f"d{i}", " ".join(r.choice(WORDS, 14))) for i in range(40)]
    sequences = pack(toy, docs, context=64, max_tokens=64 * 30)
    made = {"sae": dictionary(), "other/sae": dictionary(1)}
    site = made["sae"].site_in
    folder = build_index(toy, made, sequences, live_rows(toy, sequences, [site]), tmp_path_factory.mktemp("i") / "index")
    shelve(folder, 0, {3: [Description("judge", "rivers & <b>lakes</b>", {"detection": 0.9})]})
    return Index(folder)


@pytest.fixture
def small(monkeypatch):
    """Files of 40 latents, so that there are several."""
    monkeypatch.setattr(bulk, "BATCH", 40)


def lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def same_records(a, b, source_a, source_b, *, neighbours=True):
    """Every example with its text and levels, and all numbers but a group's low (which their files lack for the strongest)."""
    A, B = a.sources[source_a], b.sources[source_b]
    assert len(A) == len(B)
    for j in range(len(A)):
        x, y = A.record(j), B.record(j)
        assert x.histogram == y.histogram and [(g.label, len(g.examples)) for g in x.groups] == [
            (g.label, len(g.examples)) for g in y.groups
        ]
        for g, h in zip(x.groups, y.groups, strict=True):
            assert h.high == pytest.approx(g.high, rel=1e-6) and h.share == pytest.approx(g.share)
            assert abs(h.low - g.low) <= A.columns["max_activation"][j] / 255
            for e, f in zip(g.examples, h.examples, strict=True):
                assert (e.peak, e.fired, e.length) == (f.peak, f.fired, f.length)
                text = [[i.text(t) for t in i.tokens[k.sequence, k.first : k.first + k.length]] for i, k in ((a, e), (b, f))]
                assert text[0] == text[1]
        for side in ("top", "bottom"):
            assert [(a.text(t), v) for t, v in getattr(x, side)] == [(b.text(t), v) for t, v in getattr(y, side)]
        assert not neighbours or x.neighbours == y.neighbours
    for column in ("density", "max_activation"):
        assert (A.columns[column] == B.columns[column]).all()


def test_the_names_are_theirs(index):
    found = names(index)
    assert found["sae"].model == "toy-gemma3_text"
    assert [n.source for n in found.values()] == ["2-diascope-res-96--sae", "2-diascope-res-96--other-sae"]
    assert [width(n) for n in (16384, 262144, 1_000_000, 64)] == ["16k", "262k", "1m", "64"]


def test_bulk_files_come_back_as_the_same_index(index, small, tmp_path):
    told = []
    places = write_bulk(index, tmp_path / "out", progress=lambda *a: told.append(a))
    assert [p.relative_to(tmp_path / "out").as_posix() for p in places] == [
        f"toy-gemma3_text/{n.source}" for n in names(index).values()
    ]
    assert sorted(p.name for p in (places[0] / "features").iterdir()) == [f"batch-{k}.jsonl.gz" for k in range(3)]
    assert told[-1][:2] == (2 * S, 2 * S)
    written, left = read_bulk(tmp_path / "out", tmp_path / "back")
    back = Index(written)
    assert left == {} and back.meta["token_ids"] == "own" and back.meta["model"] == "toy-gemma3_text"
    for name, n in names(index).items():
        same_records(index, back, name, n.source)
        said = [[(d.by, d.text) for d in i.sources[s].descriptions(3)] for i, s in ((index, name), (back, n.source))]
        assert said[0] == said[1]
    first = back.sources[names(index)["sae"].source]
    assert first.search("lakes") == [3] and not first.record(DEAD).groups and first.columns["density"][DEAD] == 0
    assert {n.source for n in names(back).values()} == {n.source for n in names(index).values()}  # it keeps what it was called
    assert not list(tmp_path.glob(".*"))


def test_their_files_say_what_the_index_says(index, small, tmp_path):
    place = write_bulk(index, tmp_path, sources=["sae"])[0]
    neurons, shown = lines(place / "features" / "batch-0.jsonl.gz"), lines(place / "activations" / "batch-0.jsonl.gz")
    source = index.sources["sae"]
    assert [n["index"] for n in neurons] == [str(j) for j in range(40)] and {n["layer"] for n in neurons} == {place.name}
    j = int(np.argmax(source.columns["max_activation"][:40]))
    of_j = [a for a in shown if a["index"] == str(j)]
    assert max(a["maxValue"] for a in of_j) == pytest.approx(source.columns["max_activation"][j])
    for a in of_j:
        assert len(a["tokens"]) == len(a["values"]) and a["values"][a["maxValueTokenIndex"]] == a["maxValue"] == max(
            a["values"]
        )
        assert a["binMin"] <= a["values"][a["qualifyingTokenIndex"]] * 1.005
    assert of_j[0]["binMin"] == of_j[0]["binContains"] == -1
    assert not [a for a in shown if a["index"] == str(DEAD)]
    assert sum(neurons[j]["freq_hist_data_bar_heights"]) == sum(source.record(j).histogram)
    row = json.loads((place / "source.jsonl").read_text())
    assert row["id"] == place.name == f"2-{row['setName']}" and row["modelId"] == "toy-gemma3_text"


def test_the_columns_are_those_of_their_tables(index, small, tmp_path):
    """Their importer takes a table's columns from the first line and refuses a missing one that has no default."""
    place = write_bulk(index, tmp_path, sources=["sae"])[0]
    needed = {
        "features": {"modelId", "layer", "index", "maxActApprox", "frac_nonzero", "pos_str", "neg_str", "topkCosSimIndices", "hasVector", "sourceSetName"},
        "activations": {"id", "modelId", "layer", "index", "creatorId", "tokens", "values", "maxValue", "minValue", "maxValueTokenIndex", "binMin", "binMax", "binContains"},
        "explanations": {"id", "modelId", "layer", "index", "authorId", "description", "typeName", "explanationModelName"},
    }  # fmt: skip
    for kind, columns in needed.items():
        rows = [row for path in sorted((place / kind).iterdir()) for row in lines(path)]
        assert columns <= set(rows[0]) and len({tuple(row) for row in rows}) == 1
        assert kind == "features" or len({row["id"] for row in rows}) == len(rows)


def test_an_interrupted_export_goes_on_and_gives_the_same_bytes(index, small, tmp_path):
    whole = write_bulk(index, tmp_path / "a", sources=["sae"])[0]

    def stop(done, total, note):
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bulk(index, tmp_path / "b", sources=["sae"], progress=stop)
    part = tmp_path / "b" / "toy-gemma3_text" / whole.name
    before = (part / "features" / "batch-0.jsonl.gz").stat()
    assert not (part / "features" / "batch-1.jsonl.gz").exists()
    again = write_bulk(index, tmp_path / "b", sources=["sae"])[0]
    assert (part / "features" / "batch-0.jsonl.gz").stat().st_mtime_ns == before.st_mtime_ns
    for path in sorted(p for p in whole.rglob("*") if p.is_file()):
        assert path.read_bytes() == (again / path.relative_to(whole)).read_bytes()
    with pytest.raises(ValueError, match="another index, or with other settings"):
        write_bulk(index, tmp_path / "b", sources=["sae"], creator="someone")


def test_an_interrupted_import_goes_on(index, small, tmp_path):
    write_bulk(index, tmp_path / "out")
    asked = []

    def stop(done, total, note):
        asked.append(note)
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_bulk(tmp_path / "out", tmp_path / "back", progress=stop)
    assert not (tmp_path / "back").exists() and (tmp_path / ".back.parts").is_dir()
    read = []
    original = bulk_in._rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk_in, "_rows", lambda file, stage: read.append(file.path) or original(file, stage))
        written, _ = read_bulk(tmp_path / "out", tmp_path / "back")
    assert len(read) == 2 * 9 - 4
    straight, _ = read_bulk(tmp_path / "out", tmp_path / "straight")
    for path in sorted(p for p in straight.rglob("*") if p.is_file()):
        assert path.read_bytes() == (written / path.relative_to(straight)).read_bytes()


def test_examples_that_say_nothing_are_left_out_and_counted(tmp_path):
    place = tmp_path / "in" / "m" / "3-set"
    neuron = {"modelId": "m", "layer": "3-set", "maxActApprox": 4.0, "frac_nonzero": 0.25, "pos_str": [" a"], "pos_values": [1.5],
              "topkCosSimIndices": [0, 7], "topkCosSimValues": [0.5, 0.9], "freq_hist_data_bar_heights": [3, 1], "freq_hist_data_bar_values": [1.0, 3.0]}  # fmt: skip
    example = {
        "modelId": "m",
        "layer": "3-set",
        "index": "2",
        "tokens": ["x", " y"],
        "values": [0, 4.0],
        "binMin": -1,
        "binMax": 4.0,
        "binContains": -1,
    }
    rows = {
        "features": [neuron | {"index": "2"}, neuron | {"index": 0, "maxActApprox": None, "frac_nonzero": 0}],
        "activations": [example, example, example | {"values": [0, 0]}, example | {"values": [1.0, 2.0], "binMin": 0, "binMax": 2.0, "binContains": 0.5, "maxValueTokenIndex": 1}],
        "explanations": [{"layer": "3-set", "index": "2", "description": "  y's ", "typeName": "np_max-act", "explanationModelName": "gpt"}, {"layer": "3-set", "index": "2", "description": " "}],
    }  # fmt: skip
    for kind, of_kind in rows.items():
        (place / kind).mkdir(parents=True)
        with gzip.open(place / kind / "batch-0.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in of_kind))
    written, left = read_bulk(tmp_path / "in", tmp_path / "back")
    assert left == {"examples without activation": 1, "repeated examples": 1, "empty descriptions": 1}
    index = Index(written)
    source = index.sources["3-set"]
    assert len(source) == 3 and source.columns["density"].tolist() == [0, 0, 0.25]
    groups = source.record(2).groups
    assert [(g.label, g.low, g.high, len(g.examples)) for g in groups] == [("top", 4.0, 4.0, 1), ("interval", 0.0, 2.0, 1)]
    assert groups[0].share == 0.25 and groups[1].share == 0.5  # of the four firings that the histogram counts
    assert groups[1].examples[0].fired == [(0, 64), (1, 128)] and groups[1].examples[0].peak == 1
    assert sum(source.record(2).histogram) == 4 and source.record(2).histogram[10] == 3 and source.record(2).histogram[30] == 1
    assert [(d.by, d.text) for d in source.descriptions(2)] == [("gpt, np_max-act", "y's")]
    assert source.record(2).neighbours == [(0, 0.5)]  # there is no latent 7 in these files
    assert source.record(1).groups == [] and names(index)["3-set"].set == "set"


def test_a_latent_that_fired_seldom_is_not_dead(tmp_path):
    feature = {
        "feature_index": 0,
        "frac_nonzero": 0.0,
        "freq_hist_data_bar_heights": [2],
        "freq_hist_data_bar_values": [1.0],
        "n_prompts_total": 1000,
        "n_tokens_in_prompt": 400,
    }
    shown = {"tokens": ["a"], "values": [2.0], "bin_min": -1, "bin_max": 2.0, "bin_contains": -1}
    batch = {
        "model_id": "m",
        "layer": 1,
        "sae_set": "s",
        "features": [feature | {"activations": [shown]}, feature | {"feature_index": 1, "freq_hist_data_bar_heights": []}],
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "batch-0.json").write_text(json.dumps(batch))
    source = Index(read_dashboards(tmp_path / "in", tmp_path / "back")[0]).sources["1-s"]
    assert source.columns["density"].tolist() == pytest.approx([2 / 400_000, 0])


def test_histograms_keep_their_counts():
    assert rebinned([], [], 1.0) == [] and rebinned([1], [0.5], 0.0) == []
    heights = list(range(40))
    assert rebinned(heights, [(i + 0.5) * 7.3 / 40 for i in range(40)], 7.3) == heights
    assert sum(rebinned([5, 6, 7], [-1.0, 3.0, 99.0], 4.0)) == 18


def broken(place, kind, content, *, packed=True):
    (place / "features").mkdir(parents=True, exist_ok=True)
    (place / kind).mkdir(parents=True, exist_ok=True)
    data = gzip.compress(content) if packed else content
    (place / kind / "batch-0.jsonl.gz").write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "content", "packed", "says"),
    [
        ("features", b'{"layer": "1-s", "index": "0"}\n{"layer"', True, "line 2"),
        ("features", b'{"layer": "1-s", "index": "x"}\n', True, "line 1"),
        ("features", b'{"layer": "1-s", "index": "-1"}\n', True, "no latent's"),
        ("features", b'{"layer": "1-s", "index": "0"}\n{"layer": "1-s", "index": "0"}\n', True, "twice"),
        ("activations", b'{"layer": "1-s", "index": "0", "tokens": ["a"], "values": [1, 2]}\n', True, "1 tokens and 2 values"),
        ("features", b'{"layer": "1-s", "index": "0", "pos_str": ["a"], "pos_values": []}\n', True, "1 tokens and 0 values"),
        ("features", b"not gzip", False, "batch-0.jsonl.gz"),
        ("features", gzip.compress(b'{"layer": "1-s", "index": "0"}\n' * 50, mtime=0)[:-12], False, "batch-0.jsonl.gz"),
    ],
    ids=["cut line", "index x", "index -1", "twice", "fewer tokens", "fewer values", "not gzip", "cut gzip"],
)
def test_damaged_files_are_named_with_their_line(tmp_path, kind, content, packed, says):
    broken(tmp_path / "in" / "m" / "1-s", kind, content, packed=packed)
    with pytest.raises(ValueError, match=says) as error:
        read_bulk(tmp_path / "in", tmp_path / "back")
    assert "batch-0.jsonl.gz" in str(error.value) and not (tmp_path / "back").exists()


def test_a_mended_file_is_read_where_the_import_stopped(tmp_path):
    broken(
        tmp_path / "in" / "m" / "1-s",
        "features",
        b'{"layer": "1-s", "index": "0", "pos_str": ["only here"], "pos_values": [1]}\n{',
    )
    with pytest.raises(ValueError, match="line 2"):
        read_bulk(tmp_path / "in", tmp_path / "back")
    broken(tmp_path / "in" / "m" / "1-s", "features", b'{"layer": "1-s", "index": "0"}\n')
    index = Index(read_bulk(tmp_path / "in", tmp_path / "back")[0])
    assert index.strings == {0: ""}  # nothing of the attempt that failed


def test_what_cannot_be_imported_is_said_before_anything_is_written(index, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no bulk files"):
        read_bulk(tmp_path / "empty", tmp_path / "back")
    with pytest.raises(ValueError, match="no batches"):
        read_dashboards(tmp_path / "empty", tmp_path / "back")
    for model in ("m", "n"):
        broken(tmp_path / "two" / model / "1-s", "features", b"")
    with pytest.raises(ValueError, match="several models"):
        read_bulk(tmp_path / "two", tmp_path / "back")
    with pytest.raises(ValueError, match="no source 'nope'"):
        write_bulk(index, tmp_path / "out", sources=["nope"])
    with pytest.raises(ValueError, match="say which of"):
        write_dashboards(index, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="holds other files"):
        write_dashboards(index, tmp_path / "full", source="sae")
    assert not (tmp_path / "out").exists() and not (tmp_path / "back").exists()


def test_batches_come_back_as_the_same_latents(index, tmp_path):
    folder = write_dashboards(index, tmp_path / "out", source="sae", batch=40)
    batch = json.loads((folder / "batch-1.json").read_text())
    assert {k: batch[k] for k in ("model_id", "layer", "sae_set")} == {
        "model_id": "toy-gemma3_text",
        "layer": 2,
        "sae_set": "diascope-res-96--sae",
    }
    assert [f["feature_index"] for f in batch["features"]] == list(range(40, 80))
    written, left = read_dashboards(folder, tmp_path / "back")
    assert left == {}
    same_records(index, Index(written), "sae", names(index)["sae"].source, neighbours=False)
    shutil.rmtree(folder / "batch-2.json", ignore_errors=True)
    (folder / "batch-2.json").write_text("{")
    with pytest.raises(ValueError, match=r"batch-2\.json is damaged"):
        read_dashboards(folder, tmp_path / "again")
    (folder / "batch-2.json").unlink()
    write_dashboards(index, folder, source="sae", batch=40)
    assert json.loads((folder / "batch-2.json").read_text())["features"][0]["feature_index"] == 80


def test_nothing_of_torch_is_needed():
    import subprocess
    import sys

    code = "import sys; import diascope.latents.exchange; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
