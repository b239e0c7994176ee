"""The subject and the dictionaries behind golden/*.safetensors, drawn again from a seed.

1. `tiny_gemma()`: a Gemma 3 of three layers (local, global, local). Its window of 4 is shorter than the prompt of 8 tokens, and
   its weights have the size of a trained model's, so that attention is far from uniform.
2. `dictionaries(kind)`: transcoders (JumpReLU), skip-transcoders (ReLU) or one cross-layer transcoder (JumpReLU) of 32 latents a
   layer, reading `mlp_in` and writing `mlp_out`.
3. Both come from integers: the same on every processor, which a vectorised normal distribution is not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.dictionaries.activations import JumpReLU, ReLU
from diascope.dictionaries.site_maps import Causal
from diascope.models.toy import toy_module

KINDS = ("transcoder", "skip-transcoder", "clt")
PROMPT, TOKENS = "the the", (2, 87, 75, 72, 224, 87, 75, 72)
LAYERS, D, LATENTS, WINDOW, SEED = 3, 32, 32, 4, 44


def draw(shape: tuple[int, ...], generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Uniform numbers of that mean and standard deviation in steps of 2^-15, exact in float32 before scaling."""
    steps = torch.randint(-(2**15), 2**15 + 1, shape, generator=generator)
    return mean + std * 3**0.5 * (steps / 2**15)


def tiny_gemma() -> torch.nn.Module:
    """The subject: a Hugging Face Gemma 3 for text, float32, in evaluation mode."""
    local, full = "sliding_attention", "full_attention"
    module = toy_module(
        num_hidden_layers=LAYERS, layer_types=[local, full, local], sliding_window=WINDOW, query_pre_attn_scalar=8
    )
    g = torch.Generator().manual_seed(SEED)
    for name, p in sorted(module.named_parameters()):
        gain = p.ndim == 1  # Gemma adds 1 to it
        mean = 3.0 if name == "model.norm.weight" else 0.0  # so that fewer than 10 words hold 0.95 of the probability
        p.data = draw(tuple(p.shape), g, mean=mean, std=0.3 if gain else p.shape[-1] ** -0.5)
    return module


def dictionaries(kind: str) -> list[Dictionary]:
    """One dictionary a layer, or the one CLT, of a kind in KINDS."""
    g = torch.Generator().manual_seed(SEED + 1 + KINDS.index(kind))
    if kind == "clt":
        return [_clt(g)]
    return [_transcoder(layer, kind == "skip-transcoder", g) for layer in range(LAYERS)]


def _transcoder(layer: int, skip: bool, g: torch.Generator) -> Dictionary:
    tensors = {
        "W_enc": draw((D, LATENTS), g, std=D**-0.5),
        "W_dec": draw((LATENTS, D), g, std=D**-0.5),
        "b_enc": draw((LATENTS,), g, mean=-1.0 if skip else 0.0, std=0.2),
        "b_dec": draw((D,), g, std=0.3),
        "threshold": torch.zeros(LATENTS) if skip else draw((LATENTS,), g, mean=1.0, std=0.2),
    }
    if skip:
        tensors["W_skip"] = draw((D, D), g, std=0.5 * D**-0.5)
    choice: dict[str, Any] = {"activation": ReLU() if skip else JumpReLU(), "skip": skip}
    config = DictionaryConfig.single("tiny", f"L{layer}.mlp_in", f"L{layer}.mlp_out", D, D, LATENTS, **choice)
    return Dictionary(config, tensors)


def _clt(g: torch.Generator) -> Dictionary:
    tensors = {}
    for i in range(LAYERS):
        tensors[f"W_enc.{i}"] = draw((D, LATENTS), g, std=D**-0.5)
        tensors[f"W_dec.{i}"] = draw((LATENTS, (LAYERS - i) * D), g, std=D**-0.5)
    tensors |= {
        "b_enc": draw((LAYERS * LATENTS,), g, std=0.2),
        "b_dec": draw((LAYERS * D,), g, std=0.3),
        "threshold": draw((LAYERS * LATENTS,), g, mean=1.0, std=0.2),
    }
    reads, writes = (tuple(f"L{i}.{kind}" for i in range(LAYERS)) for kind in ("mlp_in", "mlp_out"))
    widths = (D,) * LAYERS, (D,) * LAYERS
    return Dictionary(DictionaryConfig("tiny", reads, writes, *widths, LAYERS * LATENTS, Causal(), JumpReLU()), tensors)
