"""Pairs of two parts of one sample: the halves of an image, columns of a table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from accord.data.augment import Augmentation, augment, full_view
from accord.data.pair import Pair
from accord.data.pairing import SMALLEST, Pairing
from accord.data.random import Draws
from accord.data.values import Values, one
from accord.errors import UsageError

Split = Literal["left_right", "right_left", "top_bottom", "bottom_top"]
X_AND_Y = re.compile(r"(?i)([xy])(\d*|[_. ].*)")
"""Columns named x, x0, x_speed, ... and y, y0, y_speed, ..."""


@dataclass(frozen=True, kw_only=True)
class Halves(Pairing):
    """One half of an image and the other; see `halves`."""

    split: Split = "left_right"
    augmentation: Augmentation | None = None
    size: int | None = None

    def __call__(self, batch: Values, draws: Draws, aspect: Tensor | None = None) -> Pair:
        """The halves x and y, (batch, channel, height, width) each, float32 in [0, 1]."""
        images = require_images(batch, "halves")
        if self.augmentation is None:
            return Pair(*self._cut(full_view(images, self.size, aspect)))
        return Pair(*self._cut(augment(images, draws, self.augmentation, self.size, aspect)))

    def plain(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The half x of the full view."""
        return self._cut(full_view(require_images(batch, "halves"), self.size, aspect))[0]

    def plain_y(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The half y of the full view."""
        return self._cut(full_view(require_images(batch, "halves"), self.size, aspect))[1]

    @property
    def alike(self) -> bool:
        """False: the left half of a thing does not look like its right half."""
        return False

    @property
    def random(self) -> bool:
        """Whether there is an augmentation that changes anything."""
        return self.augmentation not in (None, Augmentation())

    def _cut(self, images: Tensor) -> tuple[Tensor, Tensor]:
        axis = -1 if self.split in ("left_right", "right_left") else -2
        middle = images.shape[axis] // 2
        first, second = images.split([middle, images.shape[axis] - middle], dim=axis)
        first, second = first.contiguous(), second.contiguous()
        return (first, second) if self.split in ("left_right", "top_bottom") else (second, first)


def halves(split: Split = "left_right", *, augmentation: Augmentation | None = None, size: int | None = None) -> Halves:
    """Pairs of one half of an image (x) and the other (y): what lies there is not told by x alone.

    Args:
        split: "left_right" (x is the left half), "right_left", "top_bottom" or "bottom_top". Of an odd number of pixels the first
            half gets one less.
        augmentation: random changes of the whole image before it is cut, so that both halves agree; by default none.
        size: side of the square the image is brought to before it is cut; by default that of the images as they are stored.

    Raises:
        UsageError: for another split, or a size below 4.
    """
    if split not in get_args(Split):
        close = difflib.get_close_matches(str(split), get_args(Split), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = ", ".join(get_args(Split))
        raise UsageError(f"split: got {split!r}", where="split", help=f"{hint}known: {known}", code="E227")
    require_size(size)
    return Halves(split=split, augmentation=augmentation, size=size)


@dataclass(frozen=True, kw_only=True)
class Columns(Pairing):
    """Some columns of a table and some others; see `columns`."""

    x: tuple[int, ...]
    y: tuple[int, ...]

    def __call__(self, batch: Values, draws: Draws, aspect: Tensor | None = None) -> Pair:
        """The columns x and y, (batch, columns) float32 each."""
        return Pair(self.plain(batch), self.plain_y(batch))

    def plain(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The columns x."""
        return self._take(batch, self.x)

    def plain_y(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The columns y."""
        return self._take(batch, self.y)

    @property
    def alike(self) -> bool:
        """False: other columns mean other things."""
        return False

    @property
    def random(self) -> bool:
        """False."""
        return False

    def _take(self, values: Values, places: tuple[int, ...]) -> Tensor:
        batch = one(values, "columns")
        if batch.ndim != 2 or max(places) >= batch.shape[1]:
            raise UsageError(
                f"columns {list(places)} do not fit samples of shape {tuple(batch.shape[1:])}",
                where="columns",
                help="give places of columns that are there; images have no columns, use halves",
                code="E227",
            )
        return batch[:, list(places)].float()


def columns(
    x: Sequence[str | int] | None = None, y: Sequence[str | int] | None = None, *, features: Sequence[str] = ()
) -> Columns:
    """Pairs of some columns of a table (x) and others (y).

    Args:
        x: names of columns, or their places from 0; by default all that are not in `y`.
        y: the same for y; by default all that are not in `x`. Without either, columns named x, x0, x_... and y, y0, y_... are told apart.
        features: the names of all columns in their order, `Samples.features`; needed unless `x` and `y` are both places.

    Raises:
        UsageError: for a name that is not there (with the closest one), a column in both, or nothing left for one of them.

    >>> columns(features=("x0", "x1", "y0"))
    Columns(x=(0, 1), y=(2,))
    """
    if x is None and y is None:
        x, y = _told_apart(features)
    first = None if x is None else _places("x", x, features)
    second = None if y is None else _places("y", y, features)
    if first is None:
        assert second is not None
        first = _rest("x", second, features)
    if second is None:
        second = _rest("y", first, features)
    both = sorted(set(first) & set(second))
    if both:
        raise _wrong("x and y", f"column {both[0]} is in both", "a column is either given or to be predicted")
    return Columns(x=first, y=second)


def _told_apart(features: Sequence[str]) -> tuple[list[int], list[int]]:
    matches = [X_AND_Y.fullmatch(name) for name in features]
    if not all(matches) or len({m[1].lower() for m in matches if m}) < 2:
        raise _wrong(
            "x and y",
            "which columns are x and which are y? Their names do not tell",
            'for example --set pairing.x=["a","b"]; all others are then y. Columns named x0, x1, ..., y0, ... need nothing',
        )
    kinds = [m[1].lower() for m in matches if m]
    return [i for i, kind in enumerate(kinds) if kind == "x"], [i for i, kind in enumerate(kinds) if kind == "y"]


def _places(side: str, wanted: Sequence[str | int], features: Sequence[str]) -> tuple[int, ...]:
    if isinstance(wanted, str) or not wanted:
        raise _wrong(side, f"{side} = {wanted!r}: expected a list of columns", f'for example {side} = ["a", "b"]')
    places = tuple(_place(side, column, features) for column in wanted)
    if len(set(places)) < len(places):
        raise _wrong(side, f"{side} names a column twice: {list(wanted)}", "name each once")
    return places


def _place(side: str, column: str | int, features: Sequence[str]) -> int:
    if isinstance(column, str):
        if column in features:
            return list(features).index(column)
        close = difflib.get_close_matches(column, features, n=1)
        known = f"known: {', '.join(features[:8])}{', ...' if len(features) > 8 else ''}"
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise _wrong(
            side, f"there is no column {column!r}", hint + (known if features else "give features=, the names")
        )
    if not isinstance(column, int) or isinstance(column, bool) or column < 0 or (features and column >= len(features)):
        most = f" below {len(features)}" if features else ""
        raise _wrong(side, f"there is no column {column!r}", f"give names, or whole numbers from 0{most}")
    return column


def _rest(side: str, taken: tuple[int, ...], features: Sequence[str]) -> tuple[int, ...]:
    rest = tuple(i for i in range(len(features)) if i not in taken)
    if not rest:
        raise _wrong(side, f"no column is left for {side}", f"leave one out of the other, or give {side} and features=")
    return rest


def _wrong(where: str, message: str, help: str) -> UsageError:
    return UsageError(message, where=where, help=help, code="E227")


def require_images(values: Values, name: str) -> Tensor:
    """The batch of images; refuses what is none."""
    batch = one(values, name)
    if batch.ndim != 4:
        raise UsageError(
            f"{name} does not apply to samples of shape {tuple(batch.shape[1:])}",
            where="pairing",
            help="it is for images; for vectors use columns or two_views",
            code="E227",
        )
    return batch


def require_size(size: int | None) -> None:
    """Refuses a side that is too small."""
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < SMALLEST):
        raise UsageError(
            f"size: expected a whole number of at least {SMALLEST}, got {size!r}",
            where="size",
            help=f"set size to {SMALLEST} or more",
            code="E227",
        )
