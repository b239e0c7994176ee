"""The real `neuronpedia` client against our server: its calls for features, searches, steering and graphs, beside what Python gives.

The client is unchanged; only the port that it asks is the test's own, for it knows 3000 alone.
"""

import asyncio
import json
import os
import subprocess
import sys
from itertools import pairwise

import httpx
import numpy as np
import pytest
import torch
from steer_workspace import TOKEN, served

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.explorer.circuits import graphs_in
from diascope.explorer.host import QUEUE, ModelHost
from diascope.explorer.live import Opened, encode
from diascope.explorer.np_compat import PORT, with_neuronpedia
from diascope.explorer.server import create_app
from diascope.latents.build import build_index
from diascope.latents.describe.shelf import Description, shelve
from diascope.latents.examples import live_rows
from diascope.latents.steering import Push, side_by_side
from diascope.latents.store import Index
from diascope.models.toy import toy_model
from diascope.tokens import Document, pack

neuronpedia = pytest.importorskip("neuronpedia", reason="the client is in the dev extra")

MODEL, SOURCE = "toy-gemma3_text", "2-diascope-res-64"
TEXT = "the cat sat"
WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()
TEMPLATE = (
    "<bos>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[model]{% endif %}"
)


@pytest.fixture(scope="module")
def chatty():
    model = toy_model()
    model.tokenizer.chat_template = TEMPLATE
    return model


@pytest.fixture(scope="module")
def d():
    g = torch.Generator().manual_seed(0)
    tensors = {
        "W_enc": torch.randn(32, 64, generator=g) / 5,
        "W_dec": torch.nn.functional.normalize(torch.randn(64, 32, generator=g), dim=1),
        "b_enc": torch.zeros(64),
        "b_dec": torch.zeros(32),
        "threshold": torch.full((64,), 1.0),
    }
    return Dictionary(DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", 32, 32, 64), tensors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, chatty, d):
    r = np.random.default_rng(0)
    sequences = pack(chatty, [Document(f"d{i}", " ".join(r.choice(WORDS, 14))) for i in range(40)], context=64, max_tokens=2000)
    folder = tmp_path_factory.mktemp("np")
    build_index(chatty, {"sae": d}, sequences, live_rows(chatty, sequences, [d.site_in]), folder / "index")
    shelve(
        folder / "index",
        0,
        {3: [Description("judge", "rivers & lakes", {"detection": 0.9})], 5: [Description("judge", "lakes", {})]},
    )
    return folder


@pytest.fixture(scope="module")
def index(folder):
    return Index(folder / "index")


@pytest.fixture(scope="module")
def address(index, folder, chatty, d):
    graphs = graphs_in(folder / "graphs")
    opened = Opened((chatty, {"sae": d}))
    with served(index, opened, graphs=graphs, around=lambda app, host: with_neuronpedia(app, index, host, graphs)) as (at, _):
        yield at.replace("127.0.0.1", "localhost")  # as the client says it


@pytest.fixture(autouse=True)
def here(monkeypatch, address):
    """The client's own way to say who asks; where it asks is 3000 unless a test moves it."""
    from neuronpedia.requests.base_request import NPRequest

    monkeypatch.setattr(NPRequest, "BASE_URL", f"{address}/api")
    monkeypatch.setenv("NEURONPEDIA_API_KEY", TOKEN)


def fired(chatty, d, text):
    """(tokens, dense activations [T, S]) as the model and the dictionary give them; special tokens have none."""
    ids = chatty.tokenize(text)
    seen = chatty.capture([ids], [d.site_in])
    f = d.encode(seen[d.site_in][0]).dense().clone()
    f[~seen.mask[0]] = 0
    return [chatty.tokenizer.decode([i]) for i in ids], f


def test_the_client_asks_this_machine_where_it_is_told_to():
    code = "from neuronpedia.requests.base_request import NPRequest; print(NPRequest.BASE_URL)"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"USE_LOCALHOST": "true", "PATH": ""} | _paths(), capture_output=True, text=True
    )
    assert found.stdout.strip() == f"http://localhost:{PORT}/api", found.stderr


