r"""Batch normalisation with the moments of the batch of all ranks, $y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$.

In one process these are torch's own layers, bit for bit; parameter and buffer names are torch's. Unlike torch's SyncBatchNorm they
run on any device.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.collective import all_reduce_sum, world_size


class BatchNorm1d(nn.BatchNorm1d):
    """torch's BatchNorm1d for (batch, channel) or (batch, channel, length), exact across ranks (any number of rows on each)."""

    def forward(self, x: Float[Tensor, "batch channel *length"]) -> Float[Tensor, "batch channel *length"]:
        """`x` normalised per channel."""
        return _across_ranks(self, x) if _needs_moments(self) else super().forward(x)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d for (batch, channel, height, width), exact across ranks (any number of rows on each)."""

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """`x` normalised per channel."""
        return _across_ranks(self, x) if _needs_moments(self) else super().forward(x)


def local_norms(module: nn.Module) -> list[str]:
    """Names of the layers in `module` that would take the rows of one rank for the batch: torch's own, of any width."""
    own = (BatchNorm1d, BatchNorm2d)
    torchs = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return [name for name, m in module.named_modules() if isinstance(m, torchs) and not isinstance(m, own)]


def _needs_moments(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
    return world_size() > 1 and (layer.training or layer.running_mean is None)


def _across_ranks(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    layer._check_input_dim(x)
    values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    rows = values.new_full((1,), float(x.numel() // x.shape[1]))
    sums = all_reduce_sum(torch.cat([values.sum(axes), rows]))
    n, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
    centred = values - mean.view(shape)
    variance = all_reduce_sum(centred.square().sum(axes)) / n
    if layer.training:
        _update_running(layer, mean.detach(), variance.detach() * (n / (n - 1)))
    y = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)


@torch.no_grad()
def _update_running(layer: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, unbiased_variance: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    share = 1 / layer.num_batches_tracked.to(mean.dtype) if layer.momentum is None else layer.momentum
    layer.running_mean += share * (mean - layer.running_mean)
    layer.running_var += share * (unbiased_variance - layer.running_var)
