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
from accord.model.feature_map import Mapped, pooled


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


class MultiScale(Mapped):
    """Stem, then one stage per width, each of which halves the resolution; features are the pooled outputs of all of them.

    Args:
        channels: of the image.
        stem_width: channels of the stem.
        stem_kernel: side of the stem's patches.
        stem_stride: their distance.
        widths: channels of each stage.
        blocks: residual convolutions of each stage, after the one that halves the resolution.
        pool_grids: for the stem and each stage, the side of the grid its output is averaged on; 0 leaves it out of the features.

    The input may have any size of at least 8 pixels. `feature_dim` is the sum of channels times grid cells. The map has the channels of
    every scale that is in the features; coarser ones are repeated (hypercolumns: Hariharan et al. 2015, arXiv:1411.5752).

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
        scales = list(zip((stem_width, *widths), pool_grids, strict=True))
        self.feature_dim = sum(width * grid**2 for width, grid in scales)
        self.map_dim = sum(width for width, grid in scales if grid)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def initialise_stem(self, images: Float[Tensor, "n channel h w"], *, seed: int) -> None:
        """Sets the stem's filters to `whitened_patches` of unlabelled images, standardised as the encoder will see them.

        Raises:
            UsageError: if the images are smaller than a patch.
        """
        filters = self.stem.conv.weight
        kernel = filters.shape[-1]
        if min(images.shape[2:]) < kernel:
            raise UsageError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels are smaller than stem_kernel = {kernel}",
                where="encoder.stem_kernel",
                help=f"set it to {min(images.shape[2:])} or less",
            )
        filters.copy_(whitened_patches(images, kernel, len(filters), seed=seed))

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch feature"]:
        """Features of images."""
        return self._features(self._scales(x))

    def maps(
        self, x: Float[Tensor, "batch channel h w"], grid: int
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch cells map"]]:
        """Features and the map of images."""
        scales = self._scales(x)
        kept = [pooled(hidden, grid) for hidden, side in zip(scales, self.pool_grids, strict=True) if side]
        return self._features(scales), torch.cat(kept, dim=2)

    def _scales(self, x: Tensor) -> list[Tensor]:
        """The outputs of the stem and of each stage."""
        scales = [self.stem(x.contiguous(memory_format=torch.channels_last))]
        for stage in self.stages:
            scales.append(stage(scales[-1]))
        return scales

    def _features(self, scales: list[Tensor]) -> Tensor:
        kept = [pooled(hidden, grid).flatten(1) for hidden, grid in zip(scales, self.pool_grids, strict=True) if grid]
        return torch.cat(kept, dim=1)


def whitened_patches(
    images: Float[Tensor, "n channel h w"],
    kernel: int,
    count: int,
    *,
    seed: int,
    patches: int = 40_000,
    ridge: float = 0.05,
) -> Float[Tensor, "count channel kernel kernel"]:
    """Filters from the data: random patches, ZCA-whitened, each with its negative, so that ReLU keeps both signs.

    A filter's response to the patches has standard deviation 1. On natural images such filters are as good as learned ones:
    Coates, Ng, Lee 2011, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning" (AISTATS).

    Args:
        images: as the stem sees them.
        kernel: side of a patch, at most the side of the images.
        count: how many filters.
        seed: of the choice of patches.
        patches: how many to whiten by.
        ridge: added to the covariance's eigenvalues, in units of their mean.
    """
    generator = torch.Generator().manual_seed(seed)
    n, channels, height, width = images.shape
    pick = torch.randint(n, (patches,), generator=generator)[:, None, None, None]
    rows = torch.randint(height - kernel + 1, (patches,), generator=generator)[:, None] + torch.arange(kernel)
    columns = torch.randint(width - kernel + 1, (patches,), generator=generator)[:, None] + torch.arange(kernel)
    channel = torch.arange(channels)[None, :, None, None]
    found = images[pick, channel, rows[:, None, :, None], columns[:, None, None, :]].flatten(1)
    found = found - found.mean(0)
    variances, axes = torch.linalg.eigh(found.T @ found / patches)
    whiten = axes * (variances.clamp_min(0) + ridge * variances.mean() + 1e-8).rsqrt() @ axes.T
    half = F.normalize(found[: (count + 1) // 2] @ whiten, dim=1) @ whiten
    half = half / ((found @ half.T).std(0)[:, None] + 1e-8)
    return torch.cat([half, -half])[:count].reshape(count, channels, kernel, kernel)
