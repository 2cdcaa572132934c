"""Encoders: a backbone whose features users read, and a projector whose embeddings carry the energy."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from accord.errors import UsageError


class Represented(NamedTuple):
    """Features (*batch, feature), before the projector, and embeddings (*batch, dim), after it."""

    features: Tensor
    embeddings: Tensor


class Branch(nn.Module, ABC):
    """One side of a joint embedding: from inputs to the features that users read, and to the embedding.

    Attributes:
        sample_ndim: axes of one sample, see `Encoder`.
    """

    sample_ndim: int | None

    @abstractmethod
    def features(self, x: Shaped[Tensor, "*batch _"]) -> Float[Tensor, "*batch feature"]:
        """What probes and users' embeddings read."""

    @abstractmethod
    def represent(self, x: Shaped[Tensor, "*batch _"]) -> Represented:
        """Features and embeddings in one pass."""

    def forward(self, x: Shaped[Tensor, "*batch _"]) -> Float[Tensor, "*batch dim"]:
        """The embedding s."""
        return self.represent(x).embeddings


class Encoder(Branch):
    """``features = backbone(x)``, ``embedding = projector(features)``.

    Args:
        backbone: maps (batch, *sample) to features (batch, feature).
        projector: maps features to embeddings (batch, dim); by default there is none and the embedding is the feature.
        sample_ndim: axes of one sample (3 for images, 1 for vectors). Axes before them are batch axes, and any number of
            them is allowed: several crops of one image are (crops, batch, channel, height, width). None means exactly one.
        feature_dim: how many of the numbers that the backbone makes are features; the others are for the projector alone, as the map
            of `WithMap` is. None means all.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module | None = None,
        *,
        sample_ndim: int | None = None,
        feature_dim: int | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.projector = nn.Identity() if projector is None else projector
        self.sample_ndim = sample_ndim
        self.feature_dim = feature_dim

    def features(self, x: Shaped[Tensor, "*batch _"]) -> Float[Tensor, "*batch feature"]:
        """What probes and users' embeddings read: the output of the backbone, before the projector.

        Raises:
            UsageError: if the backbone does not return one vector per sample.
        """
        return self._made(x)[..., : self.feature_dim]

    def represent(self, x: Shaped[Tensor, "*batch _"]) -> Represented:
        """Features and embeddings in one pass of the backbone.

        Raises:
            UsageError: as `features`.
        """
        made = self._made(x)
        return Represented(made[..., : self.feature_dim], self.embed(made))

    def _made(self, x: Tensor) -> Tensor:
        """The output of the backbone."""
        ndim = x.ndim - 1 if self.sample_ndim is None else self.sample_ndim
        batch = x.shape[: x.ndim - ndim]
        features: Tensor = self.backbone(x.reshape(math.prod(batch), *x.shape[x.ndim - ndim :]))
        if features.ndim != 2 or len(features) != math.prod(batch):
            raise UsageError(
                f"{type(self.backbone).__name__} must return (batch, feature), it made {tuple(features.shape)} of {tuple(x.shape)}",
                help="pool or flatten at its end; with several batch axes, give Encoder the sample_ndim",
            )
        return features.reshape(*batch, features.shape[-1])

    def embed(self, made: Float[Tensor, "*batch made"]) -> Float[Tensor, "*batch dim"]:
        """The embedding of what the backbone made: of the features, and of what comes after them."""
        if made.ndim == 2:
            plain: Tensor = self.projector(made)
            return plain
        embedding: Tensor = self.projector(made.reshape(math.prod(made.shape[:-1]), made.shape[-1]))
        return embedding.reshape(*made.shape[:-1], embedding.shape[-1])
