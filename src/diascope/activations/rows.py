"""Rows: the vectors of tokens at every harvested site, and which tokens they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diascope.activations.layout import Layout
from diascope.distributed import ALONE, Axis
from diascope.numerics import Moments
from diascope.sites import Site


@dataclass(frozen=True)
class Rows:
    """Vectors [n, d] by site, and the token, document, position and next token [n] of each row (-1: none follows)."""

    vectors: dict[Site, Tensor]
    token: Tensor
    document: Tensor
    position: Tensor
    next_token: Tensor


class Source(Protocol):
    """What training reads: a spool on disk, or rows that the model makes while they are asked for."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites whose vectors it has."""
        ...

    @property
    def layout(self) -> Layout:
        """How many rows there are, and where they lie."""
        ...

    @property
    def window(self) -> int:
        """Rows that may be open at once."""
        ...

    @property
    def manifest(self) -> dict[str, Any]:
        """What the rows are; it identifies them."""
        ...

    @property
    def usable(self) -> np.ndarray | None:
        """Which rows hold numbers [rows]; None where all do."""
        ...

    def __len__(self) -> int: ...

    def read(self, site: Site, index: Sequence[int] | np.ndarray) -> Tensor:
        """Rows `index` at `site`, in that order, [len(index), d] float32."""
        ...

    def moments(self, site: Site, runs: Sequence[int] | np.ndarray | None = None) -> Moments:
        """The moments at `site` of all rows, or of those of some runs."""
        ...

    def norms(self, site: Site) -> np.ndarray | None:
        """|x| of every row at `site` [rows]; None where rows are not known before they are made."""
        ...

    def come_to(self, window: int, *, everyone: Axis = ALONE.everyone, finished: bool = False) -> None:
        """Training has come to this window of the stream (Batches.place), or is finished in it: what only earlier ones hold may go.
        All processes of `everyone` call it together."""
        ...

    def open_window(self, window: int, *, everyone: Axis = ALONE.everyone) -> None:
        """Rows of this window are read next. All processes of `everyone` call it together, and share out what has to be made."""
        ...

    def documents(self, index: np.ndarray) -> np.ndarray:
        """The document of each row [len(index)]."""
        ...


def beside(source: Source, sites: tuple[Site, ...], index: np.ndarray) -> Tensor:
    """Rows `index` at `sites`, side by side [len(index), sum of widths]."""
    return torch.cat([source.read(s, index) for s in sites], 1)
