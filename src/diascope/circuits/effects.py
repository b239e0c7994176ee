"""What a graph predicts an intervention to do, and what the intervention does.

Predicted, for taking node s away, on one target:
    direct   minus the edge from s to the target
    total    minus the sum over all paths: total_s = A[target, s] + sum_t (A[t, s] / a_t) total_t, over latents t that
             were expanded; each answers in proportion (exact for dictionaries while none switches on or off and MLPs
             do what these say)
Measured, by adding (factor - 1) times what a latent writes to what its MLPs write:
    free               the model as it is
    patterns frozen    attention patterns as they were, all else live
    norms frozen       and the norms' denominators too: what is left between graph and model is the MLPs
An edge is what frozen algebra says; only the measured effect says what the model does. Direct edges and free ablations
correlate anywhere from -0.75 to 0.74 (spec/circuits.md), so no edge is called a cause here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diascope.circuits.graph import Graph
from diascope.circuits.nodes import Kind
from diascope.circuits.replacement import Replacement
from diascope.edits import Edit
from diascope.models.frozen import FrozenPass
from diascope.sites import Site

MODES = ("free", "patterns frozen", "norms frozen")
TOGETHER = 4096  # tokens of one batch of interventions


def predicted(graph: Graph, *, target: int = 0) -> tuple[Tensor, Tensor]:
    """(direct, total) [N]: what taking each node away does to the target of that number, as the graph has it."""
    node = int(graph.targets()[target])
    into = graph.target
    direct = torch.zeros(len(graph), dtype=torch.float64)
    of = into == node
    direct.index_add_(0, graph.source[of], graph.edge[of].double())
    total = direct.clone()
    latent = graph.kind == Kind.LATENT
    share = graph.edge.double() / graph.activation[into].double()
    for layer in sorted(set(graph.layer[graph.row].tolist()), reverse=True):
        of = (graph.layer[into] == layer) & latent[into]
        total.index_add_(0, graph.source[of], share[of] * total[into[of]])
    return -direct, -total


def latent_ids(graph: Graph, replacement: Replacement) -> Tensor:
    """[N]: each latent node's number in the replacement; -1 for the others. ValueError where it is not active there."""
    found = replacement.latents
    first = graph.about["first"]
    key = zip(found.layer.tolist(), (found.position + first).tolist(), found.index.tolist())
    place = {k: i for i, k in enumerate(key)}
    out = torch.full((len(graph),), -1)
    for node in (graph.kind == Kind.LATENT).nonzero().squeeze(1).tolist():
        k = (int(graph.layer[node]), int(graph.position[node]), int(graph.index[node]))
        if k not in place:
            raise ValueError(f"{graph.name(node)} is not active with these dictionaries: the graph was made with others")
        out[node] = place[k]
    return out


def added(
    frozen: FrozenPass, replacement: Replacement, groups: Sequence[Tensor], factors: Sequence[float]
) -> dict[int, Tensor]:
    """{layer: [groups, T, d]}: what multiplying each group of latents (ids [k]) by its factor adds to what MLPs write."""
    T, d = frozen.residuals.shape[1:]
    ids = torch.cat(list(groups))
    owner = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor([len(g) for g in groups]))
    times = torch.tensor(factors, dtype=frozen.residuals.dtype)[owner] - 1
    found: dict[int, Tensor] = {}
    for layer, rows in replacement.written(ids).items():
        found[layer] = frozen.residuals.new_zeros(len(groups), T, d)
        place = owner, replacement.latents.position[ids]
        found[layer].index_put_(place, rows * times[:, None], accumulate=True)
    return found


@torch.no_grad()
def measured(
    frozen: FrozenPass,
    replacement: Replacement,
    covectors: Tensor,
    groups: Sequence[Tensor],
    factors: Sequence[float],
    mode: str,
) -> Tensor:
    """[groups, n]: the change of covectors [n, d] times the final norm's output at the last position.

    ValueError for an unknown mode, and for a window, of which no model can be run.
    """
    if mode not in MODES:
        raise ValueError(f"a mode is one of {', '.join(MODES)}, not {mode!r}")
    if frozen.first:
        raise ValueError("interventions need the whole prompt: verify a graph without a window")
    T, out = frozen.length, []
    before = frozen.last[-1] @ covectors.t()
    for first in range(0, len(groups), max(1, TOGETHER // T)):
        part = slice(first, first + max(1, TOGETHER // T))
        deltas = added(frozen, replacement, groups[part], factors[part])
        if mode == "free":
            h = _free(frozen, deltas, len(groups[part]))
        else:
            h = frozen.replay(deltas, len(groups[part]), start=min(deltas, default=0), live_norms=mode == "patterns frozen")
        out.append(h[:, -1] @ covectors.t() - before)
    return torch.cat(out)


def _free(frozen: FrozenPass, deltas: dict[int, Tensor], n: int) -> Tensor:
    """The final norm's output [n, T, d] of the model itself with something added to its MLPs' outputs."""
    sites = {layer: Site(layer, "mlp_out") for layer in deltas}
    edits = [
        Edit(site, site, lambda _, y, d=deltas[layer]: y + d.to(y), label="intervention", special=True)
        for layer, site in sites.items()
    ]
    with frozen.model.edit(*edits):
        return frozen.model.hidden(frozen.tokens.expand(n, -1)).to(frozen.residuals)


def gradients(frozen: FrozenPass, covector: Tensor) -> Tensor:
    """[L, T, d]: the gradient of covector [d] times the final norm's output at the last position, by what each MLP writes."""
    leaves = [torch.zeros_like(frozen.mlp_out[0]).requires_grad_() for _ in range(frozen.n_layers)]
    edits = [
        Edit(s := Site(layer, "mlp_out"), s, lambda _, y, e=leaf: y + e.to(y), label="gradient", special=True)
        for layer, leaf in enumerate(leaves)
    ]
    with frozen.model.edit(*edits):
        h = frozen.model.hidden(frozen.tokens[None], grad=True)
        return torch.stack(torch.autograd.grad(h[0, -1] @ covector.to(h), leaves))


def activation_gradient(frozen: FrozenPass, replacement: Replacement, covector: Tensor, ids: Tensor) -> Tensor:
    """[k]: minus activation x gradient of covector [d] times the final norm's output, through the whole model (the baseline)."""
    gradient = gradients(frozen, covector)
    found = frozen.residuals.new_zeros(len(ids))
    for layer, rows in replacement.written(ids).items():
        found += (rows * gradient[layer][replacement.latents.position[ids]]).sum(1)
    return -found
