"""A workspace with one dictionary read on two models: an index of each, and a third source that has nothing to do with it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import torch

from diascope.config import to_data
from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.dictionaries.artefact import save_dictionary
from diascope.latents.describe.shelf import Description
from diascope.latents.store import Example, ExampleGroup, Record, write_source

S, WIDTH, TOKENS = 40, 16, 10_000
RAISED, LOWERED, STRONGER = 7, 12, 20  # latents that fire more, less, and harder on the other model


def dictionary(seed: int, *, moved: float = 0.0, threshold: float = 0.1) -> Dictionary:
    """A random dictionary; `moved` takes its decoder that far from the one of seed 0."""
    g, h = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    W = torch.randn(S, WIDTH, generator=g)
    tensors = {"W_enc": torch.randn(WIDTH, S, generator=g), "W_dec": W + moved * torch.randn(S, WIDTH, generator=h), "b_enc": torch.zeros(S), "b_dec": torch.zeros(WIDTH), "threshold": threshold * torch.rand(S, generator=torch.Generator().manual_seed(7))}  # fmt: skip
    return Dictionary(DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", WIDTH, WIDTH, S), tensors)


def write_one(
    folder: Path, model: str, sources: dict[str, tuple[Dictionary, np.ndarray, np.ndarray]], first_token: int
) -> Path:
    """An index of sources given as (dictionary, density [S], largest activation [S])."""
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "tokens.npy", np.arange(first_token, first_token + 20, dtype=np.int32).reshape(1, 20))
    (folder / "corpus" / "strings.json").write_text(json.dumps({str(i): f" t{i}" for i in range(100)}))
    for number, (name, (d, density, most)) in enumerate(sources.items()):
        fired = Record(
            [ExampleGroup("top", 1, 2, 1, [Example(0, 1, 4, 2, [(2, 255)])])], [1], [(4, 0.5)], [(5, -0.5)], [(1, 0.9)]
        )
        silent = Record([], [], [], [], [(0, 0.9)])
        records = [msgspec.msgpack.encode(fired if p else silent) for p in density]
        columns = {"density": density.astype(np.float32), "max_activation": most.astype(np.float32), "level": np.ones(S, np.int32), "threshold": d.threshold.detach().numpy()}  # fmt: skip
        meta = {
            "name": name,
            "config": to_data(d.config),
            "card": {},
            "title": d.config.title,
            "tokens_swept": TOKENS,
            "logit_vocabulary": 1,
        }
        said = {j: [Description("judge", f"{model} {j}")] for j in range(S)}
        write_source(folder / "sources" / str(number), meta, columns, records, said)
    (folder / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": model}))
    return folder


def write_pairs(workspace: Path) -> Path:
    """`index` of the sources sae, tuned and other on the model base; `index-chat` of sae on chat, on other texts."""
    density, most = np.full(S, 0.01), np.full(S, 2.0)
    density[0] = 0
    chat, stronger = density.copy(), most.copy()
    chat[RAISED], chat[LOWERED], stronger[STRONGER] = 0.05, 0.0001, 9.0
    sae, tuned, other = dictionary(0), dictionary(0, moved=0.2, threshold=0.2), dictionary(5)
    for name, d in (("sae", sae), ("tuned", tuned), ("other", other)):
        save_dictionary(d, workspace / "dictionaries" / name)
    base = {"sae": (sae, density, most), "tuned": (tuned, chat, stronger), "other": (other, density, most)}
    write_one(workspace / "index", "base", base, 0)
    write_one(workspace / "index-chat", "chat", {"sae": (sae, chat, stronger)}, 50)
    return workspace
