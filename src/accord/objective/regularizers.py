r"""What keeps embeddings from collapsing: variance, covariance, cross-correlation and sliced normality of a batch.

Every statistic is of the batch of all ranks, in float32 at least (float64 stays float64), outside autocast. Axes before the batch
axis are views (crops of one sample): the statistic is taken per view and then averaged.

Each function takes embeddings and checks them: shape, at least two rows and, on the CPU only, that every number is finite (on
another device that would wait for it). Each term takes an inference and leaves non-finite numbers to the trainer, which names the
step and the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.collective import all_reduce_sum, total_rows, world_size
from accord.objective.checks import checked, evaluate, over_branches, require
from accord.objective.gram import gram_product
from accord.objective.loss import Inference
from accord.objective.slices import Slices, epps_pulley, normal_quantiles, sliced_mean

# --- functions of embeddings ---


def variance(s: Float[Tensor, "*views batch dim"], *, target: float = 1.0, eps: float = 1e-4) -> Float[Tensor, ""]:
    r"""Hinge on the standard deviation, $\frac{1}{D}\sum_j \max(0, \gamma - \sqrt{\mathrm{Var}_j + \epsilon})$, unbiased Var.

    Mean over D and over views. VICReg (Bardes, Ponce, LeCun 2022), arXiv:2105.04906, equation 1.

    Raises:
        UsageError: fewer than two rows, a wrong shape, or (on the CPU) numbers that are not finite.
    """
    return checked(partial(_variance, target=target, eps=eps), s)


def covariance(s: Float[Tensor, "*views batch dim"]) -> Float[Tensor, ""]:
    r"""Redundancy between dimensions, $\frac{1}{D}\sum_{i \ne j} C_{ij}^2$ with unbiased covariance $C$.

    The sum is divided by D, as in the authors' code: VICReg (Bardes, Ponce, LeCun 2022), arXiv:2105.04906, equations 3-4. With fewer
    rows than dimensions it is computed from the Gram matrix: $\sum_{ij} C_{ij}^2 = \lVert X X^T \rVert_F^2 / (N-1)^2$.

    Raises:
        UsageError: as `variance`.
    """
    return checked(_covariance, s)


def barlow_on_diagonal(
    s_x: Float[Tensor, "*views batch dim"], s_y: Float[Tensor, "*views batch dim"], *, eps: float = 1e-5
) -> Float[Tensor, ""]:
    r"""Invariance of Barlow Twins, $\sum_i (1 - C_{ii})^2$, with C the cross-correlation of both views (sum over D).

    Each view is standardised per dimension with its biased variance plus `eps`.
    Zbontar, Jing, Misra, LeCun, Deny 2021, arXiv:2103.03230, equation 1.

    Raises:
        UsageError: as `variance`, and where the shapes of the views differ.
    """
    return checked(partial(_on_diagonal, eps=eps), s_x, s_y)


def barlow_off_diagonal(
    s_x: Float[Tensor, "*views batch dim"], s_y: Float[Tensor, "*views batch dim"], *, eps: float = 1e-5
) -> Float[Tensor, ""]:
    r"""Redundancy of Barlow Twins, $\sum_{i \ne j} C_{ij}^2$ (sum over the D (D - 1) pairs); see `barlow_on_diagonal`.

    With fewer rows than dimensions it is computed from two Gram matrices.
    """
    return checked(partial(_off_diagonal, eps=eps), s_x, s_y)


def sliced_epps_pulley(
    s: Float[Tensor, "*views batch dim"], a: Float[Tensor, "dim slices"], *, knots: int = 17, t_max: float = 3.0
) -> Float[Tensor, ""]:
    r"""SIGReg on the given directions: mean over the columns a of $N \int |\hat\varphi_a(t) - e^{-t^2/2}|^2 e^{-t^2/2} dt$.

    0 in expectation only for a standard normal; the factor N makes it grow with the batch where the distribution is another one.
    LeJEPA (Balestriero, LeCun 2025), arXiv:2511.08544. Memory does not grow with the number of slices; differentiable once.

    Raises:
        UsageError: as `variance`.
    """
    return checked(partial(_sliced_epps_pulley, a=a, knots=knots, t_max=t_max), s)


def center(s: Float[Tensor, "*views batch dim"]) -> Float[Tensor, ""]:
    r"""Mean over dimensions of the squared mean, $\frac{1}{D}\sum_j \bar z_j^2$ (VISReg, arXiv:2606.02572)."""
    return checked(_center, s)


def scale(s: Float[Tensor, "*views batch dim"]) -> Float[Tensor, ""]:
    r"""$\frac{1}{D}\sum_j (1 - \sigma_j)^2$, biased $\sigma$; its gradient does not vanish near collapse (VISReg, arXiv:2606.02572)."""
    return checked(_scale, s)


def sliced_shape(s: Float[Tensor, "*views batch dim"], a: Float[Tensor, "dim slices"]) -> Float[Tensor, ""]:
    r"""Mean over slices a and ranks i of $(\mathrm{sort}(a \cdot \tilde z)_i - \Phi^{-1}(i/(N+1)))^2$.

    $\tilde z = (z - \bar z)/(\mathrm{sg}(\sigma) + 10^{-4})$: standardised, without gradient through the biased $\sigma$
    (VISReg, arXiv:2606.02572). Differentiable once.
    """
    return checked(partial(_sliced_shape, a=a), s)


# --- terms of an objective ---


@dataclass(frozen=True)
class Variance:
    """`variance` of both branches: their mean, as VICReg's published code has it, or their sum, as the paper has it."""

    target: float = 1.0
    eps: float = 1e-4
    halved: bool = True

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        kernel = partial(_variance, target=self.target, eps=self.eps)
        return over_branches(kernel, inference) * (1 if self.halved else 2)


