"""The tables of objectives that make y itself, or a distribution of it: what the rest is compared with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accord.recipe_base import Count, Section

Floor = Annotated[float, Field(gt=0, le=1)]


class PixelPredictor(Section):
    """A rival: y itself is made of x, and the energy is the mean squared error, in units of y's standard deviation."""

    name: Literal["pixel_predictor"]


class Autoencoder(Section):
    """A rival: x is made of x; the energy of a pair is how far y is from what is made of x."""

    name: Literal["autoencoder"]


class MaskedAutoencoder(Section):
    """A rival: x is made of x with a share of its patches or columns hidden (He et al. 2022, arXiv:2111.06377)."""

    name: Literal["masked_autoencoder"]
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.75
    patch: Count | None = None


class GaussianLikelihood(Section):
    """A rival: y is normal with a mean and widths given by x. `floor` is the least width, in units of y's standard deviation."""

    name: Literal["gaussian"]
    floor: Floor = 0.05


class Mixture(Section):
    """A rival: y is a mixture of normal distributions given by x (Bishop 1994)."""

    name: Literal["mixture"]
    components: Annotated[int, Field(ge=1, le=4096)] = 16
    floor: Floor = 0.05


class CVAE(Section):
    """A rival: a conditional variational auto-encoder (Sohn, Lee, Yan 2015); z is that of [latent]."""

    name: Literal["cvae"]
    floor: Floor = 0.05


class Flow(Section):
    """A rival: a conditional normalising flow of splines (arXiv:1906.04032); needs the extra `flows`."""

    name: Literal["flow"]
    transforms: Annotated[int, Field(ge=1, le=64)] = 3
    bins: Annotated[int, Field(ge=2, le=64)] = 8
    hidden: list[Count] = Field(default=[128, 128])
    floor: Floor = 0.05


class FlowMatching(Section):
    """A rival: conditional flow matching (arXiv:2210.02747); the energy is the likelihood, by integration."""

    name: Literal["flow_matching"]
    hidden: list[Count] = Field(default=[256, 256], min_length=1)
    floor: Floor = 0.05
    steps: Annotated[int, Field(ge=1, le=1000)] = 8
    probes: Annotated[int, Field(ge=1, le=4096)] = 2


Rival = PixelPredictor | Autoencoder | MaskedAutoencoder | GaussianLikelihood | Mixture | CVAE | Flow | FlowMatching
"""What makes y itself, or a distribution of it; see `accord.baselines`."""
