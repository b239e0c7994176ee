"""`diascope trace` as a user types it."""

import json
import subprocess
import sys

import pytest
from planted import clt, transcoders

from diascope.circuits import Graph
from diascope.dictionaries import save_dictionary
from diascope.models.toy import toy_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model and its transcoders."""
    folder = tmp_path_factory.mktemp("trace")
    model = toy_model()
    model.module.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    for i, d in enumerate(transcoders(skip=True)):
        save_dictionary(d.float(), folder / f"layer{i}")
    save_dictionary(clt().float(), folder / "clt")
    return folder


def traced(place, *arguments, prompt="hello world"):
    command = [sys.executable, "-m", "diascope.cli", "trace", str(place / "model"), "--prompt", prompt, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=place)


def test_a_graph_with_its_page_and_a_viewers_json(place):
    done = traced(place, "--dictionaries", f"{place}/layer*", "--out", "g", "--viewer", "v.json", "--verify", 20)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Replacement" in done.stdout and "Spearman" in done.stdout
    graph = Graph.load(place / "g")
    assert graph.about["verification"]["latents"] == 20 and graph.closure() < 1e-4
    page = (place / "g" / "graph.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert json.loads((place / "v.json").read_text())["links"]
    assert not list(place.glob(".g*"))
    again = traced(place, "--dictionaries", f"{place}/layer*", "--out", "g")
    assert again.returncode == 2 and "g exists" in again.stderr


def test_neurons_and_a_difference(place):
    done = traced(place, "--target", "a", "--against", "b", "--out", "n", "--verify", 0, "--least", "0.01")
    assert done.returncode == 0, done.stderr
    assert "'a - b'" in done.stdout
    whole = traced(place, "--dictionaries", "clt", "--out", "c", "--window", 5, prompt="hello world, hello all")
    assert whole.returncode == 0, whole.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--dictionaries", "nothing*"), "nothing is called nothing*"),
        (("--dictionaries", "nowhere"), "there is no dictionary folder"),
        (("--against", "b"), "give the first with --target"),
        (("--target", "two words"), "a target is one"),
        (("--least", "3"), "least is a share"),
        (("--dictionaries", "clt", "layer1"), "two dictionaries read L1.mlp_in"),
    ],
)
def test_bad_input_ends_with_one_sentence(place, arguments, says):
    done = traced(place, *arguments, "--out", "bad")
    assert done.returncode == 2 and says in " ".join(done.stderr.split()) and "Traceback" not in done.stderr, done.stderr
    assert not (place / "bad").exists()
