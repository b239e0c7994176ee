"""What evaluations keep on disk for the next one: found again only where it belongs to the very same weights and tokens.

    <cache>/evaluation/<kind>/<hash of the identity>/

The identity holds a hash of every weight of the model, so that a folder whose files were changed, or a module trained further in
memory, is another model. Deleting the folder costs time and nothing else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from diascope.config import config_hash
from diascope.models import Model
from diascope.storage import cache_dir
from diascope.tokens import Sequences

SMALL = 10_000_000  # parameters; below, nothing is kept


def place(kind: str, identity: dict[str, Any]) -> Path:
    """The folder of what `identity` (JSON-ready) describes; whether it exists is another question."""
    return cache_dir() / "evaluation" / kind / config_hash(identity, digits=32)


def worth_it(model: Model) -> bool:
    """Whether what `model` computes is to be kept: it is known by its weights, and takes longer than to hash them.

    Not with somebody's hooks or edits in it, of which weights say nothing; not where several processes share the weights; not on
    a GPU, which computes faster than it gives its weights away; not for a small model.
    """
    if model.device.type != "cpu" or model.together.size > 1 or sum(p.numel() for p in model.module.parameters()) < SMALL:
        return False
    return not model._edits and not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def weights(model: Model) -> str:
    """SHA-256 of the model's configuration and of every tensor of it with its name, shape and precision (about 2 GB/s)."""
    digest = hashlib.sha256(repr(sorted(model.parts.config.to_dict().items(), key=lambda i: i[0])).encode())
    for name, tensor in model.module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokens(sequences: Sequences) -> str:
    """SHA-256 of packed text: tokens, positions, documents and roles."""
    digest = hashlib.sha256(repr(sequences.tokens.shape).encode())
    for array in (sequences.tokens, sequences.positions, sequences.document, sequences.role):
        digest.update(b"-" if array is None else array.tobytes())
    return digest.hexdigest()
