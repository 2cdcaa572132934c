"""What belongs together: a batch of samples becomes a batch of pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from accord.data.augment import Augmentation, Units, VectorAugmentation, augment, augment_vectors, full_view
from accord.data.augment_series import SeriesAugmentation, augment_series
from accord.data.augment_text import TextAugmentation, augment_text
from accord.data.pair import Pair
from accord.data.random import Draws
from accord.data.values import Values, form, one
from accord.errors import UsageError

SMALLEST = 4
"""Side of the smallest view, pixels."""
LOCAL_SCALE = (0.05, 0.4)
"""Share of the area that a small crop shows (Caron et al. 2020, arXiv:2006.09882)."""
Change = Augmentation | VectorAugmentation | SeriesAugmentation | TextAugmentation
"""What makes a view: one for each form of sample."""
SUITS = {
    "image": "Augmentation",
    "vector": "VectorAugmentation",
    "series": "SeriesAugmentation",
    "text": "TextAugmentation",
}


class Originals(NamedTuple):
    """Samples as `Samples.batch` gives them, and width / height of the originals of images."""

    values: Values
    aspect: Tensor | None = None


class Pairing(ABC):
    """Makes pairs of samples; random only through the draws it is given."""

    @abstractmethod
    def __call__(self, batch: Values, draws: Draws, aspect: Float[Tensor, " batch"] | None = None) -> Pair:
        """The pairs of a batch, as the encoders take them.

        Args:
            batch: samples as `Samples.batch` gives them.
            draws: random numbers of these samples.
            aspect: width / height of the originals of images that were squeezed on to a square, (batch,).
        """

    @abstractmethod
    def plain(self, batch: Values, aspect: Float[Tensor, " batch"] | None = None) -> Tensor:
        """What the encoder of x takes of each sample, without anything random, in the form and at the size x has."""

    def plain_y(self, batch: Values, aspect: Float[Tensor, " batch"] | None = None) -> Tensor:
        """The same for the encoder of y; where x and y are of one kind it is `plain`."""
        return self.plain(batch, aspect)

    def join(self, x: Originals, y: Originals) -> Pair:
        """Pairs of the x of some samples and the y of others, row by row, without anything random."""
        return Pair(self.plain(*x), self.plain_y(*y))

    @property
    def judged(self) -> Pairing:
        """Makes the pairs that scores and calibration are of: where a sample is a pair already, that pair as it is."""
        return self

    @property
    def alike(self) -> bool:
        """Whether x and y are of one kind, so that one encoder may serve both."""
        return True

    @property
    def marks_y(self) -> bool:
        """Whether the last channel of y says which part of the rest is meant."""
        return False

    @property
    def random(self) -> bool:
        """Whether the y of a sample differs from draw to draw."""
        return True

    @property
    def action_dim(self) -> int:
        """Width of `Pair.action`; 0 where a pair has none."""
        return 0


@dataclass(frozen=True, kw_only=True)
class TwoViews(Pairing):
    """Two random views of one thing; see `two_views`."""

    augmentation: Change | None = None
    size: int | None = None
    local: int = 0
    local_size: int | None = None
    local_augmentation: Augmentation | None = None
    plain_size: int | None = None
    units: Units | None = None

    def __call__(self, batch: Values, draws: Draws, aspect: Tensor | None = None) -> Pair:
        """The views x and y, each (batch, *sample); with local crops x is (local, batch, channel, local_size, local_size)."""
        values = one(batch, "two_views")
        augmentation = self.augmentation or default_augmentation(values)
        y = view(values, draws.fork(1), augmentation, size=self.size, aspect=aspect, units=self.units)
        if not self.local:
            return Pair(view(values, draws.fork(0), augmentation, size=self.size, aspect=aspect, units=self.units), y)
        if not isinstance(augmentation, Augmentation):
            raise UsageError(f"local: a {form(values)} has no crops", where="local", help="set local to 0")
        small = self.local_augmentation or replace(augmentation, scale=LOCAL_SCALE)
        size = self.local_size or max(SMALLEST, y.shape[-1] // 2)
        crops = [augment(values, draws.fork(2 + k), small, size, aspect) for k in range(self.local)]
        return Pair(torch.stack(crops), y)

    def plain(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The full view of an image in the middle, right in aspect; all else as it is."""
        return plain_view(one(batch, "two_views"), size=self.plain_size or self.size, aspect=aspect)


