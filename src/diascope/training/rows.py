"""What a group takes from its rows before it starts: which are used, how they are scaled, and the best affine map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from diascope.activations import Source, beside
from diascope.numerics import Moments, ridge
from diascope.sites import Site
from diascope.training.recipe import MemberRecipe, TrainingRecipe

OUTLIER = 3.0  # a row is counted as an outlier when its norm exceeds this many medians at some site


def rows_in_use(recipe: TrainingRecipe, reader: Source) -> tuple[np.ndarray | None, int]:
    """Which rows to train on (None for all), and how many outliers there are; they are left out where the recipe says so."""
    usual = np.ones(len(reader), bool)
    for site in recipe.sites():
        norms = reader.norms(site)
        if norms is None:
            if recipe.max_norm_ratio:
                raise ValueError("max_norm_ratio needs rows whose norms are known beforehand: store them (--store spool)")
            return reader.usable, 0
        usual &= norms <= (recipe.max_norm_ratio or OUTLIER) * np.median(norms)
    outliers = int((~usual).sum())
    if not recipe.max_norm_ratio:
        return reader.usable, outliers
    return usual if reader.usable is None else usual & reader.usable, outliers


def scale(recipe: MemberRecipe, moments: Moments) -> Tensor:
    """One divisor a dimension [d], proportional to deviation^metric_power, so that E|x / scale|^2 = 1."""
    shape = moments.variance.sqrt().clamp_min(1e-6) ** recipe.metric_power
    mean_square = ((moments.variance + moments.mean.square()) / shape.square()).sum()
    return (shape * mean_square.sqrt()).float()


def least_squares(
    reader: Source, reads: tuple[Site, ...], writes: tuple[Site, ...], rows: np.ndarray, moments: Mapping[Site, Moments]
) -> Tensor:
    """The ridge map [d_in, d_out] of `rows`, centred by the sites' `moments` (numerics.ridge)."""
    mx, my = (torch.cat([moments[s].mean for s in sites]).float() for sites in (reads, writes))
    xx = torch.zeros(len(mx), len(mx), dtype=torch.float64)
    xy = torch.zeros(len(mx), len(my), dtype=torch.float64)
    for part in np.array_split(rows, max(1, len(rows) // 8192)):
        x, y = beside(reader, reads, part) - mx, beside(reader, writes, part) - my
        xx += (x.t() @ x).double()
        xy += (x.t() @ y).double()
    return ridge(xx, xy).float()


def side_by_side(vectors: Mapping[Site, Tensor], sites: Sequence[Site]) -> Tensor:
    return torch.cat([vectors[s] for s in sites], 1) if len(sites) > 1 else vectors[sites[0]]
