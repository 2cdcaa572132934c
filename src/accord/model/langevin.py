r"""Finite temperature for continuous z, $F_\beta^{p_0} = -\frac1\beta \log \mathbb E_{z \sim p_0} e^{-\beta D}$, by annealing.

Particles start as draws from the prior $e^{-r}$; the weight of D rises from 0 to $\beta$, and after each rise the particles move by
Metropolis-adjusted Langevin steps that leave $e^{-r - \beta_t D}$ as it is. The mean of their weights
$\prod_t e^{-(\beta_t - \beta_{t-1}) D(z_{t-1})}$ estimates $e^{-\beta F}$. Where few particles carry the weight, they are drawn anew
by it. Neal 2001, "Annealed Importance Sampling"; Del Moral, Doucet, Jasra 2006, "Sequential Monte Carlo Samplers"; Roberts, Tweedie
1996.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from accord.errors import UsageError
from accord.model.continuous import require_prior
from accord.model.descend import detached, differentiable, origin
from accord.model.energy import Energy
from accord.model.latent import Latent, counts, positive
from accord.model.minimize import ELEMENTS, Minimizer, Minimum, draws, in_pieces, taken

ACCEPTED = 0.574
"""Share of accepted steps at which Langevin steps are best (Roberts, Rosenthal 1998)."""
POWER = 3
"""The weight of D rises as (t/T) to this power: most changes while D is hardly heeded."""


class Particles(NamedTuple):
    r"""Weighted draws from the posterior exp(-r - beta D) of each pair.

    `z` is (particles, *batch, latent), `log_weight` and `density`, which is -r - beta D, are (particles, *batch). `accepted` and
    `effective`, (*batch), are the share of moves that were made, and the smallest effective sample size on the way,
    $(\sum w)^2 / \sum w^2$ between 1 and the number of particles: where it is below a few, F is not to be trusted.
    """

    z: Tensor
    log_weight: Tensor
    density: Tensor
    accepted: Tensor
    effective: Tensor


def effective_size(log_weight: Float[Tensor, "particles *batch"]) -> Float[Tensor, "*batch"]:
    r"""$(\sum w)^2 / \sum w^2$."""
    return (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()


class Langevin(Minimizer):
    r"""F at finite temperature, with the prior $e^{-r}$, for continuous z.

    F is too high in expectation, by about $\mathrm{Var}(w) / 2 \beta N$ (Jensen): `particles(energy)` tells the effective sample
    size, and more particles, temperatures and moves help, in this order. The gradient is the weighted mean of that of D, plus that of
    $r / \beta$ where the prior is learned. The price's `weight` plays no part: at $\beta = 1/\lambda$ price and prior agree. Moves are
    as long as the cloud of particles is wide, each way, times a factor that follows the share that was accepted; that leaves a bias
    of the order of 1/N. argmin is the particle with the lowest r + beta D. Of a sequence (`Latent.coupled`) each step is given an
    equal share of the sequence's F.

    Args:
        beta: inverse temperature.
        particles: N, for each pair.
        temperatures: how many rises of the weight of D.
        moves: Langevin steps after each.
        seed: of all random numbers in evaluation mode, the same for all pairs; in training mode they come from torch's generator.
        chunk: numbers in the predictions made at a time; it bounds memory and changes nothing else.

    Raises:
        UsageError: for numbers that are out of bounds (an infinite beta: use `Descend`); when called, for a latent that is a choice or
            whose `sample` is not its prior (an unbounded `LowDimensional`, a `Sparse` with spread).
    """

    def __init__(
        self,
        beta: float,
        *,
        particles: int = 64,
        temperatures: int = 32,
        moves: int = 2,
        seed: int = 0,
        chunk: int = ELEMENTS,
    ):
        super().__init__()
        if beta == math.inf:
            raise UsageError(
                "Langevin is for finite temperatures: at beta = inf F is a minimum", where="beta", help="use Descend"
            )
        positive(beta=beta)
        counts(particles=particles, temperatures=temperatures, moves=moves, chunk=chunk)
        self.beta, self.count, self.temperatures, self.moves = beta, particles, temperatures, moves
        self.seed, self.chunk = seed, chunk

    def extra_repr(self) -> str:
        """Temperature and effort."""
        return f"beta={self.beta}, particles={self.count}, temperatures={self.temperatures}, moves={self.moves}"

    def forward(self, energy: Energy, start: Tensor | None = None) -> Minimum:
        """F and the likeliest z found; `start` is ignored."""
        found = self.particles(energy)
        log_mean = found.log_weight.logsumexp(0) - math.log(self.count)
        value = -log_mean / self.beta
        if energy.latent.coupled:
            value = value / energy.batch_shape[-1]
        z = found.z.movedim(0, -2)  # pieces are rows of the batch
        share = found.log_weight.softmax(0).movedim(0, -1)[..., None]

        def lesson(energy: Energy, both: Tensor) -> Tensor:
            points, weights = both[..., :-1].movedim(-2, 0), both[..., -1].movedim(-1, 0)
            price = energy.latent.price(points, energy.s_x) / self.beta
            return (weights * (energy.divergence(points) + price)).sum(0)

        if torch.is_grad_enabled():
            mean = in_pieces(lesson, energy, torch.cat([z, share], dim=-1), self.chunk, copies=self.count)
            value = value + mean - mean.detach()
        return Minimum(value, taken(found.z, found.density.argmax(0)))

    def samples(self, energy: Energy, count: int) -> Float[Tensor, "count *batch latent"]:
        """Draws from the posterior, with replacement among the particles, by their weights."""
        found = self.particles(energy)
        shares = found.log_weight.softmax(0).movedim(0, -1)
        if energy.latent.coupled:
            shares = shares[..., 0, :]
        generator = None if self.training else torch.Generator().manual_seed(self.seed)
        flat = shares.reshape(-1, self.count)
        which = torch.multinomial(
            flat if generator is None else flat.cpu(), count, replacement=True, generator=generator
        )
        which = which.to(flat.device).mT.reshape(count, *shares.shape[:-1])
        if energy.latent.coupled:
            which = which[..., None].expand(count, *energy.batch_shape)
        return torch.stack([taken(found.z, w) for w in which])

    def particles(self, energy: Energy) -> Particles:
        """The particles at the end, without gradient."""
        _check(energy.latent)
        generator = None if self.training else torch.Generator().manual_seed(self.seed + 1)
        with differentiable():
            held = detached(energy)
            z = draws(held, self.count, None if self.training else self.seed)
            z = z.to(origin(held)).expand(self.count, *held.batch_shape, -1)
            state = None if generator is None else generator.get_state()
            parts = []
            for rows in (pieces := list(held.pieces(self.chunk, copies=self.count))):
                if generator is not None and state is not None:
                    generator.set_state(state)
                one = len(pieces) == 1
                parts.append(self._annealed(held if one else held.part(rows), z if one else z[:, rows], generator))
        if len(parts) == 1:
            return parts[0]
        return Particles(
            *(torch.cat(list(t), axis) for t, axis in zip(zip(*parts, strict=True), (1, 1, 1, 0, 0), strict=True))
        )

    def _annealed(self, energy: Energy, z: Tensor, generator: torch.Generator | None) -> Particles:
        point = _Point.at(energy, z)
        log_weight = torch.zeros_like(point.cost)
        size = torch.ones_like(point.cost[0])
        accepted, effective, before = torch.zeros_like(size), torch.full_like(size, self.count), 0.0
        for t in range(1, self.temperatures + 1):
            beta = self.beta * (t / self.temperatures) ** POWER
            log_weight = log_weight - (beta - before) * point.cost
            before = beta
            effective = torch.minimum(effective, effective_size(log_weight))
            point, log_weight = _resampled(point, log_weight, generator, energy)
            for _ in range(self.moves):
                point, share = _moved(energy, point, beta, size, generator)
                size = size * (share - ACCEPTED).exp()
                accepted = accepted + share
        density = -point.price - self.beta * point.cost
        accepted = accepted / (self.temperatures * self.moves)
        return Particles(point.z, log_weight, density, accepted, effective)


class _Point(NamedTuple):
    """z with D and r there and their gradients, all without history; of a coupled latent D and r of the sequence."""

    z: Tensor
    cost: Tensor
    price: Tensor
    cost_slope: Tensor
    price_slope: Tensor

    @staticmethod
    def at(energy: Energy, z: Tensor) -> _Point:
        z = z.detach().requires_grad_()
        cost = energy.divergence(z).expand(z.shape[:-1])
        price = energy.latent.price(z, energy.s_x).expand(z.shape[:-1])
        slopes = [
            torch.autograd.grad(t.sum(), z, materialize_grads=True)[0] if t.requires_grad else torch.zeros_like(z)
            for t in (cost, price)
        ]
        cost, price = (_sequence(energy, t.detach()) for t in (cost, price))
        return _Point(z.detach(), cost, price, *slopes)


@torch.no_grad()
def _moved(
    energy: Energy, point: _Point, beta: float, size: Tensor, generator: torch.Generator | None
) -> tuple[_Point, Tensor]:
    """One Metropolis-adjusted Langevin step at inverse temperature beta, and the share of particles that took it, (*batch)."""
    shape = _shape(point.z, size, coupled=energy.latent.coupled)
    slope = point.price_slope + beta * point.cost_slope
    noise = _noise(torch.randn, point.z.shape, generator, point.z, energy)
    trial = point.z + _times(shape, noise - 0.5 * _times(_turned(shape), slope))
    allowed = (energy.latent.project(trial) - trial).abs().amax(-1) <= 1e-6
    if energy.latent.coupled:
        allowed = allowed.all(-1, keepdim=True).expand_as(allowed)
    with torch.enable_grad():
        new = _Point.at(energy, trial)
    slopes = slope + new.price_slope + beta * new.cost_slope
    back = 0.5 * _times(_turned(shape), slopes) - noise  # the noise of the way back
    there, here = (_sequence(energy, v.square().sum(-1)) for v in (back, noise))
    log_ratio = point.price - new.price + beta * (point.cost - new.cost) - 0.5 * (there - here)
    uniform = _noise(torch.rand, (*point.z.shape[:-1], 1), generator, point.z, energy)[..., 0]
    if energy.latent.coupled:
        uniform = uniform[..., :1]
    moved = allowed & (uniform.log() < log_ratio)
    share = torch.where(allowed, log_ratio.clamp_max(0).exp(), 0).nan_to_num().mean(0)
    tensors = (
        torch.where(moved[..., None] if old.ndim > moved.ndim else moved, other, old)
        for other, old in zip(new, point, strict=True)
    )
    return _Point(*tensors), share


class _Shape(NamedTuple):
    """How long moves are, each way: `scale` of each number, (*batch, latent), or `root`, a square root of a covariance."""

    scale: Float[Tensor, "*batch latent"]
    root: Float[Tensor, "*batch latent latent"] | None


def _shape(z: Float[Tensor, "particles *batch latent"], size: Float[Tensor, "*batch"], *, coupled: bool) -> _Shape:
    """`size` times a square root of the particles' covariance, shrunk towards its diagonal, which is all that few of them tell."""
    count, width = len(z), z.shape[-1]
    centred = z - z.mean(0)
    variance = centred.square().mean(0).clamp_min(1e-12)
    scale = size[..., None] * variance.sqrt()
    if coupled or count <= 2 * width:
        return _Shape(scale, None)
    cloud = centred.movedim(0, -2)
    covariance = (1 - width / count) * cloud.mT @ cloud / count
    covariance = covariance + torch.diag_embed(width / count * variance)
    root, failed = torch.linalg.cholesky_ex(covariance)
    root = size[..., None, None] * root
    return _Shape(scale, torch.where(failed[..., None, None] == 0, root, torch.diag_embed(scale)))


