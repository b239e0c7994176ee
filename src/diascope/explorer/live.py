"""Work for the model's thread: open a model with its dictionaries, and find the latents that a text activates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 512  # tokens of a text that are read


def opener(model: str, dictionaries: dict[str, Path], companions: dict[str, str]) -> Callable[[], Any]:
    """What ModelHost runs at start: the model, those beside it and all dictionaries, loaded in its own thread."""

    def open_all() -> Any:
        from diascope.dictionaries import load_dictionary
        from diascope.models import load_model

        opened = load_model(model, dtype="float32")
        if companions:
            opened = opened.beside({name: load_model(other, dtype="float32") for name, other in companions.items()})
        return opened, {name: load_dictionary(path) for name, path in dictionaries.items()}

    return open_all


def encode(opened: Any, source: str, text: str) -> dict[str, Any]:
    """Tokens of `text` and, for each, its active latents strongest first: [[latent, activation], ...]."""
    model, dictionaries = opened
    d = dictionaries[source]
    ids = model.tokenize(text)
    kept = ids[:LONGEST]
    seen = model.capture([kept], d.config.reads)
    latents = d.encode(d.inputs(seen)[0])
    ordinary = seen.mask[0].tolist()
    tokens = []
    for t, token in enumerate(kept):
        here = slice(int(latents.start[t]), int(latents.start[t + 1]))
        pairs = sorted(zip(latents.index[here].tolist(), latents.value[here].tolist(), strict=True), key=lambda p: -p[1])
        tokens.append(
            {"text": model.tokenizer.decode([token]), "ordinary": ordinary[t], "active": pairs if ordinary[t] else []}
        )
    return {"source": source, "tokens": tokens, "cut": len(ids) - len(kept)}
