r"""Costs that are distributions: $D = -\log p(s_y \mid \theta)$, where the predictor makes the numbers $\theta$ that a distribution takes.

With one, the energy of a pair is a negative log-likelihood. The rest of the model, its training and its evaluation do not change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Density(nn.Module, ABC):
    r"""A distribution of s_y as a cost: $-\log p(s_y \mid \theta)$ in nats, sum over the dimensions of s_y, float32 at least.

    Unlike other costs it may be negative, and it is not 0 where a prediction is perfect.

    Attributes:
        dim: width of s_y.
        width: how many numbers it takes, the width of what the predictor makes.
        numbers: how many numbers one pair makes on the way: it bounds the memory of many pairs.
        product: all with all is a matrix product, which makes `parts` numbers for each pair.
        parts: see `product`.
        network: a network is asked about each pair, so that all with all takes minutes where others take seconds.
        located: what it takes is a point itself, the mean, and nothing else.
    """

    dim: int
    width: int
    numbers: int
    product: bool = False
    parts: int = 1
    network: bool = False
    located: bool = False

    @abstractmethod
    def forward(self, theta: Float[Tensor, "*a width"], s_y: Float[Tensor, "*b dim"]) -> Float[Tensor, "*c"]:
        """-log p(s_y | theta), axes broadcast."""

    @abstractmethod
    def point(self, theta: Float[Tensor, "*a width"]) -> Float[Tensor, "*a dim"]:
        """One prediction: the mean, or what the distribution makes of the middle of its noise."""

    @abstractmethod
    def sample(
        self, theta: Float[Tensor, "*a width"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*a dim"]:
        """One draw for each theta; from torch's generator without another."""


def every_pair(a: Tensor, b: Tensor) -> bool:
    """Whether `a` is (..., n, 1, _) and `b` (1, m, _), as `Energy.cross` has them: all of one with all of the other."""
    return a.ndim >= 3 and b.ndim == 3 and a.shape[-2] == 1 and b.shape[0] == 1


def full(t: Tensor) -> Tensor:
    """Float32 at least: sums of squares and logarithms do not survive half precision."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
