"""Cause and isolation, after RAVEL (Huang et al. 2024, arXiv:2402.17700): move one attribute of a city and leave the others.

1. Prompts ask for a city's country, continent or language; a city counts for an attribute where the model's next token is the
   answer's first (so it knows it).
2. An attribute's latents, at the last token of half of the cities: each of its values that three of them have gives its latents
   in turn, in k-sparse probing's ranking, the most frequent value first; the k first.
3. For pairs (base, source) of the other half, whose answers differ and are such values: at the base city's last token the
   latents' activations are set to the source's,
   x' = x + (f_source - f_base)_A W_dec[A].
   cause      share of pairs whose prompt for A's attribute now gives the source's answer
   isolation  share of pairs, of those that differ in another attribute too, whose prompt for that still gives the base's
   score      their mean; an edit that does nothing has cause 0, isolation 1 and so 0.5

Beside it: the source's whole vector in place (an upper bound of cause, without isolation), and as many other latents that fire as often.
Where even that moves less than a fifth of the answers the score is null and no latent is tried: later tokens have read the city before
this site.
Intervals are over base cities.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.dictionaries import Dictionary
from diascope.edits import Edit
from diascope.evals.cities import PROMPTS, City, cities
from diascope.evals.entry import Entry, alike, over
from diascope.evals.probing import ranking, sparse
from diascope.evals.subject import Once
from diascope.models import Model
from diascope.numerics import Estimate
from diascope.sites import Site


@dataclass(frozen=True)
class Ravel:
    """How many cities are asked about, how many pairs an attribute is judged on, and how many latents it has."""

    cities: int = 200
    pairs: int = 48
    k: int = 16
    movable: float = 0.2  # share of answers that the whole vector must move, or else there is nothing to isolate
    least: int = 24  # cities known by an attribute, without which it does not count
    seed: int = 0


_Hits = dict[str, dict[str, list[tuple[float, int]]]]  # by who edits and by cause or isolation: (hit, base city)


@dataclass(frozen=True)
class _Asked:
    """One attribute's prompts: tokens, where the city ends, the answers' first tokens, and which of them the model knows."""

    tokens: list[list[int]]
    at: np.ndarray
    answer: np.ndarray
    known: np.ndarray


def ravel(
    model: Model,
    d: Dictionary,
    config: Ravel | None = None,
    *,
    given: Sequence[City] | None = None,
    once: Once | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Entry:
    """Cause and isolation of the attributes of cities in the latents of `d`, which must write the one site that it reads.

    `once` keeps what other dictionaries of the model share: what it knows, and at one site the vectors and what they move.
    """
    once = once or Once()
    config = config or Ravel()
    if d.config.kind != "sae":
        return Entry(
            config, {"reason": f"attributes are moved in what a dictionary reads, and a {d.config.kind} writes elsewhere"}, {}
        )
    chosen = once(("cities", config), lambda: cities(config.cities)) if given is None else given
    who = tuple((c.name, *sorted(c.answers.items())) for c in chosen)
    asked = once(("asked", who), lambda: _ask_all(model, chosen, progress))
    known = {name: int(a.known.sum()) for name, a in asked.items()}
    usable = [n for n in asked if known[n] >= config.least and len(set(asked[n].answer[asked[n].known])) > 1]
    run: dict[str, Any] = {"cities": len(chosen), "known": known}
    if len(usable) < 2:
        return Entry(config, run | {"reason": f"fewer than two attributes are known of {config.least} cities"}, {"score": None})
    if model.of(d.site_in) is not model:
        return Entry(config, run | {"reason": f"{d.site_in} is in another model than the one that answers"}, {"score": None})
    halves = {}
    for i, name in enumerate(usable):
        progress(len(PROMPTS) + i, 3 * len(PROMPTS), f"{name}: moved by the whole vector")
        halves[name] = once(
            (name, who, config, d.site_in), lambda name=name: _half(model, d.site_in, asked, name, usable, config)
        )
    hits: _Hits = defaultdict(lambda: {"cause": [], "isolation": []})
    for moved in (m for half in halves.values() for m in half.prompts):
        _note(hits, "whole vector", moved, moved.whole)
    whole = _summary(hits["whole vector"])
    bound = whole["cause"]
    if not isinstance(bound, Estimate) or bound.value < config.movable:
        run["reason"] = (
            f"even the whole vector moves {bound.value:.0%} of the answers: at {d.site_in} a city's last token decides too little"
            if isinstance(bound, Estimate)
            else "no attribute has two answers that three known cities share on one half: ask about more cities"
        )
        return Entry(config, run, {"score": None}, {"whole vector": whole})
    details = {}
    for i, name in enumerate(usable):
        progress(2 * len(PROMPTS) + i, 3 * len(PROMPTS), f"{name}: moved by latents")
        details[name] = _attribute(model, d, halves[name], config, name, hits)
    progress(3 * len(PROMPTS), 3 * len(PROMPTS), "")
    results = {who: _summary(found) for who, found in hits.items()}
    return Entry(config, run, results.pop("latents"), results, details)


def _ask_all(model: Model, given: Sequence[City], progress: Callable[[int, int, str], None]) -> dict[str, _Asked]:
    asked = {}
    for i, (name, prompt) in enumerate(PROMPTS.items()):
        progress(i, 3 * len(PROMPTS), f"{name}: what the model knows")
        asked[name] = _ask(model, prompt, given, name)
    return asked


def _ask(model: Model, prompt: str, given: Sequence[City], attribute: str) -> _Asked:
    """The city stands at the same tokens whatever follows, so its last token is found by what the prompt up to it gives."""
    opening = len(model.tokenize("x"))

    def after(text: str) -> list[int]:
        """Tokens of text that goes on after a word: some tokenizers put a space of their own before what begins."""
        return model.tokenize("x" + text)[opening:]

    before, rest = prompt.split("{city}")
    head, tail = model.tokenize(before.rstrip()), after(rest)
    tokens = [head + after(" " + c.name) + tail for c in given]
    at = np.array([len(t) - len(tail) - 1 for t in tokens])
    answer = np.array([after(" " + c.answers[attribute])[0] for c in given])
    said = next_tokens(model, tokens)
    return _Asked(tokens, at, answer, said == answer)


@torch.no_grad()
def next_tokens(
    model: Model, tokens: Sequence[Sequence[int]], at: Sequence[int] = (), site: Any = None, added: Tensor | None = None
) -> np.ndarray:
    """The most likely next token after each list [n]; with `added` [n, d], that is added at position `at` of `site`."""
    out = []
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    for first in range(0, len(order), 32):
        here = order[first : first + 32]
        batch, attention = model.batch([list(tokens[i]) for i in here])
        edits = []
        if added is not None:
            delta = torch.zeros(*batch.shape, added.shape[1])
            delta[torch.arange(len(here)), torch.tensor([at[i] for i in here])] = added[here]
            edits.append(Edit(site, site, lambda _, y, delta=delta: y.float() + delta.to(y.device)))
        with model.edit(*edits):
            hidden = model.hidden([list(tokens[i]) for i in here])
        ends = attention.sum(1) - 1
        out.append(model.logits_of(hidden[torch.arange(len(here)), ends]).argmax(-1).cpu())
    found = np.empty(len(tokens), np.int64)
    found[order] = torch.cat(out).numpy()
    return found


def _vectors(model: Model, site: Site, asked: _Asked, which: np.ndarray) -> Tensor:
    parts = []
    for first in range(0, len(which), 32):
        here = which[first : first + 32]
        seen = model.capture([asked.tokens[i] for i in here], site)[site]
        parts.append(seen[torch.arange(len(here)), torch.from_numpy(asked.at[here])].float().cpu())
    return torch.cat(parts)


@dataclass(frozen=True)
class _Moved:
    """Pairs of cities in one prompt: vectors x, y [n, d] at base and source, and what counts as a hit when x is changed."""

    what: str  # cause, where the prompt asks for the attribute itself; else isolation
    tokens: list[list[int]]
    at: list[int]
    base: np.ndarray
    x: Tensor
    y: Tensor
    right: np.ndarray  # the answer that is a hit [n]
    whole: np.ndarray  # what the model says with y in place of x [n]


@dataclass(frozen=True)
class _Half:
    """What dictionaries of one site share for one attribute: vectors of the training cities, and the pairs of the others."""

    train: Tensor
    answer: np.ndarray
    common: np.ndarray  # values that three training cities have, the most frequent first
    pairs: int
    prompts: list[_Moved]


def _half(model: Model, site: Site, asked: dict[str, _Asked], name: str, usable: list[str], config: Ravel) -> _Half:
    a = asked[name]
    known = np.flatnonzero(a.known)
    test = known[np.arange(len(known)) % 2 == 1]
    train = known[np.arange(len(known)) % 2 == 0]
    values, count = np.unique(a.answer[train], return_counts=True)
    common = values[np.argsort(-count, kind="stable")][: int((count >= 3).sum())]
    seen = _vectors(model, site, a, train)
    if len(common) < 2:
        return _Half(seen, a.answer[train], common, 0, [])
    base, source = _pairs(a, test[np.isin(a.answer[test], common)], config, name)
    prompts = []
    for other in usable:
        b = asked[other]
        both = b.known[base] & (b.answer[base] != b.answer[source]) if other != name else np.ones(len(base), bool)
        here, there = base[both], source[both]
        if not len(here):
            continue
        x, y = _vectors(model, site, b, here), _vectors(model, site, a if other == name else b, there)
        tokens, at = [b.tokens[i] for i in here], b.at[here].tolist()
        what, right = ("cause", a.answer[there]) if other == name else ("isolation", b.answer[here])
        prompts.append(_Moved(what, tokens, at, here, x, y, right, next_tokens(model, tokens, at, site, y - x)))
    return _Half(seen, a.answer[train], common, len(base), prompts)


def _note(hits: _Hits, who: str, moved: _Moved, said: np.ndarray) -> None:
    """What the model said after an edit of `who`: hit or not, by base city."""
    hits[who][moved.what] += list(zip((said == moved.right).astype(float).tolist(), moved.base.tolist(), strict=True))


def _attribute(model: Model, d: Dictionary, half: _Half, config: Ravel, name: str, hits: _Hits) -> dict[str, Any]:
    if len(half.common) < 2:
        return {"latents": [], "pairs": 0}
    f = sparse(d, half.train.numpy())
    latents = _telling(f, half.answer, half.common, config.k)
    rate = np.asarray((f > 0).mean(0)).ravel()
    groups = {"latents": latents, "other latents": alike(rate, latents, rng.generator(config.seed, "other latents", name))}
    for moved in half.prompts:
        for who, added in _shifts(d, moved.x, moved.y, groups).items():
            _note(hits, who, moved, next_tokens(model, moved.tokens, moved.at, d.site_out, added))
    return {"latents": latents.tolist(), "pairs": half.pairs}


def _telling(f: Any, answer: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    """Latents in turn from the rankings of every one of `values`."""
    in_turn = np.stack([ranking(f, (answer == v).astype(np.int64))[:k] for v in values], 1).ravel()
    _, first = np.unique(in_turn, return_index=True)
    return in_turn[np.sort(first)][:k]


def _pairs(a: _Asked, test: np.ndarray, config: Ravel, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Cities with different answers."""
    draw = rng.generator(config.seed, "pairs", name)
    if not len(test):
        return test, test
    drawn = np.unique(np.stack([draw.choice(test, 8 * config.pairs), draw.choice(test, 8 * config.pairs)], 1), axis=0)
    drawn = draw.permutation(drawn[a.answer[drawn[:, 0]] != a.answer[drawn[:, 1]]])[: config.pairs]
    return drawn[:, 0], drawn[:, 1]


@torch.no_grad()
def _shifts(d: Dictionary, x: Tensor, y: Tensor, groups: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """What is added to the base's vectors x [n, d] to make them like the source's y [n, d], by each group of latents."""
    fx, fy, W = sparse(d, x.numpy()), sparse(d, y.numpy()), d.W_dec.detach()
    return {
        who: torch.from_numpy((fy[:, js] - fx[:, js]).toarray()).float() @ W[torch.from_numpy(js)] for who, js in groups.items()
    }


def _summary(found: dict[str, list[tuple[float, int]]]) -> dict[str, Any]:
    cause, isolation = (over([v for v, _ in found[w]], [u for _, u in found[w]]) for w in ("cause", "isolation"))
    score = None if cause is None or isolation is None else (cause.value + isolation.value) / 2
    return {"cause": cause, "isolation": isolation, "score": score}
