"""SAELens 6: cfg.json and sae_weights.safetensors.

    sae_in = x - b_dec * apply_b_dec_to_input (SAEs);  pre = sae_in @ W_enc + b_enc
    y = f @ W_dec + b_dec [+ x @ W_skip.T]             # W_skip is (d_out, d_in)

Read: standard, jumprelu (BatchTopK and Matryoshka are saved as it), topk, gated; transcoder, skip_transcoder,
jumprelu_transcoder, jumprelu_skip_transcoder. Written without centring, so lossless.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from diascope.dictionaries.activations import JumpReLU, ReLU, TopK
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats.format import (
    Fidelity,
    Format,
    Hints,
    gated,
    matrix,
    need,
    single_site,
    without_centring,
    zero_threshold,
)
from diascope.storage.files import read_json, write_json

ARCHITECTURES = (
    "standard", "jumprelu", "topk", "gated", "transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder",
)  # fmt: skip


def detect(path: Path) -> bool:
    return (path / "cfg.json").is_file() and (path / "sae_weights.safetensors").is_file()


def load(path: Path, hints: Hints) -> Dictionary:
    cfg, file = read_json(path / "cfg.json"), path / "sae_weights.safetensors"
    kind = cfg.get("architecture", "standard")
    if kind not in ARCHITECTURES:
        raise ValueError(f"{path} has architecture {kind!r}: {', '.join(ARCHITECTURES)} are read")
    if (norm := cfg.get("normalize_activations") or "none") != "none":
        raise ValueError(f"{path} normalises its input when it runs ({norm}): fold that with SAELens and save it again")
    if cfg.get("finetuning_scaling_factor"):
        raise ValueError(f"{path} scales its latents by a fine-tuned factor: fold that with SAELens and save it again")
    theirs = load_file(file)
    need(theirs, ("W_enc", "W_dec", "b_dec"), file)
    tensors: dict[str, Tensor] = {name: theirs[name].float() for name in ("W_enc", "W_dec", "b_dec")}
    matrix(tensors["W_enc"], file, "W_enc")
    tensors |= _encoder(kind, cfg, theirs, tensors, file)
    transcoder = "transcoder" in kind
    if not transcoder and cfg.get("apply_b_dec_to_input", True):
        tensors["b_enc"] = without_centring(tensors["b_enc"], tensors["W_enc"], tensors["b_dec"])
    if "skip" in kind:
        need(theirs, ("W_skip",), file)
        tensors["W_skip"] = theirs["W_skip"].float().t().contiguous()
    return _built(path, cfg, kind, tensors, hints)


def _encoder(
    kind: str, cfg: dict[str, Any], theirs: dict[str, Tensor], ours: dict[str, Tensor], file: Path
) -> dict[str, Tensor]:
    if kind == "gated":
        need(theirs, ("b_gate", "r_mag", "b_mag"), file)
        return gated(theirs["W_enc"], theirs["b_gate"], theirs["r_mag"], theirs["b_mag"])
    need(theirs, ("b_enc",), file)
    threshold = zero_threshold(len(theirs["b_enc"]))
    if kind.startswith("jumprelu"):
        need(theirs, ("threshold",), file)
        threshold = theirs["threshold"].float()
    found = {"b_enc": theirs["b_enc"].float(), "threshold": threshold}
    if kind == "topk" and cfg.get("rescale_acts_by_decoder_norm"):
        n = ours["W_dec"].double().norm(dim=1)
        found |= {
            "W_enc": (ours["W_enc"].double() * n).float(),
            "b_enc": (theirs["b_enc"].double() * n).float(),
            "W_dec": (ours["W_dec"].double() / n[:, None]).float(),
        }
    return found


def _built(path: Path, cfg: dict[str, Any], kind: str, tensors: dict[str, Tensor], hints: Hints) -> Dictionary:
    meta = cfg.get("metadata") or {}
    hook_in = meta.get("hook_name") or cfg.get("hook_name")
    hook_out = meta.get("hook_name_out") or cfg.get("hook_name_out") if "transcoder" in kind else hook_in
    found = ((hook_in,), (hook_out,)) if hook_in and hook_out else None
    read, written = hints.sites(found, path)
    model = hints.model or meta.get("model_name") or cfg.get("model_name") or ""
    (d_in, d_sae), d_out = tensors["W_enc"].shape, tensors["W_dec"].shape[1]
    if kind == "topk":
        k = cfg.get("k") or (cfg.get("activation_fn_kwargs") or {}).get("k")  # before SAELens 6 it stood there
        if not isinstance(k, int):
            raise ValueError(f"{path}/cfg.json does not say k")
    plain = ReLU() if kind in ("standard", "transcoder", "skip_transcoder") else JumpReLU()
    activation = TopK(k) if kind == "topk" else plain
    config = DictionaryConfig.single(
        model, read[0], written[0], d_in, d_out, d_sae, activation=activation, skip="W_skip" in tensors
    )
    return Dictionary(config, tensors)


def save(dictionary: Dictionary, folder: Path) -> None:
    c = dictionary.config
    tensors = {name: t.cpu() for name, t in dictionary.tensors().items()}
    jump = isinstance(c.activation, JumpReLU)
    if not jump:
        del tensors["threshold"]
    if c.skip:
        tensors["W_skip"] = tensors["W_skip"].t()
    kind = "jumprelu" if jump else "topk" if isinstance(c.activation, TopK) else "standard"
    if c.kind == "transcoder":
        kind = ("jumprelu_" if jump else "") + ("skip_" if c.skip else "") + "transcoder"
    cfg: dict[str, Any] = {
        "architecture": kind,
        "d_in": c.d_in,
        "d_sae": c.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if dictionary.site_in.kind == "attn_out" else "none",
        "metadata": {
            "model_name": c.model,
            "hook_name": dictionary.site_in.transformer_lens(),
            "sae_lens_training_version": None,
        },
    }
    if c.kind == "transcoder":
        cfg |= {"d_out": c.d_out}
        cfg["metadata"]["hook_name_out"] = dictionary.site_out.transformer_lens()
    if isinstance(c.activation, TopK):
        cfg |= {"k": c.activation.k, "rescale_acts_by_decoder_norm": False}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "sae_weights.safetensors")
    write_json(folder / "cfg.json", cfg)


def refuses(dictionary: Dictionary) -> str:
    c = dictionary.config
    if isinstance(c.activation, TopK) and c.kind == "transcoder":
        return "it has no TopK transcoder"
    return single_site(dictionary)


FORMAT = Format(
    "saelens", "SAELens 6", detect, load, save, refuses,
    lambda d: Fidelity("lossless", leaves="nesting, card and provenance"),
)  # fmt: skip
