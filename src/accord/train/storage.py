"""Files that are there in full or not at all: write, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accord.errors import EnvironmentFault

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
TEMPORARY = ".tmp-"
"""Marks what is being written; whoever holds the lock of the run may remove it."""


def write_file(path: Path, data: bytes) -> None:
    """Creates `path`, which must not exist, and forces it to the disk; after an error nothing of it is left.

    Raises:
        EnvironmentFault: if the disk is full (with bytes needed and free), read-only or failing.
    """
    with disk_faults(path, needed=len(data)):
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
    temporary = temporary_name(path)
    write_file(temporary, data)
    with disk_faults(path):
        try:
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that nobody can guess and nothing else uses."""
    return path.with_name(f"{path.name}{TEMPORARY}{uuid.uuid4().hex}")


def sync_directory(path: Path) -> None:
    """Forces the names in a folder to the disk: without it a rename may be lost in a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
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
    reason = os.strerror(error.errno) if error.errno else str(error)
    where = str(path)
    if error.errno in FULL:
        free, files = free_space(path)
        limit = "; a limit on the size of files applies" if error.errno == errno.EFBIG else ""
        return EnvironmentFault(
            f"cannot write: {reason}: {needed:,} bytes needed, {free:,} bytes and {files:,} files free{limit}",
            where=where,
            help="free some space or write to another disk with --out, then --resume: what was saved before is intact",
            code="E501",
        )
    if error.errno in FORBIDDEN:
        return EnvironmentFault(
            f"cannot write: {reason} (as user {os.geteuid()})",
            where=where,
            help="give this user the right to write there, or choose another folder with --out",
            code="E502",
        )
    return EnvironmentFault(
        f"cannot write: {reason}",
        where=where,
        help="check the disk and its connection; what was saved before is intact",
        code="E503",
    )
