"""Find one's place among the processes that torchrun, a Slurm script or a Ray job has started (docs/scale.md).

All of them set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; without them a process is alone.
"""

from __future__ import annotations

import os
from datetime import timedelta
from itertools import product
from math import prod

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from diascope.distributed.team import ALONE, Axis, Team

AXES = ("dict", "latent", "data")
PATIENCE = timedelta(minutes=30)  # the longest step of one process that the others wait for


def parsed(text: str, world: int) -> dict[str, int]:
    """ "dict=2,latent=2" for `world` processes as sizes of all axes; data takes what is left. ValueError where it does not come out."""
    found = dict.fromkeys(AXES, 0)
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, size = part.partition("=")
        if name not in AXES or not size.isdecimal() or int(size) < 1:
            raise ValueError(f"{part!r} is no axis: give such as dict=2,latent=4 (axes: {', '.join(AXES)})")
        found[name] = int(size)
    given = prod(size or 1 for name, size in found.items() if name != "data")
    found = {name: size or (max(1, world // given) if name == "data" else 1) for name, size in found.items()}
    if prod(found.values()) != world:
        said = " x ".join(f"{name} {size}" for name, size in found.items())
        raise ValueError(f"{said} are {prod(found.values())} processes, and {world} were started: make them equal")
    return found


def processes() -> int:
    """How many were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def joined(axes: str = "") -> Team:
    """The team of this process. Call it once, before anything else that is distributed.

    `axes` as `parsed` takes them; empty puts all processes on the data axis.
    """
    world = processes()
    sizes = parsed(axes, world)
    if world == 1:
        return ALONE
    if not dist.is_initialized():
        _start(world)
    return _placed(sizes, dist.get_rank())


def _start(world: int) -> None:
    store, rank, _ = next(rendezvous("env://"))
    # a restarted group must not meet the addresses of the one that died
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    # members are trained on processors, and what they exchange lies there; of a model that is sharded over GPUs, blocks go by nccl
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, store=PrefixStore(f"attempt-{attempt}", store), rank=rank, world_size=world, timeout=PATIENCE
    )


def _placed(sizes: dict[str, int], rank: int) -> Team:
    """Every process makes all groups, in the same order, and keeps those that it is in."""
    shape = [sizes[name] for name in AXES]
    places = list(product(*map(range, shape)))  # the last axis runs fastest
    here = places[rank]

    def axis(*free: int) -> Axis:
        """The processes that agree with this one in all axes but `free`."""
        found = Axis()
        fixed = [i for i in range(len(AXES)) if i not in free]
        for values in product(*(range(shape[i]) for i in fixed)):
            ranks = [r for r, place in enumerate(places) if all(place[i] == v for i, v in zip(fixed, values))]
            group = dist.new_group(ranks) if len(ranks) > 1 else None
            if rank in ranks:
                found = Axis(len(ranks), ranks.index(rank), group)
        return found

    assert len(here) == len(AXES)
    return Team(axis(0), axis(1), axis(2), axis(1, 2), axis(0, 1, 2))
