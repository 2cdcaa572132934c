"""Pairs of what is visible of a row or a series and what is hidden of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from accord.data.pair import Pair
from accord.data.pairing import Originals, Pairing
from accord.data.random import Draws
from accord.data.values import Values, one
from accord.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Masked(Pairing):
    """The visible part of a sample and its hidden part; see `masked`."""

    share: float = 0.5
    block: int = 8

    def __call__(self, batch: Values, draws: Draws, aspect: Tensor | None = None) -> Pair:
        """The visible part x and the hidden part y, both of the shape of the batch, NaN where the other part is."""
        values = _numbers(batch)
        return _divided(values, values, self.hide(values, draws))

    def hide(self, batch: Tensor, draws: Draws) -> Bool[Tensor, "batch ..."]:
        """What is hidden: columns (batch, column), or runs of steps of all channels (batch, step, 1).

        The same number of units is hidden in all samples of which equally many were observed: the share of these, rounded, at
        least one; and at least one stays, if there are two. Units of which nothing was observed are not chosen.
        """
        if batch.ndim == 2:
            return _chosen(draws.uniform("hidden", batch.shape[1]), ~batch.isnan(), self.share)
        observed = (~batch.isnan()).any(2)
        cells = -(-batch.shape[1] // self.block) + 1
        offset = (draws.uniform("offset", 1) * self.block).long()
        cell = (torch.arange(batch.shape[1], device=batch.device) + offset) // self.block
        seen = torch.zeros(len(batch), cells, device=batch.device).scatter_add_(1, cell, observed.float()) > 0
        return _chosen(draws.uniform("hidden", cells), seen, self.share).gather(1, cell)[:, :, None]

    def plain(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """All of it, nothing hidden."""
        return _numbers(batch)

    def join(self, x: Originals, y: Originals) -> Pair:
        """The visible part of the samples x and the hidden part of the samples y; the same is hidden of all."""
        values = _numbers(x.values)
        whole = torch.zeros_like(values[:1])
        hidden = self.hide(whole, Draws(0, 0, torch.zeros(1, dtype=torch.int64, device=values.device)))
        return _divided(values, _numbers(y.values), hidden.expand(len(values), *hidden.shape[1:]))


def _numbers(values: Values) -> Float[Tensor, "batch ..."]:
    batch = one(values, "masked")
    if batch.ndim not in (2, 3) or batch.dtype == torch.uint8 or batch[0].numel() < 2:
        raise UsageError(
            f"masked does not apply to samples of shape {tuple(batch.shape[1:])} ({batch.dtype})",
            where="pairing",
            help="it is for rows of several numbers and for series; for images use masked_blocks",
            code="E227",
        )
    return batch.float()


def _chosen(u: Tensor, seen: Tensor, share: float) -> Tensor:
    """The `share` of those seen with the largest random numbers, (batch, unit) bool."""
    count = seen.sum(1, keepdim=True)
    wanted = (share * count).round().clamp_min(1).minimum((count - 1).clamp_min(1))
    rank = u.masked_fill(~seen, -1.0).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < wanted) & seen


def _divided(values: Tensor, others: Tensor, hidden: Tensor) -> Pair:
    return Pair(values.masked_fill(hidden, math.nan), others.masked_fill(~hidden, math.nan))


def masked(*, share: float = 0.5, block: int = 8) -> Masked:
    """Pairs of what is visible of a sample (x) and what is hidden of it (y); what is hidden is drawn anew each time.

    Of a vector columns are hidden, of a series runs of `block` steps of all channels. Both parts have the shape of the sample, with
    NaN where the other part is, so that one encoder may serve both. What was never observed is NaN in both.

    Args:
        share: of the columns, or of the runs, that is hidden.
        block: steps of a run.

    Raises:
        UsageError: for a share that is not between 0 and 1, or a block below 1.
    """
    if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0.0 < share < 1.0:
        raise UsageError(
            f"share: expected a number between 0 and 1, got {share!r}", where="share", help="try share=0.5", code="E227"
        )
    if not isinstance(block, int) or isinstance(block, bool) or block < 1:
        raise UsageError(
            f"block: expected a whole number of at least 1, got {block!r}",
            where="block",
            help="set block to 1 or more",
            code="E227",
        )
    return Masked(share=float(share), block=block)
