"""WebDataset archives as samples: members with one key in a row are the parts of a sample, and each part is read where it lies.

A member "folder/name.some.jpg" has the key "folder/name" and is the part "some.jpg" of that sample. Of the parts,

| part                                     | is                                                             |
|------------------------------------------|----------------------------------------------------------------|
| jpg, jpeg, png, webp, ... (or named)     | the sample, an image                                           |
| npy (or named)                           | the sample, a vector, where there are no images                |
| cls (or named by `label`)                | its label, an integer (or a text)                              |
| json                                     | its label, if `label` names a field of it                      |

The rest is left out and said. The convention is that of WebDataset (Aizman, Maltby, Breuel 2019, arXiv:2001.01858).
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accord.data.arrays import numbers, read_array
from accord.data.encoded import OneByOne, memory_free
from accord.data.files import EXTENSIONS, FOREIGN_EXTENSIONS, read_file, unreadable_source
from accord.data.samples import Refused
from accord.data.tables import short_names
from accord.data.tar_headers import Member, members
from accord.data.vectors import Labels, encode_labels
from accord.errors import AccordError, ArtifactError, DataError, EnvironmentFault, UsageError

_IMAGES = EXTENSIONS | FOREIGN_EXTENSIONS
_PICKLES = frozenset({".pkl", ".pickle", ".pyd", ".pth", ".pt"})
_SMALL = 1 << 20
"""Bytes that the part with the label may have."""

RUN = 1024
"""Samples of an archive that are read together, at most."""

Part = tuple[int, int]
"""Where the bytes of a part are: offset and length."""


@dataclass
class _Group:
    """Members in a row with the same key."""

    key: str
    parts: dict[str, Part] = field(default_factory=dict)
    fault: Refused | None = None

    def add(self, part: str, member: Member) -> None:
        fault = member.fault
        if fault is None and part in self.parts:
            fault = Refused("E352", f'two parts "{part}" of one sample', "give every sample a key of its own")
        if fault is None and f".{part.rpartition('.')[2]}" in _PICKLES:
            fault = Refused("E353", f'a pickle, "{part}": loading one can run any program', "write it as .json or .npy")
        self.fault = self.fault or fault
        self.parts.setdefault(part, (member.offset, member.size))


class Shards(NamedTuple):
    """The samples of several archives: which archive (N,), where their images, arrays and labels are; what is wrong with some.

    `images`, `arrays`: int64 (N, 2), offset and length, -1 where there is none. `values`: labels as they are written.
    """

    paths: list[Path]
    stamp: np.ndarray
    keys: list[str]
    shard: np.ndarray
    images: np.ndarray
    arrays: np.ndarray
    values: list[Any]
    refused: dict[int, Refused]
    notes: list[str]

    @property
    def has_images(self) -> bool:
        """Whether any sample has one: then they are the samples."""
        return bool((self.images[:, 0] >= 0).any())

    def part(self, i: int, places: np.ndarray) -> bytes:
        """The bytes of a part of sample `i`, of `images` or `arrays`. Raises `Refused`, `EnvironmentFault`."""
        if i in self.refused:
            raise self.refused[i]
        offset, length = places[i].tolist()
        if offset < 0:
            what = "image" if places is self.images else "vector"
            raise Refused("E354", f"no {what} in this sample", "write the archive with it, or drop the sample")
        shard = int(self.shard[i])
        size, changed, _ = self.stamp[shard].tolist()
        return read_file(str(self.paths[shard]), (size, changed), (offset, length))

    def labels(self, label: str | None) -> Labels | None:
        """The labels that were found, None if there are none. Raises `UsageError` if some were asked for."""
        if any(value is not None for value in self.values):
            return encode_labels(self.values, len(self.keys), str(self.paths[0]))
        if label is not None:
            raise UsageError(
                f'no sample has a part "{label}", or a part "json" with this field',
                where=str(self.paths[0]),
                help="leave out label= to use the part cls, if there is one",
                code="E234",
            )
        return None


class TarImages(OneByOne):
    """The images of archives."""

    def __init__(self, shards: Shards):
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards.keys)

    def stamp(self) -> bytes:
        paths = "\0".join(str(path.resolve()) for path in self.shards.paths).encode("utf-8", "surrogateescape")
        places = np.ascontiguousarray(self.shards.images, "<i8").tobytes()
        return b"tar\0" + paths + b"\0\0" + np.ascontiguousarray(self.shards.stamp, "<i8").tobytes() + places

    @property
    def blocks(self) -> np.ndarray:
        """Archives, those of many samples cut into runs."""
        ends = np.cumsum(np.bincount(self.shards.shard, minlength=len(self.shards.paths)))
        return np.concatenate(
            [np.arange(first, last, RUN) for first, last in zip([0, *ends[:-1]], ends, strict=True)], dtype=np.int64
        )

    def read(self, i: int) -> bytes:
        """Image number `i`. Raises `Refused`, `EnvironmentFault`."""
        return self.shards.part(i, self.shards.images)


def open_tars(paths: Sequence[Path], column: str | None, label: str | None) -> Shards:
    """The index of archives, from their headers and labels.

    Raises:
        DataError: an archive that is damaged, or one without samples.
        UsageError: several images in one sample, and none of them named by `column`.
    """
    names = short_names(paths)
    stamp, keys, shard, places = list[tuple[int, int, int]](), list[str](), list[int](), list[tuple[Part, Part]]()
    values, refused, ignored = list[Any](), dict[int, Refused](), Counter[str]()
    for number, (path, name) in enumerate(zip(paths, names, strict=True)):
        with _opened(path) as file:
            status = os.fstat(file.fileno())
            stamp.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
            for group in _groups(members(file.fileno(), status.st_size, path), ignored):
                where = f"{name}:{group.key}"
                places.append(_chosen(group, column, where))
                value, fault = _label(file.fileno(), group, label)
                if fault is not None:
                    refused[len(keys)] = fault
                values.append(value)
                keys.append(where)
                shard.append(number)
    images, arrays = np.array(places, np.int64).reshape(-1, 2, 2).transpose(1, 0, 2)
    if not (images[:, 0] >= 0).any() and not (arrays[:, 0] >= 0).any():
        raise _nothing(paths[0], column, len(keys), ignored)
    return Shards(
        list(paths), np.array(stamp, np.int64), keys, np.array(shard, np.int64), images, arrays, values, refused,
        _notes(ignored),
    )  # fmt: skip


def _opened(path: Path) -> io.FileIO:
    try:
        return io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise unreadable_source(str(path), error) from error


def _groups(found: Iterator[Member], ignored: Counter[str]) -> Iterator[_Group]:
    """Samples in order; members that have no key or no extension are counted in `ignored`, unless something is wrong with them."""
    group, seen = None, set[str]()
    for member in found:
        name = member.name.removeprefix("./")
        folder, slash, base = name.rpartition("/")
        stem, dot, part = base.partition(".")
        if not stem or not dot or not part:
            if member.fault is None:
                ignored["members without a key or an extension"] += 1
                continue
            stem, part = base, ""
        key = folder + slash + stem
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = _Group(key)
            if key in seen:
                group.fault = Refused("E352", "another sample has this key", "give every sample a key of its own")
            seen.add(key)
        group.add(part.lower(), member)
    if group is not None:
        yield group


def _chosen(group: _Group, column: str | None, where: str) -> tuple[Part, Part]:
    """Where the image and where the array of a sample are. Raises `UsageError` if several parts could be the image."""
    none = (-1, -1)
    if column is not None:
        wanted = group.parts.get(column.lower(), none)
        return (none, wanted) if column.lower().endswith("npy") else (wanted, none)
    found = [part for part in group.parts if f".{part.rpartition('.')[2]}" in _IMAGES]
    if len(found) > 1:
        raise UsageError(
            f"several parts could be the image: {', '.join(found)}",
            where=where,
            help=f'name one with column=, for example column="{found[0]}"',
            code="E234",
        )
    return (group.parts[found[0]] if found else none), group.parts.get("npy", none)


def _label(descriptor: int, group: _Group, label: str | None) -> tuple[int | str | None, Refused | None]:
    """What is written as the label of a sample, None if nothing is; and what is wrong with the sample."""
    if group.fault is not None:
        return None, group.fault
    name = "cls" if label is None else label.lower()
    offset, length = group.parts.get(name) or group.parts.get("json" if label is not None else "", (0, 0))
    content = os.pread(descriptor, min(length, _SMALL), offset)
    try:
        if name in group.parts:
            text = content.decode().strip()
            return (int(text) if label is None or text.lstrip("-").isdigit() else text), None
        return (_field(content, str(label)) if content else None), None
    except (ValueError, RecursionError):
        what = f'"{content[:20].decode("utf-8", "replace")}" is no label'
        return None, Refused("E355", what, "write cls as an integer, json as an object; or name another with label=")


def _field(content: bytes, name: str) -> int | str | None:
    """A field of a JSON object, None if it is not there. Raises ValueError."""
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError
    value = found.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise ValueError
    return value


def _nothing(path: Path, column: str | None, samples: int, ignored: Counter[str]) -> AccordError:
    if column is not None:
        return UsageError(
            f'no sample has a part "{column}"',
            where=str(path),
            help="column= is an extension, such as png of 00001.png; leave it out where a sample has one image",
            code="E234",
        )
    found = "; ".join(_notes(ignored))
    return DataError(
        f"{samples} samples, none with an image (jpg, png, ...) or a vector (npy) {found}".rstrip(),
        where=str(path),
        help="write members as KEY.jpg and KEY.cls, the parts of a sample in a row",
        code="E338",
    )


def _notes(ignored: Counter[str]) -> list[str]:
    return [f"{what}, left out: {count}" for what, count in sorted(ignored.items())]


def read_vectors(shards: Shards) -> tuple[np.ndarray, dict[int, Refused]]:
    """The arrays of all samples as a matrix (N, F), and what is wrong with some, whose rows are 0.

    Raises:
        DataError: if none can be used.
        EnvironmentFault: if there is no memory for them.
    """
    matrix, refused, n = np.zeros((0, 0)), dict[int, Refused](), len(shards.keys)
    for i in range(n):
        try:
            vector = _vector(shards.part(i, shards.arrays), shards.keys[i])
            if not matrix.size:
                if 8 * n * len(vector) > memory_free() // 2:
                    reason = f"{8 * n * len(vector) / 1e9:.1f} GB needed, {memory_free() / 1e9:.1f} GB of memory free"
                    raise EnvironmentFault(reason, where=str(shards.paths[0]), help="pass fewer files", code="E543")
                matrix = np.zeros((n, len(vector)))
            if len(vector) != matrix.shape[1]:
                what = f"{len(vector)} numbers, those before it have {matrix.shape[1]}"
                raise Refused("E346", what, "write vectors of one length")
            matrix[i] = vector
        except Refused as fault:
            refused[i] = fault
    if not matrix.size:
        raise DataError(
            f"no vectors that can be used: {refused[0].reason}",
            where=shards.keys[0],
            help=refused[0].help,
            code=refused[0].code,
        )
    return matrix, refused


def _vector(data: bytes, where: str) -> np.ndarray:
    try:
        array = numbers(read_array(io.BytesIO(data), len(data), where), where)
    except ArtifactError as error:
        raise Refused("E353", error.message, error.help or "write it again") from error
    except DataError as error:
        raise Refused(error.code, error.message, error.help or "write it again") from error
    except (ValueError, EOFError) as error:
        raise Refused("E344", f"damaged .npy: {' '.join(str(error).split())}", "write it again") from error
    if array.ndim != 1 or not len(array):
        raise Refused("E340", f"an array of shape {array.shape}: expected a vector", "write it with one axis")
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and int(abs(array.astype(object)).max()) > 2**53:
        raise Refused("E339", "whole numbers beyond 2^53, which would lose their last digits", "write them as float64")
    return np.asarray(array, np.float64)
