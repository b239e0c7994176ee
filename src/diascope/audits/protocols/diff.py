"""What is different between two models: a fine-tune and what it was made from, on the same prompts (two_models.py says how).

    result = DIFF.run(Target(tuned, reference=base), dictionary)

divergence   the next tokens differ: mean KL at the place where the answer begins is at least `least` nats
frequency    latents fire otherwise on unseen prompts, after paying for the search
patch        giving the target the reference's activations of these latents takes more of the KL away than other latents do
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diascope.audits import record, statistics, two_models
from diascope.audits.cases import CaseSet
from diascope.audits.protocols import refusal
from diascope.audits.record import Result
from diascope.audits.settings import AuditConfig
from diascope.audits.spans import Prompt
from diascope.audits.sparse import promoted
from diascope.audits.study import result
from diascope.audits.target import Target
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary

Say = Callable[[str], None]


@dataclass(frozen=True)
class Diff:
    """Target and reference on the prompts of `cases`."""

    name: str = "diff"
    asks: str = "What does the model do otherwise than the one that it was made from, and do a few latents carry that?"
    cases: Callable[[int], CaseSet] = refusal.cases
    """Prompts; their labels are the sides between which a trigger is looked for."""
    least: float = 0.01
    """Nats of KL at the last token below which the models count as the same."""
    most: int = 20
    """Latents that are patched."""
    limits: tuple[str, ...] = (
        "prompts of one kind in one turn: what other prompts wake is not seen",
        "patches act where the answer begins",
    )

    def run(
        self,
        target: Target,
        dictionary: Dictionary | None = None,
        config: AuditConfig | None = None,
        *,
        cases: CaseSet | None = None,
        say: Say = lambda note: None,
    ) -> Result:
        """Compare `target` with its `reference`. ValueError without one, and where their tokenizers differ."""
        config = config or AuditConfig()
        with target.as_reference() as reference:
            if reference is None:
                raise ValueError(
                    f"diff compares {target.name} with the model that it was made from: give it (reference=, --base)"
                )
            if reference.model is target.model:
                raise ValueError("diff edits the model while the other one reads: load the two models apart")
            target.model.beside({"reference": reference.model})  # raises where they cannot read the same tokens
            chosen = cases or self.cases(config.seed)
            return _Run(self, reference, target, chosen, dictionary, config, say).carry_out()


@dataclass
class _Run:
    study: Diff
    a: Target
    b: Target
    cases: CaseSet
    dictionary: Dictionary | None
    config: AuditConfig
    say: Say

    def carry_out(self) -> Result:
        part = self.cases.split(self.config.seed)
        self.prompts: list[Prompt] = self.b.prompts(self.cases.cases)
        self.group = np.array([p.case.group for p in self.prompts])
        self.label = np.array([p.case.label for p in self.prompts])
        self.test = np.array([part[g] == "test" for g in self.group])
        first, gate = self._divergence()
        findings = [first]
        if self.dictionary is not None:
            findings += self._latents(self.dictionary, gate)
        told = {
            "prevalence": {"rate": first.numbers["last"], "least": self.study.least, "unit": "nats of KL at the last token"}
        }
        return result(self.study, findings, told, record.of_cases(self.cases, self.cases.cases, part), gate=gate)

    def _divergence(self) -> tuple[Finding, tuple[str, str] | None]:
        self.say("both models' next tokens")
        c, seed = self.config, self.config.seed
        kl = two_models.divergence(self.a, self.b, self.prompts)
        last = np.array([k[-1] for k in kl])
        mean = statistics.mean(last, self.group, seed=seed)
        least = self.study.least
        gate = None
        if mean.high < least:
            gate = "vacuous", f"the models' next tokens differ by less than {least:g} nats"
        elif mean.low < least:
            gate = "underpowered", "the interval of the KL holds the least that counts: more prompts are needed"
        word, why = gate or ("detects", f"their next tokens differ by more than {least:g} nats")
        at = {"split": "all", "seed": seed}
        numbers = {
            "last": record.plain(mean, **at),
            "places": record.plain(two_models.by_place(kl, self.prompts, self.group, seed), **at),
            "sides": {
                s: record.plain(statistics.mean(last[self.label == s], self.group[self.label == s], seed=c.seed), **at)
                for s in dict.fromkeys(self.label.tolist())
            },
            "largest": [{"case": self.prompts[i].case.id, "kl": float(last[i])} for i in np.argsort(-last)[:10]],
            "distance": two_models.distances(self.a, self.b, self.prompts),
        }
        return Finding("divergence", "the models' next tokens differ where the answer begins", word, why, numbers), gate

    def _latents(self, d: Dictionary, gate: tuple[str, str] | None) -> list[Finding]:
        self.say("latents of both models")
        c = self.config
        seen = two_models.firing(self.a, self.b, self.prompts, d)
        test = np.array([g in set(self.group[self.test].tolist()) for g in seen.groups])
        found = statistics.search(*seen.contrast(np.flatnonzero(~test)), draws=c.permutations, seed=c.seed)
        order = np.argsort(-np.abs(found.statistic), kind="stable")
        chosen = order[found.q[order] <= c.level][: self.study.most]
        unfit = max(seen.fvu) > c.most_fvu
        numbers: dict[str, Any] = {
            "fvu": {"reference": seen.fvu[0], "target": seen.fvu[1]}, "searched": d.d_sae,
            "discoveries": int((found.q <= c.level).sum()), "split": "train and validation", "seed": c.seed,
        }  # fmt: skip
        claim = "latents fire on other shares of the tokens"
        word = gate or (("fidelity-fail", "the dictionary does not give back the vectors of both models") if unfit else None)
        if not len(chosen):
            word = word or ("not-distinguishable", "no latent's frequency changes beyond chance")
            return [Finding("frequency", claim, *word, numbers)]
        x, y, g = seen.contrast(np.flatnonzero(test))
        again = statistics.search(x[:, chosen], y, g, draws=c.permutations, seed=c.seed)
        holds = (again.p_family <= c.level) & (np.sign(again.statistic) == np.sign(found.statistic[chosen]))
        numbers |= {
            "chosen": len(chosen),
            "hold_on_test": int(holds.sum()),
            "latents": self._table(d, seen, chosen, found, again),
        }
        own = ("detects", f"{int(holds.sum())} of {len(chosen)} chosen ones do so on test prompts") if holds.any() else (
            "not-distinguishable", "none of the chosen ones does so on test prompts"
        )  # fmt: skip
        return [Finding("frequency", claim, *(word or own), numbers), self._patch(d, seen, chosen, word)]

    def _patch(self, d: Dictionary, seen: two_models.Firing, chosen: np.ndarray, forced: tuple[str, str] | None) -> Finding:
        claim = f"the reference's activations of {len(chosen)} latents bring the target back to it"
        if forced and forced[0] != "fidelity-fail":
            return Finding("patch", claim, forced[0], f"not tried: {forced[1]}")
        c = self.config
        some = [p for p, t in zip(self.prompts, self.test, strict=True) if t]
        rate = (seen.rates[0].mean(0) + seen.rates[1].mean(0)) / 2
        found = two_models.patch(self.a, self.b, some, d, chosen, rate, controls=c.controls, seed=c.seed, progress=self.say)
        moved = found.p <= c.level and found.removed.low > 0
        own = ("causal", "more of the KL goes away than with other latents") if moved else (
            "not-distinguishable", "other latents take as much of the KL away"
        )  # fmt: skip
        numbers = record.plain(found, split="test", seed=c.seed)
        numbers["controls"] = {
            "k": len(found.controls),
            **{str(q): float(np.quantile(found.controls, q)) for q in (0.025, 0.5, 0.975)},
        }
        return Finding("patch", claim, *(forced or own), numbers)

    def _table(
        self, d: Dictionary, seen: two_models.Firing, chosen: np.ndarray, found: Any, again: Any
    ) -> list[dict[str, Any]]:
        rows = []
        for n, j in enumerate(chosen.tolist()):
            direction = next(iter(d.direction(j).values())).detach().cpu().numpy()
            rows.append({
                "latent": j, "rates": {"reference": float(seen.rates[0][:, j].mean()), "target": float(seen.rates[1][:, j].mean())},
                "p_family": float(found.p_family[j]), "q": float(found.q[j]), "p_test": float(again.p_family[n]), "nu": float(seen.nu[j]),
                "promotes": promoted(self.b.model, direction) if len(direction) == self.b.model.d_model else [],
            })  # fmt: skip
        return rows


DIFF = Diff()
