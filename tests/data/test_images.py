"""Decoding against formulas and references made without our code."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from accord.data.formats import FORMATS, sniff
from accord.data.images import (
    Canvas,
    Misfit,
    count_constant,
    decode,
    exif_orientation,
    pillow_hushed,
    read_header,
    small_jpeg,
)
from accord.data.jpeg_check import jpeg_fault
from accord.data.samples import Refused

RNG = np.random.default_rng(0)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    channels = [np.sin(x / 7 + c) * 60 + np.cos(y / 5 - c) * 60 + 128 for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(data: bytes, channels: int = 3, side: int = 32) -> np.ndarray:
    return decode(data, Canvas(channels, side)).pixels


def test_a_lossless_image_of_the_canvas_size_is_stored_bit_for_bit() -> None:
    image = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    for format, options in [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]:
        assert (pixels(encoded(Image.fromarray(image), format, **options)) == image.transpose(2, 0, 1)).all(), format


def test_small_jpegs_take_the_short_way_and_get_the_same_pixels() -> None:
    for mode, size in [("RGB", (32, 32)), ("L", (31, 17)), ("RGB", (5, 64)), ("RGB", (1, 1))]:
        for options in [{}, {"quality": 30}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}]:
            data = encoded(Image.fromarray(smooth(size[1], size[0])).convert(mode), "JPEG", **options)
            short = small_jpeg(data, 64)
            assert short is not None and short.mode == mode
            assert (np.asarray(short) == np.asarray(Image.open(io.BytesIO(data)))).all()


def test_the_short_way_leaves_alone_what_it_does_not_understand() -> None:
    image = Image.fromarray(smooth(32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(image, "JPEG")
    assert small_jpeg(plain, 16) is None
    assert small_jpeg(encoded(image, "JPEG", exif=exif), 64) is None
    assert small_jpeg(encoded(image.convert("CMYK"), "JPEG"), 64) is None
    assert small_jpeg(plain[: len(plain) // 2], 64) is None
    assert small_jpeg(encoded(image), 64) is None
    for end in range(0, 40):
        assert small_jpeg(plain[:end], 64) is None


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_follows_the_formula(adobe: bool) -> None:
    cmyk = np.zeros((32, 32, 4), np.uint8)
    cmyk[..., 0], cmyk[..., 1], cmyk[..., 2], cmyk[..., 3] = 200, 30, np.arange(32) * 4, 40
    data = encoded(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=100, subsampling=0)
    if not adobe:
        at = data.index(b"\xff\xee")
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    expected = (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255
    decoded = decode(data, Canvas(3, 32))
    assert np.abs(decoded.pixels.transpose(1, 2, 0) - expected).max() <= 2.0
    assert decoded.conversions == ("CMYK converted to RGB",)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_is_scaled_never_wrapped(format: str) -> None:
    values = np.linspace(0, 65535, 32 * 32).round().astype(np.uint16).reshape(32, 32)
    decoded = decode(encoded(Image.fromarray(values), format), Canvas(1, 32))
    assert (decoded.pixels[0] == np.rint(values / 257)).all()
    assert decoded.conversions == ("16-bit pixels scaled by 1/257",)


def test_16_bit_big_endian_tiff() -> None:
    values = np.linspace(0, 65535, 32 * 32).round().astype(">u2").reshape(32, 32)
    image = Image.frombytes("I;16B", (32, 32), values.tobytes())
    assert (pixels(encoded(image, "TIFF"), 1)[0] == np.rint(values.astype(float) / 257)).all()


def test_floating_point_by_the_documented_rule_or_not_at_all() -> None:
    unit = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    assert (pixels(encoded(Image.fromarray(unit), "TIFF"), 1)[0] == np.rint(unit * 255)).all()
    assert (pixels(encoded(Image.fromarray(unit * 255), "TIFF"), 1)[0] == np.rint(unit * 255)).all()
    for wrong in (unit * 300, unit - 0.5, np.where(unit > 0.5, np.nan, unit), np.where(unit > 0.9, np.inf, unit)):
        with pytest.raises(Refused) as refused:
            pixels(encoded(Image.fromarray(wrong.astype(np.float32)), "TIFF"), 1)
        assert refused.value.code == "E317" and refused.value.help


def test_one_bit_palette_and_transparency() -> None:
    bits = RNG.integers(0, 2, (32, 32)).astype(bool)
    assert (pixels(encoded(Image.fromarray(bits)), 1)[0] == bits * 255).all()

    colours = RNG.integers(0, 256, (8, 3), np.uint8)
    index = RNG.integers(0, 8, (32, 32), np.uint8)
    palette = Image.fromarray(index, "P")
    palette.putpalette(colours.tobytes())
    assert (pixels(encoded(palette)) == colours[index].transpose(2, 0, 1)).all()
    transparent = np.where((index == 3)[..., None], 255, colours[index])
    assert (pixels(encoded(palette, transparency=3)) == transparent.transpose(2, 0, 1)).all()
    alphas = bytes([0, 255, 128, 255, 255, 255, 255, 255])
    alpha = np.frombuffer(alphas, np.uint8)[index][..., None] / 255
    expected = alpha * colours[index] + (1 - alpha) * 255
    assert np.abs(pixels(encoded(palette, transparency=alphas)).transpose(1, 2, 0) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    colour = smooth(32, 32)
    alpha = np.linspace(0, 255, 32).round().astype(np.uint8) * np.ones((32, 1), np.uint8)
    image = Image.fromarray(np.concatenate([colour, alpha[..., None]], -1), "RGBA").convert(mode)
    plain = np.asarray(image)[..., :-1].astype(float)
    expected = plain * (alpha / 255)[..., None] + 255 * (1 - alpha / 255)[..., None]
    decoded = decode(encoded(image), Canvas(plain.shape[-1], 32))
    assert np.abs(decoded.pixels.transpose(1, 2, 0) - expected).max() <= 1.0
    assert decoded.conversions == ("transparency composited on white",)


def test_what_cannot_be_seen_is_refused_by_channel() -> None:
    black = np.zeros((32, 32, 4), np.uint8)
    white = np.full((32, 32, 4), 255, np.uint8)
    white[..., 3] = np.arange(32) * 8
    for image, says in ((black, "0 everywhere"), (white, "alpha channel only")):
        with pytest.raises(Refused, match=says) as refused:
            pixels(encoded(Image.fromarray(image, "RGBA")))
        assert refused.value.code == "E317"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_eight_orientations_look_alike(format: str) -> None:
    upright = smooth(24, 32)
    upright[:8, :8] = 255
    turned = {  # what a camera held so would store, from the definition of the tag: row 0 and column 0 of the stored picture
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }
    options: dict[str, Any] = {"quality": 100} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    reference = pixels(encoded(Image.fromarray(upright), format, **options), 3, 16).astype(float)
    for orientation, stored in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options)
        decoded = decode(data, Canvas(3, 16))
        assert np.abs(decoded.pixels - reference).max() <= (16 if format == "JPEG" else 1), orientation
        assert decoded.aspect == pytest.approx(32 / 24)
        assert read_header(data)[:2] == (32, 24)


def test_orientation_from_a_hand_made_block_of_either_byte_order() -> None:
    for order, mark in (("<", b"II*\0"), (">", b"MM\0*")):
        entry = struct.pack(order + "HHIHH", 274, 3, 1, 8, 0)
        block = mark + struct.pack(order + "IH", 8, 1) + entry
        assert exif_orientation(block) == exif_orientation(b"Exif\0\0" + block) == 8
    with pytest.raises((struct.error, ValueError)):
        exif_orientation(block[:-4])


def test_damaged_exif_is_dropped_and_counted() -> None:
    image = Image.fromarray(smooth(100, 100))
    with pillow_hushed():
        for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0"):
            decoded = decode(encoded(image, "JPEG", exif=exif), Canvas(3, 32))
            assert decoded.conversions == ("damaged metadata dropped",)
            assert np.abs(decoded.pixels - pixels(encoded(image, "JPEG")).astype(int)).max() == 0


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        decoded = decode(data, Canvas(3, 32))
        assert decoded.conversions[0] == "only the first frame used", format
        assert decoded.pixels[0].min() > 240 and decoded.pixels[1:].max() < 15, format


def test_squeezed_on_to_the_canvas_like_an_area_average() -> None:
    wide = np.zeros((40, 160, 3), np.uint8)
    wide[:, 80:] = 255
    decoded = decode(encoded(Image.fromarray(wide)), Canvas(3, 20))
    assert decoded.pixels.shape == (3, 20, 20) and decoded.aspect == 4.0
    assert decoded.pixels[:, :, :9].max() <= 4 and decoded.pixels[:, :, 11:].min() >= 251
    noise = RNG.integers(0, 256, (160, 160), np.uint8)
    average = noise.reshape(20, 8, 20, 8).mean((1, 3))
    difference = pixels(encoded(Image.fromarray(noise)), 1, 20)[0] - average
    assert np.abs(difference).mean() < 8, "no aliasing: single pixels of this noise are off by 64 on average"


def test_a_reduced_jpeg_decode_is_close_to_the_full_one() -> None:
    data = encoded(Image.fromarray(smooth(800, 640)), "JPEG", quality=95)
    full = Image.fromarray(np.asarray(Image.open(io.BytesIO(data)))).resize((40, 40), Image.Resampling.BICUBIC)
    difference = np.abs(pixels(data, 3, 40).transpose(1, 2, 0) - np.asarray(full).astype(float))
    assert difference.mean() < 2.0


def test_colour_to_grey_uses_luma() -> None:
    colour = Image.new("RGB", (32, 32), (200, 100, 50))
    assert abs(int(pixels(encoded(colour), 1)[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1


def test_a_wrong_guess_about_the_others_is_noticed() -> None:
    colour, grey = encoded(Image.fromarray(smooth(32, 32))), encoded(Image.fromarray(smooth(32, 32)[..., 0]))
    for data in (colour, encoded(Image.fromarray(smooth(32, 32)), "JPEG")):
        with pytest.raises(Misfit):
            decode(data, Canvas(1, 32, None, True))
        with pytest.raises(Misfit):
            decode(data, Canvas(3, 32, (31, 32)))
    assert decode(grey, Canvas(1, 32, (32, 32), True)).pixels.shape == (1, 32, 32)


def test_every_cut_of_every_format_is_refused_or_complete() -> None:
    image = Image.fromarray(RNG.integers(0, 256, (40, 40, 3), np.uint8))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    for format in FORMATS:
        data = encoded(image, format)
        whole = pixels(data)
        for cut in np.linspace(0, len(data) - 1, 25).astype(int).tolist():
            try:
                part = pixels(data[:cut])
            except Refused as refused:
                assert refused.code in ("E301", "E303", "E304") and refused.reason and refused.help
            else:
                assert (part == whole).all() or cut >= len(data) - 4, f"{format} cut at {cut} was accepted"


def test_garbage_behind_every_magic_is_refused_not_raised() -> None:
    image = Image.fromarray(smooth(40, 40))
    for format in FORMATS:
        data = encoded(image, format)
        for seed in range(60):
            rng = np.random.default_rng(seed)
            torn = bytearray(data)
            for place in rng.integers(0, min(len(data), 400), 12):
                torn[place] = int(rng.integers(256))
            try:
                assert pixels(bytes(torn)).shape == (3, 32, 32)
            except Refused as refused:
                assert refused.code.startswith("E3")


def test_size_limits_come_from_the_header() -> None:
    data = encoded(Image.new("L", (400, 300)))
    assert read_header(data, 120_000)[:2] == (400, 300)
    with pytest.raises(Refused, match="max_pixels=119999"):
        read_header(data, 119_999)
    with pytest.raises(Refused, match="max_pixels=100"):
        decode(encoded(Image.fromarray(smooth(32, 32)), "JPEG"), Canvas(3, 32), 100)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf  <HTML>", "HTML"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "SVG"),
        (b"hello\n", "text"),
        (b"\0\0\0\x1cftypheic", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"RIFF\0\0\0\0WAVEfmt ", "WAVE audio"),
        (b"\x80\x04\x95", "pickle"),
        (b"PK\x03\x04", "ZIP"),
        (bytes(range(128, 160)), "unknown"),
    ],
)
def test_sniff(data: bytes, name: str) -> None:
    assert sniff(data) == name


def test_constant_images_are_counted() -> None:
    images = np.stack([smooth(8, 8).transpose(2, 0, 1), np.full((3, 8, 8), 7, np.uint8), np.zeros((3, 8, 8), np.uint8)])
    images[2, 1] = 200
    assert count_constant(images) == 2
    images[2, 1, 0, 0] = 201
    assert count_constant(images) == 1
    assert count_constant(images[:0]) == 0


def test_hushing_pillow_touches_no_other_filter() -> None:
    before = list(warnings.filters)
    with pillow_hushed():
        with pillow_hushed():
            warnings.warn_explicit("x", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin")
        warnings.warn_explicit("x", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin")
        with pytest.raises(UserWarning):
            warnings.warn_explicit("x", UserWarning, "mine.py", 1, "mine")
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning):
        warnings.warn_explicit("x", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin")


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"quality": 40, "optimize": True}, {"restart_marker_blocks": 2}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_flipped_bits_in_jpeg_data_are_found_and_intact_data_pass(options: dict[str, Any], mode: str) -> None:
    noise = (smooth(61, 83) // 2 + RNG.integers(0, 128, (61, 83, 3))).astype(np.uint8)
    data = encoded(Image.fromarray(noise).convert(mode), "JPEG", **options)
    assert jpeg_fault(data) is None
    start, decoded = data.rindex(b"\xff\xda") + 14, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        flipped = bytearray(data)
        for place in rng.integers(start, len(data) - 2, 64):
            flipped[place] ^= 1 << int(rng.integers(8))
        try:
            Image.open(io.BytesIO(flipped)).load()
        except (OSError, SyntaxError, ValueError):
            continue
        decoded += 1
        assert jpeg_fault(bytes(flipped)) is not None, "decodes in silence, so only this check can tell"
    assert decoded > 0


def test_structure_of_a_progressive_jpeg_is_checked() -> None:
    data = encoded(Image.fromarray(smooth(61, 83)), "JPEG", progressive=True)
    assert jpeg_fault(data) is None
    assert jpeg_fault(data[:-2]) is not None
    assert jpeg_fault(data[: len(data) // 2]) is not None


@pytest.mark.data
def test_every_cifar_image_has_intact_data_by_the_bit_reader(data: Any) -> None:
    import pyarrow.parquet as pq

    values = pq.read_table(data / "cifar10" / "test.parquet", columns=["image"])["image"].to_pylist()[::25]
    assert [i for i, value in enumerate(values) if jpeg_fault(value) is not None] == []


def test_reasons_are_the_same_each_time() -> None:
    """A list of bad items that differs from run to run cannot be compared: Pillow names the address of an object."""
    reasons = set()
    for _ in range(3):
        with pytest.raises(Refused) as caught:
            decode(b"\x89PNG\r\n\x1a\nxx" + bytes(len(reasons)), Canvas(3, 8))
        reasons.add(caught.value.reason.replace("11 bytes", "10 bytes"))
    assert reasons == {"damaged PNG image of 10 bytes (no picture can be found in it)"}
