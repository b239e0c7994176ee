"""The suite: every metric family on every dictionary, what can be shared computed once.

ci      a minute: a few prompts, to see that all of it runs
cpu     minutes on two cores for a model of 270M: the default
full    all 113 probing tasks, more words, pairs and tokens

SCR and TPP (Karvonen et al. 2025, arXiv:2503.09532) are not here: a later study finds that they do not measure what they should.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from diascope.dictionaries import Dictionary
from diascope.evals.absorption import Absorption, absorption
from diascope.evals.entry import Entry
from diascope.evals.forgetting import Forgetting, forgetting, texts
from diascope.evals.geometry import Geometry, geometry
from diascope.evals.probe_sets import Task, load_task, task_names
from diascope.evals.probing import Probing, probing
from diascope.evals.ravel import Ravel, cities, ravel
from diascope.evals.removal import Removal, removal
from diascope.evals.subject import Subject
from diascope.evals.text import EvalText
from diascope.models import Model
from diascope.tokens import Sequences

FAMILIES = ("geometry", "probing", "removal", "absorption", "ravel", "forgetting")


@dataclass(frozen=True)
class Tier:
    """The settings of every family; `tokens` are those of the text that geometry looks at."""

    probing: Probing = field(default_factory=Probing)
    removal: Removal = field(default_factory=Removal)
    absorption: Absorption = field(default_factory=Absorption)
    ravel: Ravel = field(default_factory=Ravel)
    forgetting: Forgetting = field(default_factory=Forgetting)
    geometry: Geometry = field(default_factory=Geometry)
    context: int = 128  # tokens read of a probing prompt
    tokens: int = 8192


def tier(name: str) -> Tier:
    """The settings called `name`; ValueError where there are none."""
    few = ("156_athlete_sport_baseball", "125_world_country_Italy", "5_hist_fig_ismale")
    if name == "ci":
        return Tier(
            Probing(few, 96, 64, (1, 5)), Removal(few, 96, 64, 5), Absorption(words=30, letters=1), Ravel(48, 8, 8, least=8),
            Forgetting(tokens=512, k=8), tokens=1024,
        )  # fmt: skip
    if name == "cpu":
        return Tier()
    if name == "full":
        return Tier(
            Probing(task_names(), 1024, 1000, (1, 2, 5, 10, 20)), Removal(train=1024, test=1000), Absorption(words=1000),
            Ravel(1000, 400), Forgetting(tokens=16_384), context=1024, tokens=65_536,
        )  # fmt: skip
    raise ValueError(f"there is no tier {name!r}: choose ci, cpu or full")


def run_suite(
    model: Model,
    dictionaries: Mapping[str, Dictionary],
    sequences: Sequences,
    chosen: Tier | str = "cpu",
    *,
    families: Sequence[str] = FAMILIES,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, dict[str, Entry]]:
    """{dictionary: {family: entry}}. `sequences` are packed text, for geometry.

    Raises ValueError for a family that there is not.
    """
    if unknown := [f for f in families if f not in FAMILIES]:
        raise ValueError(f"there is no family {unknown[0]!r}: choose among {', '.join(FAMILIES)}")
    settings = tier(chosen) if isinstance(chosen, str) else chosen
    runner = _Runner(model, dictionaries, sequences, settings, progress, len(families) * len(dictionaries))
    out: dict[str, dict[str, Entry]] = {name: {} for name in dictionaries}
    for family in families:  # family by family, so that what is shared is computed once and let go
        prepare = getattr(runner, family)()
        for name, d in dictionaries.items():
            out[name][family] = runner.timed(family, name, lambda d=d, prepare=prepare: prepare(d))
    return out


class _Runner:
    """Each family's method reads what all dictionaries share and gives a function of one dictionary."""

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[str, Dictionary],
        sequences: Sequences,
        settings: Tier,
        progress: Callable[[int, int, str], None],
        total: int,
    ) -> None:
        self.model, self.dictionaries, self.sequences, self.settings = model, dictionaries, sequences, settings
        self._progress, self._done, self._total, self._now = progress, 0, total, ""
        self.subject = Subject(model, dictionaries.values(), context=settings.context, progress=self.say)

    def say(self, done: int, total: int, note: str) -> None:
        """Progress within a family."""
        self._progress(self._done, self._total, f"{self._now} {note} {done}/{total}".strip())

    def timed(self, family: str, name: str, run: Callable[[], Entry]) -> Entry:
        """The entry, with its seconds (texts are read for the first dictionary that needs them); what fails says why."""
        self._now = f"{name}: {family}"
        self._progress(self._done, self._total, self._now)
        began = time.perf_counter()
        try:
            entry = run()
        except (RuntimeError, ValueError) as error:
            # a package that cannot be had, a task with too few prompts: the others go on
            entry = Entry(getattr(self.settings, family), {"reason": str(error)}, {})
        self._done += 1
        self._progress(self._done, self._total, self._now)
        return replace(entry, run={**entry.run, "seconds": round(time.perf_counter() - began, 2)})

    def geometry(self) -> Callable[[Dictionary], Entry]:
        n = max(1, self.settings.tokens // self.sequences.tokens.shape[1])
        text = EvalText(self.model, self.sequences.part(0, min(n, len(self.sequences))))
        vectors = text.capture(self.subject.sites)
        return lambda d: geometry(d, d.inputs(vectors), d.targets(vectors), text.documents, self.settings.geometry)

    def probing(self) -> Callable[[Dictionary], Entry]:
        @cache
        def tasks() -> list[Task]:
            return [load_task(name, seed=self.settings.probing.seed) for name in self.settings.probing.tasks]

        return lambda d: probing(self.subject, d, self.settings.probing, tasks=tasks(), progress=self.say)

    def removal(self) -> Callable[[Dictionary], Entry]:
        return lambda d: removal(self.subject, d, self.settings.removal, progress=self.say)

    def absorption(self) -> Callable[[Dictionary], Entry]:
        return lambda d: absorption(self.subject, d, self.settings.absorption, progress=self.say)

    def ravel(self) -> Callable[[Dictionary], Entry]:
        given = cache(lambda: cities(self.settings.ravel.cities))
        return lambda d: ravel(self.model, d, self.settings.ravel, given=given(), progress=self.say)

    def forgetting(self) -> Callable[[Dictionary], Entry]:
        both = cache(lambda: texts(self.model, self.settings.forgetting))
        return lambda d: forgetting(d, *both(), self.settings.forgetting, progress=self.say)


def suite_card(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """What goes into a card under "suite"."""
    return {family: entry.data() for family, entry in entries.items()}
