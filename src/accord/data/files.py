"""Finding and reading files: sorted by bytes, never blocked by what is no file, every path that cannot be used named."""

from __future__ import annotations

import difflib
import errno
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from accord.data.samples import BadItem, Refused
from accord.errors import EnvironmentFault, UsageError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"})
"""Files of a folder that are read as images."""

FOREIGN_EXTENSIONS = frozenset({".svg", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".eps", ".fits"})
"""Images of formats that are not read: each is named as a bad item, not ignored."""

SOUNDS = frozenset({".wav", ".wave"})
"""Files that are read as sounds."""

MAX_BYTES = 1 << 30
RETRIES = (0.1, 0.4, 1.6)
"""Seconds between the tries when a device or network file system fails."""

_TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EREMOTEIO, errno.ECONNRESET})


class Listing(NamedTuple):
    """The files of one kind under `root`: paths relative to it, sorted by their bytes.

    `stamp`: int64 (N, 3), size, mtime and ctime in ns. `refused`: place in `paths` -> what is wrong (an unreadable folder,
    a link that leads out). `notes`: what was left out and is no fault.
    """

    root: str
    paths: list[str]
    stamp: np.ndarray
    refused: dict[int, BadItem]
    notes: list[str]


class _Walk:
    """State of one listing."""

    def __init__(self, root: str, follow_links: bool, wanted: frozenset[str]):
        self.wanted = wanted
        self.root = root
        self.real_root = os.path.realpath(root)
        self.follow_links = follow_links
        self.found: list[tuple[str, tuple[int, int, int] | BadItem]] = []
        self.seen: set[tuple[int, int]] = set()
        self.folders = [""]
        self.linked: list[str] = []
        self.ignored = 0
        self.special: list[str] = []
        self.loops = 0

    def run(self) -> None:
        while self.folders or self.linked:
            self.folder(self.folders.pop() if self.folders else self.linked.pop(0))

    def folder(self, folder: str) -> None:
        path = os.path.join(self.root, folder)  # noqa: PTH118  (pathlib is ten times slower for a million names)
        try:
            status = os.stat(path)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in self.seen:
                self.loops += 1
                return
            self.seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    self.entry(entry, f"{folder}{entry.name}")
        except OSError as error:
            if not folder:
                raise unreadable_source(path, error) from error
            self.found.append((folder, _unreadable(folder, error)))

    def entry(self, entry: os.DirEntry[str], relative: str) -> None:
        if entry.name.startswith("."):
            self.ignored += 1
        elif entry.is_symlink():
            self.link(entry, relative)
        elif entry.is_dir(follow_symlinks=False):
            self.folders.append(relative + "/")
        else:
            self.file(entry, relative)

    def file(self, entry: os.DirEntry[str], relative: str) -> None:
        if not self.is_wanted(entry.name):
            self.ignored += 1
            return
        try:
            status = entry.stat()
        except OSError as error:
            self.found.append((relative, _unreadable(relative, error)))
            return
        if stat.S_ISREG(status.st_mode):
            self.found.append((relative, (status.st_size, status.st_mtime_ns, status.st_ctime_ns)))
        else:
            self.special.append(relative)

    def is_wanted(self, name: str) -> bool:
        return os.path.splitext(name)[1].lower() in self.wanted  # noqa: PTH122

    def link(self, entry: os.DirEntry[str], relative: str) -> None:
        target = os.path.realpath(entry.path)
        inside = target == self.real_root or target.startswith(self.real_root.rstrip("/") + "/")
        if entry.is_dir():
            if inside:
                self.loops += 1  # its content is listed where it lies
            elif self.follow_links:
                self.linked.append(relative + "/")
            else:
                self.found.append((relative + "/", _leads_out(relative + "/", target)))
        elif inside or self.follow_links or not self.is_wanted(entry.name):
            self.file(entry, relative)
        else:
            self.found.append((relative, _leads_out(relative, target)))


def _leads_out(key: str, target: str) -> BadItem:
    reason = f"a link that leads out of the folder, to {target}"
    return BadItem(
        key,
        "E322",
        reason,
        "follow it with --set data.follow_links=true (follow_links=True in Python), or copy the data",
    )


def list_images(root: str, follow_links: bool = False) -> Listing:
    """All image files under `root`; see `list_files`. Of formats that are not read each is listed, to be named as a bad item."""
    return list_files(root, EXTENSIONS, follow_links, more=FOREIGN_EXTENSIONS)


