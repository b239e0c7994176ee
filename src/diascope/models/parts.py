"""Find the parts of a decoder by looking, not by a table of architectures.

1. Blocks: the ModuleList with as many entries as the config has hidden layers (under `model.layers`, `transformer.h`,
   `model.language_model.layers`, `gpt_neox.layers`, ...).
2. Trunk: the module that owns it; running the trunk alone never computes the unembedding.
3. In each block: attention, its output projection, the MLP, and the norms that sit between a branch and the residual.

Sites (Gemma Scope 2's definitions; elsewhere the nearest thing):

    resid_post   block output
    attn_out     input of the attention's output projection: heads concatenated, before W_O and any post-norm
    mlp_in       input of the MLP module; in Gemma this is pre_feedforward_layernorm.output, gain included
    mlp_out      what the branch adds to the residual: post_feedforward_layernorm.output where there is one (Gemma 2
                 and 3, OLMo 2), else the MLP's output
    resid_pre    block input
    attn_write   what the attention branch adds to the residual: after W_O, and after post_attention_layernorm where that is a
                 post-norm (where there is a post_feedforward_layernorm; elsewhere the name belongs to the norm before the MLP)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from diascope.sites import Site

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
PROJECTION = ("o_proj", "c_proj", "dense", "out_proj", "wo")
MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn")
POST_MLP_NORM = ("post_feedforward_layernorm",)
POST_ATTENTION_NORM = ("post_attention_layernorm",)
FINAL_NORM = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


@dataclass(frozen=True)
class Parts:
    """Where a decoder keeps what we read and write."""

    trunk: Any  # a module: embeddings, blocks, final norm; returns last_hidden_state
    blocks: nn.ModuleList
    unembedding: Any  # a module, or None
    config: Any  # the text config


def find_parts(model: Any) -> Parts:
    """The parts of `model` (a Hugging Face causal LM, PEFT-wrapped or not).

    Raises ValueError that says what was not found.
    """
    if hasattr(model, "get_base_model"):  # PEFT: the adapters sit inside the base model's own modules
        model = model.get_base_model()
    config = getattr(model, "config", None)
    if config is None:
        raise ValueError(f"{type(model).__name__} has no config: pass a Hugging Face causal language model")
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    n_layers = getattr(config, "num_hidden_layers", None) or getattr(config, "n_layer", None)
    if not n_layers:
        raise ValueError(f"the config of {type(model).__name__} does not say how many layers it has")
    lists = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
    lists = [(name, m) for name, m in lists if child(m[0], MLP) is not None and "vision" not in name]
    if not lists:
        raise ValueError(
            f"{type(model).__name__} has no list of {n_layers} blocks with an MLP inside (looked for children named "
            f"{', '.join(MLP)}): is this a decoder-only language model?"
        )
    name, blocks = min(lists, key=lambda item: len(item[0]))
    trunk = model.get_submodule(name.rpartition(".")[0]) if "." in name else model
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return Parts(trunk, blocks, head, config)


def address(parts: Parts, site: Site) -> tuple[nn.Module, str]:
    """The module and the side of it ("input" or "output") where `site` is.

    Raises ValueError for a layer or a part that this model lacks.
    """
    if site.layer >= len(parts.blocks):
        raise ValueError(f"{site} is not in this model: its layers are 0 to {len(parts.blocks) - 1}")
    block = parts.blocks[site.layer]
    if site.kind == "resid_post":
        return block, "output"
    if site.kind == "resid_pre":
        return block, "input"
    post = child(block, POST_MLP_NORM)
    if site.kind in ("attn_out", "attn_write"):
        norm = child(block, POST_ATTENTION_NORM) if post is not None else None
        if site.kind == "attn_write" and norm is not None:
            return norm, "output"
        attention = child(block, ATTENTION)
        projection = child(attention, PROJECTION) if attention is not None else None
        if projection is None:
            names = ", ".join(n for n, _ in block.named_children())
            raise ValueError(
                f"{site}: no attention output projection in {type(block).__name__} (its children: {names}); looked for "
                f"{', '.join(ATTENTION)} holding {', '.join(PROJECTION)}"
            )
        return projection, "input" if site.kind == "attn_out" else "output"
    mlp = child(block, MLP)
    assert mlp is not None  # find_parts asked for it
    if site.kind == "mlp_in":
        return mlp, "input"
    return (post, "output") if post is not None else (mlp, "output")


def width(parts: Parts, site: Site) -> int:
    """The length of the vector at `site`."""
    if site.kind != "attn_out":
        return int(parts.config.hidden_size)
    module: Any = address(parts, site)[0]
    module = getattr(module, "base_layer", module)  # a LoRA-wrapped projection
    if hasattr(module, "in_features"):
        return int(module.in_features)
    return int(module.weight.shape[0])  # GPT-2's Conv1D keeps [in, out]


def child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    """The first child of `module` that has one of `names`."""
    children = dict(module.named_children())
    return next((children[n] for n in names if n in children), None)
