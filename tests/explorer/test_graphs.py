"""Graphs over HTTP: listed, viewed with labels and links, intervened on; names never become paths; and a page in one file."""

import asyncio
import base64
import hashlib
import json
import re
import subprocess
import sys

import httpx
import numpy as np
import pytest
import torch
from graph_workspace import PROMPT, opened_with, traced, transcoder, write_workspace

from diascope.circuits import Kind, TokenTarget
from diascope.circuits.effects import latent_ids, measured, predicted
from diascope.circuits.verify import subject_of
from diascope.circuits.view import view
from diascope.dictionaries import Dictionary
from diascope.edits import Edit
from diascope.explorer.circuits import graphs_in
from diascope.explorer.host import ModelHost
from diascope.explorer.interventions import Ready, Work, intervened, made_with
from diascope.explorer.server import create_app
from diascope.latents.store import Index
from diascope.page import render_html
from diascope.sites import Site

TOKEN, PORT = "secret", 7400


@pytest.fixture(scope="module")
def opened(toy):
    return opened_with(toy)


@pytest.fixture(scope="module")
def graph(opened):
    return traced(opened)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, graph, opened):
    return write_workspace(tmp_path_factory.mktemp("workspace"), graph, opened)


@pytest.fixture(scope="module")
def ask(workspace, opened):
    """One request to a server with these graphs and the open model."""
    index, host = Index(workspace / "index"), ModelHost(lambda: opened)
    app = create_app(index, host, lambda *_: {}, token=TOKEN, port=PORT, graphs=graphs_in(workspace / "graphs"))

    def ask(method, path, headers=None, **options):
        async def go():
            transport = httpx.ASGITransport(app=app)
            sent = {"host": f"127.0.0.1:{PORT}", "authorization": f"Bearer {TOKEN}", **(headers or {})}
            async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as client:
                return await client.request(method, path, headers=sent, **options)

        return asyncio.run(go())

    return ask


def a_latent(graph):
    """The latent [layer, position, index] of the most influence, and its node."""
    node = int(torch.where(graph.kind == Kind.LATENT, graph.influence, -1).argmax())
    return [int(c[node]) for c in (graph.layer, graph.position, graph.index)], node


def test_graphs_are_listed_and_a_damaged_one_is_named(ask):
    found = {g["id"]: g for g in ask("GET", "/api/graphs").json()}
    assert set(found) == {"broken", "capital"}
    assert "damaged" in found["broken"]["problem"]
    assert len(found["capital"]["tokens"]) == len(PROMPT) and 0 <= found["capital"]["scores"]["replacement"] <= 1
    assert found["capital"]["says"] is None


def test_a_view_is_the_graphs_with_labels_and_links(ask, graph):
    found = ask("GET", "/api/graphs/capital").json()
    own = view(graph)
    assert [n["name"] for n in found["nodes"]] == [n["name"] for n in own["nodes"]]
    assert np.allclose([e[2] for e in found["edges"]], [e[2] for e in own["edges"]])
    assert found["graph"] == "capital" and found["links"] == {"0": "0-tc"}
    for n in found["nodes"]:
        assert n["label"] == (f"about {n['index']}" if n["kind"] == "latent" and n["layer"] == 0 else "")
    fewer = ask("GET", "/api/graphs/capital?node_share=0.3&edge_share=0.5").json()
    assert len(fewer["nodes"]) < len(found["nodes"]) and len(fewer["edges"]) < len(found["edges"])


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/graphs/nope", 404, "there are broken, capital"),
        ("/api/graphs/..%2Fsecret", 404, ""),
        ("/api/graphs/%2e%2e", 404, "no graph"),
        ("/api/graphs/broken", 422, "broken"),
        ("/api/graphs/capital?node_share=0", 400, "node_share"),
        ("/api/graphs/capital?edge_share=x", 400, "edge_share"),
        ("/api/graphs/capital?node_share=nan", 400, "node_share"),
    ],
)
def test_wrong_requests_get_a_sentence(ask, path, status, says):
    answer = ask("GET", path)
    assert answer.status_code == status and says in answer.text


def test_an_intervention_is_what_the_model_does_and_what_edges_say(ask, graph, opened):
    key, node = a_latent(graph)
    body = {"latents": [key], "factor": 0, "mode": "free"}
    found = ask("POST", "/api/graphs/capital/intervene", json=body).json()
    model, dictionaries = opened
    layer, position, index = key
    d = dictionaries[f"{layer}-tc"]
    activation = float(graph.activation[node])

    def take(_, y):
        y = y.clone()
        y[:, position] -= activation * d.decoders[0][index].to(y)
        return y

    site = Site(layer, "mlp_out")
    with model.edit(Edit(site, site, take, label="by hand", special=True)):
        after = model.logits([PROMPT])[0, -1]
    before = model.logits([PROMPT])[0, -1]
    for target, token in zip(found["targets"], graph.index[graph.targets()].tolist(), strict=True):
        change = (after - before)[token] - (after - before).mean()
        assert target["measured"] == pytest.approx(float(change), abs=2e-5)
        assert target["after"] == pytest.approx(float(after.softmax(-1)[token]), abs=1e-5)
    direct, total = (float(p[node]) for p in predicted(graph))
    assert found["targets"][0]["direct"] == pytest.approx(direct) and found["targets"][0]["total"] == pytest.approx(total)
    assert [p for _, p in found["after"]] == pytest.approx(after.softmax(-1).topk(5).values.tolist(), abs=1e-5)


