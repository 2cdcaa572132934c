"""A cache entry is whole or absent, whoever builds it, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accord.data import cache


def fill(place: Path) -> dict[str, Any]:
    array = cache.new_array(place / "pixels.npy", (1000, 3000))
    array[:] = (np.arange(3000) % 251).astype(np.uint8)
    array.flush()  # type: ignore[attr-defined]
    return {"made": 1}


def test_what_was_built_is_found_again(tmp_path: Path) -> None:
    assert cache.find(tmp_path, "key") is None
    entry = cache.build(tmp_path, "key", fill)
    assert entry.meta == {"made": 1} and (entry.array("pixels")[5] == np.arange(3000) % 251).all()
    found = cache.find(tmp_path, "key")
    assert found is not None and found.meta == {"made": 1}
    with pytest.raises(ValueError):
        found.array("pixels")[0] = 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.lock"]


@pytest.mark.parametrize("harm", ["truncate", "grow", "flip", "remove", "meta", "empty meta"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, harm: str) -> None:
    cache.build(tmp_path, "key", fill)
    file, meta = tmp_path / "key" / "pixels.npy", tmp_path / "key" / "meta.json"
    if harm == "truncate":
        os.truncate(file, file.stat().st_size - 1)
    elif harm == "grow":
        with file.open("ab") as out:
            out.write(b"x")
    elif harm == "flip":
        with file.open("r+b") as out:
            out.seek(-1, os.SEEK_END)
            out.write(b"\xff")
    elif harm == "remove":
        file.unlink()
    else:
        meta.write_text("{}" if harm == "empty meta" else "{torn")
    assert cache.find(tmp_path, "key") is None
    entry = cache.build(tmp_path, "key", fill)
    assert (entry.array("pixels")[999] == np.arange(3000) % 251).all()


def test_an_intact_entry_is_not_built_again(tmp_path: Path) -> None:
    cache.build(tmp_path, "key", fill)
    cache.build(tmp_path, "key", lambda place: pytest.fail("built twice"))


def test_several_builders_build_once(tmp_path: Path) -> None:
    built, entries = [], []

    def slow(place: Path) -> dict[str, Any]:
        built.append(place)
        time.sleep(0.2)
        return fill(place)

    threads = [threading.Thread(target=lambda: entries.append(cache.build(tmp_path, "key", slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and len(entries) == 4


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fails(place: Path) -> dict[str, Any]:
        fill(place)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="space"):
        cache.build(tmp_path, "key", fails)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]


def test_space_is_reserved_before_it_is_mapped(tmp_path: Path) -> None:
    """A mapped write on a full disk kills the process, so the file must have its blocks when it is handed out."""
    cache.new_array(tmp_path / "a.npy", (1000, 1000))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1_000_000
    code = (
        "import resource, signal, pathlib, sys; from accord.data import cache;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "cache.new_array(pathlib.Path(sys.argv[1]), (1000, 1000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.npy")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "OSError" in done.stderr


def test_a_killed_builder_blocks_nobody_and_its_rest_is_cleared(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from accord.data import cache\n"
        "def fill(place):\n    cache.new_array(place / 'pixels.npy', (1000, 1000)); print('ready', flush=True); time.sleep(60)\n"
        "cache.build(pathlib.Path(sys.argv[1]), 'key', fill)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert any(".tmp-" in path.name for path in tmp_path.iterdir())
    assert cache.find(tmp_path, "key") is None
    cache.build(tmp_path, "key", fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.lock"]


def test_room(tmp_path: Path) -> None:
    assert cache.room(tmp_path / "a" / "b") > 0
    (tmp_path / "file").write_text("")
    assert cache.room(tmp_path / "file" / "below") == 0


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "accord"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / ".cache" / "accord"


# --- the bound ---


def small(place: Path) -> dict[str, Any]:
    (place / "data.bin").write_bytes(bytes(10_000))
    return {}


def in_another_process(folder: Path, keys: str, code: str = "") -> None:
    """Builds entries and ends, so that nobody uses them."""
    program = (
        "import sys, os, pathlib; from accord.data import cache\n"
        "def fill(place):\n    (place / 'data.bin').write_bytes(bytes(10_000)); return {}\n"
        f"folder = pathlib.Path(sys.argv[1])\n{code}\n"
        "for i, key in enumerate(sys.argv[2]):\n"
        "    cache.build(folder, key, fill)\n    os.utime(folder / key / 'meta.json', (1000 + i, 1000 + i))"
    )
    subprocess.run([sys.executable, "-c", program, str(folder), keys], check=True)


def entries(folder: Path) -> str:
    return "".join(sorted(path.parent.name for path in folder.glob("*/meta.json")))


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_another_process(tmp_path, "abcd")
    assert entries(tmp_path) == "abcd"
    monkeypatch.setattr(cache, "LIMIT", 35_000)
    in_use = "import time; cache.find(folder, 'a')"  # use makes it young, and the process is over
    in_another_process(tmp_path, "", in_use)
    cache.build(tmp_path, "e", small)
    assert entries(tmp_path) == "ade"
    assert not [path for path in tmp_path.iterdir() if ".tmp-" in path.name]


def test_within_the_limit_nothing_goes(tmp_path: Path) -> None:
    in_another_process(tmp_path, "abc")
    assert cache.prune(tmp_path) == [] and entries(tmp_path) == "abc"


def test_nothing_goes_that_anybody_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_another_process(tmp_path, "abc")
    program = (
        "import sys, pathlib; from accord.data import cache\n"
        "entry = cache.find(pathlib.Path(sys.argv[1]), 'a'); print('ready', flush=True); sys.stdin.read()"
    )
    monkeypatch.setattr(cache, "LIMIT", 1)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], text=True, **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "ready\n"
        mine = cache.find(tmp_path, "b")
        assert mine is not None and cache.prune(tmp_path) == ["c"]
        assert entries(tmp_path) == "ab" and (mine.folder / "data.bin").read_bytes() == bytes(10_000)
        other.stdin.close()
        other.wait()
    assert cache.prune(tmp_path) == ["a"], "control: once the other process has ended it goes"


def test_an_entry_that_goes_while_it_is_opened_is_absent_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_another_process(tmp_path, "a")
    flock = cache.fcntl.flock

    def removed_just_before(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        assert cache._remove(tmp_path / "a")
        flock(descriptor, how)

    monkeypatch.setattr(cache.fcntl, "flock", removed_just_before)
    assert cache.find(tmp_path, "a") is None
    assert cache.build(tmp_path, "a", small).folder.is_dir()
