"""Listing and reading files: the order, what is left out, and what never blocks."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from accord.data import files
from accord.data.files import list_images, missing, read_file
from accord.data.folders import folder_labels
from accord.data.samples import Refused
from accord.errors import EnvironmentFault, UsageError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_sorted_by_bytes_whatever_the_locale_or_the_file_system_says(tmp_path: Path) -> None:
    names = [
        "b.png",
        "a.png",
        "Z.png",
        "a/b.png",
        "a-b.png",
        "é.png",
        "e\u0301.png",
        "\U0001f600.png",
        "\ufb01.png",
        "-x.png",
    ]
    touch(tmp_path, *names)
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    listed = list_images(str(tmp_path)).paths
    assert [os.fsencode(path) for path in listed] == sorted([*(name.encode() for name in names), b"\xff\xfe.png"])


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.png", "B.JPG", "c.TiFF", "README", "Thumbs.db", ".DS_Store", "._a.png", ".git/x.png", "notes.txt"
    )
    listing = list_images(str(tmp_path))
    assert listing.paths == ["B.JPG", "a.png", "c.TiFF"] and listing.refused == {}
    assert listing.notes[0].startswith("6 files or folders ignored")
    assert listing.stamp.shape == (3, 3) and listing.stamp[0, 0] == 1


def test_links(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    touch(root, "real/a.png")
    touch(other, "b.png", "c.txt")
    (root / "loop").symlink_to(root)
    (root / "twice").symlink_to(root / "real")
    (root / "inside.png").symlink_to(root / "real" / "a.png")
    (root / "out").symlink_to(other)
    (root / "out.png").symlink_to(other / "b.png")
    (root / "out.txt").symlink_to(other / "c.txt")
    (root / "dead.png").symlink_to(root / "gone.png")
    (other / "back").symlink_to(root)
    listing = list_images(str(root))
    assert listing.paths == ["dead.png", "inside.png", "out.png", "out/", "real/a.png"]
    assert {listing.paths[i]: item.code for i, item in listing.refused.items()} == {
        "dead.png": "E321",
        "out.png": "E322",
        "out/": "E322",
    }
    assert "2 links to folders already listed" in " ".join(listing.notes)
    followed = list_images(str(root), follow_links=True)
    assert followed.paths == ["dead.png", "inside.png", "out.png", "out/b.png", "real/a.png"]
    assert len(followed.refused) == 1


def test_folders_linked_in_a_circle_outside_end(tmp_path: Path) -> None:
    root, a, b = tmp_path / "root", tmp_path / "a", tmp_path / "b"
    touch(root, "x.png")
    touch(a, "a.png")
    touch(b, "b.png")
    (root / "a").symlink_to(a)
    (a / "b").symlink_to(b)
    (b / "a").symlink_to(a)
    assert list_images(str(root), follow_links=True).paths == ["a/a.png", "a/b/b.png", "x.png"]


def test_a_root_that_is_itself_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "real", "a.png")
    (tmp_path / "link").symlink_to("real")
    assert list_images(str(tmp_path / "link")).paths == ["a.png"]


def test_special_files_are_skipped_and_never_opened(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    start = time.monotonic()
    listing = list_images(str(tmp_path))
    assert listing.paths == ["a.png"] and "1 skipped, not regular files: pipe.png" in listing.notes
    with pytest.raises(Refused, match="regular"):
        read_file(str(tmp_path / "pipe.png"))
    assert time.monotonic() - start < 5


def test_a_file_that_changed_or_went_since_it_was_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    status = path.stat()
    expected = (status.st_size, status.st_mtime_ns)
    assert read_file(str(path), expected) == b"12345"
    path.write_bytes(b"123456")
    with pytest.raises(Refused, match="changed") as refused:
        read_file(str(path), expected)
    assert refused.value.code == "E325"
    path.unlink()
    with pytest.raises(Refused, match="gone"):
        read_file(str(path), expected)


def test_a_failing_device_is_tried_three_times_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tries, real = tmp_path / "a.png", [], os.read
    path.write_bytes(b"12345")
    monkeypatch.setattr(files, "RETRIES", (0.0, 0.0, 0.0))

    def failing(times: int) -> None:
        tries.clear()

        def read(descriptor: int, size: int) -> bytes:
            tries.append(size)
            if len(tries) <= times:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(descriptor, size)

        monkeypatch.setattr(os, "read", read)

    failing(3)
    assert read_file(str(path)) == b"12345" and len(tries) == 4
    failing(4)
    with pytest.raises(EnvironmentFault, match="EIO") as fault:
        read_file(str(path))
    assert fault.value.exit_code == 5 and fault.value.where == str(path)


def test_short_reads_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "a.png", os.read
    path.write_bytes(bytes(range(200)))
    monkeypatch.setattr(os, "read", lambda descriptor, size: real(descriptor, min(size, 7)))
    assert read_file(str(path)) == bytes(range(200))


def test_a_missing_path_is_answered_with_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.png")
    error = missing(str(tmp_path / "fotos"))
    assert isinstance(error, UsageError) and error.exit_code == 2
    assert f'did you mean "{tmp_path}/photos"' in str(error)
    assert f'"{tmp_path}/photos"' in str(missing(str(tmp_path / "photos" / "deep" / "deeper")))
    assert "nearest folder" in str(missing("relative/nothing"))


@pytest.mark.parametrize(
    ("paths", "labels", "classes"),
    [
        (["cat/1.png", "cat/2.png", "dog/1.png"], [0, 0, 1], ("cat", "dog")),
        (["b/1.png", "a/1.png"], [1, 0], ("a", "b")),
        (["1.png", "cat/2.png", "dog/1.png"], None, ()),
        (["cat/1.png", "cat/2.png"], None, ()),
        (["train/cat/1.png", "train/dog/1.png"], None, ()),
        (["cat/1.png", "dog/deep/1.png"], None, ()),
        (["1.png", "2.png"], None, ()),
        (["cat/1.png", "dog/"], [0, 1], ("cat", "dog")),
    ],
)
def test_sub_folders_are_classes_only_if_it_is_plain(
    paths: list[str], labels: list[int] | None, classes: tuple[str, ...]
) -> None:
    found, names, _ = folder_labels(paths)
    assert (None if found is None else found.tolist()) == labels and names == classes


def test_many_files_are_listed_in_their_part_of_the_time_and_memory_allowed_for_a_million(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    n = 30_000  # hard links to one file, of which a file system allows 65,000
    source = tmp_path / "source.png"
    source.write_bytes(b"x")
    for i in range(n - 1):
        os.link(source, tmp_path / f"{i:06d}.png")
    before, start = psutil.Process().memory_info().rss, time.monotonic()
    listing = list_images(str(tmp_path))
    assert time.monotonic() - start < 60 * n / 1e6
    assert psutil.Process().memory_info().rss - before < 1e9 * n / 1e6
    assert len(listing.paths) == n and listing.paths == sorted(listing.paths)
