r"""Crop, flip, turn and resize in one resampling: output pixel (u, v) in [-1, 1]² reads the canvas at $c + \frac12 T\,(u, v)$.

Windows are in fractions of the canvas; `aspect`, width / height of the original, gives the geometry in which area,
ratio and angles are measured, whatever canvas the original was squeezed on to.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from accord.data.random import Draws

ATTEMPTS = 10
"""Tries for a window that fits before the largest one is taken, as in torchvision's RandomResizedCrop."""
LARGE = 64
"""Above this side (pixels of the canvas) uint8 images on a CPU are resized one by one by torch's own antialiasing code."""
NEGLIGIBLE = 1e-5
"""Weights of a blur below this are zero: products of denormal numbers slow a CPU down many times."""

Outside = Literal["repeat", "black"]


class Window(NamedTuple):
    """Where each sample is read, (batch,) each: centre and size in fractions of the canvas; a negative width is a mirror image.

    `turn` is T, (batch, 2, 2), where it is more than the diagonal (width, height).
    """

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    turn: Tensor | None = None


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
    shift: float = 0.0,
) -> Window:
    """Random windows: share of the area uniform in `scale`, width / height log-uniform in `ratio`, place uniform.

    A window that does not fit is drawn again, up to 10 times; then the largest one of the nearest ratio is taken. This is
    the distribution of torchvision's RandomResizedCrop, without its rounding to whole pixels, and without its habit of
    putting a window of the last kind in the middle.

    Args:
        draws: the random numbers.
        aspect: width / height of the originals, (batch,).
        scale: bounds of the share of the area; above 1 the window is larger than the image.
        ratio: bounds of width / height.
        flip: probability of a mirror image.
        shift: largest displacement to either side, in fractions of the canvas; the window may leave the canvas.
    """
    width, height = _random_size(draws, aspect, scale, ratio)
    u = draws.uniform("place", 5)
    x = width / 2 + u[:, 0] * (1 - width) + shift * (2 * u[:, 3] - 1)
    y = height / 2 + u[:, 1] * (1 - height) + shift * (2 * u[:, 4] - 1)
    return Window(x, y, torch.where(u[:, 2] < flip, -width, width), height)


