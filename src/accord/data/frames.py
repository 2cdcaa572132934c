"""Tables as named columns of N rows, whatever they come from: Parquet, CSV, arrays by name, data frames."""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accord.data import csv_tables
from accord.data.arrays import Y_NAMES, numbers
from accord.data.encoded import Encoded, OneByOne
from accord.data.files import read_file
from accord.data.samples import Refused, RowKeys
from accord.data.table_images import TableImages
from accord.data.tables import (
    Table,
    encoded_values,
    label_column,
    read_batches,
    read_labels,
    refuse_repeated,
    require_column,
)
from accord.data.vectors import LABEL_NAMES, Labels, encode_labels
from accord.errors import DataError

_ROWS = 1 << 16
_FEW = 64


class Frame(ABC):
    """Columns of N rows. `folder` is where relative paths in a column begin; `notes` are said once to the user."""

    notes: Sequence[str] = ()

    def __init__(self, name: str, keys: Sequence[str], names: Sequence[str], folder: Path):
        self.name, self.keys, self.names, self.folder = name, keys, list(names), folder

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def type(self, column: str) -> Any:
        """The pyarrow type of a column; None of an array of several axes."""

    @abstractmethod
    def read(self, column: str) -> Any:
        """A column: a pyarrow ChunkedArray, or a NumPy array of several axes."""

    @abstractmethod
    def label(self, wanted: str | None, taken: Sequence[str]) -> str | None:
        """The column `wanted`, else one named label, class or target that is not taken. Raises `UsageError`."""

    @abstractmethod
    def labels(self, column: str) -> Labels:
        """A column as labels."""

    def keep_text(self, column: str) -> None:  # noqa: B027  (only CSV files leave open what is text)
        """From now on a column is read as it is written, not as numbers, where it is written as text: "01" is a name."""

    def encoded(self, column: str) -> Encoded:
        """A column of encoded bytes."""
        return HeldBytes(encoded_values(self.read(column).combine_chunks()))

    def peek(self, column: str) -> list[Any]:
        """The first few values of a column that are there."""
        return self.read(column).slice(0, 1024).drop_null().slice(0, _FEW).to_pylist()  # type: ignore[no-any-return]


class ParquetFrame(Frame):
    """Parquet files; columns of bytes stay where they are."""

    def __init__(self, table: Table):
        super().__init__(table.name, table.keys, table.schema.names, table.paths[0].parent)
        self.table = table

    def type(self, column: str) -> Any:
        return self.table.schema.field(column).type

    def read(self, column: str) -> Any:
        import pyarrow as pa

        chunks = [batch.column(0) for batch in read_batches(self.table, [column], _ROWS)]
        return pa.chunked_array(chunks, self.type(column))

    def encoded(self, column: str) -> Encoded:
        return TableImages(self.table, column)

    def peek(self, column: str) -> list[Any]:
        first = next(read_batches(self.table, [column], _FEW), None)
        return [] if first is None else first.column(0).drop_null().to_pylist()

    def label(self, wanted: str | None, taken: Sequence[str]) -> str | None:
        found = label_column(self.table, wanted, None)
        return found if wanted is not None or found not in taken else None

    def labels(self, column: str) -> Labels:
        return read_labels(self.table, column)


class CsvFrame(Frame):
    """CSV files: texts, of which a column is numbers if all its cells are; an empty cell is missing."""

    def __init__(self, paths: Sequence[Path]):
        self.texts = csv_tables.read_texts(paths)
        super().__init__(str(paths[0]), self.texts.keys, list(self.texts.written), paths[0].parent)
        self.notes = self.texts.notes
        self.known: dict[str, Any] = {}

    def type(self, column: str) -> Any:
        return self.read(column).type

    def read(self, column: str) -> Any:
        import pyarrow as pa

        if column not in self.known:
            found = self.texts.cells(column)
            if found is None:
                self.keep_text(column)
            else:
                self.known[column] = pa.chunked_array([pa.array(found)])
        return self.known[column]

    def keep_text(self, column: str) -> None:
        from pyarrow import compute as pc

        texts = self.texts.written[column]
        self.known[column] = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), None, texts)

    def label(self, wanted: str | None, taken: Sequence[str]) -> str | None:
        return self.texts.label_name(wanted, self.name, taken=taken)

    def labels(self, column: str) -> Labels:
        return csv_tables.labels_of(self.texts.written[column], column, self.keys, self.name)


