"""Latents as data: examples, logits, neighbours and statistics of every latent, packed into an index.

build.build_index(...)    makes an index folder (needs torch)
store.Index(folder)       reads one (NumPy only: the explorer browses without torch)
"""
