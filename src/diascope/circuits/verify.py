"""Check a graph against the model: does what its edges predict happen when latents are taken away?

1. Take the strongest latents by influence, and as many at random of the others through which some influence passes.
2. Ablate and double each alone, the model free, with attention patterns frozen, and with norms frozen too; read the change of the first target's logit.
3. Rank correlation and agreement of sign of predicted (direct, total) against measured, beside activation x gradient
   and a random order; intervals by bootstrap over latents.
The result goes into the graph's header; a graph that does not predict says so there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.circuits.effects import MODES, activation_gradient, latent_ids, measured, predicted
from diascope.circuits.graph import Graph
from diascope.circuits.neurons import Neurons
from diascope.circuits.replacement import Dictionaries, Replacement, dictionaries_hash
from diascope.circuits.targets import TokenTarget, rows_of
from diascope.circuits.trace import NEURONS
from diascope.dictionaries import Dictionary
from diascope.models.frozen import FrozenPass, frozen_pass
from diascope.models.model import Model

EDITS = {"ablate": 0.0, "double": 2.0}
DRAWS = 1000  # of the bootstrap
FEWEST = 16  # latents: rank correlations of fewer say nothing


class Unverifiable(ValueError):
    """Too few latents matter in a graph for its edges to be tried."""


@dataclass(frozen=True)
class Subject:
    """The pass that a graph was made of, again, with whatever stood for its MLPs."""

    frozen: FrozenPass
    replacement: Replacement
    covectors: Tensor  # [n, d] of the graph's targets, on the final norm's output


def subject_of(graph: Graph, model: Model, dictionaries: Dictionary | Iterable[Dictionary] | str) -> Subject:
    """The pass behind `graph`. ValueError where model or dictionaries are others, or its targets are no logits."""
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
        raise ValueError(f"only logits can be read after an intervention, and this graph's target is a {about['target']}")
    ids = [int(graph.index[n]) for n in graph.targets().tolist()]
    rows = [rows_of(TokenTarget(i, about.get("against")), frozen, replacement) for i in ids]
    return Subject(frozen, replacement, torch.cat([r.logits for r in rows if r.logits is not None]))


def verify(
    graph: Graph,
    model: Model,
    dictionaries: Dictionary | Iterable[Dictionary] | str,
    *,
    sample: int = 128,
    least: float = 1e-4,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Graph:
    """`graph` with what `sample` latents do when they are ablated and doubled: columns `predicted`, `measured` (of a free
    ablation, on the first target) and `about["verification"]`.

    Half are the strongest by influence, half are drawn from the others of influence `least` or more. Raises Unverifiable
    where there are too few, ValueError for a pruned graph, whose paths are cut, and what `subject_of` says.
    """
    if sample < FEWEST:
        raise ValueError(f"verify at least {FEWEST} latents, not {sample}: fewer say nothing")
    if graph.about.get("pruned"):
        raise ValueError("verify the whole graph, before it is pruned: its edges are what is tried")
    subject = subject_of(graph, model, dictionaries)
    ids = latent_ids(graph, subject.replacement)
    pool = ((ids >= 0) & (graph.influence >= least)).nonzero().squeeze(1)
    if len(pool) < FEWEST:
        raise Unverifiable(
            f"only {len(pool)} latents have an influence of {least:g} or more, and {FEWEST} are needed to try a graph"
        )
    strata = _strata(pool[graph.influence[pool].argsort(descending=True, stable=True)], sample, seed)
    chosen = torch.cat(list(strata.values()))
    ends = {
        name: slice(*e) for name, e in zip(strata, ((0, len(strata["strongest"])), (len(strata["strongest"]), len(chosen))))
    }
    groups = [ids[n : n + 1] for n in chosen.tolist()]
    direct, total = (p[chosen] for p in predicted(graph))
    gradient = activation_gradient(subject.frozen, subject.replacement, subject.covectors[0], ids[chosen])
    guesses = {"total": total, "direct": direct, "activation x gradient": gradient.double()}
    guesses["random"] = torch.from_numpy(rng.generator(seed, "guess").standard_normal(len(chosen)))
    found: dict[tuple[str, str], Tensor] = {}
    for edit, factor in EDITS.items():
        for mode in MODES:
            effect = measured(subject.frozen, subject.replacement, subject.covectors[:1], groups, [factor] * len(groups), mode)
            found[edit, mode] = effect[:, 0].double()
            progress(len(found), len(EDITS) * len(MODES), f"{edit}, {mode}")
    rows = [
        {"of": name, "edit": edit, "mode": mode, "guess": guess}
        | agreement(values[part] * (1 - EDITS[edit]), effect[part], seed)
        for name, part in ends.items()
        for (edit, mode), effect in found.items()
        for guess, values in guesses.items()
    ]
    columns = {}
    for name, values in (("predicted", total), ("measured", found["ablate", "free"])):
        columns[name] = torch.full((len(graph),), torch.nan).index_put_((chosen,), values.float())
    told = {"latents": len(chosen), "pool": len(pool), "least": least, "rows": rows, "says": _says(rows)}
    return replace(graph, **columns, about=graph.about | {"verification": told})


def _strata(ranked: Tensor, sample: int, seed: int) -> dict[str, Tensor]:
    """The strongest nodes of `ranked`, and as many of the others at random; all are the strongest where there are few."""
    half = sample // 2 if len(ranked) > sample else len(ranked) // 2
    rest = ranked[half:].numpy()
    drawn = rng.generator(seed, "verify").choice(rest, min(sample - half, len(rest)), replace=False)
    return {"strongest": ranked[:half], "others": torch.from_numpy(np.sort(drawn))}


def agreement(guess: Tensor, found: Tensor, seed: int = 0) -> dict[str, Any]:
    """Spearman's rank correlation and the share of equal signs, with 95 % intervals by bootstrap over the pairs [n]."""
    a, b = guess.numpy(), found.numpy()
    draws = rng.generator(seed, "bootstrap").integers(0, len(a), (DRAWS, len(a)))
    same = np.sign(a) == np.sign(b)
    ranks = np.array([_spearman(a[d], b[d]) for d in draws])
    signs = same[draws].mean(1)
    return {
        "spearman": _spearman(a, b), "spearman_low": float(np.quantile(ranks, 0.025)), "spearman_high": float(np.quantile(ranks, 0.975)),
        "sign": float(same.mean()), "sign_low": float(np.quantile(signs, 0.025)), "sign_high": float(np.quantile(signs, 0.975)),
        "n": len(a),
    }  # fmt: skip


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    a, b = rankdata(a), rankdata(b)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0


def _says(rows: list[dict[str, Any]]) -> str:
    """The header's sentence, from free ablations against the total of all paths."""
    strongest, others = (
        next(r for r in rows if (r["of"], r["edit"], r["mode"], r["guess"]) == (of, "ablate", "free", "total"))
        for of in ("strongest", "others")
    )
    figures = "; ".join(
        f"Spearman {r['spearman']:.2f} ({r['spearman_low']:.2f} to {r['spearman_high']:.2f}) of the {r['n']} {what}"
        for r, what in ((strongest, "strongest latents"), (others, "others"))
    )
    if strongest["spearman_low"] > 0:
        return f"its edges predict what ablations do: {figures}"
    return f"ITS EDGES DO NOT PREDICT what ablations do: {figures}"
