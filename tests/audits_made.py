"""audit.json of two made-up protocols, in the record's shape (diascope.audits.record): one loud and causal, one quiet."""

from typing import Any

CAUSAL = "ablate on positive"
SITES, PLACES = ["L0.resid_post", "L1.resid_post"], ["last", "request"]


def estimate(value: float, half: float = 0.05, n: int = 24, **beside: Any) -> dict[str, Any]:
    return {
        "value": value,
        "n": n,
        "groups": n // 2,
        "low": value - half,
        "high": value + half,
        **(beside or {"split": "test", "seed": 0}),
    }


def quantiles(low: float, middle: float, high: float, most: float, k: int = 67) -> dict[str, float]:
    return {"k": k, "0.025": low, "0.5": middle, "0.975": high, "max": most}


def readout(site: str = SITES[1]) -> dict[str, Any]:
    return {
        "kind": "mean difference",
        "site": site,
        "place": "last",
        "norm": 3.5,
        "validation_auroc": {"value": 0.9, "split": "validation"},
    }


def _behaviour(rate: float, outcome: str) -> dict[str, Any]:
    sides = {"marked": estimate(rate, n=40, split="all"), "plain": estimate(0.05, 0.02, n=40, split="all")}
    prevalence = {
        "rate": estimate(rate, 0.04, n=38, split="all"), "least": 0.3, "sides": sides, "difference": estimate(rate - 0.05, n=40, split="all"),
        "outcome": outcome, "measured": "choice margin", "unit": "nats", "fitted": {"name": "choice margin"},
        "scores": {"marked": {"value": 1.25, "n": 40}, "plain": {"value": -0.75, "n": 40}},
    }  # fmt: skip
    twins = {
        "twin": estimate(0.1, 0.06, n=40, split="all", seed=0),
        "difference": estimate(0.025, 0.1, n=40, split="all", seed=0),
    }
    return {"prevalence": prevalence, "confound": twins | {"share": 0.0625, "found": False}}


def _detection() -> dict[str, Any]:
    return {
        "readout": readout(), "auroc": estimate(0.875, 0.1), "p": 0.001,
        "kinds": {"mean difference": estimate(0.875, 0.1), "LDA": estimate(0.8125, 0.125)},
        "text": {"length": estimate(0.55, 0.15), "words": estimate(0.6, 0.12)}, "minus_text": estimate(0.275, 0.11), "twins": estimate(0.7, 0.14),
        "permuted_labels": {"k": 199, "p": 0.02, "quantiles": {"0.025": 0.3, "0.5": 0.5, "0.975": 0.7, "max": 0.8}},
        "refitted": {"values": [0.8, 0.85, 0.9], "what": "training groups resampled", "split": "test", "seed": 0}, "without_source": {"two": 0.77},
        "map": {"sites": SITES, "places": PLACES, "auroc": [[0.5, 0.625], [0.9, 0.75]], "split": "validation"}, "tried": 10,
        "n": {"train": [20, 20], "validation": [8, 8], "test": [12, 12]},
    }  # fmt: skip


def _sparse() -> dict[str, Any]:
    found = {
        "latent": 5,
        "statistic": 4.25,
        "p_family": 0.002,
        "q": 0.015,
        "fires": {"positive": 0.75, "negative": 0.125},
        "promotes": [" no", "!"],
    }
    return {
        "auroc": estimate(0.85, 0.09), "minus_dense": estimate(-0.025, 0.03), "k": 1, "place": "last", "latents": [found],
        "validation": {"1": {"auroc": 0.9, "place": "last"}, "10": {"auroc": 0.8, "place": "last"}, "2": {"auroc": 0.85, "place": "last"}},
        "searched": 64, "discoveries": 1, "coverage": {"1": 0.5, "2": 0.625, "10": 0.875},
        "fidelity": {"fvu": 0.25, "l0": 12.5, "delta_score": estimate(-0.1, 0.3), "most_fvu": 0.5, "rows": 96, "passed": True,
                     "within": {"last": 0.75, "request": 0.25}, "left_out": ["last-1"]},
    }  # fmt: skip


