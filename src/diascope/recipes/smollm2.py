"""An SAE of SmolLM2-135M-Instruct in the middle of its depth, on plain text: the base that chat dictionaries start from."""

from __future__ import annotations

from diascope.recipes.gemma_scope_2 import l0_target, small
from diascope.recipes.recipe import RunRecipe

LAYER, LAYERS = 15, 30


def smollm2(tokens: int = 250_000, *, latents: int = 4096, epochs: float = 2.0) -> RunRecipe:
    """L15.resid_post, 4,096 latents, the release's medium L0."""
    site = f"L{LAYER}.resid_post"
    l0 = float(l0_target(LAYER, LAYERS))
    training = small(((site, site),), d_sae=latents, l0=l0, tokens=tokens, epochs=epochs)
    return RunRecipe(
        training, name="smollm2", model="smollm2-135m-instruct", tokens=tokens, calibration="held-out+wikipedia-passages-dev"
    )
