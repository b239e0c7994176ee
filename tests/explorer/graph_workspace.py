"""A toy model with a transcoder a layer, one graph of it, and a workspace that holds the graph beside an index of layer 0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from diascope.circuits import Graph, TraceConfig, trace
from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.latents.describe.shelf import Description
from diascope.latents.store import write_source
from diascope.models.model import Model

PROMPT = [2, 30, 31, 32, 33, 34]
Opened = tuple[Model, dict[str, Dictionary]]


def transcoder(layer: int, d: int = 32, S: int = 48) -> Dictionary:
    """Random, with thresholds, small in what it writes."""
    g = torch.Generator().manual_seed(layer)
    tensors = {
        "W_enc": torch.randn(d, S, generator=g) / d**0.5,
        "W_dec": torch.randn(S, d, generator=g) / d**0.5,
        "b_enc": torch.randn(S, generator=g) * 0.1,
        "b_dec": torch.randn(d, generator=g) * 0.01,
        "threshold": torch.rand(S, generator=g) * 0.3,
    }
    sites = f"L{layer}.mlp_in", f"L{layer}.mlp_out"
    return Dictionary(DictionaryConfig.single("toy", *sites, d, d, S, l0_target=8.0), tensors)


def opened_with(model: Model) -> Opened:
    """The model and its dictionaries, as the explorer's host opens them."""
    return model, {f"{layer}-tc": transcoder(layer) for layer in range(model.n_layers)}


def traced(opened: Opened, **options: object) -> Graph:
    """A graph of PROMPT."""
    model, dictionaries = opened
    return trace(model, dictionaries.values(), [PROMPT], config=TraceConfig(tolerance=1e-3), **options)  # type: ignore[arg-type]


def write_workspace(folder: Path, graph: Graph, opened: Opened) -> Path:
    """`graphs/capital`, a damaged graph, one outside, and an index of layer 0 in which every latent has a description."""
    graph.save(folder / "graphs" / "capital")
    for name, text in (("graphs/broken", "{"), ("secret", "{}")):
        (folder / name).mkdir()
        (folder / name / "graph.json").write_text(text)
    (folder / "index" / "corpus").mkdir(parents=True)
    np.save(folder / "index" / "corpus" / "tokens.npy", np.zeros((1, 4), np.int32))
    (folder / "index" / "corpus" / "strings.json").write_text("{}")
    d = opened[1]["0-tc"]
    meta = {"name": "0-tc", "config": {}, "card": {}, "title": d.config.title, "tokens_swept": 1, "logit_vocabulary": 1}
    said = {i: [Description("judge", f"about {i}", {})] for i in range(d.d_sae)}
    write_source(folder / "index" / "sources" / "0", meta, {"density": np.ones(d.d_sae, np.float32)}, [b"\x90"] * d.d_sae, said)
    (folder / "index" / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": opened[0].name}))
    return folder
