"""The only file that turns names into objects: one literal dictionary per slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from accord import recipe as r
from accord.build_baselines import rival
from accord.build_latent import default_minimizer, latent, minimizer, require_fit
from accord.build_objective import cost, objective_of
from accord.data.augment import Augmentation, VectorAugmentation
from accord.data.pairing import Pairing, TwoViews, two_views
from accord.data.pairing_masked import masked_blocks
from accord.data.pairing_parts import columns, halves
from accord.data.random import Draws
from accord.errors import UsageError
from accord.model.encoder import Branch, Encoder
from accord.model.external import hugging_face_backbone, timm_backbone
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Latent
from accord.model.mlp import MLP
from accord.model.multiscale import MultiScale
from accord.model.normalize import Standardize
from accord.model.predictor import DictionaryPredictor, IdentityPredictor, MLPPredictor, Predictor
from accord.model.projector import Projector, Prototypes
from accord.model.resnet import resnet18, resnet34, resnet50
from accord.model.teacher import MovingAverage, StopGradient
from accord.model.vit import ViT, vit_base, vit_small, vit_tiny
from accord.objective.loss import Objective
from accord.recipe_latent import MinimizerSection
from accord.recipe_rivals import Rival
from accord.train.optim import LARS, SGD, AdamW, OptimizerSettings

AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {
    "none": Augmentation,
    "light": Augmentation.light,
    "photo": Augmentation.photo,
    "grey_photo": Augmentation.grey_photo,
    "digits": Augmentation.digits,
}
RESNETS = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
VITS = {"vit_tiny": vit_tiny, "vit_small": vit_small, "vit_base": vit_base}


Shape = tuple[int, ...]
"""Of one x or y, without the batch."""


def objective(recipe: r.Recipe, standardize: Standardize, standardize_y: Standardize | None = None) -> Objective:
    """The model of a recipe and the terms it is trained by.

    Args:
        recipe: resolved: it says the kind and shape of the data.
        standardize: the first layer of the encoder of x, and of that of y where there is no other.
        standardize_y: the first layer of the encoder of y.
    """
    return objective_of(recipe, model(recipe, standardize, standardize_y))


def model(recipe: r.Recipe, standardize: Standardize, standardize_y: Standardize | None = None) -> JointEmbedding:
    """The energy model of a resolved recipe, with fresh weights.

    Raises:
        UsageError: for parts that do not fit each other or the data.
    """
    assert recipe.encoder is not None, "the recipe is not resolved"
    how = recipe.minimizer or how_z_is_found(recipe)
    require_fit(recipe.latent, how, linear=_linear(recipe), bounded=recipe.predictor.name != "mlp")
    x, y = forms(recipe)
    if isinstance(recipe.encoder_y, r.MovingAverage | r.StopGradient | None) and x != y:
        raise UsageError(
            f"one encoder cannot take both x of shape {x} and y of shape {y}",
            where="encoder_y",
            help="give y an encoder of its own: [encoder_y], for example as [encoder]"
            if recipe.encoder_y is None
            else f"{recipe.objective.name} encodes y by the encoder of x or a teacher that copies it: use a principle without, vicreg say, "
            "or pairs whose x and y have one shape",
            code="E213",
        )
    encoder_x = encoder(recipe, recipe.encoder, standardize, x)
    dim, action_dim, compared = recipe.projector.dim, pairing(recipe).action_dim, cost(recipe)
    if isinstance(recipe.objective, Rival):
        return rival(recipe, encoder_x, standardize_y or standardize, y, cost=compared, how=how, action_dim=action_dim)
    encoder_y = encoder_of_y(recipe, encoder_x, standardize_y or standardize, y)
    z = latent(recipe.latent, dim)
    found = minimizer(how, z, dim, action_dim)
    return JointEmbedding(encoder_x, encoder_y, predictor(recipe, z), cost=compared, latent=z, minimizer=found)


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
    assert recipe.data.shape is not None, "the recipe is not resolved"
    dtype, pairs = torch.float32 if recipe.data.kind == "vector" else torch.uint8, pairing(recipe)
    pair = pairs(torch.zeros(2, *recipe.data.shape, dtype=dtype), Draws(0, 0, torch.arange(2)))
    axes = len(recipe.data.shape)
    y = tuple(pair.y.shape[-axes:])
    return (y if pairs.alike else tuple(pair.x.shape[-axes:])), y


def encoder(
    recipe: r.Recipe, section: r.EncoderSection, standardize: Standardize, shape: Shape, *, plain: bool = False
) -> Encoder:
    """Standardisation, backbone and projector, for inputs of this shape; `plain`: nothing of them is ever hidden."""
    if isinstance(section, r.IdentityEncoder):
        return _identity(recipe, standardize, shape)
    network, width = backbone(section, recipe, shape, plain=plain)
    projector = _projector(recipe, width)
    sample_ndim = 1 if recipe.data.kind == "vector" else 3
    return Encoder(nn.Sequential(standardize, network), projector, sample_ndim=sample_ndim)


def encoder_of_y(recipe: r.Recipe, student: Encoder, standardize: Standardize, shape: Shape) -> Branch:
    """The encoder of y: one of its own, a teacher of the encoder of x, or this very encoder."""
    match recipe.encoder_y:
        case None:
            return student
        case r.MovingAverage() as section:
            return MovingAverage(student, momentum=(section.momentum[0], section.momentum[1]))
        case r.StopGradient():
            return StopGradient(student)
        case section:
            return encoder(recipe, section, standardize, shape, plain=True)


def _projector(recipe: r.Recipe, width: int) -> nn.Module:
    """From features of this width to embeddings."""
    section, hidden = recipe.projector, tuple(recipe.projector.hidden)
    if section.bottleneck is not None:
        bottleneck = Projector(width, section.bottleneck, hidden=hidden)
        return nn.Sequential(bottleneck, Prototypes(section.bottleneck, section.dim))
    name = recipe.objective.name
    return Projector(width, section.dim, hidden=hidden, final_norm=name == "barlow_twins", rectified=name == "rdmreg")


def _identity(recipe: r.Recipe, standardize: Standardize, shape: Shape) -> Encoder:
    """The standardised vector itself as embedding."""
    if recipe.data.kind != "vector" or shape[0] != recipe.projector.dim:
        raise UsageError(
            f"the encoder 'identity' makes embeddings of shape {shape}, but projector.dim is {recipe.projector.dim}",
            where="projector.dim",
            help=f"set projector.dim to {shape[0]}"
            if recipe.data.kind == "vector"
            else "it is for vectors: use another encoder, or a principle that encodes y",
            code="E215",
        )
    return Encoder(nn.Sequential(standardize, nn.Identity()), sample_ndim=1)


def backbone(
    section: r.EncoderSection, recipe: r.Recipe, shape: Shape, *, plain: bool = False
) -> tuple[nn.Module, int]:
    """A backbone by name and the width of its features.

    Raises:
        UsageError: if it does not fit the kind of data, or the size or patches of the views.
    """
    if isinstance(section, r.MLPEncoder) != (recipe.data.kind == "vector"):
        wanted = "mlp" if recipe.data.kind == "vector" else "an image encoder"
        raise UsageError(
            f"encoder {section.name!r} does not fit {recipe.data.kind} data",
            where="encoder.name",
            help=f"use {wanted}",
            code="E210",
        )
    masks = recipe.pairing if isinstance(recipe.pairing, r.MaskedBlocks) and not plain else None
    if masks is not None and isinstance(section, r.ViTEncoder | r.OwnViTEncoder) and masks.patch % section.patch:
        raise UsageError(
            f"the encoder's patches of {section.patch} pixels do not divide the hidden ones of {masks.patch}",
            where="encoder.patch",
            help=f"set encoder.patch and pairing.patch to the same, for example {masks.patch}",
            code="E212",
        )
    network = _backbone(section, shape, masked=masks is not None)
    return network, int(network.feature_dim)  # type: ignore[arg-type]


def _backbone(section: r.EncoderSection, shape: Shape, *, masked: bool) -> nn.Module:
    channels = shape[0]
    match section:
        case r.MLPEncoder():
            network: nn.Module = MLP(channels, tuple(section.hidden))
        case r.ConvEncoder():
            network = MultiScale(channels, **section.model_dump(exclude={"name", "stem_init"}))
        case r.ResNetEncoder():
            network = RESNETS[section.name](channels=channels, stem=section.stem)
        case r.ViTEncoder() | r.OwnViTEncoder():
            network = _transformer(section, shape, masked=masked)
        case r.TimmEncoder():
            network = timm_backbone(section.model, channels=channels, pretrained=section.pretrained)
        case r.IdentityEncoder():
            raise AssertionError("it has no backbone")
        case r.HuggingFaceEncoder():
            network = hugging_face_backbone(section.model, pretrained=section.pretrained)
    return network


def _transformer(section: r.ViTEncoder | r.OwnViTEncoder, shape: Shape, *, masked: bool) -> ViT:
    channels, size = shape[0] - masked, (shape[1], shape[2])
    if isinstance(section, r.ViTEncoder):
        return VITS[section.name](image_size=size, patch=section.patch, channels=channels, masked=masked)
    return ViT(
        image_size=size,
        patch=section.patch,
        dim=section.width,
        depth=section.depth,
        heads=section.heads,
        channels=channels,
        masked=masked,
    )


def predictor(recipe: r.Recipe, z: Latent) -> Predictor:
    """From s_x and z to the predicted s_y.

    Raises:
        UsageError: for a predictor that takes no z where there is one, or needs one where there is none.
    """
    section, dim, action_dim = recipe.predictor, recipe.projector.dim, pairing(recipe).action_dim
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
                augmentation(section.augment, "vector" if kind == "vector" else "photo"),
                size=section.size,
                local=section.local,
                local_size=section.local_size,
                plain_size=section.plain_size,
            )
        case r.Halves():
            return halves(section.split, augmentation=light(section.augment), size=section.size)
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


def in_units(pairing: Pairing, model: JointEmbedding) -> Pairing:
    """The pairing with what happens to vectors in units of the columns: those of the first layer, which every checkpoint holds.

    The layer itself is referred to, not its numbers: a run that goes on, or is opened, uses what was fixed when training began.
    """
    backbone = model.encoder_x.backbone
    first = backbone[0] if isinstance(backbone, nn.Sequential) else None
    vectors = isinstance(pairing, TwoViews) and isinstance(pairing.augmentation, VectorAugmentation)
    if not vectors or not isinstance(first, Standardize):
        return pairing
    return replace(pairing, units=first)  # type: ignore[type-var]


def light(section: r.Augment | None) -> Augmentation | None:
    """What changes an image before it is divided; what is not set does not happen."""
    if section is None:
        return None
    made = augmentation(section, "none")
    if isinstance(made, VectorAugmentation):
        raise UsageError(
            "this pairing is for images",
            where="pairing.augment.preset",
            help=f"use {', '.join(AUGMENTATIONS)}",
            code="E211",
        )
    return None if made == Augmentation() else made


def augmentation(section: r.Augment, default: str) -> Augmentation | VectorAugmentation:
    """The preset, or the default one, with the values that are set over it.

    Raises:
        UsageError: for a value that is out of bounds or does not apply to the kind of data.
    """
    given = section.model_dump(exclude={"preset"}, exclude_none=True)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    preset = section.preset or default
    base = VectorAugmentation() if preset == "vector" else AUGMENTATIONS[preset]()
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


def initialise(encoder: Branch, section: r.EncoderYSection | None, views: Tensor, *, seed: int) -> None:
    """What an encoder takes from the data before training: the filters of its stem, if the recipe says so, or those of its student.

    Args:
        encoder: changed in place.
        section: the recipe's section it was built from.
        views: plain views of training samples, not standardised.
        seed: of what is chosen at random.
    """
    if isinstance(encoder, MovingAverage):
        encoder.restart()
    elif isinstance(section, r.ConvEncoder) and section.stem_init == "whitened":
        assert isinstance(encoder, Encoder)
        assert isinstance(encoder.backbone, nn.Sequential)
        network = encoder.backbone[1]
        assert isinstance(network, MultiScale)
        network.initialise_stem(encoder.backbone[0](views), seed=seed)


def placeholder(shape: Sequence[int]) -> Standardize:
    """A standardisation of the right width whose numbers come from a checkpoint."""
    return Standardize(torch.zeros(shape[0]), torch.ones(shape[0]))


def standardization(views: Tensor) -> Standardize:
    """Mean and standard deviation per channel, or per column, of plain views of the training data."""
    return Standardize.fit(views)
