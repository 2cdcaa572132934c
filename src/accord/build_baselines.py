"""Rivals from a recipe: encoder of x as ever, y as it is, a decoder, and a cost that may be a distribution."""

from __future__ import annotations

from accord import recipe_rivals as o
from accord.baselines.flow_matching import FlowMatchingDensity
from accord.baselines.generative import generative
from accord.baselines.probabilistic import CommonWidthGaussian, FlowDensity, GaussianDensity, MixtureDensity
from accord.build_latent import latent, minimizer
from accord.data.pairing import Pairing
from accord.data.pairing_restored import restoring
from accord.errors import UsageError
from accord.model.encoder import Encoder
from accord.model.energy import Cost
from accord.model.joint_embedding import JointEmbedding
from accord.model.normalize import Standardize
from accord.recipe import Recipe
from accord.recipe_encoder import IdentityEncoder
from accord.recipe_latent import MinimizerSection
from accord.recipe_objective import ObjectiveSection

LARGEST = 4096
"""Numbers in a y, at most, that a network of all of them is made for."""


def rival(
    recipe: Recipe,
    encoder_x: Encoder,
    standardize: Standardize,
    shape: tuple[int, ...],
    *,
    cost: Cost,
    how: MinimizerSection,
    action_dim: int,
) -> JointEmbedding:
    """The model of a recipe whose objective is a rival.

    Args:
        recipe: resolved.
        encoder_x: as for any other objective.
        standardize: of y.
        shape: of one y.
        cost: the recipe's.
        how: z is found.
        action_dim: width of the action.

    Raises:
        UsageError: for parts that a rival has no place for.
    """
    section, dim = recipe.objective, recipe.projector.dim
    _require_parts(recipe)
    size = 1
    for side in shape:
        size *= side
    distribution = _density(section, size, dim)
    z = latent(recipe.latent, dim)
    hidden = None if recipe.predictor.hidden is None else tuple(recipe.predictor.hidden)
    return generative(
        encoder_x,
        dim,
        shape,
        standardize=standardize,
        cost=distribution or cost,
        latent=z,
        minimizer=minimizer(how, z, dim, action_dim, dim_y=size),
        action_dim=action_dim,
        hidden=hidden or (256, 256),
    )


def _density(section: ObjectiveSection, size: int, dim: int) -> Cost | None:
    """The distribution of a likelihood, None for a plain cost."""
    match section:
        case o.GaussianLikelihood() as s:
            return GaussianDensity(size, floor=s.floor)
        case o.Mixture() as s:
            return MixtureDensity(size, components=s.components, floor=s.floor)
        case o.CVAE() as s:
            return CommonWidthGaussian(size, floor=s.floor)
        case o.Flow() as s:
            _require_small(size)
            return FlowDensity(size, dim, transforms=s.transforms, bins=s.bins, hidden=tuple(s.hidden), floor=s.floor)
        case o.FlowMatching() as s:
            _require_small(size)
            return FlowMatchingDensity(size, dim, hidden=tuple(s.hidden), floor=s.floor, steps=s.steps, probes=s.probes)
        case _:
            return None


def trained_on(recipe: Recipe, pairing: Pairing) -> Pairing:
    """The pairs that the model of a recipe is trained on: those of its pairing, but for auto-encoders, which make x of x."""
    match recipe.objective:
        case o.Autoencoder():
            return restoring(pairing)
        case o.MaskedAutoencoder() as s:
            return restoring(pairing, hide=s.mask, patch=s.patch)
        case _:
            return pairing


def _require_parts(recipe: Recipe) -> None:
    section, name = recipe.objective, recipe.objective.name
    if recipe.encoder_y is not None and not isinstance(recipe.encoder_y, IdentityEncoder):
        raise _misfit(f"the rival {name!r} takes y as it is", "encoder_y.name", "leave out [encoder_y]")
    if recipe.predictor.name == "dictionary":
        raise _misfit(f"the rival {name!r} has a decoder of its own", "predictor.name", "leave it out, or use mlp")
    if recipe.cost != "squared_error" and not isinstance(
        section, o.PixelPredictor | o.Autoencoder | o.MaskedAutoencoder
    ):
        raise _misfit(f"the cost of the rival {name!r} is its likelihood", "cost", "leave it out")
    if isinstance(section, o.CVAE) and recipe.latent.name != "gaussian":
        raise _misfit(
            "a variational auto-encoder has a z with a normal prior", "latent.name", "use latent.name=gaussian"
        )


def _require_small(size: int) -> None:
    if size > LARGEST:
        raise _misfit(
            f"a y of {size:,} numbers is too large for a flow, which is made for {LARGEST:,} at most",
            "pairing.size",
            "set a smaller pairing.size, or use the objective cvae",
        )


def _misfit(message: str, where: str, help: str) -> UsageError:
    return UsageError(message, where=where, help=help, code="E216")
