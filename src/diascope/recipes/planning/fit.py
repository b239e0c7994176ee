"""Axes for several devices: different dictionaries on different devices first, then one dictionary's latents over several, data last."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diascope.recipes.planning.shape import Shape
from diascope.recipes.planning.stages import member_bytes
from diascope.recipes.recipe import RunRecipe


@dataclass(frozen=True)
class Mesh:
    """Devices along each axis, and the bytes that one of them then holds."""

    dict: int
    latent: int
    data: int
    memory: float

    def __str__(self) -> str:
        return f"dict {self.dict} x latent {self.latent} x data {self.data}, {self.memory / 1e9:.1f} GB a device"


def devices(text: str) -> tuple[int, float]:
    """ "8x80GB" as (8, 80e9)."""
    found = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+(?:\.\d+)?)\s*(GB|GiB|TB)\s*", text, re.IGNORECASE)
    if not found or int(found[1]) < 1 or float(found[2]) <= 0:
        raise ValueError(f"{text!r} names no devices: write their number and memory, such as 8x80GB")
    return int(found[1]), float(found[2]) * {"gb": 1e9, "gib": 2.0**30, "tb": 1e12}[found[3].lower()]


def fit(recipe: RunRecipe, shape: Shape, n: int, memory: float) -> Mesh:
    """The mesh of `n` devices of `memory` bytes for `recipe`; ValueError where it does not fit.

    The language model stands on every device (bfloat16), a tenth of the memory stays free.
    """
    members = sorted((member_bytes(m, recipe.training, shape) for m in recipe.training.members), reverse=True)
    room = 0.9 * memory - 2 * shape.parameters
    if room <= 0:
        raise ValueError(
            f"{shape.name} alone takes {2 * shape.parameters / 1e9:.0f} GB of each {memory / 1e9:.0f} GB device: harvest first, in "
            "an FSDP2 group (docs/scale.md), and train on the stored rows"
        )
    latent = 1
    while latent <= n:
        groups = n // latent
        for parts in sorted({d for d in range(1, min(groups, len(members)) + 1) if groups % d == 0}, reverse=True):
            held = _fullest(members, parts) / latent
            if held <= room:
                return Mesh(parts, latent, groups // parts, held + 2 * shape.parameters)
        latent *= 2
    need = sum(members) / max(room, 1)
    raise ValueError(
        f"{len(members)} members take {sum(members) / 1e9:,.0f} GB, and {n} devices have room for {n * room / 1e9:,.0f} GB beside the "
        f"model: use about {need:,.0f} devices, or train the members in {-(-need // n):.0f} groups one after another"
    )


def _fullest(members: list[float], parts: int) -> float:
    """Bytes of the fullest of `parts` devices, members dealt largest first to the emptiest."""
    held = [0.0] * parts
    for m in members:
        held[held.index(min(held))] += m
    return max(held)
