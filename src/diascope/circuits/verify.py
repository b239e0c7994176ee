"""Check a graph against the model: does what its edges predict happen when latents are taken away?

1. Take the strongest latents by influence, and as many at random of the others through which some influence passes.
2. Ablate and double each alone, the model free, with attention patterns frozen, and with norms frozen too; read the change of the first target's logit.
3. Rank correlation and agreement of sign of predicted (direct, total) against measured, beside activation x gradient
   and a random order; intervals by bootstrap over latents.
4. Ablate the heaviest supernode of the pruned graph as a whole, beside matched controls (supernodes.py).
The result goes into the graph's header; a graph that does not predict says so there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.circuits.effects import MODES, activation_gradient, latent_ids, measured, predicted
from diascope.circuits.graph import Graph
from diascope.circuits.influence import prune
from diascope.circuits.subject import Subject, Unverifiable, subject_of
from diascope.circuits.supernodes import FEWEST_CONTROLS, in_words, tried_heaviest
from diascope.dictionaries import Dictionary
from diascope.models.model import Model

EDITS = {"ablate": 0.0, "double": 2.0}
DRAWS = 1000  # of the bootstrap
FEWEST = 16  # latents: rank correlations of fewer say nothing


def verify(
    graph: Graph,
    model: Model,
    dictionaries: Dictionary | Iterable[Dictionary] | str,
    *,
    sample: int = 128,
    least: float = 1e-4,
    draws: int = 100,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Graph:
    """`graph` with what `sample` latents do when they are ablated and doubled: columns `predicted`, `measured` (of a free
    ablation, on the first target) and `about["verification"]`.

    Half are the strongest by influence, half are drawn from the others of influence `least` or more. The heaviest supernode is
    ablated beside `draws` matched controls (0: it is left out). Raises Unverifiable where there are too few latents, ValueError
    for a pruned graph, whose paths are cut, and what `subject_of` says.
    """
    if sample < FEWEST:
        raise ValueError(f"verify at least {FEWEST} latents, not {sample}: fewer say nothing")
    if draws and draws < FEWEST_CONTROLS:
        raise ValueError(
            f"try a supernode against at least {FEWEST_CONTROLS} controls, not {draws}, or against 0: it is left out"
        )
    if graph.about.get("pruned"):
        raise ValueError("verify the whole graph, before it is pruned: its edges are what is tried")
    subject = subject_of(graph, model, dictionaries)
    ids = latent_ids(graph, subject.replacement)
    strata, pool = _strata(graph, ids, sample, least, seed)
    chosen = torch.cat(list(strata.values()))
    direct, total = (p[chosen] for p in predicted(graph))
    gradient = activation_gradient(subject.frozen, subject.replacement, subject.covectors[0], ids[chosen])
    guesses = {"total": total, "direct": direct, "activation x gradient": gradient.double()}
    guesses["random"] = torch.from_numpy(rng.generator(seed, "guess").standard_normal(len(chosen)))
    steps = len(EDITS) * len(MODES) + bool(draws)
    found = _alone(subject, ids[chosen], lambda done, note: progress(done, steps, note))
    rows = _rows(strata, guesses, found, seed)
    columns = {}
    for name, values in (("predicted", total), ("measured", found["ablate", "free"])):
        columns[name] = torch.full((len(graph),), torch.nan).index_put_((chosen,), values.float())
    told: dict[str, Any] = {"latents": len(chosen), "pool": pool, "least": least, "rows": rows, "says": _says(rows)}
    if draws:
        small = prune(graph)
        told["supernode"] = in_words(graph, small, tried_heaviest(small, subject, draws=draws, seed=seed))
        progress(steps, steps, "supernode")
    return replace(graph, **columns, about=graph.about | {"verification": told})


def _strata(graph: Graph, ids: Tensor, sample: int, least: float, seed: int) -> tuple[dict[str, Tensor], int]:
    """The strongest latent nodes, and as many of the others at random (all are the strongest where there are few); of how many."""
    pool = ((ids >= 0) & (graph.influence >= least)).nonzero().squeeze(1)
    if len(pool) < FEWEST:
        raise Unverifiable(
            f"only {len(pool)} latents have an influence of {least:g} or more, and {FEWEST} are needed to try a graph"
        )
    ranked = pool[graph.influence[pool].argsort(descending=True, stable=True)]
    half = sample // 2 if len(ranked) > sample else len(ranked) // 2
    rest = ranked[half:].numpy()
    drawn = rng.generator(seed, "verify").choice(rest, min(sample - half, len(rest)), replace=False)
    return {"strongest": ranked[:half], "others": torch.from_numpy(np.sort(drawn))}, len(pool)


def _alone(subject: Subject, ids: Tensor, progress: Callable[[int, str], None]) -> dict[tuple[str, str], Tensor]:
    """{(edit, mode): [n]}: the change of the first target when latents `ids` are edited one at a time."""
    found: dict[tuple[str, str], Tensor] = {}
    for edit, factor in EDITS.items():
        for mode in MODES:
            factors = [factor] * len(ids)
            effect = measured(subject.frozen, subject.replacement, subject.covectors[:1], ids[:, None].unbind(), factors, mode)
            found[edit, mode] = effect[:, 0].double()
            progress(len(found), f"{edit}, {mode}")
    return found


def _rows(
    strata: dict[str, Tensor], guesses: dict[str, Tensor], found: dict[tuple[str, str], Tensor], seed: int
) -> list[dict[str, Any]]:
    """Agreement of every guess with every intervention, of each stratum."""
    first = len(strata["strongest"])
    ends = {"strongest": slice(0, first), "others": slice(first, first + len(strata["others"]))}
    return [
        {"of": name, "edit": edit, "mode": mode, "guess": guess}
        | agreement(values[part] * (1 - EDITS[edit]), effect[part], seed)
        for name, part in ends.items()
        for (edit, mode), effect in found.items()
        for guess, values in guesses.items()
    ]


def agreement(guess: Tensor, found: Tensor, seed: int = 0) -> dict[str, Any]:
    """Spearman's rank correlation and the share of equal signs, with 95 % intervals by bootstrap over the pairs [n]."""
    a, b = guess.numpy(), found.numpy()
    draws = rng.generator(seed, "bootstrap").integers(0, len(a), (DRAWS, len(a)))
    same = np.sign(a) == np.sign(b)
    ranks = _spearman(a[draws], b[draws])
    signs = same[draws].mean(1)
    return {
        "spearman": float(_spearman(a, b)), "spearman_low": float(np.quantile(ranks, 0.025)), "spearman_high": float(np.quantile(ranks, 0.975)),
        "sign": float(same.mean()), "sign_low": float(np.quantile(signs, 0.025)), "sign_high": float(np.quantile(signs, 0.975)),
        "n": len(a),
    }  # fmt: skip


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlations along the last axis; 0 where one side is constant."""
    from scipy.stats import rankdata

    a, b = (r - r.mean(-1, keepdims=True) for r in (rankdata(a, axis=-1), rankdata(b, axis=-1)))
    size = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.divide((a * b).sum(-1), size, out=np.zeros_like(size), where=size > 0)


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
