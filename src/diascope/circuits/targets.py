"""What a graph explains: logits, a token, a difference of two, a latent, or any direction of the residual stream.

A target becomes rows: a covector on the residual stream at one place, the number that its incoming edges sum to, and its
weight in influence. Logits are taken less the mean of all logits (a shift of all, which softmax does not see, explains
nothing), and before a soft cap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diascope.circuits.replacement import Replacement
from diascope.models.frozen import FrozenPass
from diascope.sites import Site


@dataclass(frozen=True)
class TopLogits:
    """The likeliest next tokens, until `share` of the probability, at most `most`; weighed by their probabilities."""

    share: float = 0.95
    most: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.most < 1:
            raise ValueError(f"top logits take a share above 0 and at most 1, and at least one token, got {self}")


@dataclass(frozen=True)
class TokenTarget:
    """One next token, as text or id, or several, weighed by their probabilities; with `against` each less that one's logit."""

    token: str | int | tuple[str | int, ...]
    against: str | int | None = None


@dataclass(frozen=True)
class LatentTarget:
    """One latent, active at `position` of the prompt (negative: from its end)."""

    layer: int
    index: int
    position: int = -1


@dataclass(frozen=True)
class DirectionTarget:
    """The product of a direction [d] (a probe, a refusal direction) with the residual stream after a block."""

    site: str
    direction: Tensor
    position: int = -1
    name: str = "direction"


Target = TopLogits | TokenTarget | LatentTarget | DirectionTarget


@dataclass(frozen=True)
class Rows:
    """Targets as rows: all at one place of the residual stream."""

    names: list[str]
    tokens: list[int]  # vocabulary ids; -1 where a target is no token
    weight: Tensor  # [n], sums to 1: how much influence starts at each
    value: Tensor  # [n], what the incoming edges sum to
    covectors: Tensor  # [n, d]
    position: int
    layer: int  # covectors act on the residual before this block (the number of blocks: after the last)
    middle: bool = False  # on x_mid of `layer`, which its MLP reads
    constant: Tensor | None = None  # [n]: what the bias of the norm in between adds, or None
    logits: Tensor | None = None  # [n, d]: the covectors on the final norm's output, where targets are logits


def rows_of(target: Target, frozen: FrozenPass, replacement: Replacement) -> Rows:
    """The rows of `target`. Raises ValueError where this prompt, model or dictionary has no such thing."""
    if isinstance(target, TopLogits | TokenTarget):
        return _logits(target, frozen)
    if isinstance(target, LatentTarget):
        return _latent(target, frozen, replacement)
    site = Site.parse(target.site)
    if site.kind != "resid_post" or site.layer >= frozen.n_layers:
        raise ValueError(f"a direction is read at resid_post of layers 0 to {frozen.n_layers - 1}, not at {site}")
    x = frozen.residuals[site.layer + 1]
    u = target.direction.detach().to(x).reshape(-1)
    if len(u) != x.shape[-1] or not bool(torch.isfinite(u).all()):
        raise ValueError(f"the direction has {len(u)} numbers, some perhaps not finite; the model's width is {x.shape[-1]}")
    p = place(target.position, frozen)
    return Rows([target.name], [-1], torch.ones(1), x[p : p + 1] @ u, u[None], p, site.layer + 1)


def place(position: int, frozen: FrozenPass) -> int:
    """A position of the prompt, within the pass. ValueError where it lies outside."""
    whole = frozen.first + frozen.length
    at = position + whole if position < 0 else position
    if not frozen.first <= at < whole:
        raise ValueError(f"position {position} is not among the positions {frozen.first} to {whole - 1} of this graph")
    return at - frozen.first


def token_id(frozen: FrozenPass, token: str | int) -> int:
    """The id of a token given as text or id. ValueError where the text is not exactly one token."""
    model = frozen.model
    size = model.unembedding.shape[0]
    if isinstance(token, int):
        if not 0 <= token < size:
            raise ValueError(f"{model.name} has token ids 0 to {size - 1}, not {token}")
        return token
    ids = model.tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        hint = f" (try {' ' + token!r})" if not token.startswith(" ") else ""
        raise ValueError(f"{token!r} is {len(ids)} tokens of {model.name}, and a target is one{hint}")
    return int(ids[0])


