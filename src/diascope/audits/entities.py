"""Known and unknown entities by the model's own answers, and what in its vectors tells them apart.

1. The model continues every line greedily. Known: the continuation begins with the right attribute. Unknown: it does not, and so it
   has made something up (a base model does not abstain).
2. Every unknown entity is paired by lot with a known one of its type; a pair is a group. So no type is on one side more often.
   A pair is dealt to train, validation or test inside its type.
3. The readout at the entity's last token, before anything is asked about it, and at the last token: best on validation pairs, tested once;
   fitted without one type at a time (Ferrando et al. 2025, arXiv:2411.14257, ask the same of latents).
4. With a dictionary: for each latent its AUROC within each type, and the smallest of them (max-min): a latent that is general
   has to tell the sides in every type. The best on training and validation pairs is tested once, against labels permuted in pairs.
5. Prevalence: the share of entities that are unknown. Both sides need `LEAST` pairs in all, or it is underpowered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from diascope import rng
from diascope.audits import experiment, record, statistics, verdict
from diascope.audits.cases import LEAST_GROUPS, Case, CaseSet, Split
from diascope.audits.encoded import Encoded, encoded
from diascope.audits.experiment import Experiment, Read, Say
from diascope.audits.plain import PlainTarget
from diascope.audits.record import Result
from diascope.audits.settings import AuditConfig
from diascope.audits.target import Target
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary
from diascope.numerics import Estimate

TOKENS = 6
LEAST = 2 * LEAST_GROUPS  # pairs
CITIES = 60


def carry_out(
    target: Target, protocol: Experiment, cases: CaseSet, dictionary: Dictionary | None, config: AuditConfig, say: Say
) -> Result:
    """The experiment on one target, which is read as plain text; to the built-in cases the cities are added."""
    target = PlainTarget(target.model, target.name, target.batch, target.rows, heard=target.heard)
    more, told = _cities(say) if cases.name == protocol.name else ([], "")
    say("answers")
    asked = [*cases.cases, *more]
    answers = target.generate(target.prompts(asked), max_new_tokens=TOKENS)
    known = np.array([knows(a, c.answer) for a, c in zip(answers, asked, strict=True)])
    rate = statistics.wilson(int((~known).sum()), len(known))
    by_type = {k: statistics.wilson(int(known[rows].sum()), int(rows.sum())) for k, rows in _rows(asked).items()}
    paired, part = pairs(asked, known, config.seed)
    numbers: dict[str, Any] = {
        "prevalence": {"rate": record.plain(rate, split="all", seed=config.seed), "least": protocol.least, "measured": "entities not known", "unit": "share"},
        "known": record.plain(by_type, split="all", seed=config.seed),
        "pairs": len(part),
        "cities": told,
        "abstention": "not measured: continuations are never an abstention here",
    }  # fmt: skip
    gate = _gate(rate, len(part), protocol.least)
    numbers["prevalence"]["outcome"] = gate[0] if gate else "shown"
    kept = record.of_cases(cases, asked, part)
    if len(part) < LEAST_GROUPS or {"train", "validation", "test"} - set(part.values()):  # nothing to fit on, or to test
        word, why = gate or ("underpowered", "too few pairs")
        finding = Finding("detection", "vectors tell known from unknown entities", word, why)
        return Result(protocol.name, protocol.asks, word, why, (finding,), numbers, kept, protocol.limits)
    say("vectors")
    prompts = target.prompts(paired)
    places = ["entity", "last"]
    found = experiment.read(target, paired, prompts, dict(part), ("unknown", "known"), places, config, gate)
    findings = [found.finding]
    if dictionary is not None:
        say("latents")
        findings.append(general(dictionary, encoded(target, prompts, dictionary, ["entity"]), found, config, gate))
    word, why = verdict.headline(gate, False, findings)
    return Result(protocol.name, protocol.asks, word, why, tuple(findings), numbers, kept, protocol.limits)


def knows(continuation: str, answer: str) -> bool:
    """Whether a continuation begins with the right attribute, as a word (or the beginning of one, for names that end in a mark)."""
    said = continuation.strip().lower()
    wanted = answer.lower()
    return said.startswith(wanted) and (len(answer) > 3 or not said[len(wanted) :][:1].isalpha())


def _rows(cases: list[Case]) -> dict[str, np.ndarray]:
    source = np.array([c.source for c in cases])
    return {k: source == k for k in sorted(set(source.tolist()))}


def _gate(rate: Any, n: int, least: float) -> tuple[str, str] | None:
    if rate.high < least:
        return "vacuous", "it knows nearly all entities of our lists: there is nothing that it makes up"
    if n < LEAST:
        return "underpowered", f"{n} pairs of a known and an unknown entity: at least {LEAST} are needed"
    return None


def pairs(cases: list[Case], known: np.ndarray, seed: int) -> tuple[list[Case], dict[str, Split]]:
    """Cases labelled known and unknown, in groups of one each of one type, with the part of each group."""
    random, out, part = rng.generator(seed, "entities"), [], {}
    shares: tuple[Split, ...] = (
        "train",
        "test",
        "train",
        "validation",
        "train",
        "test",
        "train",
        "validation",
        "train",
        "test",
    )
    for kind, rows in _rows(cases).items():
        yes, no = (random.permutation(np.flatnonzero(rows & side)) for side in (known, ~known))
        start = int(random.integers(len(shares)))
        for number, (a, b) in enumerate(zip(yes.tolist(), no.tolist(), strict=False)):
            group = f"{kind}-{number}"
            out += [replace(cases[i], label=label, group=group) for i, label in ((a, "known"), (b, "unknown"))]
            part[group] = shares[(start + number) % len(shares)]
    return out, part


# -- latents ---------------------------------------------------------------------------------------------------------------
def general(d: Dictionary, entities: Encoded, read: Read, config: AuditConfig, gate: tuple[str, str] | None) -> Finding:
    """The latent whose smallest AUROC over types is largest, of either sign; its p is by labels permuted in the test's pairs."""
    data = read.data
    fvu = experiment.fvu(entities.missed[:, 0], entities.spread[:, 0], data.group, config.seed)
    latents = np.asarray(entities.latents["entity"].todense(), np.float64)
    source = np.array([c.source for c in data.cases])
    seen, rows = data.rows("train") | data.rows("validation"), data.rows("test")
    areas = by_type(latents[seen], data.y[seen], source[seen])
    up, down = areas.min(0), (1 - areas).min(0)
    j = int(np.maximum(up, down).argmax())
    sign = 1.0 if up[j] >= down[j] else -1.0
    value = sign * latents[rows, j]
    drawn = statistics.permutations(data.y[rows], data.group[rows], draws=config.permutations, seed=config.seed)
    even = np.ones(int(rows.sum()))
    area = lambda labels: float(statistics.ordered(labels, value)(even))  # noqa: E731
    p = statistics.p_value(area(data.y[rows]), np.array([area(labels) for labels in drawn]))
    auroc = statistics.auroc(data.y[rows], value, data.group[rows], seed=config.seed)
    word, why = gate or _verdict(fvu.value, auroc.low, p, config, read.finding)
    chosen_by = smallest(data.y[seen], sign * latents[seen, j], data.group[seen], source[seen], config.seed)
    numbers = {
        "latent": j, "sign": sign, "min_over_types": record.plain(chosen_by, split="train and validation", seed=config.seed),
        "auroc": record.plain(auroc, split="test", seed=config.seed), "p": p, "searched": d.d_sae,
        "min_over_types_tested": record.plain(
            smallest(data.y[rows], value, data.group[rows], source[rows], config.seed), split="test", seed=config.seed
        ),
        "fvu": record.plain(fvu, split="all", seed=config.seed),
        "types": {
            kind: record.plain(statistics.auroc(data.y[rows][own], value[own], data.group[rows][own], seed=config.seed),
                               split="test", seed=config.seed)
            for kind in sorted(set(source[rows].tolist())) if (own := source[rows] == kind).any()
        },
    }  # fmt: skip
    return Finding(
        "general latent", f"latent {j} at {d.site_in} tells unknown from known entities in every type", word, why, numbers
    )