class ArrayFrame(Frame):
    """Arrays, lists and pyarrow columns by name."""

    def __init__(self, name: str, arrays: Mapping[str, Any], keys: Sequence[str] | None = None, folder: Path = Path()):
        self.arrays, self.known = arrays, dict[str, Any]()
        count = _count(name, arrays) if keys is None else len(keys)
        super().__init__(name, RowKeys([count]) if keys is None else keys, list(arrays), folder)

    def type(self, column: str) -> Any:
        values = self.read(column)
        return None if isinstance(values, np.ndarray) else values.type

    def read(self, column: str) -> Any:
        if column not in self.known:
            self.known[column] = found = _column(self.arrays[column], f"{self.name}:{column}")
            if len(found) != len(self):
                raise DataError(
                    f"column {column!r} has {len(found)} rows, others have {len(self)}",
                    where=self.name,
                    help="row i of one column belongs to row i of the others: give as many",
                    code="E366",
                )
        return self.known[column]

    def label(self, wanted: str | None, taken: Sequence[str]) -> str | None:
        if wanted is not None:
            require_column(self.names, wanted, self.name, "label")
            return wanted
        known = {*LABEL_NAMES, *Y_NAMES} - {"y"}
        free = [name for name in self.names if name.lower() in known and name not in taken]
        return next((name for name in free if self._could_be_labels(name)), None)

    def labels(self, column: str) -> Labels:
        values = self.read(column)
        flat = values.reshape(len(self), -1)[:, 0].tolist() if isinstance(values, np.ndarray) else values.to_pylist()
        return encode_labels(flat, len(self), f"{self.name}:{column}")

    def _could_be_labels(self, column: str) -> bool:
        import pyarrow as pa

        values = self.read(column)
        if isinstance(values, np.ndarray):
            return values.shape[1:] == (1,) and values.dtype.kind in "bui"
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def frame_of(source: Any) -> Mapping[str, Any] | None:
    """The columns of a pyarrow table, or of a data frame of pandas or polars; None for anything else.

    The libraries are not imported: an object of theirs can only come from a program that has done so.
    """
    for library, kind in (("pyarrow", "Table"), ("pandas", "DataFrame"), ("polars", "DataFrame")):
        module = sys.modules.get(library)
        if module is not None and isinstance(source, getattr(module, kind)):
            return _arrow(library, source)
    return None


def _arrow(library: str, source: Any) -> Mapping[str, Any]:
    if library == "pandas":
        names = [str(name) for name in source.columns]
        refuse_repeated(names, "table")
        return {name: _of_pandas(source.iloc[:, place]) for place, name in enumerate(names)}
    table = source.to_arrow() if library == "polars" else source
    refuse_repeated(table.column_names, "table")
    return {name: table.column(name) for name in table.column_names}


def _of_pandas(values: Any) -> Any:
    """A column of pandas as one of pyarrow; as it is where it cannot be one, so that it is refused if it is asked for."""
    import pyarrow as pa

    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return values
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])


def _count(name: str, arrays: Mapping[str, Any]) -> int:
    if not arrays:
        raise DataError("no columns", where=name, help="give some", code="E338")
    return len(next(iter(arrays.values())))


def _column(values: Any, where: str) -> Any:
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        return values
    if isinstance(values, pa.Array):
        return pa.chunked_array([values])
    try:
        if isinstance(values, list | tuple):
            return pa.chunked_array([pa.array(values)])
        array = np.asarray(values)
        if array.dtype.kind in "US":
            return pa.chunked_array([pa.array(array.astype(np.str_).tolist(), pa.string())])
        if array.dtype.hasobject:  # from a program: files with objects are refused when they are read
            return pa.chunked_array([pa.array(array.tolist())])
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        text = " ".join(str(error).split())[:200]
        raise DataError(
            f"values of several kinds: {text}", where=where, help="give a column of one kind", code="E340"
        ) from error
    array = numbers(array, where)
    return pa.chunked_array([pa.array(array)]) if array.ndim == 1 else array


class HeldBytes(OneByOne):
    """Encoded bytes that are in memory."""

    def __init__(self, values: Sequence[bytes | Refused]):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def stamp(self) -> bytes:
        digest = hashlib.sha256()
        for value in self.values:
            data = b"" if isinstance(value, Refused) else value
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.digest()

    def read(self, i: int) -> bytes:
        value = self.values[i]
        if isinstance(value, Refused):
            raise value
        return value


class NamedFiles(OneByOne):
    """Files whose paths are in a column, relative to the folder of the table; None is a missing one."""

    def __init__(self, folder: Path, paths: Sequence[str | None]):
        self.paths = [None if path is None else folder / path for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def stamp(self) -> bytes:
        return hashlib.sha256("\0".join(map(_state, self.paths)).encode("utf-8", "surrogateescape")).digest()

    def read(self, i: int) -> bytes:
        path = self.paths[i]
        if path is None:
            raise Refused("E303", "no path: the value is missing", "put it in, or drop the row")
        if not path.exists():
            raise Refused(
                "E323",
                f'there is no file "{path.name[:100]}" in {path.parent}',
                "paths begin at the folder of the table; if the column holds no paths, say what it is: --kind COLUMN=text",
            )
        return read_file(str(path))


def _state(path: Path | None) -> str:
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        stat = None
    return f"{path}" if stat is None else f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
