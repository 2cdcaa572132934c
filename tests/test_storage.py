"""One writer: what it leaves is the old file or the new one, whatever fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from accord.errors import EnvironmentFault, UsageError
from accord.output import require_writable, table_file
from accord.storage import finite, replace_file, replacing, try_writing, write_file, write_json


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("mount") or os.system(f"mount -t tmpfs -o size=256k tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("this user may not mount a small disk")
    yield disk
    assert os.system(f"umount -l {disk}") == 0


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "E501"), (errno.EROFS, "E502"), (errno.EIO, "E503")])
def test_a_failing_call_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(EnvironmentFault) as fault:
        replace_file(path, b"new")
    monkeypatch.undo()
    assert (fault.value.exit_code, fault.value.code) == (5, code)
    assert fault.value.where == str(path) and fault.value.help
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_an_error_of_the_body_leaves_the_old_file_and_is_not_renamed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as aside:
        aside.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("mine")
    link.symlink_to(victim)
    replace_file(link, b"new")
    assert victim.read_text() == "mine" and link.read_bytes() == b"new" and not link.is_symlink()
    with pytest.raises(EnvironmentFault):
        write_file(link, b"again")


def test_json_is_strict(tmp_path: Path) -> None:
    values = {"a": float("nan"), "b": [1.0, float("inf"), {"c": (-float("inf"), "x")}], "d": None}
    write_json(tmp_path / "x.json", values)
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [1.0, None, {"c": [None, "x"]}], "d": None}
    assert finite(values) == json.loads((tmp_path / "x.json").read_text())


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_a_table_on_a_full_disk_is_refused_and_nothing_is_left(small_disk: Path, suffix: str) -> None:
    path = small_disk / f"table{suffix}"
    path.write_text("old")
    rng = np.random.default_rng(0)
    with (
        pytest.raises(EnvironmentFault, match="No space left") as fault,
        table_file(path, rows=10_000, vectors="v") as t,
    ):
        for _ in range(10):
            t.write({"v": rng.standard_normal((1000, 16)).astype(np.float32)})
    assert fault.value.code == "E501" and str(path) in str(fault.value)
    assert names(small_disk) == [path.name] and path.read_text() == "old"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UsageError, match="this is a folder"):
        require_writable(tmp_path / "folder.parquet", vectors=False)
    with pytest.raises(UsageError, match="no such folder"):
        require_writable(tmp_path / "a b" / "x.parquet", vectors=False)
    with pytest.raises(EnvironmentFault):
        require_writable(Path("/proc/x.parquet"), vectors=False)
    with pytest.raises(EnvironmentFault) as fault:
        try_writing(Path("/proc"))
    assert fault.value.where == "/proc"
    require_writable(tmp_path / "x.parquet", vectors=False)
    assert names(tmp_path) == ["folder.parquet"]
