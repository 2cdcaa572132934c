r"""Directions of descent in z: the gradient, and the Gauss-Newton step.

$H = \frac{2}{D} J^\top J + \nabla^2 R + \mu I$ with $J = \partial \hat s_y / \partial z$ is never formed: conjugate gradients need its
products alone, and those are two backward passes. Nocedal, Wright 2006, "Numerical Optimization", chapters 5 and 10.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from accord.model.energy import Energy
from accord.model.latent import counts, not_negative

Direction = Callable[[Energy, Tensor, Tensor], Tensor]
"""(energy, z, dE/dz), the latter two (*samples, *batch, latent), to what a step of rate 1 subtracts from z.

A gradient that requires one asks for a direction that can be differentiated."""


def steepest(energy: Energy, z: Tensor, gradient: Tensor) -> Tensor:
    """The gradient itself."""
    return gradient


def gauss_newton(damping: float = 1e-6, *, iterations: int = 32) -> Direction:
    r"""$H^{-1} \partial E / \partial z$ by conjugate gradients, with the exact curvature of the price.

    Exact for a prediction linear in z, `squared_error` and a quadratic price; for other costs $\frac{2}{D} J^\top J$ is a metric that
    makes the step independent of the scale of z.

    Args:
        damping: $\mu$, energy per square of z; makes the step short along directions in which the prediction hardly changes.
        iterations: of conjugate gradients, at most; the width of z (times the length of a coupled sequence) is always enough.

    Raises:
        UsageError: for numbers that are out of bounds.
    """
    not_negative(damping=damping)
    counts(iterations=iterations)

    def direction(energy: Energy, z: Tensor, gradient: Tensor) -> Tensor:
        graph = gradient.requires_grad
        product = _curvature(energy, z if graph else z.detach().requires_grad_(), damping, graph)
        axes = (-2, -1) if energy.latent.coupled else (-1,)
        width = z.shape[-1] * (z.shape[-2] if energy.latent.coupled else 1)
        return _conjugate_gradients(product, gradient, axes, min(iterations, width))

    return direction


def _curvature(energy: Energy, z: Tensor, damping: float, graph: bool) -> Callable[[Tensor], Tensor]:
    """V -> H v."""
    with torch.enable_grad():
        s_y_hat = energy.predict(z)
        weight = torch.zeros_like(s_y_hat, requires_grad=True)
        pull, slope = None, None
        if s_y_hat.requires_grad:
            (pull,) = torch.autograd.grad(s_y_hat, z, weight, create_graph=True, allow_unused=True)  # J^T w
        price = energy.latent.penalty(z, energy.s_x)
        if price.requires_grad:
            (slope,) = torch.autograd.grad(price.sum(), z, create_graph=True, allow_unused=True)
    scale = 2 / s_y_hat.shape[-1]

    def gradient(of: Tensor, at: Tensor, v: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(of, at, v, retain_graph=True, create_graph=graph, materialize_grads=True)
        return found

    def product(v: Tensor) -> Tensor:
        total = damping * v
        if pull is not None:
            total = total + scale * gradient(s_y_hat, z, gradient(pull, weight, v))
        if slope is not None and slope.requires_grad:
            total = total + gradient(slope, z, v)
        return total

    return product


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, axes: tuple[int, ...], iterations: int
) -> Tensor:
    """H^-1 b of each pair. Where the curvature is not positive it stops; if that is at once, b is the answer."""
    x, r, p = torch.zeros_like(b), b, b
    size = (r * r).sum(axes, keepdim=True)
    enough = size.detach() * torch.finfo(b.dtype).eps ** 2
    for k in range(iterations):
        hp = product(p)
        curvature = (p * hp).sum(axes, keepdim=True)
        go = (curvature > 0) & (size > enough)
        step = torch.where(go, size / torch.where(go, curvature, 1), 0)
        x = x + step * p
        if k == 0:
            x = torch.where(go, x, b)
        r = r - step * hp
        before, size = size, (r * r).sum(axes, keepdim=True)
        p = torch.where(go, r + size / torch.where(go, before, 1) * p, 0)
    return x