def _turned(shape: _Shape) -> _Shape:
    """The transpose."""
    return shape if shape.root is None else _Shape(shape.scale, shape.root.mT)


def _times(shape: _Shape, v: Float[Tensor, "particles *batch latent"]) -> Tensor:
    return shape.scale * v if shape.root is None else (shape.root @ v[..., None])[..., 0]


def _resampled(
    point: _Point, log_weight: Tensor, generator: torch.Generator | None, energy: Energy
) -> tuple[_Point, Tensor]:
    """Where the effective sample size is below half: particles as often as their weights say (systematically), of equal weight."""
    count = len(log_weight)
    poor = effective_size(log_weight) < count / 2
    offset = _noise(torch.rand, (1, *log_weight.shape[1:], 1), generator, point.z, energy)[..., 0]
    if energy.latent.coupled:
        offset = offset[..., :1].expand_as(offset)
    places = (torch.arange(count, device=offset.device).view(-1, *[1] * poor.ndim) + offset) / count
    ends = log_weight.softmax(0).cumsum(0).movedim(0, -1).contiguous()
    which = torch.searchsorted(ends, places.movedim(0, -1).contiguous()).clamp_max(count - 1).movedim(-1, 0)
    own = torch.arange(count, device=which.device).view(-1, *[1] * poor.ndim).expand_as(which)
    which = torch.where(poor, which, own)
    fields = (t.gather(0, which if t.ndim == which.ndim else which[..., None].expand_as(t)) for t in point)
    equal = log_weight.logsumexp(0, keepdim=True) - math.log(count)
    return _Point(*fields), torch.where(poor, equal, log_weight)


def _noise(
    law: object, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None, like: Tensor, energy: Energy
) -> Tensor:
    """Random numbers; from a generator the same for all pairs."""
    if generator is None:
        return law(shape, dtype=like.dtype, device=like.device)  # type: ignore[operator, no-any-return]
    axes = len(shape) - 2 - (1 if energy.latent.coupled else 0)
    alike = (shape[0], *[1] * axes, *shape[axes + 1 :])
    return law(alike, generator=generator).to(like).expand(shape)  # type: ignore[operator, no-any-return]


def _sequence(energy: Energy, t: Tensor) -> Tensor:
    """Of a coupled latent the sum over time, at each step."""
    return t.sum(-1, keepdim=True).expand_as(t) if energy.latent.coupled else t


def _check(latent: Latent) -> None:
    if latent.choice or latent.candidates() is not None:
        raise UsageError(
            f"{type(latent).__name__} is countable: Langevin moves a vector", help="use Enumerate with a finite beta"
        )
    require_prior(latent)
