"""Stateless keyed randomness: a draw is a pure function of (seed, names), never of what was drawn before.

So a resumed run, another worker or another logging frequency sees the same numbers. Philox is counter-based
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"); the key is a hash of the seed and the names.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def key(seed: int, *names: str | int) -> int:
    """A 64-bit key for (seed, names)."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator that depends on (seed, names) alone."""
    return np.random.Generator(np.random.Philox(key=key(seed, *names)))


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU torch generator that depends on (seed, names) alone."""
    return torch.Generator().manual_seed(key(seed, *names) >> 1)


def unit_hash(seed: int, text: str) -> float:
    """A uniform number in [0, 1) that depends on (seed, text) alone: how documents are held out."""
    return key(seed, text) / 2**64
