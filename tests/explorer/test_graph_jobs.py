"""Interventions as jobs, and which source a graph's latents are linked to."""

import shutil

import httpx
import pytest
import torch
from graph_workspace import opened_with, traced, write_workspace
from steer_workspace import TOKEN, events, served

from diascope.circuits import Graph, Kind
from diascope.config import to_data
from diascope.dictionaries import Dictionary
from diascope.explorer.circuits import graphs_in
from diascope.explorer.interventions import Work
from diascope.latents.store import Index, write_source

HEADERS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def opened(toy):
    return opened_with(toy)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, opened):
    return write_workspace(tmp_path_factory.mktemp("graphs"), traced(opened), opened)


def latent_of(workspace):
    graph = Graph.load(workspace / "graphs" / "capital")
    node = int((graph.kind == Kind.LATENT).nonzero()[0])
    return [int(graph.layer[node]), int(graph.position[node]), int(graph.index[node])]


def test_an_intervention_tells_its_stages_and_ends_as_the_plain_answer_does(workspace, opened):
    with served(Index(workspace / "index"), opened, graphs=graphs_in(workspace / "graphs")) as (address, _), httpx.Client(base_url=address, headers=HEADERS, timeout=60) as client:  # fmt: skip
        body = {"latents": [latent_of(workspace)], "factor": 0, "mode": "free"}
        path = "/api/graphs/capital/intervene"
        plain = client.post(path, json=body).json()
        with client.stream("POST", path, json=body, headers={"accept": "text/event-stream"}) as answer:
            told = list(events(answer.iter_lines()))
        assert [kind for _, kind, _ in told] == ["job", "stage", "done"]  # what the first one read is kept
        assert told[-1][2] == plain and told[0][2]["ahead"] == 0
        wrong = body | {"latents": [[0, 0, 47]]}
        with client.stream("POST", path, json=wrong, headers={"accept": "text/event-stream"}) as answer:
            *_, (_, kind, data) = events(answer.iter_lines())
        assert kind == "failed" and "this graph has no latent" in data["error"]
        assert client.post(path, json=body | {"factor": "x"}, headers={"accept": "text/event-stream"}).status_code == 400
        assert client.get("/api/jobs").json()["jobs"][0]["title"] == "intervening on 1 latent of capital"


def test_the_first_intervention_tells_of_reading_and_running(workspace, opened):
    told = []
    Work().intervene(opened, workspace / "graphs" / "capital", [tuple(latent_of(workspace))], factor=0.0, mode="free", stage=told.append)  # fmt: skip
    assert told[0] == "reading the graph" and told[-1] == "running the model with the change" and len(told) == 4


def rewritten(workspace, folder, sources):
    """The workspace's index with other sources: [(name, dictionary, config or {})]."""
    shutil.copytree(workspace / "index", folder)
    shutil.rmtree(folder / "sources")
    for number, (name, d, config) in enumerate(sources):
        meta = {"name": name, "config": config, "card": {}, "title": d.config.title, "tokens_swept": 1, "logit_vocabulary": 1}
        columns = {"density": torch.ones(d.d_sae).numpy(), "threshold": d.threshold.detach().numpy()}
        write_source(folder / "sources" / str(number), meta, columns, [b"\x90"] * d.d_sae)
    return Index(folder)


def test_of_two_runs_of_one_recipe_the_graphs_own_is_linked(workspace, opened, tmp_path):
    """Title and config are equal; only thresholds tell the two apart, and the title alone would link neither."""
    d = opened[1]["0-tc"]
    twin = Dictionary(d.config, {k: v + 0.5 if k == "threshold" else v for k, v in d.tensors().items()})
    index = rewritten(workspace, tmp_path / "index", [("twin", twin, to_data(d.config)), ("own", d, to_data(d.config))])
    graph = workspace / "graphs" / "capital"
    assert {layer: s.name for layer, s in Work().sources(opened, graph, index).items()} == {0: "own"}
    only = rewritten(workspace, tmp_path / "only", [("twin", twin, to_data(d.config))])
    assert Work().sources(opened, graph, only) == {}  # by its title it would have been linked
    others = opened[0], {name: x for name, x in opened[1].items() if name != "1-tc"}
    assert Work().sources(others, graph, index) is None  # not what the graph was made with: titles must do
    assert Work().sources(opened, graph, rewritten(workspace, tmp_path / "bare", [("own", d, {})])) is None
