"""dictionary_learning: config.json ({"trainer": {"dict_class": ..., "lm_name", "layer", "submodule_name", ...}}) and ae.pt.

ae.pt is a pickle, the only one that is read or written here: by torch's restricted reader (weights_only), which takes tensors
and nothing that runs. SAEs only; weights of nn.Linear are transposed.

    AutoEncoder (ReLU), AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE, GatedAutoEncoder: pre = (x - b_dec) W + b
    JumpReluAutoEncoder, AutoEncoderNew: pre = x W + b.    BatchTopK's one threshold stands for all latents.

Written as JumpReluAutoEncoder (lossless), AutoEncoder or AutoEncoderTopK (b_enc takes the centring in).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diascope.dictionaries.activations import JumpReLU, Matryoshka, ReLU, TopK
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats.format import (
    Fidelity,
    Format,
    Hints,
    gated,
    matrix,
    need,
    with_centring,
    without_centring,
    zero_threshold,
)
from diascope.sites import Site
from diascope.storage.files import read_json, write_json

LINEAR = ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "GatedAutoEncoder", "AutoEncoderNew")
CLASSES = (*LINEAR, "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")
SUBMODULES = {"resid_post": "resid_post_layer_{0}", "attn_out": "attn_out_layer_{0}", "mlp_out": "mlp_out_layer_{0}"}


def detect(path: Path) -> bool:
    return (path / "ae.pt").is_file() and (path / "config.json").is_file()


def load(path: Path, hints: Hints) -> Dictionary:
    trainer = read_json(path / "config.json").get("trainer") or {}
    kind = trainer.get("dict_class")
    if kind not in CLASSES:
        raise ValueError(f"{path} holds a {kind!r}: {', '.join(CLASSES)} are read")
    theirs = _tensors(path / "ae.pt")
    W_enc, W_dec, b_dec = _weights(kind, theirs, path / "ae.pt")
    tensors = {"W_enc": W_enc, "W_dec": W_dec, "b_dec": b_dec} | _encoder(kind, theirs, W_enc, path / "ae.pt")
    if kind not in ("JumpReluAutoEncoder", "AutoEncoderNew"):
        tensors["b_enc"] = without_centring(tensors["b_enc"], tensors["W_enc"], b_dec)
    read, written = hints.sites(_sites(trainer), path)
    k = int(theirs["k"] if "k" in theirs else trainer.get("k") or 0)
    activation: Any = JumpReLU()
    if kind == "AutoEncoderTopK":
        activation = TopK(k)
    elif kind in ("AutoEncoder", "AutoEncoderNew"):
        activation = ReLU()
    nesting = None
    if "group_sizes" in theirs:
        ends = tuple(int(n) for n in theirs["group_sizes"].cumsum(0))
        nesting = Matryoshka(ends, (1.0,) * len(ends))
    (d_in, d_sae), d_out = W_enc.shape, W_dec.shape[1]
    config = DictionaryConfig.single(
        hints.model or trainer.get("lm_name") or "", read[0], written[0], d_in, d_out, d_sae,
        activation=activation, matryoshka=nesting, l0_target=float(k) if k else None,
    )  # fmt: skip
    return Dictionary(config, tensors)


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is no plain archive of tensors, so it is not opened (pickles can run code)") from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{file} holds something else than named tensors")
    return found


def _weights(kind: str, theirs: dict[str, Tensor], file: Path) -> tuple[Tensor, Tensor, Tensor]:
    if kind not in LINEAR:
        need(theirs, ("W_enc", "W_dec", "b_dec"), file)
        return matrix(theirs["W_enc"], file, "W_enc"), matrix(theirs["W_dec"], file, "W_dec"), theirs["b_dec"].float()
    bias = {"AutoEncoder": "bias", "GatedAutoEncoder": "decoder_bias", "AutoEncoderNew": "decoder.bias"}.get(kind, "b_dec")
    need(theirs, ("encoder.weight", "decoder.weight", bias), file)
    W_enc, W_dec = (matrix(theirs[f"{name}.weight"], file, name).t().contiguous() for name in ("encoder", "decoder"))
    return W_enc, W_dec, theirs[bias].float()


def _encoder(kind: str, theirs: dict[str, Tensor], W_enc: Tensor, file: Path) -> dict[str, Tensor]:
    if kind == "GatedAutoEncoder":
        need(theirs, ("r_mag", "gate_bias", "mag_bias"), file)
        return gated(W_enc, theirs["gate_bias"], theirs["r_mag"], theirs["mag_bias"])
    name = "encoder.bias" if kind in LINEAR else "b_enc"
    need(theirs, (name,), file)
    b_enc, threshold = theirs[name].float(), zero_threshold(W_enc.shape[1])
    if kind not in ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK"):
        need(theirs, ("threshold",), file)
        threshold = theirs["threshold"].float().expand(W_enc.shape[1]).clamp_min(0)  # below 0: never set by training
    return {"b_enc": b_enc, "threshold": threshold}


def _sites(trainer: dict[str, Any]) -> tuple[tuple[str], tuple[str]] | None:
    name, layer = str(trainer.get("submodule_name") or ""), trainer.get("layer")
    for kind in SUBMODULES:
        if name.startswith(kind) and isinstance(layer, int):
            site = str(Site(layer, kind))
            return (site,), (site,)
    return None


def save(dictionary: Dictionary, folder: Path) -> None:
    c, t = dictionary.config, {name: tensor.cpu() for name, tensor in dictionary.tensors().items()}
    if isinstance(c.activation, JumpReLU):
        kind, theirs = "JumpReluAutoEncoder", dict(t)
    else:
        b_enc = with_centring(t["b_enc"], t["W_enc"], t["b_dec"])
        theirs = {"encoder.weight": t["W_enc"].t(), "encoder.bias": b_enc, "decoder.weight": t["W_dec"].t()}
        kind = "AutoEncoderTopK" if isinstance(c.activation, TopK) else "AutoEncoder"
        theirs |= {"bias": t["b_dec"]} if kind == "AutoEncoder" else {"b_dec": t["b_dec"], "threshold": torch.tensor(-1.0)}
    trainer: dict[str, Any] = {
        "dict_class": kind, "activation_dim": c.d_in, "dict_size": c.d_sae, "lm_name": c.model, "layer": dictionary.site_in.layer,
        "submodule_name": SUBMODULES[dictionary.site_in.kind].format(dictionary.site_in.layer),
    }  # fmt: skip
    if isinstance(c.activation, TopK):
        theirs["k"], trainer["k"] = torch.tensor(c.activation.k, dtype=torch.int), c.activation.k
    torch.save({k: v.contiguous() for k, v in theirs.items()}, folder / "ae.pt")
    write_json(folder / "config.json", {"trainer": trainer})


def refuses(dictionary: Dictionary) -> str:
    if dictionary.config.kind == "sae" and dictionary.site_in.kind not in SUBMODULES:
        return f"it has no name for {dictionary.site_in}"
    return "" if dictionary.config.kind == "sae" else "it has SAEs only"


def fidelity(dictionary: Dictionary) -> Fidelity:
    leaves = "nesting, card and provenance"
    return Fidelity("lossless" if isinstance(dictionary.config.activation, JumpReLU) else "folded-exact", leaves=leaves)


FORMAT = Format(
    "dictionary-learning", "dictionary_learning 0.1", detect, load, save, refuses, fidelity,
)  # fmt: skip
