"""Fine-tune a finished dictionary on what the model goes on to say, not on reconstruction alone.

Loss of the release (technical paper), for one packed sequence with the dictionary spliced in:

    (MSE + alpha beta KL) / (1 + beta),   alpha = MSE / (KL + 1e-8), held fixed,   KL = KL(clean || spliced)

1. The clean model's last hidden states and the blocks below the site are computed without a graph.
2. The spliced pass starts at the site's layer with a graph through the dictionary and the blocks above, the model held fixed.
3. MSE is taken over the sequence's ordinary tokens, every dimension divided by its own deviation (the metric that the demo
   trains in); KL over `kl_positions` of them, drawn by key: the unembedding costs more than all blocks.
4. Adam (0, 0.999); a tensor's entry moves by at most lr times the tensor's root mean square a step, so that raw units do not
   matter. Decoder rows are brought back to unit length by a change that leaves the map as it was.
5. Thresholds stay while weights move, and are multiplied by one factor at the end, to the target L0 on calibration rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.config import to_data, within
from diascope.dictionaries import Dictionary, JumpReLU, OneToOne, with_l0
from diascope.edits import Edit
from diascope.evals.run import check_fits
from diascope.evals.text import EvalText
from diascope.models import Model
from diascope.numerics import deviations
from diascope.tokens import Sequences, open_corpus, pack, split


@dataclass(frozen=True)
class EndToEnd:
    """How a dictionary is fine-tuned through the model."""

    beta: float = 1.0
    """Weight of KL against MSE, both brought to the same size; 0 is MSE alone (the release's is not published)."""
    lr: float = 2e-3
    """Largest step of an entry, as a share of its tensor's root mean square."""
    warmup: float = 0.1
    """Share of the run over which the rate rises; over the rest it falls linearly to zero."""
    beta2: float = 0.99
    """Adam's second-moment decay; beta1 is 0."""
    kl_positions: int = 128
    """Predictions a sequence for KL."""
    seed: int = 0
    """Seed of the order of sequences and of those positions."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("beta", 0, 1e6),
            ("lr", 1e-9, 1),
            ("warmup", 0, 1),
            ("beta2", 0, 1 - 1e-9),
            ("kl_positions", 1, 2**30),
        ):
            within(name, getattr(self, name), low, high)


@dataclass(frozen=True)
class Losses:
    """What one step saw."""

    mse: float  # mean over rows and dimensions, every dimension in units of its deviation: FVU standardised
    kl: float  # nats a predicted token


def finetune(
    model: Model,
    dictionary: Dictionary,
    sequences: Sequences,
    config: EndToEnd = EndToEnd(),
    *,
    calibration: Tensor | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> tuple[Dictionary, list[Losses]]:
    """A fine-tuned copy of `dictionary` and the losses of every step, one pass over packed `sequences` (one a step).

    `calibration` rows [n, d_in] set the thresholds to the target L0 at the end. Raises ValueError for dictionaries of several
    sites, and for TopK, whose k needs no thresholds but has none to keep either.
    """
    check_kind(dictionary)
    d = Dictionary(dictionary.config, {k: v.clone() for k, v in dictionary.tensors().items()})
    moving = [d.encoders[0], d.decoders[0], d.b_enc, d.b_dec, *d.skips]
    for p in moving:
        p.requires_grad_(True)
    second = [torch.zeros_like(p) for p in moving]
    text = EvalText(model, sequences, batch=1)
    deviation = _deviation(text, d)
    seen, n = [], len(sequences)
    with _held(model):
        for step, index in enumerate(rng.generator(config.seed, "end to end").permutation(n)):
            loss, said = _loss(model, d, sequences, int(index), deviation, config, step)
            seen.append(said)
            if not math.isfinite(said.mse + said.kl):
                raise ValueError(
                    f"at sequence {step + 1} of {n} the loss is no number (mse {said.mse}, kl {said.kl}): the model's or the "
                    f"dictionary's weights are not finite or far too large, or the rate {config.lr:g} is too high"
                )
            found = torch.autograd.grad(loss, moving, allow_unused=True)  # no latent may have fired
            grads = tuple(torch.zeros_like(p) if g is None else g for p, g in zip(moving, found, strict=True))
            _update(moving, second, grads, config, step, n)
            _unit_rows(d)
            progress(step + 1, n, f"mse {said.mse:.3f}  kl {said.kl:.3f}")
    for p in moving:
        p.requires_grad_(False)
    if calibration is not None:
        d = with_l0(d, calibration, d.config.l0_target or 60)
    return d, seen


def check_kind(d: Dictionary) -> None:
    """ValueError for dictionaries that cannot be fine-tuned end to end, with the reason."""
    if not isinstance(d.config.map, OneToOne):
        raise ValueError(f"end-to-end fine-tuning takes dictionaries of one site, not this {d.config.title}")
    if not isinstance(d.config.activation, JumpReLU):
        kind = type(d.config.activation).__name__
        raise ValueError(
            f"end-to-end fine-tuning takes JumpReLU dictionaries, whose thresholds it sets, and this one is {kind}"
        )


def _deviation(text: EvalText, d: Dictionary) -> Tensor:
    """Standard deviation a dimension [d_out] of the targets on the first sequences."""
    few = EvalText(text.model, text.sequences.part(0, 16))
    return deviations(d.targets(few.capture(list(d.config.writes))))


def _loss(
    model: Model, d: Dictionary, sequences: Sequences, index: int, deviation: Tensor, config: EndToEnd, step: int
) -> tuple[Tensor, Losses]:
    one = sequences.part(index, index + 1)
    text = EvalText(model, one)
    tokens, positions = (torch.from_numpy(a).long() for a in (one.tokens, one.positions))
    layer = min(s.layer for s in d.sites)
    below = model.block_output(tokens, layer - 1, positions=positions) if layer else None
    resume = (layer, below) if layer else None
    clean = model.hidden(tokens, positions=positions, resume=resume)
    errors: list[Tensor] = []

    def splice(x: Tensor, y: Tensor) -> Tensor:
        y_hat = d(x.float())
        errors.append((((y.float() - y_hat) / deviation) ** 2)[text.rows].mean())
        return y_hat

    with model.edit(Edit(d.site_in, d.site_out, splice)):
        spliced = model.hidden(tokens, positions=positions, resume=resume, grad=True, rows=text.rows)
    places = text.predicts.nonzero()
    pick = rng.generator(config.seed, "positions", step).permutation(len(places))[: config.kl_positions]
    at = tuple(places[np.sort(pick)].t())
    with torch.no_grad():
        p = model.logits_of(clean[at]).float().log_softmax(-1)
    kl = (p.exp() * (p - model.logits_of(spliced[at]).float().log_softmax(-1))).sum(-1).mean()
    mse = errors[0]
    alpha = (mse / (kl + 1e-8)).detach()
    return (mse + alpha * config.beta * kl) / (1 + config.beta), Losses(float(mse.detach()), float(kl.detach()))


@torch.no_grad()
def _update(
    moving: list[Tensor], second: list[Tensor], grads: tuple[Tensor, ...], config: EndToEnd, step: int, steps: int
) -> None:
    warm = max(1, round(config.warmup * steps))
    rate = config.lr * min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    for p, v, g in zip(moving, second, grads, strict=True):
        v.mul_(config.beta2).addcmul_(g, g, value=1 - config.beta2)
        ratio = g / (v / (1 - config.beta2 ** (step + 1))).sqrt().add_(1e-12)
        p.add_(ratio.clamp_(-1, 1), alpha=-rate * float(p.square().mean().sqrt()))


@torch.no_grad()
def _unit_rows(d: Dictionary) -> None:
    """Unit decoder rows, with what they lost moved into encoder, bias and threshold: the same map."""
    n = d.decoders[0].norm(dim=1)
    d.decoders[0].div_(n[:, None])
    d.encoders[0].mul_(n)
    d.b_enc.mul_(n)
    d.threshold.mul_(n)


@contextmanager
def _held(model: Model) -> Iterator[None]:
    """The model's parameters take no gradient in here; afterwards they are as they were."""
    before = [(p, p.requires_grad) for p in model.module.parameters()]
    try:
        for p, _ in before:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)


