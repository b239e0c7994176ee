"""Gemma Scope 2's folders: config.json with eight keys and weights in float32.

One layer (sae, transcoder), params.safetensors:
    w_enc (d_in, F), w_dec (F, d_out), b_enc (F), b_dec (d_out), threshold (F) [, affine_skip_connection (d_in, d_out)]
Several (crosscoder, clt), params_layer_{i}.safetensors, i counting the sites, not the model's layers:
    the same, but w_dec (F, n, d): what site i's latents write to each of the n sites, zeros where the site comes earlier

    pre = x @ w_enc + b_enc;  f = relu(pre) * (pre > threshold);  y = f @ w_dec + b_dec [+ x @ affine_skip_connection]

Nothing is transposed and b_dec is not subtracted from the input: our tensors map one to one, so both directions are
lossless for JumpReLU dictionaries. Others are refused, because the layout cannot say what they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from diascope.dictionaries.activations import JumpReLU, ReLU
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats.format import Fidelity, Format, Hints
from diascope.dictionaries.site_maps import Causal, OneToOne
from diascope.sites import RELEASED, Site
from diascope.storage.files import read_json, write_json

NAMES = {
    "W_enc": "w_enc",
    "W_dec": "w_dec",
    "b_enc": "b_enc",
    "b_dec": "b_dec",
    "threshold": "threshold",
    "W_skip": "affine_skip_connection",
}


def detect(path: Path) -> bool:
    return (path / "config.json").is_file() and "hf_hook_point_in" in read_json(path / "config.json")


def load(folder: Path, hints: Hints) -> Dictionary:
    """The dictionary in a Gemma Scope 2 folder; only the weights are read, never the examples.

    The files are memory-mapped: what is never used is never read from disk, so a dictionary larger than memory opens.
    """
    config = read_json(folder / "config.json")
    missing = [key for key in ("type", "model_name", "hf_hook_point_in", "hf_hook_point_out") if key not in config]
    if missing:
        raise ValueError(f"{folder}/config.json lacks {', '.join(missing)}")
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise ValueError(f"{folder} has architecture {config['architecture']!r}: Gemma Scope 2 folders hold jump_relu")
    if config["type"] in ("sae", "transcoder"):
        return _load_single(folder, config)
    if config["type"] in ("crosscoder", "clt"):
        return _load_layers(folder, config)
    raise ValueError(f"{folder} holds a {config['type']!r}: Gemma Scope 2 has sae, transcoder, crosscoder and clt")


def _load_single(folder: Path, config: dict[str, Any]) -> Dictionary:
    path = folder / "params.safetensors"
    if not path.exists():
        raise ValueError(f"{folder} lacks params.safetensors: the download is incomplete")
    tensors = _tensors(path, config, decoder_dimensions=2)
    (d_in, d_sae), d_out = tensors["W_enc"].shape, tensors["W_dec"].shape[1]
    site_in, site_out = (config[f"hf_hook_point_{end}"] for end in ("in", "out"))
    ours = DictionaryConfig.single(config["model_name"], site_in, site_out, d_in, d_out, d_sae, **_choices(config, tensors))
    if ours.kind != config["type"]:
        raise ValueError(f"{folder}/config.json says {config['type']}, but its hook points make it a {ours.kind}")
    return Dictionary(ours, tensors)


def _load_layers(folder: Path, config: dict[str, Any]) -> Dictionary:
    reads, writes = (_hook_points(config[f"hf_hook_point_{end}"], folder) for end in ("in", "out"))
    n = len(reads)
    paths = [folder / f"params_layer_{i}.safetensors" for i in range(n)]
    if absent := [p.name for p in paths if not p.exists()]:
        raise ValueError(f"{folder} lacks {', '.join(absent)} of {n} layers: the download is incomplete")
    found = sorted(int(m[1]) for p in folder.iterdir() if (m := re.fullmatch(r"params_layer_(\d+)\.safetensors", p.name)))
    if found != list(range(n)):
        raise ValueError(f"{folder} holds layer files {found[0]} to {found[-1]}, but its hook points name {n} sites")
    layers = [_tensors(p, config, decoder_dimensions=3) for p in paths]
    tensors: dict[str, Tensor] = {k: torch.cat([t[k] for t in layers]) for k in ("b_enc", "threshold", "b_dec")}
    for i, (t, path) in enumerate(zip(layers, paths, strict=True)):
        F, sites, d = t["W_dec"].shape
        if sites != n:
            raise ValueError(f"{path}: w_dec writes {sites} sites, but the folder has {n}")
        if i and bool(t["W_dec"][:: max(1, F // 64), :i].any()):
            raise ValueError(f"{path}: w_dec writes to sites before its own, where the release has zeros")
        tensors[f"W_enc.{i}"] = t["W_enc"]
        tensors[f"W_dec.{i}"] = t["W_dec"][:, i:].view(F, (n - i) * d)  # a view: rows stay where they are on disk
        if "W_skip" in t:
            tensors[f"W_skip.{i}"] = t["W_skip"]
    if len({"W_skip" in t for t in layers}) > 1:
        raise ValueError(f"{folder} has an affine skip in some layers and none in others: fetch it again")
    read, written = tuple(t["W_enc"].shape[0] for t in layers), tuple(t["W_dec"].shape[2] for t in layers)
    d_sae = sum(len(t["b_enc"]) for t in layers)
    choices = _choices(config, layers[0])
    ours = DictionaryConfig(config["model_name"], reads, writes, read, written, d_sae, Causal(), **choices)
    return Dictionary(ours, tensors)


def _hook_points(names: Any, folder: Path) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise ValueError(f"{folder}/config.json: a dictionary of several layers lists its hook points, got {names!r}")
    sites = tuple(Site.parse(n) for n in names)
    if list(sites) != sorted(sites, key=lambda s: s.layer):  # as numbers: layer 10 comes after layer 2
        raise ValueError(f"{folder}/config.json lists its hook points out of order")
    return tuple(map(str, sites))


def _tensors(path: Path, config: dict[str, Any], decoder_dimensions: int) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        present = set(file.keys())
        tensors = {ours: file.get_tensor(name) for ours, name in NAMES.items() if name in present}
    missing = [name for ours, name in NAMES.items() if ours not in tensors and ours != "W_skip"]
    if missing:
        raise ValueError(f"{path} lacks the tensors {', '.join(missing)}")
    if config.get("affine_connection") and "W_skip" not in tensors:
        raise ValueError(f"{path} lacks affine_skip_connection, which its config.json promises")
    if tensors["W_enc"].ndim != 2 or tensors["W_dec"].ndim != decoder_dimensions:
        raise ValueError(f"{path}: w_enc must have 2 dimensions and w_dec {decoder_dimensions}")
    return tensors


def _choices(config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {"activation": JumpReLU(), "skip": "W_skip" in tensors, "l0_target": config.get("l0")}


def save(dictionary: Dictionary, folder: Path) -> None:
    """Write the files (see `folder_name` for what SAELens needs the path to look like)."""
    c = dictionary.config
    single = isinstance(c.map, OneToOne)
    hooks = [[s.gemma_scope() for s in sites] for sites in (c.reads, c.writes)]
    config = {
        "hf_hook_point_in": hooks[0][0] if single else hooks[0],
        "hf_hook_point_out": hooks[1][0] if single else hooks[1],
        "width": c.d_sae,
        "model_name": c.model,
        "architecture": "jump_relu",
        "l0": c.l0_target,
        "affine_connection": c.skip,
        "type": c.kind,
    }
    for g, b in enumerate(dictionary.blocks):
        ours = {
            "W_enc": dictionary.encoders[g],
            "W_dec": dictionary.decoders[g] if single else _all_sites(dictionary, g),
            "b_enc": dictionary.b_enc[b.latents],
            "threshold": dictionary.threshold[b.latents],
            "b_dec": dictionary.b_dec if single else dictionary.b_dec[b.skips],
        } | ({"W_skip": dictionary.skips[g]} if c.skip else {})
        tensors = {NAMES[k]: v.detach().cpu().contiguous() for k, v in ours.items()}
        save_file(tensors, folder / ("params.safetensors" if single else f"params_layer_{g}.safetensors"))
    write_json(folder / "config.json", config)


def refuses(dictionary: Dictionary) -> str:
    c = dictionary.config
    if not isinstance(c.activation, JumpReLU | ReLU):
        return f"it holds JumpReLU, not {type(c.activation).__name__}"
    if not isinstance(c.map, OneToOne | Causal):
        return "its crosscoders are causal, a block a site: a joint crosscoder has no place there"
    if any(s.model for s in (*c.reads, *c.writes)):
        return "it has one model, and these sites name theirs"
    if other := sorted({str(s) for s in (*c.reads, *c.writes) if s.kind not in RELEASED}):
        return f"it has no dictionaries at {other[0]}"
    if not isinstance(c.map, OneToOne) and len(set(c.widths_out)) != 1:
        return f"it needs one width at all sites, got {sorted(set(c.widths_out))}"
    return ""


def _all_sites(dictionary: Dictionary, g: int) -> Tensor:
    """Block g's decoder as (F, n, d), zeros for the sites before its own."""
    widths = dictionary.config.widths_out
    W = dictionary.decoders[g]
    return torch.cat([W.new_zeros(len(W), g * widths[0]), W], 1).view(len(W), len(widths), widths[0])


