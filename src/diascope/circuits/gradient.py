"""Attribution by gradient: what latents and errors of dictionaries at many sites do to a metric of the logits.

No replacement model and no frozen map, so plain SAEs at any sites serve. With g the metric's gradient at an output site,
what a latent writes scores a_j W_dec_j . g and the error e . g (activation x gradient); "integrated" averages g along the
straight path on which all latents and the error of one dictionary grow from 0, so that the scores of each dictionary sum
to the metric's change (Sundararajan et al. 2017; Marks et al. 2025, sparse feature circuits). Attention and norms answer
freely. `feature_circuit` adds edges: what an upstream node does to the metric by way of a downstream latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.edits import Edit
from diascope.models.model import Model
from diascope.sites import Site

Metric = Callable[[Tensor], Tensor]  # logits [n, vocab] of the last position, to [n]


@dataclass(frozen=True)
class SiteScores:
    """One dictionary's nodes on one prompt."""

    dictionary: int
    site: Site  # where it writes
    position: Tensor  # [n]
    index: Tensor  # [n]
    activation: Tensor  # [n]
    score: Tensor  # [n], of each active latent
    error: Tensor  # [T], of what the dictionary leaves over at each position


@dataclass(frozen=True)
class FeatureCircuit:
    """The strongest latents and errors of a prompt, and what goes between them."""

    scores: list[SiteScores]
    nodes: list[tuple[int, int, int]]  # (dictionary, position, latent; -1 for the error), the strongest first
    score: list[float]
    edges: list[tuple[int, int, float]]  # (from node, to node, how much of the metric goes from the former through the latter)


def logit_difference(model: Model, token: int, against: int | None = None) -> Metric:
    """One logit less another's, or less the mean of all."""
    return lambda logits: logits[:, token] - (logits.mean(-1) if against is None else logits[:, against])


def gradient_scores(
    model: Model, dictionaries: Iterable[Dictionary], prompt: Any, metric: Metric, *, method: str = "gradient", steps: int = 16
) -> list[SiteScores]:
    """Scores of all latents and errors, one entry a dictionary (of one site). Special tokens are left out.

    ValueError for dictionaries of several sites, two that write one site, and an unknown method.
    """
    if method not in ("gradient", "integrated"):
        raise ValueError(f"the method is gradient or integrated, not {method!r}")
    given = list(dictionaries)
    if not given or steps < 1:
        raise ValueError(f"scores take at least one dictionary and one step, got {len(given)} and {steps}")
    sites = [d.site_out for d in given]
    if len(set(sites)) < len(sites):
        raise ValueError(f"two dictionaries write one site: {', '.join(map(str, sites))}")
    tokens, _ = model.batch(prompt)
    if len(tokens) > 1:
        raise ValueError(f"scores are of one prompt, got {len(tokens)}: call it once for each")
    seen = model.capture(tokens, {s for d in given for s in (d.site_in, d.site_out)})
    rows = seen.mask[0].nonzero().squeeze(1)
    if method == "gradient":
        slopes = _gradients(model, tokens, {s: torch.zeros_like(seen[s]) for s in sites}, metric)
    found = []
    for i, (d, site) in enumerate(zip(given, sites)):
        x, y = seen[d.site_in][0, rows].float(), seen[site][0, rows].float()
        latents = d.encode(x)
        written = d.decode(latents, x) - d.decode(latents.kept(torch.zeros_like(latents.index, dtype=torch.bool)), x)
        left = y - d.decode(latents, x)
        if method == "gradient":
            g = slopes[site][0, rows].float()
        else:
            g = _path(model, tokens, site, rows, written + left, metric, steps)
        W = d.W_dec[latents.index]
        score = latents.value * (W * g[latents.rows]).sum(1)
        error = torch.zeros(tokens.shape[1]).index_put((rows,), (left * g).sum(1))
        found.append(SiteScores(i, site, rows[latents.rows], latents.index, latents.value, score.detach(), error.detach()))
    return found


def _gradients(model: Model, tokens: Tensor, leaves: dict[Site, Tensor], metric: Metric) -> dict[Site, Tensor]:
    """The metric's gradient [n, T, d] at each site, with something added there."""
    leaves = {s: leaf.detach().clone().requires_grad_() for s, leaf in leaves.items()}
    edits = [Edit(s, s, lambda _, y, e=leaf: y + e.to(y), label="gradient", special=True) for s, leaf in leaves.items()]
    n = len(next(iter(leaves.values())))
    with model.edit(*edits):
        h = model.hidden(tokens.expand(n, -1), grad=True)
        with torch.enable_grad():
            total = metric(model.logits_of(h[:, -1])).sum()
    found = torch.autograd.grad(total, list(leaves.values()))
    return dict(zip(leaves, (g.detach() for g in found), strict=True))


