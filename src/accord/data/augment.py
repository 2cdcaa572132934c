"""Random views of a whole batch at once, with parameters of its own for every sample."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from accord.data import colour
from accord.data.crop import full_window, random_window, resample
from accord.data.random import Draws
from accord.errors import UsageError

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to an image, in this order; the defaults change nothing.

    Args:
        scale: bounds of the share of the image's area that is kept, in (0, 1].
        ratio: bounds of width / height of the crop.
        flip: probability of a mirror image (left and right).
        rotate: largest rotation to either side, degrees.
        shift: largest displacement of the crop to either side, in fractions of the image; beyond it the border is repeated.
        jitter: probability that brightness, contrast, saturation and hue change at all.
        brightness: factor in [1 - value, 1 + value].
        contrast: factor in [1 - value, 1 + value], around the mean luma of the image.
        saturation: factor in [1 - value, 1 + value].
        hue: turn in [-value, value], at most 0.5 (half the colour circle).
        greyscale: probability that the colour is dropped.
        blur: probability of a Gaussian blur.
        blur_sigma: bounds of its standard deviation, pixels of the view.
        solarise: probability that values above one half are inverted.
        noise: standard deviation of noise added to every value, in [0, 1].

    Raises:
        UsageError: (a ValueError) if a value is out of bounds; the message names it and its bounds.
    """

    scale: Range = (1.0, 1.0)
    ratio: Range = (1.0, 1.0)
    flip: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    jitter: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    greyscale: float = 0.0
    blur: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    solarise: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        ranges = {"scale": (1e-4, 1.0), "ratio": (0.01, 100.0), "blur_sigma": (0.0, 64.0)}
        limits = {"rotate": 180.0, "shift": 1.0, "hue": 0.5}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ranges:
                object.__setattr__(self, field.name, _range(field.name, value, *ranges[field.name]))
            else:
                _check(field.name, value, 0.0, limits.get(field.name, 1.0))

    @classmethod
    def photo(cls) -> Augmentation:
        """For colour photographs: crop, flip, colour, grey (Chen et al. 2020, SimCLR, arXiv:2002.05709, as used at 32 pixels)."""
        return cls(
            scale=(0.2, 1.0),
            ratio=(3 / 4, 4 / 3),
            flip=0.5,
            jitter=0.8,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            greyscale=0.2,
        )

    @classmethod
    def grey(cls) -> Augmentation:
        """For photographs without colour: as `photo`, without saturation, hue and grey."""
        return cls(scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, jitter=0.8, brightness=0.4, contrast=0.4)

    @classmethod
    def digits(cls) -> Augmentation:
        """For digits and other writing: small turns, shifts and changes of scale; never a mirror image."""
        return cls(scale=(0.6, 1.0), ratio=(3 / 4, 4 / 3), rotate=15.0, shift=0.1, brightness=0.3, contrast=0.3)


@dataclass(frozen=True, kw_only=True)
class VectorAugmentation:
    """What may happen to a vector of standardised features.

    Args:
        noise: standard deviation of Gaussian noise, in units of the features.
        mask: probability that a feature is set to 0, each on its own.
        scale: factor of the whole vector in [1 - value, 1 + value].

    Raises:
        UsageError: (a ValueError) if a value is out of bounds.
    """

    noise: float = 0.1
    mask: float = 0.2
    scale: float = 0.0

    def __post_init__(self) -> None:
        _check("noise", self.noise, 0.0, 100.0)
        _check("mask", self.mask, 0.0, 1.0, open_end=True)
        _check("scale", self.scale, 0.0, 1.0)


