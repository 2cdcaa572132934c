"""One CSV file as a table of texts: read whole or not at all."""

from __future__ import annotations

import codecs
import csv
import re
from pathlib import Path
from typing import Any, NamedTuple

from accord.data.csv_heads import Head, line_of, read_head
from accord.data.encoded import memory_free
from accord.errors import DataError, EnvironmentFault

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _text(path: Path) -> bytes:
    """The whole file as UTF-8."""
    import pyarrow as pa

    size = path.stat().st_size
    if 12 * size > memory_free():
        raise EnvironmentFault(
            f"about {12 * size / 1e9:.1f} GB needed for a CSV file of {size / 1e9:.1f} GB, {memory_free() / 1e9:.1f} GB of memory free",
            where=str(path),
            help="convert it to Parquet",
            code="E543",
        )
    try:
        with pa.input_stream(str(path)) as stream:  # unpacks .gz
            limit = max(1 << 24, 200 * size)
            data: bytes = stream.read(limit + 1)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, " ".join(str(error).split())) from error
    if len(data) > limit:
        raise _damaged(path, "it unpacks to more than 200 times its size")
    return _as_utf8(path, data)


def _as_utf8(path: Path, data: bytes) -> bytes:
    mark, encoding = next(((mark, encoding) for mark, encoding in _BOMS if data.startswith(mark)), (b"", "utf-8"))
    try:
        decoded = data.decode(encoding) if mark else data.decode()
    except UnicodeDecodeError as error:
        if mark:
            raise _damaged(
                path, f"it starts as {encoding} and goes on as something else at byte {error.start}"
            ) from error
        raise _damaged(
            path, f"bytes that are not UTF-8 ({data[error.start : error.start + 1]!r})", data, error.start
        ) from error
    text = decoded.encode() if mark else data
    if b"\r" in text and b"\n" not in text:
        text = text.replace(b"\r", b"\n")
    if b"\0" in text:
        raise _damaged(path, "a NUL byte", text, text.index(b"\0"))
    return text


def _damaged(path: Path, reason: str, data: bytes = b"", place: int | None = None) -> DataError:
    line = "" if place is None else f":line {data.count(bytes([10]), 0, place) + 1}"
    return DataError(f"damaged CSV file: {reason}", where=f"{path}{line}", help="save it again as UTF-8", code="E337")


class CsvFile(NamedTuple):
    """A table of texts, what separated its cells, and what to tell the user."""

    table: Any
    separator: str
    notes: list[str]


def read_file(path: Path) -> CsvFile:
    """A file as it is written, packed or not.

    Raises:
        DataError: for what is damaged, or cannot be told from something else.
        EnvironmentFault: if there is not enough memory.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    data = _text(path)
    try:
        head = read_head(path, data)
    except csv.Error as error:
        raise _damaged(path, f"its first lines are no cells: {error}") from error
    if data.count(b'"', head.start) % 2:
        raise _damaged(path, "a quote that is never closed", data, data.rindex(b'"'))
    single = len(head.names) == 1  # then a blank line is a missing value
    data = data[head.start :].rstrip(b"\r\n") + b"\n" if single or head.start else data
    names, block = head.names, max(1 << 20, len(data) + 1)
    try:
        table = arrow.read_csv(
            pa.BufferReader(data),
            arrow.ReadOptions(use_threads=False, column_names=names if head.headless else None, block_size=block),
            arrow.ParseOptions(
                delimiter=head.separator, newlines_in_values=b'"' in data, ignore_empty_lines=not single
            ),
            arrow.ConvertOptions(
                column_types=dict.fromkeys([*names, *head.fields], pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowException, ValueError) as error:
        raise _ragged(path, str(error), data, head) from error
    if len(table) == 0:
        raise DataError("a header but no rows", where=str(path), help="check how it was made", code="E338")
    columns = [table.column(i).cast(pa.string()) for i in range(table.num_columns)]
    table = pa.table(columns, names=names if len(names) == len(columns) else table.column_names)
    return CsvFile(table, head.separator, [*head.notes, *_of_decimal_commas(path, table, data, head)])


def _ragged(path: Path, reason: str, data: bytes, head: Head) -> DataError:
    """The error for a line with more or fewer cells than the header, or whatever else cannot be parsed."""
    reason = " ".join(reason.split()).removeprefix("CSV parse error: ")
    found = re.match(r"(?:Row #(\d+): )?(Expected \d+ columns, got \d+: ?(.*))", reason)
    if not found:
        return _damaged(path, reason[:200])
    place = f"line {line_of(data.decode(), head, int(found[1]))}" if found[1] else ""
    named = {",": "comma", ";": "semicolon", "\t": "tab"}.get(head.separator, head.separator)
    help = f"give every line as many cells as the header, and quote cells that hold the separator (by the first line a {named})"
    if found[3].startswith("#"):
        help = "take comments out that stand below the header"
    elif head.separator == "," and ("," in found[3] or head.headless) and re.fullmatch(r"[+\-\d,]+", found[3]):
        help += "; where commas are those of decimals, write points"
    reason = ": ".join(filter(None, ["damaged CSV file", place, found[2]]))[:220]
    return DataError(reason, where=":".join(filter(None, [str(path), place])), help=help, code="E337")


def _of_decimal_commas(path: Path, table: Any, data: bytes, head: Head) -> list[str]:
    """What is said of two columns of whole numbers without a header, which may be one of decimal commas.

    Raises:
        DataError: where they must be, for whole numbers are not written as 05 or -0.
    """
    from pyarrow import compute as pc

    if not head.headless or head.separator != "," or table.num_columns != 2:
        return []
    first, second = table.columns
    if not _all_match(first, r"^[+-]?\d+$") or not _all_match(second, r"^\d+$"):
        return []
    decimal = pc.or_(pc.match_substring_regex(first, r"^-0+$"), pc.match_substring_regex(second, r"^0\d"))
    row = pc.index(decimal, True).as_py()
    shown = f"{first[max(row, 0)]},{second[max(row, 0)]}"
    if row < 0:
        return [
            f'{path.name}: no header, and "{shown}" is read as two whole numbers; a decimal comma has to be a point'
        ]
    raise DataError(
        f'"{shown}" seems to be one number with a decimal comma, but without a header the comma separates two',
        where=f"{path}:line {line_of(data.decode(), head, row + 1)}",
        help="write numbers with a decimal point; if these are two columns, give them a header, for example a,b",
        code="E333",
    )


def _all_match(column: Any, pattern: str) -> bool:
    from pyarrow import compute as pc

    return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())
