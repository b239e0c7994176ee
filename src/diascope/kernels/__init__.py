"""Sparse latents and the four products that training and inference need of them."""

from diascope.kernels.sparse import SparseLatents, decode, latent_gradient, select_above, weight_gradient

__all__ = ["SparseLatents", "decode", "latent_gradient", "select_above", "weight_gradient"]
