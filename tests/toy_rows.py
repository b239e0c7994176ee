"""Toy rows that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import torch

from diascope.activations import RowReader, Rows, RowWriter
from diascope.sites import Site

IN, OUT = Site(1, "mlp_in"), Site(1, "mlp_out")
IN2, OUT2 = Site(10, "mlp_in"), Site(10, "mlp_out")  # above 9: the order of layers is not the order of their names


def write_rows(folder: Path) -> RowReader:
    """Rows with 40 planted directions, very unequal scales, and a target that is half affine, half sparse."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(40, 16, generator=g), dim=1)
    writer = RowWriter(
        folder, {"format": "diascope-spool-2", "sites": [str(s) for s in (IN, OUT, IN2, OUT2)], "widths": [16] * 4}
    )
    A, scale = torch.randn(16, 16, generator=g) / 4, torch.logspace(0, 2, 16)
    for run in range(2):
        f = torch.rand(2000, 40, generator=g) * (torch.rand(2000, 40, generator=g) < 0.08)
        x = (f @ directions) * scale + 5
        y = 0.5 * (x @ A) + (f * (f > 0.3)) @ directions.roll(1, 1) * 20
        ids = torch.arange(2000)
        later = {IN2: x.flip(1) + y, OUT2: 2 * y.roll(3, 1) + x.clamp_min(5)}
        writer.write(run, Rows({IN: x, OUT: y, **later}, ids, ids, ids, ids))
    return RowReader(folder)
