"""Sparse encode, decode and their gradients: the dense reference is one matrix product, this is its sparse equal."""

from diascope.kernels.sparse import (
    SparseLatents,
    decode,
    from_flat,
    largest,
    latent_gradient,
    merged,
    select_above,
    weight_gradient,
)

__all__ = [
    "SparseLatents", "decode", "from_flat", "largest", "latent_gradient", "merged", "select_above", "weight_gradient",
]  # fmt: skip
