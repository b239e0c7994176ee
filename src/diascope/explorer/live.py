"""Work for the model's thread: open a model with its dictionaries, find the latents that a text activates, steer.

Nothing here imports torch before it is called: browsing needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diascope.explorer.steer import Asked

LONGEST = 512  # tokens of a text that are read


class Opened(tuple[Any, dict[str, Any]]):
    """(model, dictionaries by name), with what the explorer asks of them and what it measured once."""

    def __init__(self, pair: tuple[Any, dict[str, Any]]) -> None:
        self.norms: dict[Any, float] = {}  # typical lengths of vectors, by site

    @property
    def chat(self) -> bool:
        """Whether the model has a chat template."""
        return bool(getattr(self[0].tokenizer, "chat_template", None))

    def steer(self, asked: Asked, sample: list[list[int]], emit: Callable[[str, Any], None]) -> dict[str, Any]:
        """`diascope.explorer.steering.steered`; sites are measured on `sample` (token ids) the first time."""
        from diascope.explorer.steering import steered

        return steered(*self, asked, sample, self.norms, emit)


def opener(model: str, dictionaries: dict[str, Path], companions: dict[str, str]) -> Callable[[], Any]:
    """What ModelHost runs at start: the model, those beside it and all dictionaries, loaded in its own thread."""

    def open_all() -> Any:
        from diascope.dictionaries import load_dictionary
        from diascope.models import load_model

        opened = load_model(model, dtype="float32")
        if companions:
            opened = opened.beside({name: load_model(other, dtype="float32") for name, other in companions.items()})
        return Opened((opened, {name: load_dictionary(path) for name, path in dictionaries.items()}))

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
