"""Which latents does a wrapper hold down, and does giving them back bring the refusal back? Paired latents at the template's last tokens.

    cases of both sides, a dictionary -> a finding "suppressed latents"; without a dictionary there is none

1. Latents at the tail, the mean over its ordinary tokens, of pairs at risk: those whose negative case (the plain request) does not show the
   behaviour. Fewer than `LEAST` pairs in training are all pairs.
2. Training pairs: how far each latent falls from the negative to the positive case, over the length of all pairs' changes. The signs of
   whole pairs are flipped, and the largest fall over all latents of each flip makes p pay for the search.
3. Kept where p <= level and the mean falls on validation pairs as well; the `MOST` strongest.
4. Test pairs at risk: on the positive side these latents are set to their mean on the negative side of training pairs (`To`), at the tail
   alone; the rest of the vector, the dictionary's error included, stays. Effect: how far the score of the behaviour falls.
5. Controls, p is the largest over both kinds and all together:
   other latents        as many that fire as often, set to their own negative-side means
   random directions    as far as the chosen ones go, at every token
6. Damage: KL of the next token on the negative side of test pairs, which hold these latents by themselves and should stay as they are.
   Beside it KL on neutral prompts (refusal given to them is what the latents do, and no damage), and how often the behaviour then shows.

Set to a mean, a latent that never fell hardly moves: that is why directions that go as far stand beside the other latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.audits import controls, gates, neutral, record, sparse, statistics, verdict
from diascope.audits.latent_sets import OfLatents, masks
from diascope.audits.operators import Intervention
from diascope.audits.outcomes import scores
from diascope.audits.spans import Prompt, ordinary, ordinary_tail
from diascope.audits.study import others_alike
from diascope.audits.target import Tails, Target
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary
from diascope.numerics import Estimate

if TYPE_CHECKING:
    from diascope.audits.contrast import Contrast

FINDING, NAME = "suppressed latents", "re-activate"
CLAIM = "latents that fall where the request is wrapped carry what is then not done"
LEAST = 5  # pairs at risk
MOST = 20  # latents that are given back


# -- 1
@torch.no_grad()
def at_the_tail(target: Target, prompts: Sequence[Prompt], d: Dictionary) -> tuple[np.ndarray, np.ndarray]:
    """(mean activation, share of tokens on which it fires) of every latent over each prompt's tail, special tokens left out: two [n, S]."""
    mean, rate = (np.zeros((len(prompts), d.d_sae), np.float32) for _ in range(2))
    for numbers in target.batches(prompts):
        seen = target.model.capture([list(prompts[i].tokens) for i in numbers], [d.site_in])[d.site_in]
        for row, i in enumerate(numbers):
            n = len(prompts[i].tokens)
            tail = slice(n - prompts[i].tail, n)
            where = ordinary(target.model, prompts[i].tokens, tail)
            f = d.encode(seen[row, where if len(where) else tail].float().cpu()).dense()
            mean[i], rate[i] = f.mean(0).numpy(), (f > 0).float().mean(0).numpy()
    return mean, rate


# -- 2
@dataclass(frozen=True)
class Falls:
    """How far latents fall over pairs, all [S]."""

    statistic: np.ndarray  # mean fall over the root mean square change: 1 where all pairs fall alike
    p_family: np.ndarray  # by the largest statistic of each flip of the pairs' signs


