"""Steering for the explorer, in the model's thread: default and steered side by side, told token by token.

1. Every push becomes a direction with its dose in the direction's own units; "norm" is measured on the index's corpus.
2. `begin` tells these doses, so that the same can be done from Python, and the prompt's number of tokens.
3. `step` tells the next token of each side with its log-probability and the five likeliest; the answer is both texts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from diascope.dictionaries import Dictionary
from diascope.explorer.steer import Asked, PushAsked
from diascope.latents.steering import Push, Token, side_by_side, typical_norms
from diascope.latents.steering.push import check_sites
from diascope.latents.steering.sides import prompt_tokens
from diascope.models.model import Model
from diascope.sites import Site

LONGEST = 1024  # tokens of a prompt: one step over them cannot be interrupted
SIDES = ("default", "steered")


def steered(
    model: Model,
    dictionaries: Mapping[str, Dictionary],
    asked: Asked,
    sample: list[list[int]],
    norms: dict[Site, float],
    emit: Callable[[str, Any], None],
) -> dict[str, Any]:
    """Do what is `asked`, telling each step by `emit`; `norms` keeps typical lengths from one request to the next.

    Raises ValueError, with a sentence, for what this model and these dictionaries cannot do.
    """
    began = time.perf_counter()
    prompt: Any = [{"role": m.role, "content": m.content} for m in asked.messages] or asked.prompt
    ids = prompt_tokens(model, prompt)
    if len(ids) > LONGEST:
        raise ValueError(f"the prompt has {len(ids):,} tokens; the limit is {LONGEST:,}")
    pushes = []
    for p in asked.pushes:
        one = _push(dictionaries, p, asked.method)
        check_sites(model, [one])
        factor = p.factor or one.per_norm(_known(model, list(one.direction), sample, norms))
        pushes.append(replace(one, dose=p.dose * factor))
    emit("begin", {"prompt_tokens": len(ids), "pushes": [_told(push) for push in pushes]})
    options = {"max_new_tokens": asked.max_new_tokens, "temperature": asked.temperature, "seed": asked.seed}
    texts, counts, ended = [""] * 2, [0] * 2, [False] * 2
    for pair in side_by_side(model, ids, pushes, **options):  # type: ignore[arg-type]
        tokens = (pair.default, pair.steered)
        for i, token in enumerate(tokens):
            if token is not None:
                texts[i] += "" if token.ends else token.text
                counts[i], ended[i] = counts[i] + 1, token.ends
        emit("step", {side: _shown(token) for side, token in zip(SIDES, tokens, strict=True)})
    sides = {s: {"text": texts[i], "tokens": counts[i], "ended": ended[i]} for i, s in enumerate(SIDES)}
    return sides | {"seconds": time.perf_counter() - began}


def _push(dictionaries: Mapping[str, Dictionary], p: PushAsked, method: str) -> Push:
    if p.source:
        if p.source not in dictionaries:
            raise ValueError(f"the dictionary of {p.source} is not in this workspace, only its index")
        return Push.of_latent(dictionaries[p.source], p.latent, dose=1.0, method=method)
    return Push.of_vector(p.site, p.vector, dose=1.0, method=method)


def _known(model: Model, sites: list[Site], sample: list[list[int]], norms: dict[Site, float]) -> dict[Site, float]:
    if missing := [site for site in sites if site not in norms]:
        norms |= typical_norms(model, missing, sample)
    return norms


def _told(push: Push) -> dict[str, Any]:
    return {"dose": push.dose, "sites": [str(site) for site in push.direction]}


def _shown(token: Token | None) -> dict[str, Any] | None:
    if token is None:
        return None
    return {"text": token.text, "log_probability": token.log_probability, "top": token.top, "ends": token.ends}
