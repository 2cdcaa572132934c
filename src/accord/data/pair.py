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

    def to(self, device: torch.device | str) -> Pair:
        """The same pairs on another device."""
        x, y, action, label = (None if t is None else t.to(device, non_blocking=True) for t in self)
        assert x is not None and y is not None
        return Pair(x, y, action, label)
