"""From the objective of a recipe to weighted terms: one literal dictionary of principles."""

from __future__ import annotations

from collections.abc import Callable

from accord.objective.contrastive import (
    align_uniform,
    dcl,
    info_nce,
    logistic,
    siamese,
    siglip,
    spectral,
    square_square,
    triplet,
)
from accord.objective.latent_terms import UsageEntropy
from accord.objective.loss import Terms
from accord.objective.negatives import InBatch, Mined, Negatives, Sampled
from accord.objective.principles import barlow_twins, sigreg, vicreg, visreg
from accord.recipe import Recipe
from accord.recipe_latent import CodebookLatent
from accord.recipe_objective import Contrastive

PRINCIPLES: dict[str, Callable[..., Terms]] = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "sigreg": sigreg,
    "visreg": visreg,
    "info_nce": info_nce,
    "dcl": dcl,
    "siglip": siglip,
    "triplet": triplet,
    "siamese": siamese,
    "square_square": square_square,
    "logistic": logistic,
    "spectral": spectral,
    "align_uniform": align_uniform,
}


def terms(recipe: Recipe) -> Terms:
    """What a recipe's model is trained by: the terms of its principle, and the care for codes if it asks for it."""
    section = recipe.objective
    options = section.model_dump(exclude={"name", *Contrastive.model_fields})
    if isinstance(section, Contrastive):
        options["negatives"] = negatives(section)
    found = dict(PRINCIPLES[section.name](**options))
    if isinstance(recipe.latent, CodebookLatent) and recipe.latent.usage:
        found["usage"] = (recipe.latent.usage, UsageEntropy())
    return found


def negatives(section: Contrastive) -> Negatives:
    """Which pairs do not belong together."""
    match section.negatives:
        case "in_batch":
            return InBatch()
        case "uniform":
            return Sampled(section.count)
        case mode:
            return Mined(section.count, mode=mode)
