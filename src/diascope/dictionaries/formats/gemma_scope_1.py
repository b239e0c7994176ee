"""Gemma Scope 1: one params.npz with W_enc (d_in, F), W_dec (F, d_out), b_enc, b_dec, threshold, and no config.

The layer is in the path (layer_20/width_16k/average_l0_71/params.npz); which site, the repository's name says, so `sites`
must be given when loading. JumpReLU without centring, as ours: lossless.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from diascope.dictionaries.activations import JumpReLU, ReLU
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats.format import Fidelity, Format, Hints, matrix, need, single_site

NAMES = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")


def detect(path: Path) -> bool:
    return _file(path).is_file()


def _file(path: Path) -> Path:
    return path if path.suffix == ".npz" else path / "params.npz"


def load(path: Path, hints: Hints) -> Dictionary:
    file = _file(path)
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is no npz archive: the download is incomplete, or it is something else (a pickle?)")
    with np.load(file, allow_pickle=False) as arrays:
        tensors = {name: torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in arrays.files if name in NAMES}
    need(tensors, NAMES, file)
    read, written = hints.sites(None, file)
    (d_in, d_sae), d_out = matrix(tensors["W_enc"], file, "W_enc").shape, tensors["W_dec"].shape[1]
    model = hints.model or "google/gemma-2-2b"
    config = DictionaryConfig.single(model, read[0], written[0], d_in, d_out, d_sae, activation=JumpReLU())
    return Dictionary(config, tensors)


def save(dictionary: Dictionary, folder: Path) -> None:
    arrays = {name: tensor.cpu().numpy() for name, tensor in dictionary.tensors().items()}
    np.savez(folder / "params.npz", **arrays)  # type: ignore[arg-type]


def refuses(dictionary: Dictionary) -> str:
    if not isinstance(dictionary.config.activation, JumpReLU | ReLU):
        return f"it holds JumpReLU, not {type(dictionary.config.activation).__name__}"
    return single_site(dictionary) or ("it has no skip" if dictionary.config.skip else "")


FORMAT = Format(
    "gemma-scope-1", "Gemma Scope 1 (2024)", detect, load, save, refuses,
    lambda d: Fidelity("lossless", leaves="sites, model, nesting, card and provenance"),
)  # fmt: skip
