"""First-letter absorption written a second time, slowly, in float64, from the definition alone: the oracle of evals/absorption.py.

    .venv/bin/python tests/oracles/absorption.py DICTIONARY      # ours beside this on the real model; ends with 1 where they differ

Nothing of diascope's evaluation is used in `absorption`: dense arrays, one word and one latent at a time. What both take from elsewhere is
scikit-learn's logistic regression.

For a letter and one of its test words, with u the unit direction of the letter's dense probe, and means over training words:
    P         = (x - mean x) . u                          what is to be explained
    e_j       = (f_j - mean f_j) (W_dec[j] . u)           what latent j explains of it; a silent latent explains -mean f_j (...)
    main      = sum of e_j over the letter's main latents
    absorbers = the largest e_j, at most 3, of other latents that fire, with cos(W_dec[j], u) >= 0.1 and e_j > 0
    absorbed  = [main < P and absorbers >= 0.4 P and P > 0] a / (a + main), a = min(absorbers, P - main); 1 where main <= 0
    full      = no main latent fires, and the firing latent with the largest e_j has cosine >= 0.025 and explains >= 0.4 P
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Found:
    """Of one letter: its main latents, F1 of its dense probe on test words, and means over the test words that the probe finds."""

    main: list[int]
    probe_f1: float
    latent_f1: float
    words: int
    absorption: float | None
    full: float | None


def regression(x: np.ndarray, y: np.ndarray, C: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=C, max_iter=1000, class_weight="balanced").fit(x, y)


def f1(truth: np.ndarray, said: np.ndarray) -> float:
    precision = truth[said].mean() if said.any() else 0.0
    recall = said[truth].mean() if truth.any() else 0.0
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def encoded(x: np.ndarray, W_enc: np.ndarray, b_enc: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    pre = x @ W_enc + b_enc
    return np.where(pre > np.maximum(threshold, 0), pre, 0.0)


def main_latents(f: np.ndarray, y: np.ndarray, splits: int = 10, jump: float = 0.03) -> list[int]:
    """Of training words with latents f [n, S] and labels y [n]."""
    distance = np.zeros(f.shape[1])
    for j in range(f.shape[1]):
        on = f[:, j] > 0
        if on.any():
            z = f[:, j] / f[on, j].mean()
            distance[j] = abs(z[y == 1].mean() - z[y == 0].mean())
    order = np.argsort(-distance, kind="stable")[:splits]
    held = np.arange(len(y)) % 4 == 3

    def score(k: int) -> float:
        rows = f[:, order[:k]]
        return f1(y[held] == 1, regression(rows[~held], y[~held], 1.0).predict(rows[held]) == 1)

    k = 1
    while k < len(order) and score(k + 1) > score(k) + jump:
        k += 1
    return order[:k].tolist()


def word(
    x: np.ndarray, f: np.ndarray, mean_x: np.ndarray, mean_f: np.ndarray, u: np.ndarray, W: np.ndarray, main: list[int]
) -> tuple[float, float]:
    """(absorbed, full) of one word."""
    P = float((x - mean_x) @ u)
    explains = [float((f[j] - mean_f[j]) * (W[j] @ u)) for j in range(len(f))]
    cosine = [float(W[j] @ u / np.linalg.norm(W[j])) for j in range(len(f))]
    firing = [j for j in range(len(f)) if f[j] > 0]
    if P <= 0 or not firing:
        return 0.0, 0.0
    own = sum(explains[j] for j in main)
    others = sorted((explains[j] for j in firing if j not in main and cosine[j] >= 0.1 and explains[j] > 0), reverse=True)
    absorbers = sum(others[:3])
    absorbed = 0.0
    if own < P and absorbers >= 0.4 * P:
        a = min(absorbers, P - own)
        absorbed = 1.0 if own <= 0 else a / (a + own)
    best = max(firing, key=lambda j: explains[j])
    full = not any(j in main for j in firing) and cosine[best] >= 0.025 and explains[best] >= 0.4 * P
    return absorbed, float(full)


def absorption(
    x: np.ndarray,
    letter: np.ndarray,
    test: np.ndarray,
    W_enc: np.ndarray,
    b_enc: np.ndarray,
    threshold: np.ndarray,
    W_dec: np.ndarray,
) -> dict[int, Found]:
    """By letter, of those whose dense probe reaches F1 > 0.6. x [n, d] are vectors at words; the rest is an SAE's."""
    x, W_enc, b_enc, threshold, W_dec = (np.asarray(v, np.float64) for v in (x, W_enc, b_enc, threshold, W_dec))
    f, train, out = encoded(x, W_enc, b_enc, threshold), ~test, {}
    mean, spread = x[train].mean(0), x[train].std(0)
    for n in range(26):
        y = (letter == n).astype(int)
        if min(y[train].sum(), y[test].sum()) < 2:
            continue
        model = regression((x[train] - mean) / spread, y[train], 0.01)
        says = ((x - mean) / spread) @ model.coef_[0] + model.intercept_[0] > 0
        quality = f1(y[test] == 1, says[test])
        if quality <= 0.6:
            continue
        u = model.coef_[0] / spread
        u = u / np.linalg.norm(u)
        main = main_latents(f[train], y[train])
        on_main = regression(f[train][:, main], y[train], 1.0)
        latent = f1(y[test] == 1, on_main.predict(f[test][:, main]) == 1)
        found = [
            word(x[i], f[i], x[train].mean(0), f[train].mean(0), u, W_dec, main) for i in np.flatnonzero(test & (y == 1) & says)
        ]
        shares = np.array(found).mean(0) if found else (None, None)
        out[n] = Found(main, quality, latent, len(found), *(None if s is None else float(s) for s in shares))
    return out


def differences(ours: dict[str, Any], theirs: dict[int, Found]) -> float:
    """The largest difference of any number of any letter; infinite where other letters pass or other latents are main ones.

    `ours` are the details of diascope's entry.
    """
    letters = {chr(ord("a") + n): v for n, v in theirs.items()}
    if set(ours) != set(letters):
        return float("inf")
    worst = 0.0
    for name, v in letters.items():
        own = ours[name]
        if own["main"] != v.main or own["words"] != v.words or (own["absorption"] is None) != (v.absorption is None):
            return float("inf")
        pairs = [(own["probe_f1"], v.probe_f1), (own["latent_f1"], v.latent_f1)]
        if v.absorption is not None:
            pairs += [(own["absorption"], v.absorption), (own["full"], v.full)]
        worst = max(worst, *(abs(a - b) for a, b in pairs))
    return worst


def main() -> int:
    import diascope
    from diascope.evals.absorption import Absorption
    from diascope.evals.absorption import absorption as ours
    from diascope.evals.spelling import read, words_of
    from diascope.evals.subject import Subject

    model, d = diascope.load_model("gemma-3-270m"), diascope.load_dictionary(sys.argv[1])
    subject = Subject(model, [d])
    entry = ours(subject, d, Absorption())
    words = words_of(model, Absorption().words)
    x = d.inputs(read(subject, words)).numpy()
    tensors = [t.detach().numpy() for t in (d.W_enc, d.b_enc, d.threshold, d.W_dec)]
    theirs = absorption(x, words.letter, words.test, *tensors)
    for n, v in theirs.items():
        print(chr(ord("a") + n), v, entry.details.get(chr(ord("a") + n)))
    worst = differences(dict(entry.details), theirs)
    print(f"{len(theirs)} letters, {len(words.words)} words; largest difference {worst:.1e}")
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