def _random_size(
    draws: Draws, aspect: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Width and height of the first window that fits, in fractions of the canvas."""
    nearest = aspect.clamp(*ratio) / aspect
    largest = max(1.0, math.sqrt(scale[1]))
    fallback = torch.stack([nearest.clamp(max=1), (1 / nearest).clamp(max=1)])
    if scale == (1, 1) and ratio[0] == ratio[1]:
        return fallback[0], fallback[1]
    u = draws.uniform("window", 2, ATTEMPTS)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    area = scale[0] + (scale[1] - scale[0]) * u[:, 0]
    relative = torch.exp(low + (high - low) * u[:, 1]) / aspect[:, None]
    size = torch.stack([(area * relative).sqrt_(), (area / relative).sqrt_()])
    fits = (size <= largest).all(0)
    chosen = size.gather(2, fits.to(torch.uint8).argmax(1).expand(2, -1)[..., None])[..., 0]
    width, height = torch.where(fits.any(1), chosen, fallback)
    return width, height


def turned(window: Window, aspect: Float[Tensor, " batch"], angle: Tensor, shear: Tensor) -> Window:
    """The window turned by `angle` (radians, about its centre) and slanted by `shear` (width per height), in the original geometry."""
    cos, sin = angle.cos(), angle.sin()
    across, down = window.width * aspect, window.height
    columns = [cos * across, (shear * cos - sin) * down, sin * across, (shear * sin + cos) * down]
    turn = torch.stack(columns, dim=1).view(-1, 2, 2) / torch.stack([aspect, torch.ones_like(aspect)], 1)[..., None]
    return window._replace(turn=turn)


def resample(
    images: Shaped[Tensor, "batch c h w"],
    window: Window,
    size: int,
    *,
    sigma: Float[Tensor, " batch"] | None = None,
    outside: Outside = "repeat",
) -> Float[Tensor, "batch c size size"]:
    """The windows of `images` at a new size, blurred by a Gaussian of `sigma` output pixels where it is given.

    Images: (batch, channel, height, width), uint8 or float32 in [0, 1]; the views are float32 in [0, 1].
    Small images: two matrix products per sample with antialiased bilinear weights, those of Pillow. Large uint8 images on a
    CPU: the same filter by torch's own code, windows rounded to whole pixels. Turned windows: bilinear `grid_sample`, which
    does not antialias; where the canvas is at least twice the output, whole pixels are averaged first.
    """
    if window.turn is not None:
        views = _resample_turned(_as_float(images), window, size, outside)
    elif images.dtype == torch.uint8 and images.is_cpu and min(images.shape[-2:]) > LARGE:
        views = _resample_large(images, window, size)
    else:
        columns = axis_weights(window.x, window.width, size, images.shape[3])
        rows = axis_weights(window.y, window.height, size, images.shape[2])
        if sigma is not None:
            some = _some(sigma)
            kernel = blur_weights(sigma[some], size)
            columns[some], rows[some] = kernel @ columns[some], kernel @ rows[some]
        return _product(_as_float(images), rows, columns)
    if sigma is not None:
        some = _some(sigma)
        views[some] = blur(views[some], sigma[some])
    return views


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


def blur_weights(sigma: Float[Tensor, " batch"], size: int) -> Float[Tensor, "batch size size"]:
    r"""$w_{pj} \propto \exp(-(p - j)^2 / 2\sigma^2)$, rows summing to 1; the identity where sigma is 0."""
    distance = torch.arange(1 - size, size, dtype=sigma.dtype, device=sigma.device)
    kernel = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-3)[:, None]).square())
    kernel = torch.where(kernel < NEGLIGIBLE, 0.0, kernel)
    weights = kernel.unfold(1, size, 1).flip(1)
    return weights.div_(weights.sum(2, keepdim=True))


def blur(images: Float[Tensor, "batch c h w"], sigma: Float[Tensor, " batch"]) -> Float[Tensor, "batch c h w"]:
    """Gaussian blur of a standard deviation per sample, in pixels; what lies beyond the border counts for nothing."""
    return _product(images, blur_weights(sigma, images.shape[2]), blur_weights(sigma, images.shape[3]))


def _some(sigma: Float[Tensor, " batch"]) -> Tensor | slice:
    """Which samples to blur: all of them on a GPU, where asking costs more than the work."""
    return sigma.nonzero()[:, 0] if sigma.is_cpu else slice(None)


def _product(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows @ image @ columns^T for each channel."""
    batch, channels, height, width = images.shape
    half = torch.bmm(images.reshape(batch, channels * height, width), columns.transpose(1, 2))
    return torch.matmul(rows[:, None], half.view(batch, channels, height, columns.shape[1]))


def _resample_large(images: Tensor, window: Window, size: int) -> Tensor:
    """One by one, in uint8: at these sizes the overhead is small and the code of torch is far faster than dense weights."""
    height, width = images.shape[-2:]
    reach = torch.stack([window.y, window.x, window.height.abs(), window.width.abs()])
    near, far = reach[:2] - reach[2:] / 2, reach[:2] + reach[2:] / 2
    pixels = torch.tensor([[height], [width]], dtype=near.dtype)
    start = torch.minimum((near * pixels).round_(), pixels - 1).clamp_(min=0).int()
    stop = torch.minimum((far * pixels).round_(), pixels).int().clamp_(min=start + 1)
    views = torch.empty((*images.shape[:2], size, size), dtype=torch.uint8)
    boxes = torch.cat([start, stop]).T.tolist()
    flips = (window.width < 0).tolist()
    for image, view, (top, left, bottom, right), flip in zip(
        images.split(1), views.split(1), boxes, flips, strict=True
    ):
        part = F.interpolate(image[:, :, top:bottom, left:right], (size, size), mode="bilinear", antialias=True)
        view.copy_(part.flip(3) if flip else part)
    return _as_float(views)


def _resample_turned(images: Tensor, window: Window, size: int, outside: Outside) -> Tensor:
    assert window.turn is not None
    factor = min(images.shape[-2:]) // size
    if factor > 1:
        images = F.avg_pool2d(images, factor, ceil_mode=True, count_include_pad=False)
    centre = torch.stack([window.x, window.y], dim=1) * 2 - 1
    ticks = (torch.arange(size, dtype=centre.dtype, device=centre.device) * 2 + (1 - size)) / size
    along = torch.addcmul(centre[:, None], window.turn[:, None, :, 0], ticks[:, None])
    grid = along[:, None] + (window.turn[:, None, :, 1] * ticks[:, None])[:, :, None]
    padding = "zeros" if outside == "black" else "border"
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _as_float(images: Shaped[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
    return images * (1 / 255) if images.dtype == torch.uint8 else images
