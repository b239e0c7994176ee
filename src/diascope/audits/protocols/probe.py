"""Is a concept read from a few latents as well as from the whole vector? k-sparse probing (evals/probing.py) with verdicts.

    result = PROBE.run(model, dictionary)

dense     probes of the whole vector tell held-out prompts apart, beyond probes that were trained on shuffled labels
sparse    k latents do so within `allowed` AUROC of the dense probe, and better than latents of a random dictionary
elsewhere the same two gaps on prompts from another source, for tasks that have them: where sparse probes are known to lose

Tasks are the unit: differences are paired by task, and their intervals are over tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diascope.audits import record, statistics
from diascope.audits.record import Result
from diascope.audits.study import result
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary
from diascope.evals.probe_sets import Task, load_task
from diascope.evals.probing import Probing, probing
from diascope.evals.subject import Subject
from diascope.models import Model
from diascope.numerics import Estimate

Scores = dict[str, dict[str, float]]  # task -> probe -> AUROC
TASKS = (  # one of each kind
    "156_athlete_sport_baseball", "120_us_timezone_Chicago", "118_us_state_CA", "123_world_country_United_Kingdom",
    "126_art_type_book", "5_hist_fig_ismale", "114_nyc_borough_Manhattan", "87_glue_cola",
)  # fmt: skip
LEAST = 5  # tasks, for an interval over them


@dataclass(frozen=True)
class Probe:
    """Probing tasks, and how much AUROC latents may lose against the dense probe."""

    name: str = "probe"
    asks: str = "Do a few latents say what a linear probe of the whole vector says?"
    probing: Probing = field(default_factory=lambda: Probing(tasks=TASKS))
    allowed: float = 0.1
    limits: tuple[str, ...] = (
        "labelled tasks of one sentence, read at its last token",
        "nothing is edited: no finding is causal",
    )

    def run(
        self,
        model: Model,
        d: Dictionary,
        *,
        tasks: Sequence[Task] | None = None,
        seed: int = 0,
        say: Callable[[str], None] = lambda note: None,
    ) -> Result:
        """Probe `model` at the dictionary's site. `tasks` are used in place of the named ones."""
        chosen = [load_task(name, seed=seed) for name in self.probing.tasks] if tasks is None else list(tasks)
        entry = probing(Subject(model, [d]), d, self.probing, tasks=chosen, progress=lambda done, total, note: say(note))
        found = entry.details["tasks"]
        k = max(self.probing.ks)
        gate = None
        if len(found) < LEAST:
            gate = "underpowered", f"{len(found)} tasks: intervals over tasks need {LEAST}"
        findings = [self._dense(found, k, gate, seed), self._sparse(found, k, gate, seed)]
        if len(entry.details["elsewhere"]) >= LEAST:
            findings.append(self._sparse(entry.details["elsewhere"], k, None, seed, "elsewhere"))
        numbers = {
            "prevalence": {},
            "latents": entry.details["latents"],
            "tasks": found,
            "elsewhere": entry.details["elsewhere"],
        }
        cases = {"set": "sae-probes", "tasks": [t.name for t in chosen], "n": len(chosen), "seed": seed}
        return result(self, findings, numbers, cases, gate=gate)

    def _dense(self, found: Scores, k: int, gate: tuple[str, str] | None, seed: int) -> Finding:
        shuffled = f"shuffled labels k{k}"
        names = ("dense", "mean difference", shuffled)
        numbers = {n: over(found, seed, n) for n in names} | {"minus_shuffled": over(found, seed, "dense", shuffled)}
        told = numbers["dense"].low > 0.5 and numbers["minus_shuffled"].low > 0
        own = ("detects", "held-out prompts are told apart, beyond shuffled labels") if told else (
            "not-distinguishable", "held-out prompts are not told apart"
        )  # fmt: skip
        return Finding("dense", "a probe of the whole vector reads the concepts", *(gate or own), plain(numbers, seed))

    def _sparse(self, found: Scores, k: int, gate: tuple[str, str] | None, seed: int, name: str = "sparse") -> Finding:
        first = f"k{k}"
        numbers = {f"k{j}": over(found, seed, f"k{j}") for j in self.probing.ks}
        numbers |= {"dense": over(found, seed, "dense"), "minus_dense": over(found, seed, first, "dense")}
        random = f"random dictionary k{k}"
        if all(random in row for row in found.values()):
            numbers |= {random: over(found, seed, random), "minus_random": over(found, seed, first, random)}
        claim = f"{k} latents read the concepts as well" + (" on prompts from elsewhere" if name == "elsewhere" else "")
        return Finding(name, claim, *(gate or self._word(numbers, first)), plain(numbers, seed))

    def _word(self, numbers: dict[str, Estimate], first: str) -> tuple[str, str]:
        if numbers[first].low <= 0.5:
            return "not-distinguishable", "latents do not tell held-out prompts apart"
        if "minus_random" in numbers and numbers["minus_random"].low <= 0:
            return "not-distinguishable", "latents of a random dictionary may do as well"
        if numbers["minus_dense"].low < -self.allowed:
            return "not-distinguishable", f"the dense probe may do better by more than {self.allowed:g}"
        return "sparse-explains", f"within {self.allowed:g} of the dense probe, and better than a random dictionary's latents"


def over(found: Scores, seed: int, name: str, minus: str = "") -> Estimate:
    """The mean over tasks of a probe's AUROC, or of its difference from another's."""
    values = np.array([row[name] - (row[minus] if minus else 0.0) for row in found.values()])
    return statistics.mean(values, np.arange(len(values)), seed=seed)


def plain(numbers: dict[str, Any], seed: int) -> dict[str, Any]:
    """JSON-ready."""
    return record.plain(numbers, split="test", seed=seed)


PROBE = Probe()
