"""What an edit does beyond what it is for: to neutral text, to easy questions, and to cases that should not show the behaviour.

1. `of_edit`: KL on neutral prompts, cross-entropy on reference text, easy questions, with the limits of the settings.
2. `Shows`: whether the test cases of a side show the behaviour's event, as they are (known already) and under an edit; each is asked once.
3. `written`: its rate on the cases that a trial is about, as they are, edited, and with the sign turned round.
4. `unprovoked`: its rate on the cases that should not show it (the negative side, and twins), with the paired change over groups: of an
   edit that is meant to take refusal away this is its effect on harmless requests, of one that puts it there it is over-refusal.

The verdict is held to the first trial's edit alone, the one that takes the behaviour away. What an added direction does to neutral
prompts is the behaviour itself (a model that is made to refuse refuses them as well): it is written down and no damage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from diascope.audits import gates, neutral, statistics
from diascope.audits.causal import intervention, opposite
from diascope.audits.operators import Intervention
from diascope.audits.outcomes import ChoiceGap, Outcome, scores
from diascope.audits.protocol import Trial
from diascope.audits.readouts import Readout
from diascope.audits.settings import AuditConfig
from diascope.audits.spans import Prompt
from diascope.audits.target import Tails, Target
from diascope.numerics import Estimate


def of_edit(target: Target, edit: Intervention, calm: Tails, easy: Tails, config: AuditConfig) -> gates.Damage:
    """Of one edit; `calm` are neutral prompts, `easy` questions with a right and a wrong word (neutral.py)."""
    seed = config.seed
    kl = statistics.mean(gates.kl_on(calm, [edit]), np.arange(len(calm.prompts)), seed=seed)
    change, owner = gates.ce_change(target, neutral.TEXTS, [edit])
    right = [scores(ChoiceGap(), easy, edits) < 0 for edits in ((), (edit,))]
    lost = statistics.mean(right[1].astype(float) - right[0], np.arange(len(right[0])), seed=seed)
    delta_ce = statistics.mean(change, owner, seed=seed)
    return gates.Damage(kl, delta_ce, lost, config.most_kl, config.most_ce, config.most_lost)


@dataclass
class Shows:
    """Whether cases show the behaviour, by label; edits of one label (`Intervention.label`) are one edit, and are carried out once."""

    target: Target
    outcome: Outcome
    prompts: Mapping[str, Sequence[Prompt]]  # by label
    clean: Mapping[str, np.ndarray]  # by label, bool [n]: as they are
    _known: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def events(self, label: str, edit: Intervention | None = None) -> np.ndarray:
        """bool [n] of the prompts of `label`."""
        if edit is None:
            return self.clean[label]
        key = label, edit.label
        if key not in self._known:
            prompts, edits = self.prompts[label], (edit,)
            most = self.outcome.max_new_tokens
            answers = self.target.generate(prompts, edits, max_new_tokens=most) if most else [""] * len(prompts)
            values = scores(self.outcome, Tails(self.target, prompts), edits)
            self._known[key] = np.asarray(self.outcome.events(values, answers, [p.case for p in prompts]), bool)
        return self._known[key]

    def rate(self, label: str, edit: Intervention | None = None) -> Estimate:
        """The share of them that do, with Wilson's interval."""
        found = self.events(label, edit)
        return statistics.wilson(int(found.sum()), len(found))


def written(shows: Shows, trial: Trial, label: str, readout: Readout) -> dict[str, Estimate]:
    """The rate on the trial's own cases (`label`) as they are, under its edit, and with its sign turned round."""
    edit = intervention(shows.target, trial.operator, readout.direction, readout.site)
    out = {"clean": shows.rate(label), "edited": shows.rate(label, edit)}
    if trial.operator != "ablate":
        out["wrong sign"] = shows.rate(label, opposite(edit))
    return out


def unprovoked(shows: Shows, edit: Intervention, labels: Sequence[str], *, seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """By label of cases that should not show it: the rate as they are and under `edit`, and the change, paired, over groups."""
    out = {}
    for label in labels:
        groups = np.array([p.case.group for p in shows.prompts[label]])
        change = statistics.change(shows.events(label), shows.events(label, edit), groups, seed=seed)
        out[label] = {"clean": shows.rate(label), "edited": shows.rate(label, edit), "change": change}
    return out
