"""Tables that other programs read: one row per input, written beside their final name and renamed when complete."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from accord.data.cache import new_array
from accord.data.windows import Windows
from accord.errors import UsageError
from accord.storage import disk_faults, replacing, try_writing


class Writer(Protocol):
    """Takes the rows in order, a batch at a time."""

    def write(self, columns: dict[str, Any]) -> None:
        """Columns of equal length; an array of two axes is a column of vectors."""


class ParquetTable:
    """A Parquet file that will be `path`, written at `aside`; the first batch fixes the columns."""

    def __init__(self, path: Path, aside: Path):
        self.path = path
        self.aside = aside
        self.writer: pq.ParquetWriter | None = None

    def write(self, columns: dict[str, Any]) -> None:
        """Adds rows."""
        batch = pa.table({name: _column(values) for name, values in columns.items()})
        with disk_faults(self.path, needed=batch.nbytes):
            if self.writer is None:
                self.writer = pq.ParquetWriter(self.aside, batch.schema, compression="zstd")
            self.writer.write_table(batch)

    def close(self) -> None:
        """Writes the footer."""
        if self.writer is not None:
            self.writer.close()


class NumpyTable:
    """An NPY file of the one column of vectors that will be `path`, written at `aside`; a row without values is NaN."""

    def __init__(self, path: Path, aside: Path, column: str, rows: int):
        self.path = path
        self.aside = aside
        self.column = column
        self.rows = rows
        self.done = 0
        self.array: np.ndarray | None = None

    def write(self, columns: dict[str, Any]) -> None:
        """Adds rows."""
        values = columns[self.column]
        if self.array is None:
            shape = (self.rows, values.shape[1])
            with disk_faults(self.path, needed=4 * shape[0] * shape[1]):
                self.array = new_array(self.aside, shape, np.float32)
        self.array[self.done : self.done + len(values)] = values
        self.done += len(values)

    def close(self) -> None:
        """Forces the rows to the disk."""
        if self.array is not None:
            self.array.flush()  # type: ignore[attr-defined]


@contextmanager
def table_file(path: Path, *, rows: int, vectors: str | None = None) -> Iterator[Writer]:
    """A writer for `path`, which appears when the body ends well and not before.

    Args:
        path: a .parquet file, or .npy where `vectors` names the column to keep.
        rows: how many there will be.
        vectors: the column of vectors.

    Raises:
        UsageError: if the ending is another one, or the folder does not exist.
        EnvironmentFault: if it cannot be written.
    """
    require_writable(path, vectors is not None)
    with disk_faults(path), replacing(path) as aside:
        table = (
            NumpyTable(path, aside, vectors, rows) if path.suffix == ".npy" and vectors else ParquetTable(path, aside)
        )
        try:
            yield table
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                table.close()
            raise
        table.close()


def require_writable(path: Path, vectors: bool) -> None:
    """Refuses a file that could not be written at the end, before anything is computed.

    Raises:
        UsageError: for an unknown ending, a folder that is not there, or a folder of this name.
        EnvironmentFault: if nothing can be written into the folder.
    """
    endings = [".parquet", ".npy"] if vectors else [".parquet"]
    if path.suffix not in endings:
        raise UsageError(
            f"cannot write {path.suffix or 'a file without ending'!r}",
            where=str(path),
            help=f"name a file that ends in {' or '.join(endings)}",
            code="E221",
        )
    if not path.parent.is_dir():
        help = f"mkdir -p {shlex.quote(str(path.parent))}"
        raise UsageError("there is no such folder", where=str(path.parent), help=help, code="E222")
    if path.is_dir():
        raise UsageError("this is a folder, not a file", where=str(path), help="name a file in it", code="E222")
    try_writing(path.parent)


def require_picture(path: Path) -> None:
    """Refuses a picture that could not be written at the end.

    Raises:
        UsageError: for another ending than .png, or a folder that is not there.
    """
    if path.suffix.lower() != ".png":
        ending = path.suffix or "a file without ending"
        raise UsageError(f"cannot write {ending!r}", where=str(path), help="name a .png file", code="E221")
    if not path.parent.is_dir() or path.is_dir():
        folder = shlex.quote(str(path.parent))
        raise UsageError("there is no such folder", where=str(path), help=f"mkdir -p {folder}", code="E222")


def window_columns(windows: Windows, first: np.ndarray, length: np.ndarray) -> dict[str, pa.Array]:
    """Where `length` steps of each window are, from its step `first`: series, first_step, steps; first_time and last_time if known."""
    columns = {
        "series": pa.array([printed(windows.names[s]) for s in windows.series.tolist()], pa.string()),
        "first_step": pa.array(first, pa.int64()),
        "steps": pa.array(length, pa.int64()),
    }
    for name, step in (("first_time", first), ("last_time", first + length - 1)):
        times = windows.times_at(windows.series, step)
        if times is not None:
            columns[name] = time_column(times)
    return columns


def time_column(times: np.ndarray) -> pa.Array:
    """Times as dates, or as the numbers that they are."""
    return pa.array(times).cast(pa.timestamp("us")) if times.dtype == np.int64 else pa.array(times, pa.float64())


def printed(key: str) -> str:
    """A key as a table holds it: bytes that are no UTF-8 are escaped."""
    return key.encode(errors="backslashreplace").decode()


def _column(values: Any) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(values.reshape(-1))
        missing = np.isnan(values).all(axis=1)
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(missing))
    if isinstance(values, np.ndarray) and values.dtype == np.float64:
        return pa.array(values, from_pandas=True)  # NaN is a missing number here
    return pa.array(values)
