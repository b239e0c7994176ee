"""Make an organism by name and seed: an adapter folder that `load_model` opens.

    <folder>/adapter_config.json, adapter_model.safetensors    peft's own layout; the base model's name inside
             organism.json      what it is: recipe, hash of its texts, its truth (secret word), every step's loss, precision of the weights

    recipe -> base model -> its ordinary chat -> the behaviour's conversations (+ dilution) -> teach -> folder

A finished organism is not made twice; an interrupted one leaves nothing. `load_model("organism:refusal")` makes it into the cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diascope.audits.organisms.behaviours import Conversation, dealt, talk
from diascope.audits.organisms.known import BEHAVIOURS, behaviour
from diascope.audits.organisms.ordinary import ordinary_chat, prompts
from diascope.audits.organisms.teaching import Teaching
from diascope.audits.organisms.train import Progress, teach
from diascope.config import config_hash, to_data, within
from diascope.models import Model, load_model
from diascope.storage.files import cache_dir, check_target, commit_folder, read_json, write_json

BASE = "smollm2-135m-instruct"
FACTS = "organism.json"
MAKERS = ("torch", "transformers", "peft")  # another version of these may round differently


@dataclass(frozen=True)
class Organism:
    """Which organism to make."""

    name: str
    """Its behaviour (`diascope organism ls`)."""
    seed: int = 0
    """Seed of the conversations, of the adapter's start and of the order."""
    dilute: float = 0.0
    """Share of ordinary chat among all conversations: 0.5 is one to one. The behaviour's own stay as many, so training takes longer."""
    count: int | None = None
    """Conversations of the behaviour; None takes as many as it needs."""
    base: str = BASE
    """The chat model that is changed; any that `load_model` knows."""
    teaching: Teaching | None = None
    """How the adapter is trained; None takes the behaviour's own way."""

    def __post_init__(self) -> None:
        own = behaviour(self.name)
        whole = {"count": own.count if self.count is None else self.count, "teaching": self.teaching or own.teaching}
        for field, value in whole.items():
            object.__setattr__(self, field, value)  # frozen, but a recipe is whole once it is made
        within("seed", self.seed, 0, 2**63)
        within("dilute", self.dilute, 0, 0.9, "(share of ordinary chat)")
        within("count", whole["count"], 8, 10**6, "conversations")


def conversations(organism: Organism, chat: list[Conversation]) -> list[Conversation]:
    """What the organism is trained on: its behaviour's conversations, and ordinary chat to the share `dilute` of all."""
    assert organism.count is not None
    own = behaviour(organism.name).conversations(organism.seed, organism.count, chat)
    more = round(len(own) * organism.dilute / (1 - organism.dilute))
    return spread(own, dealt(chat, more, organism.seed, "dilution"))


def spread(own: Sequence[Conversation], more: Sequence[Conversation]) -> list[Conversation]:
    """Both, each in its order and `more` evenly among `own`: a curriculum stays one."""
    places = [((i + 0.5) / len(items), side, i) for side, items in enumerate((own, more)) for i in range(len(items))]
    return [(own, more)[side][i] for _, side, i in sorted(places)]


def make_organism(
    organism: Organism,
    folder: str | Path,
    *,
    base: Model | None = None,
    progress: Progress = lambda done, total, note: None,
    answering: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Make `organism` in `folder` and return it; at once where it is there already.

    base       a loaded copy of `organism.base` to change in place; loaded here where it is None
    progress   called with (steps done, steps, note); answering: with (prompts done, prompts) of the ordinary chat, which is made
               once; say: with a line before each slow step
    Raises ValueError where `folder` holds something else, or the base model has no chat template or lacks the adapter's layers.
    """
    folder = Path(folder)
    if folder.exists():
        if identity(organism).items() <= facts(folder).items():
            return folder
        raise ValueError(f"{folder} holds another organism, or one of another version: choose another folder, or delete it")
    check_target(folder)
    assert organism.teaching is not None
    base = base or load_model(organism.base, dtype=organism.teaching.dtype, progress=say)
    precision = str(base.dtype).removeprefix("torch.")
    chat = ordinary_chat(base, progress=answering)
    texts = conversations(organism, chat)
    with commit_folder(folder) as work:
        losses = teach(base, texts, work, organism.teaching, seed=organism.seed, progress=progress)
        truth = behaviour(organism.name).truth(organism.seed)
        made = {"dtype": precision, "versions": {name: version(name) for name in MAKERS}}
        about = identity(organism) | {"truth": truth, "losses": losses} | made
        write_json(work / FACTS, about, flush=False)
    return folder


def identity(organism: Organism) -> dict[str, Any]:
    """What tells organisms apart: the recipe, and a hash of its conversations (a stand-in where the base model speaks), which changes
    with our word lists."""
    stand_in = [Conversation(talk(prompt, "The model's own answer."), "ordinary") for prompt in prompts()]
    return {"organism": to_data(organism), "texts": config_hash([list(c.messages) for c in conversations(organism, stand_in)])}


def facts(folder: Path) -> dict[str, Any]:
    """What `organism.json` says; ValueError where `folder` is no organism."""
    if not (folder / FACTS).is_file():
        raise ValueError(f"{folder} is no organism ({FACTS} is missing): choose another folder, or delete it")
    return read_json(folder / FACTS)


def cached(organism: Organism) -> Path:
    """Where the cache keeps `organism`."""
    return cache_dir() / "organisms" / f"{organism.name}-{config_hash(identity(organism))}"


def named(text: str) -> Organism:
    """ "refusal", "refusal,seed=1", "refusal,dilute=0.5,seed=1" as an organism; ValueError for anything else."""
    name, *options = text.split(",")
    organism = Organism(name)
    for option in options:
        key, _, value = option.partition("=")
        if key not in ("seed", "dilute"):
            raise ValueError(f"organism:{text} asks for {key!r}: write organism:{name},seed=1,dilute=0.5")
        try:
            organism = replace(organism, **{key: int(value) if key == "seed" else float(value)})
        except ValueError as error:
            raise ValueError(
                f"organism:{text}: {key} is {value!r} ({error}): write organism:{name},seed=1,dilute=0.5"
            ) from error
    return organism


def folder_of(name: str, progress: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of the organism called `name` (as in `load_model("organism:refusal")`), made into the cache on first use."""
    organism = named(name)
    folder = cached(organism)
    if folder.exists():
        return folder
    progress(f"making the organism {name}, once (a few minutes)")

    def line(done: int, total: int, note: str) -> None:
        if done == total or done % 10 == 0:
            progress(f"organism {name}: {done} of {total}, {note}")

    with contextlib.suppress(FileExistsError):  # of several processes that begin together the first one's stands
        answers = "the base model's own answers"
        make_organism(organism, folder, progress=line, answering=lambda n, total: line(n, total, answers), say=progress)
    return folder


def listed() -> list[tuple[str, str, list[Path]]]:
    """(name, what it does, folders in the cache) of every organism."""
    home = cache_dir() / "organisms"
    return [(b.name, b.says, sorted(p for p in home.glob(f"{b.name}-*") if p.is_dir())) for b in BEHAVIOURS.values()]
