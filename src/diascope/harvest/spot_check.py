"""Check a run by another path: one of its documents, run through the model alone, must give the same rows.

In a run documents are packed beside others and several sequences share a forward pass; alone there is nothing that could
leak into them, no mask and no position to get wrong. The relative error is |packed - alone| / |alone| over the document's rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diascope.activations import Rows
from diascope.models import Model
from diascope.sites import Site
from diascope.tokens import Sequences

LARGEST = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # a few times what rounding alone gives


def spot_check(model: Model, sequences: Sequences, sites: Sequence[Site], which: range, rows: Rows) -> dict[str, float]:
    """The relative error by site of the last piece that the run's first sequence holds; {} where none of it is a row.

    Raises ValueError where an error is larger than rounding explains.
    """
    part = sequences.part(which.start, which.start + 1)
    kept = part.rows(model)[0]
    used = np.flatnonzero(part.document[0] >= 0)
    if not len(used):
        return {}
    begin = int(np.flatnonzero(part.positions[0, : used[-1] + 1] == 0)[-1])
    here = slice(begin, int(used[-1]) + 1)
    keep = torch.from_numpy(kept[here])
    if not keep.any():
        return {}
    alone = model.capture(torch.from_numpy(part.tokens[0, here]).long()[None], tuple(sites))
    first = int(kept[:begin].sum())
    errors = {}
    for site in sites:
        a = alone[site][0].cpu()[keep].double()
        error = float((rows.vectors[site][first : first + len(a)].double() - a).norm() / a.norm().clamp_min(1e-30))
        if error > LARGEST.get(model.dtype, 0.1):  # NaN passes: the writer names it
            raise ValueError(
                f"{site}: the last document of sequence {which.start} gives other rows alone than packed beside others (relative "
                f"error {error:.2g}): this model does not keep packed documents apart"
            )
        errors[str(site)] = float(f"{error:.3g}") if error == error else 0.0
    return errors
