"""Default and steered: one prompt twice in one batch, the second row pushed.

    pushes = [Push.of_latent(d, 404, dose=800), Push.of_vector("L8.resid_post", v, dose=2, method="orthogonal")]
    for pair in side_by_side(model, "My favourite city is", pushes):
        print(pair.default.text if pair.default else "", pair.steered.text if pair.steered else "")

Both rows have the same seed. Until a push has changed a vector both sides are the same model, and equal bit for bit: a dose of
0, or a cap that is never reached, gives the same text with the same log-probabilities.
Pushes hold at every ordinary position, of the prompt and of what is generated; BOS and turn markers are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diascope.edits import Edit
from diascope.latents.steering.push import Push, check_sites
from diascope.latents.steering.steps import Token, stream
from diascope.models.model import Model

STEERED = 1  # the row of the batch


@dataclass(frozen=True)
class Pair:
    """The next token of the model as it is, and of the pushed one; None once that side has ended."""

    default: Token | None
    steered: Token | None


def side_by_side(
    model: Model,
    prompt: Any,
    pushes: Sequence[Push],
    *,
    max_new_tokens: int = 48,
    temperature: float = 0.0,
    seed: int = 0,
    top: int = 5,
) -> Iterator[Pair]:
    """Continue `prompt` (a text, token ids, or messages of a chat) as the model would, and with `pushes`.

    Raises ValueError at once for a site that the model lacks, and for a base model that is given messages.
    """
    check_sites(model, pushes)
    ids = prompt_tokens(model, prompt)
    acted: list[str] = []  # pushes that have changed something
    edits = [_on_row(edit, STEERED, acted) for push in pushes for edit in push.edits()]
    options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seeds": [seed] * 2, "top": top}
    steps = stream(model, [ids, ids], edits=edits, same=lambda: not acted, **options)  # type: ignore[arg-type]
    return (Pair(*tokens) for tokens in steps)


def prompt_tokens(model: Model, prompt: Any) -> list[int]:
    """Token ids of a text, of ids, or of a conversation up to where the answer begins."""
    if isinstance(prompt, str):
        return model.tokenize(prompt)
    if prompt and isinstance(prompt[0], dict):
        return model.chat_tokens(prompt)
    return list(prompt)


def _on_row(edit: Edit, row: int, acted: list[str]) -> Edit:
    """The edit on one row of the batch; the others keep their very bits. `acted` gets its label once it changes something."""

    def function(x: Tensor, y: Tensor) -> Tensor:
        own = slice(row, row + 1)
        new = edit.function(x[own], y[own]).to(y.dtype)
        if edit.label not in acted and not torch.equal(new, y[own]):
            acted.append(edit.label)
        return torch.cat([y[:row], new, y[row + 1 :]])

    return replace(edit, function=function)
