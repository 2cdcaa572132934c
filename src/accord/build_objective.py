"""From the objective of a recipe to weighted terms: one literal dictionary of principles."""

from __future__ import annotations

from collections.abc import Callable

from accord.objective.latent_terms import UsageEntropy
from accord.objective.loss import Terms
from accord.objective.principles import barlow_twins, sigreg, vicreg, visreg
from accord.recipe import Recipe
from accord.recipe_latent import CodebookLatent

PRINCIPLES: dict[str, Callable[..., Terms]] = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "sigreg": sigreg,
    "visreg": visreg,
}


def terms(recipe: Recipe) -> Terms:
    """What a recipe's model is trained by: the terms of its principle, and the care for codes if it asks for it."""
    options = recipe.objective.model_dump(exclude={"name"})
    found = dict(PRINCIPLES[recipe.objective.name](**options))
    if isinstance(recipe.latent, CodebookLatent) and recipe.latent.usage:
        found["usage"] = (recipe.latent.usage, UsageEntropy())
    return found