def view(
    batch: Tensor,
    draws: Draws,
    augmentation: Change,
    *,
    size: int | None = None,
    aspect: Tensor | None = None,
    units: Units | None = None,
) -> Tensor:
    """One random view of each sample, by its form.

    Raises:
        UsageError: for an augmentation of another kind.
    """
    what = form(batch)
    if what == "image" and isinstance(augmentation, Augmentation):
        return augment(batch, draws, augmentation, size, aspect)
    if what == "vector" and isinstance(augmentation, VectorAugmentation):
        return augment_vectors(batch, draws, augmentation, units)
    if what == "series" and isinstance(augmentation, SeriesAugmentation):
        return augment_series(batch, draws, augmentation, units)
    if what == "text" and isinstance(augmentation, TextAugmentation):
        return augment_text(batch, draws, augmentation)
    raise UsageError(
        f"{type(augmentation).__name__} does not apply to samples of shape {tuple(batch.shape[1:])}",
        where="augmentation",
        help=f"use {SUITS[what]} for these",
    )


def plain_view(batch: Tensor, *, size: int | None = None, aspect: Tensor | None = None) -> Tensor:
    """What an encoder takes of each sample without anything random: images in [0, 1], text in bytes, all else as it is."""
    what = form(batch)
    if what == "image":
        return full_view(batch, size, aspect)
    return batch if what == "text" else batch.float()


def two_views(
    augmentation: Change | None = None,
    *,
    size: int | None = None,
    local: int = 0,
    local_size: int | None = None,
    local_augmentation: Augmentation | None = None,
    plain_size: int | None = None,
    units: Units | None = None,
) -> TwoViews:
    """Pairs of two random views of the same sample: x is one, y the other.

    Args:
        augmentation: what makes a view; by default photo for 3 channels, grey_photo for others, noise and masks for vectors,
            `SeriesAugmentation.series` for series, words and characters left out of texts.
        size: side of the views in pixels; by default that of the images as they are stored.
        local: 0, or how many small crops x consists of, while y is one full view (multi-crop, Caron et al. 2020, arXiv:2006.09882).
        local_size: side of the small crops; by default half of `size`.
        local_augmentation: what makes a small crop; by default `augmentation`, cropped to 5 to 40 % of the area.
        plain_size: side of `plain`; by default `size`. Small training crops with full-size images later are cheap and good
            (the train-test resolution discrepancy, Touvron et al. 2019, arXiv:1906.06423).
        units: mean and standard deviation of each column of vectors, or channel of series, `accord.Standardize.fit(x)` say:
            noise is in units of these. By default columns are taken to have mean 0 and standard deviation 1.

    Raises:
        UsageError: if a number is out of bounds.
    """
    sizes = {"size": size, "local_size": local_size, "plain_size": plain_size}
    for name, value, low in [("local", local, 0), *((name, value, SMALLEST) for name, value in sizes.items())]:
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise UsageError(
                f"{name}: expected a whole number of at least {low}, got {value!r}",
                where=name,
                help=f"set {name} to {low} or more",
            )
    return TwoViews(
        augmentation=augmentation,
        size=size,
        local=local,
        local_size=local_size,
        local_augmentation=local_augmentation,
        plain_size=plain_size,
        units=units,
    )


def default_augmentation(batch: Tensor) -> Change:
    """What suits samples of this form when nothing else is said."""
    what = form(batch)
    if what == "series":
        return SeriesAugmentation.series()
    if what != "image":
        return TextAugmentation() if what == "text" else VectorAugmentation()
    return Augmentation.photo() if batch.shape[1] == 3 else Augmentation.grey_photo()
