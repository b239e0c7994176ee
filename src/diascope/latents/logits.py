"""What a latent says directly: its decoder direction through the final norm's gain and the unembedding.

logits = W_U (gain * d_j), demeaned over the vocabulary (softmax ignores a common shift). The final norm's division by
the residual's size is left out: it scales all tokens alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.models import Model
from diascope.sites import ADDED, STREAM


def has_direct_logits(dictionary: Dictionary) -> bool:
    """Whether the dictionary writes to the residual stream, and of one model."""
    if len({site.model for site in dictionary.config.writes}) > 1:
        return False
    return all(site.kind in STREAM + ADDED for site in dictionary.config.writes)


def residual_directions(dictionary: Dictionary) -> Tensor:
    """What each latent adds to the residual stream in the end [S, d_model]: the sum over the sites that it adds at,
    or its direction at the last site of the stream (an earlier one is part of that already)."""
    widths, rows = dictionary.config.widths_out, []
    d = widths[-1]
    adds = dictionary.config.writes[0].kind in ADDED
    for W in dictionary.decoders:
        rows.append(W.view(len(W), -1, d).sum(1) if adds and len(widths) > 1 else W[:, W.shape[1] - d :])
    return torch.cat(rows)


@torch.no_grad()
def direct_logits(
    model: Model, dictionary: Dictionary, *, vocabulary: Tensor | None = None, k: int = 10, bins: int = 0, chunk: int = 512
) -> dict[str, Tensor]:
    """Top and bottom tokens of every latent: `top`, `bottom` [S, k] int32 and `top_logits`, `bottom_logits` [S, k]; and
    `kurtosis` [S], the excess kurtosis of its logits over the candidates (`excess_kurtosis`). With `bins` also `histogram`
    [S, bins] int32: how many candidates have a logit in each of these equal parts from the lowest to the highest.

    `vocabulary` (token ids) restricts the candidates, for instance to tokens that occur in a corpus: the product of
    W_dec with all 262,144 rows of Gemma's W_U costs a minute and its extremes are tokens that no text contains.
    Raises ValueError when the dictionary does not write to the residual stream.
    """
    if not has_direct_logits(dictionary):
        raise ValueError(f"{dictionary.config.title} does not write to the residual stream: it has no direct logits")
    directions = residual_directions(dictionary) * model.final_norm_gain().cpu()
    W_U = model.unembedding.cpu().to(directions.dtype)
    mean = W_U.mean(0)
    ids = torch.arange(len(W_U)) if vocabulary is None else vocabulary
    rows = W_U if vocabulary is None else W_U[vocabulary]
    names = ("top", "top_logits", "bottom", "bottom_logits", "kurtosis") + (("histogram",) if bins else ())
    out: dict[str, list[Tensor]] = {name: [] for name in names}
    for part in directions.split(chunk):
        logits = part @ rows.t() - (part @ mean)[:, None]
        for name, largest in (("top", True), ("bottom", False)):
            found = logits.topk(min(k, len(rows)), dim=1, largest=largest)
            out[name].append(ids[found.indices].int())
            out[f"{name}_logits"].append(found.values)
        for few in logits.split(32):  # of which there are two more copies in between
            out["kurtosis"].append(excess_kurtosis(few))
            if bins:
                out["histogram"].append(_histogram(few, bins))
    return {name: torch.cat(parts) for name, parts in out.items()}


def _histogram(values: Tensor, bins: int) -> Tensor:
    """How many of each row of `values` [n, V] lie in each of `bins` equal parts of its range [n, bins]; the first has them all where all are equal."""
    low, high = values.aminmax(dim=1, keepdim=True)
    width = torch.where(high > low, high - low, 1.0)
    part = ((values - low) / width * bins).long().clamp_(0, bins - 1)  # what is no number is in the first
    part += bins * torch.arange(len(values))[:, None]
    return torch.bincount(part.flatten(), minlength=bins * len(values)).view(len(values), bins).int()


def excess_kurtosis(values: Tensor) -> Tensor:
    """mean((x - mean)^4) / variance^2 - 3 of each row [n, V] -> [n]: 0 of normal values, large where a few tokens stand out
    from all others. Moments are the population's; a row of equal values (a latent that writes nothing) gets 0.
    """
    centred = values - values.mean(1, keepdim=True)
    square = centred.square()
    variance = square.mean(1, keepdim=True)
    scaled = square / variance.clamp_min(torch.finfo(values.dtype).tiny)  # before it is squared: small logits would vanish
    return torch.where(variance[:, 0] > 0, scaled.square().mean(1) - 3, 0.0)


@torch.no_grad()
def neighbours(dictionary: Dictionary, *, k: int = 8, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """The k latents with the largest decoder cosine of each latent, over all sites that both could write: indices [S, k]
    and cosines [S, k]."""
    S = dictionary.d_sae
    index, cosine = torch.zeros(S, min(k, S - 1), dtype=torch.int32), torch.zeros(S, min(k, S - 1))
    rows = [W / W.norm(dim=1, keepdim=True).clamp_min(1e-12) for W in dictionary.decoders]
    for b, W in zip(dictionary.blocks, rows, strict=True):
        for part in torch.arange(b.latents.start, b.latents.stop).split(chunk):
            own = W[part - b.latents.start]
            c = torch.cat([_cosines(own, V) for V in rows], 1)
            c[torch.arange(len(part)), part] = -2.0
            found = c.topk(index.shape[1], dim=1)
            index[part], cosine[part] = found.indices.int(), found.values
    return index, cosine


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """a b^T of rows that end at the same site; what one of them writes earlier meets nothing."""
    shared = min(a.shape[1], b.shape[1])
    return a[:, a.shape[1] - shared :] @ b[:, b.shape[1] - shared :].t()
