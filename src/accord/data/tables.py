"""Parquet files as samples: a column of encoded images, or columns of numbers; rows keep their order and their number."""

from __future__ import annotations

import difflib
import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accord.data.encoded import memory_free
from accord.data.samples import Refused, RowKeys
from accord.data.vectors import LABEL_NAMES, Labels, encode_labels, too_large
from accord.errors import DataError, EnvironmentFault, UsageError

_FLOOR = (14, 0, 1)
_ROWS = 1 << 16


class Table(NamedTuple):
    """Parquet files of one schema, read as one table; `metadata` are their footers."""

    paths: list[Path]
    metadata: list[Any]
    schema: Any
    keys: RowKeys

    @property
    def name(self) -> str:
        """For messages: the file, or the first of several."""
        return str(self.paths[0])


class Numbers(NamedTuple):
    """Columns of numbers: (N, F) float64, their names, and notes on what was left out."""

    matrix: np.ndarray
    names: list[str]
    notes: list[str]

    def picked(self, wanted: Sequence[str] | None, where: str) -> Numbers:
        """The columns `wanted` in that order, the others left out with a note; all where it is None. Raises `DataError`."""
        if wanted is None or list(wanted) == self.names:
            return self
        place = {name: i for i, name in enumerate(self.names)}
        missing = [name for name in wanted if name not in place]
        if missing:
            close = difflib.get_close_matches(missing[0], [n for n in self.names if n not in wanted], n=1, cutoff=0.5)
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(
                f'no column of numbers "{missing[0]}"{more}; {len(wanted)} columns are needed, {len(self.names)} are there',
                where=where,
                help=f'rename "{close[0]}" to it if that is what it is' if close else "give a table that has it",
                code="E334",
            )
        other = [name for name in self.names if name not in wanted]
        notes = [f"columns not used, not asked for: {', '.join(other)}"] if other else []
        return Numbers(self.matrix[:, [place[name] for name in wanted]], list(wanted), [*self.notes, *notes])


def open_parquet(paths: Sequence[Path]) -> Table:
    """The files as one table. Raises `DataError` if one is damaged, empty, has a column twice, or another schema than the first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_pyarrow(pa.__version__)
    metadata, schemas = [], []
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                metadata.append(file.metadata)
                schemas.append(file.schema_arrow)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(path, error) from error
    for path, schema in zip(paths, schemas, strict=True):
        refuse_repeated(schema.names, str(path))
        _same_schema(paths[0], schemas[0], path, schema)
    table = Table(list(paths), metadata, schemas[0], RowKeys([m.num_rows for m in metadata], short_names(paths)))
    if len(table.keys) == 0:
        raise DataError("a table without rows", where=table.name, help="check how it was made", code="E338")
    return table


def check_pyarrow(version: str) -> None:
    """Raise `EnvironmentFault` for a pyarrow that runs code hidden in files (CVE-2023-47248)."""
    if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < _FLOOR:
        raise EnvironmentFault(
            f"pyarrow {version} can run code hidden in a file (CVE-2023-47248)",
            help="pip install --upgrade pyarrow",
            code="E545",
        )


def refuse_repeated(names: Sequence[str], where: str) -> None:
    """Raise `DataError` if a column name occurs twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        what = f'duplicate column "{repeated[0]}"' if repeated[0] else "several columns without a name"
        help = "rename or drop one of them" if repeated[0] else "give them names, or leave out those that are empty"
        raise DataError(what, where=where, help=help, code="E335")


