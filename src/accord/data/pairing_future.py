"""Pairs of the past and the future of a series."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from accord.data.pair import Pair
from accord.data.pairing import Pairing
from accord.data.random import Draws
from accord.data.values import Values, one
from accord.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Future(Pairing):
    """The first steps of a window and those that follow; see `future`."""

    context: int
    horizon: int

    def __call__(self, batch: Values, draws: Draws, aspect: Tensor | None = None) -> Pair:
        """The past x, (batch, context, channel), and the future y, (batch, horizon, channel)."""
        return Pair(self.plain(batch), self.plain_y(batch))

    def plain(self, batch: Values, aspect: Tensor | None = None) -> Float[Tensor, "batch context channel"]:
        """The past."""
        return self._window(batch)[:, : self.context]

    def plain_y(self, batch: Values, aspect: Tensor | None = None) -> Float[Tensor, "batch horizon channel"]:
        """The future."""
        return self._window(batch)[:, self.context :]

    @property
    def alike(self) -> bool:
        """False: what follows is shorter or longer than what was, and it is not a view of it."""
        return False

    @property
    def random(self) -> bool:
        """False."""
        return False

    def _window(self, values: Values) -> Tensor:
        batch = one(values, "future")
        wanted = self.context + self.horizon
        if batch.ndim != 3 or batch.shape[1] != wanted:
            raise UsageError(
                f"future needs windows of {wanted} steps ({self.context} + {self.horizon}), "
                f"got samples of shape {tuple(batch.shape[1:])}",
                where="pairing",
                help="open the source with windows of context + horizon steps; for other kinds of data use another pairing",
                code="E227",
            )
        return batch.float()


def future(*, context: int, horizon: int) -> Future:
    """Pairs of `context` steps of a series (x) and the `horizon` steps that follow them (y).

    Samples are windows of context + horizon steps: ``open_source(..., window=context + horizon, stride=1)``.

    Raises:
        UsageError: for a number below 1.
    """
    for name, value in (("context", context), ("horizon", horizon)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(
                f"{name}: expected a whole number of at least 1, got {value!r}",
                where=name,
                help=f"set {name} to 1 or more",
                code="E227",
            )
    return Future(context=context, horizon=horizon)
