r"""Uniformity on the sphere, $\log \mathbb E\, e^{-t \lVert f - f' \rVert^2}$, of all pairs of different rows of a branch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from accord.collective import all_reduce_sum, all_rows
from accord.model.latent import counts, positive
from accord.model.minimize import ELEMENTS, again
from accord.objective.checks import checked, over_branches
from accord.objective.loss import Inference


def uniformity(s: Float[Tensor, "*views batch dim"], *, t: float = 2.0, chunk: int = ELEMENTS) -> Float[Tensor, ""]:
    r"""$\log \frac{1}{N(N-1)} \sum_{i \ne j} e^{-t \lVert f_i - f_j \rVert^2}$ with $f = s / \lVert s \rVert$; mean over views.

    0 where all rows point in one direction. Wang, Isola 2020, arXiv:2005.10242.

    Args:
        s: embeddings of any length.
        t: sharpness of the potential.
        chunk: numbers made at a time; it changes nothing but memory.

    Raises:
        UsageError: fewer than two rows, a wrong shape, or (on the CPU) numbers that are not finite.
    """
    positive(t=t)
    counts(chunk=chunk)
    return checked(lambda s: _uniformity(s, t, chunk), s)


@dataclass(frozen=True)
class Uniformity:
    """`uniformity` of each branch, averaged over the branches."""

    t: float = 2.0
    chunk: int = ELEMENTS

    def __post_init__(self) -> None:
        positive(t=self.t)
        counts(chunk=self.chunk)

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        return over_branches(lambda s: _uniformity(s, self.t, self.chunk), inference)


def _uniformity(s: Tensor, t: float, chunk: int) -> Tensor:
    f = F.normalize(s, dim=-1)
    rows, own = all_rows(f)
    n, total = f.shape[-2], rows.shape[-2]

    def potential(start: int, stop: int) -> Tensor:
        """Of some rows with all others: the squared distance of unit vectors is 2 - 2 cos."""
        cosine = f[..., start:stop, :] @ rows.mT
        itself = torch.arange(own.start + start, own.start + stop, device=s.device)[:, None]
        itself = itself == torch.arange(total, device=s.device)
        return torch.exp(2 * t * (cosine - 1)).masked_fill(itself, 0).sum((-2, -1))

    step = max(1, chunk // max(1, f.numel() // (n * f.shape[-1]) * total))
    if step >= n:
        found = potential(0, n)
    else:
        found = torch.stack([again(potential, start, min(start + step, n)) for start in range(0, n, step)]).sum(0)
    return (all_reduce_sum(found) / (total * (total - 1))).log().mean()
