"""Functions called while a model runs: read at sites, write at sites, stop early, start late.

Each is put on for one block of code and taken off again; nothing of the model is replaced for good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diascope.edits import Edit
from diascope.models.parts import Parts, address
from diascope.sites import Site


class Stop(Exception):
    """Raised inside a forward pass when everything asked for has been read."""


@contextlib.contextmanager
def keeping(parts: Parts, layer: int) -> Iterator[list[Any]]:
    """Keep what block `layer` returns in the forward pass inside the block, which ends there."""
    found: list[Any] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found.append(output)
        raise Stop

    handle = parts.blocks[layer].register_forward_hook(keep)
    try:
        with contextlib.suppress(Stop):
            yield found
    finally:
        handle.remove()


@contextlib.contextmanager
def skipping(parts: Parts, layer: int, output: Any) -> Iterator[None]:
    """Let the blocks below `layer` return `output` without computing."""
    skipped = list(parts.blocks)[:layer]
    own = [vars(block).get("forward") for block in skipped]  # accelerate puts a forward of its own on the instance
    for block in skipped:
        block.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        for block, before in zip(skipped, own, strict=True):
            del block.forward  # the class's own method again
            if before is not None:
                block.forward = before


@contextlib.contextmanager
def reading(parts: Parts, sites: Sequence[Site], out: dict[Any, Tensor]) -> Iterator[None]:
    """Put what stands at `sites` into `out` in the forward pass inside the block, which ends after the deepest: Stop is raised there."""
    deepest = max((s.layer for s in sites), default=-1)
    handles = []

    def stop_here(module: nn.Module, args: Any, output: Any) -> None:
        raise Stop

    try:
        for site in sites:
            handles.append(_on(parts, site, lambda value, s=site: out.__setitem__(s, value.detach())))
        if sites:
            # registered after the readers, so the deepest block's own output is read before it stops
            handles.append(parts.blocks[deepest].register_forward_hook(stop_here))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def editing(parts: Parts, edits: Sequence[Edit], attention: Tensor, ordinary: Tensor) -> Iterator[None]:
    """Rewrite vectors in the forward passes inside the block: where `ordinary` [B, T] says so, or all `attention` [B, T] of a special edit."""
    handles, seen = [], {}
    try:
        for edit in edits:
            where = (attention if edit.special else attention & ordinary)[..., None]
            if edit.read != edit.write:
                handles.append(_on(parts, edit.read, lambda value, s=edit.read: seen.__setitem__(s, value)))

            def write(value: Tensor, edit: Edit = edit, where: Tensor = where) -> Tensor:
                x = seen[edit.read] if edit.read != edit.write else value
                edit.applied.append(int(where.sum()))
                return torch.where(where, edit.function(x, value).to(value.dtype), value)

            handles.append(_on(parts, edit.write, write))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on(parts: Parts, site: Site, function: Any) -> Any:
    """Call `function` with the vector at `site`; a Tensor that it returns takes the vector's place."""
    module, side = address(parts, site)
    if side == "input":

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            value = args[0] if args else kwargs["hidden_states"]
            new = function(value)
            if isinstance(new, Tensor):
                return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})
            return None

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        new = function(value)
        if isinstance(new, Tensor):
            return (new, *output[1:]) if isinstance(output, tuple) else new
        return None

    return module.register_forward_hook(after)
