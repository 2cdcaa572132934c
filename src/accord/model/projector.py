"""The projector (expander): features to embeddings, Linear - norm - ReLU, ..., Linear."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.batch_norm import BatchNorm1d
from accord.model.latent import counts

Norm = Callable[[int], nn.Module]
"""Width to a layer that normalises (batch, width): BatchNorm1d, torch.nn.LayerNorm, ..."""


class Projector(nn.Module):
    """A multi-layer perceptron from features to the embeddings that carry the energy; probes read what comes before it.

    Args:
        feature_dim: width of the features.
        dim: width of the embeddings.
        hidden: widths of the hidden layers; () for one linear map.
        norm: layer after each hidden linear map, made from its width; None for none. A linear map before it has no bias.
        final_norm: end with a batch norm without scale and shift. For Barlow Twins: then the mean squared error of two
            embeddings is 2 (1 - mean_i C_ii) with C their cross-correlation, so that the served energy is what was trained.
        rectified: end with a ReLU. For RDMReg: embeddings that are 0 in most places.

    Raises:
        UsageError: a width below 1.

    As in VICReg and Barlow Twins (arXiv:2105.04906, arXiv:2103.03230).
    """

    def __init__(
        self,
        feature_dim: int,
        dim: int,
        *,
        hidden: tuple[int, ...] = (2048,),
        norm: Norm | None = BatchNorm1d,
        final_norm: bool = False,
        rectified: bool = False,
    ):
        super().__init__()
        if min(feature_dim, dim, *hidden) < 1:
            raise UsageError(f"a projector needs widths >= 1, got {feature_dim} -> {hidden} -> {dim}")
        self.feature_dim = feature_dim
        self.dim = dim
        layers: list[nn.Module] = []
        width = feature_dim
        for wide in hidden:
            layers += [nn.Linear(width, wide, bias=norm is None), *([] if norm is None else [norm(wide)]), nn.ReLU()]
            width = wide
        layers.append(nn.Linear(width, dim, bias=not final_norm))
        if final_norm:
            layers.append(BatchNorm1d(dim, affine=False))
        if rectified:
            layers.append(nn.ReLU())
        self.net = nn.Sequential(*layers)

    def forward(self, features: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch dim"]:
        """The embeddings."""
        embedding: Tensor = self.net(features)
        return embedding


class LocalProjector(nn.Module):
    """From features and the map behind them to embeddings that are as made: a global part, and then one part for each position.

    Args:
        pooled: projector of the features; it makes the global part.
        local: projector of the map, the same for all positions (1x1 convolutions, in the language of images).
        positions: how many there are, the cells of the grid of `WithMap`.

    Raises:
        UsageError: fewer than one position.

    The expanders of VICRegL (Bardes, Ponce, LeCun 2022, arXiv:2210.01571). Batch norms of `local` take statistics over rows and positions.
    """

    def __init__(self, pooled: Projector, local: Projector, *, positions: int):
        super().__init__()
        counts(positions=positions)
        self.pooled = pooled
        self.local = local
        self.positions = positions
        self.dim = pooled.dim + positions * local.dim

    def forward(self, made: Float[Tensor, "batch made"]) -> Float[Tensor, "batch dim"]:
        """The embeddings, (batch, global + positions * local)."""
        features, cells = made[:, : self.pooled.feature_dim], made[:, self.pooled.feature_dim :]
        local = self.local(cells.reshape(len(made) * self.positions, self.local.feature_dim))
        return torch.cat([self.pooled(features), local.reshape(len(made), self.positions * self.local.dim)], dim=1)


class Prototypes(nn.Module):
    r"""Cosines with unit vectors, $\cos(v, w_k)$ for k = 1..dim: the last layer of DINO's projector, its logits before the temperature.

    Args:
        width: of v.
        dim: how many vectors.

    Raises:
        UsageError: a width below 1.

    Caron et al. 2021, arXiv:2104.14294: a normalised bottleneck, and weight normalisation of fixed length.
    """

    def __init__(self, width: int, dim: int):
        super().__init__()
        if min(width, dim) < 1:
            raise UsageError(f"prototypes need widths >= 1, got {width} -> {dim}")
        self.weight = nn.Parameter(torch.empty(dim, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, v: Float[Tensor, "batch width"]) -> Float[Tensor, "batch dim"]:
        """The cosines, in float32 at least: a temperature will divide them."""
        with torch.autocast(v.device.type, enabled=False):
            unit = F.normalize(v.to(self.weight.dtype), dim=-1)
            cosines: Tensor = F.linear(unit, F.normalize(self.weight, dim=-1))
        return cosines
