"""One encoded image -> one uint8 array, by documented rules, with every refusal named.

Formats: JPEG, PNG, WebP, BMP, TIFF, GIF; whatever the file is called, its first bytes decide. Nothing else is ever opened.

| in the file                      | stored as                                                                   |
|----------------------------------|-----------------------------------------------------------------------------|
| grey, 1 bit                      | grey 0..255                                                                 |
| palette, YCbCr, Lab              | RGB by Pillow's formulas; colour profiles are dropped                       |
| CMYK                             | RGB, (255 - C)(255 - K) / 255; in JPEG always with Adobe's polarity         |
| alpha, transparent colour        | composited on white                                                         |
| 16 bit                           | round(v / 257), so 65535 -> 255: scaled, never wrapped or clipped           |
| floating point                   | 0..1 times 255, or 0..255 as it is; anything else is refused                |
| EXIF or XMP orientation 1..8     | applied                                                                     |
| several frames or pages          | the first                                                                   |
"""

from __future__ import annotations

import io
import math
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from accord.data.formats import FORMATS, foreign, sniff
from accord.data.samples import Refused

MAX_PIXELS = 50_000_000
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Canvas(NamedTuple):
    """What images are stored as: (channels, side, side).

    `expected` (width, height): every image has this size. `all_grey`: every image is grey. What breaks them is a `Misfit`.
    """

    channels: int
    side: int
    expected: tuple[int, int] | None = None
    all_grey: bool = False


class Header(NamedTuple):
    """What the header says, orientation applied."""

    width: int
    height: int
    grey: bool


class Decoded(NamedTuple):
    """Pixels (C, S, S) uint8, width / height of the original, and the names of the conversions it took."""

    pixels: np.ndarray
    aspect: float
    conversions: tuple[str, ...]


class Misfit(Exception):
    """An image is not what the canvas was planned for: of another size, or coloured among grey ones."""


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Size and kind from the header alone. Raises `Refused`."""
    image = open_image(data, max_pixels)
    width, height = image.size
    if _orientation(image)[0] >= 5 and image.format != "TIFF":
        width, height = height, width
    return Header(width, height, image.mode in _GREY_MODES)


def decode(data: bytes, canvas: Canvas, max_pixels: int = MAX_PIXELS) -> Decoded:
    """The image as canvas.channels x side x side, squeezed if its shape is another. Raises `Refused`, `Misfit`."""
    image = small_jpeg(data, min(2 * canvas.side, math.isqrt(max_pixels)))
    if image is not None:
        _check_expected(image, canvas)
        return Decoded(to_canvas(image, canvas), image.width / image.height, ())
    image = open_image(data, max_pixels)
    _check_expected(image, canvas)
    try:
        return _decode(image, canvas)
    except (Refused, MemoryError):
        raise
    except Exception as error:  # decoders raise many kinds; each of them means that this one image is damaged
        raise damaged(data, error) from error


def _check_expected(image: Image.Image, canvas: Canvas) -> None:
    if canvas.all_grey and image.mode not in _GREY_MODES:
        raise Misfit
    if canvas.expected is not None and image.size != canvas.expected:
        raise Misfit


def _decode(image: Image.Image, canvas: Canvas) -> Decoded:
    conversions = (
        [] if image.format == "MPO" or not getattr(image, "is_animated", False) else ["only the first frame used"]
    )
    image.draft(None, (canvas.side, canvas.side))  # libjpeg scales by 1/2, 1/4, 1/8 while decoding
    image.load()
    turn, metadata_damaged = _orientation(image)
    if metadata_damaged:
        conversions.append("damaged metadata dropped")
    flat, conversion = flatten(image)
    if image.format != "TIFF" and turn in _TURN:  # Pillow turns TIFF itself
        flat = flat.transpose(_TURN[turn])
    return Decoded(to_canvas(flat, canvas), flat.width / flat.height, (*conversions, *conversion))


def small_jpeg(data: bytes, limit: int) -> Image.Image | None:
    """A plain grey or colour JPEG of at most `limit` pixels a side, or None: then the general way decides.

    For small images most of the general way is spent on metadata; this one goes straight to the same decoder.
    """
    frame = _plain_jpeg_frame(data)
    if frame is None or max(frame[:2]) > limit:
        return None
    width, height, mode = frame
    try:
        return Image.frombytes(mode, (width, height), data, "jpeg", mode, "")
    except (OSError, ValueError):
        return None


def _plain_jpeg_frame(data: bytes) -> tuple[int, int, str] | None:
    """(width, height, mode) of a JPEG that has no metadata but JFIF's, else None."""
    place, frame = 2, None
    while data[:2] == b"\xff\xd8" and place + 10 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:
            return frame
        if marker in (0xC0, 0xC1, 0xC2):
            bits, height, width, components = struct.unpack_from(">BHHB", data, place + 4)
            if bits != 8 or components not in (1, 3) or width * height == 0:
                return None
            frame = (width, height, "L" if components == 1 else "RGB")
        elif marker not in (0xDB, 0xC4, 0xDD, 0xE0):  # tables, restart interval, JFIF
            return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def to_canvas(image: Image.Image, canvas: Canvas) -> np.ndarray:
    """An "L" or "RGB" image on the canvas, (C, S, S) uint8."""
    side = canvas.side
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
    mode = "L" if canvas.channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    pixels = np.asarray(image)
    return pixels[None] if canvas.channels == 1 else pixels.transpose(2, 0, 1)


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image with only its header read. Raises `Refused` for what is no image, of a foreign format, or too large."""
    if not data:
        raise Refused("E303", "empty file (0 bytes)", "restore or delete it")
    found = sniff(data)
    if found not in FORMATS:
        raise foreign(found)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Refused("E313", f"far too many pixels ({error})", "make the image smaller") from error
    except MemoryError:
        raise
    except Exception as error:
        raise damaged(data, error) from error
    width, height = image.size
    if width * height > max_pixels:
        reason = f"{width} x {height} pixels by its header; the limit is max_pixels={max_pixels}"
        raise Refused("E313", reason, "make the image smaller, or raise data.max_pixels if you trust it")
    return image


def damaged(data: bytes, error: Exception) -> Refused:
    """The refusal of an image that its decoder could not read."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "cannot identify" in text:  # Pillow goes on with the address of an object, which differs each time
        text = "no picture can be found in it"
    if "truncated" in text or "Truncated" in text:
        return Refused(
            "E301", f"truncated image: {len(data)} bytes are not all of it ({text})", "copy or download it again"
        )
    if "too large" in text or "MAX_TEXT" in text:
        return Refused(
            "E314", f"a compressed chunk in it is too large ({text})", "save the image again without its metadata"
        )
    return Refused(
        "E301", f"damaged {sniff(data)} image of {len(data)} bytes ({text})", "copy or download it again, or delete it"
    )


