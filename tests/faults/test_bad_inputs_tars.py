"""The rows of the catalogue of bad inputs that concern archives: nothing is extracted, every culprit is named."""

from __future__ import annotations

import io
import os
import pickle
import resource
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from accord.data.loader import Loader
from accord.data.sources import check_source, open_source
from accord.errors import AccordError


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def info(name: str, size: int = 0, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = size
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def archive(path: Path, *more: tuple[tarfile.TarInfo, bytes], good: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for i in range(good):
            out.addfile(info(f"good{i}.jpg", len(jpeg(i))), io.BytesIO(jpeg(i)))
        for member, content in more:
            out.addfile(member, io.BytesIO(content))
    return path


def refused(exit_code: int, code: str, says: list[str], source: Any, **options: Any) -> None:
    with pytest.raises(AccordError) as caught:
        open_source(source, **options)
    error = caught.value
    assert (error.exit_code, error.code) == (exit_code, code), str(error)
    assert all(word in str(error) for word in says), str(error)
    assert error.help and error.where
    assert all(line.isprintable() for line in error.lines())


def skip_or_stop(path: Path, key: str, code: str, *says: str) -> None:
    refused(3, code, [key, *says], path)
    samples = open_source(path, max_bad_fraction=0.5)
    assert [(item.key, item.code) for item in samples.bad] == [(key, code)]
    index = np.flatnonzero(samples.ok)
    assert len(index) == len(samples) - 1 and len(samples.batch(index)) == len(index)
    assert [item.key for item in check_source(path).bad] == [key]


def row_051(tmp: Path) -> None:
    outside = tmp / "outside.jpg"
    data = jpeg(9)
    for number, (member, content, says) in enumerate(
        [
            (info("../outside.jpg", len(data)), data, "leads out"),
            (info(str(outside), len(data)), data, "leads out"),
            (info("a/../../outside.jpg", len(data)), data, "leads out"),
            (info("l.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"", "a symbolic link"),
            (info("h.jpg", type=tarfile.LNKTYPE, linkname="good0.jpg"), b"", "a hard link"),
            (info("c.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5), b"", "a character device"),
            (info("b.jpg", type=tarfile.BLKTYPE, devmajor=1), b"", "a block device"),
            (info("f.jpg", type=tarfile.FIFOTYPE), b"", "a FIFO"),
        ]
    ):
        path = archive(tmp / str(number) / "x.tar", (member, content))
        skip_or_stop(path, f"x.tar:{member.name.removesuffix('.jpg')}", "E351", says)
        assert [p.name for p in path.parent.iterdir()] == ["x.tar"] and not outside.exists()
    link = archive(tmp / "bare" / "x.tar", (info("../passwd", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""))
    skip_or_stop(link, "x.tar:../passwd", "E351")
    harmless = archive(tmp / "folders.tar", (info("a", type=tarfile.DIRTYPE), b""), (info("./b.jpg", len(data)), data))
    assert open_source(harmless).keys[-1] == "folders.tar:b"


def row_052(tmp: Path) -> None:
    whole = archive(tmp / "x.tar").read_bytes()
    with tarfile.open(tmp / "x.tar") as made:
        headers = [member.offset for member in made.getmembers()]
        ends = made.getmembers()[-1].offset_data + made.getmembers()[-1].size
    end = -(-ends // 512) * 512
    path = tmp / "bad.tar"
    for size in (0, 100, 512, headers[1] + 200, headers[2] + 600, ends - 1, end):
        path.write_bytes(whole[:size])
        refused(3, "E350", [f"{path}:offset"], path)
    for change, says in (
        (whole[: headers[1] + 10] + b"#" + whole[headers[1] + 11 :], f"offset {headers[1]}"),
        (whole[: headers[2] + 130] + b"9" + whole[headers[2] + 131 :], f"offset {headers[2]}"),
        (whole + whole, "after the end marker"),
        (b"\x1f\x8b" + whole[2:], "compressed"),
        (os.urandom(2048), "offset 0"),
    ):
        path.write_bytes(change)
        refused(3, "E350", [says], path)
    for one in range(0, len(whole), 512):  # wherever a block is missing, it is noticed
        path.write_bytes(whole[:one] + whole[one + 512 :])
        if one < end - 512 * 4:
            with pytest.raises(AccordError):
                open_source(path)


def forged(name: str, kind: bytes, size: int, magic: int = tarfile.USTAR_FORMAT) -> bytes:
    member = info(name, size, type=kind)
    return member.tobuf(magic) if size < 8**11 else member.tobuf(tarfile.GNU_FORMAT)


def row_052_headers_that_claim_much(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    path = tmp / "bad.tar"
    for kind in (b"x", b"g", b"L", b"K"):
        path.write_bytes(forged("a", kind, 3 << 30))
        os.truncate(path, 4 << 30)  # a hole
        refused(3, "E350", ["extended header of"], path)
    path.write_bytes(forged("a.jpg", b"0", 1 << 50) + bytes(2048))
    refused(3, "E350", [f"{1 << 50} bytes, 2048 are left"], path)
    for records in (b"5 a=b\n", b"999999999 path=x\n", b"-6 a=b\n", b"xx", b"12 size=1e9\n", b"11 size=-5\n"):
        content = records.ljust(512, b"\0")
        path.write_bytes(forged("a", b"x", len(records)) + content + forged("a.jpg", b"0", 0) + bytes(1024))
        refused(3, "E350", ["offset"], path)
    path.write_bytes(forged("a.jpg", b"S", 0, tarfile.GNU_FORMAT) + bytes(1024))
    refused(3, "E350", ["with holes"], path)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


class Payload:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def row_053(tmp: Path) -> None:
    tmp.mkdir(exist_ok=True)
    canary = tmp / "canary"
    content = pickle.dumps(Payload(canary))
    for name in ("pkl", "pyd", "pth", "pickle", "meta.PKL"):
        path = archive(tmp / name / "x.tar", (info(f"p.{name}", len(content)), content))
        skip_or_stop(path, "x.tar:p", "E353", name.lower())
    array, buffer = np.empty(2, object), io.BytesIO()
    array[:] = Payload(canary)
    np.save(buffer, array, allow_pickle=True)
    parts = []
    for i in range(3):
        values = io.BytesIO()
        np.save(values, np.arange(2.0) + i)
        parts.append((info(f"{i}.npy", len(values.getvalue())), values.getvalue()))
    path = archive(tmp / "y.tar", *parts, (info("p.npy", len(buffer.getvalue())), buffer.getvalue()), good=0)
    refused(3, "E353", ["y.tar:p", "pickled arrays"], path)
    assert not canary.exists()


def row_054(tmp: Path) -> None:
    canary = tmp / "canary"
    for url in (f"pipe:touch {canary}; cat x.tar", "http://127.0.0.1:9/x.tar", "https://localhost/x-{000..009}.tar"):
        with pytest.raises(AccordError) as caught:
            open_source(url)
        assert (caught.value.exit_code, caught.value.code) == (2, "E220")
    assert not canary.exists()


def row_055(tmp: Path) -> None:
    data = jpeg(5)
    image = (info("dog.jpg", len(data)), data)
    skip_or_stop(archive(tmp / "a.tar", (info("dog.cls", 1), b"1")), "a.tar:dog", "E354", "no image")
    skip_or_stop(archive(tmp / "b.tar", image, image), "b.tar:dog", "E352", "two parts")
    again = archive(tmp / "c.tar", image, (info("cat.jpg", len(data)), data), image)
    skip_or_stop(again, "c.tar:dog", "E352", "another sample has this key")


def row_056(tmp: Path) -> None:
    """One archive for eight processes: they share its batches, and none waits for a file of its own."""
    samples = open_source(archive(tmp / "x.tar", good=64))
    for buffer in (0, 20):
        whole = Loader(samples, np.arange(64), batch_size=16, seed=0, shuffle_buffer=buffer)
        ranks = [
            Loader(samples, np.arange(64), batch_size=16, seed=0, rank=r, world_size=8, shuffle_buffer=buffer)
            for r in range(8)
        ]
        for step in range(4):
            shares = [rank.read(step).index.tolist() for rank in ranks]
            assert [len(share) for share in shares] == [2] * 8
            assert [i for share in shares for i in share] == whole.read(step).index.tolist()


ROWS = {name: function for name, function in sorted(vars().items()) if name.startswith("row_")}


@pytest.mark.parametrize("row", [pytest.param(function, id=f"bad-{name[4:]}") for name, function in ROWS.items()])
def test_bad_input(row: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    row(tmp_path / "data")
    assert list((tmp_path / "work").iterdir()) == [], "something was executed or written"
