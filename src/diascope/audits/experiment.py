"""A protocol whose answer cannot be read from the next token: it carries itself out, and gives findings in the same words.

A `Protocol` looks at one score of the next token and one event of the answer. Chains of thought and entities need more than one pass
(an answer, then what was left of it; what the model knows, then its vectors), so they bring a function of their own. What all of them
share is here: the check of their cases, the readout that is chosen on validation and tested once, and a record like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diascope.audits import detect, readouts, record, statistics, verdict
from diascope.audits.cases import Case, CaseSet
from diascope.audits.record import Result
from diascope.audits.settings import AuditConfig
from diascope.audits.spans import Prompt
from diascope.audits.target import Target
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary
from diascope.numerics import Estimate

Say = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """`carry_out(target, experiment, cases, dictionary, config, say)` gives the result."""

    name: str
    asks: str
    cases: Callable[[int], CaseSet]
    sides: tuple[str, ...]
    """The labels that every group needs, the positive one first."""
    carry_out: Callable[[Target, Experiment, CaseSet, Dictionary | None, AuditConfig, Say], Result]
    least: float = 0.2
    limits: tuple[str, ...] = ()
    plain: bool = False
    """Cases are plain text (plain.py): base models can be audited, too."""
    needs: tuple[str, ...] = ()
    """Fields that every case has to have; "meta.NAME" is one inside meta."""

    @property
    def labels(self) -> tuple[str, ...]:
        return self.sides


def checked(cases: CaseSet, labels: Sequence[str], needs: Sequence[str] = ()) -> list[str]:
    """Warnings about the cases; ValueError for what would make every number wrong."""
    said = cases.lint(labels, needs)
    if wrong := [s for s in said if not s.startswith("length alone")]:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ValueError(f"the cases {cases.name!r} cannot be used: {wrong[0]}{more}")
    return said


def fvu(missed: np.ndarray, spread: np.ndarray, groups: np.ndarray, seed: int) -> Estimate:
    """FVU with its interval over `groups` [n], from squared errors and squared distances from the mean target [n] (the mean stays)."""
    return statistics.bootstrap(lambda w: (w @ missed) / (w @ spread), groups, seed=seed)


@dataclass(frozen=True)
class Read:
    """A readout that was chosen and tested, with all that it was chosen from."""

    data: detect.Data
    search: readouts.Search
    found: detect.Detection
    finding: Finding


def read(
    target: Target,
    cases: Sequence[Case],
    prompts: Sequence[Prompt],
    part: Mapping[str, str],
    sides: tuple[str, str],
    places: Sequence[str],
    config: AuditConfig,
    gate: tuple[str, str] | None,
) -> Read:
    """Vectors of `cases` at all layers and `places`; one readout of sides[0] against sides[1], tested once."""
    vectors = target.vectors(prompts, target.sites, places).numpy()
    label, group = (np.array([getattr(c, name) for c in cases]) for name in ("label", "group"))
    where = np.array([part[g] for g in group])
    data = detect.Data(cases, vectors, label, group, where, *sides, "", target.sites, places)
    search = readouts.search(vectors, data.y, data.rows("train"), data.rows("validation"), data.sites, places)
    found = detect.test(data, search, draws=config.permutations, seed=config.seed)
    word, why = gate or verdict.detection(found.auroc.low, found.p, found.margin.low, None, config.level)
    best = found.readout
    claim = f"a {best.kind} at {best.site}, {best.place}, tells {sides[0]} from {sides[1]} cases"
    numbers = record.of_detection(found, search, data, config.seed)
    return Read(data, search, found, Finding("detection", claim, word, why, numbers))
