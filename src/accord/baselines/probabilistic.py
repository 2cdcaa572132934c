r"""The rivals that normalise: distributions of y given x, whose energy is $F(x, y) = -\log p(y \mid x)$ or a bound of it.

All energies here are in nats, summed over the D dimensions of the standardised y (divide by D for "nats per dimension"). In density
terms y is discrete, or constant, more often than not: pixels, classes, columns of zeros. There a density grows without bound and its
energy falls without end, so each distribution here has a least width, in units of y's standard deviation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import EnvironmentFault
from accord.model.density import Density, every_pair, full
from accord.model.latent import counts, positive

FLOOR = 0.05
"""Least standard deviation, in units of y's."""
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
RAISED = math.log(math.expm1(1.0))
"""softplus of it is 1: widths start at 1, that of y."""


class GaussianDensity(Density):
    r"""A normal distribution with a mean and a width for each dimension, both predicted.

    $-\log p = \frac12 \sum_j \left[(y_j - \mu_j)^2 / \sigma_j^2 + \log \sigma_j^2\right] + \frac D2 \log 2\pi$, with
    $\sigma = \sigma_0 + \mathrm{softplus}(\cdot)$. Nix, Weigend 1994.

    Args:
        dim: width D of y; it takes 2 D numbers, means first.
        floor: $\sigma_0$.
    """

    product = True

    def __init__(self, dim: int, *, floor: float = FLOOR):
        super().__init__()
        counts(dim=dim)
        positive(floor=floor)
        self.dim, self.width, self.numbers, self.floor = dim, 2 * dim, 2 * dim, floor

    def moments(self, theta: Float[Tensor, "*a width"]) -> tuple[Float[Tensor, "*a dim"], Float[Tensor, "*a dim"]]:
        """Means and standard deviations."""
        mean, raw = full(theta).chunk(2, -1)
        return mean, _width(raw, self.floor)

    def forward(self, theta: Tensor, s_y: Tensor) -> Tensor:
        """Nats; all with all as a matrix product."""
        return _normal(*self.moments(theta), full(s_y))

    def point(self, theta: Tensor) -> Tensor:
        """The mean."""
        return self.moments(theta)[0]

    def sample(self, theta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean plus noise."""
        mean, scale = self.moments(theta)
        return mean + scale * noise_like(mean, generator)


class CommonWidthGaussian(Density):
    r"""A normal distribution whose mean is predicted and whose widths are learned, one for each dimension, the same for every x.

    As a cost of a `Gaussian` latent with a `Variational` minimiser it makes a conditional variational auto-encoder, with the widths
    calibrated by the data (Rybkin, Daniilidis, Levine 2021, arXiv:2006.13202) rather than chosen.

    Args:
        dim: width D of y, and how many numbers it takes.
        floor: least standard deviation.
    """

    product = True
    located = True

    def __init__(self, dim: int, *, floor: float = FLOOR):
        super().__init__()
        counts(dim=dim)
        positive(floor=floor)
        self.dim, self.width, self.numbers, self.floor = dim, dim, dim, floor
        self.raw = nn.Parameter(torch.full((dim,), RAISED))

    @property
    def scale(self) -> Float[Tensor, "dim"]:
        """Standard deviations."""
        return self.floor + F.softplus(full(self.raw))

    def forward(self, theta: Tensor, s_y: Tensor) -> Tensor:
        """Nats; all with all as a matrix product."""
        return _normal(full(theta), self.scale, full(s_y))

    def point(self, theta: Tensor) -> Tensor:
        """The mean: theta itself."""
        return theta

    def sample(self, theta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean plus noise."""
        return full(theta) + self.scale * noise_like(full(theta), generator)


class MixtureDensity(Density):
    r"""A mixture of C normal distributions: $-\log p = -\log \sum_c \pi_c\, \mathcal N(y; \mu_c, \mathrm{diag}\,\sigma_c^2)$.

    Bishop 1994, "Mixture Density Networks". Means are predicted as differences from learned centres, which start at random places:
    else all components would begin, and many stay, as one.

    Args:
        dim: width D of y; it takes C (2 D + 1) numbers: logits of the shares, means, widths.
        components: C.
        floor: least standard deviation.
    """

    product = True

    def __init__(self, dim: int, *, components: int = 16, floor: float = FLOOR):
        super().__init__()
        counts(dim=dim, components=components)
        positive(floor=floor)
        self.dim, self.width, self.parts = dim, components * (2 * dim + 1), components
        self.numbers, self.floor = 2 * components * dim, floor
        self.centre = nn.Parameter(torch.randn(components, dim))

    def mixture(self, theta: Float[Tensor, "*a width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Log shares (*a, C), means and standard deviations (*a, C, dim)."""
        logits, mean, raw = full(theta).split([self.parts, self.parts * self.dim, self.parts * self.dim], -1)
        mean, raw = (t.unflatten(-1, (self.parts, self.dim)) for t in (mean, raw))
        return logits.log_softmax(-1), self.centre + mean, _width(raw, self.floor)

    def forward(self, theta: Tensor, s_y: Tensor) -> Tensor:
        """Nats; all with all as a matrix product."""
        log_share, mean, scale = self.mixture(theta)
        s_y = full(s_y)
        if not every_pair(theta, s_y):
            return -torch.logsumexp(log_share - _normal(mean, scale, s_y[..., None, :]), -1)
        nats = _normal(mean.movedim(-2, -4), scale.movedim(-2, -4), s_y)  # (..., C, n, m)
        return -torch.logsumexp(log_share.movedim(-1, -3) - nats, -3)

    def point(self, theta: Tensor) -> Tensor:
        """The mean of the component with the largest share."""
        log_share, mean, _ = self.mixture(theta)
        return _taken(mean, log_share.argmax(-1))

    def sample(self, theta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A component by its share, its mean plus noise."""
        log_share, mean, scale = self.mixture(theta)
        flat = log_share.exp().flatten(0, -2)
        which = torch.multinomial(flat, 1, generator=generator).view(log_share.shape[:-1])
        mean, scale = _taken(mean, which), _taken(scale, which)
        return mean + scale * noise_like(mean, generator)


class FlowDensity(Density):
    r"""A normalising flow: $-\log p(y \mid x) = -\log \mathcal N(f(y; s_x); 0, 1) - \log |\det \partial f / \partial y|$, exact.

    f is a chain of autoregressive rational-quadratic splines (Durkan, Bekasov, Murray, Papamakarios 2019, arXiv:1906.04032), those of
    the library zuko. While training y has noise of standard deviation `floor`, so that what is learned is a density.

    Args:
        dim: width D of y.
        given: width of what it is conditioned on, s_x.
        transforms: length of the chain.
        bins: of each spline.
        hidden: widths of the hidden layers of each transform.
        floor: standard deviation of the noise.

    Raises:
        EnvironmentFault: without zuko, which ``pip install 'accord[flows]'`` brings.
    """

    network = True

    def __init__(
        self,
        dim: int,
        given: int,
        *,
        transforms: int = 3,
        bins: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        floor: float = FLOOR,
    ):
        super().__init__()
        counts(dim=dim, given=given, transforms=transforms, bins=bins)
        positive(floor=floor)
        self.dim, self.width, self.floor = dim, given, floor
        self.numbers = given + dim * 8 * bins + 2 * sum(hidden)
        spline_flow = _zuko()
        self.flow = spline_flow(dim, given, transforms=transforms, bins=bins, hidden_features=hidden)

    def forward(self, theta: Tensor, s_y: Tensor) -> Tensor:
        """Nats; in training mode those of y with noise."""
        theta, s_y = full(theta), full(s_y)
        if self.training:
            s_y = s_y + self.floor * torch.randn_like(s_y)
        shape = torch.broadcast_shapes(theta.shape[:-1], s_y.shape[:-1])
        with torch.autocast(s_y.device.type, enabled=False):
            log_p: Tensor = self.flow(theta.expand(*shape, -1)).log_prob(s_y.expand(*shape, -1))
        return -log_p

    def point(self, theta: Tensor) -> Tensor:
        """What the flow makes of the middle of the normal distribution."""
        return self._made(theta, torch.zeros_like(full(theta)[..., :1]).expand(*theta.shape[:-1], self.dim))

    def sample(self, theta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What it makes of noise, dimension after dimension."""
        return self._made(theta, noise_like(full(theta)[..., :1].expand(*theta.shape[:-1], self.dim), generator))

    def _made(self, theta: Tensor, noise: Tensor) -> Tensor:
        made: Tensor = self.flow(full(theta)).transform.inv(noise)
        return made


def _zuko() -> type[nn.Module]:
    try:
        from zuko.flows import NSF
    except ImportError:
        raise EnvironmentFault(
            "a normalising flow needs the package zuko, which is not installed",
            help="pip install 'accord[flows]'",
            code="E520",
        ) from None
    found: type[nn.Module] = NSF
    return found


# --- what they share ---


def _width(raw: Tensor, floor: float) -> Tensor:
    """Standard deviations above the floor; about 1 where `raw` is 0."""
    return floor + F.softplus(raw + RAISED)


def _normal(
    mean: Float[Tensor, "*a dim"], scale: Float[Tensor, "*s dim"], y: Float[Tensor, "*b dim"]
) -> Float[Tensor, "*c"]:
    """-log N(y; mean, scale^2), sum over dimensions."""
    constant = scale.log().sum(-1) + mean.shape[-1] * HALF_LOG_TAU
    if every_pair(mean, y):
        squares = _squares(mean.squeeze(-2), scale.squeeze(-2) if scale.ndim > 1 else scale, y.squeeze(0))
        return squares / 2 + constant
    return ((y - mean) / scale).square().sum(-1) / 2 + constant


def _squares(
    mean: Float[Tensor, "*c n dim"], scale: Float[Tensor, "*s dim"], y: Float[Tensor, "m dim"]
) -> Float[Tensor, "*c n m"]:
    r"""$\sum_j (y_j - \mu_j)^2 / \sigma_j^2$ of all with all as a matrix product, in float64: narrow widths make large numbers."""
    kind = mean.dtype
    precise = kind if mean.device.type == "mps" else torch.float64
    mean, scale, y = mean.to(precise), scale.to(precise), y.to(precise)
    precision = scale.square().reciprocal().expand_as(mean)
    left = torch.cat([precision, -2 * precision * mean], -1)
    with torch.autocast(mean.device.type, enabled=False):
        cross = left @ torch.cat([y.square(), y], -1).mT
    return (cross + (precision * mean.square()).sum(-1, keepdim=True)).clamp_min(0).to(kind)


def _taken(values: Float[Tensor, "*a k dim"], which: Tensor) -> Float[Tensor, "*a dim"]:
    place = which[..., None, None].expand(*which.shape, 1, values.shape[-1])
    return values.gather(-2, place).squeeze(-2)


def noise_like(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal, drawn where the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