def short_names(paths: Sequence[Path]) -> list[str]:
    """File names where they differ, else whole paths."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _same_schema(first: Path, schema: Any, path: Path, other: Any) -> None:
    for name in [*schema.names, *other.names]:
        here, there = (str(s.field(name).type) if name in s.names else "absent" for s in (schema, other))
        if here != there:
            raise DataError(
                f'different schemas: field "{name}" is {here} in {first} and {there} in {path}',
                where=str(path),
                help="pass files of one kind, or write one of them anew",
                code="E346",
            )


def _damaged(path: Path, error: Exception, place: str = "") -> Exception:
    where = f"{path}:{place}" if place else str(path)
    text = " ".join(str(error).split())[:200]
    if isinstance(error, OSError) and error.errno in (
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EMFILE,
        errno.ENFILE,
    ):
        return EnvironmentFault(
            f"cannot be read: {text}", where=where, help="check the disk, the mount and ulimit -n", code="E530"
        )
    if isinstance(error, PermissionError):
        return EnvironmentFault(f"cannot be read: {text}", where=where, help="give read permission", code="E521")
    return DataError(f"damaged Parquet file: {text}", where=where, help="copy, download or write it again", code="E344")


def image_column(table: Table, column: str | None) -> str | None:
    """The column of encoded images, None if there is none. Raises `UsageError` if `column` is absent or there are several."""
    found = [field.name for field in table.schema if holds_bytes(field.type)]
    if column is not None:
        require_column(table.schema.names, column, table.name, "column")
        return column if column in found else None
    if len(found) > 1:
        raise UsageError(
            f"several columns could be the images: {', '.join(found)}",
            where=table.name,
            help=f'name one with column=, for example column="{found[0]}"',
            code="E234",
        )
    return found[0] if found else None


def require_column(names: Sequence[str], name: str, where: str, option: str) -> None:
    """Raise `UsageError` if there is no such column."""
    if name not in names:
        raise UsageError(f'no column "{name}"', where=where, help=f"{option}= one of: {', '.join(names)}", code="E234")


def holds_bytes(kind: Any) -> bool:
    """Whether a column of this type holds bytes, or a struct with a field "bytes" of them."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        i = kind.get_field_index("bytes")
        return i >= 0 and holds_bytes(kind.field(i).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def read_batches(table: Table, columns: Sequence[str], size: int) -> Iterator[Any]:
    """Record batches of up to `size` rows, in order. Raises `DataError` naming file and row group of a damaged page."""
    for path, metadata in zip(table.paths, table.metadata, strict=True):
        for group in range(metadata.num_row_groups):
            yield from read_group(path, metadata, group, columns, size)


def read_group(path: Path, metadata: Any, group: int, columns: Sequence[str], size: int) -> Iterator[Any]:
    """Record batches of up to `size` rows of one row group. Raises `DataError` if a page is damaged or rows are missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    try:
        with pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True) as file:
            for batch in file.iter_batches(size, row_groups=[group], columns=list(columns), use_threads=False):
                batch.validate(full=True)
                rows += batch.num_rows
                yield batch
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error, f"row group {group}") from error
    if rows != metadata.row_group(group).num_rows:
        raise _damaged(
            path, ValueError(f"{rows} rows are there of {metadata.row_group(group).num_rows}"), f"row group {group}"
        )


def encoded_values(values: Any) -> list[bytes | Refused]:
    """The encoded images of a column, a null as the fault that it is."""
    import pyarrow as pa

    valid = values.is_valid().to_pylist()
    if pa.types.is_struct(values.type):
        values = values.field("bytes")
    return [v if ok and v is not None else _null() for v, ok in zip(values.to_pylist(), valid, strict=True)]


def image_value(value: Any) -> bytes:
    """The encoded image of one value of such a column. Raises `Refused` if it is null."""
    found = value.as_py()
    data = found["bytes"] if isinstance(found, dict) else found
    if not isinstance(data, bytes):
        raise _null()
    return data


def _null() -> Refused:
    return Refused("E303", "no image: the value is null", "put the image in, or drop the row")


def label_column(table: Table, label: str | None, taken: str | None) -> str | None:
    """`label`, else the column named label, class or target (in any case) if it holds integers or text. Raises `UsageError`."""
    import pyarrow as pa

    if label is not None:
        require_column(table.schema.names, label, table.name, "label")
        return label
    for wanted in LABEL_NAMES:
        for field in table.schema:
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
            if field.name.lower() == wanted and field.name != taken and (text or pa.types.is_integer(kind)):
                return str(field.name)
    return None


def read_labels(table: Table, label: str) -> Labels:
    """The label column, with the class names of Hugging Face's metadata where there are any. Raises `DataError`."""
    values = [v for batch in read_batches(table, [label], _ROWS) for v in batch.column(0).to_pylist()]
    labels = encode_labels(values, len(table.keys), f"{table.name}:{label}")
    names = _class_names(table.schema, label)
    if names and all(name.isdigit() and int(name) < len(names) for name in labels.classes):
        codes = np.array([*(int(name) for name in labels.classes), -1], np.int64)
        return Labels(codes[labels.labels], names)
    return labels


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
        return tuple(names) if all(isinstance(name, str) for name in names) else ()
    except (KeyError, ValueError, TypeError):
        return ()


def read_numbers(table: Table, label: str | None) -> Numbers:
    """Every numeric column but the label; booleans count as 0 and 1, null as NaN. Raises `DataError` if there are none."""
    wanted = [name for name in table.schema.names if name != label]
    names = [name for name in wanted if is_number(table.schema.field(name).type)]
    if not names:
        raise DataError(
            f"neither a column of encoded images nor columns of numbers, but {', '.join(table.schema.names)}",
            where=table.name,
            help="pass a table that has one",
            code="E333",
        )
    needed = 12 * len(names) * len(table.keys)
    if needed > memory_free():
        reason = f"{needed / 1e9:.1f} GB needed for {len(table.keys)} rows, {memory_free() / 1e9:.1f} GB of memory free"
        raise EnvironmentFault(reason, where=table.name, help="pass fewer files or columns", code="E543")
    matrix, start = np.empty((len(table.keys), len(names)), np.float64), 0
    for batch in read_batches(table, names, _ROWS):
        for i, name in enumerate(names):
            values = batch.column(batch.schema.get_field_index(name))
            matrix[start : start + batch.num_rows, i] = as_float(values, name, table.keys, start)
        start += batch.num_rows
    return Numbers(matrix, names, left_out([name for name in wanted if name not in names]))


def left_out(names: Sequence[str]) -> list[str]:
    """The note on columns that are not used."""
    return [f"columns not used, not numbers: {', '.join(names)}"] if names else []


def is_number(kind: Any) -> bool:
    """Whether a column of this type holds real numbers or booleans."""
    import pyarrow as pa

    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def as_float(values: Any, name: str, keys: Sequence[str], start: int) -> np.ndarray:
    """A column as float64, null as NaN. Raises `DataError` for integers that float64 cannot hold."""
    import pyarrow as pa

    try:
        numbers: np.ndarray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        for i, value in enumerate(values.to_pylist()):
            if isinstance(value, int) and abs(value) > 2**53:
                raise too_large(value, name, keys[start + i]) from None
        raise
    return numbers
