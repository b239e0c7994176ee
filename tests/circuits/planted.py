"""Transcoders of random weights for the toy model, with biases and thresholds, so that nothing may be forgotten."""

import torch

from diascope.dictionaries import Causal, Dictionary, DictionaryConfig, ReLU
from diascope.models.toy import toy_model

D, S, LAYERS = 32, 64, 4
PROMPT = [2, *range(30, 42)]  # BOS, then twelve bytes


def transcoder(layer, *, skip=False, seed=0, **changed):
    g = torch.Generator().manual_seed(seed * 100 + layer)
    tensors = {
        "W_enc": torch.randn(D, S, generator=g) / D**0.5,
        "W_dec": torch.randn(S, D, generator=g) / D**0.5,
        "b_enc": torch.randn(S, generator=g) * 0.1,
        "b_dec": torch.randn(D, generator=g) * 0.1,
        "threshold": torch.rand(S, generator=g) * 0.3,
    }
    if skip:
        tensors["W_skip"] = torch.randn(D, D, generator=g) * 0.05
    config = DictionaryConfig.single("toy", f"L{layer}.mlp_in", f"L{layer}.mlp_out", D, D, S, skip=skip, l0_target=8.0)
    return Dictionary(config, tensors | changed).double()


def transcoders(*, skip=False, seed=0):
    return [transcoder(layer, skip=skip, seed=seed) for layer in range(LAYERS)]


def clt(*, skip=False, like=None, seed=0):
    """A cross-layer transcoder; `like` transcoders give it their weights, with nothing written to later layers."""
    g = torch.Generator().manual_seed(1000 + seed)
    reads, writes = (tuple(f"L{i}.{kind}" for i in range(LAYERS)) for kind in ("mlp_in", "mlp_out"))
    config = DictionaryConfig(
        "toy", reads, writes, (D,) * LAYERS, (D,) * LAYERS, S * LAYERS, Causal(), skip=skip, l0_target=32.0
    )
    tensors = {
        "b_enc": torch.randn(S * LAYERS, generator=g) * 0.1,
        "b_dec": torch.randn(D * LAYERS, generator=g) * 0.1,
        "threshold": torch.rand(S * LAYERS, generator=g) * 0.3,
    }
    for i in range(LAYERS):
        tensors[f"W_enc.{i}"] = torch.randn(D, S, generator=g) / D**0.5
        tensors[f"W_dec.{i}"] = torch.randn(S, D * (LAYERS - i), generator=g) / D**0.5
        if skip:
            tensors[f"W_skip.{i}"] = torch.randn(D, D, generator=g) * 0.05
    if like is not None:
        for name in ("b_enc", "b_dec", "threshold"):
            tensors[name] = torch.cat([getattr(d, name).detach() for d in like])
        for i, d in enumerate(like):
            tensors[f"W_enc.{i}"] = d.W_enc.detach()
            tensors[f"W_dec.{i}"] = torch.cat([d.W_dec.detach(), torch.zeros(S, D * (LAYERS - i - 1))], 1)
    return Dictionary(config, tensors).double()


def exact_gpt2():
    """A model whose MLPs are ReLU networks, and transcoders that are these networks: no error is left."""
    layout = {"n_embd": D, "n_layer": LAYERS, "n_head": 4, "n_positions": 128, "activation_function": "relu"}
    model = toy_model("gpt2", **layout)
    model.module.double()
    made = []
    for layer, block in enumerate(model.parts.blocks):
        mlp = block.mlp
        mlp.c_fc.bias.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(layer))
        n = mlp.c_fc.weight.shape[1]
        tensors = {"W_enc": mlp.c_fc.weight, "b_enc": mlp.c_fc.bias, "W_dec": mlp.c_proj.weight, "b_dec": mlp.c_proj.bias,
                   "threshold": torch.zeros(n)}  # fmt: skip
        config = DictionaryConfig.single(
            "toy", f"L{layer}.mlp_in", f"L{layer}.mlp_out", D, D, n, activation=ReLU(), l0_target=9.0
        )
        made.append(Dictionary(config, {k: v.detach() for k, v in tensors.items()}).double())
    return model, made
