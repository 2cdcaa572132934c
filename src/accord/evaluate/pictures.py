"""Thumbnails of samples and views, all on one PNG sheet."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

HIDDEN = 0.5
"""Grey value of what is hidden from an encoder."""
LARGEST = 48
"""Side of a thumbnail in pixels at most; smaller images keep their own."""


class Sheet:
    """Square pictures of one size in rows, numbered from 0 in the order in which they come.

    Args:
        side: side of an image of the data, in pixels.
    """

    def __init__(self, side: int):
        self.size = min(side, LARGEST)
        self.tiles: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def columns(self) -> int:
        """Pictures in a row: about as many as rows."""
        return max(1, math.isqrt(max(0, len(self) - 1)) + 1)

    def add(self, images: Float[Tensor, "batch channel height width"]) -> list[int]:
        """Adds pictures with values in [0, 1], of any size; their numbers.

        What is not square is shown whole, in the middle of a black square. The last of 2 or 4 channels says what is hidden, which
        is shown in grey; of more than 4 the first is shown.
        """
        images = images.float().clamp(0, 1)
        if images.shape[1] in (2, 4):
            images = torch.where(images[:, -1:] > 0.5, HIDDEN, images[:, :-1])
        images = self._fit(images)
        if images.shape[1] != 3:
            images = images[:, :1].expand(-1, 3, -1, -1)
        start = len(self)
        self.tiles.extend((images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        return list(range(start, len(self)))

    def _fit(self, images: Tensor) -> Tensor:
        """At the size of a tile."""
        longer = max(images.shape[-2:])
        height, width = (max(1, round(side * self.size / longer)) for side in images.shape[-2:])
        if images.shape[-2:] != (height, width):
            images = torch.nn.functional.interpolate(
                images, (height, width), mode="bilinear", antialias=True, align_corners=False
            )
        across, down = self.size - width, self.size - height
        border = (across // 2, across - across // 2, down // 2, down - down // 2)
        return torch.nn.functional.pad(images, border)

    def png(self) -> bytes:
        """The sheet as PNG: pixels only, no metadata; grey where all pictures are."""
        from PIL import Image

        size, columns = self.size, self.columns
        rows = max(1, -(-len(self) // columns))
        sheet = np.zeros((rows * size, columns * size, 3), np.uint8)
        for number, tile in enumerate(self.tiles):
            top, left = number // columns * size, number % columns * size
            sheet[top : top + size, left : left + size] = tile
        grey = bool((sheet == sheet[..., :1]).all())
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(sheet[..., 0]) if grey else sheet).save(out, "PNG", optimize=True)
        return out.getvalue()

    def describe(self, file: str) -> dict[str, object]:
        """What a reader of the sheet has to know."""
        return {"file": file, "size": self.size, "columns": self.columns, "count": len(self)}
