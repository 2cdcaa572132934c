"""Pairs of the two sides of a table, as they are or each changed a little at random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from accord.data.augment import Units
from accord.data.pair import Pair
from accord.data.pairing import SMALLEST, Change, Originals, Pairing, plain_view, view
from accord.data.random import Draws
from accord.data.values import Sides, Values, form
from accord.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SidePairs(Pairing):
    """The sides of samples that are pairs; see `sides`."""

    augmentation_x: Change | None = None
    augmentation_y: Change | None = None
    size: int | None = None
    units_x: Units | None = None
    units_y: Units | None = None

    def __call__(self, batch: Values, draws: Draws, aspect: Tensor | None = None) -> Pair:
        """The sides x and y, in the form of their kinds."""
        if not isinstance(batch, Sides):
            raise UsageError(
                f"samples of shape {tuple(batch.shape[1:])} have no two sides",
                where="pairing",
                help="open a table with x= and y=, or use two_views",
                code="E227",
            )
        return Pair(
            self._view(batch.x, draws.fork(0), self.augmentation_x, self.units_x, batch.aspect_x),
            self._view(batch.y, draws.fork(1), self.augmentation_y, self.units_y, batch.aspect_y),
        )

    def plain(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The side x; a batch of one side is taken for it."""
        return self._plain(batch, aspect, "x")

    def plain_y(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The side y; a batch of one side is taken for it."""
        return self._plain(batch, aspect, "y")

    def join(self, x: Originals, y: Originals) -> Pair:
        """The side x of some samples and the side y of others."""
        return Pair(self.plain(*x), self.plain_y(*y))

    @property
    def judged(self) -> SidePairs:
        """The sides without random changes."""
        return replace(self, augmentation_x=None, augmentation_y=None)

    @property
    def alike(self) -> bool:
        """False: the sides are different things."""
        return False

    @property
    def random(self) -> bool:
        """Whether a side is changed at random."""
        return self.augmentation_x is not None or self.augmentation_y is not None

    def _plain(self, batch: Values, aspect: Tensor | None, side: Literal["x", "y"]) -> Tensor:
        if isinstance(batch, Sides):
            batch, aspect = (batch.x, batch.aspect_x) if side == "x" else (batch.y, batch.aspect_y)
        return plain_view(batch, size=self._size(batch), aspect=aspect)

    def _view(
        self, batch: Tensor, draws: Draws, augmentation: Change | None, units: Units | None, aspect: Tensor | None
    ) -> Tensor:
        size = self._size(batch)
        if augmentation is None:
            return plain_view(batch, size=size, aspect=aspect)
        return view(batch, draws, augmentation, size=size, aspect=aspect, units=units)

    def _size(self, batch: Tensor) -> int | None:
        return self.size if form(batch) == "image" else None


def sides(
    *, augmentation_x: Change | None = None, augmentation_y: Change | None = None, size: int | None = None
) -> SidePairs:
    """Pairs of the two sides of a table that was opened with x= and y=: a picture and its caption, say.

    Args:
        augmentation_x: random changes of x, of the kind that x is; by default none.
        augmentation_y: the same for y.
        size: side of images in pixels; by default as they are stored.

    Raises:
        UsageError: for a size below 4.
    """
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < SMALLEST):
        raise UsageError(
            f"size: expected a whole number of at least {SMALLEST}, got {size!r}",
            where="size",
            help=f"set size to {SMALLEST} or more",
            code="E227",
        )
    return SidePairs(augmentation_x=augmentation_x, augmentation_y=augmentation_y, size=size)
