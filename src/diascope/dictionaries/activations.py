"""Choices of a dictionary as small tagged records: which pre-activations count as active, and the nesting."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JumpReLU:
    """f = z if z > theta else 0, with theta a latent (Rajamanoharan et al. 2024, arXiv:2407.14435)."""

    bandwidth: float = 0.001
    """Width of the straight-through window, in units of an activation scaled to E|x|^2 = 1."""


@dataclass(frozen=True)
class TopK:
    """The k largest positive pre-activations of each row (Gao et al. 2024, arXiv:2406.04093)."""

    k: int = 60
    """Active latents a row."""

    def __post_init__(self) -> None:
        _check_k(self.k)


@dataclass(frozen=True)
class BatchTopK:
    """The k B largest of a batch while training; a frozen threshold (so JumpReLU) for evaluation and export.

    Bussmann et al. 2024, arXiv:2412.06410.
    """

    k: int = 60
    """Active latents a row on average."""

    def __post_init__(self) -> None:
        _check_k(self.k)


def _check_k(k: int) -> None:
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k is the number of active latents, an integer of at least 1, got {k!r}")


Activation = JumpReLU | TopK | BatchTopK


@dataclass(frozen=True)
class Matryoshka:
    """Nested prefixes of the latents, each of which must reconstruct by itself (Bussmann et al. 2025, arXiv:2503.17547)."""

    prefixes: tuple[int, ...] = (512, 2048, 8192, 16384)
    """Numbers of latents, ascending; the last is the dictionary's width."""
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    """Weight of each prefix's squared error; divided by their sum."""

    def __post_init__(self) -> None:
        if list(self.prefixes) != sorted(set(self.prefixes)) or len(self.weights) != len(self.prefixes):
            raise ValueError(f"prefixes must ascend and have one weight each, got {self.prefixes} and {self.weights}")
