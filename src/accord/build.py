"""The only file that turns names into objects: one literal dictionary per slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from accord import recipe as r
from accord import recipe_encoder as e
from accord.build_baselines import rival
from accord.build_encoder import Form, Shape, encoder, form_of
from accord.build_latent import default_minimizer, latent, minimizer, require_fit
from accord.build_objective import cost, objective_of
from accord.data.augment import Augmentation, VectorAugmentation
from accord.data.augment_series import SeriesAugmentation
from accord.data.augment_text import TextAugmentation
from accord.data.pairing import Change, Pairing, TwoViews, two_views
from accord.data.pairing_future import future
from accord.data.pairing_hidden import masked
from accord.data.pairing_masked import masked_blocks
from accord.data.pairing_parts import columns, halves
from accord.data.pairing_sides import SidePairs, sides
from accord.data.random import Draws
from accord.data.values import Sides, Values, blank
from accord.errors import UsageError
from accord.model.encoder import Branch, Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Latent
from accord.model.normalize import Standardize
from accord.model.predictor import DictionaryPredictor, IdentityPredictor, MLPPredictor, Predictor
from accord.model.teacher import MovingAverage, StopGradient
from accord.objective.loss import Objective
from accord.recipe_latent import MinimizerSection
from accord.recipe_rivals import Rival
from accord.train.optim import LARS, SGD, AdamW, OptimizerSettings

AUGMENTATIONS: dict[str, Callable[[], Change]] = {
    "none": Augmentation,
    "light": Augmentation.light,
    "photo": Augmentation.photo,
    "grey_photo": Augmentation.grey_photo,
    "digits": Augmentation.digits,
    "vector": VectorAugmentation,
    "series": SeriesAugmentation.series,
    "audio": SeriesAugmentation.sound,
    "text": TextAugmentation,
}


def objective(recipe: r.Recipe, first: nn.Module, first_y: nn.Module | None = None) -> Objective:
    """The model of a recipe and the terms it is trained by.

    Args:
        recipe: resolved: it says the kind and shape of the data.
        first: the first layer of the encoder of x, and of that of y where there is no other (`build_encoder.front`).
        first_y: the first layer of the encoder of y.
    """
    return objective_of(recipe, model(recipe, first, first_y))


def model(recipe: r.Recipe, first: nn.Module, first_y: nn.Module | None = None) -> JointEmbedding:
    """The energy model of a resolved recipe, with fresh weights.

    Raises:
        UsageError: for parts that do not fit each other or the data.
    """
    assert recipe.encoder is not None, "the recipe is not resolved"
    how = recipe.minimizer or how_z_is_found(recipe)
    require_fit(recipe.latent, how, linear=_linear(recipe), bounded=recipe.predictor.name != "mlp")
    x, y = forms(recipe)
    one_kind = form_of(recipe, "x")._replace(shape=x) == form_of(recipe, "y")._replace(shape=y)
    if isinstance(recipe.encoder_y, e.MovingAverage | e.StopGradient | None) and not one_kind:
        raise UsageError(
            f"one encoder cannot take both x of shape {x} and y of shape {y}",
            where="encoder_y",
            help="give y an encoder of its own: [encoder_y], for example as [encoder]"
            if recipe.encoder_y is None
            else f"{recipe.objective.name} encodes y by the encoder of x or a teacher that copies it: use a principle without, vicreg say, "
            "or pairs whose x and y have one shape",
            code="E213",
        )
    _require_apt_changes(recipe)
    encoder_x = encoder(recipe, recipe.encoder, first, form_of(recipe, "x"), x)
    dim, action_dim, compared = recipe.projector.width, pairing(recipe).action_dim, cost(recipe)
    if isinstance(recipe.objective, Rival):
        if isinstance(recipe.pairing, r.Masked):
            raise UsageError(
                f"the rival {recipe.objective.name!r} makes all of y, of which a part is not there with the pairing 'masked'",
                where="objective.name",
                help="use a principle that encodes y",
                code="E216",
            )
        last = first_y or first
        if not isinstance(last, Standardize):
            raise UsageError(
                f"the rival {recipe.objective.name!r} makes y itself, which has to be numbers or an image",
                where="objective.name",
                help="use a principle that encodes y",
                code="E216",
            )
        return rival(recipe, encoder_x, last, y, cost=compared, how=how, action_dim=action_dim)
    encoder_y = encoder_of_y(recipe, encoder_x, first_y or first, y)
    z = latent(recipe.latent, dim)
    found = minimizer(how, z, dim, action_dim)
    return JointEmbedding(encoder_x, encoder_y, predictor(recipe, z), cost=compared, latent=z, minimizer=found)


def _require_apt_changes(recipe: r.Recipe) -> None:
    """Refuses random changes of codes of categories, which are names and no numbers, and of a y that a rival makes if parts get lost.

    Raises:
        UsageError: then.
    """
    pairs = pairing(recipe)
    changes: tuple[Change | None, Change | None] = (None, None)
    if isinstance(pairs, TwoViews):
        changes = (pairs.augmentation, pairs.augmentation)
    elif isinstance(pairs, SidePairs):
        changes = (pairs.augmentation_x, pairs.augmentation_y)
    for change, form in zip(changes, (form_of(recipe, "x"), form_of(recipe, "y")), strict=True):
        if (
            isinstance(change, VectorAugmentation)
            and any(form.categories)
            and (change.noise or change.mask or change.scale)
        ):
            raise UsageError(
                "noise, masks and scales are for numbers, and some columns are categories",
                where="pairing",
                help="hide columns instead (--set pairing.name=masked), or leave augment_x and augment_y out",
                code="E211",
            )
    lossy = isinstance(changes[1], SeriesAugmentation) and changes[1].hides
    if isinstance(recipe.objective, Rival) and lossy:
        raise UsageError(
            f"the rival {recipe.objective.name!r} makes all of y, of which these changes hide a part",
            where="objective.name",
            help="set stretch, shift, mask and channel_drop of the augmentation to 0, or use a principle that encodes y",
            code="E216",
        )


def how_z_is_found(recipe: r.Recipe) -> MinimizerSection:
    """The minimiser that suits the latent, predictor and cost of a recipe."""
    return default_minimizer(recipe.latent, linear=_linear(recipe))


def _linear(recipe: r.Recipe) -> bool:
    """Whether the prediction is linear in z and the cost a squared error."""
    return recipe.predictor.name == "dictionary" and recipe.cost == "squared_error"


def forms(recipe: r.Recipe) -> tuple[Shape, Shape]:
    """Shapes of one x and one y as training makes them; of several crops that of the full view, which x can be as well.

    Raises:
        UsageError: for a pairing that does not fit the kind or the shape of the data.
    """
    pairs = pairing(recipe)
    pair = pairs(blanks(recipe, 2), Draws(0, 0, torch.arange(2)))
    x = tuple(pair.x.shape[-len(form_of(recipe, "x").shape) :])
    y = tuple(pair.y.shape[-len(form_of(recipe, "y").shape) :])
    return (y if pairs.alike else x), y


def blanks(recipe: r.Recipe, count: int) -> Values:
    """`count` samples of zeros, as `Samples.batch` gives them."""
    x = form_of(recipe, "x")
    first = blank(x.kind, x.shape, count)
    if recipe.data.kind != "pair":
        return first
    y = form_of(recipe, "y")
    return Sides(first, blank(y.kind, y.shape, count))


def encoder_of_y(recipe: r.Recipe, student: Encoder, first: nn.Module, shape: Shape) -> Branch:
    """The encoder of y: one of its own, a teacher of the encoder of x, or this very encoder."""
    match recipe.encoder_y:
        case None:
            return student
        case e.MovingAverage() as section:
            return MovingAverage(student, momentum=(section.momentum[0], section.momentum[1]))
        case e.StopGradient():
            return StopGradient(student)
        case section:
            return encoder(recipe, section, first, form_of(recipe, "y"), shape, plain=True)


def predictor(recipe: r.Recipe, z: Latent) -> Predictor:
    """From s_x and z to the predicted s_y.

    Raises:
        UsageError: for a predictor that takes no z where there is one, or needs one where there is none.
    """
    section, dim, action_dim = recipe.predictor, recipe.projector.width, pairing(recipe).action_dim
    hidden = None if section.hidden is None else tuple(section.hidden)
    if section.name == "mlp":
        return MLPPredictor(dim, z.dim, action_dim=action_dim, hidden=hidden)
    if section.name == "dictionary" and z.dim:
        return DictionaryPredictor(dim, z.dim, action_dim=action_dim, hidden=hidden)
    if section.name == "dictionary":
        raise UsageError(
            "the predictor 'dictionary' is moved by z, but latent.name is 'deterministic'",
            where="predictor.name",
            help="use mlp or identity, or another latent",
            code="E214",
        )
    if z.dim:
        raise UsageError(
            f"the predictor 'identity' takes no z, but latent.name is {recipe.latent.name!r}",
            where="predictor.name",
            help="use mlp or dictionary",
            code="E214",
        )
    return IdentityPredictor()


def pairing(recipe: r.Recipe) -> Pairing:
    """How the recipe makes pairs.

    Raises:
        UsageError: for columns that are not there, or an augmentation out of bounds.
    """
    section, kind = recipe.pairing, recipe.data.kind or "image"
    match section:
        case r.TwoViews():
            return two_views(
                augmentation(section.augment, "photo" if kind == "image" else kind),
                size=section.size,
                local=section.local,
                local_size=section.local_size,
                plain_size=section.plain_size,
            )
        case r.Halves():
            return halves(section.split, augmentation=light(section.augment), size=section.size)
        case r.Columns() if kind == "pair":
            return sides(
                augmentation_x=_changes(section.augment_x, form_of(recipe, "x")),
                augmentation_y=_changes(section.augment_y, form_of(recipe, "y")),
                size=section.size,
            )
        case r.Columns():
            return columns(section.x, section.y, features=recipe.data.features or ())
        case r.MaskedBlocks():
            return masked_blocks(
                patch=section.patch,
                block=section.block,
                blocks=section.blocks,
                whole=section.whole,
                augmentation=light(section.augment),
                size=section.size,
            )
        case r.Future() | r.Masked():
            return _parts(section)


def _parts(section: r.Future | r.Masked) -> Pairing:
    """Parts of a series or a row of numbers."""
    if isinstance(section, r.Future):
        return future(context=section.context, horizon=section.horizon)
    return masked(share=section.share, block=section.block)


def _changes(section: r.Augment | None, form: Form) -> Change | None:
    """What changes a side of a pair at random, None for nothing."""
    return None if section is None else augmentation(section, "none" if form.kind == "image" else form.kind)


def in_units(pairing: Pairing, model: JointEmbedding) -> Pairing:
    """The pairing with what happens to vectors and series in units of the columns: those of the first layer, which every checkpoint holds.

    The layer itself is referred to, not its numbers: a run that goes on, or is opened, uses what was fixed when training began.
    """
    if isinstance(pairing, SidePairs):
        return replace(pairing, units_x=_units(model.encoder_x), units_y=_units(model.encoder_y))
    units = _units(model.encoder_x)
    measured = VectorAugmentation | SeriesAugmentation
    numbers = isinstance(pairing, TwoViews) and isinstance(pairing.augmentation, measured)
    return replace(pairing, units=units) if numbers and units is not None else pairing  # type: ignore[type-var]


def _units(encoder: Branch) -> Standardize | None:
    """The first layer of an encoder, if it standardises."""
    first = (
        encoder.backbone[0] if isinstance(encoder, Encoder) and isinstance(encoder.backbone, nn.Sequential) else None
    )
    return first if isinstance(first, Standardize) else None


def light(section: r.Augment | None) -> Augmentation | None:
    """What changes an image before it is divided; what is not set does not happen."""
    if section is None:
        return None
    made = augmentation(section, "none")
    if not isinstance(made, Augmentation):
        raise UsageError(
            "this pairing is for images",
            where="pairing.augment.preset",
            help=f"use {', '.join(AUGMENTATIONS)}",
            code="E211",
        )
    return None if made == Augmentation() else made


def augmentation(section: r.Augment, default: str) -> Change:
    """The preset, or the default one, with the values that are set over it.

    Raises:
        UsageError: for a value that is out of bounds or does not apply to the kind of data.
    """
    given = section.model_dump(exclude={"preset"}, exclude_none=True)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    preset = section.preset or default
    base = AUGMENTATIONS[preset]()
    known = set(base.__dataclass_fields__)
    for key in given:
        if key not in known:
            raise UsageError(
                f"{key} does not apply to the preset {preset!r}",
                where=f"pairing.augment.{key}",
                help=f"known here: {', '.join(sorted(known))}",
                code="E211",
            )
    return type(base)(**{**{name: getattr(base, name) for name in known}, **given})


def optimizer(recipe: r.Recipe) -> OptimizerSettings:
    """The optimiser's settings."""
    section = recipe.optimizer
    match section.name:
        case "adamw":
            return AdamW(beta2=section.beta2)
        case "sgd":
            return SGD(momentum=section.momentum)
        case "lars":
            return LARS(momentum=section.momentum)
