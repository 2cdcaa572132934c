"""The rows of the catalogue of bad inputs that concern sources: the exit code, the culprit by name, a remedy, and the limits."""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from accord.data import files, tables
from accord.data.encoded import Options
from accord.data.samples import BadItems, Samples, split
from accord.data.sources import check_source, open_source
from accord.errors import AccordError

MB = 1 << 20


def picture(seed: int = 0, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).convert(mode)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def good(root: Path, n: int = 3) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        picture(i).save(root / f"good{i:03d}.png")
    return root


def refused(exit_code: int, code: str, says: list[str], source: Any, **options: Any) -> AccordError:
    """Opening must end with this code, a message that names the culprit, and a remedy."""
    with pytest.raises(AccordError) as caught:
        open_source(source, **options)
    error = caught.value
    assert (error.exit_code, error.code) == (exit_code, code), str(error)
    for word in says:
        assert word in str(error), f"{word!r} is not in: {error}"
    assert error.help and error.where
    assert all(line.isprintable() for line in error.lines())
    return error


def skip_or_stop(root: Path, key: str, code: str, *says: str) -> None:
    """One bad item among few stops with exit 3; among many it is skipped, named in `bad`, and the others are there."""
    refused(3, code, [key, *says], root)
    samples = open_source(root, max_bad_fraction=0.5)
    assert [(item.key, item.code) for item in samples.bad] == [(key, code)]
    assert samples.bad[0].reason and samples.bad[0].help
    index = np.flatnonzero(samples.ok)
    assert len(index) == len(samples) - 1 and len(samples.batch(index)) == len(index)
    checked = check_source(root)
    assert [item.key for item in checked.bad] == [key]


def one(root: Path, name: str = "x.png") -> np.ndarray:
    samples = open_source(root, limit_bad=False)
    return samples.batch(np.array([list(samples.keys).index(name)]))[0].numpy()


