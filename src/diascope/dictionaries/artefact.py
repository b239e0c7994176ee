"""Read and write dictionaries in any format of the table; whatever the format, probes are checked at load.

Any folder may carry probe.safetensors: x [n, d_in] with the latents and the y_hat that it must give. Ours come from the
unfolded float64 training module, and every conversion takes them along.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diascope.dictionaries.activations import TopK
from diascope.dictionaries.dictionary import Dictionary
from diascope.dictionaries.formats import FORMATS, Format, Hints
from diascope.dictionaries.resolve import resolve
from diascope.storage.files import commit_file, commit_folder, reading, write_json
from diascope.storage.seals import check_seal, resealed, seal

PROBE = "probe.safetensors"
TOLERANCE = 1e-4  # largest relative deviation of a probe in float32


def format_of(path: str | Path) -> Format:
    """The format of what lies at `path`; ValueError where there is nothing, or nothing known."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no dictionary folder {path}")
    with reading(path, "fetch or export it again"):
        for f in FORMATS.values():
            if f.detect(path):
                return f
    raise ValueError(f"{path} is of no known format: {', '.join(FORMATS)} are read")


def load_dictionary(
    path: str | Path,
    *,
    lazy: bool = False,
    sites: str | tuple[str | Sequence[str], str | Sequence[str]] | None = None,
    model: str | None = None,
) -> Dictionary:
    """The dictionary at `path`; the format is detected.

    path    a folder (or a file, for formats of one file a layer), a hub path, a SAELens release and id, or a Neuronpedia id
            (resolve.py says how they are written)
    lazy    memory-map the files and read only what is used: no hashes, probes or search for NaN. A dictionary larger than
            memory opens at once, and one latent's decoder costs one row
    sites   where it reads and writes ("L12.resid_post", or (in, out)), for formats that do not say
    model   whose activations it reads, likewise

    Raises ValueError when it is missing, damaged, of an unknown format, or disagrees with its own probes.
    """
    path = resolve(path)
    ends = (sites, sites) if isinstance(sites, str) else sites or (None, None)
    read, written = ((e,) if isinstance(e, str) else tuple(e) if e else None for e in ends)
    found = format_of(path)
    with reading(path, "fetch or export it again"):
        if not lazy and path.is_dir():
            check_seal(path, whole=False, way_out="fetch or export it again")
        dictionary = found.load(path, Hints(read, written, model, lazy))
        if not lazy:
            _check_finite(dictionary, path)
            if (probe := path / PROBE).exists():
                dictionary.probe = load_file(probe)
                check_probe(dictionary, dictionary.probe)
    return dictionary


def _check_finite(dictionary: Dictionary, path: Path) -> None:
    for name, tensor in dictionary.tensors().items():
        bad = torch.isnan(tensor) if name == "threshold" else ~torch.isfinite(tensor)  # an infinite threshold shuts a latent
        if bad.any():
            raise ValueError(f"{path}: {int(bad.sum())} of {tensor.numel()} values of {name} are not finite")


def save_dictionary(
    dictionary: Dictionary,
    path: str | Path,
    *,
    format: str = "diascope",
    probe: dict[str, Tensor] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write `dictionary` to folder `path`, whole or not at all.

    format   a name of the table (`diascope.dictionaries.formats.FORMATS`)
    probe    x, latents and y_hat computed before folding; else the probe that the dictionary was loaded with, if any

    Raises ValueError where the format has no place for it, with the reason.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: {', '.join(FORMATS)}")
    target, probe = FORMATS[format], probe or dictionary.probe
    if reason := target.refuses(dictionary):
        raise ValueError(f"{target.library} cannot hold this {dictionary.config.title}: {reason}")
    with commit_folder(path, overwrite=overwrite) as work:
        if probe is not None:
            check_probe(dictionary, probe)
            save_file({k: v.float().contiguous() for k, v in probe.items()}, work / PROBE)
        target.save(dictionary, work)
        if probe is not None:  # what was written is what was meant, before it gets its name
            c = dictionary.config
            check_probe(target.load(work, Hints(c.sites_in, c.sites_out, c.model)), probe)
        seal(work)
    return Path(path)


def write_card(folder: str | Path, card: dict[str, Any], page: str = "") -> None:
    """Put an evaluation beside the dictionary in `folder`, with `page` as its card.html where there is one."""
    with resealed(folder, "card.json") as path:
        write_json(path, card)
    if page:
        with resealed(folder, "card.html") as path, commit_file(path) as work:
            work.write_text(page, encoding="utf-8")


def check_probe(dictionary: Dictionary, probe: dict[str, Tensor]) -> None:
    """Raise ValueError unless the dictionary gives the probe's latents and outputs to within TOLERANCE.

    A latent whose pre-activation lies within TOLERANCE of its threshold (of the row's k-th largest, for TopK) may fall on either
    side; outputs are compared on the rows where none did.
    """
    for name in ("x", "latents", "y_hat"):
        if name not in probe or not bool(torch.isfinite(probe[name]).all()):
            raise ValueError(f"the probe lacks {name}, or holds values there that are not finite")
    with torch.no_grad():
        x = probe["x"].float()
        pre = torch.cat([dictionary.pre_acts(x, g) for g in range(len(dictionary.blocks))], 1)
        bar, activation = dictionary.threshold, dictionary.config.activation
        if isinstance(activation, TopK):
            bar = pre.topk(min(activation.k, pre.shape[1]), dim=1).values[:, -1:]
        close = (pre - bar).abs() <= TOLERANCE * pre.abs().amax(1, keepdim=True)
        ours = dictionary.encode(x).dense()
        same = ((ours > 0) == (probe["latents"] > 0)).all(1)
        error = {
            "latents": (ours - probe["latents"]).abs().masked_fill(close, 0.0).max(),
            "y_hat": (dictionary(x).double() - probe["y_hat"])[same].norm(),
        }
        scale = {
            "latents": probe["latents"].abs().max(),
            "y_hat": torch.minimum(probe["y_hat"][same].double().norm(), dictionary(x)[same].double().norm()),
        }
    for name, worst in error.items():
        if not worst <= TOLERANCE * scale[name]:
            raise ValueError(
                f"the dictionary disagrees with its own probe: {name} off by {float(worst / scale[name]):.1e} relative "
                "(wrong fold, orientation or activation?)"
            )
    if 2 * int(same.sum()) < len(same):
        raise ValueError(
            f"the dictionary disagrees with its own probe: other latents are on in {int((~same).sum())} of {len(same)} rows"
        )
