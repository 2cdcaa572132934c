"""The part of a recipe that says what encodes x and y."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accord.recipe_base import Count, Fraction, Section


class ConvEncoder(Section):
    """The default for images on a CPU: few wide convolutions at low resolution, pooled at every scale."""

    name: Literal["multiscale"]
    stem_width: Count = 64
    stem_kernel: Count = 6
    stem_stride: Count = 2
    stem_init: Literal["whitened", "random"] = "whitened"
    widths: list[Count] = Field(default=[128, 256])
    blocks: list[Annotated[int, Field(ge=0)]] = Field(default=[1, 1])
    pool_grids: list[Annotated[int, Field(ge=0)]] = Field(default=[2, 2, 1])


class ResNetEncoder(Section):
    """He et al. 2016, arXiv:1512.03385; the small stem is for images up to 64 pixels."""

    name: Literal["resnet18", "resnet34", "resnet50"]
    stem: Literal["small", "standard"] = "small"


class ViTEncoder(Section):
    """Dosovitskiy et al. 2021, arXiv:2010.11929."""

    name: Literal["vit_tiny", "vit_small", "vit_base"]
    patch: Count = 4


class OwnViTEncoder(Section):
    """A vision transformer of a size of your own: small enough for a CPU."""

    name: Literal["vit"]
    patch: Count = 4
    width: Count = 96
    depth: Count = 4
    heads: Count = 3


class MLPEncoder(Section):
    """For vectors."""

    name: Literal["mlp"]
    hidden: list[Count] = Field(default=[512, 512])


class TimmEncoder(Section):
    """A backbone of the timm library by its name there."""

    name: Literal["timm"]
    model: str
    pretrained: bool = False


class HuggingFaceEncoder(Section):
    """A model of the transformers library for images or texts: a folder, or its name in the local cache. sha256 is that of its files."""

    name: Literal["hf"]
    model: str
    pretrained: bool = False
    frozen: bool = False
    sha256: str | None = None


class TabularEncoder(Section):
    """For vectors with categories or missing values: each column has an embedding of its own (Gorishniy et al. 2022, arXiv:2203.05556)."""

    name: Literal["tabular"]
    width: Count = 16
    hidden: list[Count] = Field(default=[256, 256])


class Conv1dEncoder(Section):
    """For series and sound: residual dilated convolutions (Bai, Kolter, Koltun 2018, arXiv:1803.01271), not causal."""

    name: Literal["conv1d"]
    width: Count = 64
    blocks: Count = 4
    kernel: Count = 5
    stride: Count = 1
    halve: bool = False


class PatchTransformerEncoder(Section):
    """For series and sound: a transformer over patches of steps (Nie et al. 2023, arXiv:2211.14730)."""

    name: Literal["patch_transformer"]
    patch: Count = 8
    width: Count = 128
    depth: Count = 4
    heads: Count = 4


class TextNGramsEncoder(Section):
    """For texts: the mean of embeddings of hashed n-grams of bytes, then an MLP (Bojanowski et al. 2017, arXiv:1607.04606)."""

    name: Literal["text_ngrams"]
    sizes: list[Count] = Field(default=[1, 2, 3, 4, 5])
    buckets: Count = 16384
    width: Count = 128
    hidden: list[Count] = Field(default=[256])


class TextTransformerEncoder(Section):
    """For texts: a transformer over bytes."""

    name: Literal["text_transformer"]
    width: Count = 128
    depth: Count = 4
    heads: Count = 4


class IdentityEncoder(Section):
    """For vectors and series: the embedding is the standardised numbers themselves, without weights; projector.dim is how many."""

    name: Literal["identity"]


EncoderSection = Annotated[
    ConvEncoder
    | ResNetEncoder
    | ViTEncoder
    | OwnViTEncoder
    | MLPEncoder
    | TabularEncoder
    | Conv1dEncoder
    | PatchTransformerEncoder
    | TextNGramsEncoder
    | TextTransformerEncoder
    | IdentityEncoder
    | TimmEncoder
    | HuggingFaceEncoder,
    Field(discriminator="name"),
]


class MovingAverage(Section):
    """A copy of the encoder of x that follows it, with a momentum at first and in the end (Grill et al. 2020, arXiv:2006.07733)."""

    name: Literal["moving_average"]
    momentum: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(default=[0.996, 1.0])


class StopGradient(Section):
    """The encoder of x itself, without gradient (Chen, He 2021, arXiv:2011.10566)."""

    name: Literal["stop_gradient"]


EncoderYSection = Annotated[
    ConvEncoder
    | ResNetEncoder
    | ViTEncoder
    | OwnViTEncoder
    | MLPEncoder
    | TabularEncoder
    | Conv1dEncoder
    | PatchTransformerEncoder
    | TextNGramsEncoder
    | TextTransformerEncoder
    | IdentityEncoder
    | TimmEncoder
    | HuggingFaceEncoder
    | MovingAverage
    | StopGradient,
    Field(discriminator="name"),
]
