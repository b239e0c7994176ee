"""Read and write dictionaries as folders; the format is detected, probes are checked at load.

config.json           DictionaryConfig (docs/protocol.md, section 2)
weights.safetensors   W_enc, W_dec, b_enc, b_dec, threshold [, W_skip], float32
probe.safetensors     x [n, d_in], latents [n, d_sae], y_hat [n, d_out]: computed in float64 by the training module
                      before folding, so that a wrong fold, orientation or activation cannot go unseen
provenance.json       hashes of model, data, recipe and code;  card.json  evaluation
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diascope.config import from_data, to_data
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats import gemma_scope_2
from diascope.storage.files import commit_folder, read_json, reading, sha256_file, write_json

FORMAT = "diascope-dictionary-2"
TOLERANCE = 1e-4  # largest relative deviation of a probe in float32


def load_dictionary(path: str | Path, *, lazy: bool = False) -> Dictionary:
    """The dictionary in folder `path`: our own artefact or Gemma Scope 2's layout.

    With `lazy`, files are memory-mapped and only what is used is read: no hashes, probes or search for NaN. A dictionary
    larger than memory opens at once, and one latent's decoder costs one row.

    Raises ValueError when the folder is missing, damaged, of an unknown format, or disagrees with its own probes.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"there is no dictionary folder {folder}")
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} has no config.json: it is no dictionary (Gemma Scope 2 and diascope folders are read)")
    config = read_json(folder / "config.json")
    with reading(folder, "fetch or export it again"):
        dictionary = None
        if config.get("format") == FORMAT:
            dictionary = _load_own(folder, config, lazy)
        elif "hf_hook_point_in" in config:
            dictionary = gemma_scope_2.load(folder, config)
        if dictionary is not None:
            if not lazy:
                _check_finite(dictionary, folder)
            return dictionary
    raise ValueError(f"{folder}/config.json is of no known format: diascope and Gemma Scope 2 folders are read")


def _check_finite(dictionary: Dictionary, folder: Path) -> None:
    for name, tensor in dictionary.tensors().items():
        bad = torch.isnan(tensor) if name == "threshold" else ~torch.isfinite(tensor)  # an infinite threshold shuts a latent
        if bad.any():
            raise ValueError(f"{folder}: {int(bad.sum())} of {tensor.numel()} values of {name} are not finite")


def save_dictionary(
    dictionary: Dictionary,
    path: str | Path,
    *,
    format: str = "diascope",
    probe: dict[str, Tensor] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write `dictionary` to folder `path`, whole or not at all.

    format   "diascope" (our artefact) or "gemma-scope-2"
    probe    x, latents and y_hat computed before folding; without it the artefact carries no probe
    """
    if format == "gemma-scope-2":
        return gemma_scope_2.save(dictionary, Path(path), overwrite=overwrite)
    if format != "diascope":
        raise ValueError(f"unknown format {format!r}: diascope or gemma-scope-2")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in dictionary.tensors().items()}
    with commit_folder(path, overwrite=overwrite) as work:
        save_file(tensors, work / "weights.safetensors")
        if probe is not None:
            check_probe(dictionary, probe)
            save_file({k: v.float().contiguous() for k, v in probe.items()}, work / "probe.safetensors")
        hashes = {f.name: sha256_file(f) for f in sorted(work.glob("*.safetensors"))}
        write_json(work / "config.json", {"format": FORMAT, "sha256": hashes, "dictionary": to_data(dictionary.config)})
        write_json(work / "provenance.json", dictionary.provenance)
        write_json(work / "card.json", dictionary.card)
    return Path(path)


def _load_own(folder: Path, config: dict[str, Any], lazy: bool) -> Dictionary:
    for name, expected in config["sha256"].items():
        if not (folder / name).exists():
            raise ValueError(f"{folder} lacks {name}: the folder is incomplete")
        if not lazy and sha256_file(folder / name) != expected:
            raise ValueError(f"{folder / name} does not have the hash in config.json: the file is damaged or was changed")
    dictionary = Dictionary(from_data(DictionaryConfig, config["dictionary"]), load_file(folder / "weights.safetensors"))
    dictionary.provenance = read_json(folder / "provenance.json")
    dictionary.card = read_json(folder / "card.json")
    if not lazy and (folder / "probe.safetensors").exists():
        check_probe(dictionary, load_file(folder / "probe.safetensors"))
    return dictionary


def check_probe(dictionary: Dictionary, probe: dict[str, Tensor]) -> None:
    """Raise ValueError unless the dictionary gives the probe's latents and outputs to within TOLERANCE.

    A latent whose pre-activation lies within TOLERANCE of its threshold may fall on either side and is left out.
    """
    with torch.no_grad():
        x = probe["x"].float()
        pre = torch.cat([dictionary.pre_acts(x, g) for g in range(len(dictionary.blocks))], 1)
        close = (pre - dictionary.threshold).abs() <= TOLERANCE * pre.abs().amax(1, keepdim=True)
        error = {
            "latents": (dictionary.encode(x).dense() - probe["latents"]).abs().masked_fill(close, 0.0).max(),
            "y_hat": (dictionary(x) - probe["y_hat"]).norm() / (1 + float(close.any()) * 9),
        }
        scale = {"latents": probe["latents"].abs().max(), "y_hat": probe["y_hat"].norm()}
    for name, worst in error.items():
        if not worst <= TOLERANCE * scale[name]:
            raise ValueError(
                f"the dictionary disagrees with its own probe: {name} off by {float(worst / scale[name]):.1e} relative "
                "(wrong fold, orientation or activation?)"
            )
