r"""Sums and rows of all ranks with their exact gradient; in one process everything here is the identity.

Convention: when every rank r computes a loss $L_r$ from reduced quantities, the gradient is that of $\sum_r L_r$. Data-parallel
training averages gradients over ranks; so a loss of the global batch that every rank computes gets the gradient of one process on
the joined batch, and so does the mean over ranks of local means (on equal local batches).

`torch.distributed.nn.functional`, which optimisers import in passing, takes the process group of that moment as a default argument and
so keeps it for ever: gloo's threads then outlive `destroy_process_group`, and one that lets go of a tensor while the interpreter ends
aborts the process. Imported here, before there is a group, it keeps none.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # see above
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of ranks; 1 where torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this rank, from 0; 0 where torch.distributed is not initialised."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _AllReduceSum(torch.autograd.Function):
    """Sum over ranks; the adjoint of a sum that every rank sees is the sum of the gradients of every rank."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        total = t.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def all_reduce_sum(t: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Sum of `t` over all ranks, differentiable; `t` itself in one process. Every rank must call it, with equal shapes."""
    if world_size() == 1:
        return t
    total: Tensor = _AllReduceSum.apply(t)  # type: ignore[no-untyped-call]
    return total


def mean_over_ranks(t: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, ""]:
    """Mean of all numbers of `t` on all ranks, differentiable; ranks may hold different numbers of them. In one process `t.mean()`."""
    if world_size() == 1:
        return t.mean()
    values = t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
    total, count = all_reduce_sum(torch.stack([values.sum(), values.new_full((), float(t.numel()))])).unbind()
    return (total / count).to(t.dtype)


@torch.no_grad()
def all_reduce_max(t: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Largest value over all ranks of each number of `t`, without gradient; `t` itself in one process."""
    if world_size() == 1:
        return t
    largest = t.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def total_rows(t: Shaped[Tensor, "*views batch dim"]) -> Shaped[Tensor, ""]:
    """Number of rows (axis -2) over all ranks, as a scalar of the dtype and device of `t`: nothing is read back from the device."""
    return all_reduce_sum(t.new_full((), t.shape[-2], requires_grad=False))


def gather_rows(t: Shaped[Tensor, "*views batch dim"]) -> tuple[Shaped[Tensor, "*views rows dim"], slice]:
    """The rows (axis -2) of all ranks in the order of ranks, without gradient, and which of them are this rank's.

    Ranks may differ in their number of rows; the numbers are exchanged first, which waits for the device.
    """
    return all_rows(t.detach())


def all_rows(t: Shaped[Tensor, "*views batch dim"]) -> tuple[Shaped[Tensor, "*views rows dim"], slice]:
    """`gather_rows`, differentiable: the adjoint is a rank's own slice of the sum of the gradients of every rank."""
    n = t.shape[-2]
    if world_size() == 1:
        return t, slice(0, n)
    counts = torch.zeros(world_size(), dtype=torch.int64, device=t.device)
    counts[rank()] = n
    dist.all_reduce(counts)
    sizes: list[int] = counts.tolist()
    own = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
    rows: Tensor = _Gather.apply(t, sum(sizes), own)  # type: ignore[no-untyped-call]
    return rows, own


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, total: int, own: slice) -> Tensor:
        ctx.own = own
        rows = t.new_zeros((*t.shape[:-2], total, t.shape[-1]))
        rows[..., own, :] = t
        dist.all_reduce(rows)
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[..., ctx.own, :], None, None
