"""The release's recipe, and the rule that scales it to a small budget.

Published (technical paper and files): JumpReLU with bandwidth 0.001, quadratic L0 penalty, frequency penalty,
Matryoshka loss, Adam (0, 0.999), lr 7e-5 with cosine warm-up over 1,000 steps, batch 4,096, lambda warm-up over 50,000
steps, theta 0.001, He-uniform unit decoder rows, tied start, 16k latents, about 10^9 tokens and more.
Not published, so chosen here: prefix sizes and weights, the penalties' constants and weights.

Rule for a budget of n stored rows (`scaled`): with T = 10^9 / 4,096 the release's steps and t ours,
    epochs   several passes over the stored rows
    batch    1,024, so that t is not tiny
    lr       7e-5 * sqrt(T / t), at most 2e-3; one entry moves at most lr a step (update_clip), Adam's beta2 0.99
    momentum Adam's beta1 0.9: the release's 0 is made for a hundred times as many steps (docs/training.md)
    warm-ups the same share of the run at most, at least 20 steps; lr falls to zero over the last 30 %
    BatchTopK converted to JumpReLU, as the paper did for its multi-layer models: a straight-through threshold moves by
    about lr a step and cannot travel far enough in a few hundred steps
"""

from __future__ import annotations

import math

from diascope.config import within
from diascope.dictionaries import BatchTopK, JumpReLU, Matryoshka
from diascope.recipes.recipe import RunRecipe
from diascope.sites import Site
from diascope.training import FrequencyPenalty, MemberRecipe, QuadraticL0, TrainingRecipe

RELEASE_STEPS = 1_000_000_000 // 4096
L0 = {"small": (10, 20), "medium": (30, 60), "big": (60, 150)}
BIG_ALL = (60, 120)  # what "big" means in the folders of every layer


def l0_target(layer: int, n_layers: int, size: str = "medium") -> int:
    """The release's target for single-layer dictionaries: floor(lo + (hi - lo) min(1, 3 L / n)); "big_all" is the `*_all`
    folders' big."""
    low, high = BIG_ALL if size == "big_all" else L0[size]
    return math.floor(low + (high - low) * min(1.0, 3 * layer / n_layers))


def prefixes(d_sae: int) -> Matryoshka:
    """Our choice of nesting: quarters on a log scale, each prefix with the same weight."""
    sizes = tuple(sorted({max(1, d_sae // 4**i) for i in (2, 1, 0)}))
    return Matryoshka(sizes, (1.0,) * len(sizes))


def gemma_scope_2(
    sites: tuple[str, ...] = ("L12.resid_post",),
    *,
    model: str = "gemma-3-270m",
    n_layers: int = 18,
    d_sae: int = 16384,
    tokens: int = 10**9,
) -> RunRecipe:
    """The release's recipe as published, for SAEs on `sites`."""
    members = tuple(
        MemberRecipe(
            name=f"sae-{site}",
            sites_in=(site,),
            sites_out=(site,),
            d_sae=d_sae,
            activation=JumpReLU(bandwidth=0.001),
            matryoshka=prefixes(d_sae),
            l0_target=float(l0_target(Site.parse(site).layer, n_layers)),
            metric_power=0.0,
            sparsity=QuadraticL0(coefficient=1.0, constant=2.0),
            frequency=FrequencyPenalty(coefficient=0.01, scale=0.1),
        )
        for site in sites
    )
    training = TrainingRecipe(
        members=members,
        epochs=1.0,
        batch=4096,
        lr=7e-5,
        lr_warmup=1000,
        lr_decay=0.0,
        beta2=0.999,
        update_clip=0.0,
        l0_warmup=50_000,
        aux_coefficient=0.0,
        decoder_start="he",
    )
    return RunRecipe(training, name="gemma_scope_2", model=model, tokens=tokens, context=1024)


def scaled(members: tuple[MemberRecipe, ...], tokens: int, *, epochs: float = 3.0, batch: int = 1024) -> TrainingRecipe:
    """The training of `members` on a small budget of `tokens`, by the rule above."""
    within("epochs", epochs, 1e-6, 1e6)
    steps = max(1, int(epochs * tokens / batch))
    return TrainingRecipe(
        members=members,
        epochs=epochs,
        batch=batch,
        lr=round(min(2e-3, 7e-5 * math.sqrt(RELEASE_STEPS / steps)), 6),
        lr_warmup=max(20, steps // 20),
        lr_decay=0.3,
        beta1=0.9,
        beta2=0.99,
        update_clip=1.0,
        l0_warmup=max(20, steps // 5),
        dead_after=min(100_000, max(10_000, int(epochs * tokens) // 4)),
        decoder_start="he",
    )


def small(
    sites: tuple[tuple[str, str], ...], *, d_sae: int = 16384, l0: float = 60.0, tokens: int = 250_000, epochs: float = 3.0
) -> TrainingRecipe:
    """SAEs and skip-transcoders for (input, output) `sites` on a small budget."""
    within("latents", d_sae, 2, 2**24)
    within("l0", l0, 1, d_sae - 1, "active latents a token")
    sites = tuple((str(Site.parse(a)), str(Site.parse(b))) for a, b in sites)
    members = tuple(
        MemberRecipe(
            name="sae" if a == b else "transcoder",
            sites_in=(a,),
            sites_out=(b,),
            d_sae=d_sae,
            activation=BatchTopK(round(l0)),
            matryoshka=prefixes(d_sae),
            skip=a != b,
            l0_target=l0,
        )
        for a, b in sites
    )
    return scaled(members, tokens, epochs=epochs)