@dataclass(frozen=True)
class Covariance:
    """`covariance` of both branches: their sum."""

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return 2 * over_branches(_covariance, inference)


@dataclass(frozen=True)
class BarlowOnDiagonal:
    """`barlow_on_diagonal` between the branches."""

    eps: float = 1e-5

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return evaluate(partial(_on_diagonal, eps=self.eps), inference.energy.s_x, inference.energy.s_y)


@dataclass(frozen=True)
class BarlowOffDiagonal:
    """`barlow_off_diagonal` between the branches."""

    eps: float = 1e-5

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return evaluate(partial(_off_diagonal, eps=self.eps), inference.energy.s_x, inference.energy.s_y)


class SIGReg(nn.Module):
    """`sliced_epps_pulley` of each branch on fresh directions at each step, averaged over the branches.

    Args:
        slices: number of directions per step.
        knots: points of the quadrature on [0, t_max].
        t_max: end of the quadrature.
        seed: of the directions.

    Raises:
        UsageError: a number that is out of bounds.
    """

    def __init__(self, *, slices: int = 1024, knots: int = 17, t_max: float = 3.0, seed: int = 0):
        super().__init__()
        require(slices >= 1, f"sigreg needs at least one slice, got {slices}")
        require(knots >= 2, f"sigreg needs at least two knots, got {knots}")
        require(t_max > 0, f"sigreg integrates from 0 to t_max > 0, got {t_max}")
        self.slices = Slices(slices, seed=seed)
        self.knots = knots
        self.t_max = t_max

    def forward(self, inference: Inference) -> Tensor:
        """Scalar."""
        a = self.slices(inference.energy.s_y.shape[-1], inference.energy.s_y)
        return over_branches(partial(_sliced_epps_pulley, a=a, knots=self.knots, t_max=self.t_max), inference)


@dataclass(frozen=True)
class Center:
    """`center`, averaged over the branches."""

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return over_branches(_center, inference)


@dataclass(frozen=True)
class Scale:
    """`scale`, averaged over the branches."""

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return over_branches(_scale, inference)


class SlicedShape(nn.Module):
    """`sliced_shape` of each branch on fresh directions at each step, averaged over the branches.

    Args:
        slices: number of directions per step.
        seed: of the directions.
    """

    def __init__(self, *, slices: int = 4096, seed: int = 0):
        super().__init__()
        require(slices >= 1, f"visreg needs at least one slice, got {slices}")
        self.slices = Slices(slices, seed=seed)

    def forward(self, inference: Inference) -> Tensor:
        """Scalar."""
        a = self.slices(inference.energy.s_y.shape[-1], inference.energy.s_y)
        return over_branches(partial(_sliced_shape, a=a), inference)


