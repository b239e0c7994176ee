"""Continue prompts side by side, token by token, saying at every step what each was likely to be.

1. All rows make one batch, padded on the left; each draws with a generator of its own, so rows with one seed draw alike.
2. A step gives every row its next token with its log-probability, and the likeliest tokens with theirs.
3. Log-probabilities are the model's (edited or not) before the temperature, natural logarithms.
4. Rows of a batch are told apart by rounding, even where they hold the same (with several threads, or on a GPU). While the
   caller says that all rows are still the same, the first one's result therefore counts for all.
5. Edits are put on for one step at a time, so that a caller who stops in the middle leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.edits import Edits
from diascope.models.generation import ending_tokens, next_tokens
from diascope.models.model import Model

CONTEXT = 4  # tokens before the new ones that are decoded with them: some tokenizers drop a space that opens a text


@dataclass(frozen=True)
class Token:
    """One new token of one row."""

    id: int
    text: str
    """Its part of the text; "" where it is only a part of a character, which comes with the token that completes it."""
    log_probability: float
    """Natural logarithm, at temperature 1."""
    top: list[tuple[str, float]]
    """The likeliest tokens here with their log-probabilities, likeliest first."""
    ends: bool
    """Whether it ends the answer; it is then no part of the text."""


def stream(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    seeds: Sequence[int],
    temperature: float = 0.0,
    edits: Sequence[Edits] = (),
    top: int = 5,
    same: Callable[[], bool] = lambda: False,
) -> Iterator[list[Token | None]]:
    """At each step the next token of every row; None where the row has ended. Greedy at temperature 0.

    `same` is asked after each pass whether, but for rounding, all rows are still the same.
    Raises ValueError for a negative temperature, seeds that are not one a prompt, an empty prompt or one too long for the
    model, or logits that are not finite.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}: give 0 (greedy) or more")
    if len(seeds) != len(prompts):
        raise ValueError(f"there are {len(prompts)} prompts and {len(seeds)} seeds: give one each")
    tokens, mask = model.batch([list(p) for p in prompts], padding_side="left")
    most = getattr(model.parts.config, "max_position_embeddings", None)
    if most is not None and tokens.shape[1] + max_new_tokens > most:
        raise ValueError(
            f"{tokens.shape[1]} tokens and {max_new_tokens} new ones are more than the {most} that {model.name} can read"
        )
    draws = [torch.Generator(model.device).manual_seed(seed) for seed in seeds]
    ends, going = ending_tokens(model), torch.ones(len(tokens), dtype=torch.bool)
    pieces, past, step = [_Pieces(model, p) for p in prompts], None, tokens
    for _ in range(max_new_tokens):
        with torch.no_grad(), model.edit(*edits):
            hidden, past = model.decode_step(step, mask, past)
            hidden = hidden[:1].expand_as(hidden) if same() else hidden
            logits = model.logits_of(hidden).float()
        if not torch.isfinite(logits.amax(-1)).all():
            raise ValueError("the model's logits are not finite: its weights are damaged, or an edit is far too large")
        chosen = next_tokens(logits, temperature, draws, going)
        over = torch.tensor([int(t) in ends for t in chosen])
        yield _tokens(model, logits.log_softmax(-1), chosen, over, going, pieces, top)
        going = going & ~over
        if not bool(going.any()):
            return
        step = chosen[:, None].to(tokens)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)


def _tokens(
    model: Model, log_p: Tensor, chosen: Tensor, over: Tensor, going: Tensor, pieces: Sequence[_Pieces], top: int
) -> list[Token | None]:
    """What is told of one step; `log_p` [B, vocab]."""
    best = log_p.topk(min(top, log_p.shape[-1]))
    out: list[Token | None] = []
    for i, row in enumerate(pieces):
        if not going[i]:
            out.append(None)
            continue
        token, end = int(chosen[i]), bool(over[i])
        likely = [
            (model.tokenizer.decode([j]), p) for j, p in zip(best.indices[i].tolist(), best.values[i].tolist(), strict=True)
        ]
        text = model.tokenizer.decode([token]) if end else row.add(token)
        out.append(Token(token, text, float(log_p[i, token]), likely, end))
    return out


class _Pieces:
    """A row's text in pieces, one a token: what decoding gains by it."""

    def __init__(self, model: Model, prompt: Sequence[int]) -> None:
        self._tokenizer, self._ids = model.tokenizer, list(prompt)[-CONTEXT:]
        self._told = self._decoded()

    def _decoded(self) -> str:
        return self._tokenizer.decode(self._ids, clean_up_tokenization_spaces=False)

    def add(self, token: int) -> str:
        self._ids.append(token)
        text = self._decoded()
        if text.endswith("\ufffd") and len(text) - len(self._told) < CONTEXT:  # a character begun: wait for the rest of it
            return ""
        piece, self._told = text[len(self._told) :], text
        if len(self._ids) > 8 * CONTEXT:  # what is settled needs no decoding again
            self._ids = self._ids[-CONTEXT:]
            self._told = self._decoded()
        return piece