def _token_ids(frozen: FrozenPass, tokens: str | int | tuple[str | int, ...]) -> list[int]:
    ids = [token_id(frozen, t) for t in (tokens if isinstance(tokens, tuple) else (tokens,))]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"targets are one token or several different ones, got {tokens!r}")
    return ids


@torch.no_grad()
def _logits(target: TopLogits | TokenTarget, frozen: FrozenPass) -> Rows:
    model, p = frozen.model, frozen.length - 1
    h = frozen.last[p]
    logits = model.logits_of(h[None].to(model.dtype))[0].float()
    U, b = model.unembedding, getattr(model.parts.unembedding, "bias", None)
    if isinstance(target, TopLogits):
        top = logits.softmax(-1).topk(min(target.most, len(logits)))
        kept = min(int((top.values.cumsum(0) < target.share).sum()) + 1, len(top.indices))
        ids, weight = top.indices[:kept].tolist(), top.values[:kept]
    else:
        ids = _token_ids(frozen, target.token)
        weight = logits[ids].softmax(-1)  # their shares, also where a probability is too small for a number
    names = [model.tokenizer.decode([i]) for i in ids]
    less, less_b = _mean_row(U).to(h), 0 if b is None else b.mean()
    if isinstance(target, TokenTarget) and target.against is not None:
        other = token_id(frozen, target.against)
        if other in ids:
            raise ValueError(f"the two tokens of a difference are one: {model.tokenizer.decode([other])!r}")
        less, less_b = U[other].to(h), 0 if b is None else b[other]
        names = [f"{name} - {model.tokenizer.decode([other])}" for name in names]
    factor = _logit_factor(model.parts.config)
    covectors = (U[ids].to(h) - less) * factor
    constant = covectors @ frozen.final.bias + (0 if b is None else (b[ids] - less_b).detach().to(h) * factor)
    value = covectors @ (h - frozen.final.bias) + constant
    at_end = frozen.final.pull_at(covectors, frozen.final.scale[p])
    return Rows(
        names, ids, weight / weight.sum(), value, at_end, p, frozen.n_layers, constant=constant, logits=covectors
    )  # fmt: skip


def _logit_factor(config: Any) -> float:
    """What the architecture multiplies logits by, before any soft cap."""
    return float(getattr(config, "logit_scale", None) or 1) / float(getattr(config, "logits_scaling", None) or 1)


def _mean_row(U: Tensor) -> Tensor:
    """The mean of all rows [vocab, d], a part at a time: a half-precision matrix is not copied whole."""
    total = torch.zeros(U.shape[1], dtype=torch.float64)
    for part in U.split(1024):
        total += part.double().sum(0)
    return total / len(U)


def _latent(target: LatentTarget, frozen: FrozenPass, replacement: Replacement) -> Rows:
    p, found = place(target.position, frozen), replacement.latents
    where = (found.layer == target.layer) & (found.position == p) & (found.index == target.index)
    ids = where.nonzero().squeeze(1)
    if not len(ids):
        active = found.index[(found.layer == target.layer) & (found.position == p)].tolist()
        some = f"active there: {', '.join(map(str, active[:8]))}" if active else "no latent is active there"
        raise ValueError(f"latent {target.index} of layer {target.layer} is not active at position {target.position}; {some}")
    C = replacement.covectors(ids)
    block = frozen.blocks[target.layer]
    bias = None if block.norm is None else C @ block.norm.bias
    at = torch.full((1,), p)
    name = f"L{target.layer} latent {target.index}"
    return Rows(
        [name], [-1], torch.ones(1), found.value[ids], block.pull_read(C, at), p, target.layer, not block.parallel, bias
    )  # fmt: skip