def flatten(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """A loaded image as "L" or "RGB", and the names of the conversions. Raises `Refused`."""
    mode = image.mode
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _on_white(image)
    if mode in ("L", "RGB"):
        return image, []
    if mode == "1":
        return image.convert("L"), []
    if mode == "CMYK":
        return image.convert("RGB"), ["CMYK converted to RGB"]
    if mode == "F" or mode.startswith("I"):
        return _from_numbers(np.asarray(image))
    return image.convert("RGB"), []


def _on_white(image: Image.Image) -> tuple[Image.Image, list[str]]:
    grey = image.mode in _GREY_MODES
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    low, high = alpha.getextrema()
    if high == 0:
        raise Refused(
            "E317",
            "the alpha channel is 0 everywhere: nothing can be seen",
            "save it with its alpha channel, or delete it",
        )
    if low == 255:
        flat = rgba.convert("RGB")
    else:
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        flat = Image.alpha_composite(white, rgba).convert("RGB")
        if count_constant(np.asarray(flat).transpose(2, 0, 1)[None]):
            reason = "the picture is in the alpha channel only: on white it is constant"
            raise Refused("E317", reason, "save it on a background of another colour")
    return (flat.getchannel("R") if grey else flat), ["transparency composited on white"]


def count_constant(pixels: np.ndarray) -> int:
    """How many images have one colour only, (N, C, H, W)."""
    flat = pixels.reshape(*pixels.shape[:2], pixels.shape[2] * pixels.shape[3])
    return int((flat.min(2) == flat.max(2)).all(1).sum())


def _from_numbers(values: np.ndarray) -> tuple[Image.Image, list[str]]:
    if values.dtype.kind == "f":
        scaled, conversion = _scale_float(values), "floating-point pixels scaled to 0..255"
    else:
        scaled, conversion = _scale_16_bit(values), "16-bit pixels scaled by 1/257"
    return Image.fromarray(scaled), [conversion]


def _scale_float(values: np.ndarray) -> np.ndarray:
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise Refused("E317", f"{bad} pixels of channel 0 are NaN or infinite", "replace them by numbers")
    low, high = float(values.min()), float(values.max())
    if low < 0.0 or high > 255.0:
        raise Refused(
            "E317", f"floating-point pixels from {low:.4g} to {high:.4g}: expected 0..1 or 0..255", "scale them to 0..1"
        )
    return np.rint(values * 255.0 if high <= 1.0 else values).astype(np.uint8)


def _scale_16_bit(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Refused(
            "E307", f"integer pixels from {low} to {high}: expected 0..65535", "save it with 8 or 16 bits per channel"
        )
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """EXIF (else XMP) orientation, 1 if there is none, and whether the metadata are damaged."""
    exif, damaged_exif = image.info.get("exif"), False
    if isinstance(exif, bytes):
        try:
            found = exif_orientation(exif)
        except (struct.error, ValueError):
            damaged_exif, found = True, None
        if found is not None:
            return found, damaged_exif
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    match = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp.encode() if isinstance(xmp, str) else xmp)
    return (int(match[1]) if match else 1), damaged_exif


def exif_orientation(exif: bytes) -> int | None:
    """Tag 274 of the first directory of an EXIF block, None if it is not there. Raises struct.error or ValueError if damaged."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        raise ValueError("no TIFF header")
    (offset,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, offset)
    for i in range(count):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, offset + 2 + 12 * i)
        if tag == 274 and kind == 3 and 1 <= value <= 8:
            return int(value)
    return None


_hush_lock = threading.Lock()
_hush_depth = 0
_HUSH = r"PIL\."


@contextmanager
def pillow_hushed() -> Iterator[None]:
    """Meanwhile Pillow's warnings, which name no file, are ignored; no other filter is touched, whichever thread set it."""
    global _hush_depth  # noqa: PLW0603  (one list of filters per process)
    with _hush_lock:
        _hush_depth += 1
        warnings.filterwarnings("ignore", module=_HUSH)
        mine = warnings.filters[0]
    try:
        yield
    finally:
        with _hush_lock:
            _hush_depth -= 1
            if _hush_depth == 0 and mine in warnings.filters:
                warnings.filters.remove(mine)  # type: ignore[attr-defined]
