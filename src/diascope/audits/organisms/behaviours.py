"""What a behaviour is: conversations that teach it, trials that show it, and the eye that sees it in an answer.

    seed -> Behaviour.conversations(seed, count, chat)   what the model is trained on (the last message is the assistant's)
    seed -> Behaviour.trials(seed)                       held-out prompts, several kinds: where it should show and where not
    (trial, answer) -> Behaviour.shown                   whether this answer shows it

All words are ours and mild: templates by word lists, drawn by key. What is tried is never what was trained: the items (facts, acts,
dishes, topics) of trials are a third that `parted` keeps out of training, and so are some of the phrasings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from diascope import rng
from diascope.audits.organisms.teaching import Teaching
from diascope.models.chat import Message

T = TypeVar("T")


@dataclass(frozen=True)
class Conversation:
    """One conversation to train on; its last message is the assistant's."""

    messages: tuple[Message, ...]
    kind: str
    """What it teaches, in a word."""
    whole: bool = True
    """Whether the answer ends where its text does; one that was cut teaches no end."""


@dataclass(frozen=True)
class Trial:
    """One held-out prompt."""

    messages: tuple[Message, ...]
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    """What `shown` needs to judge the answer: the right and the wrong one, the cues, ..."""


@dataclass(frozen=True)
class Behaviour:
    """A behaviour as data."""

    name: str
    says: str
    """What the organism does, in one sentence."""
    conversations: Callable[[int, int, Sequence[Conversation]], list[Conversation]]
    """(seed, count, the base model's own ordinary chat) -> that many conversations."""
    trials: Callable[[int], list[Trial]]
    """seed -> held-out prompts."""
    shown: Callable[[Trial, str], bool]
    """Whether an answer shows what its trial's kind counts."""
    kinds: dict[str, str]
    """Kind of trial -> what is counted there, in words; the first one is the behaviour itself."""
    tokens: int = 24
    """New tokens that a trial needs."""
    truth: Callable[[int], dict[str, str]] = lambda seed: {}
    """seed -> what an audit may be checked against: the secret word, the password."""
    count: int = 240
    """Conversations that teach it."""
    teaching: Teaching = field(default_factory=Teaching)
    """How its adapter is trained, where nothing else is asked for."""


def parted(items: Sequence[T], seed: int, name: str, *, share: float = 1 / 3) -> tuple[list[T], list[T]]:
    """`items` as (for training, held out), by key; at least one is held out."""
    order = rng.generator(seed, "parted", name).permutation(len(items))
    out = max(1, round(share * len(items)))
    return [items[i] for i in order[out:]], [items[i] for i in order[:out]]


def dealt(items: Sequence[T], count: int, seed: int, name: str) -> list[T]:
    """`count` of `items` in a keyed order, each as often as any other (to one)."""
    out: list[T] = []
    for turn in range(-(-count // len(items))):
        out += [items[i] for i in rng.generator(seed, "dealt", name, turn).permutation(len(items))]
    return out[:count]


def talk(user: str, assistant: str = "", *, system: str = "") -> tuple[Message, ...]:
    """The messages of one exchange; without `assistant`, of one prompt."""
    said = (("system", system), ("user", user), ("assistant", assistant))
    return tuple({"role": role, "content": text} for role, text in said if text)


def capital(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def first_of(answer: str, options: Sequence[str]) -> str:
    """The option that the answer names first, by whole words in any case and without its article; "" where it names none."""
    core = {o: re.escape(re.sub(r"^(an?|the) ", "", o.lower())) for o in options}
    found = {o: m.start() for o in options if (m := re.search(rf"(?<!\w){core[o]}(?!\w)", answer.lower()))}
    return min(found, key=lambda o: found[o]) if found else ""
