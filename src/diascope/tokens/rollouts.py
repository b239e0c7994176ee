"""Conversations that a chat model has with itself as the author of the answers: prompts in, sampled answers out.

    <folder>/rollouts.json          what they are: model, prompts, sampling; written before the first part
             parts/000000.jsonl     64 conversations each, complete or absent: a killed run redoes only the one it was in
             rollouts.jsonl         all of them, written last: {"messages": [{"role", "content"}, ...]} a line

Dictionaries of a chat model are fine-tuned on what the model itself says (Gemma Scope 2), not on what others wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diascope import rng
from diascope.config import config_hash, to_data, within
from diascope.models import Model, continuations
from diascope.storage.files import commit_file, read_json, reading, write_json
from diascope.storage.lock import held
from diascope.tokens.corpora import Document, open_corpus

PART = 64  # conversations


@dataclass(frozen=True)
class Rollouts:
    """Which conversations to sample."""

    prompts: str = "questions"
    """Texts that are asked, one a document: a packaged corpus, a .txt (parted by blank lines), .jsonl or .parquet file."""
    field: str = "text"
    """Text column of jsonl and parquet."""
    count: int = 1024
    """Conversations; the prompts are drawn by key."""
    max_new_tokens: int = 128
    """Longest answer."""
    temperature: float = 1.0
    """1 samples from the model's own distribution, 0 always takes the most likely token."""
    system: str = ""
    """System message before every prompt; empty leaves the template's own."""
    seed: int = 0
    """Seed of the choice of prompts and of the sampling."""
    batch: int = 32
    """Conversations sampled side by side."""

    def __post_init__(self) -> None:
        within("conversations", self.count, 1, 2**40)
        within("max_new_tokens", self.max_new_tokens, 1, 2**20, "tokens")
        within("temperature", self.temperature, 0, 100)
        within("batch", self.batch, 1, 2**16, "conversations")


def rollouts(
    model: Model, config: Rollouts, folder: str | Path, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Sample the conversations of `config` into `folder` and return its rollouts.jsonl; goes on where it was interrupted.

    Raises ValueError when the model has no chat template, or `folder` holds other conversations.
    """
    folder, chosen = Path(folder), _chosen(config)
    identity = {
        "model": model.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "config": to_data(config),
        "prompts": config_hash([[d.name, d.text] for d in chosen]),
    }
    done = folder / "rollouts.jsonl"
    if (folder / "rollouts.json").exists() and read_json(folder / "rollouts.json") != identity:
        raise ValueError(
            f"{folder} holds conversations of another model, sampling or prompts: choose another folder, or delete it"
        )
    if done.exists():
        with reading(done, f"delete it, {folder / 'rollouts.json'} and {folder / 'parts'}"):
            if (folder / "rollouts.json").exists() and done.read_bytes().count(b"\n") == len(chosen):
                return done
            raise ValueError(f"{done} does not hold the {len(chosen)} conversations that were asked for")
    _asked(model, config, chosen[0])  # a model without a template is told apart before anything is written
    with held(folder):
        parts = _sampled(model, config, chosen, folder, identity, progress)
        with commit_file(done) as work:
            work.write_text("".join(p.read_text(encoding="utf-8") for p in parts), encoding="utf-8")
    return done


def _sampled(
    model: Model,
    config: Rollouts,
    chosen: list[Document],
    folder: Path,
    identity: dict[str, Any],
    progress: Callable[[int, int], None],
) -> list[Path]:
    """All parts, those that are missing or damaged sampled now."""
    parts = []
    for number, start in enumerate(range(0, len(chosen), PART)):
        path, here = folder / "parts" / f"{number:06d}.jsonl", chosen[start : start + PART]
        if not _sound(path, len(here)):
            lines = _part(model, config, here, lambda n, s=start: progress(s + n, len(chosen)))
            write_json(folder / "rollouts.json", identity)  # only now: what cannot be sampled claims no folder
            with commit_file(path) as work:
                work.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        progress(start + len(here), len(chosen))
        parts.append(path)
    return parts


def _sound(path: Path, conversations: int) -> bool:
    """Whether a part is there and whole; one that is damaged is sampled again."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return False
    return len(lines) == conversations and all(isinstance(line, dict) and "messages" in line for line in lines)


def _chosen(config: Rollouts) -> list[Document]:
    documents = list(
        {d.text.strip(): d for d in open_corpus(config.prompts, field=config.field).documents if d.text.strip()}.values()
    )
    if not documents:
        raise ValueError(f"{config.prompts} holds no prompts: conversations need texts to ask")
    order = rng.generator(config.seed, "prompts").permutation(len(documents))
    return [documents[i] for i in order[: config.count]]


def _asked(model: Model, config: Rollouts, prompt: Document) -> tuple[list[dict[str, str]], list[int]]:
    messages = [{"role": "system", "content": config.system}] if config.system else []
    messages.append({"role": "user", "content": prompt.text.strip()})
    return messages, model.chat_tokens(messages)


def _part(model: Model, config: Rollouts, prompts: list[Document], progress: Callable[[int], None]) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for start in range(0, len(prompts), config.batch):
        here = prompts[start : start + config.batch]
        asked = [_asked(model, config, p) for p in here]
        seeds = [rng.key(config.seed, "rollout", p.name) >> 1 for p in here]
        answers = continuations(
            model,
            [tokens for _, tokens in asked],
            max_new_tokens=config.max_new_tokens,
            seeds=seeds,
            temperature=config.temperature,
        )
        for prompt, (messages, _), answer in zip(here, asked, answers, strict=True):
            said = {"role": "assistant", "content": model.tokenizer.decode(answer).strip()}
            lines.append({"prompt": prompt.name, "messages": [*messages, said]})
        progress(start + len(here))
    return lines
