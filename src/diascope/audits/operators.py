"""What an audit does to a model's vectors: a direction or a latent, the rule by which its amount is changed, where and when.

With v a direction and c(y) = y.v / v.v the multiple of it that y holds, or with c = f_j(x) a latent's activation and v its decoder
row, every operator is

    y <- y + (rule(c) - c) v

so that all else in y stays, the error that a dictionary leaves included. For a transcoder x is the MLP's input and y its output:
mlp_out <- skip + sum_j c_j d_j + error, with one c_j changed.

    operator          rule
    add               Plus(dose)                  dose in multiples of v
    project out, ablate   Times(0)
    scale             Times(factor)
    pin, mean-ablate  To(value)                   value: the mean over other prompts, for mean-ablation
    clamp if active   ToIfActive(value)           only where c > 0
    cap, floor        AtMost(value), AtLeast(value)

`only` makes it conditional on a readout (where it is above its threshold). Every intervention counts what it changed in each
forward pass (`Counted.positions`), and `check` compares: hooks that silently stop while a text is generated are a known bug.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diascope.audits.latent_sets import OfLatents
from diascope.dictionaries import Dictionary
from diascope.edits import Edit
from diascope.models import Model
from diascope.sites import Site

WHEN = ("prompt", "response")


# -- rules -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Plus:
    dose: float

    def __call__(self, c: Tensor) -> Tensor:
        return c + self.dose


@dataclass(frozen=True)
class Times:
    factor: float

    def __call__(self, c: Tensor) -> Tensor:
        return c * self.factor


@dataclass(frozen=True)
class To:
    value: float

    def __call__(self, c: Tensor) -> Tensor:
        return torch.full_like(c, self.value)


@dataclass(frozen=True)
class ToIfActive:
    value: float

    def __call__(self, c: Tensor) -> Tensor:
        return torch.where(c > 0, self.value, c)


@dataclass(frozen=True)
class AtMost:
    value: float

    def __call__(self, c: Tensor) -> Tensor:
        return c.clamp_max(self.value)


@dataclass(frozen=True)
class AtLeast:
    value: float

    def __call__(self, c: Tensor) -> Tensor:
        return c.clamp_min(self.value)


Rule = Plus | Times | To | ToIfActive | AtMost | AtLeast


# -- of what ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Along:
    """One direction, or R of them [R, d]: row b of a batch has the direction b mod R, so R trials share one forward pass."""

    direction: Tensor
    rule: Rule

    def shift(self, x: Tensor, y: Tensor) -> Tensor:
        """What is added to y [B, T, d]."""
        v = torch.atleast_2d(self.direction).to(y.device, torch.float32)
        R = len(v)
        if len(y) % R:
            raise ValueError(f"{len(y)} rows cannot share {R} directions")
        v = v.repeat(len(y) // R, 1)[:, None]  # [B, 1, d]
        square = v.square().sum(-1)
        c = (y.float() * v).sum(-1) / square.clamp_min(1e-30)
        return torch.where(square > 0, self.rule(c) - c, 0.0)[..., None] * v


@dataclass(frozen=True)
class OfLatent:
    """One latent of a dictionary that reads one site and writes one; only what it writes is changed."""

    dictionary: Dictionary
    latent: int
    rule: Rule

    def shift(self, x: Tensor, y: Tensor) -> Tensor:
        d = self.dictionary
        c = d.encode(x.float()).dense()[..., self.latent]
        return (self.rule(c) - c)[..., None] * next(iter(d.direction(self.latent).values())).to(y.device)


@dataclass(frozen=True)
class Whole:
    """Vectors put in the place of what stands there: [B, T, d]; at the positions `at`, bool [T], or at all where None."""

    vectors: Tensor
    at: Tensor | None = None

    def shift(self, x: Tensor, y: Tensor) -> Tensor:
        moved = self.vectors.to(y.device, torch.float32) - y.float()
        return moved if self.at is None else moved * self.at.to(y.device)[:, None]


@dataclass(frozen=True)
class Above:
    """A condition: where x . direction + bias, of what stands at the edited site, is above 0."""

    direction: Tensor  # [d]
    bias: float

    def __call__(self, y: Tensor) -> Tensor:
        return y.float() @ self.direction.to(y.device, torch.float32) + self.bias > 0


def everywhere(model: Model) -> tuple[Site, ...]:
    """Where a direction is taken out of the residual stream for good: what stands at the start, what attention adds, every block's output.

    Then no block's attention and no MLP reads it (Arditi et al. 2024, arXiv:2406.11717, section 2.4). What an MLP adds is in its block's
    output. A block without an attention of its own has the output alone.
    """
    sites = [Site(0, "resid_pre")]
    for layer in range(model.n_layers):
        if model.has(Site(layer, "attn_write")):
            sites.append(Site(layer, "attn_write"))
        sites.append(Site(layer, "resid_post"))
    return tuple(sites)


# -- where and when --------------------------------------------------------------------------------------------------------
@dataclass
class Counted:
    """How many positions one edit changed, a forward pass at a time: the prompt's, then each decode step's."""

    label: str
    positions: list[int] = field(default_factory=list)

    def check(self, expected: Sequence[int]) -> None:
        """Assert that exactly `expected` positions were changed in each pass."""
        assert self.positions == list(expected), f"{self.label} acted on {self.positions} positions, expected {list(expected)}"


@dataclass(frozen=True)
class Intervention:
    """A change with its place and time; `edits` makes it ready for one batch.

    what    Along, OfLatent, OfLatents or Whole
    sites   where it acts; latents act where their dictionary writes
    when    "prompt", "response" (every decode step), or both
    only    a condition, or None
    """

    what: Along | OfLatent | OfLatents | Whole
    sites: tuple[Site, ...] = ()
    when: tuple[str, ...] = WHEN
    only: Above | None = None
    label: str = "edit"

    def __post_init__(self) -> None:
        if unknown := set(self.when) - set(WHEN):
            raise ValueError(f"an edit acts on {' or '.join(WHEN)}, not {', '.join(sorted(unknown))}")
        if isinstance(self.what, Along | Whole) and not self.sites:
            raise ValueError("a direction needs the sites at which it is changed")
        if isinstance(self.what, OfLatent | OfLatents) and not self.sites:
            object.__setattr__(self, "sites", (self.what.dictionary.site_out,))

    def edits(self, where: Tensor) -> tuple[list[Edit], list[Counted]]:
        """Edits for one batch, with their counters. `where` [B, T]: which positions of the first pass count as the prompt's."""
        made, counters = [], []
        for read, write in self._places():
            counted = Counted(f"{self.label} at {write}")
            counters.append(counted)
            made.append(Edit(read, write, self._function(where, counted), label=counted.label, special=True))
        return made, counters

    def _places(self) -> list[tuple[Site, Site]]:
        if isinstance(self.what, OfLatent | OfLatents):
            return [(self.what.dictionary.site_in, site) for site in self.sites]
        return [(s, s) for s in self.sites]

    def _function(self, where: Tensor, counted: Counted) -> Callable[[Tensor, Tensor], Tensor]:
        def function(x: Tensor, y: Tensor) -> Tensor:
            first = not counted.positions
            if first:
                mask = where.to(y.device) if "prompt" in self.when else torch.zeros_like(where, device=y.device)
                assert mask.shape == y.shape[:-1], (
                    f"{counted.label}: the pass has {tuple(y.shape[:-1])}, its mask {tuple(mask.shape)}"
                )
            else:
                mask = torch.full(y.shape[:-1], "response" in self.when, device=y.device)
            if self.only is not None:
                mask = mask & self.only(y)
            counted.positions.append(int(mask.sum()))
            if not counted.positions[-1]:
                return y
            return torch.where(mask[..., None], y.float() + self.what.shift(x, y), y.float()).to(y.dtype)

        return function
