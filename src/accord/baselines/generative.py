r"""The rivals that make y itself: encoder of x, decoder, and a cost between what is made and the y that came.

A rival is a `JointEmbedding` whose encoder of y has no weights: s_y is y, standardised and flat. The predictor is a decoder, which makes
a y, or the numbers that a distribution of y takes (`Density`). All that works with the energy of a pair works with it: training,
probes of ``encoder_x.features``, retrieval, calibration, scores.

- pixel predictor: x -> y, squared error, which is a normal distribution of fixed width;
- auto-encoder: the same, trained to make x of x (`accord.restoring`); the energy of a pair is $\lVert y - \mathrm{dec}(\mathrm{enc}(x))
  \rVert^2 / D$: how far y is from the reconstruction of x;
- masked auto-encoder: the same with patches of x hidden while training;
- with z: what x does not tell is chosen by z, whatever the latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.density import Density
from accord.model.encoder import Encoder
from accord.model.energy import Cost, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Latent, counts
from accord.model.minimize import Minimizer
from accord.model.normalize import Standardize
from accord.model.predictor import IdentityPredictor, MLPPredictor, Predictor
from accord.objective.loss import Terms, free_energy

PERCEPTRON = 16
"""Images of up to so many pixels a side are made by a perceptron, larger ones by convolutions."""


class Values(nn.Module):
    """The numbers of y in a row; an image of another size is brought to the size first.

    Args:
        shape: of one y: (columns,) or (channel, height, width).
    """

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, y: Tensor) -> Float[Tensor, "batch dim"]:
        """(batch, *any size) to (batch, dim)."""
        if y.ndim == 4 and y.shape[2:] != self.shape[1:]:
            y = F.interpolate(y, size=self.shape[1:], mode="bilinear", align_corners=False, antialias=True)
        return y.flatten(1)


class UpsamplingDecoder(Predictor):
    """From (s_x, z, action) to maps of an image: a small image of many channels, enlarged twice and twice by convolutions.

    Upsampling and a convolution leave no checkerboards (Odena, Dumoulin, Olah 2016).

    Args:
        dim: width of s_x.
        shape: of the image (channel, height, width).
        latent_dim: width of z.
        action_dim: width of the action.
        maps: numbers for each value of the image: 1 for the image itself, 2 for mean and width, 2 C for a mixture.
        extra: numbers made beside the maps, which come first: the logits of a mixture.
        width: channels of the last hidden layer.
    """

    def __init__(
        self,
        dim: int,
        shape: Sequence[int],
        latent_dim: int = 0,
        *,
        action_dim: int = 0,
        maps: int = 1,
        extra: int = 0,
        width: int = 32,
    ):
        super().__init__()
        counts(dim=dim, maps=maps, width=width)
        channels, height, self.wide = shape
        self.high, self.maps, self.extra = height, maps, extra
        doublings = 0
        while max(height, self.wide) > 4 * 2**doublings and doublings < 4:
            doublings += 1
        self.start = (width * 2**doublings, -(-height // 2**doublings), -(-self.wide // 2**doublings))
        wide, least, across = self.start
        self.first = MLPPredictor(
            dim, latent_dim, action_dim=action_dim, hidden=(2 * dim,), out_dim=extra + wide * least * across
        )
        self.stages = nn.ModuleList(
            nn.Conv2d(width * 2 ** (doublings - k), width * 2 ** (doublings - k - 1), 3, padding=1)
            for k in range(doublings)
        )
        self.last = nn.Conv2d(width, maps * channels, 3, padding=1)

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Float[Tensor, "... dim"]:
        """(*samples, *batch, extra + maps * channel * height * width), map after map."""
        made: Tensor = self.first(s_x, z, action)
        axes = made.shape[:-1]
        extra, flat = made.flatten(0, -2).split([self.extra, made.shape[-1] - self.extra], -1)
        hidden = flat.view(-1, *self.start)
        for stage in self.stages:
            hidden = F.gelu(stage(F.interpolate(F.gelu(hidden), scale_factor=2.0, mode="nearest")))
        image = self.last(hidden)[..., : self.high, : self.wide]
        return torch.cat([extra, image.flatten(1)], -1).view(*axes, -1)


def generative(
    encoder_x: nn.Module,
    dim: int,
    shape: Sequence[int],
    *,
    standardize: Standardize | None = None,
    cost: Cost = squared_error,
    latent: Latent | None = None,
    minimizer: Minimizer | None = None,
    action_dim: int = 0,
    hidden: tuple[int, ...] | None = None,
) -> JointEmbedding:
    """A model that makes y of x: the encoder of x that other models have, and a decoder that suits y and cost.

    Args:
        encoder_x: its ``features`` are what probes read.
        dim: width of its embedding.
        shape: of one y: (columns,) or (channel, height, width).
        standardize: the first layer of the encoder of y; energies are in its units.
        cost: between what is made and y; a `Density` makes it a distribution.
        latent: what x does not tell, if anything.
        minimizer: how z is found.
        action_dim: width of the action.
        hidden: widths of the hidden layers of a decoder that is a perceptron: y is a vector, or an image of up to 16 pixels a side.

    Raises:
        UsageError: if the cost is a distribution of vectors of another width.

    Example:
        >>> model = generative(encoder, 256, (1, 8, 8), cost=GaussianDensity(64))
        >>> objective = Objective(model, likelihood(64))
    """
    size = torch.Size(shape).numel()
    if isinstance(cost, Density) and cost.dim != size:
        raise UsageError(
            f"{type(cost).__name__} is of {cost.dim} numbers, y of shape {tuple(shape)} has {size}",
            help=f"make it for {size}",
        )
    values = Values(shape)
    encoder_y = Encoder(values if standardize is None else nn.Sequential(standardize, values), sample_ndim=len(shape))
    width = latent.dim if latent is not None else 0
    made = decoder(dim, shape, cost, latent_dim=width, action_dim=action_dim, hidden=hidden)
    return JointEmbedding(encoder_x, encoder_y, made, cost=cost, latent=latent, minimizer=minimizer)


def decoder(
    dim: int,
    shape: Sequence[int],
    cost: Cost,
    *,
    latent_dim: int = 0,
    action_dim: int = 0,
    hidden: tuple[int, ...] | None = None,
) -> Predictor:
    """What makes the first argument of a cost of s_x, z and action; a cost that is conditioned on s_x itself needs nothing."""
    size = torch.Size(shape).numel()
    wanted = cost.width if isinstance(cost, Density) else size
    if isinstance(cost, Density) and cost.network:
        if latent_dim or action_dim:
            raise UsageError(
                f"{type(cost).__name__} is conditioned on s_x alone: there is no place for z or an action",
                where="latent.name",
                help="leave out the latent, and use pairs without an action",
                code="E216",
            )
        return IdentityPredictor()
    if len(shape) == 3 and max(shape[1:]) > PERCEPTRON:
        maps, extra = divmod(wanted, size)
        return UpsamplingDecoder(dim, shape, latent_dim, action_dim=action_dim, maps=maps, extra=extra)
    return MLPPredictor(dim, latent_dim, action_dim=action_dim, hidden=hidden, out_dim=wanted)


def likelihood(dim: int) -> Terms:
    """The one term of a distribution: the mean over the batch of F, divided by D, so that learning rates suit any y.

    F itself stays in nats of the whole y. A cost that is a mean over dimensions has ``likelihood(1)``.
    """
    counts(dim=dim)
    return {"free_energy": (1 / dim, free_energy)}
