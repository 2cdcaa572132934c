r"""A batch in parts: the gradient of the whole batch in the memory of one part.

The loss of a batch is no mean over its parts (variance, covariance and negatives are of all rows), so gradients of parts cannot be
added up. By the chain rule $\frac{\partial L}{\partial \theta} = \sum_k \left(\frac{\partial s_k}{\partial \theta}\right)^T
\frac{\partial L}{\partial s_k}$ over the embeddings $s_k$ of the parts: all are computed without gradient, L and its gradient in them
once, then the parts once more, each with its share of that gradient. Gao, Zhang, Han, Callan 2021 (GradCache), arXiv:2101.06983.

Exact but for batch norm in the encoders, which normalises by the part it sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.model.encoder import Branch
from accord.objective.loss import Loss, Objective
from accord.train.device import Device


class Accumulated:
    """Computes the loss of a batch and adds its gradient to that of the parameters, with the encoders part by part.

    Args:
        objective: what is minimised.
        parts: how many; at most as many as there are samples.
        device: where.
    """

    def __init__(self, objective: Objective, parts: int, device: Device):
        self.objective, self.parts, self.device = objective, parts, device

    def __call__(self, pair: Pair) -> Loss:
        """One forward pass without gradient, one of the loss, and one forward and backward pass of the encoders."""
        objective, model = self.objective, self.objective.model
        if objective.symmetric:
            pair = pair.both_ways()
        sides = [
            _Side(encoder, values, self.parts, self.device)
            for encoder, values in ((model.encoder_x, pair.x), (model.encoder_y, pair.y))
        ]
        with _buffers_kept([model.encoder_x, model.encoder_y]):
            s_x, s_y = (side.encode() for side in sides)
        with self.device.autocast():
            loss = objective.loss(model.energy(s_x, s_y, pair.action))
        loss.total.backward()
        with torch.random.fork_rng(self.device.cuda_devices):
            for side, s in zip(sides, (s_x, s_y), strict=True):
                side.backward(s.grad)
        return loss._replace(total=loss.total.detach())


class _Side:
    """One encoder and its part of the pairs, cut along the last batch axis."""

    def __init__(self, encoder: Branch, values: Tensor, parts: int, device: Device):
        self.encoder, self.device = encoder, device
        ndim = values.ndim - 1 if encoder.sample_ndim is None else encoder.sample_ndim
        axis = values.ndim - ndim - 1
        self.parts = values.tensor_split(min(parts, values.shape[axis]), dim=axis)
        self.sizes = [part.shape[axis] for part in self.parts]
        self.random: list[list[Tensor]] = []

    @torch.no_grad()
    def encode(self) -> Tensor:
        """All embeddings, as a leaf that collects their gradient; takes note of the generators."""
        found = []
        for part in self.parts:
            self.random.append(_generators(self.device))
            with self.device.autocast():
                found.append(self.encoder(part))
        return torch.cat(found, dim=-2).requires_grad_()

    def backward(self, gradient: Tensor | None) -> None:
        """The same passes with the same random numbers, now with gradient; what has none is only run, for its statistics."""
        slopes = [None] * len(self.sizes) if gradient is None else gradient.split(self.sizes, dim=-2)
        for part, random, slope in zip(self.parts, self.random, slopes, strict=True):
            _set_generators(random, self.device)
            with self.device.autocast():
                s = self.encoder(part)
            if s.requires_grad and slope is not None:
                s.backward(slope)


@contextmanager
def _buffers_kept(modules: list[Branch]) -> Iterator[None]:
    """Running statistics are as before afterwards: they are taken from the second pass."""
    buffers = list({id(b): b for module in modules for b in module.buffers()}.values())
    kept = [b.clone() for b in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(before)


def _generators(device: Device) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in device.cuda_devices)]


def _set_generators(states: list[Tensor], device: Device) -> None:
    torch.set_rng_state(states[0])
    for d, state in zip(device.cuda_devices, states[1:], strict=True):
        torch.cuda.set_rng_state(state, d)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a part of it normalises by the batch it sees."""
    return any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for m in module.modules())
