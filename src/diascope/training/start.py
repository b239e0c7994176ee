"""Start a member from finished dictionaries instead of from noise.

    unfold(member, [d])        one of the same shape: the fold of export.py undone, in the member's own scales
    unfold(member, [d0, d1..]) one single-layer dictionary a site, for a Causal member (CLT, crosscoder):
        1. Layers are walked from early to late; of each, the first 2 P latents are candidates (Matryoshka order: the
           most general first), P the member's latents a layer.
        2. The candidates whose encoder points most along the decoder of a latent chosen before, by cosine, are
           dropped until P are left: a feature that an earlier layer writes need not be read again (Gemma Scope 2).
        3. What is kept writes its own site as it did, and nothing to the later ones yet.

The L0 aimed at then starts at the one that the start has on a sample, and goes to the target over the run's `l0_warmup`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diascope.dictionaries import Causal, Dictionary, TopK, load_dictionary
from diascope.sites import Site
from diascope.training.member import Member
from diascope.training.recipe import MemberRecipe


def opened(recipe: MemberRecipe) -> list[Dictionary]:
    """The dictionaries in folders (or of other names) that `recipe` starts from; ValueError where one cannot be had."""
    return [load_dictionary(s) for s in recipe.start if not recipe.starts_from]


def unfold(member: Member, starts: Sequence[Dictionary], x: Tensor) -> None:
    """Give `member` (already started: its scales are set) the weights of `starts`; x [n, d_in] are raw rows.

    Raises ValueError where their shapes do not fit the member.
    """
    whole = starts[0] if len(starts) == 1 else stacked(member, starts)
    _check_same_shape(member, whole)
    p, ones = member.params, []
    p["b_dec"] = (whole.b_dec.detach() / member.scale_out).to(x)
    b_enc, theta = whole.b_enc.detach().to(x, copy=True), whole.threshold.detach().to(x, copy=True)
    for g, b in enumerate(member.blocks):
        D = whole.decoders[g].detach() / member.scale_out[b.writes]
        E = whole.encoders[g].detach().t() * member.scale_in[b.reads]
        n = D.norm(dim=1, keepdim=True)
        writes = n > 1e-12  # a latent that writes nothing keeps the noise that it was given, and its encoder stays off
        # contiguous, as a checkpoint has them: other strides would make other roundings after a resumption
        p[f"decoder.{g}"] = torch.where(writes, D / n.clamp_min(1e-12), p[f"decoder.{g}"]).contiguous()
        p[f"encoder.{g}"] = torch.where(writes, E * n, p[f"encoder.{g}"]).contiguous()
        ones.append(n.squeeze(1))
        if member.skips:
            p[f"skip.{g}"] = (whole.skips[g].detach() * member.scale_in[b.reads][:, None] / member.scale_out[b.skips]).to(x)
    lengths = torch.cat(ones)
    b_enc, theta = b_enc * lengths, theta * lengths
    if member.centred:
        for g, b in enumerate(member.blocks):
            b_enc[b.latents] += p[f"encoder.{g}"] @ p["b_dec"][b.reads]
    p["b_enc"] = member.rule.adopt(b_enc, theta)
    member.bind()
    member.rule.first = max(1.0, float(whole.encode(x).counts.float().mean()))


def stacked(member: Member, singles: Sequence[Dictionary]) -> Dictionary:
    """One dictionary of the member's shape from one single-layer dictionary a site, duplicates dropped."""
    blocks, config = member.blocks, member.config
    if not isinstance(config.map, Causal) or len(singles) != len(blocks):
        raise ValueError(
            f"{member.recipe.name} has {len(blocks)} layers and {len(singles)} dictionaries to start from: give one of its own "
            "shape, or one single-layer dictionary a site"
        )
    tensors: dict[str, Tensor] = {"b_dec": torch.cat([d.b_dec.detach() for d in singles])}
    biases, thresholds, written = [], [], torch.empty(0, 0)
    for g, (b, d) in enumerate(zip(blocks, singles, strict=True)):
        if isinstance(d.config.activation, TopK):
            raise ValueError(f"{member.recipe.name}: TopK dictionaries have no thresholds to start a multi-layer one from")
        if (d.config.d_in, d.config.d_out) != (b.d_in, b.own.stop - b.own.start) or d.d_sae < b.n_latents:
            raise ValueError(
                f"{member.recipe.name} reads {b.d_in} dimensions at {config.reads[g]} with {b.n_latents} latents, and its start "
                f"there reads {d.config.d_in} with {d.d_sae}"
            )
        if (_place(d.site_in), _place(d.site_out)) != (_place(config.reads[g]), _place(config.writes[g])):
            raise ValueError(
                f"{member.recipe.name} reads {config.reads[g]} and writes {config.writes[g]} in layer number {g}, and its start there "
                f"reads {d.site_in} and writes {d.site_out}: give them in the order of the sites"
            )
        if d.config.skip and not config.skip:
            raise ValueError(
                f"{member.recipe.name} has no skip, and its start at {d.site_in} does: what that writes would be lost"
            )
        keep = distinct(d, b.n_latents, written)
        own = d.W_dec.detach()[keep]
        decoder = torch.zeros(b.n_latents, b.d_out)
        decoder[:, b.own] = own
        tensors |= {f"W_enc.{g}": d.W_enc.detach()[:, keep], f"W_dec.{g}": decoder}
        if config.skip:
            skip = d.W_skip.detach() if d.W_skip is not None else torch.zeros(b.d_in, b.skips.stop - b.skips.start)
            tensors[f"W_skip.{g}"] = skip
        biases.append(d.b_enc.detach()[keep])
        thresholds.append(d.threshold.detach()[keep])
        unit = own / own.norm(dim=1, keepdim=True).clamp_min(1e-12)
        written = torch.cat([written, unit]) if len(written) else unit
    return Dictionary(config, tensors | {"b_enc": torch.cat(biases), "threshold": torch.cat(thresholds)})


def distinct(d: Dictionary, count: int, written: Tensor) -> Tensor:
    """Which `count` of the first 2 * count latents of `d` are least like the unit directions `written` [m, d], in order."""
    candidates = d.W_enc.detach()[:, : 2 * count].t()
    if not len(written) or len(candidates) == count:
        return torch.arange(count)
    likeness = (candidates / candidates.norm(dim=1, keepdim=True).clamp_min(1e-12)) @ written.t()
    return likeness.amax(1).topk(count, largest=False).indices.sort().values


def _place(site: Site) -> tuple[int, str]:
    """Layer and kind: a chat model's dictionary may start from the base model's."""
    return site.layer, site.kind


def _check_same_shape(member: Member, d: Dictionary) -> None:
    ours, theirs = member.config, d.config
    for name in ("reads", "writes"):
        here, there = getattr(ours, name), getattr(theirs, name)
        if list(map(_place, here)) != list(map(_place, there)):
            raise ValueError(
                f"{member.recipe.name} {name} {', '.join(map(str, here))}, and its start {name} {', '.join(map(str, there))}"
            )
    for name in ("map", "d_sae", "widths_in", "widths_out", "skip"):
        if getattr(ours, name) != getattr(theirs, name):
            raise ValueError(
                f"{member.recipe.name} cannot start from a dictionary of another shape: {name} is {getattr(theirs, name)} there "
                f"and {getattr(ours, name)} here"
            )
