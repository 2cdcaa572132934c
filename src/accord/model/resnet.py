"""ResNet-18, -34 and -50 without classifier, with the field's layout and parameter names.

He, Zhang, Ren, Sun 2016, arXiv:1512.03385; the stride of a bottleneck sits on its 3x3 convolution, as everywhere today.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.batch_norm import BatchNorm2d
from accord.model.feature_map import Mapped, pooled


def _conv(width_in: int, width_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(width_in: int, width_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and width_in == width_out:
        return None
    return nn.Sequential(_conv(width_in, width_out, 1, stride), BatchNorm2d(width_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = _conv(width_in, width, 3, stride)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(width_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width_in, h, w) to (batch, width, h / stride, w / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        last: Tensor = self.relu(y)
        return last


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; four times as wide outside as inside."""

    expansion: ClassVar[int] = 4

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = _conv(width_in, width, 1)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(width_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width_in, h, w) to (batch, 4 width, h / stride, w / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        last: Tensor = self.relu(y)
        return last


class ResNet(Mapped):
    """A residual network up to its global average: (batch, channel, height, width) to (batch, feature_dim).

    Args:
        block: BasicBlock or Bottleneck.
        depths: number of blocks in each of the four layers.
        channels: of the input.
        stem: "standard" is a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2; "small", for images of about 64 pixels or
            less, is a 3x3 convolution of stride 1 and no pooling (SimCLR, arXiv:2002.05709, appendix B.9).

    Raises:
        UsageError: an unknown stem.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        channels: int = 3,
        stem: Literal["small", "standard"] = "standard",
    ):
        super().__init__()
        if stem not in ("small", "standard"):
            raise UsageError(f"stem is 'small' or 'standard', got {stem!r}")
        small = stem == "small"
        self.feature_dim = self.map_dim = 512 * block.expansion
        self.conv1 = _conv(channels, 64, 3) if small else _conv(channels, 64, 7, 2)
        self.bn1 = BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _layer(block, 64, 64, depths[0], 1)
        self.layer2 = _layer(block, 64 * block.expansion, 128, depths[1], 2)
        self.layer3 = _layer(block, 128 * block.expansion, 256, depths[2], 2)
        self.layer4 = _layer(block, 256 * block.expansion, 512, depths[3], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """Features: the mean over positions of the last layer."""
        return self._last(x).mean((-2, -1))

    def maps(
        self, x: Float[Tensor, "batch channel height width"], grid: int
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch cells map"]]:
        """Features, and the last layer as a map."""
        y = self._last(x)
        return y.mean((-2, -1)), pooled(y, grid)

    def _last(self, x: Tensor) -> Tensor:
        y = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        last: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        return last


def _layer(
    block: type[BasicBlock] | type[Bottleneck], width_in: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    later = [block(width * block.expansion, width, 1) for _ in range(depth - 1)]
    return nn.Sequential(block(width_in, width, stride), *later)


def resnet18(*, channels: int = 3, stem: Literal["small", "standard"] = "standard") -> ResNet:
    """ResNet-18: 512 features, 11.2 million parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), channels=channels, stem=stem)


def resnet34(*, channels: int = 3, stem: Literal["small", "standard"] = "standard") -> ResNet:
    """ResNet-34: 512 features, 21.3 million parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), channels=channels, stem=stem)


def resnet50(*, channels: int = 3, stem: Literal["small", "standard"] = "standard") -> ResNet:
    """ResNet-50: 2048 features, 23.5 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), channels=channels, stem=stem)
