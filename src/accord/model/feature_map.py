"""Backbones that pool a map of features at their end, and the map itself, on a grid, behind the features."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.model.latent import counts


class Mapped(nn.Module, ABC):
    """A backbone of images that has a map of features before it pools them.

    Attributes:
        feature_dim: width of the features.
        map_dim: width of the map.
    """

    feature_dim: int
    map_dim: int

    @abstractmethod
    def maps(
        self, x: Float[Tensor, "batch channel h w"], grid: int
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch cells map"]]:
        """The features, and the map averaged on a grid x grid grid, row by row."""


class WithMap(nn.Module):
    """Features and, behind them, the map they are pooled from: (batch, feature_dim + grid**2 * map_dim).

    The backbone of an encoder whose projector is a `LocalProjector`.

    Args:
        backbone: has a map.
        grid: side of the grid that the map is averaged on; a coarser map is repeated.

    Raises:
        UsageError: a grid below 1.
    """

    def __init__(self, backbone: Mapped, grid: int):
        super().__init__()
        counts(grid=grid)
        self.backbone = backbone
        self.grid = grid

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch made"]:
        """Features and map of images."""
        features, cells = self.backbone.maps(x, self.grid)
        return torch.cat([features, cells.flatten(1)], dim=1)


def pooled(hidden: Float[Tensor, "batch channel h w"], grid: int) -> Float[Tensor, "batch cells channel"]:
    """Means over the cells of a grid x grid grid, row by row.

    Where the grid divides the size this is a reshaped mean, whose backward pass is far cheaper than that of adaptive pooling.
    """
    n, channels, height, width = hidden.shape
    if height % grid or width % grid:
        return F.adaptive_avg_pool2d(hidden, grid).permute(0, 2, 3, 1).reshape(n, grid**2, channels)
    cells = hidden.permute(0, 2, 3, 1).reshape(n, grid, height // grid, grid, width // grid, channels)
    return cells.mean(dim=(2, 4)).flatten(1, 2)
