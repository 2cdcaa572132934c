"""Archives: the index is that of tarfile, samples are grouped by key, and each is what the same files in a folder are."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from accord.data import encoded, tars
from accord.data.sources import check_source, open_source
from accord.data.tar_headers import members
from accord.errors import AccordError, DataError, UsageError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def jpeg(seed: int, size: int = 24) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


def write(path: Path, parts: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in parts:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shard(path: Path, first: int, count: int) -> Path:
    parts = [
        part
        for i in range(first, first + count)
        for part in ((f"{i:06d}.jpg", jpeg(i)), (f"{i:06d}.cls", str(i % 3).encode()))
    ]
    return write(path, parts)


def index(path: Path) -> list[tuple[str, int, int]]:
    with path.open("rb") as file:
        return [(m.name, m.offset, m.size) for m in members(file.fileno(), path.stat().st_size, path)]


def by_tarfile(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path) as archive:
        return [(m.name, m.offset_data, m.size) for m in archive.getmembers() if not m.isdir()]


# the index


NAMES = ["a.jpg", "./b.jpg", "deep/er/c.d.jpg", "é 日本.png", f"{'x' * 60}/{'y' * 90}.jpg"]
LONG = [f"{'long' * 50}/{'name' * 50}.jpg", f"{'n' * 255}"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_index_is_that_of_tarfile(tmp_path: Path, format: str) -> None:
    names = NAMES + (LONG if format != "ustar" else [])
    sizes = [0, 1, 511, 512, 513, 1024, 70_000]
    parts = [(name, bytes([i + 1]) * sizes[i]) for i, name in enumerate(names)]
    path = write(tmp_path / "a.tar", parts, FORMATS[format])
    found = index(path)
    assert found == by_tarfile(path) and [name for name, _, _ in found] == names
    whole = path.read_bytes()
    assert [whole[start : start + size] for _, start, size in found] == [content for _, content in parts]


@pytest.mark.parametrize("format", ["v7", "ustar", "gnu", "oldgnu", "pax"])
def test_archives_of_gnu_tar(tmp_path: Path, format: str) -> None:
    if shutil.which("tar") is None:
        pytest.skip("no tar here")
    for name in NAMES[:4] + ([] if format in ("v7", "ustar") else [LONG[1]]):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(700))
    path = tmp_path / "a.tar"
    subprocess.run(["tar", f"--format={format}", "-cf", path, "-C", tmp_path / "in", "."], check=True)
    found = index(path)
    assert found == by_tarfile(path) and len(found) >= 4
    assert {name for name, _, _ in found} >= {"./a.jpg", "./deep/er/c.d.jpg"}


def test_sizes_beyond_octal_and_in_pax_records(tmp_path: Path) -> None:
    """8 GiB and more do not fit into eleven octal digits; the data are a hole, not written."""
    for format in ("gnu", "pax"):
        path, size = tmp_path / f"{format}.tar", 9 << 30
        info = tarfile.TarInfo("big.jpg")
        info.size = size
        header = info.tobuf(FORMATS[format])
        path.write_bytes(header)
        os.truncate(path, len(header) + size + 1024)
        assert index(path) == [("big.jpg", len(header), size)]
        with pytest.raises(AccordError, match="more than the 1073741824"):
            open_source(path)


def test_a_header_that_tarfile_would_end_at_is_an_error(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", 0, 10)
    whole = bytearray(path.read_bytes())
    whole[index(path)[9][1] - 512 + 3] ^= 1
    path.write_bytes(whole)
    assert len(by_tarfile(path)) < 20, "tarfile ends in silence"
    with pytest.raises(DataError, match="checksum") as caught:
        index(path)
    assert caught.value.code == "E350" and "a.tar:offset" in str(caught.value.where)


# samples


def test_samples_are_what_the_same_files_in_folders_are(tmp_path: Path) -> None:
    paths = [shard(tmp_path / "shards" / f"train-{k}.tar", 20 * k, 20) for k in range(3)]
    for i in range(60):
        folder = tmp_path / "folder" / str(i % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:06d}.jpg").write_bytes(jpeg(i))
    files = open_source(tmp_path / "folder")
    order = np.argsort([key.split("/")[1] for key in files.keys])
    for source in (str(tmp_path / "shards" / "train-*.tar"), tmp_path / "shards"):
        samples = open_source(source)
        assert len(samples) == 60 and samples.ok.all() and samples.kind == "image"
        assert samples.keys[0] == "train-0.tar:000000" and samples.keys[59] == "train-2.tar:000059"
        assert np.array_equal(samples.batch(np.arange(60)), files.batch(order))
        assert np.array_equal(samples.content, files.content[order])
        assert samples.labels is not None and files.labels is not None
        assert np.array_equal(samples.labels, files.labels[order]) and samples.classes == files.classes
    assert len(open_source(paths[0])) == 20
    assert not list(tmp_path.rglob("000000*"))[1:], "nothing is extracted"


def test_streamed_samples_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(tmp_path / "a.tar", 0, 30)
    whole = open_source(tmp_path / "a.tar").batch(np.arange(30))
    monkeypatch.setattr("accord.data.sources.Options", lambda *a: encoded.Options(*a, in_memory=0, cached=0))
    samples = open_source(tmp_path / "a.tar", cache=tmp_path / "cache")
    assert isinstance(samples.store, encoded.StreamStore)
    some = np.array([29, 3, 3, 17])
    assert np.array_equal(samples.batch(some), whole[some])
    assert sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*") if p.is_file()) < 20_000, "no copy is made"


def test_an_archive_that_changes_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path / "a.tar", 0, 30)
    monkeypatch.setattr("accord.data.sources.Options", lambda *a: encoded.Options(*a, in_memory=0, cached=0))
    samples = open_source(path, cache=tmp_path / "cache")
    with path.open("r+b") as file:
        file.write(file.read(1))
    with pytest.raises(DataError, match="changed since it was listed") as caught:
        samples.batch(np.array([4]))
    assert caught.value.where == "a.tar:000004"


def test_keys_end_at_the_first_dot_of_the_name(tmp_path: Path) -> None:
    parts = [
        ("a.b/c.left.JPG", jpeg(0)),
        ("a.b/c.cls", b"4"),
        ("README", b"x"),
        (".hidden.jpg", b"x"),
        ("a.b/d.png", b""),
    ]
    path = write(tmp_path / "x.tar", parts)
    samples = open_source(path, limit_bad=False)
    assert samples.keys == ["x.tar:a.b/c", "x.tar:a.b/d"]
    assert samples.ok.tolist() == [True, False] and samples.bad[0].code == "E303"
    assert samples.labels is not None and samples.labels.tolist() == [0, -1] and samples.classes == ("4",)
    assert any("left out: 2" in note for note in samples.notes)


def test_one_of_several_images_is_named(tmp_path: Path) -> None:
    parts = [p for i in range(4) for p in ((f"{i}.left.jpg", jpeg(i)), (f"{i}.right.jpg", jpeg(i + 50)))]
    path = write(tmp_path / "x.tar", parts)
    with pytest.raises(UsageError, match=r"left\.jpg, right\.jpg") as caught:
        open_source(path)
    assert 'column="left.jpg"' in str(caught.value.help)
    left, right = (open_source(path, column=f"{side}.jpg").batch(np.arange(4)) for side in ("left", "right"))
    assert not np.array_equal(left, right)
    with pytest.raises(UsageError, match=r'no sample has a part "up\.jpg"'):
        open_source(path, column="up.jpg")


def test_labels_from_json_and_other_parts(tmp_path: Path) -> None:
    kinds = ["cat", "dog", "cat", "eel"]
    parts = [
        part
        for i, kind in enumerate(kinds)
        for part in (
            (f"{i}.jpg", jpeg(i)),
            (f"{i}.json", json.dumps({"kind": kind, "id": i}).encode()),
            (f"{i}.txt", kind.encode()),
        )
    ]
    path = write(tmp_path / "x.tar", parts)
    assert open_source(path).labels is None
    for name in ("kind", "txt"):
        samples = open_source(path, label=name)
        assert samples.labels is not None and samples.labels.tolist() == [0, 1, 0, 2]
        assert samples.classes == ("cat", "dog", "eel")
    assert open_source(path, label="id").classes == ("0", "1", "2", "3")
    with pytest.raises(UsageError, match='"sort"'):
        open_source(path, label="sort")


@pytest.mark.parametrize(
    ("name", "content"), [("cls", b"cat"), ("json", b"{"), ("json", b"[" * 100_000), ("json", b"[1]")]
)
def test_a_label_that_is_none_is_a_fault_of_its_sample(tmp_path: Path, name: str, content: bytes) -> None:
    parts = [
        part
        for i in range(3)
        for part in ((f"{i}.jpg", jpeg(i)), (f"{i}.{name}", b'{"kind": 1}' if name == "json" else b"1"))
    ]
    parts[3] = (parts[3][0], content)
    samples = open_source(write(tmp_path / "x.tar", parts), limit_bad=False, label="kind" if name == "json" else None)
    assert [(item.key, item.code) for item in samples.bad] == [("x.tar:1", "E355")]


def test_vectors(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(12, 5))
    parts = [p for i in range(12) for p in ((f"{i}.npy", npy(values[i])), (f"{i}.cls", str(i % 2).encode()))]
    samples = open_source(write(tmp_path / "x.tar", parts))
    assert samples.kind == "vector" and samples.shape == (5,)
    assert np.array_equal(samples.batch(np.arange(12)), values.astype(np.float32))
    assert samples.labels is not None and samples.labels.tolist() == [0, 1] * 6
    wrong = [npy(values[0][:4]), npy(values[:2]), npy([2**60] * 5), npy(["a"] * 5), b"", npy(values[1])[:-3]]
    parts += [(f"bad{i}.npy", content) for i, content in enumerate(wrong)] + [("none.cls", b"1")]
    samples = open_source(write(tmp_path / "y.tar", parts), limit_bad=False)
    assert np.flatnonzero(~samples.ok).tolist() == list(range(12, 19))
    assert [item.code for item in samples.bad] == ["E346", "E340", "E339", "E340", "E344", "E342", "E354"]
    with pytest.raises(DataError, match=r"y\.tar:bad0: 4 numbers"):
        open_source(tmp_path / "y.tar")


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 samples, none with an image") as caught:
        open_source(write(tmp_path / "x.tar", [("a.txt", b"x"), ("b.txt", b"y"), ("README", b"z")]))
    assert caught.value.code == "E338"
    with pytest.raises(UsageError, match="compressed archive"):
        (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b")
        open_source(tmp_path / "x.tar.gz")


def test_checking_names_every_fault(tmp_path: Path) -> None:
    parts = [(f"{i}.jpg", jpeg(i)) for i in range(5)]
    parts[1], parts[3] = ("1.jpg", b""), ("3.jpg", parts[3][1][:300])
    checked = check_source(write(tmp_path / "x.tar", parts))
    assert [(item.key, item.code) for item in checked.bad] == [("x.tar:1", "E303"), ("x.tar:3", "E301")]


def test_the_content_decides_the_split_and_the_fingerprint(tmp_path: Path) -> None:
    """The same samples in other archives are the same data."""
    one = open_source(shard(tmp_path / "one.tar", 0, 20))
    for k in range(2):
        shard(tmp_path / "two" / f"{k}.tar", 10 * k, 10)
    assert open_source(tmp_path / "two").fingerprint == one.fingerprint
    assert tars.short_names([Path("a/x.tar"), Path("b/x.tar")]) == ["a/x.tar", "b/x.tar"]