def _causal() -> dict[str, Any]:
    families = {
        "random": quantiles(-0.4, 0.0, 0.5, 0.75),
        "covariance": quantiles(-0.6, 0.1, 0.7, 0.9),
        "permuted labels": quantiles(-0.5, 0.0, 0.45, 0.6),
    }
    p = {"random": 0.0147, "covariance": 0.0147, "permuted labels": 0.0147, "pooled": 0.005}
    trial = {
        "raises": False,
        "clean": estimate(1.5, 0.2, n=12),
        "effect": estimate(2.25, 0.35, n=12),
        "p": 0.0147,
        "p_family": p,
        "controls": families,
        "passed": True,
    }
    damage = {"kl": estimate(0.02, 0.01, n=16, split="neutral", seed=0), "delta_ce": estimate(0.03, 0.015, n=322, split="neutral", seed=0),
              "accuracy": estimate(-0.0625, 0.06, n=16, split="neutral", seed=0), "most_kl": 0.1, "most_ce": 0.1, "most_lost": 0.1, "passed": True}  # fmt: skip
    candidate = readout() | {"effects": [2.0, 1.5], "kl": 0.02, "kept": True, "split": "validation"}
    added = trial | {"raises": True, "wrong_sign": estimate(-1.9, 0.4, n=12), "wrong_layer": estimate(0.2, 0.17, n=12)}
    rates = {"clean": estimate(0.95, 0.045, n=12), "edited": estimate(0.15, 0.13, n=12)}
    return {
        "readout": readout(), "cosine_to_detection": 0.875, "promotes": [" N", " No"], "candidates": [candidate],
        "trials": {CAUSAL: trial, "add on negative": added}, "damage": damage, "written": {CAUSAL: rates},
    }  # fmt: skip


def _cases() -> dict[str, Any]:
    return {"set": "made", "sha256": "0123456789abcdef", "licence": "CC0-1.0", "origin": "made up", "seed": 0, "n": 80,
            "labels": {"marked": 40, "plain": 40}, "groups": {"train": 20, "validation": 8, "test": 12}, "test_groups": ["3", "7"]}  # fmt: skip


def audit_data() -> dict[str, Any]:
    """A new copy of the audit."""

    def finding(name: str, word: str, numbers: dict[str, Any], why: str = "it says so") -> dict[str, Any]:
        return {"name": name, "claim": f"{name} holds", "verdict": word, "why": why, "numbers": numbers}

    loud = [
        finding("detection", "detects", _detection()),
        finding("sparse", "sparse-explains", _sparse()),
        finding("causal", "causal", _causal()),
    ]
    quiet = [
        finding("detection", "vacuous", _detection(), "not shown"),
        finding("causal", "vacuous", {}, "not tried: not shown"),
    ]
    facts = {
        "model": "made-model", "model_sha256": "fedcba9876543210", "parameters": 135_000_000, "dtype": "float32", "layers": 2,
        "dictionary": {"title": "SAE on L1.resid_post", "sha256": "00112233", "d_sae": 64, "site": "L1.resid_post", "model": "toy"},
        "config": {"seed": 0, "controls": 201}, "config_hash": "abcdef", "seed": 0, "diascope": "0.1.0",
        "limits": ["a model of 135 M parameters: refusal is unvalidated at this size"],
    }  # fmt: skip
    result = {"asks": "Is it so?", "cases": _cases(), "limits": ["one turn"], "seconds": 3.0}
    return {
        "format": "diascope-audit-1",
        "facts": facts,
        "results": [
            result | {"protocol": "loud", "verdict": "causal", "why": "causal: it moves", "findings": loud, "numbers": _behaviour(0.9, "shown"), "notes": []},
            result | {"protocol": "quiet", "verdict": "vacuous", "why": "too rare", "findings": quiet, "numbers": _behaviour(0.1, "vacuous"), "notes": ["length alone tells them apart"]},
        ],
    }  # fmt: skip
