"""Continue prompts token by token, several at once, with edits on every step.

Prompts are padded on the left; each has its own generator, so what is drawn for a prompt depends on what stands beside it
through the rounding of its logits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diascope.edits import Edits

if TYPE_CHECKING:
    from diascope.models.model import Model


@torch.no_grad()
def continuations(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    seeds: Sequence[int],
    temperature: float = 1.0,
    edits: Sequence[Edits] = (),
    known: tuple[int, Any] | None = None,
) -> list[list[int]]:
    """New token ids of each prompt, without the token that ends the answer; greedy at temperature 0.

    `known` = (n, the key-value cache of the first n columns of the prompts padded on the left): edits do not act on these.
    Raises ValueError for a negative temperature or an empty prompt.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}: give 0 (greedy) or more")
    tokens, mask = model.batch([list(p) for p in prompts], padding_side="left")
    draws = [torch.Generator(model.device).manual_seed(seed) for seed in seeds]
    ends, going = ending_tokens(model), torch.ones(len(tokens), dtype=torch.bool)
    new: list[list[int]] = [[] for _ in prompts]
    n, past = known or (0, None)
    step = tokens[:, n:]
    with model.edit(*edits):
        for _ in range(max_new_tokens):
            hidden, past = model.decode_step(step, mask, past)
            chosen = next_tokens(model.logits_of(hidden).float(), temperature, draws, going)
            going &= torch.tensor([int(t) not in ends for t in chosen])
            if not going.any():
                break
            for i in going.nonzero().flatten().tolist():
                new[i].append(int(chosen[i]))
            step = chosen[:, None].to(tokens)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return new


def next_tokens(logits: Tensor, temperature: float, draws: list[torch.Generator], going: Tensor) -> Tensor:
    """The next token of each row [B]; finished rows draw nothing."""
    if not temperature:
        return logits.argmax(-1)
    if not torch.isfinite(logits.amax(-1)[going]).all():
        raise ValueError("the model's logits are not finite: its weights are damaged, or an edit is far too large")
    p = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)  # at most 0: any temperature will do
    chosen = torch.zeros(len(p), dtype=torch.int64, device=p.device)
    for i in going.nonzero().flatten().tolist():
        chosen[i] = torch.multinomial(p[i], 1, generator=draws[i])[0]
    return chosen


def ending_tokens(model: Model) -> set[Any]:
    """Tokens that end an answer."""
    given = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    return {*(given if isinstance(given, list) else [given]), model.tokenizer.eos_token_id}
