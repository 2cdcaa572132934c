r"""Multinomial logistic regression, many at once: $\min_W \sum_i w_i\,\mathrm{CE}(W x_i, c_i) + \frac{\lambda}{2}\lVert W \rVert^2$.

L-BFGS preconditioned with Böhning's bound of the curvature, $\frac12 X^\top X / n + \lambda I$ (Böhning 1992): a few dozen passes over
the data are enough, and the whole path of strengths shares one Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

ARMIJO = 1e-4
HALVINGS = 20


class Problem(NamedTuple):
    """Groups of problems: those of one group share their rows, and differ in which rows count (folds of a cross-validation).

    `x` is (*groups, rows, dim + 1) with a last column of ones for the bias, `target` one-hot (*groups, rows, classes),
    `weight` (*groups, folds, rows) non-negative with sum 1 over rows: 0 leaves a row out.
    """

    x: Tensor
    target: Tensor
    weight: Tensor

    def log_probabilities(self, w: Tensor) -> Tensor:
        """The log p of each class, (*groups, rows, folds, classes), for weights (*groups, folds, classes, dim + 1)."""
        logits = self.x @ w.flatten(-3, -2).mT  # one product for all folds
        return torch.log_softmax(logits.unflatten(-1, w.shape[-3:-1]), dim=-1)

    def losses(self, log_p: Tensor) -> Tensor:
        """Cross-entropy of each row, (*groups, folds, rows)."""
        return -(self.target.unsqueeze(-2) * log_p).sum(-1).mT

    def value_and_gradient(self, w: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (*groups, folds) and its gradient at `w` (*groups, folds, classes, dim + 1); the bias is not penalised."""
        log_p = self.log_probabilities(w)
        loss = (self.losses(log_p) * self.weight).sum(-1)
        residual = (log_p.exp() - self.target.unsqueeze(-2)) * self.weight.mT[..., None]
        gradient = residual.flatten(-2).mT @ self.x  # ten times as fast as its transpose where classes are few
        gradient = gradient.unflatten(-2, w.shape[-3:-1])
        penalised = w[..., :-1]
        gradient[..., :-1] += strength[..., None, None] * penalised
        return loss + 0.5 * strength * penalised.square().sum((-2, -1)), gradient


def with_ones(x: Float[Tensor, "*groups rows dim"]) -> Float[Tensor, "*groups rows dim_plus_1"]:
    """`x` with a last column of ones, whose weights are the bias."""
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)


def fit(
    problem: Problem,
    strength: Tensor,
    precondition: Callable[[Tensor], Tensor],
    start: Float[Tensor, "*groups folds classes dim_plus_1"],
    *,
    iterations: int = 100,
    tolerance: float = 1e-5,
    memory: int = 8,
) -> Float[Tensor, "*groups folds classes dim_plus_1"]:
    """The weights of each problem; stops when no problem can gain more than about `tolerance` nats.

    Args:
        problem: data of the problems.
        strength: lambda of each, broadcasting to (*groups, folds).
        precondition: solves (curvature bound) u = g for u, (*groups, folds, classes, dim + 1) to the same.
        start: where to start.
        iterations: at most so many steps.
        tolerance: on half the predicted decrease, in the units of the loss.
        memory: number of past steps that shape the next.
    """
    w = start
    value, gradient = problem.value_and_gradient(w, strength)
    past: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        direction = -_two_loops(gradient, past, precondition)
        slope = _dot(gradient, direction)
        if float((-0.5 * slope).max()) < tolerance:
            break
        step, new_value, new_gradient = _line_search(problem, strength, w, value, direction, slope)
        s, y = step * direction, new_gradient - gradient
        curvature = _dot(s, y)
        past = [*past[-memory + 1 :], (s, y, torch.where(curvature > 0, 1 / curvature, 0.0))]
        if not bool((step > 0).any()):
            break  # rounding is larger than what is left to gain
        w, value, gradient = w + s, new_value, new_gradient
    return w


def _line_search(
    problem: Problem, strength: Tensor, w: Tensor, value: Tensor, direction: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Halves the step of each problem until the loss falls enough; step 0 where it never does."""
    step = torch.ones_like(slope)[..., None, None]
    slack = 1e-6 * value.abs() if value.dtype == torch.float32 else 0.0
    for attempt in range(HALVINGS + 1):
        new_value, new_gradient = problem.value_and_gradient(w + step * direction, strength)
        good = new_value <= value + ARMIJO * step[..., 0, 0] * slope + slack
        if bool((good | (step[..., 0, 0] == 0)).all()):
            break
        factor = 0.5 if attempt < HALVINGS - 1 else 0.0
        step = torch.where(good[..., None, None], step, factor * step)
    return step, new_value, new_gradient


def _two_loops(
    gradient: Tensor, past: list[tuple[Tensor, Tensor, Tensor]], precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """The inverse-curvature estimate of L-BFGS times `gradient` (Nocedal and Wright 2006, algorithm 7.4)."""
    q, weights = gradient, []
    for s, y, rho in reversed(past):
        a = (rho * _dot(s, q))[..., None, None]
        weights.append(a)
        q = q - a * y
    r = precondition(q)
    if past:
        s, y, rho = past[-1]
        gain = _dot(s, y) / _dot(y, precondition(y)).clamp_min(torch.finfo(y.dtype).tiny)
        r = torch.where(rho > 0, gain, 1.0)[..., None, None] * r
    for (s, y, rho), a in zip(past, reversed(weights), strict=True):
        r = r + (a - (rho * _dot(y, r))[..., None, None]) * s
    return r


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1))
