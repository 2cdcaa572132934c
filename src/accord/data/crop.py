r"""Crop, flip, rotate and resize a batch in one resampling: output pixel (u, v) reads the canvas at $c + R_\theta (u\,w/2, v\,h/2)$.

Windows are in fractions of the canvas; `aspect`, width / height of the original, gives the geometry they are measured in.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from accord.data.random import Draws

ATTEMPTS = 10
"""Tries for a window that fits before the largest one that does is taken, as in torchvision's RandomResizedCrop."""


class Window(NamedTuple):
    """Where each sample is read, each (batch,): centre and size in fractions of the canvas, angle in radians.

    A negative width is a mirror image.
    """

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    angle: Tensor | None = None


def full_window(aspect: Float[Tensor, " batch"]) -> Window:
    """The largest square of the original geometry, in the centre."""
    half = torch.full_like(aspect, 0.5)
    return Window(half, half, (1 / aspect).clamp(max=1), aspect.clamp(max=1))


def random_window(
    draws: Draws,
    aspect: Float[Tensor, " batch"],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float = 0.0,
    rotate: float = 0.0,
    shift: float = 0.0,
) -> Window:
    """Random windows: share of the area uniform in `scale`, width / height log-uniform in `ratio`, both in the original geometry.

    A window that does not fit is drawn again, up to 10 times; then the largest centred window of the nearest ratio
    is taken: the distribution of torchvision's RandomResizedCrop without its rounding to whole pixels.

    Args:
        draws: the random numbers.
        aspect: width / height of the originals, (batch,).
        scale: bounds of the share of the area, in (0, 1].
        ratio: bounds of width / height.
        flip: probability of a mirror image.
        rotate: largest angle to either side, degrees.
        shift: largest displacement to either side, in fractions of the canvas; the window may leave the canvas.
    """
    width, height = _random_size(draws, aspect, scale, ratio)
    place = draws.uniform("place", 3)
    x = width / 2 + place[:, 0] * (1 - width)
    y = height / 2 + place[:, 1] * (1 - height)
    if shift:
        away = draws.uniform("shift", 2).mul_(2 * shift).sub_(shift)
        x, y = x + away[:, 0], y + away[:, 1]
    if flip:
        width = torch.where(place[:, 2] < flip, -width, width)
    angle = draws.uniform("rotate").mul_(2).sub_(1).mul_(math.radians(rotate)) if rotate else None
    return Window(x, y, width, height, angle)


def _random_size(
    draws: Draws, aspect: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Width and height of the first window that fits, in fractions of the canvas."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    nearest = aspect.clamp(*ratio) / aspect
    fallback = torch.stack([nearest.clamp(max=1), (1 / nearest).clamp(max=1)])
    if scale == (1, 1) and low == high:
        return fallback[0], fallback[1]
    u = draws.uniform("window", 2, ATTEMPTS)
    area = scale[0] + (scale[1] - scale[0]) * u[:, 0]
    relative = torch.exp(low + (high - low) * u[:, 1]) / aspect[:, None]
    size = torch.stack([(area * relative).sqrt_(), (area / relative).sqrt_()])
    fits = (size <= 1).all(0)
    first = fits.to(torch.uint8).argmax(1)
    chosen = size.gather(2, first.expand(2, -1)[..., None])[..., 0]
    width, height = torch.where(fits.any(1), chosen, fallback)
    return width, height


def resample(images: Float[Tensor, "batch c h w"], window: Window, size: int, aspect: Tensor) -> Tensor:
    """(batch, c, size, size): the windows of `images`; beyond the canvas its border is repeated.

    Without rotation two matrix products per sample with antialiased bilinear weights (as Pillow's); with rotation one
    `grid_sample`, whose input is averaged over whole pixels first where the canvas is at least twice the output.
    """
    if window.angle is None:
        return _resample_separable(images, window, size)
    return _resample_grid(images, window, size, aspect)


def _resample_separable(images: Tensor, window: Window, size: int) -> Tensor:
    batch, channels, height, width = images.shape
    columns = axis_weights(window.x, window.width, size, width)
    rows = axis_weights(window.y, window.height, size, height)
    half = torch.bmm(images.view(batch, channels * height, width), columns.transpose(1, 2))
    return torch.matmul(rows[:, None], half.view(batch, channels, height, size))


def axis_weights(centre: Float[Tensor, " batch"], extent: Tensor, size: int, source: int) -> Tensor:
    r"""Antialiased bilinear weights, (batch, size, source), rows summing to 1.

    $w_{pj} \propto \max(0, 1 - |c_p - j| / \max(1, |step|))$ for output pixel p, whose centre lies at $c_p$ in source pixels.
    """
    step = extent * (source / size)
    first = centre * source - 0.5 - step * ((size - 1) / 2)
    place = torch.addcmul(first[:, None], step[:, None], torch.arange(size, dtype=step.dtype, device=step.device))
    weights = place.clamp_(0, source - 1)[..., None] - torch.arange(source, dtype=step.dtype, device=step.device)
    weights.abs_().div_(step.abs().clamp(min=1).neg_()[:, None, None]).add_(1).clamp_(min=0)
    return weights.div_(weights.sum(2, keepdim=True))


def _resample_grid(images: Tensor, window: Window, size: int, aspect: Tensor) -> Tensor:
    assert window.angle is not None
    reduce = max(1, min(images.shape[-2:]) // (2 * size) * 2)
    if reduce > 1:
        images = F.avg_pool2d(images, reduce, ceil_mode=True, count_include_pad=False)
    cos, sin = window.angle.cos(), window.angle.sin()
    across = torch.stack([cos * window.width, sin * window.width * aspect], dim=1)
    down = torch.stack([-sin * window.height / aspect, cos * window.height], dim=1)
    centre = torch.stack([window.x, window.y], dim=1) * 2 - 1
    ticks = (torch.arange(size, dtype=across.dtype, device=across.device) * 2 + (1 - size)) / size
    along = torch.addcmul(centre[:, None], across[:, None], ticks[:, None])
    grid = along[:, None] + (down[:, None] * ticks[:, None])[:, :, None]
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
