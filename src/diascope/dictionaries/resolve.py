"""From whatever people call a dictionary to a folder on this machine.

    a folder or file                        ./workspace/dictionaries/sae
    a hub path                              google/gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_medium
    a SAELens release and id                gemma-scope-2-270m-pt-res/layer_12_width_16k_l0_medium    (or with a colon)
    a Neuronpedia id (model/source[/index]) gemma-3-270m/12-gemmascope-2-res-16k/404

Gemma Scope's names follow rules, which are written out here; other releases of SAELens are looked up in the table of an
installed sae_lens. Of a hub's folder only weights and configs are fetched, never the examples (they are larger).
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from diascope.storage.hub import hub_folder

FILES = (
    "config.json", "cfg.json", "config.yaml", "provenance.json", "card.json", "params*.safetensors", "params.npz",
    "weights.safetensors", "probe.safetensors", "sae_weights.safetensors", "sae.safetensors", "ae.pt", "layer_*.safetensors",
    "W_enc_*.safetensors", "W_dec_*.safetensors",
)  # fmt: skip
EXAMPLES = ("examples.safetensors",)
_SCOPE_2 = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_out", "transcoders": "transcoder", "transcoder": "transcoder"}


def resolve(reference: str | Path, *, examples: bool = False) -> Path:
    """The local path of what `reference` names, fetched if need be; with `examples` also the stored examples.

    Raises ValueError where no rule applies, with the forms that are understood.
    """
    if Path(reference).exists():
        return Path(reference)
    text = str(reference).removeprefix("hf://")
    if text.startswith((".", "/", "~")) or "\\" in text or (text.count("/") == 0 and ":" not in text):
        raise ValueError(f"there is no dictionary folder {reference}")
    if (place := locate(text)) is None:
        raise ValueError(
            f"{reference!r} is neither a local folder, nor a hub path (owner/repository/folder), nor a SAELens release and id, nor "
            "a Neuronpedia id (model/source)"
        )
    return hub_folder(*place, FILES + (EXAMPLES if examples else ()))


def locate(name: str) -> tuple[str, str] | None:
    """(repository, folder) that `name` means, by rule alone; None where no rule applies."""
    return _neuronpedia(name) or _saelens(name) or _hub(name)


def _neuronpedia(name: str) -> tuple[str, str] | None:
    m = re.fullmatch(r"gemma-3-(\w+?)(-it)?/(\d+)-gemmascope-2-(res|mlp|att|transcoder)-(\w+)(?:/\d+)?", name)
    if not m:
        return None
    folder = f"{_SCOPE_2[m[4]]}/layer_{m[3]}_width_{m[5]}_l0_medium"  # the site shows the medium ones
    return f"google/gemma-scope-2-{m[1]}-{'it' if m[2] else 'pt'}", folder


def _saelens(name: str) -> tuple[str, str] | None:
    release, _, sae_id = name.partition(":") if ":" in name else name.partition("/")
    if m := re.fullmatch(r"gemma-scope-2-(\w+)-(pt|it)-(res|mlp|att|transcoders)(-all)?", release):
        folder = sae_id if "/" in sae_id else f"{_SCOPE_2[m[3]]}{'_all' if m[4] else ''}/{sae_id}"
        return f"google/gemma-scope-2-{m[1]}-{m[2]}", folder
    if (m := re.fullmatch(r"gemma-scope-(\w+)-(pt|it)-(res|mlp|att)", release)) and "average_l0" in sae_id:
        return f"google/{release}", sae_id
    if sae_id and find_spec("sae_lens"):
        return _table(release, sae_id)
    return None


def _table(release: str, sae_id: str) -> tuple[str, str] | None:
    """The entry of an installed sae_lens's own table; the file is read, the library is not imported."""
    import yaml

    spec = find_spec("sae_lens")
    file = Path(str(spec.origin)).with_name("pretrained_saes.yaml") if spec else Path()
    if not file.is_file():
        return None
    entry = yaml.safe_load(file.read_text(encoding="utf-8")).get(release)
    for sae in entry["saes"] if entry else ():
        if sae["id"] == sae_id:
            return entry["repo_id"], sae["path"]
    return None


def _hub(name: str) -> tuple[str, str] | None:
    if ":" in name or not re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w.-]+)*", name):
        return None
    owner, repository, *folder = name.split("/")
    return f"{owner}/{repository}", "/".join(folder)
