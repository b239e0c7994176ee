"""Our viewer's JSON against what Neuronpedia asks of an upload, and a file that Neuronpedia made against our reader.

FORM states in our own words what apps/webapp/app/api/graph/graph-schema.json of hijohnnylin/neuronpedia asks (read 2026-11-26,
commit b8efe84): the keys that must be there and their types. MADE is cut from that repository's own recorded answers
(apps/graph/tests/fixtures/graphs/123-gemma-2-2b-clt-hp.json, commit 1a66557, MIT licence): one node of each type, two links.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from planted import PROMPT, clt, transcoders

from diascope.circuits import TraceConfig, trace
from diascope.circuits.viewer_json import from_viewer, paired, to_viewer
from diascope.models.toy import toy_model

FORM: dict[str, dict[str, tuple[type, ...]]] = {
    "metadata": {"slug": (str,), "scan": (str,), "prompt_tokens": (list,), "prompt": (str,)},
    "qParams": {"pinnedIds": (list,), "supernodes": (list,), "linkType": (str,), "clickedId": (str,), "sg_pos": (str,)},
    "nodes": {
        "node_id": (str,), "feature": (int, type(None)), "layer": (str, int), "ctx_idx": (int,), "feature_type": (str,),
        "jsNodeId": (str,), "clerp": (str,), "influence": (int, float, type(None)), "activation": (int, float, type(None)),
    },
    "links": {"source": (str,), "target": (str,), "weight": (int, float)},
}  # fmt: skip


def wrong(data: dict[str, Any]) -> list[str]:
    """What of a graph is not of that form."""
    out = []
    for part, keys in FORM.items():
        for row in data[part] if isinstance(data[part], list) else [data[part]]:
            for key, types in keys.items():
                if key not in row or not isinstance(row[key], types) or isinstance(row[key], bool):
                    out.append(f"{part}.{key}: {row.get(key, 'missing')!r}")
    return out + [f"prompt token {t!r}" for t in data["metadata"]["prompt_tokens"] if not isinstance(t, str)]


NODES: list[dict[str, Any]] = [
    {"node_id": "0_18753_3", "feature": 175865634, "layer": "0", "ctx_idx": 3, "feature_type": "cross layer transcoder", "jsNodeId": "0_18753-0", "clerp": "", "influence": 0.405, "activation": 5.59375},
    {"node_id": "1_12928_3", "feature": 83598913, "layer": "1", "ctx_idx": 3, "feature_type": "cross layer transcoder", "jsNodeId": "1_12928-0", "clerp": "", "influence": 0.386, "activation": 11.8125},
    {"node_id": "24_-1_3", "feature": -1, "layer": "24", "ctx_idx": 3, "feature_type": "mlp reconstruction error", "jsNodeId": "24_-1-3", "clerp": "", "influence": 0.452, "activation": None},
    {"node_id": "E_235304_3", "feature": 3, "layer": "E", "ctx_idx": 3, "feature_type": "embedding", "jsNodeId": "E_235304-3", "clerp": "", "influence": 0.135, "activation": None},
    {"node_id": "27_235310_3", "feature": 235310, "layer": "27", "ctx_idx": 3, "feature_type": "logit", "token_prob": 0.2334, "is_target_logit": True, "jsNodeId": "L_235310-3", "clerp": 'Output "4" (p=0.233)', "influence": None, "activation": None},
]  # fmt: skip
MADE = {
    "metadata": {"slug": "ie-tiny-123-clt-hp", "scan": "gemma-2-2b", "prompt_tokens": ["<bos>", "1", "2", "3"], "prompt": "<bos>123", "node_threshold": 0.5},
    "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
    "nodes": NODES,
    "links": [{"source": "E_235304_3", "target": "0_18753_3", "weight": 9.75}, {"source": "0_18753_3", "target": "27_235310_3", "weight": -0.97265625}],
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    m = toy_model()
    m.module.double()
    return m


@pytest.mark.parametrize("made", [transcoders, clt])
@pytest.mark.parametrize("window", [None, 5])
def test_our_graphs_are_of_the_form_that_neuronpedia_takes(model, made, window):
    config = TraceConfig() if window is None else TraceConfig(window=window)
    data = json.loads(json.dumps(to_viewer(trace(model, made(), PROMPT, config=config), slug="a"), allow_nan=False))
    assert wrong(data) == []
    names = {n["node_id"] for n in data["nodes"]}
    assert len(names) == len(data["nodes"]) and {x for e in data["links"] for x in (e["source"], e["target"])} <= names


def test_the_form_refuses_what_lacks_a_key():
    assert wrong(MADE) == []
    assert wrong(MADE | {"nodes": [{k: v for k, v in NODES[0].items() if k != "clerp"}]}) == ["nodes.clerp: 'missing'"]
    assert wrong(MADE | {"links": [{"source": "a", "target": "b", "weight": "1"}]}) == ["links.weight: '1'"]


def test_what_neuronpedia_made_is_read():
    found = from_viewer(MADE)
    assert [n["kind"] for n in found["nodes"]] == ["latent", "latent", "error", "token", "target"]
    assert [(n["layer"], n["index"]) for n in found["nodes"][:2]] == [(0, 18753), (1, 12928)]
    assert found["edges"] == [[3, 0, 9.75, 1.0], [0, 4, -0.97265625, 1.0]] and found["about"]["targets"] == [
        'Output "4" (p=0.233)'
    ]


def test_attention_latents_of_others_are_latents():
    """Graphs with sparse attention (Lorsa) come from llamascopium; Neuronpedia opens them."""
    lorsa = NODES[0] | {"feature_type": "lorsa"}, NODES[2] | {"feature_type": "lorsa error"}
    assert [n["kind"] for n in from_viewer(MADE | {"nodes": list(lorsa), "links": []})["nodes"]] == ["latent", "error"]


def test_a_latents_number_pairs_layer_and_index_as_theirs_do():
    """Cantor's pairing, against two numbers that they recorded."""
    for node in NODES[:2]:
        assert node["feature"] == paired(*(int(v) for v in node["node_id"].split("_")[:2]))
