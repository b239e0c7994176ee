"""The model that nobody trained: the same architecture and the same tokens, and no learned computation.

Every weight matrix is drawn anew from a normal law with the matrix's own mean and standard deviation. Embeddings and unembedding are
kept, so that tokens stay as like and unlike as they are, and so are vectors (biases, norm gains), so that each block adds what it
adds at about its own scale. Of the variants of Heap et al. 2025 (arXiv:2501.17727) it is nearest to the one re-randomised
without the embeddings: what a dictionary finds here comes from tokens and their mixing.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from diascope import rng
from diascope.models import Model


@torch.no_grad()
def random_weights(model: Model, *, seed: int = 0) -> Model:
    """`model` with every weight matrix but the (un)embeddings drawn anew; vectors (biases, gains) stay, and what stays is shared.

    Raises ValueError where weights are quantised: such numbers are no draws from a law.
    """
    embeddings = [m for m in model.module.modules() if isinstance(m, nn.Embedding)]
    stay = {id(p): p for m in (*embeddings, model.parts.unembedding) if m is not None for p in m.parameters()}
    stay |= {id(p): p for p in model.module.parameters() if p.ndim < 2}
    module = copy.deepcopy(model.module, dict(stay))
    for name, p in module.named_parameters():
        if id(p) in stay:
            continue
        if not p.is_floating_point():
            raise ValueError(f"{name} of {model.name} is quantised: judge without the controls that take training")
        old = p.detach().float()
        draw = torch.randn(p.shape, generator=rng.torch_generator(seed, "random weights", name))
        p.copy_(draw * float(old.std()) + float(old.mean()))
    return Model(module, model.tokenizer, f"{model.name} with random weights")
