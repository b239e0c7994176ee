"""Frozen configs: plain dataclasses with one canonical JSON form, and so one hash.

Every config is a frozen dataclass. A field that is a choice holds one of several small dataclasses (`JumpReLU(...)`,
`TopK(k=64)`); its JSON carries the class name under "type", so that reading it back needs no guess.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def within(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raise a ValueError that names the field unless low <= value <= high (NaN never is)."""
    if not low <= value <= high:
        end = f"from {low:g} to {high:g}" if high < 1e18 else f"of at least {low:g}"
        raise ValueError(f"{name} is {value}: give a number {end}{' ' + unit if unit else ''}")


def to_data(value: Any) -> Any:
    """`value` as JSON-ready data; every dataclass becomes an object with its class name under "type"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [to_data(v) for v in value]
    if isinstance(value, dict):
        return {str(k): to_data(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a config holds dataclasses, lists, dicts, numbers and text, not {type(value).__name__}")


def canonical(value: Any) -> str:
    """The canonical JSON text of a config: sorted keys, no spaces, shortest float that reads back the same."""
    return json.dumps(to_data(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(value: Any, *, digits: int = 16) -> str:
    """The first `digits` hex digits of the SHA-256 of the canonical form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:digits]


def from_data(kind: type[T], data: Any) -> T:
    """Rebuild a value of type `kind` (a dataclass, union, tuple or scalar) from what `to_data` wrote.

    Raises ValueError on an unknown kind or field, so that an old reader never drops what a newer writer meant.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _from_union(args, data)
    if dataclasses.is_dataclass(kind):
        return _from_object(typing.cast(Any, kind), data)
    if origin is tuple:
        item = args[0] if len(args) == 2 and args[1] is Ellipsis else None
        return typing.cast(T, tuple(from_data(item or args[i], v) for i, v in enumerate(data)))
    if kind is float and isinstance(data, int):
        return typing.cast(T, float(data))
    return data


def _from_union(args: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    if isinstance(data, dict) and "type" in data:
        for choice in choices:
            if getattr(choice, "__name__", None) == data["type"]:
                return from_data(choice, data)
        names = ", ".join(c.__name__ for c in choices)
        raise ValueError(f"unknown choice {data['type']!r}: this version knows {names}")
    if len(choices) > 1 and all(map(dataclasses.is_dataclass, choices)):
        raise ValueError(f"{data!r} is none of {', '.join(c.__name__ for c in choices)}")
    return from_data(choices[0], data) if len(choices) == 1 else data


def _from_object(kind: Any, data: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    extra = set(data) - known - {"type"}
    if extra:
        raise ValueError(f"{kind.__name__} has no field {', '.join(sorted(extra))}: was this written by a newer version?")
    return kind(**{name: from_data(hints[name], data[name]) for name in known if name in data})
