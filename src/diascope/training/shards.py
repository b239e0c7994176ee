"""What each of several processes has: its members on the dict axis, and its share of one member's state on the latent axis.

Rank r of n on the latent axis holds the latents r, r + n, r + 2n, ... of every block.

Dealt like that, each has its share of every Matryoshka prefix. Tensors with latents in their rows are shared out; what has no latents
(b_dec, skips, scales) everybody has. A checkpoint is one file a share; any number of processes may read it, whatever number wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from diascope.training.recipe import TrainingRecipe

WHOLE = ("b_dec", "scale_in", "scale_out", "scalars")


def _by(name: str) -> str:
    """How a tensor of a member's state is shared out: "block" (rows are one block's latents), "latents" (of all blocks), "whole"."""
    base = name.removeprefix("first.").removeprefix("second.")
    if base in WHOLE or base.startswith("skip."):
        return "whole"
    return "block" if base.startswith(("encoder.", "decoder.")) else "latents"


def share(name: str, value: Tensor, blocks: Sequence[int], rank: int, size: int) -> Tensor:
    """The share of `rank` of a whole tensor; `blocks` are the latents of each block in the whole."""
    how = _by(name)
    if size == 1 or how == "whole":
        return value
    if how == "block":
        return value[rank::size].contiguous()
    return torch.cat([part[rank::size] for part in value.split(list(blocks))])


def together(name: str, shares: Sequence[Tensor], blocks: Sequence[int]) -> Tensor:
    """The whole tensor of everybody's shares."""
    how, size = _by(name), len(shares)
    if size == 1 or how == "whole":
        return shares[0]
    out = shares[0].new_empty(sum(map(len, shares)), *shares[0].shape[1:])
    if how == "block":
        for rank, part in enumerate(shares):
            out[rank::size] = part
        return out
    each = [list(part.split([n // size for n in blocks])) for part in shares]
    for g, block in enumerate(out.split(list(blocks))):
        for rank in range(size):
            block[rank::size] = each[rank][g]
    return out


def shared(state: Mapping[str, Tensor], blocks: Sequence[int], rank: int, size: int) -> dict[str, Tensor]:
    """The share of `rank` of a whole state."""
    return {name: share(name, value, blocks, rank, size) for name, value in state.items()}


def file_name(member: str, rank: int, size: int) -> str:
    """A share's file in a checkpoint."""
    return f"{member}.safetensors" if size == 1 else f"{member}.{rank}-of-{size}.safetensors"


def read(folder: Path, member: str, blocks: Sequence[int], rank: int, size: int) -> dict[str, Tensor]:
    """The share of `rank` of `size` from a checkpoint that any number of processes wrote; one whole tensor at a time in memory."""
    alone = folder / f"{member}.safetensors"
    files = [alone] if alone.exists() else sorted(folder.glob(f"{member}.*-of-*.safetensors"), key=_number)
    if not files or len(files) != (1 if alone.exists() else int(files[0].name.split("-of-")[1].split(".")[0])):
        raise ValueError(f"{folder} does not hold all parts of {member}'s state")
    handles = [safe_open(f, "pt") for f in files]
    out = {}
    for name in handles[0].keys():  # noqa: SIM118: no dict
        out[name] = share(name, together(name, [h.get_tensor(name) for h in handles], blocks), blocks, rank, size)
    return out


def _number(file: Path) -> int:
    return int(file.name.split("-of-")[0].rsplit(".", 1)[1])


def dealt(recipe: TrainingRecipe, parts: int) -> list[set[str]]:
    """The members' names in `parts` hands, those that start from one another in the same hand, dealt to the emptiest."""
    families: list[set[str]] = []
    for m in recipe.members:
        kin = {m.name, *m.starts_from}
        touched = [f for f in families if f & kin]
        families = [f for f in families if not f & kin] + [kin.union(*touched)]
    size = {m.name: m.d_sae * m.l0_target for m in recipe.members}
    families.sort(key=lambda f: (-sum(size[n] for n in f), sorted(f)))
    if len(families) < parts:
        raise ValueError(
            f"{parts} processes on the dict axis, and {len(families)} members that can be trained apart: give dict at most that"
        )
    hands: list[set[str]] = [set() for _ in range(parts)]
    for family in families:
        min(hands, key=lambda h: sum(size[n] for n in h)).update(family)
    return hands