def _path(model: Model, tokens: Tensor, site: Site, rows: Tensor, whole: Tensor, metric: Metric, steps: int) -> Tensor:
    """The mean gradient [rows, d] at `site` while `whole` [rows, d] grows from 0 to what it is (midpoints)."""
    total = torch.zeros_like(whole)
    for part in torch.arange(steps).split(4):
        missing = 1 - (part + 0.5) / steps
        leaf = whole.new_zeros(len(part), tokens.shape[1], whole.shape[1])
        leaf[:, rows] = -missing[:, None, None] * whole.detach()
        total += _gradients(model, tokens, {site: leaf}, metric)[site][:, rows].float().sum(0)
    return total / steps


def feature_circuit(
    model: Model, dictionaries: Sequence[Dictionary], prompt: Any, metric: Metric, *, nodes: int = 64, method: str = "gradient"
) -> FeatureCircuit:
    """The `nodes` strongest latents and errors, and the edges between them: a downstream latent's gradient on the metric times
    its pre-activation's gradient on what the upstream node writes, all paths between the two together."""
    scores = gradient_scores(model, dictionaries, prompt, metric, method=method)
    entries = [
        (float(v), (s.dictionary, int(p), int(j)))
        for s in scores
        for v, p, j in zip(s.score.tolist(), s.position.tolist(), s.index.tolist())
    ]
    entries += [(v, (s.dictionary, p, -1)) for s in scores for p, v in enumerate(s.error.tolist()) if v]
    entries = sorted(entries, key=lambda e: -abs(e[0]))[:nodes]
    chosen = [n for _, n in entries]
    edges = _edges(model, dictionaries, prompt, metric, chosen)
    return FeatureCircuit(scores, chosen, [v for v, _ in entries], edges)


def _edges(
    model: Model, given: Sequence[Dictionary], prompt: Any, metric: Metric, chosen: list[tuple[int, int, int]]
) -> list[tuple[int, int, float]]:
    tokens, _ = model.batch(prompt)
    seen = model.capture(tokens, {s for d in given for s in (d.site_in, d.site_out)})
    wrote = [_vector(d, seen, p, j) for d, p, j in ((given[i], p, j) for i, p, j in chosen)]
    onto = _gradients(model, tokens, {d.site_out: torch.zeros_like(seen[d.site_out]) for d in given}, metric)
    found = []
    for t, (i, p, j) in enumerate(chosen):
        if j < 0:
            continue  # an error has no single pre-activation
        slopes = _slopes_of(model, given, tokens, seen, i, p, j)
        weight = float((given[i].W_dec[j] * onto[given[i].site_out][0, p].float()).sum())
        for s, (k, q, _) in enumerate(chosen):
            site = given[k].site_out
            if site.depth < given[i].site_in.depth and q <= p:
                found.append((s, t, weight * float((slopes[site][0, q].float() * wrote[s]).sum())))
    return [e for e in found if e[2]]


def _slopes_of(
    model: Model, given: Sequence[Dictionary], tokens: Tensor, seen: Any, i: int, p: int, j: int
) -> dict[Site, Tensor]:
    """The gradient of one latent's pre-activation at every output site below it."""
    site = given[i].site_in
    leaves = {d.site_out: torch.zeros_like(seen[d.site_out]).requires_grad_() for d in given if d.site_out.depth < site.depth}
    if not leaves:
        return {}
    read: list[Tensor] = []
    edits = [Edit(s, s, lambda _, y, e=leaf: y + e.to(y), label="gradient", special=True) for s, leaf in leaves.items()]
    edits.append(Edit(site, site, lambda _, y: (read.append(y), y)[1], label="read", special=True))
    with model.edit(*edits):
        model.hidden(tokens, grad=True)
    pre = read[0][0, p].float() @ given[i].W_enc[:, j]
    return dict(zip(leaves, torch.autograd.grad(pre, list(leaves.values()), allow_unused=False), strict=True))


def _vector(d: Dictionary, seen: Any, p: int, j: int) -> Tensor:
    """What one node writes [d]: a latent with its activation, or the error."""
    x, y = seen[d.site_in][0, p : p + 1].float(), seen[d.site_out][0, p : p + 1].float()
    latents = d.encode(x)
    if j < 0:
        return (y - d.decode(latents, x))[0]
    return d.W_dec[j] * latents.dense()[0, j]
