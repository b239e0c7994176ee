"""What a layout on disk has to offer to stand in the table of formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from diascope.dictionaries.dictionary import Dictionary
from diascope.sites import Site


@dataclass(frozen=True)
class Fidelity:
    """How much of a dictionary survives in a layout."""

    kind: Literal["lossless", "folded-exact", "lossy"]
    """lossless: every weight bit for bit. folded-exact: the same map, biases combined in float64 and rounded once. lossy: see
    `bound`."""
    bound: str = ""
    """For lossy: what changes, by how much at most."""
    leaves: str = ""
    """What has no place in the layout (nesting, card, ...)."""

    def __str__(self) -> str:
        parts = [self.kind + (f" ({self.bound})" if self.bound else "")]
        return "; ".join(parts + ([f"no place for {self.leaves}"] if self.leaves else []))


@dataclass(frozen=True)
class Hints:
    """What a layout does not say and the caller may: where the dictionary reads and writes, and of which model."""

    sites_in: tuple[str, ...] | None = None
    sites_out: tuple[str, ...] | None = None
    model: str | None = None
    lazy: bool = False  # files are mapped and nothing is checked

    def sites(
        self, found: tuple[Any, Any] | None, path: Path, *, several: bool = False
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(sites read, sites written): what the layout says, or where it says nothing that is understood, the caller's words.

        ValueError where neither knows, where the two disagree, and for several sites where the layout holds one.
        """
        given, says, problem = self._given(), None, ""
        if found is not None:
            try:
                says = tuple(tuple(str(Site.parse(s)) for s in names) for names in found)
            except ValueError as error:
                problem = f"{error}. If you know which vector it is, give sites yourself"
        if given and says and given != says:
            raise ValueError(
                f"{path} says that it reads {', '.join(says[0])} and writes {', '.join(says[1])}, not the sites given"
            )
        chosen = given or says
        if chosen is None:
            raise ValueError(
                f"{path}: {problem}"
                if problem
                else f"{path} does not say where it reads and writes: give sites, such as L12.resid_post (--sites; "
                "or once and for all: diascope convert SRC DST --to diascope --sites SITE)"
            )
        if not several and (len(chosen[0]), len(chosen[1])) != (1, 1):
            raise ValueError(f"{path} holds a dictionary of one site, but {len(chosen[0])} and {len(chosen[1])} were given")
        return chosen[0], chosen[1]

    def _given(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        read, written = self.sites_in, self.sites_out or self.sites_in
        if not read or not written:
            return None
        return tuple(str(Site.parse(s)) for s in read), tuple(str(Site.parse(s)) for s in written)


@dataclass(frozen=True)
class Format:
    """A layout: `detect(path)`, `load(path, hints)`, `save(dictionary, folder)` into an empty folder, and what survives.

    `refuses(dictionary)` is the reason why a dictionary has no place in the layout, or "".
    """

    name: str
    library: str
    detect: Callable[[Path], bool]
    load: Callable[[Path, Hints], Dictionary]
    save: Callable[[Dictionary, Path], None]
    refuses: Callable[[Dictionary], str]
    fidelity: Callable[[Dictionary], Fidelity]


def without_centring(b_enc: Tensor, W_enc: Tensor, b_dec: Tensor) -> Tensor:
    """b_enc of a dictionary that does not subtract b_dec from its input, from one that does; float64, rounded once."""
    return (b_enc.double() - b_dec.double() @ W_enc.double()).float()


def with_centring(b_enc: Tensor, W_enc: Tensor, b_dec: Tensor) -> Tensor:
    """The other way: b_enc of a dictionary that does subtract b_dec."""
    return (b_enc.double() + b_dec.double() @ W_enc.double()).float()


def gated(W_enc: Tensor, b_gate: Tensor, r: Tensor, b_mag: Tensor) -> dict[str, Tensor]:
    """A gated encoder as the JumpReLU that it is: W_enc, b_enc and threshold (arXiv:2404.16014, appendix)."""
    gain = r.double().exp()
    return {
        "W_enc": (W_enc.double() * gain).float(),
        "b_enc": b_mag.float(),
        "threshold": (b_mag.double() - gain * b_gate.double()).float(),
    }


def need(tensors: dict[str, Tensor], names: tuple[str, ...], path: Path) -> None:
    """ValueError unless all `names` are there."""
    if missing := [n for n in names if n not in tensors]:
        raise ValueError(f"{path} lacks the tensors {', '.join(missing)}")


def matrix(tensor: Tensor, path: Path, name: str) -> Tensor:
    """`tensor` in float32, a ValueError unless it has two dimensions."""
    if tensor.ndim != 2:
        raise ValueError(f"{path}: {name} has {tensor.ndim} dimensions, not 2")
    return tensor.float()


def single_site(dictionary: Dictionary) -> str:
    """The reason why a layout for one site cannot hold `dictionary`, or ""."""
    c = dictionary.config
    return "" if c.kind in ("sae", "transcoder") else f"it holds one site, and this {c.kind} has {len(c.sites_in)}"


def zero_threshold(n: int) -> Tensor:
    """Thresholds of a plain ReLU."""
    return torch.zeros(n)
