"""The record of a causal half: the direction and the candidates that it was chosen from, trials, doses, damage, what was then written.

readout, promotes, candidates, tried   the direction; candidates by what they do on validation cases, the chosen one first
trials            by name: effect on test cases, p by family and the largest of them, controls by quantile
doses             by trial: effect and controls at each dose
damage            of the first trial's edit, with its limits: the verdict's
damage_by_trial   the same of every trial's edit, with the rate of the behaviour on cases that should not show it (`unprovoked`)
written           by trial: the rate of the behaviour on its cases, as they are and edited
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diascope.audits import sparse
from diascope.audits.causal import LISTED
from diascope.audits.record import of_readout, plain, quantiles
from diascope.numerics import Estimate

if TYPE_CHECKING:
    from diascope.audits.causal import Effect, Tried
    from diascope.audits.doses import Response
    from diascope.audits.gates import Damage
    from diascope.audits.readouts import Readout
    from diascope.audits.settings import AuditConfig

Rates = Mapping[str, Estimate]


@dataclass(frozen=True)
class Fitted:
    """How many training cases of each side the direction was fitted on, and how many validation cases there are."""

    positive: int
    negative: int
    held: int  # behind the candidates' AUROC; their effects are of those that switch


def of_causal(
    model: Any,
    tried: Sequence[Tried],
    fitted: Fitted,
    effects: Sequence[Effect],
    responses: Sequence[Response],
    damage: Mapping[str, Damage],
    unprovoked: Mapping[str, Mapping[str, Rates]],
    written: Mapping[str, Rates],
    detection: Readout,
    config: AuditConfig,
) -> dict[str, Any]:
    """All of it; `damage`, `unprovoked` and `written` by the name of a trial, the first trial first."""
    best, seed = tried[0].readout, config.seed
    same = best.unit @ detection.unit if best.direction.shape == detection.direction.shape else float("nan")
    train = {"split": "train", "seed": seed}
    return {
        "readout": of_readout(best, n=fitted.held, seed=seed),
        "cosine_to_detection": {"value": float(same), "n": fitted.positive + fitted.negative, **train},
        "promotes": sparse.promoted(model, best.direction),
        "candidates": [_candidate(t, fitted.held, seed) for t in tried[:LISTED]],
        "tried": len(tried),
        "trials": {e.trial.name: of_effect(e, config) for e in effects},
        "doses": {r.trial.name: of_response(r, seed) for r in responses},
        "damage": _damage(next(iter(damage.values())), seed),
        "damage_by_trial": {
            name: {
                **_damage(d, seed),
                "held_to": number == 0,
                "unprovoked": plain(unprovoked[name], split="test", seed=seed),
            }
            for number, (name, d) in enumerate(damage.items())
        },
        "written": plain(written, split="test", seed=seed),
        "fitted_on": {"positive": fitted.positive, "negative": fitted.negative, **train},
    }


def _candidate(t: Tried, held: int, seed: int) -> dict[str, Any]:
    at = {"split": "validation", "seed": seed}
    return {
        **of_readout(t.readout, n=held, seed=seed), "effects": [plain(e, **at) for e in t.moved],
        "kl": plain(t.neutral, split="neutral", seed=seed), "kept": t.kept, "split": "validation",
    }  # fmt: skip


def _damage(found: Damage, seed: int) -> dict[str, Any]:
    return {**plain(found, split="neutral", seed=seed), "passed": found.passed}


def of_effect(e: Effect, config: AuditConfig) -> dict[str, Any]:
    """One trial with its controls."""
    at = {"split": "test", "seed": config.seed}
    return {
        "raises": e.trial.raises, "clean": plain(e.clean, **at), "effect": plain(e.effect, **at), "p": e.p, "p_family": e.p_family, "p_chosen": e.p_chosen,
        "controls": {family: {"k": len(v), **quantiles(v), **at} for family, v in e.controls.items()},
        "wrong_sign": plain(e.wrong_sign, **at), "wrong_layer": plain(e.wrong_layer, **at), "passed": e.passed(config.level), "why": e.why(config.level),
    }  # fmt: skip


def of_response(r: Response, seed: int) -> dict[str, Any]:
    """One trial at all of its doses, by dose."""
    at = {"split": "test", "seed": seed}
    found = {
        f"{dose:g}": {"dose": dose, "effect": plain(effect, **at), "controls": {"k": len(beside), **quantiles(beside), **at}}
        for dose, effect, beside in zip(r.doses, r.effects, r.controls, strict=True)
    }
    return {"unit": r.unit, "raises": r.trial.raises, "at": found}
