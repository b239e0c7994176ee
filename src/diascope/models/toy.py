"""A tiny random decoder with a byte tokenizer: ships so that users can test their own code without any download.

model = toy_model()            # 4 layers, d_model 32, Gemma 3's block; any architecture by `architecture=`
"""

from __future__ import annotations

from typing import Any

import torch

from diascope.models.model import Model

SIZES: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "sliding_window": 64,
}


def byte_tokenizer() -> Any:
    """A tokenizer with one token a byte (ids 4 to 259) and <pad>, <eos>, <bos>, <unk> before them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", *sorted(letters)])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def toy_module(architecture: str = "gemma3_text", *, seed: int = 0, **sizes: Any) -> torch.nn.Module:
    """A random causal LM of a Hugging Face architecture (its `model_type`), float32, in evaluation mode.

    Norm gains are random too: with all ones a missing gain would go unseen.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(architecture, **{**SIZES, **sizes})
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        module = AutoModelForCausalLM.from_config(config)
        for name, p in module.named_parameters():
            if (p.ndim == 1 and "norm" in name) or "ln_" in name:
                p.data.normal_(0.5, 0.3)
    finally:
        torch.random.set_rng_state(state)
    return module.eval()


def toy_model(architecture: str = "gemma3_text", *, seed: int = 0, **sizes: Any) -> Model:
    """A tiny random Model with a byte tokenizer."""
    return Model(toy_module(architecture, seed=seed, **sizes), byte_tokenizer(), f"toy-{architecture}")
