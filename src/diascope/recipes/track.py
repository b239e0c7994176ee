"""Training curves in an outside tracker (wandb or trackio, both optional): an observer of the lines of log.jsonl."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

TRACKERS = ("wandb", "trackio")


def check_tracker(name: str) -> None:
    """ValueError when the tracker `name` is unknown or not installed."""
    if name not in TRACKERS:
        raise ValueError(f"unknown tracker {name!r}: {' or '.join(TRACKERS)}")
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed: pip install {name}") from error


def tracker(name: str, *, project: str, config: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """An observer that sends each logged line to `name`; ValueError when it is unknown or not installed."""
    check_tracker(name)
    module = importlib.import_module(name)
    module.init(project=project, config=config)

    def observe(line: dict[str, Any]) -> None:
        numbers = {k: v for k, v in line.items() if isinstance(v, (int, float)) and k != "step"}
        module.log({f"{line['member']}/{k}": v for k, v in numbers.items()}, step=line["step"])

    return observe
