"""A batch of things that belong together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from accord.errors import UsageError


class Pair(NamedTuple):
    """A batch of pairs; each field is batch first, or has further batch axes before (several crops of one x).

    `action` is the known cause of y, given and never inferred. `label` is read by probes only; an objective never sees it.
    """

    x: Tensor
    y: Tensor
    action: Tensor | None = None
    label: Tensor | None = None

    def first(self, x_ndim: int | None, y_ndim: int | None) -> Pair:
        """One pair of each sample where it has several: the first of several crops x, the first of several targets y.

        Args:
            x_ndim: axes of one x (3 for images), None where there cannot be several.
            y_ndim: axes of one y.
        """
        x = self.x[0] if x_ndim is not None and self.x.ndim > x_ndim + 1 else self.x
        if y_ndim is None or self.y.ndim <= y_ndim + 1:
            return self._replace(x=x)
        return self._replace(x=x, y=self.y[0], action=None if self.action is None else self.action[0])

    def both_ways(self) -> Pair:
        """Twice as many pairs: all of these, then all of them with x and y exchanged.

        Raises:
            UsageError: if y cannot stand for x: it has another shape, or there is an action, which is a cause of y and not of x.
        """
        if self.x.shape != self.y.shape or self.action is not None:
            what = (
                "there is an action"
                if self.action is not None
                else f"x is {tuple(self.x.shape)}, y {tuple(self.y.shape)}"
            )
            raise UsageError(
                f"x and y of these pairs cannot be exchanged: {what}",
                where="symmetric",
                help="train without symmetric, or on pairs of two views of one size",
                code="E216",
            )
        label = None if self.label is None else torch.cat([self.label, self.label])
        return Pair(torch.cat([self.x, self.y]), torch.cat([self.y, self.x]), None, label)

    def to(self, device: torch.device | str) -> Pair:
        """The same pairs on another device."""
        x, y, action, label = (None if t is None else t.to(device, non_blocking=True) for t in self)
        assert x is not None and y is not None
        return Pair(x, y, action, label)
