"""Our own artefact (docs/protocol.md, section 2): config, weights, probe, provenance and card, with hashes.

config.json           DictionaryConfig
weights.safetensors   the tensors of `tensor_shapes`, float32
probe.safetensors     x [n, d_in], latents [n, d_sae], y_hat [n, d_out]: computed in float64 by the training module
                      before folding, so that a wrong fold, orientation or activation cannot go unseen
provenance.json       hashes of model, data, recipe and code;  card.json  evaluation
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from diascope.config import from_data, to_data
from diascope.dictionaries.dictionary import Dictionary, DictionaryConfig
from diascope.dictionaries.formats.format import Fidelity, Format, Hints
from diascope.storage.files import read_json, sha256_file, write_json
from diascope.storage.seals import SEAL

VERSION = "diascope-dictionary-2"


def detect(path: Path) -> bool:
    return (path / "config.json").is_file() and "format" in read_json(path / "config.json")


def load(path: Path, hints: Hints) -> Dictionary:
    config = read_json(path / "config.json")
    if config["format"] != VERSION:
        raise ValueError(f"{path} has format {config['format']!r}, this version reads {VERSION}: export it again")
    for name, expected in config["sha256"].items():
        if not (path / name).exists():
            raise ValueError(f"{path} lacks {name}: the folder is incomplete")
        if not hints.lazy and not (path / SEAL).exists() and sha256_file(path / name) != expected:
            raise ValueError(f"{path / name} does not have the hash in config.json: the file is damaged or was changed")
    dictionary = Dictionary(from_data(DictionaryConfig, config["dictionary"]), load_file(path / "weights.safetensors"))
    dictionary.provenance, dictionary.card = read_json(path / "provenance.json"), read_json(path / "card.json")
    for name, data in (("provenance.json", dictionary.provenance), ("card.json", dictionary.card)):
        if not isinstance(data, dict):
            raise ValueError(f"{path / name} is no JSON object: write {{}} there, or export it again")
    return dictionary


def save(dictionary: Dictionary, folder: Path) -> None:
    tensors = {name: tensor.cpu().contiguous() for name, tensor in dictionary.tensors().items()}
    save_file(tensors, folder / "weights.safetensors")
    hashes = {f.name: sha256_file(f) for f in sorted(folder.glob("*.safetensors"))}
    write_json(folder / "config.json", {"format": VERSION, "sha256": hashes, "dictionary": to_data(dictionary.config)})
    write_json(folder / "provenance.json", dictionary.provenance)
    write_json(folder / "card.json", dictionary.card)


FORMAT = Format(
    "diascope",
    "diascope",
    detect,
    load,
    save,
    lambda d: "",
    lambda d: Fidelity("lossless"),
)
