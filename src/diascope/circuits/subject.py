"""The pass that a graph was made of, made again, so that the model can be tried where the graph describes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.circuits.graph import Graph
from diascope.circuits.neurons import Neurons
from diascope.circuits.replacement import Dictionaries, Replacement, dictionaries_hash
from diascope.circuits.targets import TokenTarget, rows_of
from diascope.circuits.trace import NEURONS
from diascope.dictionaries import Dictionary
from diascope.models.frozen import FrozenPass, frozen_pass
from diascope.models.model import Model


class Unverifiable(ValueError):
    """A graph cannot be tried: too few latents matter in it, or its target is none that can be read after an intervention."""


@dataclass(frozen=True)
class Subject:
    """The pass that a graph was made of, again, with whatever stood for its MLPs."""

    frozen: FrozenPass
    replacement: Replacement
    covectors: Tensor  # [n, d] of the graph's targets, on the final norm's output


def subject_of(graph: Graph, model: Model, dictionaries: Dictionary | Iterable[Dictionary] | str) -> Subject:
    """The pass behind `graph`. ValueError where model or dictionaries are others, Unverifiable where its targets are no logits."""
    about = graph.about
    given = (
        [] if isinstance(dictionaries, str) else [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
    )
    if about["dictionaries"] != (dictionaries_hash(given) if given else NEURONS):
        raise ValueError("the graph was made with other dictionaries: give the same ones")
    if about["model"] != model.name:
        raise ValueError(f"the graph was made of {about['model']}, not of {model.name}")
    if about["first"]:
        raise ValueError("interventions need the whole prompt: verify a graph without a window")
    frozen = frozen_pass(model, [about["token_ids"]])
    replacement = Dictionaries(frozen, given) if given else Neurons(frozen)
    if about["target"] not in ("TopLogits", "TokenTarget"):
        raise Unverifiable(f"only logits can be read after an intervention, and this graph's target is a {about['target']}")
    ids = [int(graph.index[n]) for n in graph.targets().tolist()]
    rows = [rows_of(TokenTarget(i, about.get("against")), frozen, replacement) for i in ids]
    return Subject(frozen, replacement, torch.cat([r.logits for r in rows if r.logits is not None]))
