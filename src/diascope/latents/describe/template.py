"""The description that needs no judge: which tokens a latent fires on, after which, and what it promotes.

    fires on "river", "lake"; after "the"; promotes "water", "flows"

It is the baseline of every other description: what a judge writes must be worth more than a list of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diascope.latents.describe.profile import Profile

ENOUGH = 0.05  # share of the activation from which on a token is named
OFTEN = 0.25  # share from which on the token before is named


def template(profile: Profile, promotes: Sequence[str] = ()) -> str:
    """The template description of a latent with `profile` whose largest direct logits are of the tokens `promotes`.

    "" for a latent that never fired and promotes nothing.
    """
    fires = _named(profile, profile.tokens, profile.shares, ENOUGH, 5)
    if not fires and len(profile.tokens):
        fires = _named(profile, profile.tokens, profile.shares, 0.0, 5)
        parts = [f"fires on many tokens, such as {', '.join(fires)}"]
    else:
        parts = [f"fires on {', '.join(fires)}"] if fires else []
    if after := _named(profile, profile.before, profile.before_shares, OFTEN, 2):
        parts.append(f"after {', '.join(after)}")
    if said := list(dict.fromkeys(quoted(t) for t in promotes))[:5]:
        parts.append(f"promotes {', '.join(said)}")
    return "; ".join(parts)


def quoted(token: str) -> str:
    """A token for people: without the space before it, in quotation marks; line ends by name."""
    plain = token.replace("▁", " ").strip()
    if plain:
        return f'"{plain}"'
    return "line ends" if "\n" in token else "spaces"


def _named(profile: Profile, ids: np.ndarray, shares: np.ndarray, least: float, most: int) -> list[str]:
    """Tokens with at least `least` of the activation, those that differ in spaces alone together; the largest first."""
    mass: dict[str, float] = {}
    for token, share in zip(ids[:64].tolist(), shares[:64].tolist()):
        name = quoted(profile.text(token))
        mass[name] = mass.get(name, 0.0) + share
    order = sorted(mass, key=lambda name: -mass[name])
    return [name for name in order if mass[name] >= least][:most]
