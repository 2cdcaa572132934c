r"""VICRegL: positions of two feature maps that show the same thing are paired, and VICReg is asked of them.

Bardes, Ponce, LeCun 2022, arXiv:2210.01571. As a principle (`accord.vicregl`) positions are matched in the energy, by their features
(`accord.LocalMatching`), and what is here asks the rest of VICReg of every part of the embeddings. The functions take maps (batch,
positions, dim) that are at hand, as a convolutional network has them before its pooling, and match by features or by where positions were
in the image before it was cropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from accord.collective import mean_over_ranks
from accord.errors import UsageError
from accord.model.density import full
from accord.model.energy import all_squares, squared_error
from accord.model.latent import counts
from accord.model.matching import LocalMatching
from accord.objective.checks import require
from accord.objective.loss import Inference, Term
from accord.objective.regularizers import covariance, variance


@dataclass(frozen=True)
class OfParts:
    r"""$\alpha$ times a term of the global parts of embeddings plus $1 - \alpha$ times the same term of the local ones.

    Each position is a view of its own: (..., batch, positions, dim) counts as (..., positions, batch, dim). That is the variant of VICRegL
    in which statistics are of all positions, not of matched ones only (`fast_vc_reg` in the authors' code).

    Args:
        term: reads the embeddings and nothing else, as `Variance` and `Covariance` do.

    Raises:
        UsageError: when called, for a model whose cost is no `LocalMatching`.
    """

    term: Term

    def __call__(self, inference: Inference) -> Tensor:
        """Scalar."""
        energy, cost = inference.energy, inference.energy.cost
        if not isinstance(cost, LocalMatching):
            raise UsageError(
                "the embeddings have no parts: vicregl needs the cost LocalMatching",
                help="give it to the model, or use vicreg",
            )
        x, y = cost.parts(energy.s_x), cost.parts(energy.s_y)
        whole = energy.of(x.whole, y.whole, energy.action)
        local = energy.of(x.local.transpose(-3, -2), y.local.transpose(-3, -2), energy.action)
        of_whole, of_local = (self.term(inference._replace(energy=part)) for part in (whole, local))
        return cost.alpha * of_whole + (1 - cost.alpha) * of_local


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
        nearest, partner = all_squares(full(left), full(right)).min(dim=2)
        closest = nearest.topk(count, dim=1, largest=False).indices
    return _taken(a, closest), _taken(b, partner.gather(1, closest))


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
