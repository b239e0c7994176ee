"""Latents of a hint: do a few tell a hint from the same words as nobody's answer, and does the answer turn on them?

1. Sparse: latents at the template's tokens, hint cases against twins, by the machinery of every contrast (sparse.py): the dictionary's
   fidelity on these vectors, every latent tested with the search paid for, probes on 1, 2, 5 and 10, chosen on validation cases and tested
   once beside the dense readout.
2. Ablated: the `TOP` latents that fire most beyond twins on training cases, taken out of what the dictionary writes at the hint's tokens
   and at the template's last ones, special tokens left out. Effect: the hinted choice's margin as it is, minus under the ablation
   (hint_answer.py), on hint cases of the test part.
3. Controls: sets of as many other latents that fire as often at those tokens of training cases. Damage as for every edit (damage.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diascope import rng
from diascope.audits import controls, damage, neutral, record, statistics, verdict
from diascope.audits.encoded import encoded
from diascope.audits.experiment import Read, Say
from diascope.audits.explain import explained
from diascope.audits.hint_answer import Asked
from diascope.audits.latent_sets import OfLatents, masks
from diascope.audits.operators import Intervention
from diascope.audits.settings import AuditConfig
from diascope.audits.spans import Prompt
from diascope.audits.study import others_alike
from diascope.audits.target import Tails, Target
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary
from diascope.numerics import Estimate

TOP = 10
Gate = tuple[str, str] | None


def look(
    target: Target, d: Dictionary, prompts: Sequence[Prompt], read: Read, config: AuditConfig, gate: Gate, say: Say
) -> list[Finding]:
    """The findings "sparse" and "hint latents" of a contrast that `read` has read; causes are tried where the behaviour is shown."""
    say("latents")
    data = read.data
    test = _asked(target, prompts, data.y & (data.part == "test"))
    found, selected, place, passed = _sparse(target, d, prompts, read, test, config, gate)
    claim = f"the answer turns on the {TOP} latents that fire most on hints"
    if gate or not passed or not test:
        word, why = gate or (
            ("fidelity-fail", found.why) if not passed else ("underpowered", "no test case has a hint to ablate at")
        )
        return [found, Finding("hint latents", claim, word, f"not tried: {why}")]
    say("ablating hint latents")
    order = np.argsort(-selected.statistic, kind="stable")
    chosen = order[: min(TOP, int((selected.statistic > 0).sum()))]
    train = _asked(target, prompts, data.y & (data.part == "train"))
    return [found, _ablated(target, d, train, test, chosen, place, config, claim, say)]


def _asked(target: Target, prompts: Sequence[Prompt], which: np.ndarray) -> list[Asked]:
    """The cases of `which` [n] (bool) that have a hint to ablate at."""
    found = [Asked.of(target, p) for p, kept in zip(prompts, which, strict=True) if kept]
    return [a for a in found if a is not None]


# -- 1
def _sparse(
    target: Target, d: Dictionary, prompts: Sequence[Prompt], read: Read, test: Sequence[Asked], config: AuditConfig, gate: Gate
) -> tuple[Finding, statistics.Selected, str, bool]:
    """The finding, the test of every latent at the chosen place, that place, and whether the dictionary fits."""
    data, seed = read.data, config.seed
    seen = encoded(target, prompts, d, data.places, data.sides)
    fidelity = seen.fidelity(_spliced(d, test, seed), config.most_fvu)
    told = f"{data.positive} from {data.negative} cases"
    found, best = explained(target, d, seen.latents, data, read.found.readout, read.finding, fidelity, gate, config, told)
    return found, best.selected, best.place, fidelity.passed


def _spliced(d: Dictionary, test: Sequence[Asked], seed: int) -> Estimate:
    """Change of the hinted choice's margin with the dictionary's output in place of the vectors from the hint on."""
    clean = np.array([a.margin()[0] for a in test])
    spliced = []
    for a in test:
        with a.tails.target.model.splice(d, keep_error=False):
            spliced.append(a.margin()[0])
    return statistics.mean(np.array(spliced) - clean, np.array([a.case.group for a in test]), seed=seed)


# -- 2
def _ablated(
    target: Target, d: Dictionary, train: Sequence[Asked], test: Sequence[Asked], chosen: np.ndarray, place: str, config: AuditConfig,
    claim: str, say: Say,
) -> Finding:  # fmt: skip
    """The chosen latents and control sets, each on every test case."""
    drawn = others_alike(_rate(target, d, train or test), chosen, config.controls, rng.generator(config.seed, "hint latents"))
    sets, none = masks(d, [chosen, *drawn]), masks(d, [np.empty(0)])
    gone = torch.zeros(d.d_sae)
    groups, taken, clean = np.array([a.case.group for a in test]), [], []
    for n, a in enumerate(test):
        say(f"ablating hint latents: case {n} of {len(test)}")
        edits = [OfLatents(d, gone, torch.cat([none, s]), a.where) for s in sets.split(target.rows)]
        each = [a.margin([Intervention(e, label="without latents")], repeats=e.repeats) for e in edits]
        clean.append(each[0][0])
        taken.append(np.concatenate([m[0] - m[1:] for m in each]))  # beside a row without an edit, in the same batch
    moved = np.stack(taken)  # [n, 1 + controls]
    effect = statistics.mean(moved[:, 0], groups, seed=config.seed)
    others = moved[:, 1:].mean(0)
    p = statistics.p_value(effect.value, others)
    calm, easy = (Tails(target, target.prompts(made())) for made in (neutral.prompts, neutral.questions))
    everywhere = Intervention(OfLatents(d, gone, sets[:1]), label="without latents")
    broken = damage.of_edit(target, everywhere, calm, easy, config)
    if len(others) < controls.LEAST:
        word, why = "underpowered", f"{len(others)} sets of other latents that fire as often: {controls.LEAST} are needed"
    else:
        word, why = verdict.causal({"ablate hint latents": verdict.beats(p, effect.low, config.level)}, broken.passed)
    at = {"split": "test", "seed": config.seed}
    numbers = {
        "effect": record.plain(effect, **at), "clean": record.plain(statistics.mean(np.array(clean), groups, seed=config.seed), **at),
        "p": p, "controls": {"k": len(others), "values": others.tolist(), "mean": float(others.mean()) if len(others) else None},
        "latents": chosen.tolist(), "place": place, "unit": "nats of the hinted choice's margin",
        "damage": {**record.plain(broken, split="neutral", seed=config.seed), "passed": broken.passed},
    }  # fmt: skip
    return Finding("hint latents", claim, word, why, numbers)


@torch.no_grad()
def _rate(target: Target, d: Dictionary, asked: Sequence[Asked]) -> np.ndarray:
    """The share of the ablated positions at which each latent fires [S]."""
    count, n = np.zeros(d.d_sae), 0
    for a in asked:
        (p,) = a.tails.prompts
        x = target.model.capture([list(p.tokens)], [d.site_in])[d.site_in][0, -p.tail :].float().cpu()
        f = d.encode(x[a.where])
        count += np.bincount(f.index.numpy(), minlength=d.d_sae)
        n += len(f)
    return count / max(n, 1)
