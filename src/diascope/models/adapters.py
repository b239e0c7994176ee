"""PEFT adapters: small weight changes in a folder of their own, put onto a module or read onto it; the only door to peft.

    module + LowRank  -> wrapped(...)  -> a module whose adapter alone is trained
    module + folder   -> merged(...)   -> the plain module again, the change added into its weights

A merged model computes what the wrapped one does (to rounding) at the speed of the base, and its parts keep their names, so that
sites, edits and differences between two models need not know of adapters. Low rank: Hu et al. 2021, W + (alpha / r) B A.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diascope import rng
from diascope.config import within
from diascope.storage.files import read_json, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class LowRank:
    """Which weights get a change of low rank."""

    rank: int = 8
    """Rank r of every change."""
    alpha: float = 16.0
    """The change is scaled by alpha / rank."""
    parts: tuple[str, ...] = ("o_proj", "down_proj")
    """Names of the linear maps that are changed: those that write to the residual stream."""
    layers: tuple[int, int] = (12, 24)
    """First layer, and the layer after the last one."""

    def __post_init__(self) -> None:
        within("rank", self.rank, 1, 4096)
        within("alpha", self.alpha, 1e-6, 1e6)
        within("layers", self.layers[0], 0, self.layers[1] - 1)


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter instead of a whole model."""
    return (folder / CONFIG).is_file()


def base_of(folder: Path) -> str:
    """The model that the adapter in `folder` belongs to; ValueError where that is not said, or pickled weights are all there is."""
    data = read_json(folder / CONFIG)
    base = data.get("base_model_name_or_path") if isinstance(data, dict) else None
    if not isinstance(base, str) or not base:
        raise ValueError(f"{folder / CONFIG} does not say which model the adapter belongs to: set base_model_name_or_path")
    if Path(base).resolve() == folder.resolve():
        raise ValueError(f"{folder / CONFIG} names its own folder as the base model: set base_model_name_or_path to the base")
    if not (folder / WEIGHTS).is_file():
        pickled = " (adapter_model.bin can run code: convert it to safetensors first)" if list(folder.glob("*.bin")) else ""
        raise ValueError(f"{folder} has no {WEIGHTS}{pickled}: it is no whole adapter folder")
    return base


def merged(module: Any, folder: Path) -> Any:
    """`module` with the adapter of `folder` added into its weights, in place.

    Raises ValueError where the adapter is damaged, of another model, or of a kind that is no change of weights.
    """
    peft = _peft()
    try:
        with _quiet():
            wrapped = peft.PeftModel.from_pretrained(module, str(folder))
            missing = _unfilled(wrapped, folder)
            plain = wrapped.merge_and_unload(safe_merge=True)
    except Exception as error:  # peft's own errors are of every kind; each names what does not fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"the adapter in {folder} does not go onto its base model: {reason}") from error
    if missing:
        raise ValueError(f"{folder / WEIGHTS} lacks {len(missing)} tensors ({', '.join(missing[:3])} ...): write it again")
    return plain.eval()


def _unfilled(wrapped: Any, folder: Path) -> list[str]:
    """Tensors of the adapter that its file does not hold: peft would leave them as drawn."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, "pt") as file:
        return sorted(set(_peft().get_peft_model_state_dict(wrapped)) - set(file.keys()))


def wrapped(module: Any, change: LowRank, base: str, seed: int) -> Any:
    """`module` (changed in place) with a fresh adapter that alone has gradients; its start depends on `seed` only.

    base   what the saved adapter will call its base model; `load_model` must know the name
    Raises ValueError where the module has no such parts or layers.
    """
    import torch

    peft = _peft()
    config = peft.LoraConfig(
        r=change.rank, lora_alpha=change.alpha, target_modules=list(change.parts), lora_dropout=0.0, task_type="CAUSAL_LM",
        layers_to_transform=list(range(*change.layers)),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), _quiet():  # peft draws from the global generator
        torch.manual_seed(rng.key(seed, "adapter") >> 1)
        adapted = peft.get_peft_model(module, config)
    adapted.peft_config["default"].base_model_name_or_path = base  # peft has put the folder that transformers read there
    return adapted


def save_adapter(adapted: Any, folder: Path) -> None:
    """Write the adapter of a wrapped module into `folder` (which exists): the same bytes for the same numbers."""
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    data = read_json(folder / CONFIG)
    data["target_modules"] = sorted(data["target_modules"])  # a set: its order changes from one process to the next
    write_json(folder / CONFIG, data, flush=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of peft and transformers about each other; what matters of them is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ValueError("adapters need the package peft: pip install 'peft>=0.19'") from error
    return peft
