"""From the objective of a recipe to weighted terms: one literal dictionary of principles."""

from __future__ import annotations

from collections.abc import Callable

from accord.baselines.generative import likelihood
from accord.errors import UsageError
from accord.model.centred import CentredDivergence
from accord.model.density import Density
from accord.model.energy import Cost, cosine, smooth_l1, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.matching import LocalMatching
from accord.objective.contrastive import (
    align_uniform,
    contrastive_divergence,
    dcl,
    info_nce,
    logistic,
    score_matching,
    siamese,
    siglip,
    spectral,
    square_square,
    triplet,
)
from accord.objective.distillation import byol, dino, distilled, jepa, simsiam
from accord.objective.latent_terms import UsageEntropy
from accord.objective.loss import Objective, Terms
from accord.objective.negatives import InBatch, Mined, Negatives, Sampled
from accord.objective.principles import barlow_twins, coding_rate, mmcr, rdmreg, sigreg, vicreg, vicregl, visreg
from accord.recipe import Recipe
from accord.recipe_latent import CodebookLatent
from accord.recipe_objective import DINO, Contrastive, ContrastiveDivergence, Distilled, ScoreMatching, VICRegL
from accord.recipe_rivals import Rival

PRINCIPLES: dict[str, Callable[..., Terms]] = {
    "vicreg": vicreg,
    "vicregl": vicregl,
    "barlow_twins": barlow_twins,
    "sigreg": sigreg,
    "visreg": visreg,
    "mmcr": mmcr,
    "coding_rate": coding_rate,
    "rdmreg": rdmreg,
    "info_nce": info_nce,
    "dcl": dcl,
    "siglip": siglip,
    "triplet": triplet,
    "siamese": siamese,
    "square_square": square_square,
    "logistic": logistic,
    "spectral": spectral,
    "align_uniform": align_uniform,
    "contrastive_divergence": contrastive_divergence,
    "score_matching": score_matching,
    "byol": byol,
    "simsiam": simsiam,
    "dino": dino,
    "jepa": jepa,
}
COSTS: dict[str, Cost] = {"squared_error": squared_error, "smooth_l1": smooth_l1, "cosine": cosine}


def objective_of(recipe: Recipe, model: JointEmbedding) -> Objective:
    """The model of a recipe with what it is trained by.

    Raises:
        UsageError: if the principle needs a teacher and the model has none.
    """
    if isinstance(recipe.objective, Distilled):
        return distilled(model, terms(recipe), symmetric=recipe.objective.symmetric)
    if isinstance(recipe.objective, Rival):
        dim = model.cost.dim if isinstance(model.cost, Density) else 1
        return Objective(model, {**likelihood(dim), **_care(recipe)})
    return Objective(model, terms(recipe))


def cost(recipe: Recipe) -> Cost:
    """What compares prediction and y; that of DINO has its temperatures, that of VICRegL its matches.

    Raises:
        UsageError: for a cross-entropy without DINO, matches or a map without VICRegL, or the reverse.
    """
    about = recipe.objective
    if isinstance(about, VICRegL) or recipe.cost == "local_matching" or recipe.projector.grid is not None:
        return _matching(recipe)
    if isinstance(about, DINO) != (recipe.cost == "centred_divergence"):
        raise UsageError(
            f"cost {recipe.cost!r} does not go with objective.name = {about.name!r}",
            where="cost",
            help="centred_divergence and dino go together: set both, or neither",
            code="E218",
        )
    if isinstance(about, DINO):
        return CentredDivergence(
            recipe.projector.dim,
            student=about.student_temperature,
            teacher=about.teacher_temperature,
            momentum=about.centre_momentum,
        )
    return COSTS[recipe.cost]


def _matching(recipe: Recipe) -> LocalMatching:
    about, projector = recipe.objective, recipe.projector
    if not isinstance(about, VICRegL) or recipe.cost != "local_matching" or projector.grid is None:
        grid = "no grid" if projector.grid is None else f"a grid of {projector.grid}"
        raise UsageError(
            f"objective.name = {about.name!r}, cost {recipe.cost!r} and a projector with {grid} do not go together",
            where="cost",
            help="vicregl, local_matching, and projector.grid and projector.local_dim: set all of them, or none",
            code="E218",
        )
    if about.matches > projector.grid**2:
        raise UsageError(
            f"{about.matches} matches were asked for of {projector.grid**2} positions",
            where="objective.matches",
            help=f"set it to {projector.grid**2} or less, or raise projector.grid",
            code="E218",
        )
    return LocalMatching(projector.dim, positions=projector.grid**2, matches=about.matches, alpha=about.alpha)


def terms(recipe: Recipe) -> Terms:
    """What a recipe's model is trained by: the terms of its principle, and the care for codes if it asks for it.

    Raises:
        UsageError: for a principle that takes the embeddings of y as data where they are trained.
    """
    section = recipe.objective
    if isinstance(section, ContrastiveDivergence | ScoreMatching):
        _require_given_y(recipe)
    options = section.model_dump(exclude={"name", *Contrastive.model_fields})
    if isinstance(section, VICRegL):
        options = section.model_dump(exclude={"name", "alpha", "matches"})  # these belong to the cost
    if isinstance(section, Contrastive):
        options["negatives"] = negatives(section)
    if isinstance(section, Distilled):
        options = {}  # theirs belong to the model
    return {**PRINCIPLES[section.name](**options), **_care(recipe)}


def _care(recipe: Recipe) -> Terms:
    if isinstance(recipe.latent, CodebookLatent) and recipe.latent.usage:
        return {"usage": (recipe.latent.usage, UsageEntropy())}
    return {}


def negatives(section: Contrastive) -> Negatives:
    """Which pairs do not belong together."""
    match section.negatives:
        case "in_batch":
            return InBatch()
        case "uniform":
            return Sampled(section.count)
        case mode:
            return Mined(section.count, mode=mode)


def _require_given_y(recipe: Recipe) -> None:
    """The embeddings of y are the data themselves."""
    encoder = recipe.encoder_y or recipe.encoder
    if encoder is None or encoder.name == "identity":
        return
    raise UsageError(
        f"{recipe.objective.name} moves through the space of y and takes its embeddings as data: an encoder of y that is trained could "
        "make all of them the same",
        where="encoder_y.name",
        help="set encoder_y.name=identity and projector.dim to the number of columns of y (vectors only), or use info_nce",
        code="E219",
    )