def row_001(tmp: Path) -> None:
    data = encoded(picture(9, (200, 150)), "JPEG")
    (good(tmp) / "half.jpg").write_bytes(data[: len(data) // 2])
    skip_or_stop(tmp, "half.jpg", "E301", "truncated", f"{len(data) // 2} bytes")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def row_002(tmp: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG")
    for seed in range(100):
        rng, data = np.random.default_rng(seed), bytearray(whole)
        for place in rng.integers(whole.rindex(b"\xff\xda") + 14, len(whole) - 2, 64):
            data[place] ^= 1 << int(rng.integers(8))
        try:
            Image.open(io.BytesIO(data)).load()
            break
        except OSError:
            continue
    (good(tmp) / "flipped.jpg").write_bytes(data)
    (tmp / "intact.jpg").write_bytes(whole)
    assert open_source(tmp).ok.all() and check_source(tmp).bad == []
    assert [(item.key, item.code) for item in check_source(tmp, strict=True).bad] == [("flipped.jpg", "E302")]


def row_003(tmp: Path) -> None:
    (good(tmp) / "empty.png").write_bytes(b"")
    skip_or_stop(tmp, "empty.png", "E303", "empty file")


def row_004(tmp: Path) -> None:
    for name, data, kind in (
        ("a", b"hello there\n", "text"),
        ("b", b"<html></html>", "HTML"),
        ("c", b"%PDF-1.4\n", "PDF"),
    ):
        (good(tmp / name) / "fake.jpg").write_bytes(data)
        skip_or_stop(tmp / name, "fake.jpg", "E304", kind)


def row_005(tmp: Path) -> None:
    good(tmp)
    for name in ("Thumbs.db", ".DS_Store", "README", "._good000.png"):
        (tmp / name).write_bytes(b"no image")
    samples = open_source(tmp)
    assert samples.ok.all() and len(samples) == 3
    assert sum("4 files or folders ignored" in note for note in samples.notes) == 1


def row_006(tmp: Path) -> None:
    cmyk = np.stack(
        [np.full((40, 40), 200), np.full((40, 40), 30), np.tile(np.arange(40) * 4, (40, 1)), np.full((40, 40), 9)], -1
    )
    data = encoded(Image.fromarray(cmyk.astype(np.uint8), "CMYK"), "JPEG", quality=100, subsampling=0)
    at = data.index(b"\xff\xee")
    tmp.mkdir(exist_ok=True)
    (tmp / "with.jpg").write_bytes(data)
    (tmp / "without.jpg").write_bytes(data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :])
    samples = open_source(tmp)
    expected = (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255
    for image in samples.batch(np.arange(2)).numpy():
        assert np.abs(image.transpose(1, 2, 0) - expected).max() <= 2
    assert [note for note in samples.notes if "CMYK" in note] == ["CMYK converted to RGB: 2"]


def row_007(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    values = np.linspace(0, 65535, 1600).round().astype(np.uint16).reshape(40, 40)
    Image.fromarray(values).save(tmp / "a.png")
    Image.fromarray(values).save(tmp / "b.tif")
    samples = open_source(tmp)
    assert (samples.batch(np.arange(2)).numpy() == np.rint(values / 257)).all()
    assert "16-bit pixels scaled by 1/257: 2" in samples.notes


def row_008(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    y, x = np.mgrid[0:8, 0:8]
    palette = Image.fromarray(((x + y) % 4).astype(np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
    palette.save(tmp / "palette.png", transparency=2)
    Image.fromarray(np.stack([x * 30, y * 30], -1).astype(np.uint8), "LA").save(tmp / "la.png")
    Image.fromarray((x + y) % 2 == 0).save(tmp / "one.png")
    colours = np.array([[255, 0, 0], [0, 255, 0], [255, 255, 255], [10, 20, 30]])
    assert (one(tmp, "palette.png").transpose(1, 2, 0) == colours[(x + y) % 4]).all()
    assert (one(tmp, "one.png") == 255 * ((x + y) % 2 == 0)).all()
    alpha = y * 30 / 255
    assert np.abs(one(tmp, "la.png") - (x * 30 * alpha + 255 * (1 - alpha))).max() <= 1
    assert "transparency composited on white: 2" in open_source(tmp).notes


def row_009(tmp: Path) -> None:
    good(tmp)
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime")]
    for i, format in enumerate(("GIF", "WEBP", "PNG", "TIFF")):
        frames[0].save(tmp / f"x{i}.{format.lower()}", format, save_all=True, append_images=frames[1:])
    samples = open_source(tmp)
    for image in samples.batch(np.arange(3, 7)).numpy():
        assert image[0].min() > 240 and image[1].max() < 15
    assert "only the first frame used: 4" in samples.notes


def row_010(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    upright = np.asarray(picture(3, (60, 40)))
    inverse = {  # the stored picture that the tag turns upright
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }
    for orientation, stored in inverse.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp / f"{orientation}.jpg", quality=100, exif=exif)
    samples = open_source(tmp)
    pixels = samples.batch(np.arange(8)).numpy().astype(float)
    assert np.abs(pixels - pixels[0]).max() < 12 and (samples.aspect == 1.5).all()


def row_011(tmp: Path) -> None:
    good(tmp)
    for i, damaged in enumerate(
        ({"exif": b"Exif\0\0II*\0\xff\xff\xff\x7f"}, {"icc_profile": b"no profile"}, {"xmp": b"<x:xmpmeta"})
    ):
        picture(i).save(tmp / f"x{i}.jpg", **damaged)
    samples = open_source(tmp)  # warnings are errors in these tests
    assert samples.ok.all() and "damaged metadata dropped: 1" in samples.notes


def row_012(tmp: Path) -> None:
    good(tmp)
    for i, size in enumerate(((1, 1), (1, 5000), (5000, 1))):
        picture(i, size).save(tmp / f"x{i}.png")
    samples = open_source(tmp)
    assert samples.ok.all() and samples.batch(np.arange(6)).shape == (6, *samples.shape)
    assert samples.aspect[3:].tolist() == pytest.approx([1, 1 / 5000, 5000])


def png_header(width: int, height: int) -> bytes:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100_000))),
        (b"IEND", b""),
    ]
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def row_013(tmp: Path) -> None:
    (good(tmp) / "bomb.png").write_bytes(png_header(50_000, 50_000))
    (good(tmp / "other") / "large.png").write_bytes(png_header(10_000, 9_000))  # where Pillow itself only warns
    before = peak()
    error = refused(3, "E313", ["bomb.png", "max_pixels"], tmp, max_bad_fraction=0.0)
    skip_or_stop(tmp / "other", "large.png", "E313", "10000 x 9000", "max_pixels=50000000")
    assert peak() - before < 200 * MB and error.exit_code == 3


def row_014(tmp: Path) -> None:
    text = zlib.compress(bytes(64 * MB))
    body = b"Comment\0\0" + text
    whole = encoded(picture())
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    (good(tmp) / "text.png").write_bytes(whole[:33] + chunk + whole[33:])
    before = peak()
    skip_or_stop(tmp, "text.png", "E314", "too large")
    assert peak() - before < 200 * MB
    for name, magic in (
        ("fits", b"SIMPLE  =  T"),
        ("psd", b"8BPS\0\1"),
        ("eps", b"%!PS-Adobe-3.0 EPSF"),
        ("gd", b"\xff\xff\0\1"),
    ):
        (good(tmp / name) / "x.png").write_bytes(magic + bytes(5000))
        skip_or_stop(tmp / name, "x.png", "E304")


def row_015(tmp: Path) -> None:
    heads = {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "heic": b"\0\0\0\x18ftypheic",
        "avif": b"\0\0\0\x18ftypavif",
    }
    for kind, package in (("svg", "cairosvg"), ("heic", "pillow-heif"), ("avif", "pillow-avif-plugin")):
        (good(tmp / kind) / f"x.{kind}").write_bytes(heads[kind] + bytes(100))
        skip_or_stop(tmp / kind, f"x.{kind}", "E315", kind.upper(), package)


def row_016(tmp: Path) -> None:
    good(tmp / "some")
    Image.new("RGB", (40, 30), "black").save(tmp / "some" / "x.png")
    samples = open_source(tmp / "some")
    assert samples.ok.all() and "zero-variance samples: 1" in samples.notes
    (tmp / "all").mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(tmp / "all" / f"{i}.png")
    refused(3, "E316", ["all 3", str(tmp / "all")], tmp / "all")
    refused(3, "E316", ["all 4"], np.zeros((4, 8, 8), np.uint8))


def row_017(tmp: Path) -> None:
    shape = np.full((30, 40, 4), 255, np.uint8)
    shape[10:20, 10:20, 3] = 0
    Image.fromarray(shape, "RGBA").save(good(tmp / "alpha") / "x.png")
    skip_or_stop(tmp / "alpha", "x.png", "E317", "alpha")
    values = np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)
    values[3, 4] = np.nan
    Image.fromarray(values).save(good(tmp / "nan") / "x.tif")
    skip_or_stop(tmp / "nan", "x.tif", "E317", "channel 0", "NaN")


def row_018(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    refused(3, "E318", [str(tmp), ".jpg", ".png", ".webp"], tmp)
    (tmp / "notes.txt").write_text("x")
    refused(3, "E318", ["1 files or folders ignored"], tmp)
    pq.write_table(pa.table({"x": [1.0]}), tmp / "a.parquet")
    refused(3, "E318", ["*.parquet"], tmp)


def row_019(tmp: Path) -> None:
    samples = open_source(good(tmp, 1))
    assert len(samples) == 1 and [len(side) for side in split(samples, 0.1, 0)] in ([0, 1], [1, 0])


def row_020(tmp: Path) -> None:
    good(tmp / "photos")
    refused(2, "E220", [str(tmp / "photso"), f'did you mean "{tmp / "photos"}"'], tmp / "photso")
    refused(2, "E220", ["nearest folder", str(tmp)], tmp / "a" / "b" / "c")
    refused(2, "E220", [str(tmp / "photos/good000.png/x")], tmp / "photos" / "good000.png" / "x")
    (tmp / "notes.txt").write_text("x")
    refused(2, "E220", ["notes.txt", ".parquet", '".txt"'], tmp / "notes.txt")
    refused(2, "E220", ["*.parquet"], str(tmp / "*.parquet"))
    (tmp / "dead").symlink_to(tmp / "gone")
    refused(2, "E220", ["dead", "link"], tmp / "dead")


AS_NOBODY = """
import json, sys
from accord.data.sources import open_source
for source, fraction, cache in json.loads(sys.argv[1]):
    s = open_source(source, max_bad_fraction=fraction, cache=cache)
    print(json.dumps({"bad": [list(b) for b in s.bad], "n": len(s), "rows": len(s.batch(s.ok.nonzero()[0]))}))
"""


@functools.cache
def as_nobody() -> list[dict[str, Any]]:
    """What a user without rights gets from an unreadable and from a read-only folder: to root a mode would mean nothing."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        unreadable, read_only, cache = good(Path(name) / "a"), good(Path(name) / "b"), Path(name) / "cache"
        (unreadable / "good001.png").chmod(0)
        good(unreadable / "locked").chmod(0)
        cache.mkdir()
        cache.chmod(0o777)
        read_only.chmod(0o555)
        jobs = json.dumps([(str(unreadable), 0.5, str(cache)), (str(read_only), 0.0, str(cache))])
        command = [sys.executable, "-c", AS_NOBODY, jobs]
        if os.geteuid() == 0:
            if shutil.which("setpriv") is None:
                pytest.skip("needs setpriv to become another user")
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")
        read_only.chmod(0o755)
        (unreadable / "locked").chmod(0o755)
        assert sorted(path.name for path in read_only.iterdir()) == [f"good{i:03d}.png" for i in range(3)]
    if "No module named" in done.stderr:
        pytest.skip("another user cannot read this installation")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def row_021(tmp: Path) -> None:
    answer = as_nobody()[0]
    assert [(key, code) for key, code, _, _ in answer["bad"]] == [("good001.png", "E321"), ("locked/", "E321")]
    uid = os.geteuid() or 65534
    assert all(f"user {uid}" in reason and "permission" in help for _, _, reason, help in answer["bad"])
    assert answer["n"] == 4 and answer["rows"] == 2


def row_022(tmp: Path) -> None:
    good(tmp / "root")
    good(tmp / "other")
    (tmp / "root" / "loop").symlink_to(tmp / "root")
    (tmp / "root" / "x.png").symlink_to(tmp / "other" / "good000.png")
    skip_or_stop(tmp / "root", "x.png", "E322", "follow_links=True", str(tmp / "other"))
    samples = open_source(tmp / "root", follow_links=True)
    assert samples.ok.all() and len(samples) == 4


def row_023(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    names = [
        "\U0001f600.png",
        "é.png",
        "e\u0301.png",
        "a b.png",
        "line\nbreak.png",
        "-rf.png",
        "n" * 251 + ".png",
        "Z.png",
        "a.png",
    ]
    raw = [name.encode() for name in names] + [b"\xff\xfe\x80.png"]
    for i, name in enumerate(raw):
        picture(i).save(Path(os.fsdecode(os.fsencode(tmp) + b"/" + name)), "PNG")
    samples = open_source(tmp)
    assert samples.ok.all() and [os.fsencode(key) for key in samples.keys] == sorted(raw)
    Path(os.fsdecode(os.fsencode(tmp) + b"/\x1b[31m\xff.png")).write_bytes(b"")
    error = refused(3, "E303", ["\\x1b[31m\\udcff.png"], tmp)
    json.dumps(error.as_dict()).encode()


def row_024(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    names = [
        "<img src=x onerror=alert(1)>.png",
        "$(touch canary).png",
        "`touch canary`;x.png",
        "%2e%2e%2fetc%2fpasswd.png",
    ]
    for i, name in enumerate(names):
        picture(i).save(tmp / name)
    assert sorted(open_source(tmp).keys) == sorted(names)
    struct_array = pa.array(
        [{"bytes": encoded(picture()), "path": "a"}, {"bytes": None, "path": "../../../../../../etc/passwd"}]
    )
    pq.write_table(pa.table({"image": struct_array}), tmp / "a.parquet")
    refused(3, "E303", ["a.parquet:1", "null"], tmp / "a.parquet")


def row_025(tmp: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accord.data.sources.Options", lambda *given: Options(*given, 0, 0))
        samples = open_source(good(tmp / "images", 6), cache=tmp / "cache")
    (tmp / "images" / "good001.png").unlink()
    picture(99).save(tmp / "images" / "good004.png")
    with pytest.raises(BadItems) as bad:
        samples.batch(np.arange(6))
    assert [(item.key, item.code) for item in bad.value.items] == [("good001.png", "E325"), ("good004.png", "E325")]
    assert bad.value.exit_code == 3 and all(item.help for item in bad.value.items)
    assert bad.value.batch[0].any(), "what was read is not lost"


def row_026(tmp: Path) -> None:
    import socket

    good(tmp)
    os.mkfifo(tmp / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp / "s.png"))
    if os.geteuid() == 0:
        os.mknod(tmp / "device.png", 0o600 | 0o020000, os.makedev(1, 5))
    start = time.monotonic()
    samples = open_source(tmp)
    assert time.monotonic() - start < 5 and len(samples) == 3
    assert any("not regular files" in note and "pipe.png" in note for note in samples.notes)


def row_027(tmp: Path) -> None:
    good(tmp)
    shutil.copy(tmp / "good001.png", tmp / "copy.png")
    samples = open_source(tmp)
    assert "1 items repeat an earlier one exactly (equal content hash)" in samples.notes
    keys = list(samples.keys)
    assert samples.content[keys.index("copy.png")] == samples.content[keys.index("good001.png")]
    for seed in range(20):
        held_out = split(samples, 0.5, seed)[1].tolist()
        assert (keys.index("copy.png") in held_out) == (keys.index("good001.png") in held_out)


def row_028(tmp: Path) -> None:
    good(tmp, 1)
    n = 5000
    for i in range(n - 1):
        os.link(tmp / "good000.png", tmp / f"{(i * 7919) % n:05d}.png")
    before, start = peak(), time.monotonic()
    listing = files.list_images(str(tmp))
    assert time.monotonic() - start < 60 * n / 1e6 + 0.5 and peak() - before < 10 * MB + 1e9 * n / 1e6
    assert len(listing.paths) == n and listing.paths == sorted(listing.paths) == files.list_images(str(tmp)).paths


def row_029(tmp: Path) -> None:
    assert as_nobody()[1] == {"bad": [], "n": 3, "rows": 3}


def row_030(tmp: Path) -> None:
    good(tmp)
    tries, real = [], os.read

    def failing(descriptor: int, size: int) -> bytes:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "good001.png":
            tries.append(size)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "read", failing)
        patch.setattr(files, "RETRIES", (0.0, 0.0, 0.0))
        refused(5, "E530", ["good001.png", "EIO"], tmp)
    assert len(tries) == 4


def write_csv(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def row_031(tmp: Path) -> None:
    x = np.random.default_rng(0).random((50, 3))
    x[[3, 8, 9, 20, 30, 40], 1], x[8, 2], x[11, 0] = np.nan, np.inf, -np.inf
    error = refused(
        3, "E331", ['"column 1" (6)', '"column 2" (1)', "impute=", "row 3, row 8, row 9, row 11, row 20"], x
    )
    assert "7 of 50 rows" in error.message
    samples = open_source(x, limit_bad=False)
    assert samples.skipped == 7 and np.isfinite(samples.batch(np.flatnonzero(samples.ok)).numpy()).all()
    assert [item.key for item in check_source(x).bad] == [f"row {i}" for i in (3, 8, 9, 11, 20, 30, 40)]


def row_032(tmp: Path) -> None:
    x = np.random.default_rng(0).random((50, 3))
    x[:, 1] = 5.0
    assert any(
        'constant columns, kept although they carry nothing: "column 1"' in note for note in open_source(x).notes
    )
    x[:, 2] = np.nan
    refused(3, "E332", ['"column 2" (50)', "leave out the empty columns"], x)
    refused(3, "E332", ["constant"], np.ones((5, 2)))


def row_033(tmp: Path) -> None:
    for cell in ("abc", "1,5", "N/A", "x" * 100):
        path = write_csv(tmp / "a.csv", f'a,b\n1,2\n3,"{cell}"\n5,6\n')
        refused(3, "E333", ["a.csv:1", '"b"', f'"{cell[:40]}"'], path)


def row_035(tmp: Path) -> None:
    refused(3, "E335", ['"a"', "a.csv"], write_csv(tmp / "a.csv", "a,a\n1,2\n"))
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    pq.write_table(table, tmp / "a.parquet")
    refused(3, "E335", ['"a"', "a.parquet"], tmp / "a.parquet")


def row_036(tmp: Path) -> None:
    refused(3, "E336", ["5 samples", "4 labels"], {"x": np.random.default_rng(0).random((5, 2)), "y": np.arange(4)})


def row_037(tmp: Path) -> None:
    for text, place in (
        ("a,b\n1,2\n3\n", "line 3"),
        ('a,b\n1,2\n"3,4\n', "line 3"),
        ("a,b\n1,2\n3,\0\n", "line 3"),
        ("a,b\n1,é\n".encode("latin-1"), "line 2"),
    ):
        refused(3, "E337", ["a.csv", place], write_csv(tmp / "a.csv", text))
    for encoding in ("utf-8-sig", "utf-16"):
        path = write_csv(tmp / "a.csv", "é,b\n1,2\n3,4\n".encode(encoding))
        assert open_source(path).features == ("é", "b")


def row_038(tmp: Path) -> None:
    refused(3, "E338", ["a.csv", "header"], write_csv(tmp / "a.csv", "a,b\n"))
    refused(3, "E338", ["b.csv", "empty"], write_csv(tmp / "b.csv", ""))
    pq.write_table(pa.table({"a": pa.array([], pa.float64())}), tmp / "a.parquet")
    refused(3, "E338", ["a.parquet", "rows"], tmp / "a.parquet")
    refused(3, "E338", ["(0, 3)"], np.zeros((0, 3)))


def row_039(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": [1, 2**53 + 1], "x": [1.0, 2.0]}), tmp / "a.parquet")
    refused(3, "E339", ["a.parquet:1", '"id"', str(2**53 + 1)], tmp / "a.parquet")
    refused(3, "E339", ["row 1", str(2**60 + 1)], np.array([[1], [2**60 + 1]]))
    samples = open_source(np.array([[1, 0], [2**53, 1]]))
    assert samples.batch(np.arange(2)).tolist() == [[1, 0], [2.0**53, 1]]


def row_040(tmp: Path) -> None:
    x = np.random.default_rng(0).random((6, 4))
    for cast in (
        x.astype(np.float16),
        x.astype(">f8"),
        np.asfortranarray(x),
        np.repeat(x, 2, 0)[::2],
        x[:, ::-1],
        np.flip(x),
    ):
        assert np.allclose(open_source(cast).batch(np.arange(6)).numpy(), cast.astype(np.float64), atol=1e-3)
    for wrong in (
        x + 1j,
        np.array(5.0),
        x.astype(object),
        x.astype("U5"),
        x.astype("M8[s]"),
        np.zeros(3, [("a", "f8")]),
    ):
        refused(3, "E340", [], wrong)


class Payload:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def row_041(tmp: Path) -> None:
    canary = tmp / "canary"
    tmp.mkdir(exist_ok=True)
    array = np.empty(1, object)
    array[0] = Payload(canary)
    np.save(tmp / "a.npy", array, allow_pickle=True)
    np.savez(tmp / "a.npz", x=array)
    (tmp / "b.npy").write_bytes(pickle.dumps(Payload(canary)))
    refused(4, "E441", ["a.npy", "pickled arrays"], tmp / "a.npy")
    refused(4, "E441", ["a.npz:x", "pickled arrays"], tmp / "a.npz")
    refused(3, "E344", ["b.npy"], tmp / "b.npy")
    assert not canary.exists()


def npy_header(shape: str, descr: str = "<f8") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def row_042(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    before = peak()
    for i, shape in enumerate(("(1000000000000,)", "(4294967296, 4294967296)", "(-1, 3)", "(10,)")):
        (tmp / f"{i}.npy").write_bytes(npy_header(shape) + bytes(64))
        refused(3, "E342", [f"{i}.npy", "64"], tmp / f"{i}.npy")
    with zipfile.ZipFile(tmp / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            member.write(npy_header("(40000000, 1)"))
            for _ in range(320):
                member.write(bytes(1_000_000))
        archive.writestr("lie.npy", npy_header("(1000000000000,)") + bytes(64))
    refused(3, "E342", ["bomb.npz:x", "200 to 1"], tmp / "bomb.npz", column="x")
    refused(3, "E342", ["bomb.npz:lie"], tmp / "bomb.npz", column="lie")
    assert peak() - before < 200 * MB


def row_043(tmp: Path) -> None:
    path = tmp / "huge.csv"
    write_csv(path, "a,b\n1,2\n")
    os.truncate(path, 20 << 30)  # a hole: no byte of it is on the disk
    before, start = peak(), time.monotonic()
    refused(5, "E543", ["huge.csv", "GB needed", "Parquet"], path)
    assert time.monotonic() - start < 2 and peak() - before < 200 * MB


def row_044(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    values = np.random.default_rng(0).random((2000, 2))
    path = tmp / "a.parquet"
    table = pa.table({"a": values[:, 0], "b": values[:, 1]})
    pq.write_table(table, path, row_group_size=500, write_page_checksum=True, compression="none", use_dictionary=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    refused(3, "E344", ["a.parquet"], path)
    path.write_bytes(b"PAR0" + whole[4:-4] + b"PAR0")
    refused(3, "E344", ["a.parquet"], path)
    path.write_bytes(b"")
    refused(3, "E344", ["a.parquet"], path)
    start = pq.ParquetFile(io.BytesIO(whole)).metadata.row_group(2).column(1).data_page_offset
    path.write_bytes(whole[: start + 1000] + bytes(64) + whole[start + 1064 :])
    refused(3, "E344", ["a.parquet:row group 2"], path)


def row_045(tmp: Path) -> None:
    canary = tmp / "canary"
    tmp.mkdir(exist_ok=True)
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload(canary)),
    }
    field = pa.field("x", pa.float64(), metadata=metadata)
    pq.write_table(pa.Table.from_arrays([pa.array([1.0, 2.0])], schema=pa.schema([field])), tmp / "a.parquet")
    try:
        open_source(tmp / "a.parquet")
    except AccordError as error:
        assert error.exit_code == 3
    assert not canary.exists()
    with pytest.raises(AccordError, match="CVE-2023-47248"):
        tables.check_pyarrow("14.0.0")


def row_046(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    pq.write_table(pa.table({"x": [1.0], "y": [1.0]}), tmp / "a.parquet")
    for other in ({"x": [1.0], "y": [1]}, {"x": [1.0], "z": [1.0]}, {"x": [1.0]}, {"x": [1.0], "y": [1.0], "w": [2]}):
        pq.write_table(pa.table(other), tmp / "b.parquet")
        field = "w" if "w" in other else "y"
        refused(3, "E346", [str(tmp / "a.parquet"), str(tmp / "b.parquet"), f'"{field}"'], str(tmp / "*.parquet"))


def row_048(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300)
    columns = {
        "a": rng.normal(size=300),
        "copy": label * 2.5 + 1.0,
        "is_two": (label == 2) * 1.0,
        "label_id": rng.normal(size=300),
    }
    pq.write_table(pa.table({**columns, "label": label}), tmp / "a.parquet")
    samples = open_source(tmp / "a.parquet")
    assert samples.features == ("a", "copy", "is_two", "label_id")
    named = [note.split('"')[1] for note in samples.notes if "may give the label away" in note]
    assert sorted(named) == ["copy", "is_two", "label_id"]


def row_050(tmp: Path) -> None:
    x = np.random.default_rng(0).random((30, 2))
    x[3], x[4] = 1e38, 5e-324
    samples = open_source(x)  # warnings are errors in these tests
    assert samples.ok.all() and np.isfinite(samples.batch(np.arange(30)).numpy()).all()
    x[5, 1] = 1e39
    refused(3, "E331", ["row 5", "1e+39", "too large for float32"], x)
    samples = open_source(x, limit_bad=False)
    assert np.flatnonzero(~samples.ok).tolist() == [5] and samples.bad[0].key == "row 5"


ROWS = {name: function for name, function in sorted(vars().items()) if name.startswith("row_")}


@pytest.mark.parametrize("row", [pytest.param(function, id=f"bad-{name[4:]}") for name, function in ROWS.items()])
def test_bad_input(row: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    row(tmp_path / "data")
    assert list((tmp_path / "work").iterdir()) == [], "something was executed or written"


def corrupt(kind: int, whole: bytes, rng: np.random.Generator) -> bytes:
    cut = int(rng.integers(len(whole) // 8, len(whole) // 2))
    return (
        b"",
        whole[:cut],
        b"\0" * len(whole),
        whole[:8] + bytes(rng.integers(0, 256, len(whole) - 8, np.uint8)),
        b"<html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        whole[::-1],
        png_header(60_000, 60_000),
    )[kind]


@pytest.mark.parametrize(("percent", "limit_exceeded"), [(1, False), (5, True)])
def test_exactly_the_corrupted_files_are_listed(tmp_path: Path, percent: int, limit_exceeded: bool) -> None:
    """1 % of a folder damaged in eight ways is skipped and listed without error or omission; 5 % stop."""
    rng = np.random.default_rng(percent)
    root, n = good(tmp_path / "images", 800), 800
    spoiled = sorted(rng.choice(n, n * percent // 100, replace=False).tolist())
    for kind, i in enumerate(spoiled):
        path = root / f"good{i:03d}.png"
        path.write_bytes(corrupt(kind % 8, path.read_bytes(), rng))
    if limit_exceeded:
        refused(
            3,
            "E303",
            [f"{len(spoiled)} of 800 items", f"good{spoiled[0]:03d}.png", f"good{spoiled[2]:03d}.png", "37 more"],
            root,
        )
    else:
        samples: Samples = open_source(root)
        assert [item.key for item in samples.bad] == [f"good{i:03d}.png" for i in spoiled]
        assert np.flatnonzero(~samples.ok).tolist() == spoiled