def augment(
    images: UInt8[Tensor, "batch c h w"],
    draws: Draws,
    augmentation: Augmentation,
    size: int | None = None,
    aspect: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch c size size"]:
    """One random view of each image, float32 in [0, 1].

    Args:
        images: (batch, channel, height, width) uint8. float32 in [0, 1] is taken as well.
        draws: the random numbers of these samples.
        augmentation: what may happen.
        size: side of the view; by default the shorter side of the images.
        aspect: width / height of the originals where the images were squeezed on to their canvas, (batch,).

    Raises:
        ValueError: if the images are not a batch of images.
    """
    canvas = _as_float(images)
    aspect = _aspect(canvas, aspect)
    size = size or min(canvas.shape[-2:])
    window = random_window(
        draws,
        aspect,
        scale=augmentation.scale,
        ratio=augmentation.ratio,
        flip=augmentation.flip,
        rotate=augmentation.rotate,
        shift=augmentation.shift,
    )
    view = _recolour(resample(canvas, window, size, aspect), draws, augmentation)
    if augmentation.blur:
        u = draws.uniform("blur", 2)
        low, high = augmentation.blur_sigma
        view = colour.blur(view, torch.where(u[:, 0] < augmentation.blur, low + (high - low) * u[:, 1], 0.0), high)
    if augmentation.solarise:
        view = colour.solarise(view, (draws.uniform("solarise") < augmentation.solarise).float())
    if augmentation.noise:
        view = view.add_(draws.normal("noise", *view.shape[1:]), alpha=augmentation.noise).clamp_(0, 1)
    return view


def full_view(images: UInt8[Tensor, "batch c h w"], size: int | None = None, aspect: Tensor | None = None) -> Tensor:
    """The largest centred square of each image in its original geometry, (batch, c, size, size) float32 in [0, 1]."""
    canvas = _as_float(images)
    height, width = canvas.shape[-2:]
    size = size or min(height, width)
    if aspect is None and height == width == size:
        return canvas
    aspect = _aspect(canvas, aspect)
    return resample(canvas, full_window(aspect), size, aspect).clamp_(0, 1)


def augment_vectors(
    vectors: Float[Tensor, "batch feature"], draws: Draws, augmentation: VectorAugmentation
) -> Float[Tensor, "batch feature"]:
    """One random view of each vector, float32."""
    view = vectors.float()
    if augmentation.scale:
        view = view * draws.uniform("scale", 1).mul_(2).sub_(1).mul_(augmentation.scale).add_(1)
    if augmentation.noise:
        view = view + draws.normal("noise", view.shape[1]).mul_(augmentation.noise)
    if augmentation.mask:
        view = view * (draws.uniform("mask", view.shape[1]) >= augmentation.mask)
    return view


def _recolour(view: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """Brightness, contrast, saturation, hue and grey, clamped to [0, 1] once."""
    ranges = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    coloured = view.shape[1] == 3
    if not any(ranges[:2]) and not (coloured and (any(ranges) or augmentation.greyscale)):
        return view.clamp_(0, 1)
    u = draws.uniform("colour", 6)
    jitter = (u[:, 4] < augmentation.jitter).float()[:, None] * view.new_tensor(ranges)
    brightness, contrast, saturation, hue = (jitter * (2 * u[:, :4] - 1)).unbind(1)
    if coloured:
        grey = (u[:, 5] < augmentation.greyscale).float()
        linear, offset = colour.colour_matrix(1 + brightness, 1 + contrast, 1 + saturation, hue, grey)
        return colour.apply_colour(view, linear, offset).clamp_(0, 1)
    return colour.apply_tone(view, 1 + brightness, 1 + contrast).clamp_(0, 1)


def _as_float(images: Shaped[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
    if images.ndim != 4 or images.dtype not in (torch.uint8, torch.float32):
        raise ValueError(
            "images: expected uint8 (or float32 in [0, 1]) of shape (batch, channel, height, width), "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )
    return images.float().mul_(1 / 255) if images.dtype == torch.uint8 else images


def _aspect(canvas: Tensor, aspect: Tensor | None) -> Tensor:
    """Width / height of the originals; without it that of the canvas."""
    batch, _, height, width = canvas.shape
    if aspect is None:
        return canvas.new_full((batch,), width / height)
    if aspect.shape != (batch,):
        raise ValueError(f"aspect: expected one value per image, shape ({batch},), got {tuple(aspect.shape)}")
    return aspect.to(canvas)


def _check(name: str, value: float, low: float, high: float, *, open_end: bool = False) -> None:
    """A number within bounds; NaN is within none."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or (open_end and value == high):
        bounds = f"[{low:g}, {high:g}" + (")" if open_end else "]")
        raise UsageError(
            f"{name}: expected a number in {bounds}, got {value!r}", where=name, help=f"set {name} within {bounds}"
        )


def _range(name: str, value: Range, low: float, high: float) -> Range:
    """Two numbers within bounds, in order."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise UsageError(
            f"{name}: expected two numbers (low, high), got {value!r}",
            where=name,
            help=f"e.g. {name} = [{low:g}, {high:g}]",
        )
    for bound in value:
        _check(name, bound, low, high)
    if value[0] > value[1]:
        raise UsageError(
            f"{name}: the lower bound {value[0]:g} is above the upper bound {value[1]:g}", where=name, help="swap them"
        )
    return float(value[0]), float(value[1])
