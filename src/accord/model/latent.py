r"""What z is: a variable of limited information for what x cannot tell about y.

$R(z \mid s_x) \ge 0$ is the price of z and part of the energy: F = min_z E only means something if z pays for its information.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Latent(nn.Module, ABC):
    """A latent space of width `dim` with a price on each of its points."""

    dim: int

    @abstractmethod
    def penalty(self, z: Float[Tensor, "*shape latent"], s_x: Float[Tensor, "*batch dim"]) -> Tensor:
        """R(z | s_x) >= 0, of a shape that broadcasts to z.shape[:-1]; a latent without a conditional prior ignores `s_x`."""

    @abstractmethod
    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Draws from the prior exp(-R), (*shape, latent), on the device of the module."""

    def candidates(self) -> Float[Tensor, "k latent"] | None:
        """Every value of z where z is countable, else None."""
        return None


class Deterministic(Latent):
    """No latent: z has width 0, one value and no price. x alone predicts y."""

    reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dim = 0
        self.register_buffer("reference", torch.zeros(()), persistent=False)  # knows device and dtype

    def penalty(self, z: Tensor, s_x: Tensor) -> Tensor:
        """Zero."""
        return self.reference.expand(z.shape[:-1])

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """(*shape, 0): nothing to draw."""
        return self.reference.new_zeros((*shape, 0))

    def candidates(self) -> Tensor:
        """(1, 0): the one value there is."""
        return self.reference.new_zeros((1, 0))
