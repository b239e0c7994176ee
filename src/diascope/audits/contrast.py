"""One experiment under every behaviour that is a contrast of prompts: cases in, findings with their verdicts out.

1. Cases of a protocol, dealt to train, validation and test by group (engine.py has linted them).
2. Vectors at all layers and places: read first, since answers and scores go on from the same pass (Target.vectors).
3. Answers and scores of all cases; the outcome takes what it needs from training answers. Prevalence, and the confound of twins.
4. Readouts chosen on validation, tested once (readouts.py, detect.py).
5. With a dictionary: latents at these places and its fidelity there (encoded.py), k-sparse probes (sparse.py).
6. Where the behaviour is shown: a direction chosen on validation, tried on test cases against controls (causal.py), at other doses
   (doses.py), then what each trial's edit damages (damage.py).
7. What the protocol asks beyond that (`Protocol.beyond`).
8. Verdicts (verdict.py).

A behaviour that is not shown has no causes to look for: 6 is then left out, and every finding says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diascope.audits import (
    causal,
    damage,
    detect,
    doses,
    gates,
    neutral,
    readouts,
    record,
    record_causal,
    statistics,
    verdict,
)
from diascope.audits.cases import CaseSet
from diascope.audits.encoded import Encoded, encoded
from diascope.audits.explain import explained
from diascope.audits.judged import Judged
from diascope.audits.outcomes import Outcome, scores
from diascope.audits.protocol import Protocol, Trial
from diascope.audits.record import Result
from diascope.audits.settings import AuditConfig
from diascope.audits.target import Tails, Target
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary


@dataclass
class Contrast:
    """One protocol on one target; each method is one step."""

    target: Target
    protocol: Protocol
    cases: CaseSet
    dictionary: Dictionary | None
    config: AuditConfig
    say: Callable[[str], None]
    numbers: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    tried: readouts.Readout | None = None
    """The direction of the causal step, where one was tried."""

    def carry_out(self) -> Result:
        p, part = self.protocol, self.cases.split(self.config.seed)
        self.used = self.cases.of(*p.labels)
        self.label = np.array([c.label for c in self.used])
        self.group = np.array([c.group for c in self.used])
        self.part = np.array([part[c.group] for c in self.used])
        self.prompts = self.target.prompts(self.used)
        self._vectors()
        gate, confounded = self._behaviour()
        self._detection(gate)
        if self.dictionary is not None:
            self._sparse(gate, self.dictionary)
        self._causal(gate)
        self.gate = gate
        for look in p.beyond:
            look(self)
        word, why = verdict.headline(gate, confounded, self.findings)
        return Result(
            p.name,
            p.asks,
            word,
            why,
            tuple(self.findings),
            self.numbers,
            record.of_cases(self.cases, self.used, part),
            p.limits,
        )

    # -- 2
    def _vectors(self) -> None:
        self.say("vectors")
        p = self.protocol
        tail = min(x.tail for x in self.prompts)
        places = [f"last-{k}" if k else "last" for k in range(min(p.places, tail))] + ["request"]
        vectors = self.target.vectors(self.prompts, self.target.sites, places).numpy()
        self.data = detect.Data(
            self.used, vectors, self.label, self.group, self.part, p.positive, p.negative, p.twin, self.target.sites, places
        )

    # -- 3
    def _behaviour(self) -> tuple[tuple[str, str] | None, bool]:
        self.say("answers")
        p = self.protocol
        most = p.outcome.max_new_tokens
        self.answers = self.target.generate(self.prompts, max_new_tokens=most) if most else [""] * len(self.prompts)
        seen = np.flatnonzero(self.part == "train")
        self.outcome: Outcome = p.outcome.fitted(self.target, [self.used[i] for i in seen], [self.answers[i] for i in seen])
        self.clean = scores(self.outcome, Tails(self.target, self.prompts))
        self.events = events = self.outcome.events(self.clean, self.answers, self.used)
        rule = self.outcome.outcome if isinstance(self.outcome, Judged) else self.outcome
        found = gates.prevalence(
            events, self.label.tolist(), self.group.tolist(), (p.positive, p.negative), p.least, seed=self.config.seed
        )
        self.numbers["prevalence"] = record.of_prevalence(found, rule, self.clean, self.label, self.group, self.config.seed)
        if isinstance(self.outcome, Judged):
            self.numbers["judge"] = record.plain(self.outcome.data(), split="all", seed=self.config.seed)
        confounded = False
        if p.twin:
            twins = gates.confound(
                events, self.label.tolist(), self.group.tolist(), (p.positive, p.negative), p.twin, seed=self.config.seed
            )
            self.numbers["confound"] = record.plain(twins, split="all", seed=self.config.seed)
            confounded = twins.found and found.outcome == "shown"
        return verdict.gated(found.outcome), confounded

    # -- 4
    def _detection(self, gate: tuple[str, str] | None) -> None:
        self.say("readouts")
        p, d, c = self.protocol, self.data, self.config
        self.search = readouts.search(d.vectors, d.y, d.rows("train"), d.rows("validation"), d.sites, d.places)
        self.found = detect.test(d, self.search, draws=c.permutations, seed=c.seed)
        f = self.found
        twin_low = f.twin.low if f.twin else None
        word, why = gate or verdict.detection(f.auroc.low, f.p, f.margin.low, twin_low, c.level)
        claim = f"a {f.readout.kind} at {f.readout.site}, {f.readout.place}, tells {p.positive} from {p.negative} cases"
        self.findings.append(Finding("detection", claim, word, why, record.of_detection(f, self.search, d, c.seed)))

    # -- 5
    def _sparse(self, gate: tuple[str, str] | None, dictionary: Dictionary) -> None:
        self.say("latents")
        seen = encoded(self.target, self.prompts, dictionary, self.data.places)
        (told,) = (f for f in self.findings if f.name == "detection")
        dense, fits = self.found.readout, self._fidelity(dictionary, seen)
        found, _ = explained(
            self.target, dictionary, seen.latents, self.data, dense, told, fits, gate, self.config, "the sides apart"
        )
        self.findings.append(found)

    def _fidelity(self, d: Dictionary, seen: Encoded) -> gates.Fidelity:
        """On the vectors of all cases at all places that it reads; the outcome's change is on test cases, spliced on the tail."""
        rows = np.flatnonzero(self.part == "test")
        tails = Tails(self.target, [self.prompts[i] for i in rows])
        with self.target.model.splice(d, keep_error=False):
            spliced = scores(self.outcome, tails)
        change = statistics.mean(spliced - self.clean[rows], self.group[rows], seed=self.config.seed)
        return seen.fidelity(change, self.config.most_fvu)

    # -- 6
    def _causal(self, gate: tuple[str, str] | None) -> None:
        p = self.protocol
        if gate:
            self.findings.append(Finding("causal", "a direction moves the behaviour", gate[0], f"not tried: {gate[1]}"))
            return
        self.say("candidates")
        d, c = self.data, self.config
        telling = causal.telling(d.y, self.events, d.group, d.rows("validation"))
        held = {t.side: self._tails(self._side(t), telling) for t in p.trials}
        calm = Tails(self.target, self.target.prompts(neutral.prompts()))
        every = causal.candidates(d, self.events, self.target.model.n_layers)
        tried = causal.choose(self.target, self.outcome, p.trials, every, held, calm, c.most_kl, seed=c.seed)
        best, train = tried[0].readout, causal.telling(d.y, self.events, d.group, d.rows("train"))
        self.tried = best
        switching = {name: causal.switch(d.y, self.events, d.group, d.rows(name)) for name in ("train", "validation")}
        training = d.at(best)[train], d.y[train], d.group[train].tolist()
        tested = d.rows("test")
        if p.tried_on == "shown":
            tested = causal.telling(d.y, self.events, d.group, tested)
        on = np.isin(self.group, d.group[tested]) & (self.part == "test")
        effects, responses = [], []
        for t in p.trials:
            tails = self._tails(self._side(t), on)
            effects.append(
                causal.test(
                    self.outcome, t, best, tails, training, chosen_from=len(every) if len(p.trials) == 1 else 1,
                    k=c.controls, seed=c.seed, progress=lambda done, total, note: self.say(note),
                )
            )  # fmt: skip
            self.say(f"{t.name}: doses")
            responses.append(doses.respond(self.outcome, effects[-1], best, tails, training, seed=c.seed))
        broken, unprovoked, written = self._damage(best, calm)
        held_to = broken[p.trials[0].name]  # the edit that takes the behaviour away: see damage.py
        word, why = verdict.causal({e.trial.name: e.why(c.level) for e in effects}, held_to.passed)
        claim = f"the difference of means at {best.site}, {best.place}, moves the behaviour"
        fitted = record_causal.Fitted(int(d.y[train].sum()), int((~d.y[train]).sum()), int(d.rows("validation").sum()))
        numbers = record_causal.of_causal(
            self.target.model, tried, fitted, effects, responses, broken, unprovoked, written, self.found.readout, c
        )
        self.findings.append(Finding("causal", claim, word, why, numbers | {"switching": switching}))

    def _side(self, trial: Trial) -> str:
        """The label of the cases that a trial is about."""
        return self.protocol.positive if trial.side == "positive" else self.protocol.negative

    def left_out(self, name: str) -> bool:
        """Whether the behaviour is not there, so that nothing is read for it: the numbers called `name` then say so."""
        if not self.gate or self.gate[0] != "vacuous":
            return False
        self.numbers[name] = {"left_out": f"not read: {self.gate[1]}"}
        return True

    def _tails(self, label: str, rows: np.ndarray) -> Tails:
        return Tails(self.target, [self.prompts[i] for i in np.flatnonzero((self.label == label) & rows)])

    def _damage(self, best: readouts.Readout, calm: Tails) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """By trial: what its edit breaks, the behaviour where it should not be, and where it should."""
        p, c = self.protocol, self.config
        easy = Tails(self.target, self.target.prompts(neutral.questions()))
        rows = {x: np.flatnonzero((self.label == x) & (self.part == "test")) for x in p.labels}
        tested = {x: [self.prompts[i] for i in own] for x, own in rows.items()}
        clean = {x: np.asarray(self.events[own], bool) for x, own in rows.items()}
        shows = damage.Shows(self.target, self.outcome, tested, clean)
        broken, unprovoked, written = {}, {}, {}
        for t in p.trials:
            self.say(f"damage: {t.name}")
            edit = causal.intervention(self.target, t.operator, best.direction, best.site)
            broken[t.name] = damage.of_edit(self.target, edit, calm, easy, c)
            self.say(f"answers: {t.name}")
            written[t.name] = damage.written(shows, t, self._side(t), best)
            unprovoked[t.name] = damage.unprovoked(shows, edit, p.labels[1:], seed=c.seed)
        return broken, unprovoked, written
