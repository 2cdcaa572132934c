"""Predictors in representation space: (s_x, z, action) -> s_y_hat."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError


class Predictor(nn.Module, ABC):
    """Maps an embedding of x, a latent and an action to a predicted embedding of y."""

    @abstractmethod
    def forward(
        self, s_x: Float[Tensor, "*batch dim"], z: Float[Tensor, "... latent"], action: Tensor | None = None
    ) -> Float[Tensor, "... dim"]:
        """s_y_hat, (*samples, *batch, dim). Batch axes of size 1 in `z` or in `s_x` broadcast."""

    def linear_in_z(self) -> Float[Tensor, "dim latent"] | None:
        """W where the prediction is Pred(s_x, 0, a) + W z, differentiable in the model; else None."""
        return None


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
        out_dim: width of what it makes; default `dim`, and another for a cost that takes another, as a `Density` does.

    The first layer is a sum of three products, so that K values of z cost it K small products and one of s_x.
    """

    def __init__(
        self,
        dim: int,
        latent_dim: int = 0,
        *,
        action_dim: int = 0,
        hidden: tuple[int, ...] | None = None,
        out_dim: int | None = None,
    ):
        super().__init__()
        between = hidden if hidden is not None else (2 * dim,)
        widths = [dim + latent_dim + action_dim, *between, dim if out_dim is None else out_dim]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
        """s_y_hat, (*samples, *batch, dim)."""
        hidden = joined(self.layers, (s_x, z, action), "the predictor takes {} numbers, s_x, z and action have {}")
        shape = torch.broadcast_shapes(
            z.shape[:-1], s_x.shape[:-1], hidden.shape[:-1]
        )  # one x may have several actions
        return hidden.expand(*shape, hidden.shape[-1])


def joined(layers: Iterable[nn.Module], parts: tuple[Tensor | None, ...], complaint: str) -> Tensor:
    """A multi-layer perceptron on the concatenation of some parts, whose axes broadcast; the first layer is a sum of products.

    Raises:
        UsageError: if the parts do not have the width of the first layer.
    """
    first, *others = layers
    weight, hidden, start = first.weight, first.bias, 0
    assert isinstance(weight, Tensor)
    assert isinstance(hidden, Tensor)
    for part in parts:
        width = 0 if part is None else part.shape[-1]
        if part is not None and width:
            hidden = hidden + F.linear(part, weight[:, start : start + width])
        start += width
    if start != weight.shape[1]:
        raise UsageError(
            complaint.format(weight.shape[1], start),
            help="give it the dim of the embeddings, the latent_dim and the action_dim",
        )
    for layer in others:
        hidden = layer(F.gelu(hidden))
    return hidden


class DictionaryPredictor(Predictor):
    r"""$\hat s_y = \mathrm{Pred}(s_x, a) + \sum_k z_k w_k$ with $\lVert w_k \rVert \le 1$: z chooses among learned directions.

    The columns are bounded, so that a sparse z cannot be made small by making them large; and as the prediction is linear in z, `Ista`
    and `gauss_newton` are exact.
    Olshausen, Field 1996; Gregor, LeCun 2010, "Learning Fast Approximations of Sparse Coding".

    Args:
        dim: width of the embeddings s_x and s_y.
        latent_dim: width of z.
        action_dim: width of the action; 0 where there is none.
        hidden: widths of the hidden layers of the part that depends on x; default one of 2 * dim.
        given: False leaves that part out: z alone decides.
    """

    def __init__(
        self,
        dim: int,
        latent_dim: int,
        *,
        action_dim: int = 0,
        hidden: tuple[int, ...] | None = None,
        given: bool = True,
    ):
        super().__init__()
        self.mean = MLPPredictor(dim, action_dim=action_dim, hidden=hidden) if given else None
        self.directions = nn.Parameter(F.normalize(torch.randn(dim, latent_dim), dim=0))

    @property
    def dictionary(self) -> Float[Tensor, "dim latent"]:
        """The directions as they are used: columns longer than 1 are shortened to 1."""
        bounded: Tensor = self.directions / self.directions.norm(dim=0).clamp_min(1)
        return bounded

    def linear_in_z(self) -> Tensor:
        """The dictionary."""
        return self.dictionary

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
        """s_y_hat, (*samples, *batch, dim).

        Raises:
            UsageError: if z, s_x or the action have another width than it was made for.
        """
        if z.shape[-1] != self.directions.shape[1]:
            raise UsageError(
                f"the dictionary has {self.directions.shape[1]} directions, z has {z.shape[-1]} numbers",
                help="give DictionaryPredictor the dim of the latent as latent_dim, or use MLPPredictor where there is no z",
            )
        shift: Tensor = z @ self.dictionary.T
        if self.mean is None:
            return shift.expand(*torch.broadcast_shapes(z.shape[:-1], s_x.shape[:-1]), shift.shape[-1])
        given: Tensor = self.mean(s_x, z[..., :0], action)
        return given + shift
