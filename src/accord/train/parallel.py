"""One objective on several processes: all weights on each and gradients averaged (DDP), or a part of the encoders on each (FSDP2)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from accord.collective import world_size
from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.encoder import Encoder
from accord.objective.loss import Loss, Objective
from accord.train.accumulate import Accumulated
from accord.train.device import PRECISIONS, Device
from accord.train.sharded import is_sharded
from accord.train.step import Gradient, whole_batch


def spread(objective: Objective, device: Device, *, parts: int = 1, parallel: str = "ddp") -> Gradient:
    """How loss and gradient of the global batch are computed by all processes together, each taking its share in `parts`.

    All start with the weights of the first one. The mean over processes of their gradients is the gradient of the global batch, for
    terms are of the batch of all ranks (`accord.collective`). Buffers are not sent around: running statistics are of the global
    batch, and so are equal.

    Raises:
        UsageError: for encoders that cannot be sharded.
    """
    if world_size() > 1:
        with torch.no_grad():
            for tensor in [*objective.parameters(), *objective.buffers()]:
                dist.broadcast(tensor, 0)
        if parallel == "fsdp":
            shard(objective, device)
    if parts > 1:
        return averaged(Accumulated(objective, parts, device), objective)
    if world_size() == 1:
        return whole_batch(objective, device)
    return (
        averaged(whole_batch(objective, device), objective) if parallel == "fsdp" else DataParallel(objective, device)
    )


def shard(objective: Objective, device: Device) -> None:
    """Leaves a part of every weight of the encoders on each process (FSDP2), which fetches a block's when its turn comes.

    Where the precision is bfloat16 the weights of blocks travel in it; gradients are summed in float32. What is not an encoder
    (predictor, latent, minimiser, terms) is small, is read outside its own forward pass, and stays whole.
    Zhao et al. 2023, arXiv:2304.11277.

    Raises:
        UsageError: for an encoder that runs another one's layers, as teachers do.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.device.type, (world_size(),))
    half = PRECISIONS[device.precision] if device.precision != "float32" else None
    policy = MixedPrecisionPolicy(
        param_dtype=half, reduce_dtype=torch.float32 if half else None, cast_forward_inputs=False
    )
    encoders = {id(e): e for e in (objective.model.encoder_x, objective.model.encoder_y)}.values()
    for encoder in encoders:
        if not isinstance(encoder, Encoder):
            raise UsageError(
                f"{type(encoder).__name__} cannot be sharded: it runs the layers of its student",
                where="training.parallel",
                help="use ddp",
                code="E261",
            )
    for encoder in encoders:
        for p in encoder.parameters():
            p.data = p.data.contiguous()  # convolutions may have their channels innermost, and fully_shard takes rows
        for block in blocks(encoder):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(encoder, mesh=mesh)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members with parts of their own of every list of modules: residual blocks, transformer blocks."""
    for child in module.children():
        members = isinstance(module, nn.Sequential | nn.ModuleList) and not isinstance(
            child, nn.Sequential | nn.ModuleList
        )
        inner = any(True for _ in child.children())
        if members and inner and any(True for _ in child.parameters()):
            yield child
        else:
            yield from blocks(child)


def averaged(gradient: Gradient, objective: Objective) -> Gradient:
    """`gradient`, and then the mean over all processes."""

    def of_all(pair: Pair) -> Loss:
        loss = gradient(pair)
        average_gradients(objective.parameters())
        return loss

    return of_all


class DataParallel:
    """Averages gradients while the backward pass goes on, by torch's `DistributedDataParallel`.

    That must be told whether parameters get no gradient, for a principle may leave the predictor out: the first step shows.
    """

    def __init__(self, objective: Objective, device: Device):
        self.objective, self.device = objective, device
        self._first: Gradient | None = averaged(whole_batch(objective, device), objective)
        self._others: Gradient = self._first

    def __call__(self, pair: Pair) -> Loss:
        """The loss of the global batch; its gradient is left in the parameters."""
        loss = self._others(pair)
        if self._first is not None:
            self._first, self._others = None, whole_batch(self._wrapped(), self.device)
        return loss

    def _wrapped(self) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers is about to get another name
            return DistributedDataParallel(
                self.objective,
                device_ids=None if self.device.is_cpu else [self.device.device],
                broadcast_buffers=False,
                init_sync=False,
                find_unused_parameters=any(p.requires_grad and p.grad is None for p in self.objective.parameters()),
            )


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean over all ranks of every gradient there is, in one message; nothing in one process, or for sharded ones, which are."""
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None and not is_sharded(p)]
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
