r"""Latents that are vectors of numbers, each with what limits its information: a prior, noise, few dimensions, or few nonzeros.

The four classes are those of LeCun 2022, "A Path Towards Autonomous Machine Intelligence", section 4.5; the prior of a sequence is an
autoregressive process.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from accord.errors import UsageError
from accord.model.latent import Latent, counts, not_negative, positive


class Gaussian(Latent):
    r"""z with a standard normal prior: $r(z) = \frac12 \lVert z \rVert^2$ nats, up to a constant.

    With `Variational` the price of a pair is the KL divergence of its posterior; with a search, that of the best z (MAP).

    Args:
        dim: width of z.
        weight: energy of a nat; in a $\beta$-VAE's terms this is the weight of the KL, and $1/\beta$ of the free energy.
    """

    reference: Tensor

    def __init__(self, dim: int, *, weight: float = 0.1):
        super().__init__()
        counts(dim=dim)
        not_negative(weight=weight)
        self.dim, self.weight = dim, weight
        self.register_buffer("reference", torch.zeros(()), persistent=False)

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        """Half the squared length."""
        return 0.5 * z.square().sum(-1)

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal."""
        return _draw(torch.randn, (*shape, self.dim), generator, self.reference)

    def divergence(
        self, mean: Float[Tensor, "*batch latent"], log_variance: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch"]:
        r"""$\mathrm{KL}(\mathcal N(\mu, \sigma^2) \,\Vert\, \mathcal N(0, 1))$ in nats, sum over dimensions."""
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


class Noisy(Latent):
    r"""A channel with noise: z of length at most $\sqrt d$ is free, but arrives as $z + \sigma\varepsilon$ while training.

    The noise limits the information to $\frac d2 \log(1 + 1/\sigma^2)$ nats (Shannon 1948). In evaluation mode nothing is added.

    Args:
        dim: width d of z.
        noise: its standard deviation $\sigma$.
    """

    reference: Tensor

    def __init__(self, dim: int, *, noise: float = 1.0):
        super().__init__()
        counts(dim=dim)
        positive(noise=noise)
        self.dim, self.noise = dim, noise
        self.register_buffer("reference", torch.zeros(()), persistent=False)

    @property
    def capacity(self) -> float:
        """That of the Gaussian channel with mean power 1."""
        return self.dim * math.log(math.hypot(1, 1 / self.noise))

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        """0 in the ball; what lies outside is not allowed (see `project`)."""
        return self.reference.expand(z.shape[:-1])

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Uniform in the ball."""
        direction = _draw(torch.randn, (*shape, self.dim), generator, self.reference)
        radius = _draw(torch.rand, (*shape, 1), generator, self.reference) ** (1 / self.dim)
        point: Tensor = math.sqrt(self.dim) * radius * direction / direction.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return point

    def project(self, z: Tensor) -> Tensor:
        """Into the ball of radius sqrt(d)."""
        shrink: Tensor = (math.sqrt(self.dim) / z.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        return z * shrink

    def transmit(self, z: Tensor) -> Tensor:
        """Plus noise, in training mode."""
        return z + self.noise * torch.randn_like(z) if self.training else z


class LowDimensional(Latent):
    """z is free, but narrow: what has low energy is a surface of `dim` dimensions.

    Args:
        dim: width of z, small against that of the embeddings.
        bound: z is limited to a cube of this half side; inf leaves it free, as principal components are.
    """

    reference: Tensor

    def __init__(self, dim: int, *, bound: float = math.inf):
        super().__init__()
        counts(dim=dim)
        if not bound > 0:
            raise UsageError(
                f"bound: expected a number above 0, got {bound!r}",
                where="bound",
                help="set bound above 0, or leave it out",
            )
        self.dim, self.bound = dim, bound
        self.register_buffer("reference", torch.zeros(()), persistent=False)

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        """0."""
        return self.reference.expand(z.shape[:-1])

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Uniform in the cube; without bound there is no prior, and these are standard normal numbers to start a search from."""
        if math.isinf(self.bound):
            return _draw(torch.randn, (*shape, self.dim), generator, self.reference)
        return self.bound * (2 * _draw(torch.rand, (*shape, self.dim), generator, self.reference) - 1)

    def project(self, z: Tensor) -> Tensor:
        """Into the cube."""
        return z if math.isinf(self.bound) else z.clamp(-self.bound, self.bound)


class Sparse(Latent):
    r"""Few nonzero numbers: $r(z) = \lVert z \rVert_1 + \gamma \max(0, \sqrt d - \lVert z \rVert_2^2)$ nats.

    The first part alone can be gamed: a decoder with large weights makes do with a small z. Two things stop that, and one is needed:
    a predictor whose columns for z have length at most 1 (`DictionaryPredictor`), or $\gamma > 0$, which makes a small z expensive
    (the spread term of Garrido et al. 2026, arXiv:2601.05230).

    Args:
        dim: width d of z.
        weight: energy of a nat.
        spread: $\gamma$.
    """

    reference: Tensor

    def __init__(self, dim: int, *, weight: float = 0.1, spread: float = 0.0):
        super().__init__()
        counts(dim=dim)
        not_negative(weight=weight, spread=spread)
        self.dim, self.weight, self.spread = dim, weight, spread
        self.register_buffer("reference", torch.zeros(()), persistent=False)

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        """Sum of absolute values, and what a small z costs."""
        l1 = z.abs().sum(-1)
        return l1 + self.spread * (math.sqrt(self.dim) - z.square().sum(-1)).clamp_min(0) if self.spread else l1

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The Laplace distribution exp(-|z|) of each number (without the spread term)."""
        sign = _draw(torch.rand, (*shape, self.dim), generator, self.reference) < 0.5
        size = -torch.log1p(-_draw(torch.rand, (*shape, self.dim), generator, self.reference))
        return torch.where(sign, -size, size)


def require_prior(latent: Latent) -> None:
    """Refuses a latent whose draws do not follow its price: at a finite temperature F is an average over draws.

    Raises:
        UsageError: for a free `LowDimensional` and a `Sparse` with spread.
    """
    if isinstance(latent, LowDimensional) and math.isinf(latent.bound):
        raise UsageError(
            "a free z has no prior, so F is only defined at zero temperature", help="use Descend, or give it a bound"
        )
    if isinstance(latent, Sparse) and latent.spread:
        raise UsageError("draws from a Sparse latent with spread do not follow its price", help="use Ista or Descend")


class GaussianWalk(Latent):
    r"""A z for each step of a sequence, carried along: $z_t \sim \mathcal N(\rho z_{t-1}, 1 - \rho^2)$, $z_1 \sim \mathcal N(0, 1)$.

    The last batch axis is time. $r(z_t \mid z_{t-1}) = \frac12 \lVert z_t - \rho z_{t-1} \rVert^2 / (1 - \rho^2)$: what changes slowly
    is cheap. The sum of a sequence's energies is what is minimised.

    Args:
        dim: width of each z.
        weight: energy of a nat.
        rate: $\rho$ in [0, 1); at 0 the steps are independent, as with `Gaussian`.
    """

    reference: Tensor
    coupled = True

    def __init__(self, dim: int, *, weight: float = 0.1, rate: float = 0.9):
        super().__init__()
        counts(dim=dim)
        not_negative(weight=weight)
        if not 0 <= rate < 1:
            raise UsageError(f"rate: expected 0 <= rate < 1, got {rate!r}", where="rate", help="set rate to 0.9, say")
        self.dim, self.weight, self.rate = dim, weight, rate
        self.register_buffer("reference", torch.zeros(()), persistent=False)

    def price(self, z: Float[Tensor, "*shape time latent"], s_x: Tensor) -> Float[Tensor, "*shape time"]:
        """Of each step, given the one before."""
        first = 0.5 * z[..., :1, :].square().sum(-1)
        steps = z[..., 1:, :] - self.rate * z[..., :-1, :]
        return torch.cat([first, 0.5 * steps.square().sum(-1) / (1 - self.rate**2)], dim=-1)

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sequences along the last axis of `shape`."""
        noise = _draw(torch.randn, (*shape, self.dim), generator, self.reference)
        steps = [noise[..., 0, :]]
        for t in range(1, shape[-1]):
            steps.append(self.rate * steps[-1] + math.sqrt(1 - self.rate**2) * noise[..., t, :])
        return torch.stack(steps, dim=-2)


def _draw(law: object, shape: tuple[int, ...], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Random numbers of a law of torch, drawn where the generator lives, on the device and of the type of `like`."""
    device = like.device if generator is None else generator.device
    numbers: Tensor = law(shape, generator=generator, device=device)  # type: ignore[operator]
    return numbers.to(like)