def _paths():
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


def test_a_feature_with_its_examples_and_descriptions(index):
    source = index.sources["sae"]
    found = neuronpedia.FeatureRequest().get(MODEL, SOURCE, 3)
    assert (found.modelId, found.source, found.index) == (MODEL, SOURCE, "3")
    assert found.density == pytest.approx(float(source.columns["density"][3]))
    assert next((e.text, e.source, e.index) for e in found.explanations) == ("rivers & lakes", SOURCE, 3)
    record = source.record(3)
    assert len(found.activations) == sum(len(g.examples) for g in record.groups)
    strongest = found.activations[0]
    assert strongest.quantileFraction is None and max(strongest.values) == pytest.approx(
        float(source.columns["max_activation"][3])
    )
    assert found.activations[-1].quantileFraction == pytest.approx(record.groups[-1].share)
    plain = json.loads(neuronpedia.SAEFeatureRequest().get(MODEL, "sae", "3").jsonData)  # by our own name too
    assert plain["pos_str"] == [index.text(t) for t, _ in record.top] and plain["topkCosSimIndices"] == [
        j for j, _ in record.neighbours
    ]
    assert plain["explanations"][0]["scores"] == [{"explanationScoreTypeName": "detection", "value": 0.9}]


def test_a_latents_activations_on_a_text_and_on_several(chatty, d):
    tokens, f = fired(chatty, d, TEXT)
    latent = int(f.max(0).values.argmax())
    request = neuronpedia.ActivationRequest()
    found = request.compute_activation_for_text(MODEL, SOURCE, str(latent), TEXT)
    assert found.tokens == tokens[1:]  # without the token that opens a text, as the site
    assert found.values == pytest.approx(f[1:, latent].tolist(), abs=1e-5) and max(found.values) > 0
    several = request.compute_activation_for_texts(MODEL, SOURCE, str(latent), ["<bos>" + TEXT, "my hat"])
    assert several[0].tokens == found.tokens and several[0].values == pytest.approx(found.values, abs=1e-5)
    assert several[1].tokens == [chatty.tokenizer.decode([i]) for i in chatty.tokenize("my hat")][1:]
    whole = request.compute_all_source_activations_for_text(MODEL, SOURCE, TEXT)[0]
    again = torch.zeros_like(f)
    for position, j, value in whole["activeFeatures"]:
        again[position, j] = value
    assert torch.allclose(again, f, atol=1e-5)


def test_a_texts_latents_sorted_and_thinned(index, chatty, d):
    from neuronpedia.requests.source_activation_request import SourceActivationRequest

    tokens, f = fired(chatty, d, TEXT)
    request = SourceActivationRequest()
    found = request.compute_top_features_for_text(MODEL, SOURCE, TEXT, num_results=10)
    most = f.max(0).values
    order = most.argsort(descending=True, stable=True)[:10]
    assert [max(a.values) for a in found] == pytest.approx(most[order].tolist(), abs=1e-5)
    assert [int(a.index) for a in found] == order.tolist() and found[0].tokens == tokens
    by_token = request.compute_top_features_for_text(
        MODEL, [SOURCE], TEXT, sort_results_by_activations_at_token_indexes=[2, 4], num_results=5
    )
    sums = f[[2, 4]].sum(0)
    assert [a.values[2] + a.values[4] for a in by_token] == pytest.approx(
        sums.sort(descending=True).values[:5].tolist(), abs=1e-5
    )
    density = index.sources["sae"].columns["density"]
    rare = request.compute_top_features_for_text(MODEL, SOURCE, TEXT, density_threshold=0.1, num_results=100)
    assert {int(a.index) for a in rare} == {j for j in range(64) if most[j] > 0 and density[j] <= 0.1}
    batch = request.compute_top_features_for_texts(MODEL, SOURCE, [TEXT, "my hat"], num_results=3)
    assert [a.index for a in batch[0]] == [a.index for a in found[:3]] and len(batch) == 2


