"""Targets and nodes as people write them on a command line.

Targets                                             Nodes to swap
    ` Rome`              a token (or several)           L3/123@4     a latent: layer, number, position
    ` Rome -  Paris`     a difference of two logits     L3/*@4       all latents there
    L5/123@-1            a latent at a position         L3/error@4   the error there
    probe.npy@L12        a direction, read after a      L3@4         latents and error
                         block (@L12@5: at position 5)  @4, all      of all layers; everything

Positions are counted from the end where they are negative. In a target the last one is meant where none is said, in a swap all.
A .safetensors file of several tensors takes FILE:TENSOR@L12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diascope.circuits.swap import Place
from diascope.circuits.targets import DirectionTarget, LatentTarget, Target, TokenTarget, TopLogits
from diascope.storage.files import reading

LATENT = re.compile(r"L(\d+)/(\d+)(?:@(-?\d+))?")
FILE = re.compile(r"(.+\.(?:npy|safetensors))(?::([^@]+))?(?:@([^@]+))?(?:@(-?\d+))?")
PLACE = re.compile(r"(?:L(\d+))?(?:/(\d+|\*|error))?(?:@(-?\d+))?")
BETWEEN = " - "  # the two tokens of a difference


def fixed_target(text: str) -> LatentTarget | DirectionTarget | None:
    """The target that needs no tokenizer to be understood: a latent, a direction; None for tokens. ValueError for a bad file."""
    if m := LATENT.fullmatch(text):
        return LatentTarget(int(m[1]), int(m[2]), -1 if m[3] is None else int(m[3]))
    if m := FILE.fullmatch(text):
        path, tensor, site, position = m.groups()
        if site is None:
            raise ValueError(f"{text}: say after which block the direction is read, for example {text}@L12")
        site = f"{site}.resid_post" if re.fullmatch(r"L\d+", site) else site
        name = Path(path).stem + (f":{tensor}" if tensor else "")
        return DirectionTarget(site, _vector(Path(path), tensor), -1 if position is None else int(position), name)
    return None


def target_of(texts: Sequence[str], is_token: Callable[[str], bool], against: str = "") -> Target:
    """What `texts` ask to explain; none of them: the likeliest next tokens. `is_token` says what is one token of the model.

    ValueError for what cannot be understood, and for `against` beside anything but tokens.
    """
    if not texts:
        return TopLogits()
    fixed = [f for t in texts if not is_token(t) and (f := fixed_target(t)) is not None]
    if fixed and (len(texts) > 1 or against):
        raise ValueError("several targets, and the difference of two, are of tokens: trace a latent or a direction by itself")
    if fixed:
        return fixed[0]
    if len(texts) == 1 and not against and not is_token(texts[0]) and BETWEEN in texts[0]:
        return _difference(texts[0], is_token)
    return TokenTarget(texts[0] if len(texts) == 1 else tuple(texts), against or None)


def _difference(text: str, is_token: Callable[[str], bool]) -> TokenTarget:
    for m in re.finditer(f"(?={BETWEEN})", text):
        first, second = text[: m.start()], text[m.start() + len(BETWEEN) :]
        if is_token(first) and is_token(second):
            return TokenTarget(first, against=second)
    raise ValueError(
        f"{text!r} is no difference of two tokens: write FIRST - SECOND with the space that each of them begins with "
        "(' Rome -  Paris' is ' Rome' less ' Paris')"
    )


def _vector(path: Path, tensor: str | None) -> Tensor:
    """The vector in a file, flat. ValueError where there is none, or several and none is named."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}: a direction is a vector in a .npy or .safetensors file")
    with reading(path, "write the direction again"):
        if path.suffix == ".npy":
            import numpy as np

            found = {"": torch.from_numpy(np.load(path, allow_pickle=False))}
        else:
            from safetensors.torch import load_file

            found = load_file(path)
    if path.suffix == ".npy" and tensor:
        raise ValueError(f"{path} holds one array: leave :{tensor} out")
    if tensor is None and len(found) > 1:
        raise ValueError(f"{path} holds {', '.join(sorted(found)[:8])}: name one, for example {path}:{min(found)}@L12")
    if tensor and tensor not in found:
        raise ValueError(f"{path} holds {', '.join(sorted(found)[:8])}, not {tensor}")
    return (found[tensor] if tensor else next(iter(found.values()))).reshape(-1).float()


def place_of(text: str) -> Place:
    """The nodes that `text` names. ValueError for what cannot be understood."""
    if text == "all":
        return Place(None)
    m = PLACE.fullmatch(text)
    if not m or not text or (m[1] is None and m[2] not in (None, "*", "error")):
        raise ValueError(
            f"{text!r} names no nodes: write L3/123@4 for a latent, L3/*@4 for all latents of layer 3 at position 4, L3/error@4, "
            "L3@4 for both, @4 for those of all layers, L3 for those at all positions, all for everything"
        )
    layer, what, position = m.groups()
    kind = {None: "all", "*": "latents", "error": "error"}.get(what)
    return Place(None if layer is None else int(layer), None if position is None else int(position), kind or int(what))  # type: ignore[arg-type]


def position_of(text: str) -> tuple[int, int]:
    """ "9:7" as (9, 7): a position of the prompt, and where it is looked up in the other one. ValueError for anything else."""
    if not (m := re.fullmatch(r"(-?\d+):(-?\d+)", text)):
        raise ValueError(f"{text!r} is no pair of positions: write HERE:THERE, for example 9:7")
    return int(m[1]), int(m[2])
