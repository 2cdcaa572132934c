"""Arrays by name from .npy, .npz and mappings: headers are checked before anything is allocated, nothing is ever unpickled."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from accord.data.encoded import memory_free
from accord.errors import AccordError, ArtifactError, DataError, EnvironmentFault, UsageError

X_NAMES = ("x", "images", "image", "data", "features")
Y_NAMES = ("y", "label", "labels", "class", "classes", "target", "targets")
_RATIO, _SMALL = 200, 256 << 20
_DAMAGES = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError)


class Chosen(NamedTuple):
    """The array of samples, the array of labels if there is one, and notes."""

    x: np.ndarray
    y: np.ndarray | None
    notes: list[str]


class _Archive(Mapping[str, np.ndarray]):
    """The arrays of an .npz file, each read only when asked for and checked before that."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise _damaged(path, error) from error
        self.members = {name.removesuffix(".npy"): name for name in self.zip.namelist()}

    def __iter__(self) -> Any:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, name: str) -> np.ndarray:
        where = f"{self.path}:{name}"
        info = self.zip.getinfo(self.members[name])
        size = os.stat(self.path).st_size  # noqa: PTH116
        if info.compress_size > size or (
            info.file_size > _SMALL and info.file_size > _RATIO * max(1, info.compress_size)
        ):
            raise DataError(
                f"{info.compress_size} compressed bytes claim to hold {info.file_size}: refused (limit {_RATIO} to 1)",
                where=where,
                help="save it with numpy.savez (not compressed) if it is genuine",
                code="E342",
            )
        try:
            with self.zip.open(info) as file:
                return read_array(file, info.file_size, where)
        except AccordError:
            raise
        except _DAMAGES as error:
            raise _damaged(self.path, error) from error


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, mapped. Raises `DataError`, `ArtifactError` (pickled arrays)."""
    try:
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size, str(path))
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except AccordError:
        raise
    except _DAMAGES as error:
        raise _damaged(path, error) from error
    return mapped


def read_npz(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of an .npz file by name."""
    archive = _Archive(path)
    if not archive:
        raise DataError("no arrays in this file", where=str(path), help="save some with numpy.savez", code="E338")
    return archive


def read_array(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """The array of an .npy file of `size` bytes that is read from its beginning to its end.

    Raises:
        ArtifactError: for pickled objects, which are never loaded.
        DataError, EnvironmentFault: for a header that claims other than what follows, or more than there is memory for.
        ValueError, EOFError: for what is no .npy file, or less of it.
    """
    shape, fortran, dtype = _check_header(file, size, where)
    count = math.prod(shape)
    needed = count * dtype.itemsize
    if needed > memory_free() // 2:
        raise EnvironmentFault(
            f"{needed / 1e9:.1f} GB to read, {memory_free() / 1e9:.1f} GB of memory free",
            where=where,
            help="save it as .npy",
            code="E543",
        )
    flat = np.empty(count, dtype)
    view, done = flat.view(np.uint8), 0
    while done < needed:
        part = file.read(min(1 << 24, needed - done))
        if not part:
            raise EOFError(f"{done} of {needed} bytes are there")
        view[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _check_header(file: IO[bytes], size: int, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, dtype) if the array they describe is exactly what `size` bytes can hold."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the .npy format")
    if dtype.hasobject:
        raise ArtifactError(
            "pickled arrays are refused: loading one can run any program",
            where=where,
            help="save plain numbers: numpy.save(file, array.astype('float32'))",
            code="E441",
        )
    left = size - file.tell()
    needed = math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or needed != left:
        raise DataError(
            f"the header claims {dtype} {tuple(shape)}, {needed} bytes; {left} follow it",
            where=where,
            help="copy or download the file again",
            code="E342",
        )
    return shape, fortran, dtype


def _damaged(path: Path, error: Exception) -> DataError:
    text = " ".join(str(error).split()) or type(error).__name__
    return DataError(
        f"damaged {path.suffix} file: {text}", where=str(path), help="copy, download or save it again", code="E344"
    )


def choose(arrays: Mapping[str, Any], column: str | None, label: str | None, where: str) -> Chosen:
    """The samples and labels among named arrays.

    Samples: `column`, else the only array, else "x", "images", "data" or "features", with or without "_train".
    Labels: `label`, else "y", "label", "class" or "target" with the same suffix.
    """
    names = list(arrays)
    x = _pick(names, column, where, "column") if column is not None else _guess(names, where)
    suffix = next((s for s in ("_train", "_test", "_val", "_valid") if x.lower().endswith(s)), "")
    y = _pick(names, label, where, "label") if label is not None else None
    if y is None:
        y = next((n for n in names if n != x and n.lower() in {name + suffix for name in Y_NAMES}), None)
    other = [name for name in names if name not in (x, y)]
    notes = [f"arrays not used: {', '.join(other)}"] if other else []
    return Chosen(np.asarray(arrays[x]), None if y is None else np.asarray(arrays[y]), notes)


def _pick(names: Sequence[str], name: str, where: str, option: str) -> str:
    if name not in names:
        raise UsageError(f'no array "{name}"', where=where, help=f"{option}= one of: {', '.join(names)}", code="E234")
    return name


def _guess(names: Sequence[str], where: str) -> str:
    if len(names) == 1:
        return names[0]
    for suffix in ("", "_train"):
        found = [name for name in names if name.lower() in {x + suffix for x in X_NAMES}]
        if len(found) == 1:
            return found[0]
    raise UsageError(
        f"several arrays and none of them is plainly the samples: {', '.join(names)}",
        where=where,
        help=f'name one with column=, for example column="{names[0]}"',
        code="E234",
    )


def joined(parts: Sequence[Chosen], where: str, names: Sequence[str] | None) -> tuple[np.ndarray, list[Any] | None]:
    """The samples of all parts and their labels, if every part has them. Raises `DataError` if the parts do not fit together."""
    arrays = [numbers(part.x, where) for part in parts]
    for i, array in enumerate(arrays):
        if array.ndim not in (2, 3, 4):
            help = "expected (N, features), or images (N, H, W), (N, C, H, W) or (N, H, W, C)"
            raise DataError(f"an array of shape {array.shape}", where=where, help=help, code="E340")
        if array.shape[1:] != arrays[0].shape[1:] or array.dtype != arrays[0].dtype:
            assert names is not None
            reason = f"{array.dtype} of shape {array.shape} in {names[i]}, {arrays[0].dtype} of shape {arrays[0].shape} in {names[0]}"
            raise DataError(reason, where=where, help="pass files of one kind", code="E346")
    labels = [None if part.y is None else _flat(part.y) for part in parts]
    known = [values for values in labels if values is not None]
    x = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return x, [value for values in known for value in values] if len(known) == len(parts) else None


def _flat(labels: np.ndarray) -> list[Any]:
    values: list[Any] = (labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels).tolist()
    return values


def numbers(array: np.ndarray, where: str) -> np.ndarray:
    """`array` if it holds real numbers in native byte order (converted if need be). Raises `DataError`."""
    if array.dtype.kind not in "buif":
        what = "object arrays are refused" if array.dtype.hasobject else f"{array.dtype} values"
        raise DataError(
            f"{what}: expected real numbers", where=where, help="convert it: array.astype('float32')", code="E340"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