def test_the_strongest_latents_of_each_token(chatty, d):
    from neuronpedia.requests.topk_by_token_request import TopKByTokenRequest

    tokens, f = fired(chatty, d, TEXT)
    found = TopKByTokenRequest().compute_top_features_by_token_for_text(MODEL, SOURCE, TEXT, num_results=3)
    assert [(r.position, r.token) for r in found] == list(enumerate(tokens))[1:]
    for r in found:
        values = f[r.position].sort(descending=True).values[:3]
        assert [a.activationValue for a in r.topFeatures] == pytest.approx(values[values > 0].tolist(), abs=1e-5)
    several = TopKByTokenRequest().compute_top_features_by_token_for_texts(MODEL, SOURCE, [TEXT, "my hat"], num_results=2)
    assert [r.token for r in several[0]] == tokens[1:]


def steering(strength):
    from neuronpedia.np_feature import SteerFeature

    return [SteerFeature(modelId=MODEL, source=SOURCE, index=3, strength=strength)]


def test_steering_is_what_python_gives(chatty, d):
    answer = neuronpedia.SteerCompletionRequest().steer_features(
        MODEL, steering(100.0), prompt="abc", temperature=0.8, n_tokens=8, seed=4, strength_multiplier=3
    )
    expected = list(side_by_side(chatty, "abc", [Push.of_latent(d, 3, dose=300.0)], max_new_tokens=8, temperature=0.8, seed=4))
    for key, side in (("DEFAULT", "default"), ("STEERED", "steered")):
        tokens = [t for t in (getattr(p, side) for p in expected) if t]
        assert answer[key] == "abc" + "".join(t.text for t in tokens if not t.ends)
        told = answer[f"{side}LogProbs"]
        assert [t["token"] for t in told] == [t.text for t in tokens]
        assert [t["logprob"] for t in told] == pytest.approx([t.log_probability for t in tokens])
        assert len(told[0]["topLogprobs"]) == 5
    assert answer["DEFAULT"] != answer["STEERED"]


def test_a_vector_of_the_site_steers_by_its_own_strength(chatty, d):
    from neuronpedia.np_vector import NPVector

    vector = NPVector(label="x", model_id=MODEL, source=SOURCE, index="3", values=[], hook_name="", default_steer_strength=5.0)
    answer = neuronpedia.SteerCompletionRequest().steer(
        MODEL, [vector], prompt="abc", temperature=0, n_tokens=6, strength_multiplier=2
    )
    expected = side_by_side(chatty, "abc", [Push.of_latent(d, 3, dose=10.0)], max_new_tokens=6)
    assert answer["STEERED"] == "abc" + "".join(p.steered.text for p in expected if p.steered and not p.steered.ends)


@pytest.mark.parametrize("other", ["hi", "you"])
def test_a_chat_steers_its_own_messages(chatty, d, other):
    said = [[{"role": "user", "content": text}] for text in ("hi", other)]
    answer = neuronpedia.SteerChatRequest().steer_features(
        MODEL,
        steering(9.0),
        default_chat_messages=said[1],
        steered_chat_messages=said[0],
        temperature=0,
        n_tokens=5,
        strength_multiplier=1,
    )
    for key, side, messages, dose in (("STEERED", "steered", said[0], 9.0), ("DEFAULT", "default", said[1], 0.0)):
        pairs = list(side_by_side(chatty, messages, [Push.of_latent(d, 3, dose=dose)], max_new_tokens=5))
        text = "".join(getattr(p, side).text for p in pairs if getattr(p, side) and not getattr(p, side).ends)
        assert answer[key]["raw"] == f"<bos>[user]{messages[0]['content']}[model]" + text
        assert answer[key]["chatTemplate"] == [*messages, {"role": "assistant", "content": text}]


