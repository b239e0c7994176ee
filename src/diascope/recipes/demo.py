"""The README's demo: from nothing to exploring an SAE and a skip-transcoder of the real Gemma 3 270M."""

from __future__ import annotations

from dataclasses import replace

from diascope.recipes.gemma_scope_2 import small
from diascope.recipes.recipe import RunRecipe

SITES = (("L12.resid_post", "L12.resid_post"), ("L12.mlp_in", "L12.mlp_out"))


def demo(
    tokens: int = 250_000,
    *,
    corpus: str = "wikipedia-sample",
    epochs: float = 2.0,
    eval_tokens: int = 16_384,
    ce_tokens: int = 2_048,
    seed: int = 0,
) -> RunRecipe:
    """An SAE on L12.resid_post and a skip-transcoder at layer 12: 16,384 latents each, target L0 60.

    Thresholds are set on held-out articles and on passages together: articles alone give a transcoder of L0 60 on
    articles an L0 of 70 on passages. The passages judged are another part of their corpus.
    """
    training = replace(small(SITES, tokens=tokens, epochs=epochs), seed=seed)
    calibration = "held-out+wikipedia-passages-dev"
    return RunRecipe(
        training,
        name="demo",
        corpus=corpus,
        tokens=tokens,
        calibration=calibration,
        eval_tokens=eval_tokens,
        ce_tokens=ce_tokens,
    )
