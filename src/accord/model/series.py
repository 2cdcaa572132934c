r"""Encoders of series, (batch, step, channel) with NaN for what is not observed or past the end.

What a series is made of is a function of its observed steps alone: neither how far it is padded nor what else is in the batch matters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.sequence import Transformer, masked_max, masked_mean, observed


class ConvOverSteps(nn.Conv1d):
    """A convolution with the channels last: (batch, step, channel) to (batch, ceil(step / stride), width).

    Number j of the result is made of steps j * stride to j * stride + stride - 1 and, as far as the kernel is longer, of those around them.
    """

    def __init__(self, channels: int, width: int, kernel: int, *, dilation: int = 1, stride: int = 1):
        super().__init__(channels, width, kernel, stride, dilation=dilation)
        self.around = dilation * (kernel - 1) + 1 - stride
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        """Steps before the first and past the last are 0."""
        before = self.around // 2
        after = self.around - before + -h.shape[1] % self.stride[0]
        y = super().forward(F.pad(h, (0, 0, before, after)).transpose(1, 2))
        steps_first: Tensor = y.transpose(1, 2)
        return steps_first


class ResidualDilated(nn.Module):
    """h + two convolutions, each after a layer norm and GELU of every step by itself; steps that are not seen enter them as 0."""

    def __init__(self, width: int, kernel: int, dilation: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.conv1 = ConvOverSteps(width, width, kernel, dilation=dilation)
        self.conv2 = ConvOverSteps(width, width, kernel, dilation=dilation)

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        """(batch, step, width) to the same; `seen` is (batch, step, 1), 0 or 1."""
        y: Tensor = self.conv1(F.gelu(self.norm1(h)) * seen)
        y = self.conv2(F.gelu(self.norm2(y)) * seen)
        return h + y


class SeriesConv(nn.Module):
    """Residual dilated convolutions over the steps of a series, then mean and maximum: (batch, step, channel) to (batch, feature_dim).

    Beside each channel a second one says where it is observed. Block i has dilation 2^i: a step sees about 2 (kernel - 1) 2^blocks
    steps around it, times the stride. Every norm is of one step by itself, so that training, too, sees no padding. As in TCN (Bai, Kolter,
    Koltun 2018, arXiv:1803.01271) but not causal, and in the order norm, activation, convolution (He et al. 2016, arXiv:1603.05027).

    Args:
        channels: of the series.
        width: channels within; `feature_dim` is twice that.
        blocks: number of residual blocks of two convolutions.
        kernel: steps of a convolution.
        stride: of the first convolution, at most `kernel`: for long series.
        halve: True: in place of dilation each block works on half as many steps as the one before, and features are means and maxima of
            the steps of every block, 2 * width * blocks of them. Cheaper, and what is fine stays beside what is coarse.

    Raises:
        UsageError: numbers below 1, or a stride greater than the kernel; when called, another number of channels.
    """

    def __init__(
        self, channels: int, *, width: int = 64, blocks: int = 4, kernel: int = 5, stride: int = 1, halve: bool = False
    ):
        super().__init__()
        if min(channels, width, blocks, stride) < 1 or stride > kernel:
            raise UsageError(
                f"channels {channels}, width {width}, blocks {blocks}, kernel {kernel} and stride {stride} make no encoder",
                help="all are positive, and the stride is at most the kernel",
            )
        self.channels, self.stride, self.halve = channels, stride, halve
        self.stem = ConvOverSteps(2 * channels, width, kernel, stride=stride)
        self.blocks = nn.ModuleList(ResidualDilated(width, kernel, 1 if halve else 2**i) for i in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks if halve else 1))
        self.feature_dim = 2 * width * len(self.norms)

    def forward(self, x: Float[Tensor, "batch step channel"]) -> Float[Tensor, "batch feature"]:
        """Features; those of a series of which nothing is observed are 0."""
        values, seen = observed(require_series(x, self.channels))
        h = self.stem(values)
        seen = F.max_pool1d(seen.to(h.dtype), self.stride, ceil_mode=True) > 0
        made = []
        for i, block in enumerate(self.blocks):
            h, seen = halved(h, seen) if i and self.halve else (h, seen)
            h = block(h, seen[..., None].to(h.dtype))
            made.append((h, seen))
        read = made if self.halve else made[-1:]
        return torch.cat([_pooled(F.gelu(norm(h)), seen) for norm, (h, seen) in zip(self.norms, read, strict=True)], 1)


def halved(h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the seen ones of every two steps, (batch, ceil(step / 2), width), and where one of them is seen."""
    weight = F.pad(seen, (0, h.shape[1] % 2)).unflatten(1, (-1, 2)).to(h.dtype)
    pairs = F.pad(h, (0, 0, 0, h.shape[1] % 2)).unflatten(1, (-1, 2))
    mean = (pairs * weight[..., None]).sum(2) / weight.sum(2).clamp_min(1)[..., None]
    return mean, weight.amax(2) > 0


def _pooled(h: Tensor, seen: Tensor) -> Tensor:
    return torch.cat([masked_mean(h, seen), masked_max(h, seen)], dim=1)


class SeriesTransformer(nn.Module):
    """Transformer over patches of a series: (batch, step, channel) to (batch, feature_dim).

    A patch is `patch` steps of all channels, with what of it is observed. Nie et al. 2023, arXiv:2211.14730, who have a sequence for
    each channel; here channels are seen together.

    Args:
        channels: of the series.
        length: greatest number of steps.
        patch: steps of a patch.
        width: of a token; the `feature_dim`.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        UsageError: sizes that do not fit each other; when called, another number of channels or too many steps.
    """

    def __init__(self, channels: int, length: int, *, patch: int = 8, width: int = 128, depth: int = 4, heads: int = 4):
        super().__init__()
        if min(channels, length, patch) < 1:
            raise UsageError(f"channels, length and patch must be positive, got {channels}, {length}, {patch}")
        self.channels, self.patch = channels, patch
        self.feature_dim = width
        self.embed = nn.Linear(2 * channels * patch, width)
        self.transformer = Transformer(-(-length // patch), width=width, depth=depth, heads=heads)

    def forward(self, x: Float[Tensor, "batch step channel"]) -> Float[Tensor, "batch feature"]:
        """Features; those of a series of which nothing is observed are 0."""
        x = F.pad(require_series(x, self.channels), (0, 0, 0, -x.shape[1] % self.patch), value=torch.nan)
        values, seen = observed(x)
        tokens = self.embed(values.unflatten(1, (-1, self.patch)).flatten(2))
        features: Tensor = self.transformer(tokens, seen.unflatten(1, (-1, self.patch)).any(2))
        return features


def require_series(x: Tensor, channels: int) -> Float[Tensor, "batch step channel"]:
    """`x` as it is; raises UsageError if it is not (batch, step, channels)."""
    if x.ndim != 3 or x.shape[2] != channels:
        raise UsageError(
            f"this encoder was made for series of {channels} channels, (batch, step, channel), got {tuple(x.shape)}"
        )
    return x