def list_files(
    root: str, extensions: frozenset[str], follow_links: bool = False, *, more: frozenset[str] = frozenset()
) -> Listing:
    """All files under `root` with these extensions, recursively. Hidden names and other extensions are ignored and counted.

    A folder is entered once, whatever links lead to it (by device and inode). Links out of the root are refused unless
    `follow_links`. FIFOs, devices and sockets are skipped without being opened.
    """
    walk = _Walk(root, follow_links, extensions | more)
    walk.run()
    walk.found.sort(key=lambda found: os.fsencode(found[0]))
    refused = {i: fault for i, (_, fault) in enumerate(walk.found) if isinstance(fault, BadItem)}
    stamp = np.array([(0, 0, 0) if isinstance(s, BadItem) else s for _, s in walk.found], np.int64).reshape(-1, 3)
    notes = []
    if walk.ignored:
        notes.append(f"{walk.ignored} files or folders ignored (hidden, or not one of {', '.join(sorted(extensions))})")
    if walk.special:
        notes.append(f"{len(walk.special)} skipped, not regular files: {', '.join(sorted(walk.special)[:3])}")
    if walk.loops:
        notes.append(f"{walk.loops} links to folders already listed were not followed")
    return Listing(root, [path for path, _ in walk.found], stamp, refused, notes)


def read_file(path: str, expected: tuple[int, int] | None = None, part: tuple[int, int] | None = None) -> bytes:
    """The bytes of a regular file, or a `part` of them, (offset, length); `expected` is the (size, mtime_ns) it had when it was listed.

    Never blocks on a FIFO. Failures of the device are tried again 3 times, then `EnvironmentFault` (exit 5).
    Raises `Refused` for what is wrong with this one file.
    """
    for pause in (*RETRIES, None):
        try:
            return _read_once(path, expected, part)
        except OSError as error:
            if error.errno not in _TRANSIENT:
                raise _one_file(path, error) from error
            if pause is None:
                reason = f"reading failed {len(RETRIES) + 1} times: {error.strerror} ({errno.errorcode.get(error.errno, error.errno)})"
                raise EnvironmentFault(
                    reason, where=path, help="check the disk or the network mount", code="E530"
                ) from error
            time.sleep(pause)
    raise AssertionError


def _read_once(path: str, expected: tuple[int, int] | None, part: tuple[int, int] | None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("E326", "no longer a regular file", "put the image back")
        if expected is not None and (status.st_size, status.st_mtime_ns) != expected:
            raise changed(expected[0], status.st_size)
        start, length = part or (0, status.st_size)
        if length > MAX_BYTES:
            raise Refused(
                "E313", f"{length} bytes: more than the {MAX_BYTES} that one image may have", "make it smaller"
            )
        if part is not None:
            os.lseek(descriptor, start, os.SEEK_SET)
        data = os.read(descriptor, length + (part is None))  # one more byte would show that it grew
        while len(data) < length and (more := os.read(descriptor, length - len(data))):
            data += more
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise changed(length, len(data))
    return data


def changed(listed: int, now: int) -> Refused:
    """The fault of a file that had another size, or another time, when it was listed."""
    reason = f"the file changed since it was listed ({listed} bytes then, {now} now)"
    return Refused("E325", reason, "leave the data alone while they are in use, then start again")


def _one_file(path: str, error: OSError) -> Exception:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Refused("E325", "the file is gone since it was listed", "leave the data alone while they are in use")
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return EnvironmentFault(
            f"{error.strerror}", where=path, help="raise the limit (ulimit -n) or use fewer workers", code="E530"
        )
    fault = _unreadable(path, error)
    return Refused(fault.code, fault.reason, fault.help)


def _unreadable(key: str, error: OSError) -> BadItem:
    if error.errno in (errno.EACCES, errno.EPERM):
        return BadItem(
            key, "E321", f"not readable by user {os.geteuid()} ({error.strerror})", "give read permission, or delete it"
        )
    return BadItem(key, "E321", f"cannot be read: {error.strerror}", "repair or delete it")


def unreadable_source(path: str, error: OSError) -> Exception:
    """The error for a source that cannot be opened at all."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return missing(path)
    if error.errno in _TRANSIENT:
        return EnvironmentFault(
            f"cannot be read: {error.strerror}", where=path, help="check the disk or the network mount", code="E530"
        )
    reason = f"not readable by user {os.geteuid()} ({error.strerror})"
    return EnvironmentFault(reason, where=path, help="give read permission, or run as another user", code="E521")


def missing(path: str) -> UsageError:
    """The error for a path that is not there: the nearest folder that is, and a close name in it."""
    child = Path(path)
    parent = child.parent
    while not parent.is_dir() and parent != parent.parent:
        child, parent = parent, parent.parent
    try:
        names = sorted(path.name for path in parent.iterdir())
    except OSError:
        names = []
    close = difflib.get_close_matches(child.name, names, 1, 0.6)
    help = f'did you mean "{parent / close[0]}"?' if close else f'the nearest folder that exists is "{parent}"'
    return UsageError("no such file or folder", where=path, help=help, code="E220")
