"""The part of a recipe that says by which principle a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accord.recipe_base import Count, Fraction, NotNegative, Section


class VICReg(Section):
    """Bardes, Ponce, LeCun 2022, arXiv:2105.04906, weights in the convention of the authors' code."""

    name: Literal["vicreg"]
    invariance: NotNegative = 25.0
    variance: NotNegative = 25.0
    covariance: NotNegative = 1.0


class BarlowTwins(Section):
    """Zbontar et al. 2021, arXiv:2103.03230."""

    name: Literal["barlow_twins"]
    off_diagonal: NotNegative = 0.005


class SIGReg(Section):
    """Balestriero, LeCun 2025, arXiv:2511.08544."""

    name: Literal["sigreg"]
    weight: Fraction = 0.05
    slices: Count = 1024


class VISReg(Section):
    """arXiv:2606.02572."""

    name: Literal["visreg"]
    weight: Fraction = 0.9
    slices: Count = 4096


ObjectiveSection = Annotated[VICReg | BarlowTwins | SIGReg | VISReg, Field(discriminator="name")]
