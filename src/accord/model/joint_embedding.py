"""Two encoders, a predictor in representation space and a latent: the model that maps a pair to its energy."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from accord.model.centred import CentredDivergence
from accord.model.encoder import Branch, Encoder
from accord.model.energy import Cost, Energy, squared_error
from accord.model.latent import Deterministic, Latent
from accord.model.minimize import Enumerate, Minimizer, Minimum
from accord.model.predictor import Predictor


class JointEmbedding(nn.Module):
    """The regularized latent-variable energy-based model with joint embedding.

    ``energy = model(x, y)`` is a function of z; ``f, z = model.minimizer(energy)`` is the free energy and the z that attains it.

    Args:
        encoder_x: encoder of x; a module that is not an `Encoder` is wrapped in one, without projector.
        encoder_y: encoder of y; the same object shares its weights. A teacher of the encoder of x is one: `MovingAverage`, `StopGradient`.
        predictor: maps (s_x, z, action) to the predicted s_y.
        cost: divergence D in representation space, (..., dim) x (..., dim) -> (...).
        latent: what z is.
        minimizer: how z is found.

    Architecture: LeCun 2022, "A Path Towards Autonomous Machine Intelligence", section 4.4, figure 12.
    """

    def __init__(
        self,
        encoder_x: nn.Module,
        encoder_y: nn.Module,
        predictor: Predictor,
        *,
        cost: Cost = squared_error,
        latent: Latent | None = None,
        minimizer: Minimizer | None = None,
    ):
        super().__init__()
        shared = encoder_x is encoder_y
        self.encoder_x = encoder_x if isinstance(encoder_x, Branch) else Encoder(encoder_x)
        if shared:
            self.encoder_y = self.encoder_x
        else:
            self.encoder_y = encoder_y if isinstance(encoder_y, Branch) else Encoder(encoder_y)
        self.predictor = predictor
        self.cost = cost
        self.latent = Deterministic() if latent is None else latent
        self.minimizer = Enumerate() if minimizer is None else minimizer

    @property
    def takes_y_as_it_is(self) -> bool:
        """Whether y has an encoder of its own without weights: its embeddings are data, and nothing of them can collapse."""
        return self.encoder_y is not self.encoder_x and next(self.encoder_y.parameters(), None) is None

    def forward(
        self, x: Shaped[Tensor, "*batch _"], y: Shaped[Tensor, "*batch _"], action: Tensor | None = None
    ) -> Energy:
        """The energy of each pair, as a function of z."""
        return self.energy(self.encoder_x(x), self.encoder_y(y), action)

    def energy(self, s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Energy:
        """The energy of embeddings that are at hand, (*batch, dim) each: for corpora that are encoded once."""
        return Energy(s_x, s_y, predictor=self.predictor, cost=self.cost, latent=self.latent, action=action)

    def observe(self, energy: Energy, minimum: Minimum) -> None:
        """Told of each training batch: a latent looks after codes nobody uses, a cost keeps the centre of what it compares."""
        self.latent.observe(minimum.argmin)
        if isinstance(self.cost, CentredDivergence):
            self.cost.observe(energy.s_y)

    @torch.no_grad()
    def free_energy(self, x: Tensor, y: Tensor, action: Tensor | None = None) -> Tensor:
        """F(x, y), (*batch,), without gradient: what scores and rankings read."""
        value: Tensor = self.minimizer(self(x, y, action)).value
        return value
