"""First-letter absorption (Chanin et al. 2024, arXiv:2409.14507): does a latent for a letter fall silent on words that have one of their own?

1. A dense probe a letter on the vectors at words of one token (spelling.py), fitted on four fifths of the words.
   Gates: letters whose probe reaches F1 > 0.6 on the others count; where fewer than 20 do, the result is null.
2. The letter's main latents: ranked as for k-sparse probing; the first, and further ones for as long as each adds more than
   0.03 to the F1 of a probe on them (a letter may be split), on training words that the probe was not fitted on.
3. On every test word of the letter that the dense probe finds: with u the probe's unit direction and means over training words,
   P = (x - mean x) . u is to be explained, and latent j explains (f_j - mean f_j) (W_dec[j] . u).
   Absorbers are at most 3 other latents with cos(W_dec[j], u) >= 0.1, those that explain most. Where together they explain
   at least 0.4 P and the main latents less than P,
       absorption = min(absorbers, P - main) / (min(absorbers, P - main) + main),     0 elsewhere.
4. A word is fully absorbed where no main latent is active and the one latent that explains most has cos >= 0.025 and explains at
   least 0.4 P.

SAEBench's numbers (its thresholds are taken over) differ in two points: everything is taken about the means here, since on Gemma 3
nine tenths of a vector are the mean; and decoder rows need not have unit length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diascope import rng
from diascope.dictionaries import Dictionary
from diascope.evals.entry import Entry, Unmeasurable, over
from diascope.evals.probes import Probe, fit
from diascope.evals.probing import ranking, sparse
from diascope.evals.spelling import LETTERS, Words, read, words_of
from diascope.evals.subject import Subject


@dataclass(frozen=True)
class Absorption:
    """How many words, and the gates and thresholds of the definition."""

    words: int = 220  # a letter, a fifth of them for testing
    probe_f1: float = 0.6
    letters: int = 20
    splits: int = 10
    jump: float = 0.03
    cosine: float = 0.1
    cosine_full: float = 0.025
    absorbers: int = 3
    share: float = 0.4
    seed: int = 0


@dataclass(frozen=True)
class Letter:
    """What was found for one letter."""

    main: list[int]
    probe_f1: float
    latent_f1: float  # of the main latents together, on the test words
    fraction: np.ndarray  # [test words that the probe finds]
    full: np.ndarray  # the same, 0 or 1


def absorption(
    subject: Subject,
    d: Dictionary,
    config: Absorption | None = None,
    *,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Entry:
    """Absorption of first letters in `d`, which must write what it reads (an SAE)."""
    config = config or Absorption()
    if d.config.kind != "sae":
        return Entry(
            config, {"reason": f"absorption is defined on what an SAE reads and writes, and this is a {d.config.kind}"}, {}
        )
    site = d.config.reads
    try:
        spelled = subject.once(("absorption", config, site), lambda: _spelled(subject, d, config))
    except Unmeasurable as error:
        return Entry(config, {"reason": str(error)}, {"absorption": None, "full absorption": None})
    words, x, f1 = spelled.words, spelled.x, spelled.f1
    passed = [n for n in spelled.probes if f1[n] > config.probe_f1]
    run: dict[str, Any] = {"words": len(words.words), "letters that pass": len(passed)}
    controls = {
        "dense probe": {"f1": over(list(f1.values()))},
        "shuffled labels": {
            "f1": over(spelled.chance),
            "letters that pass": float(sum(v > config.probe_f1 for v in spelled.chance)),
        },
    }
    if len(passed) < config.letters:
        run["reason"] = f"{len(passed)} letters have a probe with F1 above {config.probe_f1}, and {config.letters} are needed"
        return Entry(config, run, {"absorption": None, "full absorption": None}, controls)
    f, W, found = sparse(d, x), d.W_dec.detach().numpy(), {}
    for i, n in enumerate(passed):
        progress(i, len(passed), LETTERS[n])
        found[n] = _letter(W, f, x, words, n, spelled.probes[n], f1[n], config)
    progress(len(passed), len(passed), "")
    return Entry(config, run, _result(found), controls, _details(found))


@dataclass(frozen=True)
class _Spelled:
    """What dictionaries of one site share: words, vectors at them [n, d], dense probes by letter, and F1 on the test words."""

    words: Words
    x: np.ndarray
    probes: dict[int, Probe]
    f1: dict[int, float]
    chance: list[float]  # of probes for shuffled letters


def _spelled(subject: Subject, d: Dictionary, config: Absorption) -> _Spelled:
    words = words_of(subject.model, config.words, seed=config.seed)
    x = d.inputs(subject.once(("words", config), lambda: read(subject, words))).numpy()
    probes = {n: p for n in range(26) if (p := _probe(x, words, words.letter, n)) is not None}
    f1 = {n: _f1(words.letter[words.test] == n, p.score(x[words.test]) > 0) for n, p in probes.items()}
    shuffled = rng.generator(config.seed, "shuffled letters").permutation(words.letter)
    chance = [
        _f1(shuffled[words.test] == n, p.score(x[words.test]) > 0) for n in probes if (p := _probe(x, words, shuffled, n))
    ]
    return _Spelled(words, x, probes, f1, chance)


def _probe(x: np.ndarray, words: Words, letter: np.ndarray, n: int) -> Probe | None:
    y = (letter == n).astype(np.int64)
    if min(y[~words.test].sum(), y[words.test].sum()) < 2:
        return None
    return fit(x[~words.test], y[~words.test], standardise=True, strengths=(0.01,), balanced=True)


def _f1(truth: np.ndarray, said: np.ndarray) -> float:
    hits = int((truth & said).sum())
    return 2 * hits / max(int(truth.sum() + said.sum()), 1)


def _letter(
    W: np.ndarray, f: Any, x: np.ndarray, words: Words, n: int, probe: Probe, probe_f1: float, config: Absorption
) -> Letter:
    y, train = (words.letter == n).astype(np.int64), np.flatnonzero(~words.test)
    order = ranking(f[train], y[train])[: config.splits]
    near = f[:, order].toarray()
    held = np.arange(len(train)) % 4 == 3
    inner, outer = train[~held], train[held]

    def f1_of(k: int, rows: np.ndarray, on: np.ndarray) -> float:
        p = fit(near[rows][:, :k], y[rows], strengths=(1.0,), balanced=True)
        return _f1(y[on] == 1, p.score(near[on][:, :k]) > 0)

    k, best = 1, f1_of(1, inner, outer)
    while k < len(order) and (more := f1_of(k + 1, inner, outer)) > best + config.jump:
        k, best = k + 1, more
    test = np.flatnonzero(words.test & (y == 1) & (probe.score(x) > 0))
    u = probe.direction
    P = (x[test] - x[train].mean(0)) @ u
    mean = np.asarray(f[train].mean(0)).ravel()
    fraction, full = _absorbed(W, f[test], mean, P, u, order[:k], config)
    return Letter(order[:k].tolist(), probe_f1, f1_of(k, train, np.flatnonzero(words.test)), fraction, full)


def _absorbed(
    W: np.ndarray, f: Any, mean: np.ndarray, P: np.ndarray, u: np.ndarray, main: np.ndarray, config: Absorption
) -> tuple[np.ndarray, np.ndarray]:
    """(absorption, 1 where fully absorbed) of words with latents f [n, S], of mean [S], and probe projections P [n]."""
    fraction, full = np.zeros(len(P)), np.zeros(len(P))
    silent = -float(mean[main] @ (W[main].astype(np.float64) @ u))  # what silent main latents explain
    for i in range(len(P)):
        j, v = f.indices[f.indptr[i] : f.indptr[i + 1]], f.data[f.indptr[i] : f.indptr[i + 1]]
        if P[i] <= 0 or not len(j):
            continue
        rows = W[j].astype(np.float64)
        along, own = rows @ u, np.isin(j, main)
        cosine, explains = along / np.maximum(np.linalg.norm(rows, axis=1), 1e-30), (v - mean[j]) * along
        mine = silent + float((v * along)[own].sum())
        others = np.sort(explains[~own & (cosine >= config.cosine) & (explains > 0)])[::-1][: config.absorbers].sum()
        if mine < P[i] and others >= config.share * P[i]:
            part = min(float(others), P[i] - max(mine, 0.0))
            fraction[i] = 1.0 if mine <= 0 else part / (part + mine)
        top = int(explains.argmax())
        full[i] = not own.any() and cosine[top] >= config.cosine_full and explains[top] >= config.share * P[i]
    return fraction, full


def _result(found: dict[int, Letter]) -> dict[str, Any]:
    counted = {n: v for n, v in found.items() if len(v.fraction)}
    return {
        "absorption": over([v.fraction.mean() for v in counted.values()]),
        "full absorption": over([v.full.mean() for v in counted.values()]),
        "main latents": over([len(v.main) for v in found.values()]),
        "f1 of main latents": over([v.latent_f1 for v in found.values()]),
    }


def _details(found: dict[int, Letter]) -> dict[str, Any]:
    return {
        LETTERS[n]: {
            "main": v.main, "probe_f1": v.probe_f1, "latent_f1": v.latent_f1, "words": len(v.fraction),
            "absorption": float(v.fraction.mean()) if len(v.fraction) else None,
            "full": float(v.full.mean()) if len(v.full) else None,
        }
        for n, v in found.items()
    }  # fmt: skip
