"""Does a direction act where the words stand that should cause a behaviour? Read and ablated at one span of the prompt alone.

    cases with a span of that name on either side -> a finding "span"; a set with a case that lacks it is left out, with a sentence

The trials of causal.py edit the template's last tokens: what attention brings there from a tool's result may be out of their reach, and
what is found there says nothing of where it came from. Here:

1. Readouts are differences of the sides' means over the span's tokens, at every layer below `DEEPEST` of the depth, on training groups
   that switch.
2. The one that is tried is chosen on validation cases as in causal.py: it has to lower the score, and to leave the other side alone (KL of
   the next token when the same direction is ablated at *its* span, which holds nothing to follow); of these the largest effect.
3. Test cases: it is projected out at every block's output, at the span's tokens alone; all from the span on is computed anew. Against
   hundreds of controls (controls.py), p as in causal.py. Beside it, without controls: ablated at the whole message that
   holds the span, where that is a tool's own (a template without a tool role writes it into the user's words).
4. Damage: that KL on test cases.

AUROC at the span, and against twins, stand beside: a span is told apart by its words, so that they are no claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diascope.audits import causal, gates, record, record_causal, statistics, verdict
from diascope.audits.causal import DEEPEST
from diascope.audits.detect import Data
from diascope.audits.outcomes import scores
from diascope.audits.protocol import Trial
from diascope.audits.readouts import Readout, mean_difference
from diascope.audits.spans import MEAN, USER, Prompt
from diascope.audits.statistics import ordered
from diascope.audits.target import Tails
from diascope.audits.verdict import Finding
from diascope.numerics import Estimate

if TYPE_CHECKING:
    from diascope.audits.contrast import Contrast

FINDING = "span"
ABLATE = Trial("ablate", "positive", raises=False)


@dataclass(frozen=True)
class SpanTrial:
    """For `Protocol.beyond`: the difference of means of the span `name`, ablated there."""

    name: str

    def __call__(self, c: Contrast) -> None:
        """Add the finding to those of `c`."""
        claim = f"a direction acts at the tokens of the {self.name} words"
        if lacking := [p.case.id for p in c.prompts if self.name not in p.spans]:
            why = f"{len(lacking)} cases have no span {self.name!r}, the first is {lacking[0]!r}: nothing was tried there"
            c.numbers[FINDING] = {"left_out": why}
        elif c.gate:
            c.findings.append(Finding(FINDING, claim, c.gate[0], f"not tried: {c.gate[1]}"))
        else:
            c.findings.append(_Tried(c, self.name).finding())


class _Tried:
    """One contrast at one span."""

    def __init__(self, c: Contrast, name: str) -> None:
        self.c, self.name = c, name
        c.say(f"vectors of the {name} words")
        place, d = f"{MEAN}{name}", c.data
        sites = [s for s in c.target.sites if s.layer < DEEPEST * c.target.model.n_layers]
        vectors = c.target.vectors(c.prompts, sites, [place]).numpy()
        self.data = Data(d.cases, vectors, d.label, d.group, d.part, d.positive, d.negative, d.twin, sites, [place])

    def finding(self) -> Finding:
        """Chosen on validation, tried on test cases."""
        c, p = self.c, self.c.protocol
        tried = self._choose()
        best, d = tried[0].readout, self.data
        train = causal.telling(d.y, c.events, d.group, d.rows("train"))
        training = d.at(best)[train], d.y[train], d.group[train].tolist()
        rows = d.rows("test")
        effect = causal.test(
            c.outcome, ABLATE, best, self._tails(p.positive, rows), training, chosen_from=len(tried), k=c.config.controls, seed=c.config.seed,
            progress=lambda done, total, note: c.say(f"at the {self.name} words, {note}"),
        )  # fmt: skip
        message, kl = None if self._merged() else self._message(best, rows), self._kl(best, rows)
        failed = {f"ablate at the {self.name} words": effect.why(c.config.level)}
        word, why = verdict.causal(failed, kl.value <= c.config.most_kl)
        at = {"split": "test", "seed": c.config.seed}
        held = int(d.rows("validation").sum())
        numbers = {
            **record.plain({**self._auroc(best), "whole_message": message, "other_side_kl": kl}, **at), "most_kl": c.config.most_kl,
            "readout": record.of_readout(best, n=held, seed=c.config.seed), "tried": len(tried),
            "trials": {f"ablate at {self.name}": record_causal.of_effect(effect, c.config)},
            "candidates": [_candidate(t, c.config.seed) for t in tried[: causal.LISTED]],
            "fitted_on": {"positive": int(d.y[train].sum()), "negative": int((~d.y[train]).sum()), "split": "train"},
        }  # fmt: skip
        claim = f"the difference of means of the {self.name} words at {best.site} acts at their tokens"
        return Finding(FINDING, claim, word, why, numbers)

    def _choose(self) -> list[causal.Tried]:
        """Every layer's difference of means by what ablating it at the span does on validation cases."""
        c, d = self.c, self.data
        held = causal.telling(d.y, c.events, d.group, d.rows("validation"))
        sides = {"positive": self._tails(d.positive, held)}
        calm = self._tails(d.negative, held)
        return causal.choose(
            c.target, c.outcome, (ABLATE,), self._candidates(), sides, calm, c.config.most_kl, seed=c.config.seed
        )

    def _candidates(self) -> list[Readout]:
        d = self.data
        train, held = causal.telling(d.y, self.c.events, d.group, d.rows("train")), d.rows("validation")
        even, found = np.ones(int(held.sum())), []
        for s, site in enumerate(d.sites):
            direction, bias = mean_difference(d.vectors[train, s, 0], d.y[train])
            score = d.vectors[held, s, 0].astype(np.float64) @ direction
            auroc = float(ordered(d.y[held], score)(even))
            found.append(Readout("mean difference", site, d.places[0], direction, bias, auroc))
        return found

    def _prompts(self, label: str, rows: np.ndarray) -> list[Prompt]:
        return [self.c.prompts[i] for i in np.flatnonzero((self.data.label == label) & rows)]

    def _tails(self, label: str, rows: np.ndarray, *, message: bool = False) -> Tails:
        """The cases of one side that are edited at the span, or at the whole message around it."""
        prompts = self._prompts(label, rows)
        where: Sequence[slice] = [p.around(self.name) if message else p.span(self.name) for p in prompts]
        return Tails(self.c.target, prompts, where)

    def _merged(self) -> bool:
        """Whether the template knows no tool role, so that a tool's result stands in one message with what the user said after it."""
        of_tools = [p for p in self.c.prompts if any(m["role"] == "tool" for m in p.case.messages)]
        return any(p.role[p.span(self.name).start] == USER for p in of_tools)

    def _message(self, best: Readout, rows: np.ndarray) -> Estimate:
        """The effect of ablating at the whole message."""
        tails = self._tails(self.data.positive, rows, message=True)
        clean = scores(self.c.outcome, tails)
        moved = causal.effects(self.c.outcome, tails, ABLATE, best.direction[None], best.site, clean)[:, 0]
        groups = np.array([p.case.group for p in tails.prompts])
        return statistics.mean(moved, groups, seed=self.c.config.seed)

    def _kl(self, best: Readout, rows: np.ndarray) -> Estimate:
        """What the same edit does to the other side's next token."""
        tails = self._tails(self.data.negative, rows)
        edit = causal.intervention(self.c.target, "ablate", best.direction, best.site)
        groups = np.array([p.case.group for p in tails.prompts])
        return statistics.mean(gates.kl_on(tails, [edit]), groups, seed=self.c.config.seed)

    def _auroc(self, best: Readout) -> dict[str, Any]:
        """How well the sides, and positive cases and twins, are told apart by the span's vectors on test cases."""
        d, score = self.data, best.score(self.data.at(best))
        found = {}
        for name, other in (("auroc", d.negative), ("twins", d.twin)):
            rows = (d.part == "test") & np.isin(d.label, (d.positive, other))
            if other:
                found[name] = statistics.auroc(d.y[rows], score[rows], d.group[rows], seed=self.c.config.seed)
        return found


def _candidate(t: causal.Tried, seed: int) -> dict[str, Any]:
    at = {"split": "validation", "seed": seed}
    own = {"effect": t.moved[0], "other_side_kl": t.neutral, "kept": t.kept}
    return {"site": str(t.readout.site), "auroc": t.readout.validation, **record.plain(own, **at)}
