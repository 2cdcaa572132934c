"""A batch of samples: one tensor, or two of them where a sample is a pair of things of different kinds."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from accord.errors import UsageError

Kind = Literal["image", "vector", "series", "text", "audio"]
"""What one thing is; see `Samples`."""
KINDS: tuple[str, ...] = get_args(Kind)
BYTES = ("image", "text")
"""Kinds that are stored as uint8."""


class Sides(NamedTuple):
    """The two sides of a batch of pairs, row by row; `aspect_x` is width / height of the originals where x are images."""

    x: Tensor
    y: Tensor
    aspect_x: Tensor | None = None
    aspect_y: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Sides:
        """The same on another device."""
        x, y = (t.to(device, non_blocking=non_blocking) for t in (self.x, self.y))
        aspects = (None if t is None else t.to(device, non_blocking=non_blocking) for t in self[2:])
        return Sides(x, y, *aspects)

    def rows(self, rows: slice | Tensor | list[int]) -> Sides:
        """Some of the pairs."""
        aspects = (None if t is None else t[rows] for t in self[2:])
        return Sides(self.x[rows], self.y[rows], *aspects)


Values = Tensor | Sides
"""What `Samples.batch` gives."""


def rows_of(values: Values, rows: slice | Tensor | list[int]) -> Values:
    """Some rows of a batch."""
    return values.rows(rows) if isinstance(values, Sides) else values[rows]


def one(values: Values, name: str) -> Tensor:
    """The batch as one tensor, for the pairing of this name.

    Raises:
        UsageError: if its samples have two sides.
    """
    if isinstance(values, Sides):
        raise UsageError(
            f"{name} does not apply to samples that are pairs already",
            where="pairing",
            help="use accord.sides(), or open one side only",
            code="E227",
        )
    return values


def blank(kind: Kind, shape: tuple[int, ...], count: int, device: torch.device | str = "cpu") -> Tensor:
    """`count` samples of zeros, in the form `Samples.batch` gives this kind."""
    return torch.zeros(count, *shape, dtype=torch.uint8 if kind in BYTES else torch.float32, device=device)


def form(values: Tensor) -> Literal["image", "series", "text", "vector"]:
    """What a batch is, by its form: audio is a series. uint8 of one axis is text, other numbers are vectors.

    Raises:
        UsageError: for any other number of axes.
    """
    if values.ndim == 4:
        return "image"
    if values.ndim == 3:
        return "series"
    if values.ndim == 2:
        return "text" if values.dtype == torch.uint8 else "vector"
    raise UsageError(
        f"samples of shape {tuple(values.shape[1:])}",
        where="pairing",
        help="expected images (C, H, W), series (T, C), vectors (F) or text (bytes)",
        code="E227",
    )
