r"""How much space embeddings on the sphere take: nuclear norm of centroids (MMCR) and coding rate (MCR$^2$, EMP-SSL).

As in `regularizers`: statistics are of the batch of all ranks, in float32 at least, outside autocast; axes before the batch axis are
views; functions check what they are given, terms leave non-finite numbers to the trainer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from accord.collective import all_reduce_sum, all_rows, mean_over_ranks, total_rows, world_size
from accord.model.latent import positive
from accord.objective.candidates import full
from accord.objective.checks import checked, evaluate, over_branches, require
from accord.objective.loss import Inference

# --- functions of embeddings ---


def centroid_norm(views: Float[Tensor, "views batch dim"]) -> Float[Tensor, ""]:
    r"""Nuclear norm of the centroids, $\lVert C \rVert_*$: the sum of singular values of the batch x D matrix of means over views.

    Rows are brought to length 1 before the mean. Large where views of one sample agree and samples use all directions alike. Yerxa,
    Kuang, Simoncelli, Chung 2023, arXiv:2303.03307.

    Raises:
        UsageError: for another shape, fewer than two rows, or (on the CPU) numbers that are not finite.
    """
    return checked(_centroid_norm, views)


def local_norm(views: Float[Tensor, "views batch dim"]) -> Float[Tensor, ""]:
    r"""Mean over the batch of the nuclear norm of the views of a sample, $\frac1N \sum_i \lVert Z_i \rVert_*$, $Z_i$ views x D.

    Rows are brought to length 1; $\sqrt V$ where all V views agree. Yerxa et al. 2023, arXiv:2303.03307.

    Raises:
        UsageError: as `centroid_norm`.
    """
    return checked(_local_norm, views)


def coding_rate(s: Float[Tensor, "*views batch dim"], *, eps: float = 0.2) -> Float[Tensor, ""]:
    r"""$\frac12 \log\det(I + \frac{D}{N \epsilon} Z^T Z)$ nats, rows of Z of length 1; mean over views. To be made large.

    $\epsilon$ is the squared precision of Yu et al. 2020, arXiv:2006.08558, as in the code of EMP-SSL (Tong et al. 2023,
    arXiv:2304.03977). With fewer rows than dimensions it is computed from the N x N Gram matrix, which has the same determinant.

    Raises:
        UsageError: fewer than two rows, a wrong shape, or (on the CPU) numbers that are not finite.
    """
    positive(eps=eps)
    return checked(partial(_coding_rate, eps=eps), s)


# --- terms of an objective ---


@dataclass(frozen=True)
class CentroidNorm:
    """Minus `centroid_norm` of the embedding of y and its predictions, which are the views: of x itself where nothing is predicted."""

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return -evaluate(_centroid_norm, views_of_y(inference))


@dataclass(frozen=True)
class LocalNorm:
    """`local_norm` of the same views."""

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return evaluate(_local_norm, views_of_y(inference))


@dataclass(frozen=True)
class CodingRate:
    """Minus `coding_rate`, averaged over the branches."""

    eps: float = 0.2

    def __post_init__(self) -> None:
        positive(eps=self.eps)

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return -over_branches(partial(_coding_rate, eps=self.eps), inference)


@dataclass(frozen=True)
class CosineToMean:
    r"""$1 - \cos(f, \frac{f + f^+}{2})$ for unit vectors whose energy is $F = 1 - \cos(f, f^+)$, which is $1 - \sqrt{1 - F/2}$."""

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        square = 1 - full(inference.minimum.value) / 2
        return mean_over_ranks(
            1 - square.clamp_min(torch.finfo(square.dtype).eps).sqrt()
        )  # no division by 0 in the gradient


def views_of_y(inference: Inference) -> Float[Tensor, "views batch dim"]:
    """The predictions of y at the z that was found, one for each view of x, and y itself."""
    energy = inference.energy
    prediction = energy.predict(inference.minimum.argmin)
    prediction = prediction.expand(*energy.batch_shape, prediction.shape[-1])
    require(prediction.ndim >= 2, f"expected a batch of pairs, got predictions of shape {tuple(prediction.shape)}")
    return torch.cat([t.reshape(-1, *t.shape[-2:]) for t in (prediction, energy.s_y)])


# --- formulas, on float32 or float64 and outside autocast ---


def _centroid_norm(views: Tensor) -> Tensor:
    centroids, _ = all_rows(F.normalize(views, dim=-1).mean(0))
    return _singular_values(centroids).sum()


def _local_norm(views: Tensor) -> Tensor:
    return mean_over_ranks(_singular_values(F.normalize(views, dim=-1).movedim(0, 1)).sum(-1))


def _singular_values(t: Tensor) -> Tensor:
    """Of matrices; what is not finite gives what is not a number instead of an error."""
    fine = t.isfinite().all()
    values: Tensor = torch.linalg.svdvals(torch.where(fine, t, 0.0))
    return torch.where(fine, values, torch.nan)


def _coding_rate(s: Tensor, *, eps: float) -> Tensor:
    z, n, dim = F.normalize(s, dim=-1), total_rows(s), s.shape[-1]
    smaller = (
        world_size() == 1 and s.shape[-2] < dim
    )  # several ranks sum the D x D matrix, whatever their own number of rows
    gram = z @ z.mT if smaller else all_reduce_sum(z.mT @ z)
    identity = torch.eye(gram.shape[-1], dtype=s.dtype, device=s.device)
    determinant: Tensor = torch.linalg.slogdet(identity + dim / (n * eps) * gram).logabsdet
    return determinant.mean() / 2
