"""A batch of things that belong together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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

    def to(self, device: torch.device | str) -> Pair:
        """The same pairs on another device."""
        x, y, action, label = (None if t is None else t.to(device, non_blocking=True) for t in self)
        assert x is not None and y is not None
        return Pair(x, y, action, label)
