"""sparsify (EleutherAI): cfg.json and sae.safetensors in a folder named after the hook point (layers.12, layers.12.mlp).

    pre = relu((x - b_dec) W^T + b) (SAE; transcoders do not subtract);  the k largest a row
    y = f W_dec + b_dec [+ x W_skip^T]           encoder.weight (F, d), W_dec (F, d), W_skip (d_out, d_in)

TopK only: others cannot be written. One width for input and output.
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors.torch import load_file, save_file

from diascope.dictionaries.activations import TopK
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats.format import (
    Fidelity,
    Format,
    Hints,
    matrix,
    need,
    single_site,
    with_centring,
    without_centring,
    zero_threshold,
)
from diascope.storage.files import read_json, write_json


def detect(path: Path) -> bool:
    return (path / "cfg.json").is_file() and (path / "sae.safetensors").is_file()


def load(path: Path, hints: Hints) -> Dictionary:
    cfg, file = read_json(path / "cfg.json"), path / "sae.safetensors"
    if (kind := cfg.get("activation", "topk")) != "topk":
        raise ValueError(f"{path} has activation {kind!r}: topk is read")
    theirs = load_file(file)
    need(theirs, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"), file)
    W_enc, b_dec = matrix(theirs["encoder.weight"], file, "encoder.weight").t().contiguous(), theirs["b_dec"].float()
    b_enc, transcoder = theirs["encoder.bias"].float(), bool(cfg.get("transcode"))
    tensors = {
        "W_enc": W_enc,
        "W_dec": matrix(theirs["W_dec"], file, "W_dec"),
        "b_enc": b_enc if transcoder else without_centring(b_enc, W_enc, b_dec),
        "b_dec": b_dec,
        "threshold": zero_threshold(W_enc.shape[1]),
    }
    if cfg.get("skip_connection"):
        need(theirs, ("W_skip",), file)
        tensors["W_skip"] = theirs["W_skip"].float().t().contiguous()
    read, written = hints.sites(_sites(path.name), path)
    k = int(cfg["k"])
    d_in, d_sae = W_enc.shape
    if not 0 < k <= d_sae:
        raise ValueError(f"{path}/cfg.json says k = {k}, and the file has {d_sae} latents: one of them is another dictionary's")
    config = DictionaryConfig.single(
        hints.model or "", read[0], written[0], d_in, tensors["W_dec"].shape[1], d_sae, activation=TopK(k),
        skip="W_skip" in tensors, l0_target=float(k),
    )  # fmt: skip
    return Dictionary(config, tensors)


def _sites(name: str) -> tuple[tuple[str], tuple[str]] | None:
    """The site of a block's folder. An MLP's own output is our mlp_out only where no norm follows it: that the caller says."""
    if m := re.fullmatch(r"(?:model\.|transformer\.|gpt_neox\.)?(?:layers|h)\.(\d+)", name):
        return (f"L{m[1]}.resid_post",), (f"L{m[1]}.resid_post",)
    return None


def save(dictionary: Dictionary, folder: Path) -> None:
    c, t = dictionary.config, {name: tensor.cpu() for name, tensor in dictionary.tensors().items()}
    transcoder = c.kind == "transcoder"
    theirs = {
        "encoder.weight": t["W_enc"].t(),
        "encoder.bias": t["b_enc"] if transcoder else with_centring(t["b_enc"], t["W_enc"], t["b_dec"]),
        "W_dec": t["W_dec"],
        "b_dec": t["b_dec"],
    }
    if c.skip:
        theirs["W_skip"] = t["W_skip"].t()
    save_file({k: v.contiguous() for k, v in theirs.items()}, folder / "sae.safetensors")
    cfg = {
        "activation": "topk", "expansion_factor": max(1, c.d_sae // c.d_in), "normalize_decoder": True, "num_latents": c.d_sae,
        "k": c.activation.k, "multi_topk": False, "skip_connection": c.skip, "transcode": transcoder, "d_in": c.d_in,  # type: ignore[union-attr]
    }  # fmt: skip
    write_json(folder / "cfg.json", cfg)


def refuses(dictionary: Dictionary) -> str:
    c = dictionary.config
    if not isinstance(c.activation, TopK):
        return f"it has TopK only, and this is {type(c.activation).__name__}"
    if c.d_in != c.d_out:
        return f"it has one width, and this reads {c.d_in} and writes {c.d_out}"
    return single_site(dictionary)


def fidelity(dictionary: Dictionary) -> Fidelity:
    leaves = "sites (the folder's name says them), model, nesting, card and provenance"
    return Fidelity("lossless" if dictionary.config.kind == "transcoder" else "folded-exact", leaves=leaves)


FORMAT = Format(
    "sparsify",
    "sparsify 1.3 (EleutherAI)",
    detect,
    load,
    save,
    refuses,
    fidelity,
)
