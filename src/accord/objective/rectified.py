r"""RDMReg: embeddings that are zero in most places, distributed as the rectified generalised Gaussian $\max(0, X)$.

$X \propto e^{-|x - \mu|^p / (p \sigma^p)}$ in each dimension: p = 2 is the normal distribution, p = 1 Laplace's. The distance to it is
that of projections on random directions, between a batch and as many draws from the target (it has no closed form on a line).
Kuang, Dagade, Rudner, Balestriero, LeCun 2026, arXiv:2602.01456.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from accord.collective import gather_rows
from accord.errors import UsageError
from accord.model.latent import counts, positive
from accord.objective.checks import checked, over_branches
from accord.objective.loss import Inference
from accord.objective.slices import Slices, matched_quantiles, sliced_mean


def rectified_gaussian(
    rows: int, dim: int, *, mu: float = 0.0, sigma: float | None = None, p: float = 1.0, seed: int = 0
) -> Float[Tensor, "rows dim"]:
    r"""Draws of $\max(0, X)$, float64, on the CPU: a function of the seed.

    Args:
        rows: how many.
        dim: independent dimensions.
        mu: mode of X. Below 0 less than half of the numbers are not 0.
        sigma: scale of X; by default that of variance 1 (before rectification), $\sqrt{\Gamma(1/p) / \Gamma(3/p)} \, p^{-1/p}$.
        p: 2 for a normal distribution, 1 for Laplace's.
        seed: of the draws.

    Raises:
        UsageError: for a scale or p that is not above 0.
    """
    positive(p=p, sigma=unit_scale(p) if sigma is None else sigma)
    generator = np.random.Generator(np.random.Philox(seed % 2**64))
    size = (rows, dim)
    x = (p * generator.standard_gamma(1 / p, size)) ** (1 / p) * np.where(generator.random(size) < 0.5, -1.0, 1.0)
    x = mu + (unit_scale(p) if sigma is None else sigma) * x
    return torch.from_numpy(np.maximum(x, 0.0))


def unit_scale(p: float) -> float:
    r"""The scale of a generalised Gaussian of variance 1: 1 at p = 2, $1/\sqrt 2$ at p = 1."""
    positive(p=p)
    return math.exp((math.lgamma(1 / p) - math.lgamma(3 / p)) / 2 - math.log(p) / p)


def sliced_wasserstein(
    s: Float[Tensor, "*views batch dim"], target: Float[Tensor, "rows dim"], a: Float[Tensor, "dim slices"]
) -> Float[Tensor, ""]:
    r"""Mean over slices and ranks i of $((a \cdot s)_{(i)} - (a \cdot t)_{(i)})^2$; mean over views. Differentiable once, in s.

    Args:
        s: embeddings.
        target: as many rows as there are on all ranks.
        a: unit directions in the columns.

    Raises:
        UsageError: for another number of rows in the target, fewer than two rows, or (on the CPU) numbers that are not finite.
    """
    return checked(lambda s: _sliced_wasserstein(s, target, a), s)


class RDMReg(nn.Module):
    r"""`sliced_wasserstein` of each branch, their mean, to fresh draws from the target on fresh directions at each step.

    Embeddings have to end with a ReLU (``Projector(..., rectified=True)``): without one nothing makes them zero.

    Args:
        mu: mode of the target before rectification.
        sigma: its scale; by default that of variance 1.
        p: its exponent.
        slices: directions per step.
        seed: of directions and draws.

    Raises:
        UsageError: a number that is out of bounds.
    """

    def __init__(
        self,
        *,
        mu: float = 0.0,
        sigma: float | None = None,
        p: float = 1.0,
        slices: int = 1024,
        seed: int = 0,
    ):
        super().__init__()
        counts(slices=slices)
        if not math.isfinite(mu):
            raise UsageError(f"mu: expected a finite number, got {mu}", where="mu")
        self.mu, self.p = mu, p
        self.sigma = unit_scale(p) if sigma is None else sigma
        positive(sigma=self.sigma)
        self.slices = Slices(slices, seed=seed)

    def extra_repr(self) -> str:
        """The target."""
        return f"mu={self.mu}, sigma={self.sigma:.3g}, p={self.p}"

    def forward(self, inference: Inference) -> Tensor:
        """Scalar."""
        s = inference.energy.s_y
        rows, dim = gather_rows(s[..., :0])[0].shape[-2], s.shape[-1]
        seed = self.slices.seed + self.slices.current()
        target = rectified_gaussian(rows, dim, mu=self.mu, sigma=self.sigma, p=self.p, seed=seed).to(s.device)
        a = self.slices(dim, s)
        return over_branches(lambda s: _sliced_wasserstein(s, target, a), inference)


def _sliced_wasserstein(s: Tensor, target: Tensor, a: Tensor) -> Tensor:
    total = gather_rows(s[..., :0])[0].shape[-2]
    if target.shape != (total, s.shape[-1]):
        raise UsageError(f"expected a target of shape {(total, s.shape[-1])}, got {tuple(target.shape)}")
    elements = 2**18 if s.device.type == "cpu" else 2**24
    return sliced_mean(s, a, matched_quantiles, elements=elements, reference=target.to(s))