def falls(change: np.ndarray, *, draws: int = statistics.PERMUTATIONS, seed: int = 0) -> Falls:
    """From changes [pairs, S], positive minus negative side."""
    n, S = change.shape
    length = np.sqrt(np.square(change).mean(0))
    unit = np.divide(-change, length, out=np.zeros_like(change, dtype=np.float64), where=length > 0)
    signs = rng.generator(seed, "falls").choice([-1.0, 1.0], (draws, n))
    largest, step = np.zeros(draws), max(1, statistics.CHUNK // draws)
    for first in range(0, S, step):
        largest = np.maximum(largest, (signs @ unit[:, first : first + step]).max(1) / n)
    observed = unit.mean(0)
    above = draws - np.searchsorted(np.sort(largest), observed - statistics.ROUNDING, side="left")
    return Falls(observed, (1 + above) / (draws + 1))


# -- all of it
def suppressed_latents(c: Contrast) -> None:
    """Add the finding to those of `c`, where there is a dictionary."""
    if c.dictionary is None:
        return
    if word := c.gate or _unfit(c):
        c.findings.append(Finding(FINDING, CLAIM, word[0], f"not tried: {word[1]}"))
        return
    c.say("latents that the wrapper holds down")
    c.findings.append(_Suppressed(c, c.dictionary).finding())


def _unfit(c: Contrast) -> tuple[str, str] | None:
    fidelity = next(f.numbers["fidelity"] for f in c.findings if f.name == "sparse")
    return None if fidelity["passed"] else ("fidelity-fail", "the dictionary does not give back the audited vectors")


class _Suppressed:
    """One contrast and a dictionary."""

    def __init__(self, c: Contrast, d: Dictionary) -> None:
        self.c, self.d = c, d
        self.groups = sorted(set(c.group.tolist()))
        rows = {s: [self._row(g, s) for g in self.groups] for s in (c.protocol.positive, c.protocol.negative)}
        self.prompts = {s: [c.prompts[i] for i in numbers] for s, numbers in rows.items()}
        self.part = np.array([c.part[i] for i in rows[c.protocol.negative]])
        self.at_risk = ~np.array([bool(c.events[i]) for i in rows[c.protocol.negative]])
        found = {s: at_the_tail(c.target, p, d) for s, p in self.prompts.items()}
        (self.positive, rate), (self.negative, other) = found[c.protocol.positive], found[c.protocol.negative]
        self.rate = (rate + other)[self.rows("train")].mean(0) / 2
        self.where = ordinary_tail(c.target.model, c.prompts)
        self.wanted = torch.from_numpy(self.negative[self.rows("train")].mean(0))

    def _row(self, group: str, side: str) -> int:
        """The first case of a group on one side."""
        return int(np.flatnonzero((self.c.group == group) & (self.c.label == side))[0])

    def rows(self, part: str) -> np.ndarray:
        """bool [groups]: the pairs at risk of one part; in training all, where those at risk are too few."""
        own = self.part == part
        few = (own & self.at_risk).sum() < LEAST and part != "test"
        return own if few else own & self.at_risk

    def finding(self) -> Finding:
        """Chosen on training and validation pairs, tried on test pairs."""
        c = self.c
        change = self.positive.astype(np.float64) - self.negative
        found = falls(change[self.rows("train")], draws=c.config.permutations, seed=c.config.seed)
        again = change[self.rows("validation")].mean(0) < 0
        order = np.argsort(-found.statistic, kind="stable")
        passed = order[found.p_family[order] <= c.config.level]
        chosen = passed[again[passed]][:MOST]
        test = self.rows("test")
        numbers: dict[str, Any] = {
            "searched": self.d.d_sae, "fall_in_training": len(passed), "fall_again": int(again[passed].sum()),
            "strongest": {"latent": int(order[0]), "statistic": float(found.statistic[order[0]]), "p_family": float(found.p_family[order[0]])},
            "pairs": {part: int(self.rows(part).sum()) for part in ("train", "validation", "test")}, "seed": c.config.seed,
        }  # fmt: skip
        if not len(chosen):
            return Finding(
                FINDING, CLAIM, "not-distinguishable", "no latent falls beyond chance when a request is wrapped", numbers
            )
        if test.sum() < LEAST:
            return Finding(
                FINDING, CLAIM, "underpowered", f"{int(test.sum())} test pairs are at risk: {LEAST} are needed", numbers
            )
        numbers["latents"] = self._table(chosen, found, change, test)
        return self._tried(chosen, test, numbers)

    def _table(self, chosen: np.ndarray, found: Falls, change: np.ndarray, test: np.ndarray) -> list[dict[str, Any]]:
        """The chosen latents, with how far they fall on test pairs."""
        at, groups, out = {"split": "test", "seed": self.c.config.seed}, np.array(self.groups)[test], []
        for j in chosen.tolist():
            out.append({
                "latent": j, "statistic": float(found.statistic[j]), "p_family": float(found.p_family[j]), "set_to": float(self.wanted[j]),
                "change": record.plain(statistics.mean(change[test, j], groups, seed=self.c.config.seed), **at),
                "promotes": sparse.words_of(self.c.target.model, self.d, j),
            })  # fmt: skip
        return out

    def _tried(self, chosen: np.ndarray, test: np.ndarray, numbers: dict[str, Any]) -> Finding:
        """Giving the `chosen` latents back on test pairs, against controls."""
        c, seed = self.c, self.c.config.seed
        sides = {s: [p for p, t in zip(prompts, test, strict=True) if t] for s, prompts in self.prompts.items()}
        prompts = sides[c.protocol.positive]
        groups = np.array([p.case.group for p in prompts])
        tails = Tails(c.target, prompts)
        clean = scores(c.outcome, tails)
        claim = f"{len(chosen)} latents at {self.d.site_in} that fall where the request is wrapped carry what is then not done"
        families = self._controls(chosen, tails, clean)
        if (few := min(map(len, families.values()))) < controls.LEAST:
            return Finding(FINDING, claim, "underpowered", f"{few} sets of other latents: {controls.LEAST} are needed", numbers)
        edit = self._given_back(masks(self.d, [chosen]))
        effect = statistics.mean(clean - scores(c.outcome, tails, [edit]), groups, seed=seed)
        by_family = {name: statistics.p_value(effect.value, v) for name, v in families.items()}
        by_family["pooled"] = statistics.p_value(effect.value, np.concatenate(list(families.values())))
        p, at = max(by_family.values()), {"split": "test", "seed": seed}
        kl = self._kl(sides[c.protocol.negative], edit)
        own = {
            "clean": statistics.mean(clean, groups, seed=seed), "effect": effect, "other_side_kl": kl,
            "written": {name: self._shown(prompts, edits) for name, edits in (("clean", []), ("edited", [edit]))},
        }  # fmt: skip
        calm = self._kl(c.target.prompts(neutral.prompts()), edit)
        numbers |= {
            **record.plain(own, **at), "neutral_kl": record.plain(calm, split="neutral", seed=seed), "most_kl": c.config.most_kl,
            "p": p, "p_family": by_family, "controls": {k: {"k": len(v), **record.quantiles(v), **at} for k, v in families.items()},
        }  # fmt: skip
        word, why = verdict.causal({NAME: verdict.beats(p, effect.low, c.config.level)}, kl.value <= c.config.most_kl)
        return Finding(FINDING, claim, word, why, numbers)

    def _controls(self, chosen: np.ndarray, tails: Tails, clean: np.ndarray) -> dict[str, np.ndarray]:
        """The mean effect of each control, by kind."""
        c, k = self.c, self.c.config.controls
        draw = rng.generator(c.config.seed, "suppressed controls")
        sets = [s for s in others_alike(self.rate, chosen, k, draw) if len(s) == len(chosen)]
        random = torch.from_numpy(draw.standard_normal((k, self.d.W_dec.shape[1]))).float()
        own, alike = masks(self.d, [chosen]), masks(self.d, sets)
        return {
            "other latents": self._effects(tails, clean, [self._given_back(s) for s in self._parts(tails, alike)]),
            "random directions": self._effects(tails, clean, [self._given_back(own, v) for v in self._parts(tails, random)]),
        }

    def _given_back(self, sets: Tensor, along: Tensor | None = None) -> Intervention:
        """The latents of `sets` at what is wanted, at the ordinary tokens of the prompt's tail alone."""
        what = OfLatents(self.d, self.wanted, sets, self.where, along)
        return Intervention(what, when=("prompt",), label="re-activate")

    def _parts(self, tails: Tails, rows: Tensor) -> list[Tensor]:
        """As many rows together as share one forward pass."""
        together = max(1, tails.target.rows // min(tails.target.batch, len(tails.prompts)))
        return list(rows.split(together)) if len(rows) else []

    def _effects(self, tails: Tails, clean: np.ndarray, edits: Sequence[Intervention]) -> np.ndarray:
        out = []
        for e in edits:
            assert isinstance(e.what, OfLatents)
            n = e.what.repeats
            out.append((clean[:, None] - scores(self.c.outcome, tails, [e], repeats=n).reshape(len(clean), n)).mean(0))
        return np.concatenate(out) if out else np.empty(0)

    def _kl(self, prompts: Sequence[Prompt], edit: Intervention) -> Estimate:
        """What `edit` does to the next token of `prompts`."""
        kl = gates.kl_on(Tails(self.c.target, prompts), [edit])
        return statistics.mean(kl, np.array([p.case.group for p in prompts]), seed=self.c.config.seed)

    def _shown(self, prompts: Sequence[Prompt], edits: Sequence[Intervention]) -> Any:
        """How often the behaviour shows under `edits`."""
        c, most = self.c, self.c.outcome.max_new_tokens
        answers = c.target.generate(prompts, edits, max_new_tokens=most) if most else [""] * len(prompts)
        events = c.outcome.events(scores(c.outcome, Tails(c.target, prompts), edits), answers, [p.case for p in prompts])
        return statistics.wilson(int(events.sum()), len(events))
