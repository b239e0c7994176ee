"""Choices of a dictionary as small tagged records: which pre-activations count as active, and the nesting."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JumpReLU:
    """f = z if z > theta else 0, with theta a latent (Rajamanoharan et al. 2024, arXiv:2407.14435)."""

    bandwidth: float = 0.001
    """Width of the straight-through window, in units of an activation scaled to E|x|^2 = 1."""


@dataclass(frozen=True)
class ReLU:
    """f = max(z, 0), sparse through an L1 penalty weighed by decoder norms (Bricken et al. 2023; Conerly et al. 2024)."""


@dataclass(frozen=True)
class Gated:
    """A gate decides which latents are on, another affine function of the same product how much (arXiv:2404.16014).

    Training only: with shared directions it is a JumpReLU (the paper's appendix), and exported as one, exactly.
    """


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


Activation = JumpReLU | ReLU | TopK  # what a finished dictionary may have; BatchTopK and Gated end as JumpReLU


@dataclass(frozen=True)
class Matryoshka:
    """Nested prefixes of the latents, each of which must reconstruct by itself (Bussmann et al. 2025, arXiv:2503.17547)."""

    prefixes: tuple[int, ...] = (512, 2048, 8192, 16384)
    """Numbers of latents, ascending; the last is the dictionary's width. Where latents come in blocks, each block gives its share."""
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    """Weight of each prefix's squared error; divided by their sum."""

    def __post_init__(self) -> None:
        if (
            not self.prefixes
            or self.prefixes[0] < 1
            or list(self.prefixes) != sorted(set(self.prefixes))
            or len(self.weights) != len(self.prefixes)
        ):
            raise ValueError(f"prefixes must ascend and have one weight each, got {self.prefixes} and {self.weights}")


@dataclass(frozen=True)
class SampledMatryoshka:
    """Prefixes drawn anew at every step from a truncated Pareto density, the whole width always among them (as above, 3.2)."""

    count: int = 5
    """Prefixes a step, the whole width included."""
    least: int = 32
    """Smallest prefix that may be drawn."""
    alpha: float = 0.5
    """Exponent of the Pareto density: larger favours short prefixes."""

    def __post_init__(self) -> None:
        if self.count < 2 or self.least < 1 or self.alpha <= 0:
            raise ValueError(f"sampled prefixes need count >= 2, least >= 1 and alpha > 0, got {self}")


Nesting = Matryoshka | SampledMatryoshka