def test_steering_is_streamed_when_asked(address):
    payload = {"modelId": MODEL, "prompt": "abc", "features": [{"modelId": MODEL, "layer": SOURCE, "index": 3, "strength": 1}], "temperature": 0,
               "n_tokens": 4, "freq_penalty": 0, "seed": -3, "strength_multiplier": 1, "stream": True, "steer_method": "ORTHOGONAL_DECOMP"}  # fmt: skip
    answer = httpx.post(f"{address}/api/steer", json=payload, headers={"x-api-key": TOKEN})
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    states = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert len(states) == 4 and all(b["STEERED"].startswith(a["STEERED"]) for a, b in pairwise(states))
    assert (
        states[-1] == httpx.post(f"{address}/api/steer", json=payload | {"stream": False}, headers={"x-api-key": TOKEN}).json()
    )


def test_explanations_are_found_by_their_words(address):
    ask = {"modelId": MODEL, "layers": [SOURCE], "query": "lake"}
    answer = httpx.post(f"{address}/api/explanation/search", json=ask, headers={"x-api-key": TOKEN}).json()
    assert [r["index"] for r in answer["results"]] == ["5", "3"] and answer["hasMore"] is False and answer["resultsCount"] == 2
    assert answer["results"][1]["description"] == "rivers & lakes" and answer["results"][1]["neuron"]["index"] == "3"
    whole = httpx.post(
        f"{address}/api/explanation/search-model", json={"modelId": MODEL, "query": "fires"}, headers={"x-api-key": TOKEN}
    ).json()
    assert whole["hasMore"] and whole["nextOffset"] == 20 and len(whole["results"]) == 20
    rest = httpx.post(
        f"{address}/api/explanation/search-model",
        json={"modelId": MODEL, "query": "fires", "offset": 20},
        headers={"x-api-key": TOKEN},
    ).json()
    assert not {r["index"] for r in rest["results"]} & {r["index"] for r in whole["results"]}


def test_a_graph_is_made_found_and_fetched(address, folder):
    import requests

    made = neuronpedia.GraphRequest().generate(MODEL, "the cat", "first-graph", max_n_logits=3)
    assert (made.model_id, made.slug, made.prompt_tokens[0]) == (MODEL, "first-graph", "<bos>") and made.prompt.endswith(
        "the cat"
    )
    assert (folder / "graphs" / "first-graph" / "graph.safetensors").exists()
    listed = neuronpedia.GraphRequest().list_owned()
    assert [g.slug for g in listed] == ["first-graph"]
    shown = httpx.get(f"{address}/{MODEL}/graph?slug=first-graph", headers={"x-api-key": TOKEN})  # as made.url has it
    assert made.url.endswith(f"/{MODEL}/graph?slug=first-graph") and shown.headers["location"] == "/#/circuits/first-graph"
    graph = requests.get(made.json_url).json()  # as notebooks fetch it: without a header
    assert graph["metadata"]["slug"] == "first-graph" and graph["metadata"]["scan"] == MODEL
    assert {link["source"] for link in graph["links"]} <= {node["node_id"] for node in graph["nodes"]}
    assert 1 <= sum(node["feature_type"] == "logit" for node in graph["nodes"]) <= 3
    with pytest.raises(requests.exceptions.HTTPError, match="already"):
        neuronpedia.GraphRequest().generate(MODEL, "the cat", "first-graph")
    with pytest.raises(requests.exceptions.HTTPError, match="slug"):
        neuronpedia.GraphRequest().generate(MODEL, "the cat", "../first")
    with pytest.raises(requests.exceptions.HTTPError, match="not found"):
        neuronpedia.GraphRequest().get(MODEL, "..%2Findex")


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("feature/nope/sae/1", None, 404, "no source"),
        (f"feature/{MODEL}/..%2f..%2fetc/1", None, 404, ""),
        (f"feature/{MODEL}/{SOURCE}/64", None, 404, "latents 0 to 63"),
        (f"feature/{MODEL}/{SOURCE}/-1", None, 404, "latents 0 to 63"),
        ("activation/new", {"customText": "x"}, 400, "which feature"),
        ("activation/new", {"feature": {"modelId": MODEL, "source": SOURCE, "index": 1}, "customText": " "}, 400, "some text"),
        (
            "activation/new",
            {"feature": {"modelId": MODEL, "source": SOURCE, "index": 1}, "customText": "x " * 600},
            422,
            "limit is 512",
        ),
        ("search-all", {"modelId": MODEL, "sourceSet": "nope", "text": "x"}, 404, "no source set"),
        ("search-all", {"modelId": MODEL, "sourceSet": "diascope-res-64", "text": "x", "sortIndexes": [9]}, 400, "2 tokens"),
        ("search-all", {"modelId": MODEL, "sourceSet": "diascope-res-64", "text": "x", "numResults": 101}, 400, "numResults"),
        ("search-topk-by-token", {"modelId": MODEL, "source": SOURCE, "text": "x" * 20_001}, 413, "20,001"),
        ("explanation/search", {"modelId": MODEL, "layers": [SOURCE], "query": "ab"}, 400, "query"),
        ("steer", {"modelId": MODEL, "prompt": "x"}, 400, "features"),
        ("steer-chat", {"modelId": MODEL}, 400, "required"),
    ],
)
def test_wrong_requests_get_a_sentence(address, path, body, status, says):
    headers = {"x-api-key": TOKEN}
    answer = (
        httpx.get(f"{address}/api/{path}", headers=headers)
        if body is None
        else httpx.post(f"{address}/api/{path}", json=body, headers=headers)
    )
    assert answer.status_code == status and says in answer.text, answer.text


