r"""Conditional flow matching: a velocity field that carries noise to y, learned by regression, with an exact likelihood.

$\dot y_t = v(y_t, t, s_x)$ carries $y_0 \sim \mathcal N(0, 1)$ to $y_1 \approx y$, and
$\log p(y_1 \mid x) = \log \mathcal N(y_0) - \int_0^1 \nabla \cdot v(y_t, t, s_x)\, dt$.
Lipman, Chen, Ben-Hamu, Nickel, Le 2023, arXiv:2210.02747; the likelihood: Chen et al. 2018, arXiv:1806.07366.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.baselines.probabilistic import FLOOR, HALF_LOG_TAU, noise_like
from accord.model.density import Density, full
from accord.model.latent import counts, positive
from accord.model.predictor import joined

EXACT = 16
"""Up to so many dimensions the divergence is the whole trace; beyond it is estimated."""
FREQUENCIES = 8
"""Waves of time that the velocity sees, beside the time itself."""


class FlowMatchingDensity(Density):
    r"""$-\log p(y \mid x)$ of a conditional flow; while training, the error of the regression that teaches it.

    In training mode the value is $\lVert v(y_t, t, s_x) - (y - (1 - \sigma_0) y_0) \rVert^2$, sum over dimensions, with
    $y_t = (1 - (1 - \sigma_0) t)\, y_0 + t\, y$, one $y_0 \sim \mathcal N(0, 1)$ and one t, uniform in [0, 1], for each pair.

    In evaluation mode it is the likelihood in nats: the field is followed from y back to the noise by `steps` steps of Runge and Kutta
    (fourth order), dense where t is near 1. The divergence is the exact trace up to 16 dimensions, and above an average over `probes`
    random directions (Hutchinson 1989; Grathwohl et al. 2019, arXiv:1810.01367) that are always the same: F is a function of the
    pair alone.

    Args:
        dim: width D of y.
        given: width of what it is conditioned on, s_x.
        hidden: widths of the hidden layers of the velocity.
        floor: $\sigma_0$, the width of the noise that is left at t = 1.
        steps: of the integration, each of which asks for four velocities.
        probes: directions, where the trace is not exact.
        seed: of the directions.
    """

    network = True
    probe: Tensor

    def __init__(
        self,
        dim: int,
        given: int,
        *,
        hidden: tuple[int, ...] = (256, 256),
        floor: float = FLOOR,
        steps: int = 8,
        probes: int = 2,
        seed: int = 0,
    ):
        super().__init__()
        counts(dim=dim, given=given, steps=steps, probes=probes)
        positive(floor=floor)
        self.dim, self.width, self.floor, self.steps = dim, given, floor, steps
        probe = torch.eye(dim)
        if dim > EXACT:
            generator = torch.Generator().manual_seed(seed)
            probe = torch.randint(2, (probes, dim), generator=generator).mul(2).sub(1).div(math.sqrt(probes))
        self.register_buffer("probe", probe, persistent=False)
        self.numbers = 3 * (1 + len(probe)) * max(dim, *hidden)
        self.velocity = Velocity(dim, given, hidden=hidden)

    def forward(self, theta: Tensor, s_y: Tensor) -> Tensor:
        """The error of the velocity at a random time in training mode, else nats."""
        theta, s_y = full(theta), full(s_y)
        with torch.autocast(s_y.device.type, enabled=False):
            return self._error(theta, s_y) if self.training else self._nats(theta, s_y)

    def _error(self, theta: Tensor, y: Tensor) -> Tensor:
        start, t = torch.randn_like(y), torch.rand_like(y[..., :1])
        kept = 1 - self.floor
        error = self.velocity((1 - kept * t) * start + t * y, t, theta) - (y - kept * start)
        squares: Tensor = error.square().sum(-1)
        return squares

    def _nats(self, theta: Tensor, y: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(theta.shape[:-1], y.shape[:-1])
        state = y.expand(*shape, -1)
        change = state.new_zeros(shape)
        for t, step in reversed(self._times()):
            state, divergence = self._step(state, t + step, -step, theta)
            change = change - divergence
        return state.square().sum(-1) / 2 + self.dim * HALF_LOG_TAU + change

    def point(self, theta: Tensor) -> Tensor:
        """Where the middle of the noise is carried."""
        return self._carried(theta, torch.zeros_like(full(theta)[..., :1]).expand(*theta.shape[:-1], self.dim))

    def sample(self, theta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Where noise is carried."""
        return self._carried(theta, noise_like(full(theta)[..., :1].expand(*theta.shape[:-1], self.dim), generator))

    def _carried(self, theta: Tensor, state: Tensor) -> Tensor:
        theta = full(theta)
        for t, step in self._times():
            slopes = _runge_kutta(lambda y, at: (self.velocity(y, at, theta),), state, t, step)
            state = state + step * slopes[0]
        return state

    def _times(self) -> list[tuple[float, float]]:
        """Beginnings and lengths of the steps: $t = 1 - (1 - u)^2$, u evenly spaced, for the field is steep near 1."""
        ticks = [1 - (1 - k / self.steps) ** 2 for k in range(self.steps + 1)]
        return [(a, b - a) for a, b in itertools.pairwise(ticks)]

    def _step(self, state: Tensor, t: float, step: float, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The state after a step, and the integral of the divergence over it."""
        slope, trace = _runge_kutta(lambda y, at: self._slopes(y, at, theta), state, t, step)
        return state + step * slope, step * trace

    def _slopes(self, y: Tensor, t: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        v, moved = self.velocity.along(y, t, theta, self.probe)
        axes = [1] * (moved.ndim - 2)
        return v, (moved * self.probe.view(len(self.probe), *axes, -1)).sum((0, -1))


def _runge_kutta(
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, ...]], y: Tensor, t: float, step: float
) -> list[Tensor]:
    """The mean slopes over a step by the classical rule; the first of them is that of y."""
    at = y.new_full((1,), t)
    k1 = slopes(y, at)
    k2 = slopes(y + step / 2 * k1[0], at + step / 2)
    k3 = slopes(y + step / 2 * k2[0], at + step / 2)
    k4 = slopes(y + step * k3[0], at + step)
    return [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)]


class Velocity(nn.Module):
    """A multi-layer perceptron (y, t, s_x) -> dy/dt, (*batch, dim), and its derivative along given directions of y.

    Args:
        dim: width of y.
        given: width of s_x.
        hidden: widths of the hidden layers.

    The first layer is a sum of products, so that many y with one x, or one time, cost that part once.
    """

    frequency: Tensor

    def __init__(self, dim: int, given: int, *, hidden: tuple[int, ...] = (256, 256)):
        super().__init__()
        self.register_buffer("frequency", math.pi * torch.arange(1, FREQUENCIES + 1), persistent=False)
        widths = [dim + 1 + 2 * FREQUENCIES + given, *hidden, dim]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))

    def forward(self, y: Float[Tensor, "*b dim"], t: Float[Tensor, "*t one"], s_x: Float[Tensor, "*a given"]) -> Tensor:
        """dy/dt; axes broadcast."""
        hidden = self._first(y, t, s_x)
        for layer in self._others():
            hidden = layer(F.silu(hidden))
        return hidden

    def along(
        self,
        y: Float[Tensor, "*batch dim"],
        t: Float[Tensor, "*t one"],
        s_x: Float[Tensor, "*a given"],
        directions: Float[Tensor, "k dim"],
    ) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "k *batch dim"]]:
        """dy/dt and how it changes as y moves along each direction: forward-mode differentiation."""
        hidden = self._first(y, t, s_x)
        first = self.layers[0].weight[:, : y.shape[-1]]  # type: ignore[index]
        moved = (directions @ first.T).view(len(directions), *[1] * (hidden.ndim - 1), -1)
        for layer in self._others():
            gate = torch.sigmoid(hidden)
            moved = F.linear(moved * (gate * (1 + hidden * (1 - gate))), layer.weight)
            hidden = layer(hidden * gate)
        return hidden, moved

    def _others(self) -> list[nn.Linear]:
        return [layer for layer in self.layers[1:] if isinstance(layer, nn.Linear)]

    def _first(self, y: Tensor, t: Tensor, s_x: Tensor) -> Tensor:
        waves = t * self.frequency
        time = torch.cat([t, waves.sin(), waves.cos()], -1)
        return joined(self.layers[:1], (y, time, s_x), "the velocity takes {} numbers, y, t and s_x have {}")
