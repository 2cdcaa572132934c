"""How a CSV file begins: what separates its cells, which lines come before the table, and what its columns are called."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from accord.errors import DataError

NUMBER = re.compile(r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)\s*", re.IGNORECASE)
DECIMAL_POINT = f"(?i)^{NUMBER.pattern}$"
DECIMAL_COMMA = DECIMAL_POINT.replace(r"\.", ",")
SEPARATED = "cells are separated by commas, semicolons or tabs, or as a first line says, for example sep=|"
_SEP = re.compile(r'"?sep=(.+?)"?', re.IGNORECASE)
_SEPARATOR = re.compile(r"[!-~\t ]")
_NO_SEPARATOR = re.compile(r"[\w.+\-\"'#]")


class Head(NamedTuple):
    """The beginning of a file.

    separator: of cells. fields: the cells of the first line of the table as they are written. names: of the columns. headless: whether
    that line is numbers already. start, lines: bytes and lines before it. notes: said once to the user.
    """

    separator: str
    fields: list[str]
    names: list[str]
    headless: bool
    start: int
    lines: int
    notes: list[str]


class _Line(NamedTuple):
    """A line, the byte it begins at, and how many come before it."""

    text: str
    start: int
    before: int


def read_head(path: Path, data: bytes) -> Head:
    """Where the table begins in a file of UTF-8.

    A first line "sep=;", as Excel writes and reads it, says what separates the cells. Blank lines before the table are passed over, and
    so are lines that begin with "#"; but the last of these is the header where it has as many cells as the line after it and that line
    is none: NumPy writes headers so.

    Raises:
        DataError: for a file without a table, or one that names a separator that cannot be one.
    """
    filled = (line for line in _lines(data) if line.text.strip())
    first = next(filled, None)
    said = None if first is None or first.before else _said(path, first.text)
    line, comments = first if said is None else next(filled, None), list[_Line]()
    while line is not None and line.text.startswith("#"):
        comments.append(line)
        line = next(filled, None)
    if comments and (
        line is None or _is_header(comments[-1].text, [line.text, *(x.text for x in islice(filled, 1))], said)
    ):
        line = comments.pop()
    if line is None:
        raise DataError("an empty CSV file", where=str(path), help="check how it was made", code="E338")
    separator = said or separator_of(line.text, tabs=path.name.lower().endswith((".tsv", ".tsv.gz")))
    fields = _cells(line.text, separator)
    headless = separates_numbers(separator, line.text) or all(NUMBER.fullmatch(f) for f in line.text.split(separator))
    names = [f"column {i}" for i in range(len(fields))] if headless else [f.strip().strip('"') for f in fields]
    count = "1 line that begins with # is" if len(comments) == 1 else f"{len(comments)} lines that begin with # are"
    notes = [f"{path.name}: {count} passed over before the table"] if comments else []
    return Head(separator, fields, names, headless, line.start, line.before, notes)


def _lines(data: bytes) -> Iterator[_Line]:
    start, before = 0, 0
    while start < len(data):
        end = data.find(b"\n", start) % (len(data) + 1)
        yield _Line(data[start:end].decode().rstrip("\r"), start, before)
        start, before = end + 1, before + 1


def _said(path: Path, line: str) -> str | None:
    """The separator that a first line names, None if it names none."""
    found = _SEP.fullmatch(line if line.lower().startswith(("sep=\t", "sep= ")) else line.strip())
    if found is None:
        return None
    if not _SEPARATOR.fullmatch(found[1]) or _NO_SEPARATOR.fullmatch(found[1]):
        raise DataError(
            f'the first line says that cells are separated by "{found[1][:40]}"',
            where=f"{path}:line 1",
            help="separate them by one character that is in no number, for example sep=; or sep=|",
            code="E337",
        )
    return found[1]


def _is_header(comment: str, after: Sequence[str], said: str | None) -> bool:
    """Whether a comment is the header of the two lines after it: the first of them has as many cells, and is not the header itself."""
    separator = said or separator_of(after[0])
    rows = [_cells(line, separator) for line in after]
    numbers = [any(re.match(DECIMAL_POINT, f) or re.match(DECIMAL_COMMA, f) for f in row) for row in rows]
    return len(_cells(comment, separator)) == len(rows[0]) and (numbers[0] or not any(numbers))


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator))


def separator_of(line: str, *, tabs: bool = False) -> str:
    """What separates numbers with decimal commas, or is most often in the line; tabs, if there are any, where that is said."""
    bare = re.sub(r'"[^"]*"', "", line)
    if tabs and "\t" in bare:
        return "\t"
    return next((c for c in ";\t" if separates_numbers(c, line)), max(",;\t", key=bare.count))


def separates_numbers(separator: str, line: str) -> bool:
    """Whether it parts the line into several whole numbers, or numbers of which some have a decimal comma and some may be missing."""
    fields = [field.strip() for field in line.split(separator)]
    bare = [field.strip('"') for field in fields]
    found = [re.match(DECIMAL_COMMA, field) for field in bare]
    whole = all(re.match(DECIMAL_COMMA, field) for field in fields)
    decimal = any(match and "," in match[0] for match in found)
    return len(fields) > 1 and (whole or (decimal and all(f or not text for f, text in zip(found, bare, strict=True))))


def line_of(text: str, head: Head, row: int) -> int:
    """The line of a file that a row of its table ends on, both counted from 1 and the header among the rows.

    Blank lines are rows where there is one column.
    """
    reader = csv.reader(text.splitlines(keepends=True), delimiter=head.separator)
    try:
        next(islice((cells for cells in reader if cells or len(head.names) == 1), row - 1, None), None)
    except csv.Error:
        return head.lines + row
    return head.lines + reader.line_num
