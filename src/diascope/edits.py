"""An edit changes what a model writes at a site: steer, ablate, clamp, replace, splice all come down to one function.

An edit reads the vectors at `read` and rewrites those at `write` (the same site for a steering vector or an SAE; the
MLP's input and output for a transcoder). Special positions (BOS, padding) are left alone unless `special` is set,
because dictionaries are not trained there. This file knows neither models nor dictionaries: both meet here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

from diascope.sites import Site


@dataclass
class Edit:
    """At `write`, replace y [..., d_out] by `function(x, y)` with x [..., d_in] what stands at `read`."""

    read: Site
    write: Site
    function: Callable[[Tensor, Tensor], Tensor]
    label: str = "edit"
    special: bool = False  # also at BOS, padding and other special tokens
    applied: list[int] = field(default_factory=list)  # positions edited, one entry a forward pass (a decode step)

    def __post_init__(self) -> None:
        if self.read.depth > self.write.depth:
            raise ValueError(f"an edit cannot read {self.read}, which is computed after {self.write}, where it writes")


Edits = Edit | tuple[Edit, ...]  # what a dictionary gives: one a site that it writes


def flat(edits: Iterable[Edits]) -> tuple[Edit, ...]:
    """All edits of `edits`, one after another."""
    return tuple(e for entry in edits for e in ((entry,) if isinstance(entry, Edit) else entry))
