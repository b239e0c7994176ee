"""The README's demo: from nothing to exploring an SAE and a skip-transcoder of the real Gemma 3 270M."""

from __future__ import annotations

from diascope.recipes.gemma_scope_2 import small
from diascope.recipes.run import RunRecipe

SITES = (("L12.resid_post", "L12.resid_post"), ("L12.mlp_in", "L12.mlp_out"))


def demo(tokens: int = 250_000, *, epochs: float = 2.0, eval_tokens: int = 16_384, ce_tokens: int = 2_048) -> RunRecipe:
    """An SAE on L12.resid_post and a skip-transcoder at layer 12: 16,384 latents each, target L0 60."""
    training = small(SITES, tokens=tokens, epochs=epochs)
    return RunRecipe(training, name="demo", tokens=tokens, eval_tokens=eval_tokens, ce_tokens=ce_tokens)