def finetune_run(
    model: Model,
    dictionary: Dictionary,
    config: EndToEnd,
    *,
    text: str = "wikipedia-sample",
    field: str = "text",
    tokens: int = 65_536,
    context: int = 512,
    held_out: float = 0.1,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Dictionary:
    """Fine-tune on documents of `text` that are not held out, and set thresholds on those that are, as `train` does."""
    check_kind(dictionary)
    check_fits(model, "the dictionary", dictionary)
    train, held = split(open_corpus(text, field=field), held_out=held_out, seed=0)
    if not held:
        raise ValueError(f"no document of {text} is held out to set thresholds on: give more documents")
    sequences = pack(model, train, context=context, max_tokens=tokens, seed=config.seed)
    rows = EvalText(model, pack(model, held, context=context, max_tokens=8_192)).capture(list(dictionary.config.reads))
    tuned, losses = finetune(model, dictionary, sequences, config, calibration=dictionary.inputs(rows), progress=progress)
    end = mean_of(losses)
    facts = {
        "config": to_data(config),
        "text": text,
        "tokens": int(sequences.tokens.size),
        "last_mse": end.mse,
        "last_kl": end.kl,
    }
    tuned.provenance = dictionary.provenance | {"end_to_end": facts}
    return tuned


def mean_of(losses: list[Losses], last: int = 20) -> Losses:
    """The mean of the last steps, for a line at the end."""
    tail = losses[-last:]
    return Losses(*(math.fsum(getattr(x, name) for x in tail) / len(tail) for name in ("mse", "kl")))
