"""`.ts` files of the UCR and UEA archives: @-headers, then one case a line, dimensions set apart by ":" and steps by ","."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from accord.data.encoded import memory_free
from accord.data.samples import RowKeys
from accord.data.series import SeriesTable
from accord.data.tables import short_names
from accord.data.vectors import Labels
from accord.errors import DataError, EnvironmentFault

_TAG = re.compile(r"@(\w+)\s*(.*)")
_MISSING = re.compile(r"(?<![^,:])\s*\?\s*(?![^,:])")
_FLAGS = {"timestamps", "missing", "univariate", "equallength", "targetlabel"}


@dataclass(frozen=True)
class Header:
    """What the lines before @data say; None where they do not. `classes` is () where cases have no label."""

    dimensions: int | None = None
    length: int | None = None
    classes: tuple[str, ...] = ()
    target: bool = False


def read_ts(paths: Sequence[Path]) -> SeriesTable:
    """The cases of `.ts` files, in order, with the keys "file.ts:0"; classes keep the order of the header.

    A "?" or NaN is a value that was not observed. A number that a case is to be mapped to (@targetLabel) is left out with a note.

    Raises:
        DataError: for a line that is malformed or does not fit the header; it names file, line and what is wrong there.
        EnvironmentFault: if there is not enough memory.
    """
    cases: list[np.ndarray] = []
    labels: list[str] = []
    headers: list[Header] = []
    numbers: list[int] = []
    for path in paths:
        _require_memory(path)
        header, found = _read(path)
        if headers and header.classes != headers[0].classes:
            _wrong(path, 0, f"its classes are not those of {paths[0]}", "pass files of one data set", code="E346")
        headers.append(header)
        numbers.append(len(cases))
        for place, (values, label) in found:
            if cases and values.shape[1] != cases[0].shape[1]:
                reason = f"{values.shape[1]} dimensions, {cases[0].shape[1]} in the first case"
                _wrong(path, place, reason, "give every case as many dimensions")
            cases.append(values)
            labels.append(label)
        if len(cases) == numbers[-1]:
            raise DataError("a header but no cases", where=str(path), help="check how it was made", code="E338")
    counts = [end - start for start, end in zip(numbers, [*numbers[1:], len(cases)], strict=True)]
    channels = tuple(f"dimension {i}" for i in range(cases[0].shape[1]))
    return SeriesTable(
        values=np.concatenate(cases),
        counts=np.array([len(case) for case in cases], np.int64),
        names=RowKeys(counts, short_names(paths)),
        channels=channels,
        parts=np.repeat(np.arange(len(paths)), counts),
        part_names=short_names(paths),
        labels=_encoded(labels, headers[0].classes) if headers[0].classes else None,
        notes=["the number that each case is to be mapped to is left out"] if headers[0].target else [],
    )


def _require_memory(path: Path) -> None:
    needed = 3 * path.stat().st_size
    if needed > memory_free():
        raise EnvironmentFault(
            f"about {needed / 1e9:.1f} GB needed, {memory_free() / 1e9:.1f} GB of memory free",
            where=str(path),
            help="save it as .npy, which is mapped",
            code="E543",
        )


def _encoded(labels: Sequence[str], classes: tuple[str, ...]) -> Labels:
    place = {name: i for i, name in enumerate(classes)}
    return Labels(np.array([place.get(label, -1) for label in labels], np.int64), classes)


def _read(path: Path) -> tuple[Header, Iterator[tuple[int, tuple[np.ndarray, str]]]]:
    """The header, and (line, (values, label)) of each case."""
    lines = _lines(path)
    header = _header(path, lines)

    def cases() -> Iterator[tuple[int, tuple[np.ndarray, str]]]:
        for number, line in lines:
            yield number, _case(path, number, line, header)

    return header, cases()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of every line that is neither empty nor a comment; comments may be in any encoding."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = raw.strip()
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line or line.startswith(b"#"):
                continue
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start : error.start + 1]
                _wrong(path, number, f"a byte that is not UTF-8 ({byte!r})", "save it again as UTF-8")


def _header(path: Path, lines: Iterator[tuple[int, str]]) -> Header:
    found: dict[str, tuple[int, str]] = {}
    number = 0
    for number, line in lines:
        tag = _TAG.fullmatch(line)
        if tag is None:
            _wrong(path, number, f'"{line[:40]}" before @data', 'header lines begin with "@", comments with "#"')
        if tag[1].lower() == "data":
            return _understood(path, found)
        found[tag[1].lower()] = number, tag[2].strip()
    return _wrong(path, number, "no line @data: the file ends in its header", "copy or download it again")


def _understood(path: Path, found: dict[str, tuple[int, str]]) -> Header:
    flags = {name: _flag(path, *found[name]) for name in _FLAGS & set(found)}
    if flags.get("timestamps"):
        number = found["timestamps"][0]
        _wrong(
            path,
            number,
            "cases with time stamps are not read",
            "leave the stamps out, or save a table with a time column",
        )
    number, text = found.get("classlabel", (0, "false"))
    given, *classes = text.split()
    if _flag(path, number, given) and not classes:
        _wrong(path, number, "@classLabel true without the classes", "list them: @classLabel true a b")
    return Header(
        dimensions=_count(path, found, "dimensions", "dimension") or (1 if flags.get("univariate") else None),
        length=_count(path, found, "serieslength") if flags.get("equallength") else None,
        classes=tuple(classes) if _flag(path, number, given) else (),
        target=bool(flags.get("targetlabel")),
    )


def _flag(path: Path, number: int, text: str) -> bool:
    word = text.lower().partition(" ")[0]
    if word not in ("true", "false"):
        _wrong(path, number, f'"{text[:40]}": expected true or false', "write true or false after the name")
    return word == "true"


def _count(path: Path, found: dict[str, tuple[int, str]], *names: str) -> int | None:
    for name in names:
        if name in found:
            number, text = found[name]
            if not text.isdecimal() or int(text) < 1:
                _wrong(path, number, f'"{text[:40]}": expected a whole number from 1', "write how many there are")
            return int(text)
    return None


def _case(path: Path, number: int, line: str, header: Header) -> tuple[np.ndarray, str]:
    """(steps, dimensions) and the label, "" if there is none."""
    parts = line.split(":")
    label = ""
    if header.classes or header.target:
        if len(parts) < 2:
            _wrong(path, number, "no label at the end of the line", 'write ":" and the label after the values')
        label = parts.pop().strip()
    if header.classes and label not in header.classes and label not in ("", "?"):
        _wrong(path, number, f'class "{label[:40]}" is not in the header', f"known: {', '.join(header.classes)[:200]}")
    if header.dimensions is not None and len(parts) != header.dimensions:
        reason = f"{len(parts)} dimensions, {header.dimensions} by the header"
        _wrong(path, number, reason, 'set dimensions apart by ":" and leave none out')
    values = [_numbers(path, number, part) for part in parts]
    lengths = sorted({len(row) for row in values})
    if len(lengths) > 1:
        _wrong(path, number, f"dimensions of {lengths[0]} to {lengths[-1]} steps", 'fill what is missing with "?"')
    if header.length is not None and lengths[0] != header.length:
        reason = f"{lengths[0]} steps, {header.length} by the header"
        _wrong(path, number, reason, "correct @seriesLength, or say @equalLength false")
    return np.stack(values, 1), label


def _numbers(path: Path, number: int, text: str) -> np.ndarray:
    """float64 (steps,), NaN for what is missing."""
    cells = (_MISSING.sub("nan", text) if "?" in text else text).split(",")
    try:
        found = np.array(cells, np.float64)
    except ValueError:
        wrong = next(cell for cell in cells if not _is_number(cell))
        _wrong(
            path,
            number,
            f'"{wrong.strip()[:40]}" is no number',
            'write numbers with a decimal point, "?" for a missing one',
        )
    if np.isinf(found).any():
        _wrong(path, number, f"{found[np.isinf(found)][0]:g} is no measurement", 'write "?" for a missing one')
    return found


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _wrong(path: Path, number: int, reason: str, help: str, code: str = "E380") -> NoReturn:
    raise DataError(
        f"malformed .ts file: {reason}", where=f"{path}:{number}" if number else str(path), help=help, code=code
    )
