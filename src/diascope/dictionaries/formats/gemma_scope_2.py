"""Gemma Scope 2's single-layer folders: config.json with eight keys and params.safetensors in float32.

    pre = x @ w_enc + b_enc;  f = relu(pre) * (pre > threshold);  y = f @ w_dec + b_dec [+ x @ affine_skip_connection]

Nothing is transposed and b_dec is not subtracted from the input: our tensors map one to one, so both directions are
lossless for JumpReLU dictionaries. Others are refused, because the layout cannot say what they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from diascope.dictionaries.activations import JumpReLU
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.sites import Site
from diascope.storage.files import commit_folder, write_json

NAMES = {
    "W_enc": "w_enc",
    "W_dec": "w_dec",
    "b_enc": "b_enc",
    "b_dec": "b_dec",
    "threshold": "threshold",
    "W_skip": "affine_skip_connection",
}


def load(folder: Path, config: dict[str, Any]) -> Dictionary:
    """The dictionary in a Gemma Scope 2 folder; only the weights are read, never the examples."""
    if config.get("type") not in ("sae", "transcoder"):
        raise ValueError(f"{folder} holds a {config.get('type')!r}: this version reads sae and transcoder folders")
    missing = [key for key in ("model_name", "hf_hook_point_out") if key not in config]
    if missing:
        raise ValueError(f"{folder}/config.json lacks {', '.join(missing)}")
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise ValueError(f"{folder} has architecture {config['architecture']!r}: Gemma Scope 2 folders hold jump_relu")
    path = folder / "params.safetensors"
    if not path.exists():
        raise ValueError(f"{folder} lacks params.safetensors: the download is incomplete")
    theirs = load_file(path)
    tensors = {ours: theirs[name] for ours, name in NAMES.items() if name in theirs}
    missing = [name for ours, name in NAMES.items() if ours not in tensors and ours != "W_skip"]
    if missing:
        raise ValueError(f"{path} lacks the tensors {', '.join(missing)}")
    if config.get("affine_connection") and "W_skip" not in tensors:
        raise ValueError(f"{path} lacks affine_skip_connection, which its config.json promises")
    if tensors["W_enc"].ndim != 2 or tensors["W_dec"].ndim != 2:
        raise ValueError(f"{path}: w_enc and w_dec must have two dimensions")
    d_in, d_sae = tensors["W_enc"].shape
    ours = DictionaryConfig(
        kind=config["type"],
        model=config["model_name"],
        site_in=str(Site.parse(config["hf_hook_point_in"])),
        site_out=str(Site.parse(config["hf_hook_point_out"])),
        d_in=d_in,
        d_out=tensors["W_dec"].shape[1],
        d_sae=d_sae,
        activation=JumpReLU(),
        skip="W_skip" in tensors,
        l0_target=config.get("l0"),
    )
    return Dictionary(ours, tensors)


def save(dictionary: Dictionary, folder: Path, *, overwrite: bool = False) -> Path:
    """Write a Gemma Scope 2 folder (see `folder_name` for what SAELens needs the path to look like)."""
    c = dictionary.config
    if not isinstance(c.activation, JumpReLU):
        raise ValueError(f"Gemma Scope 2 folders hold JumpReLU dictionaries, not {type(c.activation).__name__}")
    tensors = {theirs: getattr(dictionary, ours) for ours, theirs in NAMES.items() if getattr(dictionary, ours) is not None}
    config = {
        "hf_hook_point_in": dictionary.site_in.gemma_scope(),
        "hf_hook_point_out": dictionary.site_out.gemma_scope(),
        "width": c.d_sae,
        "model_name": c.model,
        "architecture": "jump_relu",
        "l0": c.l0_target,
        "affine_connection": c.skip,
        "type": c.kind,
    }
    with commit_folder(folder, overwrite=overwrite) as work:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, work / "params.safetensors")
        write_json(work / "config.json", config)
    return folder


def folder_name(config: DictionaryConfig) -> str:
    """The release's relative folder, e.g. `resid_post/layer_12_width_16k_l0_medium`.

    SAELens takes kind and layer from this path, not from config.json.
    """
    site, l0 = Site.parse(config.site_out), config.l0_target or 60
    l0_name = "small" if l0 <= 20 else "medium" if l0 <= 60 else "big"
    kind = "transcoder" if config.kind == "transcoder" else site.kind
    width = f"{config.d_sae // 1024}k" if config.d_sae % 1024 == 0 else str(config.d_sae)
    return f"{kind}/layer_{site.layer}_width_{width}_l0_{l0_name}" + ("_affine" if config.skip else "")
