"""Arrays of images as samples.

| array                                                    | is                                      |
|----------------------------------------------------------|-----------------------------------------|
| (N, H, W)                                                | N grey images                           |
| (N, C, H, W) or (N, H, W, C), C = 1, 3 or 4 (with alpha) | N images; if both fit, it is an error   |

Values: uint8 as they are; bool as 0 and 255; uint16 scaled by 1/257; other integers in 0..255; floats in 0..1 times 255.
Images that are not square, or have more than 96 pixels a side, are squeezed on to the canvas that files would get.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from accord.data.encoded import Options, memory_free, plan
from accord.data.images import Canvas, Header, count_constant, to_canvas
from accord.data.policy import Policy, judge
from accord.data.samples import ArrayStore, Samples, hash_rows
from accord.data.vectors import Labels
from accord.errors import DataError, EnvironmentFault

_CHUNK = 1024


def pixel_samples(
    name: str,
    array: np.ndarray,
    keys: Sequence[str],
    labels: Labels | None,
    notes: list[str],
    options: Options,
    policy: Policy,
) -> Samples:
    """An array of images as samples; it is not copied if it is uint8 and has the canvas's size. Raises `DataError`."""
    pixels = as_images(array, name)
    n, channels, height, width = pixels.shape
    canvas = plan([Header(width, height, channels == 1)], options, False)
    samples = Samples(
        name=name,
        kind="image",
        store=ArrayStore(_on_canvas(name, pixels, canvas)),
        keys=keys,
        content=hash_rows(pixels),
        ok=np.ones(n, np.bool_),
        labels=None if labels is None else labels.labels,
        classes=() if labels is None else labels.classes,
        aspect=np.full(n, width / height, np.float32),
        notes=notes,
    )
    return judge(samples, policy, _constant(pixels))


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """(N, H, W), (N, C, H, W) or (N, H, W, C) of real numbers as uint8 (N, C, H, W), C = 1 or 3. Raises `DataError`."""
    if 0 in array.shape:
        raise DataError(
            f"no images in an array of shape {array.shape}", where=where, help="check how it was made", code="E338"
        )
    array = _channels_first(array, where)
    pixels = _to_uint8(array, where)
    if pixels.shape[1] != 4:
        return pixels
    alpha = pixels[:, 3:].astype(np.uint16)
    composite: np.ndarray = ((pixels[:, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return composite


def _channels_first(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in (1, 3, 4), array.shape[-1] in (1, 3, 4)
    if first != last:
        return array if first else np.moveaxis(array, -1, 1)
    what = "could have its channels first or last" if first else "has no axis of 1, 3 or 4 channels"
    help = "expected (N, C, H, W) or (N, H, W, C) with C = 1 or 3; grey images may be (N, H, W)"
    raise DataError(f"an array of images of shape {array.shape} {what}", where=where, help=help, code="E340")


def _to_uint8(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype == np.uint16:
        return np.asarray((array.astype(np.uint32) + 128) // 257, np.uint8)
    if array.dtype.kind == "f":
        _refuse_not_finite(array, where)
    low, high = array.min(), array.max()
    if low >= 0 and high <= (1 if array.dtype.kind == "f" else 255):
        return np.asarray(np.rint(array * 255.0) if array.dtype.kind == "f" else array).astype(np.uint8)
    raise DataError(
        f"images of {array.dtype} with values from {low:g} to {high:g}: expected uint8, or floats in 0..1",
        where=where,
        help="scale them: (255 * x).round().astype('uint8'); for a table of numbers use the shape (N, features)",
        code="E340",
    )


def _refuse_not_finite(array: np.ndarray, where: str) -> None:
    finite = np.isfinite(array.reshape(len(array), -1)).all(1)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        raise DataError(
            f"{len(rows)} images hold NaN or infinity; first: {', '.join(f'row {r}' for r in rows[:5])}",
            where=f"{where}:row {rows[0]}",
            help="replace these values or leave the images out",
            code="E317",
        )


def _on_canvas(name: str, pixels: np.ndarray, canvas: Canvas) -> np.ndarray:
    shape = (len(pixels), canvas.channels, canvas.side, canvas.side)
    if pixels.shape == shape:
        return pixels
    needed = int(np.prod(shape, dtype=np.int64))
    if needed > memory_free() // 2:
        raise EnvironmentFault(
            f"{needed / 1e9:.1f} GB needed for the images at {canvas.side} pixels, {memory_free() / 1e9:.1f} GB of memory free",
            where=name,
            help="pass a smaller size=, or images that are square and have that size",
            code="E543",
        )
    out = np.empty(shape, np.uint8)
    for i, image in enumerate(pixels):
        plain = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        out[i] = to_canvas(Image.fromarray(np.ascontiguousarray(plain)), canvas)
    return out


def _constant(pixels: np.ndarray) -> int:
    return sum(count_constant(pixels[start : start + _CHUNK]) for start in range(0, len(pixels), _CHUNK))
