"""Describe latents and score the descriptions: from a dictionary and a text to a folder that says what they are worth.

    <folder>/describe.json       identity: model, dictionary, text, settings, latents, judge
             firings.safetensors the firings of these latents: the text is swept once
             answers.jsonl       every answer of the judge, by the hash of its question
             descriptions.jsonl  one line a latent: template, the judge's descriptions
             scores.jsonl        one line a latent: scores of every description, of the control, and of the latent itself
             sessions.jsonl      what each session found in memory, and its failed attempts
             report.json         means over latents with intervals

1. One sweep; latents are drawn by key among those that can be scored; windows of training and test documents.
2. The estimate is given to `before`, which may raise to stop it: nothing that costs has been asked then.
3. Descriptions of all latents. Then scores, the shuffled control being each latent under the description of another.
4. Lines are appended as they come and answers are remembered: the same call goes on where it was broken off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diascope import rng
from diascope.config import config_hash, to_data
from diascope.dictionaries import Dictionary
from diascope.latents.describe.ahead import ahead
from diascope.latents.describe.battery import Battery, Settings, silent_scores
from diascope.latents.describe.estimate import Estimate, estimate
from diascope.latents.describe.explain import MAX_TOKENS, description, from_examples, from_outputs
from diascope.latents.describe.ground import Ground
from diascope.latents.describe.judge import Judge, Replay
from diascope.latents.describe.lines import Lines
from diascope.latents.describe.report import summary
from diascope.latents.describe.scorers.score import Score, conversation, take
from diascope.latents.describe.scorers.similarity import Embed
from diascope.latents.describe.template import template
from diascope.latents.describe.windows import Examples, Grid, gather
from diascope.latents.logits import direct_logits, has_direct_logits
from diascope.models import Model
from diascope.storage.files import check_target, write_json
from diascope.storage.lock import held
from diascope.tokens import Sequences

PATIENCE = 10.0  # seconds that questions have to be answered which are out when the run stops
Progress = Callable[[str, int, int, str], None]  # stage, done, total, note


def describe(
    model: Model,
    dictionary: Dictionary,
    sequences: Sequences,
    folder: str | Path,
    *,
    latents: int | Sequence[int] = 100,
    judge: Judge | None = None,
    settings: Settings | None = None,
    embed: Embed | None = None,
    labels: Mapping[str, str] | None = None,
    prices: tuple[float, float] | None = (0.0, 0.0),
    before: Callable[[Estimate], None] = lambda estimate: None,
    progress: Progress = lambda stage, done, total, note: None,
) -> dict[str, Any]:
    """Describe and score `latents` of `dictionary` over packed `sequences`; returns (and writes) the report.

    latents   how many to draw, or which
    judge     None: the template alone, with the scores that need no judge
    embed     texts to unit vectors, with a `name` (`describe.embedder.MiniLM()`); None leaves that score out
    labels    of documents by name, for label purity
    prices    of a million tokens of the judge, in and out; None where they are not known
    before    called with the estimate before the judge is asked anything (but one question for its time, where it is free);
              raise to stop

    Raises ValueError for latents that cannot be scored and for a folder of another run; JudgeDown where the judge gives no
    answers any more (the same call goes on later).
    """
    settings = settings or Settings()
    check_target(Path(folder) / "report.json")
    with held(folder):
        run = _Run(model, dictionary, sequences, Path(folder), judge, settings, prices, progress)
        run.prepare(latents, embed, labels)
        try:
            if run.judge is not None and run.left():
                before(run.estimate())
            run.describe_all()
            run.score_all()
        finally:
            run.close()
        return run.report()


class _Run:
    """One session of a run."""

    def __init__(
        self,
        model: Model,
        dictionary: Dictionary,
        sequences: Sequences,
        folder: Path,
        judge: Judge | None,
        settings: Settings,
        prices: tuple[float, float] | None,
        progress: Progress,
    ) -> None:
        self.model, self.dictionary, self.sequences, self.folder = model, dictionary, sequences, folder
        self.settings, self.prices, self.progress = settings, prices, progress
        self.kinds = settings.explain if judge is not None else ()
        if "outputs" in self.kinds and not has_direct_logits(dictionary):
            raise ValueError(
                f"{dictionary.config.title} does not write to the residual stream, so its output effects are not known "
                "directly: make descriptions from examples"
            )
        self.judge = None if judge is None else Replay(judge, folder / "answers.jsonl")
        self._failures = 0 if judge is None else judge.failures  # a judge may have served before
        self._began = time.perf_counter()
        self._described, self._scored = Lines(folder / "descriptions.jsonl"), Lines(folder / "scores.jsonl")

    # -- 1
    def prepare(self, latents: int | Sequence[int], embed: Embed | None, labels: Mapping[str, str] | None) -> None:
        """Sweep, draw, gather; ValueError where the folder holds another run."""
        settings, judged = self.settings, self.judge is not None
        own = {
            "settings": to_data(settings), "judge": None if self.judge is None else self.judge.name,
            "embedder": None if embed is None else getattr(embed, "name", "unnamed"), "labels": config_hash(dict(labels)) if labels else None,
        }  # fmt: skip
        ground = Ground(self.model, self.dictionary, self.sequences, self.folder, own)
        said = partial(self.progress, "sweep")
        self.latents, grid = ground.begin(
            latents, settings.sampling, progress=lambda n, total: said(n, total, "finding firings")
        )
        self.examples = gather(grid, self.latents, progress=lambda done, n: self.progress("windows", done, n, ""))
        self.battery = Battery(grid, self.dictionary, settings, judged=judged, embed=embed, labels=labels)
        self.top, self.bottom = self._promoted(grid)
        self.rows = (*self.kinds, "template", *(("shuffled",) if len(self.latents) > 1 else ()))
        self.identity = ground.stand(self.latents)  # only now: what cannot be run leaves no trace
        self.known: dict[int, dict[str, str]] = {line["latent"]: line["texts"] for line in self._described.read()}
        self.lines: dict[int, dict[str, Any]] = {line["latent"]: line for line in self._scored.read()}

    def _promoted(self, grid: Grid) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        """Tokens that each latent promotes and suppresses, among those of the text."""
        if not has_direct_logits(self.dictionary):
            return {}, {}
        seen = torch.from_numpy(np.unique(grid.tokens)).long()
        found = direct_logits(self.model, self.dictionary, vocabulary=seen)
        return tuple({j: [grid.text(int(t)) for t in found[side][j]] for j in self.latents} for side in ("top", "bottom"))  # type: ignore[return-value]

    # -- 2
    def left(self) -> list[int]:
        """Latents that have no line of scores yet."""
        return [j for j in self.latents if j not in self.lines]

    def estimate(self) -> Estimate:
        """What is left to ask, at most. Where nothing costs, one question is asked for its time (and remembered)."""
        left = self.left()
        sample = [self.examples[j] for j in left[:8]]
        free = self.prices is not None and not any(self.prices)
        seconds = self._timed(left[0]) if free else None
        assert self.judge is not None
        return estimate(
            self.battery,
            [list(self._questions(e.latent).values()) for e in sample],
            [self._template(e) for e in sample],
            [self.examples[j] for j in left],
            len(self.rows),
            prices=self.prices or (0.0, 0.0),
            seconds_a_request=seconds,
            parallel=self.judge.parallel,
        )

    def _timed(self, latent: int) -> float | None:
        assert self.judge is not None
        asked = conversation(next(iter(self._questions(latent).values())))
        if (asked, MAX_TOKENS) in self.judge:
            return None
        began = time.perf_counter()
        self.judge.text(asked, MAX_TOKENS)
        return time.perf_counter() - began

    # -- 3
    def _questions(self, latent: int) -> dict[str, str]:
        made = {
            "examples": lambda: from_examples(self.examples[latent]),
            "outputs": lambda: from_outputs(self.top[latent], self.bottom[latent]),
        }
        return {kind: made[kind]() for kind in self.kinds}

    def _template(self, examples: Examples) -> str:
        return template(examples.profile, self.top.get(examples.latent, ()))

    def describe_all(self) -> None:
        """A line for every latent that has none."""
        left = [j for j in self.latents if j not in self.known]

        def texts(latent: int) -> dict[str, str]:
            found = {}
            for kind, question in self._questions(latent).items():
                assert self.judge is not None
                found[kind] = description(self.judge.text(conversation(question), MAX_TOKENS))
            return found | {"template": self._template(self.examples[latent])}

        self.progress("describe", len(self.known), len(self.latents), "")
        for latent, found in zip(left, ahead(texts, left, self._threads)):
            self._described.append({"latent": latent, "texts": found})
            self.known[latent] = found
            self.progress("describe", len(self.known), len(self.latents), next(iter(found.values())))

    def score_all(self) -> None:
        """A line of scores for every latent that has none."""
        left, other = self.left(), self._others()
        self.progress("score", len(self.lines), len(self.latents), "")
        for latent, judged in zip(left, ahead(lambda j: self._judged(j, self._texts(j, other)), left, self._threads)):
            examples, texts = self.examples[latent], self._texts(latent, other)
            free = {row: self.battery.free(text, examples) for row, text in texts.items()}
            line = {
                "latent": latent,
                "rows": {row: _plain(free[row] | judged[row]) for row in texts},
                "alone": _plain(self.battery.free_alone(examples) | judged["alone"]),
            }
            self._scored.append(line)
            self.lines[latent] = line
            self.progress("score", len(self.lines), len(self.latents), "")

    def _judged(self, latent: int, texts: Mapping[str, str]) -> dict[str, dict[str, Score]]:
        """The judge's scores of every row, and of the latent itself under "alone"."""
        if self.judge is None:
            return {row: {} for row in (*texts, "alone")}
        examples, found = self.examples[latent], {}
        for row, text in texts.items():
            quizzes = self.battery.quizzes(text, examples)
            found[row] = {n: take(self.judge.text, q) for n, q in quizzes.items()} if text else silent_scores(self.battery)
        return found | {"alone": {n: take(self.judge.text, q) for n, q in self.battery.quizzes_alone(examples).items()}}

    def _others(self) -> dict[int, int]:
        """For the control, another latent for each: a keyed cycle through all, so none meets itself."""
        order = rng.generator(self.settings.sampling.seed, "shuffled").permutation(self.latents).tolist()
        return dict(zip(order, [*order[1:], order[0]]))

    def _texts(self, latent: int, other: Mapping[int, int]) -> dict[str, str]:
        """What is scored, by row; the control takes the other latent's description of the first kind."""
        shuffled = next(iter(self.known[other[latent]].values()))
        texts = {**self.known[latent], "shuffled": shuffled}
        return {row: texts[row] for row in self.rows}

    @property
    def _threads(self) -> int:
        return 1 if self.judge is None else self.judge.parallel

    # -- 4
    def close(self) -> None:
        """Ask nothing more, and note what this session took."""
        if self.judge is not None:
            self.judge.close(0.0 if isinstance(sys.exc_info()[1], KeyboardInterrupt) else PATIENCE)
            counted = {"replayed": self.judge.replayed, "failures": self.judge.judge.failures - self._failures}
            Lines(self.folder / "sessions.jsonl").append(counted | {"wall": round(time.perf_counter() - self._began, 1)})

    def _usage(self) -> dict[str, float]:
        """What all sessions took: answers are counted where they are kept, so a killed session's count too."""
        if self.judge is None:
            return {}
        answers, sessions = (Lines(self.folder / f"{name}.jsonl").read() for name in ("answers", "sessions"))
        took = _sum(answers, "prompt_tokens", "answer_tokens", "seconds")
        return {"requests": len(answers), **took, **_sum(sessions, "replayed", "failures", "wall")}

    def report(self) -> dict[str, Any]:
        """Means over all latents; written as report.json."""
        empty = {kind: sum(not self.known[j][kind] for j in self.latents) for kind in self.kinds}
        found = {
            **self.identity,
            "rows": list(self.rows),
            **summary([self.lines[j] for j in self.latents], self.rows),
            "empty_descriptions": empty,
            "usage": self._usage(),
            "descriptions": {str(j): self.known[j] for j in self.latents},
        }
        write_json(self.folder / "report.json", found)
        return found


def _sum(lines: Iterable[Mapping[str, Any]], *names: str) -> dict[str, float]:
    found = list(lines)
    return {name: round(sum(line[name] for line in found), 3) for name in names}


def _plain(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: asdict(score) for name, score in scores.items()}
