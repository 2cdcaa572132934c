r"""Sliced statistics: how far projections on random unit directions are from a standard normal, in bounded memory.

$\frac{1}{K}\sum_{k} T(a_k \cdot z_1, \dots, a_k \cdot z_N)$, $\lVert a_k \rVert = 1$, evaluated a block of slices at a time.
The gradient of each block is computed with its value, so neither pass ever holds more than one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from accord.collective import all_reduce_sum, gather_rows, total_rows

Statistic = Callable[..., tuple[Tensor, Tensor]]
"""(*views, n, k) projections to k values (*views, k) and the gradient (*views, n, k) of the sum of the values in the projections.

Of two samples, the projections of the reference, (m, k), come second. Statistics are of the rows of all ranks; the gradient is in the
rows of this rank."""


def directions(dim: int, slices: int, seed: int) -> Float[Tensor, "dim slices"]:
    """Uniform unit directions in the columns; drawn on the CPU, so that every rank and device gets the same."""
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(dim, slices, generator=generator), dim=0)


_DRAW: list[Callable[[Slices, int], Tensor]] = []
"""`Slices.draw`, left alone by torch.compile, which would compile it again at each step."""


class Slices(nn.Module):
    """Fresh directions at each training step, a function of `seed` and the step only.

    Args:
        slices: number of directions.
        seed: of step 0; step t uses seed + t.

    The buffer `step` counts the calls in training mode and is saved with the state. In evaluation mode it stands still.
    """

    step: Tensor

    def __init__(self, slices: int, *, seed: int = 0):
        super().__init__()
        self.slices = slices
        self.seed = seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._known: tuple[Tensor, int, int] | None = None  # the buffer, its version, its value
        if (
            not _DRAW
        ):  # importing the compiler takes seconds, as the first optimiser does: not when this file is imported
            _DRAW.append(torch.compiler.disable(Slices.draw))

    def forward(self, dim: int, like: Tensor) -> Float[Tensor, "dim slices"]:
        """Directions of the current step, on the device of `like`; in training mode, the step ends with this call."""
        a = _DRAW[0](self, dim) if _DRAW else self.draw(dim)
        return a.to(like.device, non_blocking=True)

    def draw(self, dim: int) -> Tensor:
        """`forward` on the CPU."""
        step = self.current()
        if self.training:
            self.step.add_(1)
            self._known = (self.step, self.step._version, step + 1)
        return directions(dim, self.slices, self.seed + step)

    def current(self) -> int:
        """The step as a number, read from the device only after something else wrote the buffer (a checkpoint, a move)."""
        if self._known is not None:
            buffer, version, value = self._known
            if buffer is self.step and buffer._version == version:
                return value
        return int(self.step)


class _SlicedMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, a: Tensor, statistic: Statistic, block: int, reference: Tensor | None) -> Tensor:
        value = s.new_zeros(())
        gradient = torch.zeros_like(s)
        for columns in a.split(block, dim=1):
            others = () if reference is None else (reference @ columns,)
            values, slope = statistic(s @ columns, *others)
            value += values.sum()
            gradient += slope @ columns.T
        scale = 1 / (a.shape[1] * math.prod(s.shape[:-2]))
        ctx.save_for_backward(gradient.mul_(scale))
        return value.mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return all_reduce_sum(grad_output) * gradient, None, None, None, None


def sliced_mean(
    s: Tensor, a: Tensor, statistic: Statistic, *, elements: int, reference: Tensor | None = None
) -> Tensor:
    """Mean over slices and views of `statistic`; at most about `elements` projections are held at a time."""
    rows = math.prod(s.shape[:-1])
    block = max(1, elements // rows)
    value: Tensor = _SlicedMean.apply(s, a.to(s), statistic, block, reference)  # type: ignore[no-untyped-call]
    return value


def epps_pulley(u: Float[Tensor, "*views n k"], *, knots: int, t_max: float) -> tuple[Tensor, Tensor]:
    r"""Distance of characteristic functions, $N \int |\hat\varphi(t) - e^{-t^2/2}|^2 e^{-t^2/2} dt$, for each column.

    Trapezoid rule on `knots` points of [0, t_max], doubled by symmetry; cosines and sines of the multiples of the first knot by
    rotation. Epps and Pulley 1983; as used in LeJEPA (Balestriero, LeCun 2025, arXiv:2511.08544).
    """
    n = total_rows(u)
    step = t_max / (knots - 1)
    t = torch.linspace(0, t_max, knots, dtype=torch.float64)[1:]  # at t = 0 both functions are 1
    weight = torch.exp(-(t**2) / 2) * 2 * step
    weight[-1] /= 2
    c1, s1 = torch.cos(u * step), torch.sin(u * step)
    waves = [(c1, s1)]
    for _ in range(knots - 2):
        c, s = waves[-1]
        waves.append((torch.addcmul(c * c1, s, s1, value=-1), torch.addcmul(s * c1, c, s1)))
    sums = all_reduce_sum(torch.stack([w.sum(-2) for wave in waves for w in wave]))
    shape = (knots - 1, *[1] * (u.ndim - 1))
    real = sums[0::2] / n - torch.exp(-(t**2) / 2).to(u).view(shape)
    imaginary = sums[1::2] / n
    q = weight.to(u).view(shape)
    values = n * (q * (real.square() + imaginary.square())).sum(0)
    slope_c, slope_s = (2 * q * t.to(u).view(shape) * f for f in (imaginary, -real))
    gradient = torch.zeros_like(u)
    for (c, s), slope_of_c, slope_of_s in zip(waves, slope_c, slope_s, strict=True):
        gradient.addcmul_(c, slope_of_c.unsqueeze(-2)).addcmul_(s, slope_of_s.unsqueeze(-2))
    return values, gradient


def normal_quantiles(u: Float[Tensor, "*views n k"]) -> tuple[Tensor, Tensor]:
    r"""Mean over i of $(u_{(i)} - \Phi^{-1}(i/(N+1)))^2$ for each column in ascending order, $u_{(1)} \le \dots \le u_{(N)}$.

    VISReg, arXiv:2606.02572.
    """
    rows, own = gather_rows(u)
    n = rows.shape[-2]
    quantiles = torch.special.ndtri(torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)).to(u)
    ordered, order = rows.sort(dim=-2)
    difference = ordered - quantiles[:, None]
    gradient = torch.zeros_like(rows).scatter_(-2, order, difference * (2 / n))
    return difference.square().mean(-2), gradient[..., own, :]


def matched_quantiles(u: Float[Tensor, "*views n k"], v: Float[Tensor, "n k"]) -> tuple[Tensor, Tensor]:
    r"""Mean over i of $(u_{(i)} - v_{(i)})^2$ for each column, both in ascending order: squared 2-Wasserstein distance on a line.

    `v` has as many rows as `u` has on all ranks.
    """
    rows, own = gather_rows(u)
    ordered, order = rows.sort(dim=-2)
    difference = ordered - v.sort(dim=-2).values
    gradient = torch.zeros_like(rows).scatter_(-2, order, difference * (2 / rows.shape[-2]))
    return difference.square().mean(-2), gradient[..., own, :]
