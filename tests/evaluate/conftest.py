"""Small models and pairings whose energies are known, and the digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from accord.data.augment import Augmentation
from accord.data.pair import Pair
from accord.data.pairing import Pairing, two_views
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.model.encoder import Encoder
from accord.model.energy import Cost, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Latent
from accord.model.predictor import IdentityPredictor, Predictor


class Noisy(Pairing):
    """x is the sample itself, y the sample plus noise."""

    def __init__(self, noise: float = 0.1):
        self.noise = noise

    def __call__(self, batch: torch.Tensor, draws: Draws, aspect: torch.Tensor | None = None) -> Pair:
        return Pair(batch, batch + self.noise * draws.normal("noise", *batch.shape[1:]))

    def plain(self, batch: torch.Tensor, aspect: torch.Tensor | None = None) -> torch.Tensor:
        return batch


class Codes(Latent):
    """Three codes, of different price."""

    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dim = 2
        self.register_buffer("table", torch.tensor([[0.0, 0.0], [1.0, 0.5], [-0.5, 2.0]]))

    def price(self, z: torch.Tensor, s_x: torch.Tensor) -> torch.Tensor:
        return 1e-3 * z.abs().sum(-1)

    def sample(
        self, shape: tuple[int, ...], s_x: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return self.table[torch.randint(3, shape, generator=generator)]

    def candidates(self) -> torch.Tensor:
        return self.table


@pytest.fixture
def noisy() -> type[Noisy]:
    return Noisy


@pytest.fixture
def codes() -> Codes:
    return Codes()


@pytest.fixture
def build() -> Callable[..., JointEmbedding]:
    """``build()``: vectors embedded as they are, energy = mean squared difference."""

    def made(
        backbone: nn.Module | None = None,
        *,
        cost: Cost = squared_error,
        predictor: Predictor | None = None,
        latent: Latent | None = None,
    ) -> JointEmbedding:
        encoder = Encoder(backbone or nn.Identity())
        return JointEmbedding(encoder, encoder, predictor or IdentityPredictor(), cost=cost, latent=latent)

    return made


@pytest.fixture
def vectors() -> Samples:
    rng = np.random.default_rng(0)
    label = np.arange(120) % 3
    return open_source({"x": (rng.normal(size=(120, 6)) + 2 * label[:, None]).astype(np.float32), "label": label})


@pytest.fixture(scope="session")
def digits() -> Samples:
    return open_source("digits")


@pytest.fixture(scope="session")
def views() -> Pairing:
    return two_views(Augmentation(shift=0.04, noise=0.05))


@pytest.fixture(scope="session")
def digit_model() -> JointEmbedding:
    """An untrained network that nevertheless tells digits apart."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.5)
    )
    encoder = Encoder(backbone, nn.Linear(256, 24), sample_ndim=3)
    return JointEmbedding(encoder, encoder, IdentityPredictor())
