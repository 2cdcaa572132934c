r"""What z is: a variable of limited information for what x cannot tell about y.

$R(z \mid s_x) = \lambda\, r(z \mid s_x) \ge 0$ is the price of z and part of the energy: F = min_z E only means something if z pays
for its information. r is counted in nats, $\lambda$ says how much energy a nat costs, and z is drawn from the prior $e^{-r}$, so
that $\beta = 1/\lambda$ is the inverse temperature at which price and prior agree: $e^{-\beta E} = e^{-r} e^{-\beta D}$.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError


class Latent(nn.Module, ABC):
    r"""A latent space of width `dim` with a price on each of its points.

    Attributes:
        dim: width of z.
        weight: energy of a nat, $\lambda \ge 0$.
        choice: z is one of some codes, so that `project` has no gradient in z; it has one in the codes.
        coupled: the last batch axis is time and the price of a z depends on the z before it: a sequence has one minimum.
    """

    dim: int
    weight: float = 1.0
    choice: bool = False
    coupled: bool = False

    @abstractmethod
    def price(self, z: Float[Tensor, "*shape latent"], s_x: Float[Tensor, "*batch dim"]) -> Tensor:
        """r(z | s_x) >= 0 in nats, of a shape that broadcasts to z.shape[:-1]; without a conditional prior `s_x` is ignored."""

    def penalty(self, z: Float[Tensor, "*shape latent"], s_x: Float[Tensor, "*batch dim"]) -> Tensor:
        """R(z | s_x) = weight * price, in units of energy."""
        return self.weight * self.price(z, s_x)

    @abstractmethod
    def sample(
        self, shape: tuple[int, ...], s_x: Float[Tensor, "*batch dim"], generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws from the prior exp(-r), (*shape, latent), where `shape` ends with the batch axes of `s_x`, or broadcasts to them."""

    def candidates(self) -> Float[Tensor, "k latent"] | None:
        """Every value of z where z is countable and they are few, else None."""
        return None

    def blocks(self) -> Float[Tensor, "blocks codes width"] | None:
        """The codes of each block where z is a row of independent choices, else None."""
        return None

    def project(self, z: Float[Tensor, "*shape latent"]) -> Float[Tensor, "*shape latent"]:
        """The nearest allowed z; differentiable in the codes where z is a choice, and in z where it is not."""
        return z

    def transmit(self, z: Float[Tensor, "*shape latent"]) -> Float[Tensor, "*shape latent"]:
        """What arrives at the predictor: z itself, unless the latent is a noisy channel."""
        return z

    def observe(self, z: Float[Tensor, "*batch latent"]) -> None:
        """Told the z of each training batch, so that a latent may look after codes nobody uses."""

    @property
    def capacity(self) -> float:
        """Upper bound of the information in one z, nats; inf where only the price limits it."""
        return math.inf


class Scheduled(ABC):
    """A part of an objective that changes from step to step: a temperature that rises, a codebook that replaces dead codes."""

    @abstractmethod
    def before_step(self, progress: float) -> None:
        """Called before each training step; `progress` is the share of training that is done, in [0, 1)."""


class Following(ABC):
    """A part of an objective that follows its training: a teacher whose weights move after those of its student, a running centre."""

    @abstractmethod
    def after_step(self, taken: Tensor | bool) -> None:
        """Called after each training step.

        Args:
            taken: whether the step was made; where it was not, nothing moves. A tensor, (), is not waited for.
        """


class Deterministic(Latent):
    """No latent: z has width 0, one value and no price. x alone predicts y."""

    reference: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dim = 0
        self.register_buffer("reference", torch.zeros(()), persistent=False)  # knows device and dtype

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        """Zero."""
        return self.reference.expand(z.shape[:-1])

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(*shape, 0): nothing to draw."""
        return self.reference.new_zeros((*shape, 0))

    def candidates(self) -> Tensor:
        """(1, 0): the one value there is."""
        return self.reference.new_zeros((1, 0))

    @property
    def capacity(self) -> float:
        """0 nats."""
        return 0.0


def positive(**numbers: float) -> None:
    """Refuses what is not a finite number above 0.

    Raises:
        UsageError: with the name of the number.
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not 0 < value < math.inf:
            raise UsageError(
                f"{name}: expected a number above 0, got {value!r}", where=name, help=f"set {name} above 0"
            )


def not_negative(**numbers: float) -> None:
    """Refuses what is not a finite number of 0 or more.

    Raises:
        UsageError: with the name of the number.
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not 0 <= value < math.inf:
            raise UsageError(
                f"{name}: expected a number of 0 or more, got {value!r}", where=name, help=f"set {name} to 0 or more"
            )


def counts(**numbers: int) -> None:
    """Refuses what is not a whole number of 1 or more.

    Raises:
        UsageError: with the name of the number.
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(
                f"{name}: expected a whole number of 1 or more, got {value!r}",
                where=name,
                help=f"set {name} to 1 or more",
            )
