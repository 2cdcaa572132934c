"""A folder of finished arrays: written once under a temporary name, renamed when complete, verified when opened.

An entry is a folder named by its key; `meta.json` in it lists every file with its size and a hash. Several processes may ask
for the same key at once: one builds, the others wait and use what it built.

The folder is bounded: after each build those entries go that were not used for longest. Whoever uses an entry holds a shared lock on
its `meta.json` until the process ends; whoever removes one must get it alone, so nothing goes that anybody uses.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accord.storage import sync

_BLOCK = 1 << 18
_BLOCKS = 16
LIMIT = 16 << 30
"""Bytes that all entries may take together, or half of what the disk could give them if that is less."""

_held: dict[tuple[int, int], int] = {}
"""Locks on entries in use, by device and inode of their meta.json: the system drops them when the process ends."""


class Entry(NamedTuple):
    """A finished entry: what its builder said about it, and its arrays (.npy), mapped read-only."""

    folder: Path
    meta: dict[str, Any]

    def array(self, name: str) -> np.ndarray:
        """The array `name`, mapped from its file."""
        mapped: np.ndarray = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return mapped


def default_folder() -> Path:
    """$XDG_CACHE_HOME/accord, or ~/.cache/accord; a place where nothing can be written for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):  # a relative path is to be ignored, says the XDG specification
        return Path(base) / "accord"
    try:
        return Path.home() / ".cache" / "accord"
    except RuntimeError:
        return Path(os.devnull) / "accord"


def room(folder: Path) -> int:
    """Bytes free where `folder` is or would be; 0 if nothing can be written there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK | os.X_OK) else 0
    except OSError:
        return 0


def find(folder: Path, key: str) -> Entry | None:
    """The entry `key`, which from now on nobody removes, or None if it is absent, incomplete or damaged."""
    place = folder / key
    try:
        _hold(place / "meta.json")
        meta = json.loads((place / "meta.json").read_bytes())
        for name, (size, digest) in meta["files"].items():
            if (place / name).stat().st_size != size or _digest(place / name) != digest:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):  # a cache that may only be read is never pruned by us
        os.utime(place / "meta.json")
    return Entry(place, meta["about"])


def _hold(meta: Path) -> None:
    """Locks an entry for this process. Raises OSError if it is gone, now or a moment before the lock was there."""
    descriptor = os.open(meta, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    status = os.fstat(descriptor)
    inode = (status.st_dev, status.st_ino)
    if inode in _held:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        now = meta.stat()
        if (now.st_dev, now.st_ino) != inode:
            raise FileNotFoundError(errno.ENOENT, "replaced in between", str(meta))
    except BaseException:
        os.close(descriptor)
        raise
    _held[inode] = descriptor


def build(folder: Path, key: str, fill: Callable[[Path], dict[str, Any]]) -> Entry:
    """The entry `key`, built unless another process has just done so. `fill` writes files into a folder and describes them.

    Raises OSError (disk full, no rights) and whatever `fill` raises; then nothing is left behind.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder / f"{key}.lock"):
        entry = find(folder, key)
        if entry is not None:
            return entry
        for stale in [*folder.glob(f"{key}.tmp-*"), folder / key]:
            shutil.rmtree(stale, ignore_errors=True)
        temporary = folder / f"{key}.tmp-{uuid.uuid4().hex}"
        temporary.mkdir(mode=0o700)
        try:
            about = fill(temporary)
            _seal(temporary, about)
            temporary.rename(folder / key)
            sync(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _hold(folder / key / "meta.json")
    prune(folder)
    return Entry(folder / key, about)


def prune(folder: Path) -> list[str]:
    """Removes entries, the one not used for longest first, until the others are within the limit; returns their keys.

    What any process uses stays, this one's entries included, even if the limit is exceeded. Never raises.
    """
    entries = []
    for meta in folder.glob("*/meta.json"):
        with suppress(OSError):
            if ".tmp-" not in meta.parent.name:
                entries.append(
                    (meta.stat().st_mtime_ns, meta.parent, sum(p.stat().st_size for p in meta.parent.iterdir()))
                )
    total, removed = sum(size for _, _, size in entries), list[str]()
    limit = min(LIMIT, (total + room(folder)) // 2)
    for _, place, size in sorted(entries):
        if total > limit and _remove(place):
            total -= size
            removed.append(place.name)
    return removed


def _remove(place: Path) -> bool:
    """Removes an entry that nobody uses; False if somebody does, or it cannot be removed."""
    try:
        descriptor = os.open(place / "meta.json", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside = place.with_name(f"{place.name}.tmp-{uuid.uuid4().hex}")
        place.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def new_array(path: Path, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """A writable mapped .npy file whose space is really there: a full disk is an OSError now, not a bus error later."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, path.stat().st_size))
    return array


def _seal(folder: Path, about: dict[str, Any]) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        files[path.name] = (path.stat().st_size, _digest(path))
    meta = folder / "meta.json"
    meta.write_text(json.dumps({"files": files, "about": about}, allow_nan=False))
    sync(meta)
    sync(folder)


def _digest(path: Path) -> str:
    """Hash of a file's length and of 16 blocks spread over it: cheap for gigabytes, and it sees any truncation or lost page range."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        for place in sorted({(size - _BLOCK) * i // (_BLOCKS - 1) if size > _BLOCK else 0 for i in range(_BLOCKS)}):
            file.seek(place)
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """An exclusive lock that the system releases when its holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
