"""How large a decoder is: what a token costs it, and how wide its sites are.

A token takes 2 P operations for P trunk parameters (a multiplication and an addition each), and 4 h T for the scores and
the mixture of T attended tokens by h = heads * head_dim in every layer, with T the mean over a causal context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diascope.sites import Site


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes."""

    name: str
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    vocabulary: int
    window: int = 0
    """Tokens that a local layer attends to; 0 where all layers attend to everything."""
    global_every: int = 1
    """Every how many layers one attends to everything."""
    matrices: int = 3
    """Matrices of the MLP: 3 where it is gated."""

    @property
    def attention(self) -> int:
        """Heads side by side: the width of attn_out."""
        return self.heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Weights of one block, norms left out."""
        projections = self.d_model * (2 * self.attention + 2 * self.kv_heads * self.head_dim)
        return projections + self.matrices * self.d_model * self.d_ff

    @property
    def parameters(self) -> int:
        """Weights of the trunk and the (tied) embedding."""
        return self.layers * self.layer_parameters + self.vocabulary * self.d_model

    def attended(self, context: int) -> float:
        """Mean tokens that a token attends to, over layers and positions."""
        whole = context / 2
        if not self.window or self.window >= context:
            return whole
        local = (self.window * self.window / 2 + (context - self.window) * self.window) / context
        n_global = self.layers // self.global_every
        return (n_global * whole + (self.layers - n_global) * local) / self.layers

    def flops(self, context: int = 1024, layers: int | None = None) -> float:
        """Operations a token of the trunk's first `layers` blocks (all)."""
        layers = self.layers if layers is None else layers
        return layers * (2 * self.layer_parameters + 4 * self.attention * self.attended(context))

    @property
    def unembedding_flops(self) -> float:
        """Operations a token of the logits."""
        return 2 * self.d_model * self.vocabulary

    def width(self, site: Site) -> int:
        """The length of the vector at `site`."""
        return self.attention if site.kind == "attn_out" else self.d_model

    @property
    def elements(self) -> int:
        """Elements a token at all four sites of every layer."""
        return self.layers * (3 * self.d_model + self.attention)


def _gemma(name: str, d: int, layers: int, heads: int, kv: int, head: int, ff: int, window: int) -> Shape:
    return Shape(name, d, layers, heads, kv, head, ff, 262_144, window, 6)


GEMMA_3: dict[str, Shape] = {
    s.name: s
    for s in (
        _gemma("gemma-3-270m", 640, 18, 4, 1, 256, 2048, 512),
        _gemma("gemma-3-1b", 1152, 26, 4, 1, 256, 6912, 512),
        _gemma("gemma-3-4b", 2560, 34, 8, 4, 256, 10_240, 1024),
        _gemma("gemma-3-12b", 3840, 48, 16, 8, 256, 15_360, 1024),
        _gemma("gemma-3-27b", 5376, 62, 32, 16, 128, 21_504, 1024),
    )
}


def shape_of(config: Any, name: str) -> Shape:
    """The shape that a Hugging Face text config describes; ValueError for what it does not say."""

    def say(*names: str, otherwise: int | None = None) -> int:
        for n in names:
            if getattr(config, n, None) is not None:
                return int(getattr(config, n))
        if otherwise is None:
            raise ValueError(f"the config of {name} does not say {names[0]}: plan by one of {', '.join(GEMMA_3)}")
        return otherwise

    d, heads = say("hidden_size", "n_embd"), say("num_attention_heads", "n_head")
    kinds = getattr(config, "layer_types", None)
    window = say("sliding_window", otherwise=0) if kinds and "sliding_attention" in kinds else 0
    n_global = len([k for k in kinds if k == "full_attention"]) if kinds else 0
    layers = say("num_hidden_layers", "n_layer")
    gated = "gelu_new" != getattr(config, "activation_function", None) and not hasattr(config, "n_inner")
    return Shape(
        name, d, layers, heads, say("num_key_value_heads", otherwise=heads), say("head_dim", otherwise=d // heads),
        say("intermediate_size", "n_inner", otherwise=4 * d), say("vocab_size"), window, layers // n_global if n_global else 1,
        3 if gated else 2,
    )  # fmt: skip
