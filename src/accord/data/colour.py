r"""Colour changes of a batch, composed into one affine map of the channels per sample: $p \mapsto A p + b$.

Luma is that of ITU-R BT.601, $(0.299, 0.587, 0.114)$, as in Pillow and torchvision.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
CHROMA = ((0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
"""I and Q of the YIQ colour space, whose Y is luma."""


@lru_cache(maxsize=1)
def hue_basis() -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    r"""Three 3 x 3 matrices (G, C, S): a turn of the chroma plane by $\varphi$ is $G + \cos\varphi\,C + \sin\varphi\,S$."""
    forward = torch.tensor([LUMA, *CHROMA], dtype=torch.float64)
    back = torch.linalg.inv(forward)
    luma = torch.outer(back[:, 0], forward[0])
    even = back[:, 1:] @ forward[1:]
    odd = torch.outer(back[:, 1], forward[2]) - torch.outer(back[:, 2], forward[1])  # from red to green, as in HSV
    return luma.tolist(), even.tolist(), odd.tolist()


def colour_matrix(
    brightness: Float[Tensor, " batch"], contrast: Tensor, saturation: Tensor, hue: Tensor
) -> tuple[Float[Tensor, "batch 3 3"], Float[Tensor, " batch"]]:
    r"""A, and the factor of the image's mean luma in b, for brightness, contrast, saturation and hue in this order.

    brightness $f p$; contrast $f p + (1 - f)\bar\ell$ with the mean luma of the image; saturation $f p + (1 - f)\ell(p)$;
    hue: a turn of the chroma plane of YIQ by $2\pi h$, which keeps luma (Pillow's goes round the hexagon of HSV instead).
    All of them leave grey grey, so b is the same for the three channels: $b = f_b (1 - f_c)\,\bar\ell$.

    Args:
        brightness: factor, (batch,) as all of them; 1 changes nothing.
        contrast: factor; 1 changes nothing.
        saturation: factor; 1 changes nothing, 0 leaves grey.
        hue: turns; 0 changes nothing.
    """
    luma, even, odd = brightness.new_tensor(hue_basis())
    cos, sin = saturation * (hue * (2 * math.pi)).cos(), saturation * (hue * (2 * math.pi)).sin()
    linear = luma + cos[:, None, None] * even + sin[:, None, None] * odd
    return linear * (brightness * contrast)[:, None, None], brightness * (1 - contrast)


def recolour(images: Float[Tensor, "batch 3 h w"], linear: Tensor, offset: Tensor) -> Float[Tensor, "batch 3 h w"]:
    """A p + offset * mean luma, not clamped; `linear` is (batch, 3, 3), `offset` (batch,)."""
    pixels = images.flatten(2)
    mean = pixels.mean(2) @ images.new_tensor(LUMA)
    return torch.baddbmm((offset * mean)[:, None, None], linear, pixels).view(images.shape)


def retone(images: Float[Tensor, "batch c h w"], factor: Tensor, offset: Tensor) -> Float[Tensor, "batch c h w"]:
    """Factor * p + offset * mean over all channels, in place, not clamped: brightness and contrast without colour."""
    mean = images.flatten(1).mean(1)
    return images.mul_(factor[:, None, None, None]).add_((offset * mean)[:, None, None, None])


def solarise(images: Float[Tensor, "batch c h w"], on: Float[Tensor, " batch"]) -> Float[Tensor, "batch c h w"]:
    """Values above one half become one minus themselves where `on` is 1, in place: min(p, 1 - on * p), for p in [0, 1]."""
    inverse = torch.addcmul(images.new_ones(()), images, on[:, None, None, None], value=-1)
    return torch.minimum(images, inverse, out=images)
