"""circuit-tracer: transcoders for attribution graphs, with hook names in config.yaml.

Per layer, layer_{i}.safetensors: W_enc (F, d), W_dec (F, d), b_enc, b_dec, [activation_function.threshold], [W_skip (d_out, d_in)]
CLT, per layer i: W_enc_{i}.safetensors with W_enc_{i} (F, d), b_enc_{i}, b_dec_{i}, [threshold_{i}], and W_dec_{i}.safetensors
with W_dec_{i} (F, n - i, d)

    pre = x @ W_enc.T + b_enc;  relu or x * (x > threshold);  y = f @ W_dec + b_dec [+ x @ W_skip.T]

A folder of several layers is a set: load one by its file, folder/layer_3.safetensors. Saving a transcoder writes its layer's
file; the library wants layers 0 to n-1 in one folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from diascope.dictionaries.activations import JumpReLU, ReLU
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats.format import Fidelity, Format, Hints, matrix, need, zero_threshold
from diascope.dictionaries.site_maps import Causal

THRESHOLD = "activation_function.threshold"


def detect(path: Path) -> bool:
    if re.fullmatch(r"layer_\d+\.safetensors", path.name):
        return path.is_file()
    return bool(list(path.glob("layer_*.safetensors"))) or (path / "W_enc_0.safetensors").is_file()


def load(path: Path, hints: Hints) -> Dictionary:
    if path.is_file():
        return _load_layer(path, hints)
    if (path / "W_enc_0.safetensors").is_file():
        return _load_clt(path, hints)
    files = sorted(path.glob("layer_*.safetensors"), key=_number)
    if len(files) > 1:
        raise ValueError(f"{path} is a set of {len(files)} transcoders: load one by its file, such as {files[0]}")
    return _load_layer(files[0], hints)


def _number(path: Path) -> int:
    return int(re.findall(r"\d+", path.stem)[-1])


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.yaml"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file} is not valid YAML ({' '.join(str(error).split())[:120]}): write it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is no mapping of names to values")
    return found


def _hooks(config: dict[str, Any], layers: range) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    names = [config.get(f"feature_{end}_hook") for end in ("input", "output")]
    if not all(names):
        return None
    read, written = (tuple(f"blocks.{i}.{name}" for i in layers) for name in names)
    return read, written


def _tensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, "pt") as f:
        return {name: f.get_tensor(name) for name in f.keys()}


def _load_layer(file: Path, hints: Hints) -> Dictionary:
    config, theirs, layer = _config(file.parent), _tensors(file), _number(file)
    need(theirs, ("W_enc", "W_dec", "b_enc", "b_dec"), file)
    W_enc = matrix(theirs["W_enc"], file, "W_enc").t().contiguous()
    tensors = {name: theirs[name].float() for name in ("W_dec", "b_enc", "b_dec")} | {"W_enc": W_enc}
    tensors["threshold"] = theirs[THRESHOLD].float() if THRESHOLD in theirs else zero_threshold(W_enc.shape[1])
    if "W_skip" in theirs:
        tensors["W_skip"] = theirs["W_skip"].float().t().contiguous()
    read, written = hints.sites(_hooks(config, range(layer, layer + 1)), file)
    model = hints.model or config.get("model_name") or ""
    ours = DictionaryConfig.single(
        model, read[0], written[0], W_enc.shape[0], tensors["W_dec"].shape[1], W_enc.shape[1],
        activation=JumpReLU() if THRESHOLD in theirs else ReLU(), skip="W_skip" in tensors,
    )  # fmt: skip
    return Dictionary(ours, tensors)


def _load_clt(folder: Path, hints: Hints) -> Dictionary:
    config, n = _config(folder), len(list(folder.glob("W_enc_*.safetensors")))
    tensors: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {"b_enc": [], "b_dec": [], "threshold": []}
    with_threshold: list[bool] = []
    for i in range(n):
        files = [folder / f"W_{end}_{i}.safetensors" for end in ("enc", "dec")]
        if absent := [f.name for f in files if not f.is_file()]:
            raise ValueError(f"{folder} lacks {', '.join(absent)} of {n} layers: the download is incomplete")
        theirs = _tensors(files[0]) | _tensors(files[1])
        need(theirs, tuple(f"{name}_{i}" for name in ("W_enc", "W_dec", "b_enc", "b_dec")), files[0])
        W_enc, W_dec = matrix(theirs[f"W_enc_{i}"], files[0], f"W_enc_{i}"), theirs[f"W_dec_{i}"]
        if W_dec.ndim != 3 or W_dec.shape[1] != n - i:
            raise ValueError(f"{files[1]}: W_dec_{i} must be (latents, {n - i}, width) in a CLT of {n} layers")
        tensors |= {f"W_enc.{i}": W_enc.t().contiguous(), f"W_dec.{i}": W_dec.reshape(len(W_dec), -1)}
        for name in ("b_enc", "b_dec"):
            parts[name].append(theirs[f"{name}_{i}"].float())
        parts["threshold"].append(
            theirs[f"threshold_{i}"].float() if f"threshold_{i}" in theirs else zero_threshold(len(W_enc))
        )
        with_threshold.append(f"threshold_{i}" in theirs)
    if (jump := any(with_threshold)) and not all(with_threshold):
        lacking = ", ".join(str(i) for i, there in enumerate(with_threshold) if not there)
        raise ValueError(f"{folder} has thresholds in some layers, but none in layer {lacking}: fetch it again")
    tensors |= {name: torch.cat(found) for name, found in parts.items()}
    read, written = hints.sites(_hooks(config, range(n)), folder, several=True)
    widths = (len(tensors["W_enc.0"]),) * n, (tensors["b_dec"].shape[0] // n,) * n
    ours = DictionaryConfig(
        hints.model or config.get("model_name") or "", read, written, *widths, len(tensors["b_enc"]), Causal(),
        JumpReLU() if jump else ReLU(),
    )  # fmt: skip
    return Dictionary(ours, tensors)


def save(dictionary: Dictionary, folder: Path) -> None:
    c, jump = dictionary.config, isinstance(dictionary.config.activation, JumpReLU)
    if c.kind == "clt":
        for i, b in enumerate(dictionary.blocks):
            theirs = {
                f"W_enc_{i}": dictionary.encoders[i].t(),
                f"b_enc_{i}": dictionary.b_enc[b.latents],
                f"b_dec_{i}": dictionary.b_dec[b.skips],
            } | ({f"threshold_{i}": dictionary.threshold[b.latents].clamp_min(0)} if jump else {})
            _write(theirs, folder / f"W_enc_{i}.safetensors")
            W = dictionary.decoders[i]
            _write({f"W_dec_{i}": W.reshape(len(W), len(c.writes) - i, -1)}, folder / f"W_dec_{i}.safetensors")
    else:
        names = {"W_enc": dictionary.W_enc.t(), "W_dec": dictionary.W_dec, "b_enc": dictionary.b_enc, "b_dec": dictionary.b_dec}
        if jump:
            names[THRESHOLD] = dictionary.threshold.clamp_min(0)
        if dictionary.W_skip is not None:
            names["W_skip"] = dictionary.W_skip.t()
        _write(names, folder / f"layer_{dictionary.site_in.layer}.safetensors")
    hooks = [s.transformer_lens().split(".", 2)[2] for s in (c.reads[0], c.writes[0])]
    config = {
        "model_name": c.model,
        "model_kind": "cross_layer_transcoder" if c.kind == "clt" else "transcoder_set",
        "feature_input_hook": hooks[0],
        "feature_output_hook": hooks[1],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, file)


def refuses(dictionary: Dictionary) -> str:
    c = dictionary.config
    if c.kind not in ("transcoder", "clt"):
        return "it holds transcoders only"
    if not isinstance(c.activation, JumpReLU | ReLU):
        return f"it has ReLU and JumpReLU, not {type(c.activation).__name__}"
    if c.kind == "transcoder" and c.reads[0].layer != c.writes[0].layer:
        return f"it holds transcoders of one layer, and this reads {c.reads[0]} and writes {c.writes[0]}"
    if c.kind == "clt" and len({(r.layer - w.layer, r.kind, w.kind) for r, w in zip(c.reads, c.writes, strict=True)}) > 1:
        return "its CLTs read and write the same kind of site at every layer"
    if c.kind == "clt" and c.reads[0].layer != c.writes[0].layer:
        return "its CLTs write the layers that they read"
    if c.kind == "clt" and c.skip:
        return "its CLTs have no skip"
    if c.kind == "clt" and [s.layer for s in c.reads] != list(range(len(c.reads))):
        return "its CLTs cover all layers from 0 on"
    return ""


def fidelity(dictionary: Dictionary) -> Fidelity:
    return Fidelity(
        "lossless", leaves="L0 target, nesting, card and provenance; thresholds below 0 become 0, which is the same"
    )


FORMAT = Format(
    "circuit-tracer", "circuit-tracer 0.5", detect, load, save, refuses, fidelity,
)  # fmt: skip
