"""Edits as data, for those who cannot hand over Python objects: a JSON list, in a file or as it is.

    [{"operator": "add", "latent": 404, "amount": 800},
     {"operator": "ablate", "direction": "refusal.npy@L12.resid_post"},
     {"operator": "cap", "direction": "monitor.json", "amount": 2.0, "when": ["response"]},
     {"operator": "splice"}]

operator   add (amount: a dose, in multiples of the direction), scale (a factor), ablate, pin, clamp (pin where it is active), cap and
           floor (a value of the activation, or of the multiple of the direction), as operators.py defines them; splice: the
           dictionary's output in place of the model's own
of what    `latent` of the dictionary that is given beside; or `direction`: FILE.npy@SITE, a vector with the site at which it is read,
           or a monitor's file, whose direction it is
sites      where a direction is changed: by default its own site, and every block's output where it is ablated, as in audits
when       prompt, response (every decode step), or both, which is the default
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor

from diascope.audits.monitor import Monitor
from diascope.audits.operators import (
    WHEN,
    Along,
    AtLeast,
    AtMost,
    Intervention,
    OfLatent,
    Plus,
    Rule,
    Times,
    To,
    ToIfActive,
    everywhere,
)
from diascope.dictionaries import Dictionary
from diascope.edits import Edits
from diascope.models import Model
from diascope.sites import Site

RULES: dict[str, Callable[[float], Rule]] = {
    "add": Plus, "scale": Times, "ablate": lambda _: Times(0.0), "pin": To, "clamp": ToIfActive, "cap": AtMost, "floor": AtLeast,
}  # fmt: skip


class Asked(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One edit of the list."""

    operator: Literal["add", "scale", "ablate", "pin", "clamp", "cap", "floor", "splice"]
    latent: int | None = None
    direction: str = ""
    amount: float | None = None
    sites: tuple[str, ...] = ()
    when: tuple[Literal["prompt", "response"], ...] = WHEN  # type: ignore[assignment]


def read_edits(given: str | Path | Sequence[Any], model: Model, dictionary: Dictionary | None) -> list[Intervention | Edits]:
    """The edits in a file, in a list of such objects, or as they are (`Intervention`, or what a dictionary's methods give).

    Raises ValueError for a file that is not there, an unknown field, a latent or a site that there is not, and an amount that lacks.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise ValueError(f"there is no file of edits {path}")
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(given, list | tuple):
        raise ValueError(f'edits are a list of {{"operator": ..., ...}}, not {type(given).__name__}')
    return [_edit(one, f"edit {number}", model, dictionary) for number, one in enumerate(given)]


def _edit(given: Any, where: str, model: Model, dictionary: Dictionary | None) -> Intervention | Edits:
    if not isinstance(given, dict):
        return given
    try:
        asked = msgspec.convert(given, Asked)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from error
    if asked.operator == "splice":
        return _dictionary(dictionary, where).splice(keep_error=False)
    rule, amount = RULES[asked.operator], asked.amount
    if (amount is None) != (asked.operator == "ablate") or not math.isfinite(amount or 0.0):
        wanted = "no amount" if asked.operator == "ablate" else "a finite amount"
        raise ValueError(f"{where}: {asked.operator} takes {wanted}, not {amount}")
    if (asked.latent is None) == (not asked.direction):
        raise ValueError(f"{where}: give a latent or a direction, one of the two")
    label = f"{asked.operator} {'' if asked.latent is None else asked.latent}{Path(asked.direction).name}"
    label += "" if amount is None else f" by {amount:g}"
    if asked.latent is not None:
        d = _dictionary(dictionary, where)
        if not 0 <= asked.latent < d.d_sae or asked.sites:
            raise ValueError(f"{where}: the dictionary has latents 0 to {d.d_sae - 1}, and its own site; not {given}")
        return Intervention(OfLatent(d, asked.latent, rule(amount or 0.0)), when=asked.when, label=label)
    vector, own = _direction(asked.direction, where)
    sites = [Site.parse(s) for s in asked.sites] or (everywhere(model) if asked.operator == "ablate" else [own])
    for site in sites:
        if model.width(site) != len(vector):
            raise ValueError(
                f"{where}: {asked.direction} has {len(vector)} numbers, {site} of {model.name} {model.width(site)}"
            )
    return Intervention(Along(vector, rule(amount or 0.0)), tuple(sites), asked.when, label=label)


def _dictionary(dictionary: Dictionary | None, where: str) -> Dictionary:
    if dictionary is None:
        raise ValueError(f"{where} is of a dictionary, and none was given: say dictionary=FOLDER beside it")
    return dictionary


def _direction(name: str, where: str) -> tuple[Tensor, Site]:
    """The vector in FILE.npy@SITE or in a monitor's file, with its site."""
    file, at, site = name.partition(".npy@")
    if not at:
        monitor = Monitor.load(name)
        return torch.tensor(monitor.direction), Site.parse(monitor.site)
    path = Path(f"{file}.npy")
    if not path.is_file():
        raise ValueError(f"{where}: there is no file {path}")
    vector = np.load(path, allow_pickle=False)
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"{where}: {path} has the shape {vector.shape}: give one vector of finite numbers that are not all 0")
    return torch.from_numpy(vector.astype(np.float32)), Site.parse(site)
