"""Encoders from a recipe: what stands before the backbone, the backbone that suits the kind of data, and the projector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from accord import recipe as r
from accord import recipe_encoder as e
from accord.data.values import Kind
from accord.errors import UsageError
from accord.model.audio import LogMel
from accord.model.encoder import Branch, Encoder
from accord.model.external import hugging_face_backbone, timm_backbone
from accord.model.external_text import hugging_face_text
from accord.model.feature_map import Mapped, WithMap
from accord.model.foreign import identity
from accord.model.mlp import MLP
from accord.model.multiscale import MultiScale
from accord.model.normalize import MeanForMissing, Standardize
from accord.model.projector import LocalProjector, Projector, Prototypes
from accord.model.resnet import resnet18, resnet34, resnet50
from accord.model.series import SeriesConv, SeriesTransformer
from accord.model.tabular import Tabular
from accord.model.teacher import MovingAverage
from accord.model.text import ByteNGrams, ByteTransformer
from accord.model.vit import ViT, vit_base, vit_small, vit_tiny
from accord.recipe_base import Section

RESNETS = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
VITS = {"vit_tiny": vit_tiny, "vit_small": vit_small, "vit_base": vit_base}
AnySection = TypeVar("AnySection", bound=Section)
Shape = tuple[int, ...]
"""Of one x or y, without the batch."""
NDIM: dict[Kind, int] = {"image": 3, "vector": 1, "series": 2, "audio": 2, "text": 1}
SUITS: dict[Kind, str] = {
    "image": "an image encoder",
    "vector": "mlp or tabular",
    "series": "conv1d or patch_transformer",
    "audio": "conv1d or patch_transformer",
    "text": "text_ngrams, text_transformer or hf",
}
"""Encoders by kind, in words."""


class Form(NamedTuple):
    """What one side of the data is: kind and shape as stored, categories of the columns of a vector, rate of audio, whether its numbers
    have one unit, whether bands of audio are centred, and whether its loudness is taken off.
    """

    kind: Kind
    shape: Shape
    categories: tuple[tuple[str, ...], ...] = ()
    rate: int = 0
    one_unit: bool = False
    centre: bool = False
    level: bool = False


def form_of(recipe: r.Recipe, side: Literal["x", "y"]) -> Form:
    """What x, or y, is made of: a side of a table, or the one kind of sample that both are views or parts of."""
    data = recipe.data
    part = data.x if side == "x" else data.y
    if data.kind != "pair":
        assert data.kind is not None and data.shape is not None, "the recipe is not resolved"
        only = data.x or data.y
        categories = () if only is None else _categories(only)
        rate = data.rate or (0 if only is None else only.rate or 0)
        one_unit, centre = only is not None and only.unit == "side", data.centre or (only is not None and only.centre)
        level = bool(data.level) if only is None else bool(only.level) and data.level is not False
        return Form(data.kind, tuple(data.shape), categories, rate, one_unit, centre, level)
    assert part is not None and part.kind is not None and part.shape is not None, "the recipe is not resolved"
    one_unit = part.unit == "side"
    return Form(
        part.kind, tuple(part.shape), _categories(part), part.rate or 0, one_unit, part.centre, bool(part.level)
    )


def _categories(side: r.TableSide) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, side.categories or ()))


def front(form: Form, views: Tensor, *, fitted: bool) -> nn.Module:
    """What stands before the backbone: standardisation per channel or column, before it the log-mel energies of sound; none for text.

    Args:
        form: of the data.
        views: plain views of training samples, not standardised.
        fitted: take mean and standard deviation from them; otherwise they give the width alone, and a checkpoint gives the numbers.
    """
    if form.kind == "text":
        return nn.Identity()
    if form.kind == "audio":
        mels = LogMel(form.rate, level=form.level, centre=form.centre)
        with torch.no_grad():
            frames = mels(views)
        return nn.Sequential(
            mels, Standardize.fit(frames, one_unit=form.one_unit) if fitted else placeholder(frames.shape[2:])
        )
    if not fitted:
        return placeholder(views.shape[2:] if views.ndim == 3 else views.shape[1:])
    same = len(form.categories) == views.shape[1] and form.kind == "vector"
    kept = [i for i, names in enumerate(form.categories) if names] if same else []
    return Standardize.fit(views, kept=kept, one_unit=form.one_unit)


def placeholder(shape: Sequence[int]) -> Standardize:
    """A standardisation of the right width whose numbers come from a checkpoint."""
    return Standardize(torch.zeros(shape[0]), torch.ones(shape[0]))


def encoder(
    recipe: r.Recipe, section: e.EncoderSection, first: nn.Module, form: Form, shape: Shape, *, plain: bool = False
) -> Encoder:
    """What stands before it, backbone and projector, for inputs of this shape; `plain`: nothing of them is ever hidden."""
    if recipe.projector.grid is not None:
        return _with_map(recipe, section, first, form, shape)
    if isinstance(section, e.IdentityEncoder):
        return _identity(recipe, first, form, shape)
    network, width = backbone(section, recipe, form, shape, plain=plain)
    return Encoder(nn.Sequential(first, network), _projector(recipe, width), sample_ndim=NDIM[form.kind])


def _with_map(recipe: r.Recipe, section: e.EncoderSection, first: nn.Module, form: Form, shape: Shape) -> Encoder:
    """An encoder whose embedding has a part for each cell of a grid."""
    known = not isinstance(section, e.IdentityEncoder) and not isinstance(recipe.pairing, r.MaskedBlocks)
    network = backbone(section, recipe, form, shape)[0] if known else None
    if not isinstance(network, Mapped):
        raise UsageError(
            f"{recipe.objective.name} matches positions of images, and the encoder {section.name!r} of {form.kind} data has no map of them"
            if known or isinstance(section, e.IdentityEncoder)
            else f"{recipe.objective.name} matches positions of images, which the pairing 'masked_blocks' hides",
            where="objective.name",
            help=f"use vicreg{', or an encoder of images with a map: multiscale, resnet18, vit' if form.kind == 'image' else ''}",
            code="E210",
        )
    grid, width, hidden = recipe.projector.grid, recipe.projector.local_dim, tuple(recipe.projector.hidden)
    assert grid is not None and width is not None, "the recipe is not valid"
    whole = Projector(network.feature_dim, recipe.projector.dim, hidden=hidden)
    local = Projector(network.map_dim, width, hidden=hidden)
    return Encoder(
        nn.Sequential(first, WithMap(network, grid)),
        LocalProjector(whole, local, positions=grid**2),
        sample_ndim=NDIM[form.kind],
        feature_dim=network.feature_dim,
    )


def _projector(recipe: r.Recipe, width: int) -> nn.Module:
    """From features of this width to embeddings."""
    section, hidden = recipe.projector, tuple(recipe.projector.hidden)
    if section.bottleneck is not None:
        bottleneck = Projector(width, section.bottleneck, hidden=hidden)
        return nn.Sequential(bottleneck, Prototypes(section.bottleneck, section.dim))
    name = recipe.objective.name
    return Projector(width, section.dim, hidden=hidden, final_norm=name == "barlow_twins", rectified=name == "rdmreg")


def _identity(recipe: r.Recipe, first: nn.Module, form: Form, shape: Shape) -> Encoder:
    """The standardised numbers themselves as embedding."""
    numbers = form.kind in ("vector", "series")
    if not numbers or math.prod(shape) != recipe.projector.dim:
        raise UsageError(
            f"the encoder 'identity' makes embeddings of shape {shape}, but projector.dim is {recipe.projector.dim}",
            where="projector.dim",
            help=f"set projector.dim to {math.prod(shape)}"
            if numbers
            else "it is for vectors and series: use another encoder, or a principle that encodes y",
            code="E215",
        )
    flat = nn.Identity() if form.kind == "vector" else nn.Flatten()
    return Encoder(nn.Sequential(first, MeanForMissing(), flat), sample_ndim=NDIM[form.kind])


def backbone(
    section: e.EncoderSection, recipe: r.Recipe, form: Form, shape: Shape, *, plain: bool = False
) -> tuple[nn.Module, int]:
    """A backbone by name and the width of its features.

    Raises:
        UsageError: if it does not fit the kind of data, or the size or patches of the views.
    """
    if not suits(section, form.kind):
        raise UsageError(
            f"encoder {section.name!r} does not fit {form.kind} data",
            where="encoder.name",
            help=f"use {SUITS[form.kind]}",
            code="E210",
        )
    masks = recipe.pairing if isinstance(recipe.pairing, r.MaskedBlocks) and not plain else None
    if masks is not None and isinstance(section, e.ViTEncoder | e.OwnViTEncoder) and masks.patch % section.patch:
        raise UsageError(
            f"the encoder's patches of {section.patch} pixels do not divide the hidden ones of {masks.patch}",
            where="encoder.patch",
            help=f"set encoder.patch and pairing.patch to the same, for example {masks.patch}",
            code="E212",
        )
    match form.kind:
        case "image":
            network = _image_backbone(section, shape, masked=masks is not None)
        case "text":
            network = _text_backbone(section, shape[0])
        case _:
            network = _backbone(section, recipe, form, shape)
    return network, int(network.feature_dim)  # type: ignore[arg-type]


def suits(section: e.EncoderSection, kind: Kind) -> bool:
    """Whether an encoder takes this kind of data."""
    match section:
        case e.MLPEncoder() | e.TabularEncoder():
            return kind == "vector"
        case e.Conv1dEncoder() | e.PatchTransformerEncoder():
            return kind in ("series", "audio")
        case e.TextNGramsEncoder() | e.TextTransformerEncoder():
            return kind == "text"
        case e.IdentityEncoder():
            return kind in ("vector", "series")
        case e.HuggingFaceEncoder():
            return kind in ("image", "text")
        case _:
            return kind == "image"


def _backbone(section: e.EncoderSection, recipe: r.Recipe, form: Form, shape: Shape) -> nn.Module:
    """Of everything but images and texts."""
    match section:
        case e.MLPEncoder():
            if isinstance(recipe.pairing, r.Masked):
                raise UsageError(
                    "the encoder 'mlp' takes every column, and the pairing 'masked' hides some",
                    where="encoder.name",
                    help="use tabular",
                    code="E210",
                )
            if any(form.categories):
                raise UsageError(
                    "the encoder 'mlp' takes numbers, and some columns are categories",
                    where="encoder.name",
                    help="use tabular",
                    code="E210",
                )
            return MLP(shape[0], tuple(section.hidden))
        case e.TabularEncoder():
            counts = [len(names) for names in form.categories] if len(form.categories) == shape[0] else []
            return Tabular(shape[0], categories=counts, width=section.width, hidden=tuple(section.hidden))
    steps, channels = shape
    if form.kind == "audio":
        mels = LogMel(form.rate)
        steps, channels = 1 + max(0, steps - mels.window) // mels.hop, mels.mels
    match section:
        case e.Conv1dEncoder():
            return SeriesConv(channels, **section.model_dump(exclude={"name"}))
        case e.PatchTransformerEncoder():
            return SeriesTransformer(channels, steps, **section.model_dump(exclude={"name"}))
    raise AssertionError(f"{section.name} has no backbone")


def _text_backbone(section: e.EncoderSection, length: int) -> nn.Module:
    """Of texts of at most so many bytes."""
    match section:
        case e.TextNGramsEncoder():
            hidden, sizes = tuple(section.hidden), tuple(section.sizes)
            return ByteNGrams(sizes=sizes, buckets=section.buckets, width=section.width, hidden=hidden)
        case e.TextTransformerEncoder():
            return ByteTransformer(length, width=section.width, depth=section.depth, heads=section.heads)
        case e.HuggingFaceEncoder():
            return hugging_face_text(length=length, **_of_hugging_face(section))
    raise AssertionError(f"{section.name} takes no texts")


def _image_backbone(section: e.EncoderSection, shape: Shape, *, masked: bool) -> nn.Module:
    """Of images."""
    channels = shape[0]
    match section:
        case e.ConvEncoder():
            return MultiScale(channels, **section.model_dump(exclude={"name", "stem_init"}))
        case e.ResNetEncoder():
            return RESNETS[section.name](channels=channels, stem=section.stem)
        case e.ViTEncoder() | e.OwnViTEncoder():
            return _transformer(section, shape, masked=masked)
        case e.TimmEncoder():
            return timm_backbone(section.model, channels=channels, pretrained=section.pretrained)
        case e.HuggingFaceEncoder():
            return hugging_face_backbone(**_of_hugging_face(section))
    raise AssertionError(f"{section.name} takes no images")


def _of_hugging_face(section: e.HuggingFaceEncoder) -> dict[str, Any]:
    return {"name": section.model, **section.model_dump(include={"pretrained", "frozen", "sha256"})}


def identified(section: AnySection) -> AnySection:
    """The section with the sha256 of what it takes from files, unless it has one: a run that is opened again has to find the same."""
    if not isinstance(section, e.HuggingFaceEncoder) or section.sha256 is not None:
        return section
    return section.model_copy(update={"sha256": identity(section.model, pretrained=section.pretrained)})


def _transformer(section: e.ViTEncoder | e.OwnViTEncoder, shape: Shape, *, masked: bool) -> ViT:
    channels, size = shape[0] - masked, (shape[1], shape[2])
    if isinstance(section, e.ViTEncoder):
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


def initialise(encoder: Branch, section: e.EncoderYSection | None, views: Tensor, *, seed: int) -> None:
    """What an encoder takes from the data before training: the filters of its stem, if the recipe says so, or those of its student.

    Args:
        encoder: changed in place.
        section: the recipe's section it was built from.
        views: plain views of training samples, not standardised.
        seed: of what is chosen at random.
    """
    if isinstance(encoder, MovingAverage):
        encoder.restart()
    elif isinstance(section, e.ConvEncoder) and section.stem_init == "whitened":
        assert isinstance(encoder, Encoder)
        assert isinstance(encoder.backbone, nn.Sequential)
        network = encoder.backbone[1]
        network = network.backbone if isinstance(network, WithMap) else network
        assert isinstance(network, MultiScale)
        network.initialise_stem(encoder.backbone[0](views), seed=seed)
