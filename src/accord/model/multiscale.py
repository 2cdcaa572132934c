"""The default image encoder for CPUs: a patch stem, few wide convolutions at low resolution, features pooled at every scale.

A convolution of many channels on few positions is a large matrix product, which is what a CPU does fast; thin layers at full
resolution spend their time on moving memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.batch_norm import BatchNorm2d


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm (Ioffe, Szegedy 2015, arXiv:1502.03167), ReLU."""

    def __init__(self, width_in: int, width_out: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, kernel, stride, padding=(kernel - 1) // 2, bias=False)
        self.norm = BatchNorm2d(width_out)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width_in, h, w) to (batch, width_out, h / stride, w / stride)."""
        return F.relu(self.norm(self.conv(x)))


class ResidualConv(nn.Module):
    """x + ConvNormAct(x): one convolution with identity mapping (He et al. 2016, arXiv:1603.05027)."""

    def __init__(self, width: int):
        super().__init__()
        self.body = ConvNormAct(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        residual: Tensor = self.body(x)
        return x + residual


class MultiScale(nn.Module):
    """Stem, then one stage per width, each of which halves the resolution; features are the pooled outputs of all of them.

    Args:
        channels: of the image.
        stem_width: channels of the stem.
        stem_kernel: side of the stem's patches.
        stem_stride: their distance.
        widths: channels of each stage.
        blocks: residual convolutions of each stage, after the one that halves the resolution.
        pool_grids: for the stem and each stage, the side of the grid its output is averaged on; 0 leaves it out of the features.

    The input may have any size of at least 8 pixels. `feature_dim` is the sum of channels times grid cells.

    Raises:
        UsageError: if the lists do not fit each other.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        stem_width: int = 64,
        stem_kernel: int = 6,
        stem_stride: int = 2,
        widths: Sequence[int] = (128, 256),
        blocks: Sequence[int] = (1, 1),
        pool_grids: Sequence[int] = (2, 2, 1),
    ):
        super().__init__()
        if len(blocks) != len(widths) or len(pool_grids) != len(widths) + 1:
            raise UsageError(
                f"{len(widths)} widths, {len(blocks)} blocks and {len(pool_grids)} pool_grids do not fit each other",
                help="one entry of blocks per width, and one of pool_grids for the stem and each width",
            )
        if not any(pool_grids):
            raise UsageError(
                "every entry of pool_grids is 0: no features are left", help="set one of them to 1 or more"
            )
        self.stem = ConvNormAct(channels, stem_width, stem_kernel, stem_stride)
        self.stages = nn.ModuleList()
        previous = stem_width
        for width, count in zip(widths, blocks, strict=True):
            residual = [ResidualConv(width) for _ in range(count)]
            self.stages.append(nn.Sequential(ConvNormAct(previous, width, stride=2), *residual))
            previous = width
        self.pool_grids = tuple(pool_grids)
        self.feature_dim = sum(width * grid**2 for width, grid in zip((stem_width, *widths), pool_grids, strict=True))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch feature"]:
        """Features of images."""
        hidden = self.stem(x.contiguous(memory_format=torch.channels_last))
        pooled = [_pool(hidden, self.pool_grids[0])]
        for stage, grid in zip(self.stages, self.pool_grids[1:], strict=True):
            hidden = stage(hidden)
            pooled.append(_pool(hidden, grid))
        return torch.cat(pooled, dim=1)


def _pool(hidden: Float[Tensor, "batch channel h w"], grid: int) -> Tensor:
    """Means over the cells of a grid x grid grid, (batch, channel * grid**2)."""
    return F.adaptive_avg_pool2d(hidden, grid).flatten(1) if grid else hidden.new_empty(len(hidden), 0)
