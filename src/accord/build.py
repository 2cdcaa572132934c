"""The only file that turns names into objects: one literal dictionary per slot."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from accord import recipe as r
from accord.data.augment import Augmentation, VectorAugmentation
from accord.data.pairing import TwoViews, two_views
from accord.errors import UsageError
from accord.model.encoder import Encoder
from accord.model.energy import Cost, cosine, smooth_l1, squared_error
from accord.model.external import hugging_face_backbone, timm_backbone
from accord.model.joint_embedding import JointEmbedding
from accord.model.mlp import MLP
from accord.model.multiscale import MultiScale
from accord.model.normalize import Standardize
from accord.model.predictor import IdentityPredictor, MLPPredictor, Predictor
from accord.model.projector import Projector
from accord.model.resnet import resnet18, resnet34, resnet50
from accord.model.vit import vit_base, vit_small, vit_tiny
from accord.objective.loss import Objective, Terms
from accord.objective.principles import barlow_twins, regularized, sigreg, vicreg, visreg
from accord.train.optim import LARS, SGD, AdamW, OptimizerSettings

COSTS: dict[str, Cost] = {"squared_error": squared_error, "smooth_l1": smooth_l1, "cosine": cosine}
PRINCIPLES: dict[str, Callable[..., Terms]] = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "sigreg": sigreg,
    "visreg": visreg,
}
AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {
    "photo": Augmentation.photo,
    "grey_photo": Augmentation.grey_photo,
    "digits": Augmentation.digits,
}
RESNETS = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
VITS = {"vit_tiny": vit_tiny, "vit_small": vit_small, "vit_base": vit_base}


def objective(recipe: r.Recipe, standardize: Standardize) -> Objective:
    """The model of a recipe and the terms it is trained by.

    Args:
        recipe: resolved: it says the kind and shape of the data.
        standardize: the first layer of both encoders.
    """
    options = recipe.objective.model_dump(exclude={"name"})
    return regularized(model(recipe, standardize), PRINCIPLES[recipe.objective.name](**options))


def model(recipe: r.Recipe, standardize: Standardize) -> JointEmbedding:
    """The energy model of a resolved recipe, with fresh weights."""
    assert recipe.encoder is not None, "the recipe is not resolved"
    encoder_x = encoder(recipe, recipe.encoder, standardize)
    encoder_y = encoder_x if recipe.encoder_y is None else encoder(recipe, recipe.encoder_y, standardize)
    return JointEmbedding(encoder_x, encoder_y, predictor(recipe), cost=COSTS[recipe.cost])


def encoder(recipe: r.Recipe, section: r.EncoderSection, standardize: Standardize) -> Encoder:
    """Standardisation, backbone and projector."""
    network, width = backbone(section, recipe)
    projector = Projector(
        width,
        recipe.projector.dim,
        hidden=tuple(recipe.projector.hidden),
        final_norm=recipe.objective.name == "barlow_twins",
    )
    sample_ndim = 1 if recipe.data.kind == "vector" else 3
    return Encoder(nn.Sequential(standardize, network), projector, sample_ndim=sample_ndim)


def backbone(section: r.EncoderSection, recipe: r.Recipe) -> tuple[nn.Module, int]:
    """A backbone by name and the width of its features.

    Raises:
        UsageError: if it does not fit the kind of data or the size of the views.
    """
    shape = recipe.data.shape
    assert shape is not None, "the recipe is not resolved"
    if isinstance(section, r.MLPEncoder) != (recipe.data.kind == "vector"):
        wanted = "mlp" if recipe.data.kind == "vector" else "an image encoder"
        raise UsageError(
            f"encoder {section.name!r} does not fit {recipe.data.kind} data",
            where="encoder.name",
            help=f"use {wanted}",
            code="E210",
        )
    network = _backbone(section, shape[0], recipe.pairing.size or shape[-1])
    return network, int(network.feature_dim)  # type: ignore[arg-type]


def _backbone(section: r.EncoderSection, channels: int, size: int) -> nn.Module:
    match section:
        case r.MLPEncoder():
            return MLP(channels, tuple(section.hidden))
        case r.ConvEncoder():
            return MultiScale(channels, **section.model_dump(exclude={"name", "stem_init"}))
        case r.ResNetEncoder():
            return RESNETS[section.name](channels=channels, stem=section.stem)
        case r.ViTEncoder():
            return VITS[section.name](image_size=size, patch=section.patch, channels=channels)
        case r.TimmEncoder():
            return timm_backbone(section.model, channels=channels, pretrained=section.pretrained)
        case r.HuggingFaceEncoder():
            return hugging_face_backbone(section.model, pretrained=section.pretrained)


def predictor(recipe: r.Recipe) -> Predictor:
    """From s_x to the predicted s_y."""
    if recipe.predictor.name == "identity":
        return IdentityPredictor()
    hidden = recipe.predictor.hidden
    return MLPPredictor(recipe.projector.dim, hidden=None if hidden is None else tuple(hidden))


def pairing(recipe: r.Recipe) -> TwoViews:
    """How the recipe makes pairs."""
    section = recipe.pairing
    return two_views(
        augmentation(section.augment, recipe.data.kind or "image"),
        size=section.size,
        local=section.local,
        local_size=section.local_size,
        plain_size=section.plain_size,
    )


def augmentation(section: r.Augment, kind: str) -> Augmentation | VectorAugmentation:
    """The preset with the values that are set over it.

    Raises:
        UsageError: for a value that is out of bounds or does not apply to the kind of data.
    """
    given = section.model_dump(exclude={"preset"}, exclude_none=True)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    preset = section.preset or ("vector" if kind == "vector" else "photo")
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


def initialise(encoder: Encoder, section: r.EncoderSection | None, views: Tensor, *, seed: int) -> None:
    """What an encoder takes from the data before training: the filters of its stem, if the recipe says so.

    Args:
        encoder: changed in place.
        section: the recipe's section it was built from.
        views: plain views of training samples, not standardised.
        seed: of what is chosen at random.
    """
    if isinstance(section, r.ConvEncoder) and section.stem_init == "whitened":
        assert isinstance(encoder.backbone, nn.Sequential)
        network = encoder.backbone[1]
        assert isinstance(network, MultiScale)
        network.initialise_stem(encoder.backbone[0](views), seed=seed)


def placeholder(shape: list[int]) -> Standardize:
    """A standardisation of the right width whose numbers come from a checkpoint."""
    return Standardize(torch.zeros(shape[0]), torch.ones(shape[0]))


def standardization(views: Tensor) -> Standardize:
    """Mean and standard deviation per channel, or per column, of plain views of the training data."""
    return Standardize.fit(views)
