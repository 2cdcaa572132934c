"""Pairs of an image with hidden blocks and the content of the blocks, as in I-JEPA (Assran et al. 2023, arXiv:2301.08243)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from accord.data.augment import Augmentation, augment, full_view
from accord.data.pair import Pair
from accord.data.pairing import Originals, Pairing
from accord.data.pairing_parts import require_images, require_size
from accord.data.random import Draws
from accord.data.values import Values
from accord.errors import UsageError


class Hiding(NamedTuple):
    """What is hidden of each sample, in patches: corners of the blocks (batch, block, 2), row and column, and the hidden patches."""

    corner: Int64[Tensor, "batch block two"]
    hidden: Bool[Tensor, "batch row column"]


@dataclass(frozen=True, kw_only=True)
class MaskedBlocks(Pairing):
    """An image without some blocks, and the blocks; see `masked_blocks`."""

    patch: int = 4
    block: int = 3
    blocks: int = 1
    whole: bool = False
    augmentation: Augmentation | None = None
    size: int | None = None

    def __call__(self, batch: Values, draws: Draws, aspect: Tensor | None = None) -> Pair:
        """The pairs of a batch: the visible part, the blocks, and where they are.

        Returns:
            x: (batch, channel + 1, height, width): the image, 0 where it is hidden; the last channel is 1 there, else 0.
            y: (batch, channel, side, side), with side = block * patch; with several blocks (blocks, batch, ...). If `whole`, of the
                shape of x: the image with nothing hidden; the last channel is 0 in the block, else -1.
            action: (batch, 4), or (blocks, batch, 4): centre (across, down) from -1 to 1, width and height from 0 to 1.
        """
        originals = require_images(batch, "masked_blocks")
        images = (
            full_view(originals, self.size, aspect)
            if self.augmentation is None
            else augment(originals, draws, self.augmentation, self.size, aspect)
        )
        return self._pair(images, images, self.hide(draws, *self.grid(images)))

    def hide(self, draws: Draws, rows: int, columns: int) -> Hiding:
        """Where blocks lie in a grid of patches: uniform, and free to overlap.

        As many patches are hidden in every sample, blocks * block^2: where blocks overlap, further ones at random.
        """
        room = torch.tensor([rows - self.block + 1, columns - self.block + 1], device=draws.index.device)
        corner = (draws.uniform("block", self.blocks, 2) * room).long()
        inside = self._inside(corner, rows, columns)
        key = draws.uniform("hidden", rows, columns) + inside.any(1)
        order = key.flatten(1).argsort(dim=1, descending=True, stable=True)
        hidden = torch.zeros(len(draws), rows * columns, dtype=torch.bool, device=corner.device)
        hidden.scatter_(1, order[:, : self.blocks * self.block**2], True)
        return Hiding(corner, hidden.view(-1, rows, columns))

    def plain(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The whole image, nothing hidden."""
        images = full_view(require_images(batch, "masked_blocks"), self.size, aspect)
        self.grid(images)
        return torch.cat([images, torch.zeros_like(images[:, :1])], dim=1)

    def plain_y(self, batch: Values, aspect: Tensor | None = None) -> Tensor:
        """The block in the middle."""
        return self.join(Originals(batch, aspect), Originals(batch, aspect)).y

    def join(self, x: Originals, y: Originals) -> Pair:
        """The images x without the block in the middle, and this block of the images y."""
        images, others = (
            full_view(require_images(part.values, "masked_blocks"), self.size, part.aspect) for part in (x, y)
        )
        rows, columns = self.grid(images)
        middle = torch.tensor([(rows - self.block) // 2, (columns - self.block) // 2], device=images.device)
        corner = middle.expand(len(images), 1, 2)
        return self._pair(images, others, Hiding(corner, self._inside(corner, rows, columns)[:, 0]))

    @property
    def alike(self) -> bool:
        """Whether y is a whole image: a block is smaller, and nothing of it is hidden."""
        return self.whole

    @property
    def marks_y(self) -> bool:
        """Whether y is a whole image, marked outside the block."""
        return self.whole

    @property
    def action_dim(self) -> int:
        """Position and size of a block."""
        return 4

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches.

        Raises:
            UsageError: if patches do not divide the images, or nothing would be left to see.
        """
        height, width = images.shape[-2:]
        rows, columns = height // self.patch, width // self.patch
        if height % self.patch or width % self.patch:
            raise UsageError(
                f"patches of {self.patch} pixels do not divide images of {height} x {width}",
                where="pairing.patch",
                help="choose a patch that divides both sides, or set pairing.size",
                code="E227",
            )
        if self.block > min(rows, columns) or self.blocks * self.block**2 >= rows * columns:
            raise UsageError(
                f"{self.blocks} blocks of {self.block} x {self.block} patches hide all of {rows} x {columns} patches",
                where="pairing.block",
                help="use fewer or smaller blocks, or smaller patches",
                code="E227",
            )
        return rows, columns

    def _inside(self, corner: Tensor, rows: int, columns: int) -> Bool[Tensor, "batch block row column"]:
        spans = []
        for axis, length in enumerate((rows, columns)):
            offset = torch.arange(length, device=corner.device) - corner[..., axis, None]
            spans.append((offset >= 0) & (offset < self.block))
        return spans[0][..., :, None] & spans[1][..., None, :]

    def _pair(self, images: Tensor, others: Tensor, hiding: Hiding) -> Pair:
        corner, hidden = hiding
        mask = hidden.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)[:, None]
        x = torch.cat([images.masked_fill(mask, 0.0), mask.to(images.dtype)], dim=1)
        show = self._marked if self.whole else self._content
        contents = [show(others, place) for place in corner.unbind(1)]
        actions = [self._action(place, *hidden.shape[1:]) for place in corner.unbind(1)]
        if self.blocks == 1 or len(contents) == 1:
            return Pair(x, contents[0], actions[0])
        return Pair(x, torch.stack(contents), torch.stack(actions))

    def _content(self, images: Tensor, corner: Int64[Tensor, "batch two"]) -> Tensor:
        """One block of each image, (batch, channel, side, side)."""
        ticks = torch.arange(self.block * self.patch, device=images.device)
        rows, columns = (corner[:, axis, None] * self.patch + ticks for axis in (0, 1))
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def _marked(
        self, images: Tensor, corner: Int64[Tensor, "batch two"]
    ) -> Float[Tensor, "batch channel height width"]:
        """The whole images with a further channel: 0 in the block, -1 elsewhere."""
        rows, columns = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        inside = self._inside(corner[:, None], rows, columns)
        pixels = inside.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return torch.cat([images, pixels.to(images.dtype) - 1], dim=1)

    def _action(self, corner: Int64[Tensor, "batch two"], rows: int, columns: int) -> Float[Tensor, "batch four"]:
        size = torch.tensor([self.block / columns, self.block / rows], device=corner.device)
        grid = torch.tensor([columns, rows], device=corner.device)
        centre = (corner.flip(1) + self.block / 2) / grid * 2 - 1
        return torch.cat([centre, size.expand(len(corner), 2)], dim=1).float()


def masked_blocks(
    *,
    patch: int = 4,
    block: int = 3,
    blocks: int = 1,
    whole: bool = False,
    augmentation: Augmentation | None = None,
    size: int | None = None,
) -> MaskedBlocks:
    """Pairs of an image with hidden square blocks (x) and their content (y); where a block lies is a known cause, `Pair.action`.

    A `ViT` with ``masked=True`` as the encoder of x sees the visible patches only. The content of a block is encoded by itself, by an
    encoder of its own; or, as in I-JEPA, within the whole image: then y has the form of x, and a `MovingAverage` of the encoder of x
    gives the mean over the patches of the block.

    Args:
        patch: side of a patch, pixels; blocks lie on the grid of patches.
        block: side of a block, patches.
        blocks: how many are hidden and predicted, each by itself.
        whole: y is the whole image, marked outside the block, and not the block alone.
        augmentation: random changes of the whole image first; by default none.
        size: side of the square the image is brought to; by default that of the images as they are stored.

    Raises:
        UsageError: for a number below 1, or a size below 4. That the blocks fit the image is found out with the first image.
    """
    for name, value in (("patch", patch), ("block", block), ("blocks", blocks)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(
                f"{name}: expected a whole number of at least 1, got {value!r}",
                where=name,
                help=f"set {name} to 1 or more",
                code="E227",
            )
    require_size(size)
    return MaskedBlocks(patch=patch, block=block, blocks=blocks, whole=whole, augmentation=augmentation, size=size)
