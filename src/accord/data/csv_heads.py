"""How a CSV file begins: what separates its cells, which lines come before the table, and what its columns are called."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from accord.errors import DataError

NUMBER = re.compile(r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)\s*", re.IGNORECASE)
MISSING = re.compile(r"n/?a|null|none|missing|[-?.]+", re.IGNORECASE)
DECIMAL_POINT = f"(?i)^{NUMBER.pattern}$"
DECIMAL_COMMA = DECIMAL_POINT.replace(r"\.", ",")
SEPARATED = "cells are separated by commas, semicolons or tabs, or as a first line says, for example sep=|"
_SEP = re.compile(r'"?sep=(.+?)"?', re.IGNORECASE)
_SEPARATOR = re.compile(r"[!-~\t ]")
_NO_SEPARATOR = re.compile(r"[\w.+\-\"'#]")
_LINE_END = re.compile(rb"\r{0,2}\n|\r")
_OPEN_QUOTE = re.compile(r'(?:^|[^\w"])"[^"]*$')


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
        csv.Error: for a line that cannot be parted into cells.
    """
    tabs = path.name.lower().endswith((".tsv", ".tsv.gz"))
    filled = (line for line in _lines(data) if line.text.strip())
    first = next(filled, None)
    said = None if first is None or first.before else _said(path, first.text)
    line, comments = first if said is None else next(filled, None), list[_Line]()
    while line is not None and line.text.startswith("#"):
        comments.append(line)
        line = next(filled, None)
    if comments and line is None:
        line = comments.pop()
    elif comments and line is not None:
        after = [line.text, *(x.text for x in islice(filled, 1))]
        if _is_header(comments[-1].text, after, said or separator_of(after[0], tabs=tabs)):
            line = comments.pop()
    if line is None:
        raise DataError("an empty CSV file", where=str(path), help="check how it was made", code="E338")
    text = _header_text(data, line)
    separator = said or separator_of(text, tabs=tabs)
    fields = _cells(text, separator)
    headless = separates_numbers(separator, text) or all(NUMBER.fullmatch(f) for f in text.split(separator))
    names = [f"column {i}" for i in range(len(fields))] if headless else [f.strip().strip('"') for f in fields]
    count = "1 line that begins with # is" if len(comments) == 1 else f"{len(comments)} lines that begin with # are"
    notes = [f"{path.name}: {count} passed over before the table"] if comments else []
    if not headless and _like_numbers(fields):
        notes.append(
            f"{path.name}: the first line, {text[:40]}, is read as names of columns; if it is a row, put a header above it"
        )
    return Head(separator, fields, names, headless, line.start, line.before, notes)


def _lines(data: bytes, start: int = 0) -> Iterator[_Line]:
    before = 0
    while start < len(data):
        found = _LINE_END.search(data, start)
        end, following = found.span() if found else (len(data), len(data))
        yield _Line(data[start:end].decode(), start, before)
        start, before = following, before + 1


def _header_text(data: bytes, line: _Line) -> str:
    """The line with those after it that belong to a quoted cell which begins on it; the line alone where the quote is never closed."""
    text = list[str]()
    is_open = False
    for part in _lines(data, line.start):
        text.append(part.text)
        odd = part.text.count('"') % 2 == 1
        is_open = not odd if is_open else odd and _OPEN_QUOTE.search(part.text) is not None
        if not is_open:
            return "\n".join(text)
    return line.text


def _like_numbers(fields: Sequence[str]) -> bool:
    """Whether names of columns may be a row: numbers, of which some are quoted or missing."""
    names = [field.strip().strip('"') for field in fields]
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    return bool(numbers) and all(not name or MISSING.fullmatch(name) for name in names if name not in numbers)


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


def _is_header(comment: str, after: Sequence[str], separator: str) -> bool:
    """Whether a comment is the header of the two lines after it: the first of them has as many cells, and is not the header itself."""
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
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=head.separator)
    try:
        next(islice((cells for cells in reader if cells or len(head.names) == 1), row - 1, None), None)
    except csv.Error:
        return head.lines + row
    return head.lines + reader.line_num
