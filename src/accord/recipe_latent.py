"""The tables [latent], what z is, and [minimizer], how z is found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accord.recipe_base import Count, Fraction, NotNegative, Positive, Section


class DeterministicLatent(Section):
    """No z: x alone predicts y."""

    name: Literal["deterministic"]


class CodebookLatent(Section):
    """z is a choice among learned codes, or several choices; with `prior` its price depends on x."""

    name: Literal["codebook"]
    codes: Annotated[int, Field(ge=2, le=65_536)] = 16
    dim: Annotated[int, Field(ge=1, le=4096)] = 8
    blocks: Annotated[int, Field(ge=1, le=256)] = 1
    prior: bool = False
    weight: NotNegative = 0.01
    reseed: NotNegative = 0.1
    usage: NotNegative = 0.0


class GaussianLatent(Section):
    """z has a standard normal prior; `weight` is the energy of a nat."""

    name: Literal["gaussian"]
    dim: Count = 8
    weight: NotNegative = 0.01


class NoisyLatent(Section):
    """z is bounded and arrives with noise."""

    name: Literal["noisy"]
    dim: Count = 8
    noise: Positive = 1.0


class LowDimensionalLatent(Section):
    """z is free but narrow."""

    name: Literal["low_dimensional"]
    dim: Count = 2
    bound: Positive | None = None


class SparseLatent(Section):
    """Few numbers of z are not 0."""

    name: Literal["sparse"]
    dim: Count = 32
    weight: NotNegative = 0.01
    spread: NotNegative = 0.0


LatentSection = Annotated[
    DeterministicLatent | CodebookLatent | GaussianLatent | NoisyLatent | LowDimensionalLatent | SparseLatent,
    Field(discriminator="name"),
]


class EnumerateMinimizer(Section):
    """Every value of z is tried; beta is an inverse temperature, unset is the minimum."""

    name: Literal["enumerate"]
    beta: Positive | None = None
    anneal: Positive | None = None
    anneal_share: Annotated[float, Field(gt=0, le=1)] = 0.5


class CoordinateMinimizer(Section):
    """Choice by choice, for products of more values than can be enumerated."""

    name: Literal["coordinate"]
    restarts: Count = 4
    sweeps: Count = 16


class BestOfMinimizer(Section):
    """The best of some draws from the prior."""

    name: Literal["best_of"]
    samples: Count = 64
    beta: Positive | None = None


class DescendMinimizer(Section):
    """Gauss-Newton steps from several starts."""

    name: Literal["descend"]
    steps: Count = 8
    restarts: Annotated[int, Field(ge=0)] = 1


class IstaMinimizer(Section):
    """Iterative soft thresholding, for a sparse z."""

    name: Literal["ista"]
    steps: Count = 30
    accelerated: bool = False


class AmortizeMinimizer(Section):
    """A network guesses z; `refine` Gauss-Newton steps improve the guess."""

    name: Literal["amortize"]
    hidden: list[Count] | None = None
    refine: Annotated[int, Field(ge=0)] = 0


class VariationalMinimizer(Section):
    """A network gives a normal distribution of z, whose price rises to what it is during a share of the training."""

    name: Literal["variational"]
    hidden: list[Count] | None = None
    samples: Count = 2
    warm_up: Fraction = 0.0


class LangevinMinimizer(Section):
    """Annealed importance sampling; beta is an inverse temperature."""

    name: Literal["langevin"]
    beta: Positive
    particles: Count = 32
    temperatures: Count = 32


MinimizerSection = Annotated[
    EnumerateMinimizer
    | CoordinateMinimizer
    | BestOfMinimizer
    | DescendMinimizer
    | IstaMinimizer
    | AmortizeMinimizer
    | VariationalMinimizer
    | LangevinMinimizer,
    Field(discriminator="name"),
]
