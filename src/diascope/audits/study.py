"""Protocols that ask something of two models, or of a dictionary, in place of a behaviour in chat: what they share.

A study is a frozen dataclass with `name`, `asks`, `limits` and `run(...) -> Result`: the same verdicts, record and statistics as the
behaviours have, without their contrast of prompts. Base models may be studied: nothing here needs a chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diascope.audits import record, verdict
from diascope.audits.record import Audit, Result
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary
from diascope.evals import kept
from diascope.models import Model


@dataclass(frozen=True)
class Studied:
    """A model with its name and hash, chat template or none."""

    model: Model
    name: str

    @property
    def hash(self) -> str:
        """16 digits of the SHA-256 of the weights."""
        return kept.weights(self.model)[:16]


def audit_of(model: Model, results: Sequence[Result], config: Any, dictionary: Dictionary | None = None, **more: Any) -> Audit:
    """The audit that holds `results`; `more` goes into its facts."""
    facts = record.facts(Studied(model, model.name), dictionary, config)  # type: ignore[arg-type]
    return Audit({**facts, **more}, tuple(results))


def result(
    study: Any,
    findings: Sequence[Finding],
    numbers: dict[str, Any],
    cases: dict[str, Any],
    *,
    gate: tuple[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Result:
    """A study's result, its verdict by the same rule as a behaviour's."""
    word, why = verdict.headline(gate, False, findings)
    return Result(study.name, study.asks, word, why, tuple(findings), numbers, cases, study.limits, tuple(notes))


NEAREST = 20  # in firing rate: from so many each latent of a control set is drawn


def others_alike(rate: np.ndarray, chosen: np.ndarray, k: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Up to `k` sets of other latents that fire as often as `chosen` do (rate [S]): controls of a choice of latents.

    Each is drawn among the `NEAREST` in log rate, or among k / len(chosen) where that is more: k draws from a few latents would
    be the same few controls again, and p would be smaller than they can make it. No two sets are the same.
    """
    free = np.setdiff1d(np.flatnonzero(rate > 0), chosen)
    size = max(NEAREST, -(-k // max(len(chosen), 1)))
    pools = [free[np.argsort(np.abs(np.log(rate[free] / max(float(rate[j]), 1e-12))), kind="stable")[:size]] for j in chosen]
    found: dict[tuple[int, ...], np.ndarray] = {}
    for _ in range(20 * k):
        if len(found) == k:
            break
        some: list[int] = []
        for pool in pools:
            left = np.setdiff1d(pool, some)
            if len(left):
                some.append(int(draw.choice(left)))
        if some:
            found.setdefault(tuple(sorted(some)), np.array(some, np.int64))
    return list(found.values())
