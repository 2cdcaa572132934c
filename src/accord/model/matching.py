r"""An energy of parts: embeddings that consist of a global part and one part for each position are compared part by part.

The nearest position stands for what a position is compared with, so that it does not matter where in an image something is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from accord.errors import UsageError
from accord.model.density import every_pair, full
from accord.model.energy import all_squares, squared_error
from accord.model.latent import counts

NUMBERS = 1 << 22
"""Distances of positions made at a time where all are compared with all."""


class Parts(NamedTuple):
    """Of embeddings: the global part (*batch, global), and that of each position (*batch, positions, local)."""

    whole: Tensor
    local: Tensor


@dataclass(frozen=True)
class LocalMatching:
    r"""$D = \alpha\,\frac1G \lVert \hat g - g \rVert^2 + (1 - \alpha)\,\frac12 (m(\hat l, l) + m(l, \hat l))$, a `Cost`.

    An embedding is a vector $(g, l_1, \dots, l_P)$, as `LocalProjector` makes it; its width says how wide each $l_p$ is. $m(a, b)$ is the
    mean, over the `matches` positions p of a that are closest to b, of $\min_q \frac1L \lVert a_p - b_q \rVert^2$, mean over the L
    dimensions of a part. Which positions are matched is chosen without gradient; the distance of those has one. Not negative, symmetric,
    0 of equals, and the same for any order of the positions of either side.

    The free energy of VICRegL (Bardes, Ponce, LeCun 2022, arXiv:2210.01571), where positions are matched by their features; matches by the
    place in the image before it was cropped would need the crops, which pairs do not carry (`accord.objective.local.local_vicreg` takes
    places). To rank by the nearest part of each part is late interaction (Khattab, Zaharia 2020, arXiv:2004.12832).

    Args:
        dim: G, width of the global part.
        positions: P.
        matches: how many positions count, at most P.
        alpha: share of the global part, in [0, 1].

    Raises:
        UsageError: a number that is out of bounds; when called, if the rest of an embedding is no multiple of P.

    Example:
        >>> model = JointEmbedding(encoder, encoder, IdentityPredictor(), cost=LocalMatching(256, positions=16, matches=6))
    """

    dim: int
    positions: int
    matches: int
    alpha: float = 0.75

    def __post_init__(self) -> None:
        counts(dim=self.dim, positions=self.positions, matches=self.matches)
        if self.matches > self.positions:
            raise UsageError(
                f"{self.matches} matches were asked for of {self.positions} positions",
                where="matches",
                help=f"set it to {self.positions} or less",
            )
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha is the share of the global part: expected a number in [0, 1], got {self.alpha}")

    def __call__(self, s_y_hat: Float[Tensor, "*a dim"], s_y: Float[Tensor, "*b dim"]) -> Float[Tensor, "*c"]:
        """D of every pair, axes broadcast; all predictions against all y, as `Energy.cross` has them, are made in blocks."""
        a, b = self.parts(full(s_y_hat)), self.parts(full(s_y))
        with torch.autocast(s_y.device.type, enabled=False):
            local = (self._every if every_pair(s_y_hat, s_y) else self._broadcast)(a.local, b.local)
        return self.alpha * squared_error(a.whole, b.whole) + (1 - self.alpha) * local

    def parts(self, s: Float[Tensor, "*batch dim"]) -> Parts:
        """The parts of embeddings.

        Raises:
            UsageError: for embeddings of another width.
        """
        rest = s.shape[-1] - self.dim
        if rest < self.positions or rest % self.positions:
            raise UsageError(
                f"embeddings of {s.shape[-1]} numbers are not {self.dim} and a part for each of {self.positions} positions",
                help="end the encoder with a LocalProjector of as many positions whose `pooled` makes as many dimensions",
            )
        return Parts(s[..., : self.dim], s[..., self.dim :].unflatten(-1, (self.positions, -1)))

    def _broadcast(self, a: Float[Tensor, "*a p dim"], b: Float[Tensor, "*b p dim"]) -> Float[Tensor, "*c"]:
        return self._matched(all_squares(a, b))

    def _every(self, a: Float[Tensor, "*k n 1 p dim"], b: Float[Tensor, "1 m p dim"]) -> Float[Tensor, "*k n m"]:
        """One matrix product for a block of rows, instead of one for each pair."""
        m, p = b.shape[1:3]
        rows, every = a.squeeze(-3), b.reshape(m * p, b.shape[-1])
        copies = math.prod(rows.shape[:-3])
        blocks = []
        for block in rows.split(max(1, NUMBERS // max(1, copies * m * p * p)), dim=-3):
            apart = all_squares(block.flatten(-3, -2), every).unflatten(-1, (m, p)).unflatten(-3, (block.shape[-3], p))
            blocks.append(self._matched(apart.transpose(-3, -2)))
        return torch.cat(blocks, dim=-2)

    def _matched(self, apart: Float[Tensor, "*c p p"]) -> Float[Tensor, "*c"]:
        """Mean of both directions."""
        nearest = torch.stack([apart.amin(-1), apart.amin(-2)])
        return nearest.topk(self.matches, dim=-1, largest=False).values.mean((0, -1))
