"""What a latent says directly: its decoder direction through the final norm's gain and the unembedding.

logits = W_U (gain * d_j), demeaned over the vocabulary (softmax ignores a common shift). The final norm's division by
the residual's size is left out: it scales all tokens alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.models import Model


def has_direct_logits(dictionary: Dictionary) -> bool:
    """Whether the dictionary writes to the residual stream."""
    return dictionary.site_out.kind in ("resid_post", "mlp_out")


@torch.no_grad()
def direct_logits(
    model: Model, dictionary: Dictionary, *, vocabulary: Tensor | None = None, k: int = 10, chunk: int = 512
) -> dict[str, Tensor]:
    """Top and bottom tokens of every latent: `top`, `bottom` [S, k] int32 and `top_logits`, `bottom_logits` [S, k].

    `vocabulary` (token ids) restricts the candidates, for instance to tokens that occur in a corpus: the product of
    W_dec with all 262,144 rows of Gemma's W_U costs a minute and its extremes are tokens that no text contains.
    Raises ValueError when the dictionary does not write to the residual stream.
    """
    if not has_direct_logits(dictionary):
        raise ValueError(f"{dictionary.site_out} does not write to the residual stream: it has no direct logits")
    directions = dictionary.W_dec * model.final_norm_gain().cpu()
    W_U = model.unembedding.cpu().to(directions.dtype)
    mean = W_U.mean(0)
    ids = torch.arange(len(W_U)) if vocabulary is None else vocabulary
    rows = W_U if vocabulary is None else W_U[vocabulary]
    out: dict[str, list[Tensor]] = {"top": [], "top_logits": [], "bottom": [], "bottom_logits": []}
    for part in directions.split(chunk):
        logits = part @ rows.t() - (part @ mean)[:, None]
        for name, largest in (("top", True), ("bottom", False)):
            found = logits.topk(min(k, len(rows)), dim=1, largest=largest)
            out[name].append(ids[found.indices].int())
            out[f"{name}_logits"].append(found.values)
    return {name: torch.cat(parts) for name, parts in out.items()}


@torch.no_grad()
def neighbours(dictionary: Dictionary, *, k: int = 8, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """The k latents with the largest decoder cosine of each latent: indices [S, k] and cosines [S, k]."""
    W = dictionary.W_dec / dictionary.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)
    index, cosine = [], []
    for start in range(0, len(W), chunk):
        c = W[start : start + chunk] @ W.t()
        c[torch.arange(len(c)), torch.arange(start, start + len(c))] = -2.0
        found = c.topk(min(k, len(W) - 1), dim=1)
        index.append(found.indices.int())
        cosine.append(found.values)
    return torch.cat(index), torch.cat(cosine)
