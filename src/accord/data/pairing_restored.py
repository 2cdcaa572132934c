"""Pairs of a thing, perhaps with parts hidden, and the thing itself: what auto-encoders are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord.data.pair import Pair
from accord.data.pairing import Originals, Pairing, TwoViews
from accord.data.random import Draws
from accord.data.values import Values
from accord.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Restoring(Pairing):
    """x of another pairing, parts of it hidden, and the same x whole; see `restoring`."""

    pairing: Pairing
    hide: float = 0.0
    patch: int | None = None

    def __call__(self, batch: Values, draws: Draws, aspect: Tensor | None = None) -> Pair:
        """The x of the other pairing with parts hidden, and the same x."""
        whole = self.pairing(batch, draws, aspect).x
        hidden = draws.fork(7)
        return Pair(whole if not self.hide else self._hidden(whole, hidden), whole)

    def _hidden(self, whole: Tensor, draws: Draws) -> Tensor:
        if whole.ndim == 2:
            units = self.pairing.units if isinstance(self.pairing, TwoViews) else None
            mean = whole.new_zeros(()) if units is None else units.mean
            return torch.where(_lowest(draws.uniform("hidden", whole.shape[1]), self.hide), mean, whole)
        if whole.ndim == 3:
            return self._without_runs(whole, draws)
        height, width = whole.shape[-2:]
        side = self.patch or max(1, min(height, width) // 4)
        rows, columns = -(-height // side), -(-width // side)
        hidden = _lowest(draws.uniform("hidden", rows * columns), self.hide).view(-1, 1, rows, columns)
        mask = hidden.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :height, :width]
        return torch.where(mask, whole.mean((-2, -1), keepdim=True), whole)

    def _without_runs(self, whole: Tensor, draws: Draws) -> Tensor:
        """Series of which runs of steps are the mean of their channel."""
        steps = whole.shape[1]
        run = self.patch or max(1, steps // 4)
        hidden = _lowest(draws.uniform("hidden", -(-steps // run)), self.hide)
        mask = hidden.repeat_interleave(run, 1)[:, :steps, None]
        return torch.where(mask, whole.mean(1, keepdim=True), whole)

    def plain(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """That of the other pairing: whole."""
        return self.pairing.plain(batch, aspect)

    def plain_y(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """That of the other pairing."""
        return self.pairing.plain_y(batch, aspect)

    def join(self, x: Originals, y: Originals) -> Pair:
        """That of the other pairing."""
        return self.pairing.join(x, y)

    @property
    def random(self) -> bool:
        """Whether there is anything random."""
        return self.pairing.random or self.hide > 0


def _lowest(u: Tensor, share: float) -> Tensor:
    """The same number in every row is marked: those with the lowest numbers, a share of all, at least one and never all."""
    count = min(max(1, round(share * u.shape[1])), u.shape[1] - 1)
    place: Tensor = u.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return place < count


def restoring(pairing: Pairing, *, hide: float = 0.0, patch: int | None = None) -> Restoring:
    """Pairs of the x of another pairing and the same x: an auto-encoder is trained on these, and scores the pairs of `pairing`.

    Args:
        pairing: makes x; its y is not used.
        hide: share of x that is hidden, 0.75 for a masked auto-encoder (He et al. 2022, arXiv:2111.06377): patches of an image get
            its mean colour, columns of a vector their mean, runs of steps of a series its mean. As many in every sample.
        patch: side of a patch, pixels, or steps of a run; by default a quarter of the image's, or of the series.

    Raises:
        UsageError: for a share outside [0, 1), a patch below 1, or a pairing whose x and y are of two kinds.
    """
    if not 0 <= hide < 1:
        raise UsageError(f"hide is a share: expected a number in [0, 1), got {hide!r}", where="hide", help="try 0.75")
    if patch is not None and (not isinstance(patch, int) or isinstance(patch, bool) or patch < 1):
        raise UsageError(f"patch: expected a whole number of 1 or more, got {patch!r}", where="patch", help="try 4")
    if not pairing.alike or (isinstance(pairing, TwoViews) and pairing.local):
        raise UsageError(
            "an auto-encoder makes x of x: its energy of a pair needs a y of the same form",
            where="pairing.name",
            help="use pairs of two views without small crops, or a pixel predictor, which makes y of x",
            code="E217",
        )
    return Restoring(pairing=pairing, hide=hide, patch=patch)