def _verdict(fvu: float, low: float, p: float, config: AuditConfig, dense: Finding) -> tuple[str, str]:
    if fvu > config.most_fvu:
        return "fidelity-fail", "the dictionary does not give back the entities' vectors"
    if low <= 0.5 or p > config.level:
        return "not-distinguishable", "no latent is general over the types"
    if dense.verdict == "confounded":
        return dense.verdict, f"one latent does so, and the dense readout is confounded: {dense.why}"
    return "sparse-explains", "one latent tells unseen pairs of all types apart"


def smallest(y: np.ndarray, values: np.ndarray, groups: np.ndarray, source: np.ndarray, seed: int) -> Estimate:
    """The smallest AUROC of `values` [n] over the types, with its interval over groups."""
    kinds = [source == k for k in np.unique(source) if 0 < y[source == k].sum() < (source == k).sum()]
    each = [statistics.ordered(y[rows], values[rows]) for rows in kinds]
    return statistics.bootstrap(
        lambda w: np.stack([area(w[..., rows]) for area, rows in zip(each, kinds, strict=True)]).min(0), groups, seed=seed
    )


def by_type(values: np.ndarray, y: np.ndarray, source: np.ndarray) -> np.ndarray:
    """AUROC [types, S] of `values` [n, S] within each type that has both sides."""
    out = []
    for kind in sorted(set(source.tolist())):
        a, b = (values[(source == kind) & side] for side in (y, ~y))
        if len(a) and len(b):
            larger = (a[:, None] > b[None]).mean((0, 1))
            out.append(larger + 0.5 * (a[:, None] == b[None]).mean((0, 1)))
    return np.stack(out)


def _cities(say: Say) -> tuple[list[Case], str]:
    from diascope.evals.entry import Unmeasurable

    try:
        return (found := cities(progress=say)), f"{len(found)} cities from GeoNames (CC-BY-4.0)"
    except Unmeasurable as error:
        return [], f"left out: {error}"


def cities(n: int = CITIES, *, progress: Say = lambda note: None) -> list[Case]:
    """The line for each of `n` cities, from the most populous to small ones; Unmeasurable where the package is not there."""
    from diascope.audits.protocols.hallucination import case
    from diascope.evals.cities import PROMPTS
    from diascope.evals.cities import cities as populous

    found = populous(8 * n, progress=progress)[::8]
    return [case("city", PROMPTS["country"].replace("{city}", "{e}"), c.name, c.answers["country"]) for c in found]
