r"""Label-free diagnostics of embeddings and energies: rank, spread, correlation, and how far matched and mismatched energies are apart.

All are computed in float64 and return Python floats; all raise `ValueError` on values that are not finite, instead of hiding them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

TEACHERS = "with a teacher and nothing else, check that there is a predictor and that the teacher gets no gradient"
"""What helps, besides, where nothing but a teacher keeps embeddings apart."""
RANK_EPSILON = 1e-7
"""Added to each normalised singular value: the constant of RankMe. A larger one inflates the value of a collapsed embedding."""


def spectrum(s: Float[Tensor, "batch dim"], *, centre: bool = False) -> Float[Tensor, "rank"]:
    """Singular values, descending, min(batch, dim) of them, float64; `centre` subtracts the mean over the batch first.

    They are roots of the eigenvalues of the smaller Gram matrix: exact to about 1e-8 of the largest, and far cheaper than an SVD.

    Raises:
        ValueError: if `s` is not a matrix, is empty, or has values that are not finite.
    """
    s = _matrix(s)
    if centre:
        s = s - s.mean(0)
    gram = s.T @ s if s.shape[0] >= s.shape[1] else s @ s.T
    eigenvalues: Tensor = torch.linalg.eigvalsh(gram)
    return eigenvalues.clamp_min(0).sqrt().flip(0)


def effective_rank(s: Float[Tensor, "batch dim"]) -> float:
    r"""RankMe, $\exp(-\sum_k p_k \log p_k)$ with $p_k = \sigma_k / \lVert\sigma\rVert_1 + 10^{-7}$, in [1, min(batch, dim)].

    The singular values are those of `s` itself, not centred: a constant embedding has effective rank 1, an all-zero one too.
    Meaningful for batch >> dim. Garrido, Balestriero, Najman, LeCun 2023, arXiv:2210.02885; Roy and Vetterli 2007.

    Raises:
        ValueError: as `spectrum`.
    """
    return effective_rank_of(spectrum(s))


def effective_rank_of(values: Float[Tensor, "rank"]) -> float:
    """The effective rank of a spectrum that is at hand; 1 where all values are 0."""
    total = values.sum()
    if total == 0:
        return 1.0
    p = values / total + RANK_EPSILON
    return float((-(p * p.log()).sum()).exp())


class StdStatistics(NamedTuple):
    """Standard deviations over the batch, one per dimension: their least, their mean, and the share of them below 0.1."""

    least: float
    mean: float
    share_below: float


def std_statistics(s: Float[Tensor, "batch dim"], *, below: float = 0.1) -> StdStatistics:
    r"""Statistics of $\sqrt{\mathrm{Var}(s_j)}$ (unbiased) over dimensions j: the first alarm of a collapse.

    The limit of 0.1 is meant for embeddings that are trained towards a standard deviation of 1 (VICReg, SIGReg); rows of unit length
    have about $1/\sqrt{D}$ when all is well. Bardes, Ponce, LeCun 2022, arXiv:2105.04906.

    Raises:
        ValueError: as `spectrum`, and with fewer than 2 rows.
    """
    std = _matrix(s, least_rows=2).std(0)
    return StdStatistics(float(std.min()), float(std.mean()), float((std < below).double().mean()))


def relative_spread(s: Float[Tensor, "batch dim"]) -> float:
    r"""Total standard deviation relative to length, $\sqrt{\sum_j \mathrm{Var}(s_j) / \mathrm{mean}\lVert s \rVert^2}$, in [0, 1].

    Independent of scale: 0 where all rows are equal (or zero), 1 where they are centred. Biased variance.

    Raises:
        ValueError: as `spectrum`.
    """
    s = _matrix(s)
    length = s.square().sum(1).mean()
    return float((s.var(0, unbiased=False).sum() / length).clamp(0, 1).sqrt()) if length > 0 else 0.0


def off_diagonal_correlation(s: Float[Tensor, "batch dim"]) -> float:
    r"""$\mathrm{mean}_{i \ne j} |\mathrm{corr}(s_i, s_j)|$ over pairs of dimensions that vary; 0 with fewer than two of them.

    1 where every dimension says the same. Independent dimensions give about $\sqrt{2 / (\pi\, \mathrm{batch})}$, not 0.
    After Zbontar et al. 2021, arXiv:2103.03230.

    Raises:
        ValueError: as `spectrum`, and with fewer than 2 rows.
    """
    s = _matrix(s, least_rows=2)
    centred = s - s.mean(0)
    length = centred.norm(dim=0)
    varies = length > 1e-7 * s.norm(dim=0)  # rounding of a constant column is not a signal
    count = int(varies.sum())
    if count < 2:
        return 0.0
    unit = centred[:, varies] / length[varies]
    correlation = (unit.T @ unit).abs()
    return float((correlation.sum() - correlation.diagonal().sum()) / (count * (count - 1)))


def alpha_req(s: Float[Tensor, "batch dim"], *, first: int = 11, last: int = 500) -> float | None:
    r"""Decay $\alpha$ of the covariance spectrum $\lambda_j \propto j^{-\alpha}$; about 1 is good, see `alpha_req_of`.

    Raises:
        ValueError: as `spectrum`, and with fewer than 2 rows.
    """
    return alpha_req_of(spectrum(_matrix(s, least_rows=2), centre=True).square(), first=first, last=last)


def alpha_req_of(eigenvalues: Float[Tensor, "rank"], *, first: int = 11, last: int = 500) -> float | None:
    r"""Minus the slope of $\log \lambda_j$ against $\log j$, for descending eigenvalues of a covariance.

    Least squares weighted by 1/j over the ranks `first`..`last` (1-based; both from Stringer et al. 2019), of which only those with
    $\lambda_j > 10^{-12} \lambda_1$ count. Where fewer than 10 of them remain the range starts at 1; with fewer than 3, None.
    Agrawal, Mondal, Ghosh, Richards 2022, arXiv:2202.05808.
    """
    if not len(eigenvalues) or eigenvalues[0] <= 0:
        return None
    usable = min(int((eigenvalues > 1e-12 * eigenvalues[0]).sum()), last)
    start = first if usable - first + 1 >= 10 else 1
    if usable - start + 1 < 3:
        return None
    rank = torch.arange(start, usable + 1, dtype=torch.float64, device=eigenvalues.device)
    weight = 1 / rank
    u, v = rank.log(), eigenvalues[start - 1 : usable].double().log()
    u, v = (t - (weight * t).sum() / weight.sum() for t in (u, v))
    return -float((weight * u * v).sum() / (weight * u * u).sum())


def lidar(views: Float[Tensor, "batch view dim"], *, delta: float = 1e-4) -> float:
    r"""Effective rank of $\Sigma_w^{-1/2} \Sigma_b \Sigma_w^{-1/2}$: how many directions tell samples apart better than their views.

    $\Sigma_b$ is the covariance of the samples' means, $\Sigma_w$ the mean covariance of the views of one sample plus $\delta I$
    (both biased). Views are grouped: `views[i]` are q views of sample i. Thilak et al. 2024, arXiv:2312.04000.

    Raises:
        ValueError: unless there are at least 2 samples of at least 2 views, all finite.
    """
    if views.ndim != 3 or views.shape[0] < 2 or views.shape[1] < 2:
        raise ValueError(f"lidar needs (samples >= 2, views >= 2, dim), got {tuple(views.shape)}")
    samples, count, dim = views.shape
    views = _matrix(views.reshape(-1, dim)).reshape(samples, count, dim)
    centre = views.mean(1)
    within = (views - centre[:, None]).reshape(-1, dim)
    between = centre - centre.mean(0)
    sigma_w = within.T @ within / len(within) + delta * torch.eye(dim, dtype=within.dtype, device=within.device)
    # L^-1 S_b L^-T with S_w = L L^T has the eigenvalues of S_w^-1/2 S_b S_w^-1/2, and so has its smaller Gram matrix.
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(sigma_w), between.T, upper=False)
    return effective_rank_of(spectrum(whitened).square())


def auroc(matched: Tensor, mismatched: Tensor) -> float:
    r"""$P(F_{\mathrm{mismatched}} > F_{\mathrm{matched}}) + \frac12 P(=)$ over all pairs of one and the other: 1 separates, 0.5 is chance.

    Any shapes. The area under the ROC curve of the energy as a detector of mismatches (Mann-Whitney U), ties counted half.

    Raises:
        ValueError: if either is empty or has values that are not finite.
    """
    low, high = _values(matched).sort().values, _values(mismatched)
    below = torch.searchsorted(low, high)
    up_to = torch.searchsorted(low, high, right=True)
    return float((below + up_to).double().mean() / (2 * len(low)))


def d_prime(matched: Tensor, mismatched: Tensor) -> float:
    r"""$(\mu_{\mathrm{mismatched}} - \mu_{\mathrm{matched}}) / \sqrt{(\sigma^2_{\mathrm{mismatched}} + \sigma^2_{\mathrm{matched}}) / 2}$.

    Unbiased variances (0 for a single value). Where both are 0: 0 if the means are equal, else plus or minus infinity.

    Raises:
        ValueError: as `auroc`.
    """
    low, high = _values(matched), _values(mismatched)
    gap = float(high.mean() - low.mean())
    scale = math.sqrt(sum(float(v.var()) if len(v) > 1 else 0.0 for v in (low, high)) / 2)
    if scale > 0:
        return gap / scale
    return math.copysign(math.inf, gap) if gap else 0.0


def flatness(energies: Float[Tensor, "batch candidates"]) -> float:
    r"""$\mathrm{mean}_x \mathrm{Var}_y F(x, y) / \mathrm{mean} F$, rows x and columns y, biased variance: 0 where the energy ignores y.

    In units of the energy. 0 where the mean is 0: an energy that is 0 everywhere is flat.

    Raises:
        ValueError: as `spectrum`.
    """
    energies = _matrix(energies)
    mean = float(energies.mean())
    return float(energies.var(1, unbiased=False).mean()) / mean if mean > 0 else 0.0


class Verdict(NamedTuple):
    """A collapse by name ("constant", "dimensional" or "flat energy"), what was seen, and what to do."""

    kind: str
    explanation: str
    remedy: str


CONSTANT_SPREAD = 0.1
"""Healthy joint embeddings were measured at 0.37 to 1."""
FLAT_AUROC = 0.6
"""Healthy energies were measured above 0.9, untrained ones at 0.65, and 0.59 where only batch norm hid a collapse."""
FEW_DIMENSIONS = 8.0


def rank_limit(rows: int, dim: int) -> float:
    """Effective ranks below this are called a dimensional collapse: a tenth of what is possible, at least 1.1 and at most 8."""
    return max(1.1, min(min(rows, dim) / 10, FEW_DIMENSIONS))


def verdict(
    s: Float[Tensor, "batch dim"],
    *,
    energy_auroc: float | None = None,
    pairs: int | None = None,
    values: int | None = None,
) -> Verdict | None:
    """Names the collapse of a batch of embeddings, None where there is none.

    constant: total standard deviation below 10 % of the length (`relative_spread`); dimensional: effective rank below `rank_limit`;
    flat energy: AUROC of matched against random pairs below 0.6, see `flat`. The first that holds is named. With one dimension only the
    first and the last can hold.

    Args:
        s: embeddings.
        energy_auroc: of matched against random pairs; None leaves the energy out.
        pairs: how many pairs of either kind the AUROC is of; None where it is exact.
        values: numbers in one sample, which bound the rank of what can be embedded.

    Raises:
        ValueError: as `spectrum`.
    """
    spread = relative_spread(s)
    if spread < CONSTANT_SPREAD:
        return Verdict(
            "constant",
            f"all inputs get nearly the same embedding: its spread is {spread:.2g} of its length",
            "raise the weight of the variance (or SIGReg) term, lower the learning rate, and check that the inputs differ; "
            + TEACHERS,
        )
    rows, dim = s.shape
    rank, limit = effective_rank(s), rank_limit(rows, min(dim, values or dim))
    if dim > 1 and rank < limit:
        return Verdict(
            "dimensional",
            f"the embedding uses about {rank:.1f} of its {dim} dimensions (alarm below {limit:.1f})",
            "raise the weight of the covariance (or SIGReg) term, use larger batches, and make the views differ more; "
            + TEACHERS,
        )
    remedy = "make the views of one sample share more (weaker augmentation), raise the weight of the invariance term, or train longer"
    return None if energy_auroc is None else flat(energy_auroc, remedy, pairs=pairs)


def flat(energy_auroc: float, remedy: str, *, pairs: int | None = None) -> Verdict | None:
    r"""A flat energy by name, where matched and random pairs have an AUROC below 0.6.

    With so many `pairs` of either kind it has to be below by two standard errors, $\sqrt{(2n + 1) / 12} / n$ of an AUROC that is chance
    (Mann, Whitney 1947): a few pairs prove nothing.
    """
    error = 0.0 if pairs is None else math.sqrt((2 * pairs + 1) / 12) / pairs
    seen = f"the energy hardly tells matched from random pairs: AUROC {energy_auroc:.2f}, chance is 0.50"
    return Verdict("flat energy", seen, remedy) if energy_auroc < FLAT_AUROC - 2 * error else None


def _matrix(s: Tensor, *, least_rows: int = 1) -> Tensor:
    if s.ndim != 2 or s.shape[0] < least_rows or s.shape[1] < 1:
        raise ValueError(f"expected a matrix (batch >= {least_rows}, dim >= 1), got {tuple(s.shape)}")
    return _finite(s)


def _values(values: Tensor) -> Tensor:
    if not values.numel():
        raise ValueError("expected at least one energy, got none")
    return _finite(values.reshape(-1))


def _finite(values: Tensor) -> Tensor:
    values = values.detach()
    values = (values.cpu() if values.device.type == "mps" else values).double()  # MPS has no float64
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise ValueError(f"{bad} of {values.numel()} values are not finite (NaN or infinity)")
    return values
