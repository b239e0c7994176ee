"""An index under Neuronpedia's names, for the handlers of its interface: what is asked for is looked up, and never becomes a path."""

from __future__ import annotations

from typing import Any

import msgspec

from diascope.explorer.answers import Problem
from diascope.latents.exchange.ids import Names, names
from diascope.latents.exchange.rows import activations, explanations, neuron
from diascope.latents.store import Index, Source


class Catalogue:
    """An index under Neuronpedia's names."""

    def __init__(self, index: Index) -> None:
        self.index, self.names = index, names(index)
        self._by_id = {n.source: index.sources[name] for name, n in self.names.items()}

    def source(self, model: str, name: str) -> tuple[Source, Names]:
        """A source by its id or its own name; a Problem for one that there is not."""
        found = self._by_id.get(name) or self.index.sources.get(name)
        own = self.names[found.name] if found else None
        if found is None or own is None or model not in (own.model, self.index.meta["model"]):
            there = ", ".join(f"{n.model}/{n.source}" for n in self.names.values())
            raise Problem(404, f"There is no source {model}/{name}; there are {there}.")
        return found, own

    def set(self, model: str, name: str, chosen: list[str]) -> list[tuple[Source, Names]]:
        """The sources of a set, or those chosen of it."""
        if chosen:
            return [self.source(model, c) for c in dict.fromkeys(chosen)]
        found = [(self.index.sources[own], n) for own, n in self.names.items() if name in (n.set, own)]
        if not found or model not in (found[0][1].model, self.index.meta["model"]):
            there = ", ".join(dict.fromkeys(f"{n.model}/{n.set}" for n in self.names.values()))
            raise Problem(404, f"There is no source set {model}/{name}; there are {there}.")
        return found

    def latent(self, source: Source, index: str | int) -> int:
        """A latent's number as requests write it."""
        text = str(index)
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(source)):
            raise Problem(404, f"{source.name} has latents 0 to {len(source) - 1}, not {text[:20]}.")
        return int(text)

    def feature(self, source: Source, own: Names, latent: int, *, shown: int | None = None) -> dict[str, Any]:
        """A latent as the site answers it; both of the names that clients read a source by are there."""
        found = neuron(self.index, source, latent, own)
        examples = activations(self.index, source, latent, own)[:shown]
        for example in examples:
            if example["binContains"] < 0:  # the strongest; the client refuses a share below 0
                example |= {"binMin": None, "binContains": None}
        said = explanations(source, latent, own)
        for row in (*examples, *said):
            row["source"] = own.source
        scores = [
            [{"explanationScoreTypeName": k, "value": v} for k, v in d.scores.items()] for d in source.descriptions(latent)
        ]
        told = [row | {"scores": score} for row, score in zip(said, scores, strict=True)]
        return found | {"source": own.source, "activations": examples, "explanations": told}


def wanted(body: dict[str, Any], kind: type) -> Any:
    """The payload as `kind`, numbers in strings allowed; a Problem names what is wrong."""
    try:
        return msgspec.convert(body, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, f"{error}.") from error
