"""Thumbnails of samples and views, all on one PNG sheet."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
        """Adds pictures with values in [0, 1], of any size; their numbers. Of 2 or more than 3 channels the first is shown in grey."""
        images = images.float().clamp(0, 1)
        if images.shape[-2:] != (self.size, self.size):
            images = torch.nn.functional.interpolate(
                images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
            )
        if images.shape[1] != 3:
            images = images[:, :1].expand(-1, 3, -1, -1)
        start = len(self)
        self.tiles.extend((images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        return list(range(start, len(self)))

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