def width_name(latents: int) -> str:
    """The release's short name of a width: 16k, 65k, 262k (also a CLT's 262,080), 524k, 1m; thousands of 1,024 elsewhere."""
    known = {65_536: "65k", 262_144: "262k", 262_080: "262k", 524_288: "524k", 524_160: "524k", 1_048_576: "1m"}
    return known.get(latents) or (f"{latents // 1024}k" if latents % 1024 == 0 else str(latents))


def folder_name(config: DictionaryConfig) -> str:
    """The release's relative folder, e.g. `resid_post/layer_12_width_16k_l0_medium`.

    SAELens takes kind and layer from this path, not from config.json.
    """
    sites, l0 = config.writes, config.l0_target or 60
    several = config.kind in ("crosscoder", "clt")
    bounds = (50, 50) if several else (20, 60)  # several layers: medium 50 and big 150 over all of them together
    l0_name = "small" if l0 <= bounds[0] and not several else "medium" if l0 <= bounds[1] else "big"
    width = width_name(config.d_sae)
    affine = "_affine" if config.skip else ""
    if config.kind == "clt":
        return f"clt/width_{width}_l0_{l0_name}{affine}"
    kind = sites[0].kind if config.kind == "sae" else config.kind
    layers = "_".join(str(s.layer) for s in sites)
    return f"{kind}/layer_{layers}_width_{width}_l0_{l0_name}{affine}"


FORMAT = Format(
    "gemma-scope-2", "Gemma Scope 2", detect, load, save, refuses,
    lambda d: Fidelity("lossless", leaves="nesting, card and provenance"),
)  # fmt: skip