def test_factors_scale_predictions_add_and_one_changes_nothing(graph, opened):
    ready = Ready.of(graph, *opened)
    nodes = (graph.kind == Kind.LATENT).nonzero().squeeze(1)[:3].tolist()
    keys: list[tuple[int, int, int]] = [(int(graph.layer[n]), int(graph.position[n]), int(graph.index[n])) for n in nodes]
    total = predicted(graph)[1]
    twice = intervened(ready, keys, factor=2.0, mode="norms frozen")
    assert twice["targets"][0]["total"] == pytest.approx(-float(total[nodes].sum()), rel=1e-5, abs=1e-9)
    same = intervened(ready, keys, factor=1.0, mode="free")
    assert all(t["total"] == t["direct"] == 0 for t in same["targets"])
    assert max(abs(t["measured"]) for t in same["targets"]) < 1e-5


def test_a_difference_of_two_tokens_is_measured_as_that(opened):
    graph = traced(opened, target=TokenTarget(40, against=41))
    ready = Ready.of(graph, *opened)
    key, node = a_latent(graph)
    ids = latent_ids(graph, ready.subject.replacement)[node : node + 1]
    direct = measured(ready.subject.frozen, ready.subject.replacement, ready.subject.covectors, [ids], [0.0], "free")
    found = intervened(ready, [(key[0], key[1], key[2])], factor=0.0, mode="free")
    assert found["targets"][0]["measured"] == pytest.approx(float(direct[0, 0]), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"latents": [], "factor": 0}, 400, "1 to 500"),
        ({"latents": [[0, 1]], "factor": 0}, 400, "layer, position, index"),
        ({"latents": [[0, 1, True]], "factor": 0}, 400, "layer, position, index"),
        ({"latents": [[0, 1, 2]], "factor": "x"}, 400, "factor"),
        ({"latents": [[0, 1, 2]], "factor": 1e9}, 400, "factor"),
        ({"latents": [[0, 1, 2]], "factor": 0, "mode": "evil"}, 400, "mode"),
        ({"latents": [[0, 1, 9999]], "factor": 0}, 422, "no latent 9999"),
        ([], 400, "JSON object"),
    ],
)
def test_wrong_interventions_are_refused(ask, body, status, says):
    answer = ask("POST", "/api/graphs/capital/intervene", json=body)
    assert answer.status_code == status and says in answer.json()["error"]


def test_other_pages_cannot_intervene(ask):
    body = {"latents": [[0, 1, 2]], "factor": 0}
    assert ask("POST", "/api/graphs/capital/intervene", json=body, headers={"origin": "http://evil.example"}).status_code == 403
    plain = {"content-type": "text/plain"}
    assert ask("POST", "/api/graphs/capital/intervene", content="{}", headers=plain).status_code == 415


def test_dictionaries_of_another_graph_are_refused(workspace, opened):
    model, dictionaries = opened
    with pytest.raises(ValueError, match="1 of them are not in this workspace"):
        Work().intervene((model, dict(list(dictionaries.items())[1:])), workspace / "graphs" / "capital", [(0, 1, 2)], factor=0.0, mode="free")  # fmt: skip
    others = {name: transcoder(layer, S=40) for layer, name in enumerate(dictionaries)}
    with pytest.raises(ValueError, match="other dictionaries"):
        Work().intervene((model, others), workspace / "graphs" / "capital", [(0, 1, 2)], factor=0.0, mode="free")


def test_dictionaries_may_have_been_given_in_another_order(opened):
    model, dictionaries = opened
    names: dict[str, Dictionary] = dict(
        zip(("0-tc", "10-tc", "11-tc", "1-tc"), dictionaries.values(), strict=True)
    )  # as a shell sorts eleven layers
    graph = traced((model, {name: names[name] for name in sorted(names)}))
    chosen = made_with(graph, names)
    assert subject_of(graph, model, chosen).replacement.latents.layer.unique().tolist() == list(range(model.n_layers))


def test_serving_graphs_imports_no_torch():
    code = (
        "import sys; from diascope.explorer.circuits import graphs_in; import diascope.explorer.server;"
        "graphs_in('nowhere').found(); assert not {'torch', 'transformers'} & set(sys.modules), 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_holds_its_data_inert_and_lets_only_its_own_script_run(graph):
    data = view(graph) | {"tokens": ["</script><script>alert(1)</script>", "<!--", "\ud800", "&amp;"]}
    page = render_html("circuit", data)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found and json.loads(found[1])["tokens"] == data["tokens"] and "alert(1)<" not in page
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "default-src 'none'" in page
    assert page == render_html("circuit", data)
    page.encode()


def test_pages_of_no_view_or_of_no_json_are_refused():
    with pytest.raises(ValueError, match="circuit"):
        render_html("../etc", {})
    with pytest.raises(ValueError, match="NaN"):
        render_html("circuit", {"tokens": [], "x": float("nan")})
