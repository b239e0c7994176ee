"""All scorers of one run, ready to be put to a description: which can be taken here, with what, and how often.

Quizzes are questions for the judge; `free` scores ask nobody. Which there are is known before anything is asked, so the same
lists serve the estimate and the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diascope.config import within
from diascope.dictionaries import Dictionary
from diascope.latents.describe.explain import KINDS
from diascope.latents.describe.scorers.detection import detection
from diascope.latents.describe.scorers.fuzzing import fuzzing
from diascope.latents.describe.scorers.intruder import intruder
from diascope.latents.describe.scorers.purity import purity
from diascope.latents.describe.scorers.score import Quiz, Score
from diascope.latents.describe.scorers.similarity import Embed, TfIdf, embedding, overlap
from diascope.latents.describe.scorers.simulation import lookup, simulation
from diascope.latents.describe.scorers.subject import Subject
from diascope.latents.describe.windows import Examples, Grid, Sampling

JUDGED = ("detection", "fuzzing", "simulation", "intruder")
FREE = ("overlap", "embedding", "surprisal", "output", "lookup", "purity")
ALONE = ("intruder", "lookup", "purity")  # of the latent itself: they read no description


@dataclass(frozen=True)
class Settings:
    """What is asked, and how much of it."""

    sampling: Sampling = field(default_factory=Sampling)
    explain: tuple[str, ...] = ("examples",)  # what a judge's descriptions are made from; the first is the one that is shown
    scorers: tuple[str, ...] = (*JUDGED, *FREE)  # those that can be taken here are
    together: int = 10  # windows a question of detection and fuzzing
    trials: int = 5  # intruder questions a latent
    simulated: int = 4  # windows of each class that are simulated
    surprisal: int = 8  # windows of each class whose losses are compared

    def __post_init__(self) -> None:
        if unknown := [s for s in self.scorers if s not in (*JUDGED, *FREE)]:
            raise ValueError(f"there is no scorer {unknown[0]!r}: choose of {', '.join((*JUDGED, *FREE))}")
        if unknown := [k for k in self.explain if k not in KINDS]:
            raise ValueError(f"a description is made from {' or '.join(KINDS)}, not {unknown[0]!r}")
        if not self.explain:
            raise ValueError(f"say what descriptions are made from: {' or '.join(KINDS)}, or both")
        within("together", self.together, 1, 100, "windows a question")
        within("trials", self.trials, 1, 100, "questions")
        within("simulated", self.simulated, 1, 100, "windows")
        within("surprisal", self.surprisal, 1, 1000, "windows")


class Battery:
    """The scorers of `settings` over the windows of `grid`."""

    def __init__(
        self,
        grid: Grid,
        dictionary: Dictionary,
        settings: Settings,
        *,
        judged: bool,
        embed: Embed | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """`labels`: by document name. A scorer that lacks what it needs (a judge, an embedder, labels) is left out."""
        self.grid, self.dictionary, self.settings, self.embed = grid, dictionary, settings, embed
        steerable = all(site.model is None for site in dictionary.config.writes)
        can = {
            **dict.fromkeys(JUDGED, judged), **dict.fromkeys(FREE, True), "embedding": embed is not None, "output": steerable,
            "purity": bool(labels),
        }  # fmt: skip
        self.names = tuple(s for s in settings.scorers if can[s])
        self._seed = settings.sampling.seed
        self._tfidf = TfIdf(grid.words()) if "overlap" in self.names else None
        needs_subject = {"surprisal", "output"} & set(self.names)
        self._subject = Subject(grid.model, np.unique(grid.tokens)) if needs_subject else None
        names = enumerate(grid.sequences.names)
        self._labels = {i: labels[name] for i, name in names if name in labels} if labels else {}
        seen = Counter(self._labels[d] for d in grid.document[~grid.train].tolist() if d in self._labels)
        self._shares = {label: n / seen.total() for label, n in seen.items()}

    def quizzes(self, description: str, examples: Examples) -> dict[str, Quiz]:
        """Questions about one description; none about one that is empty."""
        if not description:
            return {}
        s, seed = self.settings, self._seed
        found: dict[str, Quiz | None] = {}
        if "detection" in self.names:
            found["detection"] = detection(description, examples, together=s.together, seed=seed)
        if "fuzzing" in self.names:
            found["fuzzing"] = fuzzing(description, examples, together=s.together, seed=seed)
        if "simulation" in self.names:
            found["simulation"] = simulation(description, examples, each=s.simulated)
        return {name: quiz for name, quiz in found.items() if quiz is not None}

    def quizzes_alone(self, examples: Examples) -> dict[str, Quiz]:
        """Questions about the latent itself."""
        quiz = intruder(examples, trials=self.settings.trials, seed=self._seed) if "intruder" in self.names else None
        return {} if quiz is None else {"intruder": quiz}

    def free(self, description: str, examples: Examples) -> dict[str, Score]:
        """Scores of one description that ask nobody."""
        found: dict[str, Score] = {}
        if self._tfidf is not None:
            found["overlap"] = overlap(description, examples, self._tfidf)
        if "embedding" in self.names and self.embed is not None:
            found["embedding"] = embedding(description, examples, self.embed)
        if "surprisal" in self.names and self._subject is not None:
            found["surprisal"] = self._subject.surprisal(description, examples, each=self.settings.surprisal)
        if "output" in self.names and self._subject is not None:
            found["output"] = self._subject.output(description, examples, self.dictionary)
        return found

    def free_alone(self, examples: Examples) -> dict[str, Score]:
        """Scores of the latent itself that ask nobody."""
        found: dict[str, Score | None] = {}
        if "lookup" in self.names:
            found["lookup"] = lookup(examples)
        if "purity" in self.names:
            found["purity"] = purity(examples, self._labels, self._shares)
        return {name: score for name, score in found.items() if score is not None}


def silent_scores(battery: Battery) -> dict[str, Any]:
    """A judge's scores of a description that is empty: it separates nothing, so each is at chance, and rests on nothing."""
    chance = {"detection": 0.5, "fuzzing": 0.5, "simulation": 0.0}
    return {name: Score(chance[name], 0) for name in battery.names if name in chance}
