"""Tensors of which every process holds a part (torch's DTensor), and how they become whole for a checkpoint and are cut again.

The module of DTensor takes seconds to import: it is imported where there is one.
"""

from __future__ import annotations

from typing import Any

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


def gathered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, whole and on the CPU, on the first process; what is not sharded as it is. Others get nothing of what is sharded."""
    found = {}
    for name, t in tensors.items():
        full = whole(t)  # on all: a collective
        if full is t or rank() == 0:
            found[name] = full if full is t else full.cpu()
    return found


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
