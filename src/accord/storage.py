"""Files that are there in full or not at all: write, fsync, rename, fsync of the folder. Everything accord writes goes through here."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from accord.errors import EnvironmentFault

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
TEMPORARY = ".tmp-"
"""Marks what is being written; whoever holds the lock of the run may remove it."""


def write_file(path: Path, data: bytes, *, called: Path | None = None) -> None:
    """Creates `path`, which must not exist, and forces it to the disk; after an error nothing of it is left.

    `called` is the name it has in messages, where `path` is not the one that it will have.

    Raises:
        EnvironmentFault: if the disk is full (with bytes needed and free), read-only or failing.
    """
    with disk_faults(called or path, needed=len(data)):
        _create(path, data)


def _create(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """`os.write` until all is written: one call may write less than it was given."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: Path, data: bytes) -> None:
    """Gives `path` new content in one step: a reader, or a power cut, sees the old or the new file and no mixture.

    Raises:
        EnvironmentFault: as `write_file`; `path` is then as before.
    """
    with disk_faults(path, needed=len(data)), replacing(path) as temporary:
        _create(temporary, data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what the body leaves there becomes `path` when it ends well, and is removed when it does not.

    Raises:
        OSError: from the system, unchanged; see `disk_faults`.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def try_writing(folder: Path) -> None:
    """Writes a file into `folder` and removes it: root passes every check of rights, only trying tells.

    Raises:
        EnvironmentFault: if it cannot be done.
    """
    probe = temporary_name(folder / "probe")
    with disk_faults(folder):
        _create(probe, b"0")
        probe.unlink()


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """`replace_file` with strict JSON; numbers that are not finite become null.

    Raises:
        EnvironmentFault: as `write_file`; `path` is then as before.
    """
    text = json.dumps(finite(values), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    replace_file(path, (text + "\n").encode())


def finite(value: object) -> object:
    """`value` with every NaN and infinity, however deep, replaced by None; mappings and sequences become dicts and lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [finite(item) for item in value]
    return value


def temporary_name(path: Path) -> Path:
    """A name beside `path` that nobody can guess and nothing else uses."""
    return path.with_name(f"{path.name}{TEMPORARY}{uuid.uuid4().hex}")


def sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to the disk: without it a rename may be lost in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Removes a folder under another name, so that a crash half-way leaves nothing that looks like a damaged original."""
    doomed = path if TEMPORARY in path.name else temporary_name(path)
    if doomed != path:
        with disk_faults(path):
            path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_space(path: Path) -> tuple[int, int]:
    """(bytes, files) that may still be written where `path` is or would be."""
    there = next(p for p in [path.absolute(), *path.absolute().parents] if p.exists())
    status = os.statvfs(there)
    return status.f_bavail * status.f_frsize, status.f_favail


@contextmanager
def disk_faults(path: Path, *, needed: int = 0) -> Iterator[None]:
    """Turns an `OSError` of the body into an `EnvironmentFault` that names `path`, what was needed and what there is."""
    try:
        yield
    except OSError as error:
        raise _fault(error, path, needed) from error


def _fault(error: OSError, path: Path, needed: int) -> EnvironmentFault:
    reason, where = os.strerror(error.errno) if error.errno else str(error), str(path)
    if error.errno in FULL:
        free, files = free_space(path)
        wanted = f"{needed:,} bytes needed, " if needed else ""
        limit = "; a limit on the size of files applies" if error.errno == errno.EFBIG else ""
        return EnvironmentFault(
            f"cannot write: {reason}: {wanted}{free:,} bytes and {files:,} files free{limit}",
            where=where,
            help="free some space or write to another disk; what was saved before is intact, and training goes on with --resume",
            code="E501",
        )
    if error.errno in FORBIDDEN:
        return EnvironmentFault(
            f"cannot write: {reason} (as user {os.geteuid()})",
            where=where,
            help="give this user the right to write there, or choose another folder",
            code="E502",
        )
    return EnvironmentFault(
        f"cannot write: {reason}",
        where=where,
        help="check the disk and its connection; what was saved before is intact",
        code="E503",
    )
