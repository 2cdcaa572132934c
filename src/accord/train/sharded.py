"""Tensors of which every process holds a part (torch's DTensor), and how they are saved and cut again.

The module of DTensor takes seconds to import: it is imported where there is one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from accord.collective import rank


def is_sharded(t: Tensor) -> bool:
    """Whether every process holds a part of it."""
    if type(t) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(t, DTensor)


def whole(t: Tensor) -> Tensor:
    """All of it, on every process; a tensor that is not sharded is itself. A collective: all must call it in the same order."""
    if not is_sharded(t):
        return t
    sharded: Any = t
    full: Tensor = sharded.full_tensor()
    return full


class Part(NamedTuple):
    """The rows of a tensor that this process holds, and the number of the first of them; a tensor that is not sharded is a part, too."""

    rows: Tensor
    first: int


@torch.no_grad()
def own_parts(tensors: dict[str, Tensor]) -> dict[str, Part]:
    """What this process writes into a checkpoint: its rows of what is sharded, and on the first one all that is not."""
    found: dict[str, Part] = {}
    for name, t in tensors.items():
        if is_sharded(t):
            part = _part(t)
            found |= {name: part} if len(part.rows) else {}
        elif rank() == 0:
            found[name] = Part(t, 0)
    return found


def _part(t: Any) -> Part:
    """`fully_shard` deals rows out in equal blocks, the last of which may be short or empty."""
    local, size = t.to_local(), t.device_mesh.size()
    block = -(-t.shape[0] // size)
    first = min(rank() * block, t.shape[0])
    assert len(t.placements) == 1 and t.placements[0].is_shard(0)
    assert len(local) == min(first + block, t.shape[0]) - first
    return Part(local, first)


@torch.no_grad()
def write(target: Tensor, full: Tensor) -> None:
    """Copies a whole tensor into `target`, of which this process may hold a part."""
    if not is_sharded(target):
        target.copy_(full)
        return
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = target
    full = full.to(device=target.device, dtype=target.dtype)
    part: Any = distribute_tensor(full, sharded.device_mesh, sharded.placements, src_data_rank=None)
    sharded.to_local().copy_(part.to_local())


def norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean length of all of them together, (); nothing is read back from the device."""
    parts = [[t for t in tensors if is_sharded(t) is sharded] for sharded in (True, False)]
    lengths = [whole(nn.utils.get_total_norm(part)) for part in parts if part]
    return lengths[0] if len(lengths) == 1 else torch.stack(lengths).norm()
