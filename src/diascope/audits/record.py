"""The record of an audit: what audit.json holds (`diascope-audit-1`, docs/audits.md), every number with n, interval, split and seed.

Prompts and answers are not in it: cases are named by id and by the hash of their set. Where they are asked for, they stand in a file
beside it (texts.py).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diascope.audits import sparse, statistics
from diascope.audits.cases import Case, CaseSet
from diascope.audits.detect import SEEDS, Data, Detection
from diascope.audits.texts import write_texts
from diascope.audits.verdict import Finding
from diascope.config import config_hash, to_data
from diascope.numerics import Estimate
from diascope.sites import Site
from diascope.storage.files import finite, write_json

if TYPE_CHECKING:
    from diascope.audits.gates import Fidelity, Prevalence
    from diascope.audits.outcomes import Outcome
    from diascope.audits.readouts import Readout, Search
    from diascope.audits.settings import AuditConfig
    from diascope.audits.target import Target
    from diascope.dictionaries import Dictionary

FORMAT = "diascope-audit-1"
LARGE = 1_000_000_000  # parameters below which chat behaviours hardly exist


@dataclass(frozen=True)
class Result:
    """One protocol on one target."""

    protocol: str
    asks: str
    verdict: str
    why: str
    findings: tuple[Finding, ...]
    numbers: dict[str, Any]
    cases: dict[str, Any]
    limits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def told(self, notes: Sequence[str], seconds: float) -> Result:
        """With warnings about the cases, and how long it took."""
        return replace(self, notes=tuple(notes), seconds=round(seconds, 1))


@dataclass(frozen=True)
class Audit:
    """All protocols on one target."""

    facts: dict[str, Any]
    results: tuple[Result, ...]
    texts: tuple[dict[str, Any], ...] = ()
    """Prompts and answers, as far as they are kept (texts.py); not in `data`."""

    def data(self) -> dict[str, Any]:
        """JSON-ready."""
        return finite({"format": FORMAT, "facts": self.facts, "results": [plain(r) for r in self.results]})

    def save(self, path: str | Path) -> None:
        """Write audit.json, atomically, and beside it the texts that are kept (audit.texts.jsonl); older ones are taken away."""
        write_texts(path, self.texts)
        write_json(path, self.data())

    @property
    def verdicts(self) -> dict[str, str]:
        """By protocol."""
        return {r.protocol: r.verdict for r in self.results}


def plain(value: Any, **beside: Any) -> Any:
    """`value` as JSON-ready data; an estimate becomes {value, n, groups, low, high} with `beside` (split, seed)."""
    if isinstance(value, Estimate):
        return {"value": value.value, "n": value.n, "groups": value.documents, "low": value.low, "high": value.high, **beside}
    if isinstance(value, Site):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), **beside) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v, **beside) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, **beside) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def facts(target: Target, dictionary: Dictionary | None, config: AuditConfig) -> dict[str, Any]:
    """What was audited, with what, and the hashes of all of it."""
    import diascope
    from diascope.dictionaries.dictionary import weights_hash

    n = sum(p.numel() for p in target.model.module.parameters())
    out: dict[str, Any] = {
        "model": target.name,
        "model_sha256": target.hash,
        "parameters": n,
        "dtype": str(target.model.dtype).removeprefix("torch."),
        "layers": target.model.n_layers,
        "dictionary": None,
        "config": to_data(config),
        "config_hash": config_hash(config),
        "seed": config.seed,
        "diascope": diascope.__version__,
        "limits": [],
    }
    if dictionary is not None:
        out["dictionary"] = {
            "title": dictionary.config.title, "sha256": weights_hash([dictionary]), "d_sae": dictionary.d_sae,
            "site": dictionary.config.sites_in[0], "model": dictionary.config.model,
        }  # fmt: skip
    at = f"a model of {n / 1e6:.0f} M parameters" if n < LARGE else f"a model of {n / 1e9:.1f} B parameters"
    why = "refusal, deference and reasoning as larger chat models have them are unvalidated at this size"
    if n >= LARGE:
        why = "verdicts were compared with planted behaviours on a model of 135 M parameters alone: nothing was validated at this size"
    out["limits"].append(f"{at}: {why}")
    if dictionary is not None and (other := _other_model(dictionary.config.model, target)):
        out["limits"].append(other)
    return out


def _other_model(made_on: str, target: Target) -> str:
    """A sentence where the dictionary names another model than the audited one, or than the one that it was made from."""
    reference = getattr(target, "reference", None)  # studies have none
    own = [target.name, target.model.name, *([reference.name] if reference is not None else [])]
    if not made_on or any(_bare(made_on) == _bare(name) for name in own):
        return ""
    return f"the dictionary was made on {made_on}, this is {target.name}: fidelity says whether it fits"


def _bare(name: str) -> str:
    """A model's name without owner and in lower case, as far as spellings of one model share it."""
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def of_cases(cases: CaseSet, used: Sequence[Case], part: dict[str, Any]) -> dict[str, Any]:
    """Which cases, and how they were dealt."""
    dealt = {s: [g for g, where in part.items() if where == s] for s in ("train", "validation", "test")}
    return {
        "set": cases.name, "sha256": cases.hash, "licence": cases.licence, "origin": cases.origin, "seed": cases.seed,
        "n": len(used), "labels": dict(Counter(c.label for c in used)), "groups": {s: len(g) for s, g in dealt.items()},
        "test_groups": sorted(dealt["test"]),
    }  # fmt: skip


