"""One objective spread over several processes: the same weights everywhere, the gradient averaged over all (DDP)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from accord.collective import world_size
from accord.data.pair import Pair
from accord.objective.loss import Loss, Objective
from accord.train.device import Device
from accord.train.step import Gradient, whole_batch


def spread(objective: Objective, device: Device) -> Gradient:
    """How loss and gradient of the global batch are computed by all processes together; in one process, by it alone."""
    return whole_batch(objective, device) if world_size() == 1 else DataParallel(objective, device)


class DataParallel:
    """Every process holds all weights, those of the first one to begin with, and takes its share of the batch.

    The mean over processes of their gradients is the gradient of the global batch, for terms are of the batch of all ranks
    (`accord.collective`). Buffers are not sent around: running statistics are of the global batch, and so are equal.

    The first step is made without `DistributedDataParallel`, which must be told whether parameters get no gradient: a principle may
    leave the predictor out.
    """

    def __init__(self, objective: Objective, device: Device):
        self.objective, self.device = objective, device
        self._spread: Gradient | None = None
        with torch.no_grad():
            for tensor in [*objective.parameters(), *objective.buffers()]:
                dist.broadcast(tensor, 0)

    def __call__(self, pair: Pair) -> Loss:
        """The loss of the global batch; its gradient is left in the parameters."""
        if self._spread is not None:
            return self._spread(pair)
        loss = whole_batch(self.objective, self.device)(pair)
        trained = [p for p in self.objective.parameters() if p.requires_grad]
        average_gradients(trained)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers is about to get another name
            engine = DistributedDataParallel(
                self.objective,
                device_ids=None if self.device.is_cpu else [self.device.device],
                broadcast_buffers=False,
                init_sync=False,
                find_unused_parameters=any(p.grad is None for p in trained),
            )
        self._spread = whole_batch(engine, self.device)
        return loss


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean over all ranks of every gradient there is, in one message; nothing in one process."""
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    joined = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(joined)
    joined /= world_size()
    for gradient, mean in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seeds torch's generators (dropout, draws of z) as a function of (seed, rank, step).

    Ranks draw different numbers, and nothing of a generator has to be saved.
    """
    text = f"step\0{seed}\0{rank}\0{step}".encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little"))