def test_the_guards_stay(address, monkeypatch):
    from neuronpedia.requests.base_request import NPUnauthorizedError

    with pytest.raises(NPUnauthorizedError):
        neuronpedia.FeatureRequest(api_key="wrong").get(MODEL, SOURCE, 3)
    url, key = f"{address}/api/feature/{MODEL}/{SOURCE}/3", {"x-api-key": TOKEN}
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers=key | {"host": "evil.example:3000"}).status_code == 421
    assert httpx.post(f"{address}/api/search-all", json={}, headers=key | {"origin": "http://evil.example"}).status_code == 403
    assert (
        httpx.post(f"{address}/api/search-all", content="{}", headers=key | {"content-type": "text/plain"}).status_code == 415
    )
    assert "access-control-allow-origin" not in httpx.get(url, headers=key).headers


def test_browsing_needs_no_model_and_a_busy_one_is_the_clients_rate_limit(index):
    host = ModelHost(None)
    app = with_neuronpedia(create_app(index, host, encode, token=TOKEN, port=3000), index, host, None)

    async def ask(method, path, **options):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost:3000") as client:
            return await client.request(method, path, headers={"x-api-key": TOKEN}, **options)

    search = {"modelId": MODEL, "sourceSet": "diascope-res-64", "text": "x"}
    assert asyncio.run(ask("GET", f"/api/feature/{MODEL}/{SOURCE}/3")).json()["index"] == "3"
    absent = asyncio.run(ask("POST", "/api/search-all", json=search))
    assert absent.status_code == 503 and "without a model" in absent.json()["error"]
    assert asyncio.run(ask("POST", "/api/graph/list-owned")).json() == []
    host.state, host._waiting = "ready", QUEUE
    assert asyncio.run(ask("POST", "/api/search-all", json=search)).status_code == 429  # NPRateLimitError
    host.close()


def test_the_explorers_own_page_is_served_beside_it(address):
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{address}/api/sources", headers=headers).json()[0]["name"] == "sae"
    assert "<div id" in httpx.get(f"{address}/", headers=headers).text
    own = {"prompt": "abc", "pushes": [{"source": "sae", "latent": 3, "dose": 1.0}], "unit": "activation", "max_new_tokens": 3}
    answer = httpx.post(f"{address}/api/steer", json=own, headers=headers)
    assert "event: begin" in answer.text and "event: done" in answer.text
    assert httpx.get(f"{address}/api/steer", headers=headers).json()["chat"] is True
