"""Check a graph against the model: does what its edges predict happen when latents are taken away?

1. Draw latents at random from those through which some of the targets' influence passes, strong or weak alike.
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
from diascope.circuits.replacement import Dictionaries, Replacement
from diascope.circuits.targets import TokenTarget, rows_of
from diascope.circuits.trace import NEURONS
from diascope.dictionaries import Dictionary, weights_hash
from diascope.models.frozen import FrozenPass, frozen_pass
from diascope.models.model import Model

EDITS = {"ablate": 0.0, "double": 2.0}
DRAWS = 1000  # of the bootstrap


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
    if about["dictionaries"] != (weights_hash(given) if given else NEURONS):
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
    ablation, on the first target) and `about["verification"]`. Latents are drawn from those of influence `least` or more.
    """
    subject = subject_of(graph, model, dictionaries)
    ids = latent_ids(graph, subject.replacement)
    pool = ((ids >= 0) & (graph.influence >= least)).nonzero().squeeze(1).numpy()
    if len(pool) < 8:
        raise ValueError(f"{len(pool)} latents have an influence of {least:g} or more: too few to verify the graph")
    chosen = torch.from_numpy(np.sort(rng.generator(seed, "verify").choice(pool, min(sample, len(pool)), replace=False)))
    groups = [ids[n : n + 1] for n in chosen.tolist()]
    direct, total = (p[chosen] for p in predicted(graph))
    gradient = activation_gradient(subject.frozen, subject.replacement, subject.covectors[0], ids[chosen])
    guesses = {"total": total, "direct": direct, "activation x gradient": gradient.double()}
    guesses["random"] = torch.from_numpy(rng.generator(seed, "guess").standard_normal(len(chosen)))
    rows, ablated = [], torch.zeros(0)
    for i, (edit, factor) in enumerate(EDITS.items()):
        for j, mode in enumerate(MODES):
            found = measured(subject.frozen, subject.replacement, subject.covectors[:1], groups, [factor] * len(groups), mode)[
                :, 0
            ]
            rows += [
                {"edit": edit, "mode": mode, "guess": name} | agreement(guess * (1 - factor), found.double(), seed)
                for name, guess in guesses.items()
            ]
            ablated = found if (edit, mode) == ("ablate", "free") else ablated
            progress(len(MODES) * i + j + 1, 2 * len(MODES), f"{edit}, {mode}")
    columns = {}
    for name, values in (("predicted", total), ("measured", ablated)):
        columns[name] = torch.full((len(graph),), torch.nan).index_put_((chosen,), values.float())
    about = graph.about | {
        "verification": {"latents": len(chosen), "pool": len(pool), "least": least, "rows": rows, "says": _says(rows)}
    }
    return replace(graph, **columns, about=about)


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
    """The header's sentence, from a free ablation against the total of all paths."""
    row = next(r for r in rows if (r["edit"], r["mode"], r["guess"]) == ("ablate", "free", "total"))
    figures = f"Spearman {row['spearman']:.2f} ({row['spearman_low']:.2f} to {row['spearman_high']:.2f}), n = {row['n']}"
    if row["spearman_low"] > 0:
        return f"its edges predict what ablations do: {figures}"
    return f"ITS EDGES DO NOT PREDICT what ablations do: {figures}"
