r"""Colour changes of a batch, composed into one affine map of the channels per sample: $p \mapsto A p + b$.

Luma is that of ITU-R BT.601, $(0.299, 0.587, 0.114)$, as in Pillow and torchvision.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
TO_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
NEGLIGIBLE = 1e-5
"""Weights of a blur below this are zero: denormal products slow a CPU down many times."""


def colour_matrix(
    brightness: Float[Tensor, " batch"], contrast: Tensor, saturation: Tensor, hue: Tensor, grey: Tensor
) -> tuple[Float[Tensor, "batch 3 3"], Float[Tensor, " batch"]]:
    r"""The linear part A and the factor of the mean luma in the offset, of brightness, contrast, saturation, hue and grey in this order.

    brightness $f p$; contrast $f p + (1 - f)\bar\ell$ with the image's mean luma; saturation $f p + (1 - f)\ell(p)$;
    hue: a rotation by $2\pi h$ in the chroma plane of YIQ, which keeps luma; grey: $\ell(p)$ where `grey` is 1.
    All of them keep a grey pixel grey, so the offset is the same for the three channels:
    $b = f_b (1 - f_c)\,\bar\ell$ of the image before.

    Args:
        brightness: factor, (batch,) as all of them; 1 changes nothing.
        contrast: factor; 1 changes nothing.
        saturation: factor; 1 changes nothing.
        hue: turns, in [-0.5, 0.5]; 0 changes nothing.
        grey: 1 where the colour is dropped, else 0.
    """
    luma = brightness.new_tensor(LUMA)
    yiq = brightness.new_tensor(TO_YIQ)
    keep = saturation * (1 - grey)
    turn = hue * (2 * math.pi)
    cos, sin = keep * turn.cos(), keep * turn.sin()
    basis = torch.linalg.inv(yiq.double()).float()
    stay = torch.outer(basis[:, 0], luma)
    even = basis[:, 1:] @ yiq[1:]
    odd = torch.outer(basis[:, 2], yiq[1]) - torch.outer(basis[:, 1], yiq[2])
    linear = stay + cos[:, None, None] * even + sin[:, None, None] * odd
    return linear * (brightness * contrast)[:, None, None], brightness * (1 - contrast)


def apply_colour(images: Float[Tensor, "batch 3 h w"], linear: Tensor, offset: Tensor) -> Tensor:
    """A p + b with b = offset * mean luma of each image."""
    pixels = images.flatten(2)
    mean = pixels.mean(2) @ images.new_tensor(LUMA)
    shifted = torch.baddbmm((offset * mean)[:, None, None], linear, pixels)
    return shifted.view_as(images)


def apply_tone(images: Float[Tensor, "batch c h w"], brightness: Tensor, contrast: Tensor) -> Tensor:
    """Brightness and contrast of images without colour, in place; the mean is over all channels."""
    mean = images.flatten(1).mean(1)
    scale = (brightness * contrast)[:, None, None, None]
    return images.mul_(scale).add_((brightness * (1 - contrast) * mean)[:, None, None, None])


def blur(images: Float[Tensor, "batch c h w"], sigma: Float[Tensor, " batch"], largest: float) -> Tensor:
    """Gaussian blur with a standard deviation per sample, in pixels; 0 is none. The border is mirrored.

    Args:
        images: (batch, channel, height, width).
        sigma: (batch,), at most `largest`.
        largest: fixes the width of the kernel, so that it does not depend on the other samples of the batch.
    """
    batch, channels, height, width = images.shape
    radius = min(
        math.ceil(math.sqrt(-2 * math.log(NEGLIGIBLE)) * largest), height - 1, width - 1, math.ceil(4 * largest)
    )
    kernel = gaussian(sigma, radius).repeat_interleave(channels, 0)
    flat = F.pad(images.reshape(1, -1, height, width), (radius, radius, radius, radius), mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=batch * channels)
    return F.conv2d(flat, kernel[:, None, None, :], groups=batch * channels).view_as(images)


def gaussian(sigma: Float[Tensor, " batch"], radius: int) -> Float[Tensor, "batch width"]:
    r"""$\exp(-j^2 / 2\sigma^2)$ for |j| <= radius, summing to 1, negligible weights zero; sigma 0 is the identity."""
    distance = torch.arange(-radius, radius + 1, dtype=sigma.dtype, device=sigma.device)
    weights = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-3)[:, None]).square())
    weights = weights / weights.sum(1, keepdim=True)
    weights = torch.where(weights < NEGLIGIBLE, 0.0, weights)
    return weights / weights.sum(1, keepdim=True)


def solarise(images: Float[Tensor, "batch c h w"], on: Float[Tensor, " batch"]) -> Tensor:
    """Values above one half become one minus themselves where `on` is 1, in place: min(p, 1 - p) for p in [0, 1]."""
    return torch.minimum(
        images, torch.addcmul(images.new_ones(()), images, on[:, None, None, None], value=-1), out=images
    )
