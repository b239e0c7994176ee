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


class Bijection:
    """A keyed bijection of 0..n-1 that needs no memory: an exact shuffle of any size, one index at a time.

    A Feistel network of four rounds over the smallest square power of two that holds n; values beyond n are sent through
    again (cycle walking; Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """

    def __init__(self, n: int, seed: int, *names: str | int) -> None:
        if not 0 < n <= 2**62:
            raise ValueError(f"a bijection of {n} numbers: give 1 to 2^62")
        self.n = n
        self._bits = max(1, (int(n - 1).bit_length() + 1) // 2)
        self._keys = [np.uint64(key(seed, *names, "round", i)) for i in range(4)]

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """Where each of `index` goes [len(index)] int64."""
        x = np.asarray(index, np.uint64)
        if len(x) and int(x.max()) >= self.n:
            raise ValueError(f"{int(x.max())} is no index below {self.n}")
        out = self._rounds(x)
        while (beyond := out >= self.n).any():
            out[beyond] = self._rounds(out[beyond])
        return out.astype(np.int64)

    def _rounds(self, x: np.ndarray) -> np.ndarray:
        half = np.uint64(self._bits)
        mask = np.uint64((1 << self._bits) - 1)
        left, right = x >> half, x & mask
        for k in self._keys:
            left, right = right, left ^ (_mixed(right ^ k) & mask)
        return (left << half) | right


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
