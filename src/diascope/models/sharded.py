"""A model that is larger than one device: every block's weights are spread over the processes (FSDP2), and gathered for its turn.

Each process then holds its share of the blocks, one whole block at a time, and what is no block (embedding, last norm). Blocks are gathered
one by one, so a pass may stop at any of them. All processes must make the same calls in the same order: the harvest deals the
batches of a run out to them, and everything else is done by all alike.
"""

from __future__ import annotations

import copy

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from diascope.distributed import Axis
from diascope.models.model import Model


def sharded(model: Model, axis: Axis) -> Model:
    """`model` with its blocks' weights spread over all processes of `axis`, which must be all that there are.

    The module is changed in place; `together` of the returned model is `axis`. Alone, nothing happens.
    """
    if axis.size == 1:
        return model
    mesh = init_device_mesh(model.device.type, (axis.size,))
    for block in model.parts.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)  # each is a root, and roots keep what they gathered otherwise
    out = copy.copy(model)
    out.together = axis
    out.companions = {name: sharded(other, axis) for name, other in model.companions.items()}
    return out
