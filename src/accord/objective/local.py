r"""VICRegL: positions of two feature maps that show the same thing are paired, and VICReg is asked of the pairs.

Bardes, Ponce, LeCun 2022, arXiv:2210.01571. Positions are paired by their features, or by where they were in the image before it
was cropped. Maps are (batch, positions, dim), as a convolutional network has them before its pooling.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from accord.collective import mean_over_ranks
from accord.model.energy import squared_error
from accord.model.latent import counts
from accord.objective.candidates import full
from accord.objective.checks import require
from accord.objective.regularizers import covariance, variance


def nearest_matches(
    a: Float[Tensor, "batch p dim"],
    b: Float[Tensor, "batch q dim"],
    *,
    count: int,
    place_a: Float[Tensor, "batch p axes"] | None = None,
    place_b: Float[Tensor, "batch q axes"] | None = None,
) -> tuple[Float[Tensor, "batch count dim"], Float[Tensor, "batch count dim"]]:
    r"""Each position of `a` with the nearest of `b`, of which the `count` closest pairs are kept, the closest first.

    Near in features, $\lVert a_p - b_q \rVert$, or, where places are given, by these. The choice has no gradient, the pairs have one.

    Raises:
        UsageError: for maps of different batches or widths, more pairs than positions, or one place without the other.
    """
    counts(count=count)
    require(
        a.ndim == b.ndim == 3 and a.shape[::2] == b.shape[::2],
        f"expected maps (batch, positions, dim), got {tuple(a.shape)} and {tuple(b.shape)}",
    )
    require(count <= a.shape[1], f"{count} pairs were asked for of {a.shape[1]} positions")
    require((place_a is None) == (place_b is None), "give the places of both maps, or of none")
    with torch.no_grad():
        left, right = (a, b) if place_a is None or place_b is None else (place_a, place_b)
        nearest, partner = torch.cdist(full(left), full(right)).min(dim=2)
        closest = nearest.topk(count, dim=1, largest=False).indices
        partner = partner.gather(1, closest)
    return _taken(a, closest), _taken(b, partner)


def local_vicreg(
    a: Float[Tensor, "batch p dim"],
    b: Float[Tensor, "batch q dim"],
    *,
    count: int = 20,
    place_a: Float[Tensor, "batch p axes"] | None = None,
    place_b: Float[Tensor, "batch q axes"] | None = None,
    invariance: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> Float[Tensor, ""]:
    r"""VICReg of matched positions: the mean over both directions, a to b and b to a; with places, plus the same by place.

    Of the pairs, (batch, count, dim): invariance is the mean over all of the squared difference; variance and covariance are taken over
    the batch for each of the `count` ranks of closeness, in the convention of `vicreg`, and averaged over them. The paper adds it with
    weight $1 - \alpha = 0.25$ to $\alpha$ times VICReg of the pooled embeddings.

    Raises:
        UsageError: as `nearest_matches`, and for fewer than two rows.
    """

    def one(s: Tensor, t: Tensor) -> Tensor:
        ranks = s.movedim(1, 0), t.movedim(1, 0)
        spread = (variance(ranks[0]) + variance(ranks[1])) / 2
        redundancy = covariance(ranks[0]) + covariance(ranks[1])
        return (
            invariance * mean_over_ranks(squared_error(s, t))
            + variance_weight * spread
            + covariance_weight * redundancy
        )

    def both(place_a: Tensor | None, place_b: Tensor | None) -> Tensor:
        there = one(*nearest_matches(a, b, count=count, place_a=place_a, place_b=place_b))
        back = one(*nearest_matches(b, a, count=count, place_a=place_b, place_b=place_a))
        return (there + back) / 2

    by_features = both(None, None)
    return by_features if place_a is None and place_b is None else by_features + both(place_a, place_b)


def _taken(t: Tensor, index: Tensor) -> Tensor:
    return t.gather(1, index[..., None].expand(*index.shape, t.shape[-1]))
