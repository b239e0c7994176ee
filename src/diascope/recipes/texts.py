"""The texts of a run: what is harvested, what thresholds are set on, what judges them. A held-out document is in one of the last two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from diascope import rng
from diascope.models import Model
from diascope.recipes.recipe import RunRecipe
from diascope.tokens import Corpus, Document, Sequences, open_corpus, pack, split

OWN = "workspace:"  # before the path of a text that lies in the workspace itself
Say = Callable[[int, int, str], None]  # (done, total, what)


class Texts:
    """The texts that `recipe` names, opened and packed when first needed."""

    def __init__(self, recipe: RunRecipe, workspace: Path, model: Callable[[], Model], say: Callable[[], Say]) -> None:
        self.recipe, self.workspace, self._model, self._say = recipe, workspace, model, say

    @cached_property
    def corpus(self) -> Corpus:
        """The training text, held-out documents included."""
        say = self._say()
        say(0, 0, self.recipe.corpus)
        corpus = open_corpus(self._place(self.recipe.corpus), field=self.recipe.field)
        say(1, 1, f"{corpus.name}, {len(corpus.documents)} documents")
        return corpus

    @cached_property
    def training(self) -> Sequences:
        """What is harvested. Says where it is too short for the recipe, or for a dictionary's width."""
        r = self.recipe
        documents, _ = split(self.corpus, held_out=r.held_out, seed=r.seed)
        if not documents:
            raise ValueError("every document is held out: lower the held-out share, or give more documents")
        packed = pack(self._model(), documents, context=r.context, max_tokens=r.tokens, seed=r.seed)
        found = packed.tokens.size
        if found < 0.9 * r.tokens:
            self._health(f"{r.corpus} gives {found:,} of {r.tokens:,} tokens: ask for {found} so that the schedule fits")
        for m in (m for m in r.training.members if m.d_sae > found / 4):
            self._health(
                f"{m.name} has {m.d_sae:,} latents for {found:,} tokens: most will die; give more text or fewer latents"
            )
        return packed

    @cached_property
    def calibration(self) -> list[Sequences]:
        """Each calibration text, packed: the same share of each."""
        r = self.recipe
        texts = self._documents(r.calibration, "calibrate")
        return [self._packed(r.calibration, text, max(r.calibration_tokens // len(texts), r.context)) for text in texts]

    @cached_property
    def evaluation(self) -> Sequences:
        """The evaluation text, packed."""
        r = self.recipe
        documents = [d for text in self._documents(r.eval_corpus, "evaluate") for d in text]
        return self._packed(r.eval_corpus, documents, r.eval_tokens)

    def _health(self, line: str) -> None:
        self._say()(0, 0, f"health: {line}")

    def _packed(self, name: str, documents: Sequence[Document], tokens: int) -> Sequences:
        try:
            return pack(self._model(), documents, context=self.recipe.context, max_tokens=tokens, seed=self.recipe.seed)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _held_out(self, use: str) -> list[Document]:
        """Held-out documents, in two halves by a second hash: thresholds are set on one and judged on the other."""
        documents = split(self.corpus, held_out=self.recipe.held_out, seed=self.recipe.seed)[1]
        chosen = [d for d in documents if (rng.unit_hash(self.recipe.seed, f"half {d.name}") < 0.5) == (use == "calibrate")]
        if not chosen:
            raise ValueError(
                f"no held-out document is left to {use} on ({len(documents)} of {len(self.corpus.documents)} are held out): "
                "give more documents, or where it can be set, raise the held-out share"
            )
        return chosen

    def _place(self, name: str) -> str:
        """A text that the run itself made is named from its workspace, so that this can be moved."""
        return str(self.workspace / name.removeprefix(OWN)) if name.startswith(OWN) else name

    def _documents(self, names: str, use: str) -> list[Sequence[Document]]:
        """The documents of each text in `names` (joined by "+"); "held-out" is this run's own."""
        parts = [names] if Path(names).exists() else names.split("+")
        return [self._held_out(use) if n == "held-out" else open_corpus(n, field=self.recipe.field).documents for n in parts]