# --- formulas, on float32 or float64 and outside autocast ---


def _centred(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Deviations from the mean, that mean (*views, 1, dim), and the number of rows, all over all ranks."""
    n = total_rows(s)
    mean = all_reduce_sum(s.sum(-2, keepdim=True)) / n
    return s - mean, mean, n


def _squares(centred: Tensor) -> Tensor:
    """Sum of squares over the rows of all ranks, (*views, dim)."""
    return all_reduce_sum(centred.square().sum(-2))


def _variance(s: Tensor, *, target: float, eps: float) -> Tensor:
    x, _, n = _centred(s)
    return torch.relu(target - (_squares(x) / (n - 1) + eps).sqrt()).mean()


def _covariance(s: Tensor) -> Tensor:
    x, _, n = _centred(s)
    return (_off_diagonal_squares(x, x) / (n - 1).square()).mean() / s.shape[-1]


def _off_diagonal_squares(x: Tensor, y: Tensor) -> Tensor:
    r"""$\sum_{i \ne j} (X^T Y)_{ij}^2$ per view; by the rows where they are fewer than the columns.

    Several ranks always sum the D x D matrix: the side must not depend on a rank's own number of rows.
    """
    if world_size() == 1 and x.shape[-2] < x.shape[-1]:
        return gram_product(x, None if x is y else y) - (x * y).sum(-2).square().sum(-1)
    c = all_reduce_sum(x.mT @ y)
    on_diagonal = torch.eye(c.shape[-1], dtype=torch.bool, device=c.device)
    return c.masked_fill(on_diagonal, 0).square().sum((-2, -1))


def _standardised(s: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    if world_size() == 1:  # the same, in one fast kernel that keeps nothing but its input
        by_rows = s.movedim(-2, 0)
        x = F.batch_norm(by_rows.reshape(s.shape[-2], -1), None, None, training=True, eps=eps)
        return x.view(by_rows.shape).movedim(0, -2), total_rows(s)
    x, _, n = _centred(s)
    return x * (_squares(x) / n + eps).rsqrt().unsqueeze(-2), n


def _on_diagonal(s_x: Tensor, s_y: Tensor, *, eps: float) -> Tensor:
    x, n = _standardised(s_x, eps)
    y, _ = _standardised(s_y, eps)
    diagonal = all_reduce_sum((x * y).sum(-2)) / n
    return (1 - diagonal).square().sum(-1).mean()


def _off_diagonal(s_x: Tensor, s_y: Tensor, *, eps: float) -> Tensor:
    x, n = _standardised(s_x, eps)
    y, _ = _standardised(s_y, eps)
    return (_off_diagonal_squares(x, y) / n.square()).mean()


def _sliced_epps_pulley(s: Tensor, *, a: Tensor, knots: int, t_max: float) -> Tensor:
    statistic = partial(epps_pulley, knots=knots, t_max=t_max)
    least = _SLICES * math.prod(s.shape[:-1])
    return sliced_mean(s, a, statistic, elements=max(least, _BLOCK[s.device.type == "cpu"] // knots))


def _center(s: Tensor) -> Tensor:
    return _centred(s)[1].square().mean()


def _scale(s: Tensor) -> Tensor:
    x, _, n = _centred(s)
    sigma = (_squares(x) / n).clamp_min(torch.finfo(s.dtype).tiny).sqrt()  # no division by 0 in the gradient
    return (1 - sigma).square().mean()


def _sliced_shape(s: Tensor, *, a: Tensor) -> Tensor:
    x, _, n = _centred(s)
    sigma = (_squares(x.detach()) / n).sqrt().unsqueeze(-2)
    return sliced_mean(x / (sigma + 1e-4), a, normal_quantiles, elements=_BLOCK[s.device.type == "cpu"])


_BLOCK = {True: 2**18, False: 2**24}
"""Numbers a block of slices may hold on the CPU (they stay in its cache) and elsewhere (few, large kernels)."""
_SLICES = 16
"""Slices in a block of SIGReg, at least: narrower ones leave the vector units idle (with 3, at n = 4,096, 1.7 times as slow)."""
