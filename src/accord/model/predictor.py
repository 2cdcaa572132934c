"""Predictors in representation space: (s_x, z, action) -> s_y_hat."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Predictor(nn.Module, ABC):
    """Maps an embedding of x, a latent and an action to a predicted embedding of y."""

    @abstractmethod
    def forward(
        self, s_x: Float[Tensor, "*batch dim"], z: Float[Tensor, "... latent"], action: Tensor | None = None
    ) -> Float[Tensor, "... dim"]:
        """s_y_hat, (*samples, *batch, dim). Batch axes of size 1 in `z` or in `s_x` broadcast."""


class IdentityPredictor(Predictor):
    """s_y_hat = s_x: the joint embedding of VICReg, Barlow Twins and SIGReg, in which x and y are two views of one thing."""

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
        """`s_x`, expanded over the sample axes of `z`."""
        return s_x.expand(*torch.broadcast_shapes(z.shape[:-1], s_x.shape[:-1]), s_x.shape[-1])


class MLPPredictor(Predictor):
    """A multi-layer perceptron on the concatenation of s_x, z and action.

    Args:
        dim: width of the embeddings s_x and s_y.
        latent_dim: width of z; 0 for a deterministic predictor.
        action_dim: width of the action; 0 where there is none.
        hidden: widths of the hidden layers; default one of 2 * dim. No batch statistics, so that train and eval agree.
    """

    def __init__(self, dim: int, latent_dim: int = 0, *, action_dim: int = 0, hidden: tuple[int, ...] | None = None):
        super().__init__()
        widths = [dim + latent_dim + action_dim, *(hidden if hidden is not None else (2 * dim,)), dim]
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.GELU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
        """s_y_hat, (*samples, *batch, dim)."""
        parts = [s_x, z] if action is None else [s_x, z, action]
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        joined = torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], dim=-1)
        prediction: Tensor = self.net(joined)
        return prediction
