"""A GGUF file is dequantised once; afterwards the model loads from plain safetensors in the cache.

transformers parses the whole GGUF, 262,144 vocabulary strings and all, three times over (config, weights, tokenizer),
at 20 to 50 seconds each; `_one_parse` lets the three share one reader.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from diascope.storage import cache_dir, commit_folder, sha256_file
from diascope.storage.files import reading


def converted(gguf: Path, *, progress: Callable[[str], None] = lambda _: None) -> Path:
    """The folder with `gguf` as float32 safetensors and a tokenizer, made on first use."""
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{gguf} is no GGUF file: it does not begin with GGUF")
    folder = cache_dir() / "models" / f"{gguf.stem}-{sha256_file(gguf)[:16]}"
    if folder.exists():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    progress(f"dequantising {gguf.name}, once (about a minute)")
    # of several processes that begin together the first one's stands
    with contextlib.suppress(FileExistsError), reading(gguf, "fetch it again"), commit_folder(folder) as work, _one_parse():
        where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(**where)
        config = GgufConfig(dequantize=True)  # else weights stay quantised: a forward pass is 15 times slower
        module: Any = AutoModelForCausalLM.from_pretrained(**where, quantization_config=config, dtype=torch.float32)
        if hasattr(module.config, "quantization_config"):
            del module.config.quantization_config
        module.save_pretrained(work)
        tokenizer.save_pretrained(work)
    return folder


@contextlib.contextmanager
def _one_parse() -> Iterator[None]:
    import gguf
    from transformers import modeling_gguf_pytorch_utils

    theirs: Any = modeling_gguf_pytorch_utils

    original, bar = gguf.GGUFReader, theirs.tqdm
    gguf.GGUFReader = functools.cache(original)  # transformers imports the name at each call
    theirs.tqdm = functools.partial(bar, disable=True)  # our own progress says what is going on
    try:
        yield
    finally:
        gguf.GGUFReader, theirs.tqdm = original, bar
