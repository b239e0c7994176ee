"""A small fine-tune of a chat model, so that there is a pair of models whose difference is known.

The instruct model learns to answer questions in an encyclopedia's voice: BoolQ's dev questions, answered by the passages that
belong to them. Loss is the cross-entropy of the answers' tokens alone (role masks); AdamW, linear decay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from diascope import rng
from diascope.config import to_data, within
from diascope.models import ROLES, Model, render
from diascope.storage import fetch
from diascope.storage.files import commit_folder, write_json
from diascope.tokens.corpora import WIKIPEDIA_PASSAGES_DEV, Document

ASSISTANT = ROLES.index("assistant")


@dataclass(frozen=True)
class ModelTuning:
    """How the model is tuned."""

    steps: int = 60
    """Optimiser steps."""
    batch: int = 8
    """Conversations a step."""
    lr: float = 2e-5
    """Peak rate of AdamW, falling linearly to zero."""
    length: int = 128
    """Tokens at which a conversation is cut."""
    seed: int = 0
    """Seed of the order of conversations."""

    def __post_init__(self) -> None:
        within("steps", self.steps, 1, 10**9)
        within("batch", self.batch, 1, 10**6, "conversations")
        within("lr", self.lr, 1e-12, 1)
        within("length", self.length, 32, 2**20, "tokens")


def encyclopedic() -> list[Document]:
    """BoolQ's dev questions, each answered by its passage."""
    rows = [json.loads(line) for line in fetch(WIKIPEDIA_PASSAGES_DEV).read_text(encoding="utf-8").splitlines()]
    return [
        Document(
            f"boolq-dev#{i}", "", ({"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["passage"]})
        )
        for i, r in enumerate(rows)
    ]


def tune_model(
    model: Model,
    conversations: list[Document],
    folder: str | Path,
    config: ModelTuning = ModelTuning(),
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> list[float]:
    """Tune `model` in place on the answers of `conversations`, save it as a Hugging Face folder, and return every step's loss.

    Raises ValueError when `folder` exists, or the model is not in float32.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists already: choose another folder, or delete it")
    if model.dtype != torch.float32:
        raise ValueError(f"tuning needs float32 weights, not {model.dtype}: load_model(..., dtype='float32')")
    optimiser = torch.optim.AdamW(model.module.parameters(), lr=config.lr, weight_decay=0.0)
    losses = []
    for step in range(config.steps):
        pick = rng.generator(config.seed, "tune", step).permutation(len(conversations))[: config.batch]
        loss = _loss(model, [conversations[i] for i in pick], config.length)
        optimiser.param_groups[0]["lr"] = config.lr * (1 - step / config.steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        progress(step + 1, config.steps, f"loss {losses[-1]:.3f}")
    with commit_folder(folder) as work:
        model.module.save_pretrained(work)
        model.tokenizer.save_pretrained(work)
        write_json(work / "tuning.json", {"model": model.name, "config": to_data(config), "last_loss": losses[-1]})
    return losses


def _loss(model: Model, conversations: list[Document], length: int) -> torch.Tensor:
    """Mean cross-entropy [nats] of the assistant's tokens, each predicted from those before it."""
    found = [render(model, c.messages) for c in conversations]
    tokens, attention = model.batch([f.tokens[:length] for f in found])
    spoken = torch.zeros_like(attention)
    for i, f in enumerate(found):
        role = torch.tensor(f.role[:length])
        spoken[i, : len(role)] = role == ASSISTANT
    logits = model.module(input_ids=tokens, attention_mask=attention.long()).logits[:, :-1]
    answered = spoken[:, 1:]
    if not answered.any():
        raise ValueError(f"no answer begins within {length} tokens: raise `length`")
    return cross_entropy(logits[answered].float(), tokens[:, 1:][answered])
