"""Training principles that need no negatives: each is a short list of weighted terms.

The same three numbers are different objectives in different libraries: every weight here belongs to the normalisation that the
docstring states.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from accord.errors import UsageError
from accord.model.joint_embedding import JointEmbedding
from accord.objective.local import OfParts
from accord.objective.loss import Inference, Objective, Terms, free_energy
from accord.objective.rectified import RDMReg
from accord.objective.regularizers import (
    BarlowOffDiagonal,
    BarlowOnDiagonal,
    Center,
    Covariance,
    Scale,
    SIGReg,
    SlicedShape,
    Variance,
)
from accord.objective.volume import CentroidNorm, CodingRate, CosineToMean, LocalNorm


def vicreg(
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    convention: Literal["official", "paper"] = "official",
) -> Terms:
    r"""VICReg: invariance, variance, covariance. The default weights belong to the "official" convention.

    - "official", the authors' code: invariance is the mean over batch and D of $(s_y - \hat s_y)^2$; variance is the *mean* of
      the hinges of both branches; covariance is the sum over both branches of $\frac{1}{D}\sum_{i \ne j} C_{ij}^2$.
    - "paper", the text: invariance is the mean over the batch of $\lVert s_y - \hat s_y \rVert^2$ (D times as much); variance is
      the *sum* of the hinges of both branches; covariance as above.

    Both take the free energy as invariance, so they assume a cost that is a mean over D, as `squared_error` is.
    Bardes, Ponce, LeCun 2022, arXiv:2105.04906.

    Raises:
        UsageError: a negative weight or an unknown convention.
    """
    _weights(invariance=invariance, variance=variance, covariance=covariance)
    if convention not in ("official", "paper"):
        raise UsageError(f"convention is 'official' or 'paper', got {convention!r}")
    official = convention == "official"
    return {
        "free_energy": (invariance, free_energy if official else summed_free_energy),
        "variance": (variance, Variance(halved=official)),
        "covariance": (covariance, Covariance()),
    }


def vicregl(*, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Terms:
    r"""VICRegL: $\alpha$ VICReg of the global parts $+ (1 - \alpha)$ VICReg of the positions, in the "official" convention of `vicreg`.

    For embeddings of parts, with `LocalProjector` and the cost `LocalMatching`, which has $\alpha$ and is the invariance of both parts.
    Variance and covariance are taken over the batch for each position, and averaged over them (see `OfParts`). Positions are matched by
    their features; the paper matches them by place too, see `LocalMatching`. Bardes, Ponce, LeCun 2022, arXiv:2210.01571.

    Raises:
        UsageError: a negative weight; when called, for a model of another cost.
    """
    _weights(invariance=invariance, variance=variance, covariance=covariance)
    return {
        "free_energy": (invariance, free_energy),
        "variance": (variance, OfParts(Variance())),
        "covariance": (covariance, OfParts(Covariance())),
    }


def barlow_twins(*, off_diagonal: float = 0.005) -> Terms:
    r"""Barlow Twins: $\sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2$, C the cross-correlation of the branches.

    The free energy is not part of the loss. With a projector whose last layer is a batch norm without scale and shift
    (``Projector(..., final_norm=True)``) the energy that is served follows the loss all the same: the mean over a batch of its
    `squared_error` is $2 (1 - \frac{1}{D}\sum_i C_{ii})$. Without one, distances in the embedding are not trained.
    Zbontar, Jing, Misra, LeCun, Deny 2021, arXiv:2103.03230 (the sum is not multiplied by 0.1, as some libraries do).

    Args:
        off_diagonal: $\lambda$.

    Raises:
        UsageError: a negative weight.
    """
    _weights(off_diagonal=off_diagonal)
    return {"on_diagonal": (1.0, BarlowOnDiagonal()), "off_diagonal": (off_diagonal, BarlowOffDiagonal())}


def sigreg(*, weight: float = 0.05, slices: int = 1024, knots: int = 17, t_max: float = 3.0, seed: int = 0) -> Terms:
    r"""SIGReg (LeJEPA): $(1 - \lambda)\,\mathrm{inv} + \lambda\,\mathrm{SIGReg}$, the latter averaged over the branches.

    inv is the mean over two views, batch and D of $(z_v - \frac{z_1 + z_2}{2})^2$, which is a quarter of the mean free energy
    under `squared_error`: hence the weight $(1 - \lambda)/4$ on the free energy. SIGReg carries a factor N (all ranks): the same
    $\lambda$ weighs more in a larger batch. Balestriero, LeCun 2025, arXiv:2511.08544.

    Args:
        weight: $\lambda$ in [0, 1].
        slices: directions per step.
        knots: points of the quadrature on [0, t_max].
        t_max: end of the quadrature.
        seed: of the directions.

    Raises:
        UsageError: a number that is out of bounds.
    """
    _share(weight)
    term = SIGReg(slices=slices, knots=knots, t_max=t_max, seed=seed)
    return {"free_energy": ((1 - weight) / 4, free_energy), "sigreg": (weight, term)}


def visreg(*, weight: float = 0.9, slices: int = 4096, seed: int = 0) -> Terms:
    r"""VISReg: $(1 - \lambda)\,\mathrm{inv} + \lambda\,(\mathrm{center} + \mathrm{scale} + \mathrm{shape})$.

    The three are averaged over the branches; inv as in `sigreg`, hence the weight $(1 - \lambda)/4$ on the free energy.
    Defaults for large data; 0.6 is advised for small. arXiv:2606.02572.

    Args:
        weight: $\lambda$ in [0, 1].
        slices: directions per step.
        seed: of the directions.

    Raises:
        UsageError: a number that is out of bounds.
    """
    _share(weight)
    return {
        "free_energy": ((1 - weight) / 4, free_energy),
        "center": (weight, Center()),
        "scale": (weight, Scale()),
        "shape": (weight, SlicedShape(slices=slices, seed=seed)),
    }


def mmcr(*, local: float = 5e-3) -> Terms:
    r"""MMCR: $-\lVert C \rVert_* + \lambda \frac1N \sum_i \lVert Z_i \rVert_*$, centroids that fill the space, views that agree.

    Views of y are its embedding and the predictions of it, at length 1: with no predictor, those of x and y. For the cost `cosine`. The
    free energy is no term: agreement of the views makes their centroid long. So a predictor is trained, but not a latent, nor what finds
    it: give such a model the term `free_energy` as well. The first norm grows with the batch, up to
    $\sqrt{N \min(N, D)}$. Yerxa, Kuang, Simoncelli, Chung 2023, arXiv:2303.03307.

    Args:
        local: $\lambda$; they find it matters little.

    Raises:
        UsageError: a negative weight.
    """
    _weights(local=local)
    return {"centroids": (1.0, CentroidNorm()), "local": (local, LocalNorm())}


def coding_rate(*, invariance: float = 200.0, eps: float = 0.2) -> Terms:
    r"""Coding rate (TCR, EMP-SSL): $\lambda\,(1 - \cos(f, \bar f)) - \frac12 \log\det(I + \frac{D}{N \epsilon} F^T F)$ on the sphere.

    The rate is *subtracted*, and averaged over the branches; $\bar f$ is the mean of a pair, so that with the cost `cosine` the first
    part is a function of the free energy alone, $1 - \sqrt{1 - F/2}$. Yu et al. 2020, arXiv:2006.08558 (MCR$^2$); Tong, Chen, Ma, LeCun
    2023, arXiv:2304.03977 (EMP-SSL, whose code has these defaults).

    Args:
        invariance: $\lambda$.
        eps: squared precision of the code.

    Raises:
        UsageError: a number that is out of bounds.
    """
    _weights(invariance=invariance)
    return {"invariance": (invariance, CosineToMean()), "coding_rate": (1.0, CodingRate(eps))}


def rdmreg(
    *,
    invariance: float = 25.0,
    weight: float = 250.0,
    mu: float = 0.0,
    p: float = 1.0,
    slices: int = 1024,
    seed: int = 0,
) -> Terms:
    r"""RDMReg (Rectified LpJEPA): sparse embeddings, distributed as $\max(0, X)$ with X a generalised Gaussian of variance 1.

    $25\,\mathrm{inv} + 250\,W$: inv is the mean over batch and D of $(s_y - \hat s_y)^2$, the free energy under `squared_error`; W the mean
    over branches, slices and ranks of the squared distance of sorted projections to those of as many draws from the target. The
    embeddings have to end with a ReLU: ``Projector(..., rectified=True)``. Kuang et al. 2026, arXiv:2602.01456, weights and target of
    the authors' code (which takes 8192 slices, and finds 512 as good).

    Args:
        invariance: weight of inv.
        weight: weight of W.
        mu: mode of X; below 0 for fewer numbers that are not 0.
        p: exponent of X, 1 for Laplace's distribution, 2 for the normal one.
        slices: directions per step.
        seed: of directions and draws.

    Raises:
        UsageError: a number that is out of bounds.
    """
    _weights(invariance=invariance, weight=weight)
    return {
        "free_energy": (invariance, free_energy),
        "rdmreg": (weight, RDMReg(mu=mu, p=p, slices=slices, seed=seed)),
    }


def regularized(model: JointEmbedding, principle: Terms | None = None) -> Objective:
    """`model` trained without negatives: pairs pull their energy down, the principle keeps the embeddings from collapsing.

    Args:
        model: the energy; both of its embeddings are regularised, the prediction is not.
        principle: weighted terms, VICReg by default. Terms with state belong to one objective: make new ones for another.

    Example:
        >>> objective = regularized(model, sigreg(weight=0.02))
    """
    return Objective(model, vicreg() if principle is None else principle)


def summed_free_energy(inference: Inference) -> Tensor:
    """Mean over the batch of D times the free energy: turns a cost that is a mean over dimensions into a sum."""
    return free_energy(inference) * inference.energy.s_y.shape[-1]


def _weights(**weights: float) -> None:
    for name, value in weights.items():
        if not value >= 0:
            raise UsageError(f"{name} is a weight: expected a number >= 0, got {value}")


def _share(weight: float) -> None:
    if not 0 <= weight <= 1:
        raise UsageError(f"weight is the share of the regularizer: expected a number in [0, 1], got {weight}")