def of_prevalence(
    found: Prevalence, outcome: Outcome, scores: np.ndarray, label: np.ndarray, group: np.ndarray, seed: int
) -> dict[str, Any]:
    """The gate, with the mean score of each side."""
    means = {str(name): statistics.mean(scores[label == name], group[label == name], seed=seed) for name in sorted(set(label))}
    return {
        **plain(found, split="all", seed=seed),
        "outcome": found.outcome,
        "measured": outcome.name,
        "unit": outcome.unit,
        "scores": plain(means, split="all", seed=seed),
        "fitted": to_data(outcome),
    }


def of_readout(r: Readout, **of: Any) -> dict[str, Any]:
    """A readout without its numbers (a monitor keeps those); `of` says what its AUROC is of (n, seed)."""
    return {
        "kind": r.kind, "site": str(r.site), "place": r.place, "norm": float(np.linalg.norm(r.direction)),
        "validation_auroc": {"value": r.validation, "split": "validation", **of},
    }  # fmt: skip


def of_detection(found: Detection, search: Search, data: Data, seed: int) -> dict[str, Any]:
    """Detection: the chosen readout, the map of candidates, and what stands beside it on test cases."""
    at = {"split": "test", "seed": seed}
    y, rows = data.y, data.rows
    held = {"n": int(rows("validation").sum()), "seed": seed}
    source = np.array([c.source for c in data.cases])
    return {
        "readout": of_readout(found.readout, **held),
        "auroc": plain(found.auroc, **at),
        "p": found.p,
        "permutations": {"of": "labels inside groups", **at},
        "kinds": {k: plain(v, **at) for k, v in found.kinds.items()},
        "text": {k: plain(v, **at) for k, v in found.text.items()},
        "minus_text": plain(found.margin, **at),
        "permuted_labels": {"k": len(found.permuted), "p": _p(found), "quantiles": quantiles(found.permuted), **at},
        "twins": plain(found.twin, **at) if found.twin else None,
        "refitted": {**_refitted(found.seeds), "n": int(rows("test").sum()), **at},
        "without_source": {k: {"value": v, "n": int((rows("test") & (source == k)).sum()), **at} for k, v in found.sources.items()},
        "map": {"sites": [str(s) for s in data.sites], "places": list(data.places), "auroc": search.grid.round(4).tolist(), "split": "validation", **held},
        "tried": search.tried,
        "n": {part: [int(y[rows(part)].sum()), int((~y[rows(part)]).sum())] for part in ("train", "validation", "test")},
    }  # fmt: skip


def _refitted(values: Sequence[float]) -> dict[str, Any]:
    """AUROC of readouts that were fitted anew, their mean and their range."""
    x = np.asarray(values)
    return {
        "values": x.tolist(), "what": "training groups resampled", "seeds": list(SEEDS), "mean": float(x.mean()),
        "range": [float(x.min()), float(x.max())],
    }  # fmt: skip


def _p(found: Detection) -> float:
    return statistics.p_value(found.auroc.value, found.permuted)


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Of controls: 2.5 %, the median, 97.5 %, and the largest."""
    return {str(q): float(np.quantile(values, q)) for q in (0.025, 0.5, 0.975)} | {"max": float(values.max())}


def of_sparse(
    model: Any,
    d: Dictionary,
    few: Sequence[sparse.Few],
    best: sparse.Few,
    latents: dict[str, Any],
    data: Data,
    auroc: Estimate,
    gap: Estimate,
    fidelity: Fidelity,
    dense: Readout,
    seed: int,
) -> dict[str, Any]:
    """The sparse half; each latent with how often it fires on either side of the test."""
    at, rows = {"split": "test", "seed": seed}, data.rows("test")
    train, held = ({"n": int(data.rows(part).sum()), "split": part, "seed": seed} for part in ("train", "validation"))
    f = latents[best.place][rows].toarray()
    table = []
    for j in best.latents:
        s = best.selected
        table.append({
            "latent": j, "statistic": float(s.statistic[j]), "p_family": float(s.p_family[j]), "q": float(s.q[j]),
            "fires": {side: plain(_fires(f[y, j]), **at) for side, y in (("positive", data.y[rows]), ("negative", ~data.y[rows]))},
            "promotes": sparse.words_of(model, d, j),
        })  # fmt: skip
    coverage = {}
    if d.site_out == dense.site:
        coverage = {str(k): sparse.coverage(d, dense.direction, k) for k in sparse.KS}
    return {
        "auroc": plain(auroc, **at), "minus_dense": plain(gap, **at), "k": len(best.latents), "place": best.place, "latents": table,
        "validation": {str(len(x.latents)): {"auroc": x.validation, "place": x.place, **held} for x in few},
        "selected_on": train, "searched": d.d_sae, "discoveries": int((best.selected.q <= 0.05).sum()), "coverage": coverage,
        "fidelity": {**plain(fidelity, **at), "passed": fidelity.passed, "fvu_of": {"n": fidelity.rows, "split": "all", "seed": seed}},
    }  # fmt: skip


def _fires(amounts: np.ndarray) -> Estimate:
    """The share of cases in which a latent fires, at a place of several tokens on any of them, from its amounts [n]."""
    return statistics.wilson(int((amounts > 0).sum()), len(amounts))
