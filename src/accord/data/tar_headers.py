"""The members of a tar file from its headers alone: name, place and size of each, and what is wrong with it.

Nothing is extracted and no name is ever used as a path. ustar, GNU and pax archives are read; every block between the first and the
end marker is accounted for, so a damaged or torn archive is an error at an offset, never a shorter list.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from accord.data.files import MAX_BYTES
from accord.data.samples import Refused
from accord.errors import DataError

BLOCK = 512
MAX_EXTENSION = 1 << 20
"""Bytes of a header that continues another (long names, pax records): far more than any name needs."""
_CHUNK = 1 << 20

_REGULAR, _CONTIGUOUS, _FOLDER = b"0", b"7", b"5"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_NO_FILES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
}


class Member(NamedTuple):
    """A regular file in an archive, its bytes at `offset`; or what is no regular file, or may not be used, with its `fault`."""

    name: str
    offset: int
    size: int
    fault: Refused | None = None


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes


class _Damaged(Exception):
    """What is wrong with the archive as a whole, and where."""

    def __init__(self, reason: str, offset: int):
        self.reason, self.offset = reason, offset
        super().__init__(reason)


def members(descriptor: int, size: int, path: Path) -> Iterator[Member]:
    """The members of an open archive of `size` bytes, in order; folders are left out.

    Raises:
        DataError: if it is compressed, damaged or cut off, with the offset.
    """
    try:
        yield from _walk(descriptor, size)
    except _Damaged as error:
        compressed = os.pread(descriptor, 2, 0) == b"\x1f\x8b"
        what = "a compressed archive, which can only be read from its beginning" if compressed else error.reason
        raise DataError(
            f"damaged tar file: {what}" if not compressed else what,
            where=f"{path}:offset {error.offset}",
            help=f"gunzip it: images hardly get smaller by it ({path.name})"
            if compressed
            else "copy, download or write it again",
            code="E350",
        ) from error


def _walk(descriptor: int, size: int) -> Iterator[Member]:
    place, common, extra = 0, dict[str, str](), dict[str, str]()
    while True:
        block = os.pread(descriptor, BLOCK, place)
        if len(block) < BLOCK:
            raise _Damaged(f"it ends after {place + len(block)} bytes without an end marker", place)
        if not any(block):
            _require_nothing_left(descriptor, size, place)
            return
        header, data = _header(block, place), place + BLOCK
        records = {**common, **extra}
        length = _length(header, records, place)
        if data + length > size:
            raise _Damaged(f'"{header.name}" should have {length} bytes, {max(0, size - data)} are left', place)
        place = data + (length + BLOCK - 1) // BLOCK * BLOCK
        if header.kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            found = _extension(descriptor, header, data)
            common |= found if header.kind == _PAX_GLOBAL else {}
            extra |= found if header.kind != _PAX_GLOBAL else {}
            continue
        extra = {}
        name = records.get("path", header.name)
        if header.kind != _FOLDER and not (header.kind == _REGULAR and name.endswith("/")):
            yield Member(name, data, length, _fault(name, header.kind, length))


def _header(block: bytes, place: int) -> _Header:
    """Name, size and kind of a header block. Raises `_Damaged` if its checksum or a number in it is wrong."""
    try:
        expected, size = _number(block[148:156]), _number(block[124:136])
    except ValueError as error:
        raise _Damaged("not a tar header", place) from error
    if sum(block) - sum(block[148:156]) + 8 * 32 != expected:
        raise _Damaged("the checksum of a header is wrong", place)
    name, prefix = (_text(block[a:b]) for a, b in ((0, 100), (345, 500)))
    if block[257:263] == b"ustar\0" and prefix:
        name = f"{prefix}/{name}"
    kind = block[156:157].replace(b"\0", _REGULAR).replace(_CONTIGUOUS, _REGULAR)
    return _Header(name, 0 if kind in _NO_FILES or kind == _FOLDER else size, kind)


def _number(field: bytes) -> int:
    """Octal digits, or with the first bit set a binary number. Raises ValueError."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise ValueError(field)
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _length(header: _Header, records: dict[str, str], place: int) -> int:
    """Bytes that follow a header. Raises `_Damaged` for a file with holes: its bytes are not those of the file."""
    name = records.get("path", header.name)
    if header.kind == b"S" or any(key.startswith("GNU.sparse") for key in records):
        raise _Damaged(f'"{name}" is stored with holes (a sparse file), which is not read', place)
    if header.kind == b"M":
        raise _Damaged(f'"{name}" goes on from another volume', place)
    if header.kind != _REGULAR or "size" not in records:
        return header.size
    if not records["size"].isascii() or not records["size"].isdigit() or len(records["size"]) > 18:
        raise _Damaged(f'"{name}" has a size of {records["size"][:20]!r}', place)
    return int(records["size"])


def _extension(descriptor: int, header: _Header, data: int) -> dict[str, str]:
    """What a header says about the next one (or about all that follow)."""
    if header.size > MAX_EXTENSION:
        raise _Damaged(f"an extended header of {header.size} bytes", data - BLOCK)
    content = os.pread(descriptor, header.size, data)
    if header.kind == _LONG_LINK:
        return {}
    if header.kind == _LONG_NAME:
        return {"path": _text(content)}
    try:
        return _records(content)
    except ValueError as error:
        raise _Damaged("a pax header that is none", data - BLOCK) from error


def _records(content: bytes) -> dict[str, str]:
    """The records "length key=value", each with an end of line, of a pax header. Raises ValueError."""
    found = {}
    while content.strip(b"\0"):
        digits, separator, _ = content.partition(b" ")
        if not separator or len(digits) > 8 or digits.strip(b"0123456789"):
            raise ValueError
        record, content = content[: int(digits)], content[int(digits) :]
        key, separator, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != int(digits) or record[-1:] != b"\n" or not separator:
            raise ValueError
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    return found


def _fault(name: str, kind: bytes, size: int) -> Refused | None:
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        return Refused("E351", "a name that leads out of the archive", "write the archive with relative names")
    if kind != _REGULAR:
        what = _NO_FILES.get(kind, f"an entry of type {kind!r}")
        return Refused("E351", f"{what}, not a file", "write the archive with the files themselves (tar --dereference)")
    if size > MAX_BYTES:
        return Refused("E313", f"{size} bytes: more than the {MAX_BYTES} that one item may have", "make it smaller")
    return None


def _require_nothing_left(descriptor: int, size: int, place: int) -> None:
    """After the end marker there is only padding; anything else is a second archive, whose members would be lost."""
    while place < size:
        chunk = os.pread(descriptor, min(_CHUNK, size - place), place)
        if not chunk or any(chunk):
            reason = "there is more after the end marker: archives that were joined can only be read apart"
            raise _Damaged(reason, place)
        place += len(chunk)
