"""`diascope trace` as a user types it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tyro
from planted import clt, transcoders

from diascope.circuits import Graph, Kind, prune
from diascope.circuits.labels import described
from diascope.cli.trace import Trace
from diascope.config import to_data
from diascope.dictionaries import save_dictionary
from diascope.latents.describe.shelf import Description
from diascope.latents.store import Index, write_source
from diascope.models.toy import toy_model

NEW = "hello world, hello all"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, its transcoders, a direction, and a workspace whose index describes those of layer 1."""
    folder = tmp_path_factory.mktemp("trace")
    model = toy_model()
    model.module.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    for i, d in enumerate(transcoders(skip=True)):
        save_dictionary(d.float(), folder / f"layer{i}")
        save_dictionary(d.float(), folder / "w" / "dictionaries" / f"layer{i}")
    save_dictionary(clt().float(), folder / "clt")
    np.save(folder / "probe.npy", np.arange(32.0))
    write_index(folder / "w" / "index", "model", transcoders(skip=True)[1].float())
    return folder


def write_index(folder, model, d):
    """An index of one dictionary in which every latent has a description."""
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "tokens.npy", np.zeros((1, 4), np.int32))
    (folder / "corpus" / "strings.json").write_text("{}")
    meta = {
        "name": "one",
        "config": to_data(d.config),
        "card": {},
        "title": d.config.title,
        "tokens_swept": 1,
        "logit_vocabulary": 1,
    }
    columns = {"density": np.ones(d.d_sae, np.float32), "threshold": d.threshold.detach().numpy()}
    said = {i: [Description("judge", f"about {i}", {})] for i in range(d.d_sae)}
    write_source(folder / "sources" / "0", meta, columns, [b"\x90"] * d.d_sae, said)
    (folder / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": model}))


@pytest.fixture
def traced(place, monkeypatch, capsys):
    """Carry out `diascope trace` in that folder, in this process: what it printed, in one line."""

    def run(*arguments, prompt="hello world"):
        monkeypatch.chdir(place)
        tyro.cli(Trace, args=["model", "--prompt", prompt, *map(str, arguments)]).run()
        return " ".join(capsys.readouterr().out.split())

    return run


def test_a_graph_with_its_page_a_viewers_json_and_its_trials(place, traced):
    """Skip-transcoders, verified, with a swap, all by one command."""
    swapped = ("--swap-from", "jello wurld", "--swap", "L1/*@4", "@5", "--swap-positions", "4:3")
    tried = ("--verify", 20, "--controls", 30, *swapped)
    said = traced("--dictionaries", "layer*", "--out", "g", "--viewer", "v.json", *tried)
    assert all(word in said for word in ("Replacement", "Spearman", "heaviest supernode", "swap moves", "Likeliest next token"))
    graph = Graph.load(place / "g")
    told = graph.about["verification"]
    assert told["latents"] == 20 and told["supernode"]["controls"] == 30 and graph.closure() < 1e-4
    (found,) = graph.about["swaps"]
    assert found["nodes"] == ["L1/*@4", "@5"] and found["positions"] == [[4, 3]] and found["errors"] == 4
    page = (place / "g" / "graph.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    data = json.loads((place / "v.json").read_text())
    assert data["links"] and data["metadata"]["info"]["swaps"] == [found]
    assert data["metadata"]["info"]["supernode"] == told["supernode"]["says"] and told["supernode"]["says"] in page
    assert not list(place.glob(".g*"))
    with pytest.raises(ValueError, match="g exists"):
        traced("--dictionaries", "layer*", "--out", "g")


def test_neurons_and_a_difference(place, traced):
    options = ("--verify", 0, "--least", "0.01")
    assert "'a - b'" in traced("--target", "a", "--against", "b", "--out", "n", *options)
    assert "'a - b'" in traced("--target", "a - b", "--out", "n2", *options)
    assert (Graph.load(place / "n").edge == Graph.load(place / "n2").edge).all()
    traced("--dictionaries", "clt", "--out", "c", "--window", 5, prompt=NEW)


def test_a_latent_and_a_direction_are_targets_that_no_intervention_reads(place, traced):
    said = traced("--dictionaries", "layer*", "--target", "probe.npy@L2@4", "--out", "d")
    assert "not verified: only logits can be read" in said
    graph = Graph.load(place / "d")
    assert graph.about["targets"] == ["probe"] and int(graph.position[-1]) == 4 and int(graph.layer[-1]) == 3
    active = (graph.kind == Kind.LATENT) & (graph.layer == 2) & (graph.position == 4)
    latent = int(graph.index[active][0])
    traced("--dictionaries", "layer*", "--target", f"L2/{latent}@4", "--out", "l")
    assert Graph.load(place / "l").about["targets"] == [f"L2 latent {latent}"]


def test_the_supernode_is_what_is_swapped_where_nothing_is_said(place, traced):
    traced("--dictionaries", "layer*", "--out", "s", "--verify", 20, "--controls", 20, "--swap-from", "jello wurld")
    about = Graph.load(place / "s").about
    members = [f"L{layer}/{index}@{position}" for layer, position, index in about["verification"]["supernode"]["latents"]]
    assert about["swaps"][0]["nodes"] == members and about["swaps"][0]["errors"] == 0


def test_latents_are_called_what_the_index_says(place, traced):
    """Found beside the dictionaries, or named; in the table, the graph, the page and the viewers' JSON."""
    said = traced("--dictionaries", "w/dictionaries/*", "--out", "i", "--viewer", "i.json", "--verify", 0)
    graph = Graph.load(place / "i")
    assert "about " in said
    traced("--dictionaries", "layer*", "--index", "w", "--out", "j", "--verify", 0)
    assert Graph.load(place / "j").about["labels"] == graph.about["labels"]
    small = prune(graph)
    for node in (small.kind == Kind.LATENT).nonzero().squeeze(1).tolist():
        layer, index = int(small.layer[node]), int(small.index[node])
        assert graph.about["labels"][f"{layer}/{index}"] == small.label(node)
        assert (small.label(node) == f"about {index}") == (layer == 1) and small.label(node)
    nodes = json.loads((place / "i.json").read_text())["nodes"]
    ours = [n for n in nodes if n["feature_type"] == "cross layer transcoder" and n["layer"] == "1"]
    assert ours and all(n["clerp"] == f"about {n['node_id'].split('_')[1]}" for n in ours)
    assert ours[0]["clerp"] in (place / "i" / "graph.html").read_text()


def test_an_index_of_others_is_refused(place, traced):
    index, mine = Index(place / "w" / "index"), transcoders(skip=True)
    traced("--dictionaries", "layer*", "--out", "o", "--verify", 0)
    graph = Graph.load(place / "o")
    with pytest.raises(ValueError, match="none of the graph's dictionaries"):
        described(graph, transcoders(skip=True, seed=5), index)  # of the same config
    assert {layer for layer, _ in described(graph, mine, index)} == {1}
    index.meta["model"] = "another"
    with pytest.raises(ValueError, match="the index is of another"):
        described(graph, mine, index)


def test_an_index_beside_the_dictionaries_that_is_of_others_is_said_and_left(place, traced):
    save_dictionary(transcoders(skip=True, seed=5)[1].float(), place / "x" / "dictionaries" / "one")
    write_index(place / "x" / "index", "model", transcoders(skip=True)[1].float())
    said = traced("--dictionaries", "x/dictionaries/one", "--out", "x/g", "--verify", 0)
    assert "not labelled from x/index" in said and (place / "x" / "g").is_dir()


def test_bad_input_ends_with_one_sentence_and_code_2(place):
    command = [sys.executable, "-m", "diascope.cli", "trace", "model", "--prompt", "a", "--target", "two words"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place)
    assert done.returncode == 2 and "a target is one" in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--dictionaries", "nothing*"), "nothing is called nothing*"),
        (("--dictionaries", "nowhere"), "there is no dictionary folder"),
        (("--against", "b"), "give the first with --target"),
        (("--target", "two words"), "a target is one"),
        (("--target", "two - words"), "is no difference of two tokens"),
        (("--target", "probe.npy"), "say after which block the direction is read"),
        (("--target", "nowhere.npy@L1"), "there is no file nowhere.npy"),
        (("--target", "probe.npy@L9"), "a direction is read at resid_post of layers 0 to 3"),
        (("--target", "L1/3", "a"), "trace a latent or a direction by itself"),
        (("--dictionaries", "clt", "--target", "L1/9999"), "is not active at position -1"),
        (("--least", "3"), "least is a share"),
        (("--controls", "3"), "controls"),
        (("--dictionaries", "clt", "layer1"), "two dictionaries read L1.mlp_in"),
        (("--index", "w"), "the MLPs' own neurons"),
        (("--dictionaries", "layer0", "--index", "w"), "the index has none of the graph's dictionaries"),
        (("--dictionaries", "layer1", "--index", "model"), "is no index"),
        (("--swap", "@3"), "give it with --swap-from"),
        (("--swap-from", NEW), "give --dictionaries with --swap-from"),
        (("--dictionaries", "clt", "--swap-from", NEW, "--swap", "3/4"), "names no nodes"),
        (("--dictionaries", "clt", "--swap-from", NEW, "--swap-positions", "3"), "write HERE:THERE"),
        (("--dictionaries", "clt", "--swap-from", NEW, "--window", "3"), "leave --window out"),
        (("--dictionaries", "clt", "--swap-from", NEW, "--target", "L1/3"), "give tokens as --target"),
        (("--dictionaries", "clt", "--swap-from", "a", "--swap", "@5"), "is not in the other prompt"),
    ],
)
def test_bad_input_says_what_to_do(place, traced, arguments, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        traced(*arguments, "--out", "bad")
    assert not (place / "bad").exists()
