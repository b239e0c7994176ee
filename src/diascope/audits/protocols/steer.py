"""Does pushing along what a latent writes make the model say what it should, more than other pushes of that length, and at what cost?

    result = STEER.run(model, dictionary, 404, words=(" Paris", " France"))

1. A push adds `dose` typical vectors' lengths along the latent's row at every ordinary token of short beginnings of sentences.
2. Score: log of the summed next-token probability of the words' first tokens; effect: pushed minus clean, interval over beginnings.
3. Controls of the same length, at least 199 of them: uniform directions, and rows of other latents that fire about as often.
   p is the largest over both families and the pool. The wrong sign stands beside.
4. Damage: change of cross-entropy on reference text under the same push. Half and twice the dose stand beside, without controls.

Words that are not given are the ones that the row promotes by the logit lens: then the finding only says that the lens is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.audits import controls, gates, neutral, record, statistics
from diascope.audits.operators import Along, Intervention, Plus
from diascope.audits.record import Result
from diascope.audits.sparse import promoted
from diascope.audits.study import Studied, others_alike, result
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary
from diascope.latents.steering import typical_norms
from diascope.models import Model
from diascope.sites import Site

ROWS = 64  # beginnings times directions in one pass
BEGINNINGS = (
    "Yesterday I read that", "The most interesting thing about it is", "My neighbour told me about", "She opened the book and found",
    "In the end they decided on", "What I like best is", "The letter spoke of", "He could not stop thinking about",
    "On the way home we saw", "The teacher began to talk about", "There was a picture of", "Nobody had expected",
    "For the next hour they discussed", "The sign on the door said", "It reminded me of", "We went there because of",
)  # fmt: skip


@dataclass(frozen=True)
class Steer:
    """How far to push, and what may break."""

    name: str = "steer"
    asks: str = "Does pushing a latent make the model say its words, beyond other pushes of that length?"
    dose: float = 0.5
    """In lengths of a typical vector at the site."""
    most_ce: float = 0.1
    """Nats of cross-entropy a token allowed on reference text."""
    limits: tuple[str, ...] = ("the next token of short English beginnings: not whether longer text stays good",)

    def run(
        self,
        model: Model,
        d: Dictionary,
        latent: int,
        *,
        words: Sequence[str] = (),
        k: int = controls.LEAST + 1,
        level: float = 0.05,
        seed: int = 0,
        say: Callable[[str], None] = lambda note: None,
    ) -> Result:
        """Push `latent` of `d`, which must write one site. ValueError for a latent that it does not have, or that writes nothing."""
        if len(d.config.writes) != 1 or len(d.config.reads) != 1:
            raise ValueError(f"steer takes a dictionary of one site, this is a {d.config.title}")
        if not 0 <= latent < d.d_sae:
            raise ValueError(f"there is no latent {latent}: the dictionary has {d.d_sae}")
        if k < controls.LEAST:
            raise ValueError(f"{k} controls: give at least {controls.LEAST}")
        row = next(iter(d.direction(latent).values())).detach().float().cpu().numpy()
        if not row.any():
            raise ValueError(f"latent {latent} writes nothing: choose another one")
        named = tuple(words) or tuple(promoted(model, row))
        length = self.dose * typical_norms(model, [d.site_out], list(neutral.TEXTS))[d.site_out]
        v = row / np.linalg.norm(row) * length
        measure = _Measure(model, d.site_out, [_first(model, w) for w in named])
        finding = self._finding(measure, d, latent, v, k, level, seed, say)
        cases = {
            "set": "beginnings",
            "n": len(BEGINNINGS),
            "licence": "CC0-1.0",
            "seed": seed,
            "words": list(named),
            "given": bool(words),
        }
        return result(self, [finding], {"prevalence": {}}, cases)

    def _finding(
        self,
        measure: _Measure,
        d: Dictionary,
        latent: int,
        v: np.ndarray,
        k: int,
        level: float,
        seed: int,
        say: Callable[[str], None],
    ) -> Finding:
        each = np.arange(len(BEGINNINGS))
        clean = measure(np.zeros((1, len(v))))[:, 0]
        doses = np.array([1.0, -1.0, 0.5, 2.0])
        moved = measure(doses[:, None] * v) - clean[:, None]
        found = {}
        for family, drawn in _drawn(measure.model, d, latent, v, k, seed).items():
            say(f"controls: {family}")
            found[family] = (measure(drawn) - clean[:, None]).mean(0)
        observed = float(moved[:, 0].mean())
        p = {f: statistics.p_value(observed, c) for f, c in found.items()} | {
            "pooled": statistics.p_value(observed, np.concatenate(list(found.values())))
        }
        say("damage")
        edit = push(v, d.site_out)
        change, owner = gates.ce_change(Studied(measure.model, ""), neutral.TEXTS, [edit])  # type: ignore[arg-type]
        numbers: dict[str, Any] = {
            name: statistics.mean(moved[:, n], each, seed=seed)
            for n, name in enumerate(("effect", "wrong_sign", "half", "twice"))
        }
        numbers |= {"clean": statistics.mean(clean, each, seed=seed), "delta_ce": statistics.mean(change, owner, seed=seed)}
        word = self._word(numbers, max(p.values()), level)
        numbers = record.plain(numbers, split="test", seed=seed) | {
            "p": max(p.values()), "p_family": p, "dose": self.dose, "length": float(np.linalg.norm(v)),
            "controls": {f: {"k": len(c), "max": float(c.max()), "mean": float(c.mean())} for f, c in found.items()},
        }  # fmt: skip
        return Finding("steering", f"a push along latent {latent} raises its words", *word, numbers)

    def _word(self, numbers: dict[str, Any], p: float, level: float) -> tuple[str, str]:
        if numbers["effect"].low <= 0 or p > level:
            return "not-distinguishable", "other pushes of that length do as much"
        if numbers["delta_ce"].value > self.most_ce:
            return "causal-but-damaging", f"reference text costs {numbers['delta_ce'].value:.2f} nats a token more"
        return "causal", "the words rise beyond all families of controls"


@dataclass(frozen=True)
class _Measure:
    """Log of the words' summed probability after every beginning, under each of some pushes."""

    model: Model
    site: Site
    tokens: list[int]

    @torch.no_grad()
    def __call__(self, directions: np.ndarray) -> np.ndarray:
        """[beginnings, R] of directions [R, d]."""
        ids = [self.model.tokenize(t) for t in BEGINNINGS]
        parts = []
        for some in np.array_split(directions, max(1, -(-len(directions) * len(ids) // ROWS))):
            R = len(some)
            rows = [list(t) for t in ids for _ in range(R)]
            tokens, mask = self.model.batch(rows)
            where = mask & self.model.ordinary(tokens)
            made = push(some, self.site).edits(where)[0]
            with self.model.edit(*made):
                hidden = self.model.hidden(rows)
            last = hidden[torch.arange(len(rows)), mask.sum(1) - 1]
            log_p: Tensor = self.model.logits_of(last).float().log_softmax(-1)
            parts.append(log_p[:, self.tokens].double().logsumexp(-1).cpu().numpy().reshape(len(ids), R))
        return np.concatenate(parts, 1)


def push(direction: np.ndarray, site: Site) -> Intervention:
    """Add `direction` [d], or each of [R, d]."""
    return Intervention(Along(torch.from_numpy(np.asarray(direction, np.float32)), Plus(1.0)), (site,), label="push")


def _first(model: Model, word: str) -> int:
    ids = model.tokenizer(word, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ValueError(f"the word {word!r} has no token")
    return int(ids[0])


def _drawn(model: Model, d: Dictionary, latent: int, v: np.ndarray, k: int, seed: int) -> dict[str, np.ndarray]:
    """Control directions by family, as long as `v`; other latents keep what they have in common with it: they are what is at hand."""
    draw = rng.generator(seed, "steer controls")
    uniform = controls.beside(draw.standard_normal((k // 2, len(v))), v)
    seen = model.capture(list(neutral.TEXTS), [d.site_in])
    f = d.encode(seen[d.site_in][seen.mask].float().cpu())
    rate = np.bincount(f.index.numpy(), minlength=d.d_sae) / max(len(f), 1)
    others = np.concatenate(others_alike(rate, np.array([latent]), k - k // 2, draw))
    rows = d.W_dec.detach()[torch.from_numpy(others)].float().cpu().numpy()
    return {"random": uniform, "other latents": controls.as_long(rows, v)}


STEER = Steer()
