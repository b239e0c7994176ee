"""llamascopium 2 (OpenMOSS): config.json and sae_weights.safetensors; SAEs, transcoders and CLTs.

    pre = x W_E + b_E;  active where pre * |W_D| > exp(log threshold) (sparsity_include_decoder_norm; else where pre > it)
    y = f W_D + b_D            CLT: W_D.{j} (j + 1, F, d) is what layers 0..j write to layer j

Inputs in training are divided to a norm of sqrt(d_model); "dataset-wise" keeps that outside the weights and is folded here
(thresholds too), "inference" has it folded. Thresholds are stored as logarithms: lossy, by rounding alone. One width.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diascope.dictionaries.activations import JumpReLU, ReLU, TopK
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats.format import Fidelity, Format, Hints, need
from diascope.dictionaries.site_maps import Causal, OneToOne
from diascope.storage.files import read_json, write_json

LOG = "activation_function.log_jumprelu_threshold"


def detect(path: Path) -> bool:
    file = path / "config.json"
    return file.is_file() and (path / "sae_weights.safetensors").is_file() and "sae_type" in read_json(file)


def load(path: Path, hints: Hints) -> Dictionary:
    config, file = read_json(path / "config.json"), path / "sae_weights.safetensors"
    kind, act = config["sae_type"], config.get("act_fn", "relu")
    if kind not in ("sae", "clt"):
        reason = ": it gates each site by that site's decoder norm, so one latent is several" if kind == "crosscoder" else ""
        raise ValueError(f"{path} is of type {kind!r}{reason}; sae and clt are read")
    if act not in ("relu", "jumprelu", "topk") or config.get("use_glu_encoder"):
        raise ValueError(f"{path} has activation {act!r}{' with a GLU encoder' if config.get('use_glu_encoder') else ''}: relu, "
                         "jumprelu and topk are read (convert batchtopk to jumprelu with llamascopium first)")  # fmt: skip
    norm = config.get("norm_activation", "dataset-wise")
    if norm not in ("dataset-wise", "inference"):
        raise ValueError(f"{path} normalises its input {norm} when it runs: that has no place in weights")
    theirs = load_file(file)
    hooks = [config[f"hook_point{'s' if kind == 'clt' else ''}_{end}"] for end in ("in", "out")]
    names = [h if isinstance(h, list) else [h] for h in hooks]
    layers = _layers(theirs, kind, len(names[0]), file)
    factors = [[_factor(theirs, h, config, norm, file) for h in end] for end in names]
    read, written = hints.sites((tuple(names[0]), tuple(names[1])), path, several=kind == "clt")
    return _built(config, layers, factors, (read, written), hints.model or "")


def _factor(theirs: dict[str, Tensor], hook: str, config: dict[str, Any], norm: str, file: Path) -> float:
    if norm == "inference":
        return 1.0
    need(theirs, (f"dataset_average_activation_norm.{hook}",), file)
    return math.sqrt(config["d_model"]) / float(theirs[f"dataset_average_activation_norm.{hook}"])


def _layers(theirs: dict[str, Tensor], kind: str, n: int, file: Path) -> list[dict[str, Tensor]]:
    """Per input site: W_E (d, F), b_E, rows (F, n - i, d) of what it writes, b_D of its own site, log thresholds."""
    if kind == "sae":
        need(theirs, ("W_E", "b_E", "W_D"), file)
        b_D = theirs.get("b_D", torch.zeros(theirs["W_D"].shape[1]))
        return [{"W_E": theirs["W_E"], "b_E": theirs["b_E"], "rows": theirs["W_D"][:, None], "b_D": b_D}
                | ({LOG: theirs[LOG]} if LOG in theirs else {})]  # fmt: skip
    need(theirs, ("W_E", "b_E", *(f"W_D.{j}" for j in range(n))), file)
    out = []
    for i in range(n):
        rows = torch.stack([theirs[f"W_D.{j}"][i] for j in range(i, n)], 1)
        b_D = theirs.get(f"b_D.{i}", torch.zeros(rows.shape[2]))
        out.append({"W_E": theirs["W_E"][i], "b_E": theirs["b_E"][i], "rows": rows, "b_D": b_D}
                   | ({LOG: theirs[LOG][i]} if LOG in theirs else {}))  # fmt: skip
    return out


def _built(
    config: dict[str, Any], layers: list[dict[str, Tensor]], factors: list[list[float]], sites: tuple[Any, Any], model: str
) -> Dictionary:
    n, act, tensors = len(layers), config.get("act_fn", "relu"), {}
    parts: dict[str, list[Tensor]] = {"b_enc": [], "b_dec": [], "threshold": []}
    for i, layer in enumerate(layers):
        rows, into = layer["rows"].double(), factors[0][i]
        norm = rows.flatten(1).norm(dim=1)  # of all that a latent writes
        threshold = layer[LOG].double().reshape(-1).exp() if act == "jumprelu" else torch.zeros(len(rows), dtype=torch.float64)
        if config.get("sparsity_include_decoder_norm", True):
            threshold = threshold / norm.clamp_min(1e-30)
        out = torch.tensor(factors[1][i:], dtype=torch.float64)
        rows = rows * into / out[None, :, None]
        # their latents are x W_E + b_E with x scaled; ours divide by the input's factor, as their own folding does
        suffix = f".{i}" if config["sae_type"] == "clt" else ""
        tensors |= {f"W_enc{suffix}": layer["W_E"].float(), f"W_dec{suffix}": rows.float().reshape(len(rows), -1)}
        parts["b_enc"].append((layer["b_E"].double() / into).float())
        parts["b_dec"].append((layer["b_D"].double() / factors[1][i]).float())
        parts["threshold"].append((threshold / into).float())
    tensors |= {name: torch.cat(found) for name, found in parts.items()}
    d = (config["d_model"],) * n
    k = int(config.get("top_k", 50))
    if act == "topk" and config.get("sparsity_include_decoder_norm", True):
        raise ValueError("this TopK ranks latents by activation times decoder norm: fold decoder norms with llamascopium first")
    activation = TopK(k) if act == "topk" else JumpReLU() if act == "jumprelu" else ReLU()
    site_map = Causal() if config["sae_type"] == "clt" else OneToOne()
    return Dictionary(DictionaryConfig(model, *sites, d, d, len(tensors["b_enc"]), site_map, activation), tensors)


def save(dictionary: Dictionary, folder: Path) -> None:
    c, clt = dictionary.config, dictionary.config.kind == "clt"
    act = {JumpReLU: "jumprelu", ReLU: "relu", TopK: "topk"}[type(c.activation)]
    n, d = len(c.reads), c.widths_in[0]
    per = c.d_sae // n
    if clt:
        rows = [W.reshape(len(W), n - i, d) for i, W in enumerate(dictionary.decoders)]
        theirs = {"W_E": torch.stack(list(dictionary.encoders)), "b_E": dictionary.b_enc.view(n, per)}
        theirs |= {f"W_D.{j}": torch.stack([rows[i][:, j - i] for i in range(j + 1)]) for j in range(n)}
        theirs |= {f"b_D.{j}": dictionary.b_dec[b.skips] for j, b in enumerate(dictionary.blocks)}
    else:
        theirs = {"W_E": dictionary.W_enc, "b_E": dictionary.b_enc, "W_D": dictionary.W_dec, "b_D": dictionary.b_dec}
    if act == "jumprelu":
        log = dictionary.threshold.double().clamp_min(1e-30).log().float()
        theirs[LOG] = log.view(n, per) if clt else log
    hooks = [[s.transformer_lens() for s in sites] for sites in (c.reads, c.writes)]
    places = {f"hook_point{'s' if clt else ''}_{end}": h if clt else h[0] for end, h in zip(("in", "out"), hooks, strict=True)}
    theirs |= {f"dataset_average_activation_norm.{h}": torch.tensor(math.sqrt(d)) for end in hooks for h in end}
    config = {
        "sae_type": "clt" if clt else "sae", "d_model": d, "expansion_factor": per / d, "use_decoder_bias": True, "act_fn": act,
        "norm_activation": "inference", "sparsity_include_decoder_norm": False, "dtype": "torch.float32", **places,
        "top_k": c.activation.k if isinstance(c.activation, TopK) else 50,
    }  # fmt: skip
    save_file({k: v.detach().cpu().contiguous() for k, v in theirs.items()}, folder / "sae_weights.safetensors")
    write_json(folder / "config.json", config)


def refuses(dictionary: Dictionary) -> str:
    c = dictionary.config
    if c.kind == "crosscoder":
        return "its crosscoders gate each site by its own decoder norm, so ours are none"
    if c.skip:
        return "it has no affine skip"
    if len({*c.widths_in, *c.widths_out}) != 1:
        return "it has one width for all sites"
    if c.kind == "clt" and isinstance(c.activation, TopK):
        return "its TopK CLTs choose otherwise"
    return ""


def fidelity(dictionary: Dictionary) -> Fidelity:
    leaves = "model, nesting, card and provenance"
    if not isinstance(dictionary.config.activation, JumpReLU):
        return Fidelity("lossless", leaves=leaves)
    return Fidelity("lossy", "thresholds are stored as logarithms: off by 1e-5 relative at most", leaves)


FORMAT = Format(
    "llamascopium", "llamascopium 2", detect, load, save, refuses, fidelity,
)  # fmt: skip
