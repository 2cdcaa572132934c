r"""The energy of a pair as a function of the latent: $E(x, y, z) = D(s_y, \mathrm{Pred}(s_x, z, a)) + R(z \mid s_x)$.

x and y are already encoded, so that every further z costs one call of the predictor and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from accord.errors import UsageError
from accord.model.density import Density, every_pair, full
from accord.model.latent import Latent
from accord.model.predictor import Predictor

Cost = Callable[[Tensor, Tensor], Tensor]
"""D(s_y_hat, s_y): (..., dim) and (..., dim), broadcast, to (...); 0 where the prediction is perfect.

Those here compute in float32 at least. A `Density` is one too: its first argument is what a distribution of s_y takes."""


def squared_error(s_y_hat: Float[Tensor, "*a dim"], s_y: Float[Tensor, "*b dim"]) -> Float[Tensor, "*c"]:
    r"""Mean over dimensions of the squared difference, $\frac{1}{D}\lVert \hat s_y - s_y \rVert^2$.

    The mean over a batch of it is the invariance term of VICReg's published code (Bardes, Ponce, LeCun 2022, arXiv:2105.04906).
    All predictions against all y is a matrix product: (..., n, 1, dim) with (1, m, dim), as `Energy.cross` has them.
    """
    a, b = full(s_y_hat), full(s_y)
    if not all_against_all(a, b):
        return (a - b).square().mean(-1)
    with torch.autocast(a.device.type, enabled=False):
        return all_squares(a.squeeze(-2), b.squeeze(0))


def all_squares(a: Float[Tensor, "*c n dim"], b: Float[Tensor, "*c m dim"]) -> Float[Tensor, "*c n m"]:
    r"""Mean squared difference of all with all, $\lVert a \rVert^2 + \lVert b \rVert^2 - 2 a \cdot b$, as one matrix product.

    Leading axes broadcast. Rounding leaves an error of some $\epsilon (\lVert a \rVert^2 + \lVert b \rVert^2) / D$, lengths taken from
    the mean of b. For numbers of float32 at least, outside autocast.
    """
    centre = b.detach().mean(-2, keepdim=True)
    a, b = a - centre, b - centre  # small numbers cancel less
    left = torch.cat([-2 * a, a.square().sum(-1, keepdim=True), torch.ones_like(a[..., :1])], dim=-1)
    right = torch.cat([b, torch.ones_like(b[..., :1]), b.square().sum(-1, keepdim=True)], dim=-1) / b.shape[-1]
    return (left @ right.mT).clamp_min(0)


def smooth_l1(s_y_hat: Float[Tensor, "*a dim"], s_y: Float[Tensor, "*b dim"]) -> Float[Tensor, "*c"]:
    """Mean over dimensions of the Huber-like loss with threshold 1: quadratic below, linear above (Girshick 2015, arXiv:1504.08083)."""
    s_y_hat, s_y = torch.broadcast_tensors(full(s_y_hat), full(s_y))
    return F.smooth_l1_loss(s_y_hat, s_y, reduction="none").mean(-1)


def cosine(s_y_hat: Float[Tensor, "*a dim"], s_y: Float[Tensor, "*b dim"]) -> Float[Tensor, "*c"]:
    r"""One minus the cosine of the angle, in [0, 2]; a zero vector counts as orthogonal to everything."""
    a, b = full(s_y_hat), full(s_y)
    if not all_against_all(a, b):
        return 1 - F.cosine_similarity(a, b, dim=-1)
    with torch.autocast(a.device.type, enabled=False):
        return 1 - F.normalize(a.squeeze(-2), dim=-1, eps=1e-8) @ F.normalize(b.squeeze(0), dim=-1, eps=1e-8).mT


def all_against_all(a: Tensor, b: Tensor) -> bool:
    """Whether `a` is (..., n, 1, dim) and `b` (1, m, dim): broadcasting them would make n m dim numbers."""
    return every_pair(a, b) and a.shape[-1] == b.shape[-1]


def between(cost: Cost) -> Cost:
    """The divergence of two points: the cost itself; of a distribution that takes more than a point, the squared error."""
    return squared_error if isinstance(cost, Density) and not cost.located else cost


class Energy:
    """E(x, y, .): call it with z of shape (*samples, *batch, latent) and get (*samples, *batch).

    A batch axis of z may have size 1: the same z is then tried for every pair of that axis.

    Args:
        s_x: embedding of what is given, (*batch, dim).
        s_y: embedding of what is to be predicted, (*batch, dim); leading axes broadcast against those of `s_x`.
        action: known cause of y, (*batch, action), or None.
    """

    def __init__(
        self,
        s_x: Tensor,
        s_y: Tensor,
        *,
        predictor: Predictor,
        cost: Cost,
        latent: Latent,
        action: Tensor | None = None,
    ):
        self.s_x = s_x
        self.s_y = s_y
        self.action = action
        self.predictor = predictor
        self.cost = cost
        self.latent = latent

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of F: the axes of s_x and s_y, broadcast."""
        shape: torch.Size = torch.broadcast_shapes(self.s_x.shape[:-1], self.s_y.shape[:-1])
        return shape

    def predict(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "... dim"]:
        """The predicted embedding of y for each z, (*samples, *batch, dim); batch axes only y has stay of size 1.

        Of a cost that is a distribution it is one point, the mean say.
        """
        found = self._predicted(z)
        return self.cost.point(found) if isinstance(self.cost, Density) else found

    def _predicted(self, z: Tensor) -> Tensor:
        """What the predictor makes: the first argument of the cost."""
        prediction: Tensor = self.predictor(self.s_x, self.latent.transmit(z), self.action)
        return prediction

    def __call__(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "..."]:
        """E = D + R of each z."""
        return self.divergence(z) + self.latent.penalty(z, self.s_x)

    def divergence(self, z: Float[Tensor, "... latent"]) -> Float[Tensor, "..."]:
        """D(s_y, Pred(s_x, z, a)) alone, of the shape of E.

        Raises:
            UsageError: if predictor, cost and encoder of y do not fit each other in their width.
        """
        found = self._predicted(z)
        self._require_width(found.shape[-1])
        return self.cost(found, self.s_y)

    def _require_width(self, width: int) -> None:
        """Refuses what would be broadcast, or fail deep inside."""
        dim = self.s_y.shape[-1]
        if isinstance(self.cost, Density):
            if (self.cost.width, self.cost.dim) != (width, dim):
                raise UsageError(
                    f"{type(self.cost).__name__} takes {self.cost.width} numbers for {self.cost.dim} dimensions, the predictor makes "
                    f"{width}, the embedding of y has {dim}",
                    help="give the predictor the width of the cost, and the cost the dim of the embedding of y",
                )
        elif width != dim:
            raise UsageError(
                f"the predictor makes {width} dimensions, the embedding of y has {dim}",
                help="both encoders and the predictor need the same dim",
            )

    def detach(self) -> Energy:
        """The same energy without gradient in the encoders: what a search for z works on."""
        return self.of(self.s_x.detach(), self.s_y.detach(), None if self.action is None else self.action.detach())

    def part(self, rows: slice) -> Energy:
        """That of some rows of the first batch axis only."""
        axes = len(self.batch_shape)

        def cut(t: Tensor) -> Tensor:
            return t[rows] if axes and t.ndim == axes + 1 and len(t) > 1 else t

        return self.of(cut(self.s_x), cut(self.s_y), None if self.action is None else cut(self.action))

    def size(self, *, shared: bool) -> int:
        """How many numbers one z makes for all pairs; `shared` if it is the same z for all, so that an x needs one prediction."""
        density = self.cost if isinstance(self.cost, Density) else None
        numbers = self.s_y.shape[-1] if density is None else density.numbers
        pairs = math.prod(self.batch_shape)
        product = self.cost in (squared_error, cosine) if density is None else density.product
        if shared and product and every_pair(self.s_x, self.s_y):
            return max(pairs * (1 if density is None else density.parts), math.prod(self.s_x.shape[:-1]) * numbers)
        return pairs * numbers

    def pieces(self, chunk: int, *, copies: int = 1, shared: bool = False) -> Iterator[slice]:
        """Rows of the first batch axis that make about `chunk` numbers with `copies` z for each pair; all, if they are one z."""
        shape = self.batch_shape
        if len(shape) == 0 or (len(shape) == 1 and self.latent.coupled):  # nothing to cut
            yield slice(None)
            return
        step = max(1, chunk * shape[0] // max(1, copies * self.size(shared=shared)))
        for first in range(0, max(1, shape[0]), step):
            yield slice(first, first + step)

    def of(self, s_x: Tensor, s_y: Tensor, action: Tensor | None) -> Energy:
        """The same energy of other embeddings, whose batch axes broadcast."""
        return Energy(s_x, s_y, predictor=self.predictor, cost=self.cost, latent=self.latent, action=action)

    def cross(self, rows: slice = slice(None)) -> Energy:
        """Every x with every y: batch_shape (batch, batch), rows x, columns y; `rows` keeps some x only, to bound memory.

        Raises:
            UsageError: if the energy does not have exactly one batch axis.
        """
        if self.s_x.ndim != 2 or self.s_y.ndim != 2:
            raise UsageError(
                f"cross() needs one batch axis, got s_x {tuple(self.s_x.shape)} and s_y {tuple(self.s_y.shape)}"
            )
        return self.of(self.s_x[rows, None], self.s_y[None], None if self.action is None else self.action[rows, None])
