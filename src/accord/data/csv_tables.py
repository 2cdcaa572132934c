"""CSV files as columns of numbers: read whole or not at all, every cell that is not what its column is named by line and value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accord.data.csv_files import read_file
from accord.data.csv_heads import DECIMAL_COMMA, DECIMAL_POINT, NUMBER, SEPARATED
from accord.data.samples import RowKeys
from accord.data.tables import Numbers, left_out, refuse_repeated, require_column, short_names
from accord.data.vectors import LABEL_NAMES, Labels, encode_labels, too_large
from accord.errors import DataError

_MEANT = re.compile(
    r"(?!.*\.\d{1,2}\.)\s*([+-]?[\d.,' ]*\d[\d.,' ]*([eE][+-]?\d+)?|n/?a|null|none|missing|[-?.]+)?\s*", re.IGNORECASE
)
_OF_THOUSANDS = r"^\s*[+-]?[1-9]\d{0,2}[.,]\d{3}\s*$"


class CsvTable(NamedTuple):
    """The samples of CSV files: numbers, labels if there are any, and keys "file.csv:0" (rows counted from 0, header not counted)."""

    numbers: Numbers
    labels: Labels | None
    keys: RowKeys


class CsvTexts(NamedTuple):
    """The cells of CSV files as texts, pyarrow columns by name, and keys.

    written: as they are in the files. pointed: with decimal points in place of decimal commas. doubtful: columns whose separators may be
    those of decimals or of thousands. notes: said once to the user.
    """

    written: dict[str, Any]
    pointed: dict[str, Any]
    doubtful: frozenset[str]
    keys: RowKeys
    notes: list[str]

    def cells(self, name: str) -> np.ndarray | None:
        """A column as float64, "" as NaN, or None if it is a column of text. Raises `DataError` for cells that are no numbers."""
        if name in self.doubtful:
            values = self.written[name].to_pylist()
            row = next(i for i, value in enumerate(values) if re.match(_OF_THOUSANDS, value))
            text = values[row].strip()
            raise DataError(
                f'column "{name}" holds "{text}", which is {re.sub("[.,]", "", text)} or {text.replace(",", ".")}',
                where=self.keys[row],
                help="write numbers with a decimal point, and none with separators of thousands",
                code="E333",
            )
        return cells(self.pointed[name], name, self.keys)

    def label_name(self, label: str | None, where: str, *, taken: Sequence[str] = ()) -> str | None:
        """The column `label`, else one named label, class or target that is not taken and holds no decimal numbers."""
        free = {name: texts for name, texts in self.pointed.items() if label is not None or name not in taken}
        return label_name(free, label, where)


def read_csv(paths: Sequence[Path], label: str | None) -> CsvTable:
    """The files as one table; commas, semicolons or tabs; a header if the first line is not all numbers.

    Where semicolons or tabs separate the cells, a column whose numbers all have a decimal comma, or none, is numbers as well; where
    its commas may as well separate thousands, that is an error.

    Texts are left out with a note, unless most of a column is numbers: then the first cell that is none is an error.
    Raises `DataError` for what is damaged (ragged rows, open quotes, NUL bytes, bytes that are not UTF-8 and have no byte order
    mark), `EnvironmentFault` if there is not enough memory, `UsageError` if there is no column `label`.
    """
    texts = read_texts(paths)
    keys, chosen = texts.keys, texts.label_name(label, str(paths[0]))
    labels = None if chosen is None else labels_of(texts.written[chosen], chosen, keys, str(paths[0]))
    found = {name: texts.cells(name) for name in texts.written if name != chosen}
    used = {name: values for name, values in found.items() if values is not None}
    if not used:
        raise DataError(
            "no column of numbers", where=str(paths[0]), help=f"pass a table that has one; {SEPARATED}", code="E333"
        )
    matrix = np.stack(list(used.values()), 1)
    notes = [*texts.notes, *_index_of_rows(matrix, list(used)), *left_out([n for n in found if n not in used])]
    return CsvTable(Numbers(matrix, list(used), notes), labels, keys)


def _index_of_rows(matrix: np.ndarray, names: Sequence[str]) -> list[str]:
    """A note on a first column without a name that counts the rows, as pandas and R write it."""
    if names[0] or len(matrix) < 2 or not (np.diff(matrix[:, 0]) == 1).all():
        return []
    return [
        "the first column has no name and counts the rows, but is used like the others: leave it out of the file if that is all it does"
    ]


def read_texts(paths: Sequence[Path]) -> CsvTexts:
    """The cells of the files as one table of texts. Raises what `read_csv` raises for damage."""
    parsed = [read_file(path) for path in paths]
    names = parsed[0].table.column_names
    for path, (table, _, _) in zip(paths, parsed, strict=True):
        refuse_repeated(table.column_names, str(path))
        if table.column_names != names:
            differ = sorted(set(table.column_names) ^ set(names))
            raise DataError(
                f"different columns than {paths[0]}: {', '.join(differ) or 'in another order'}",
                where=str(path),
                help="pass files of one kind, or write one of them anew",
                code="E346",
            )
    pointed, doubtful = zip(*(_with_points(file.table, file.separator) for file in parsed), strict=True)
    return CsvTexts(
        written=_joined([file.table for file in parsed], names),
        pointed=_joined(pointed, names),
        doubtful=frozenset().union(*doubtful),
        keys=RowKeys([len(file.table) for file in parsed], short_names(paths)),
        notes=[note for file in parsed for note in file.notes],
    )


def _joined(tables: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    import pyarrow as pa

    return {name: pa.chunked_array([c for t in tables for c in t[name].chunks], pa.string()) for name in names}


def labels_of(column: Any, name: str, keys: Sequence[str], where: str) -> Labels:
    """A column of texts as labels."""
    return encode_labels(_as_labels(column.to_pylist()), len(keys), f"{where}:{name}")


def _with_points(table: Any, separator: str) -> tuple[Any, set[str]]:
    """The table with decimal points in place of decimal commas, and the columns of which it cannot be told what their separators are.

    Commas are decimal ones if they are in all numbers of a column that are no whole ones, and if they separate nothing else. They may be
    those of thousands where no semicolons separate the cells and three digits follow all of them; so may be points beside decimal commas.
    """
    from pyarrow import compute as pc

    if separator == ",":
        return table, set()
    commas = [name for name in table.column_names if _all_numbers(table[name], DECIMAL_COMMA, ",")]
    if not commas:
        return table, set()
    if separator != ";" and all(_may_be_thousands(table[name], ",") for name in commas):
        return table, set(commas)
    others = [name for name in table.column_names if name not in commas]
    doubtful = {
        name for name in others if _all_numbers(table[name], DECIMAL_POINT, ".") and _may_be_thousands(table[name], ".")
    }
    for name in commas:
        place = table.column_names.index(name)
        table = table.set_column(place, name, pc.replace_substring(table[name], ",", "."))
    return table, doubtful


def _all_numbers(column: Any, pattern: str, mark: str) -> bool:
    """Whether all of its cells are numbers of this form or empty, and some have the mark."""
    from pyarrow import compute as pc

    if not pc.any(pc.match_substring(column, mark)).as_py():
        return False
    empty = pc.equal(pc.utf8_trim_whitespace(column), "")
    return bool(pc.all(pc.or_(pc.match_substring_regex(column, pattern), empty)).as_py())


def _may_be_thousands(column: Any, mark: str) -> bool:
    """Whether three digits stand behind the mark and one to three before it, the first of them not 0, wherever it is."""
    from pyarrow import compute as pc

    marked = pc.match_substring(column, mark)
    return bool(pc.all(pc.or_(pc.match_substring_regex(column, _OF_THOUSANDS), pc.invert(marked))).as_py())


def label_name(columns: Mapping[str, Any], label: str | None, where: str) -> str | None:
    """The column `label`, else one named label, class or target that holds no decimal numbers. Raises `UsageError`."""
    if label is not None:
        require_column(list(columns), label, where, "label")
        return label
    for wanted in LABEL_NAMES:
        for name, values in columns.items():
            if name.lower() == wanted and not any(
                NUMBER.fullmatch(v) and _whole(v) is None for v in values.to_pylist()
            ):
                return name
    return None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text) else None


def _as_labels(values: list[str]) -> list[Any]:
    whole = [_whole(value) for value in values]
    return whole if all(w is not None or not v for w, v in zip(whole, values, strict=True)) else list(values)


def cells(column: Any, name: str, keys: Sequence[str]) -> np.ndarray | None:
    """The column as float64, "" as NaN, or None if it is a column of text."""
    import pyarrow as pa
    from pyarrow import compute as pc

    trimmed = pc.utf8_trim_whitespace(column)
    longest = pc.max(pc.utf8_length(trimmed)).as_py() or 0
    try:
        found: np.ndarray = pc.if_else(pc.equal(trimmed, ""), None, trimmed).cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return _numbers_one_by_one(trimmed.to_pylist(), name, keys)
    if longest > 15:
        _refuse_large(trimmed.to_pylist(), name, keys)
    return found


def _numbers_one_by_one(values: list[str], name: str, keys: Sequence[str]) -> np.ndarray | None:
    wrong = [i for i, value in enumerate(values) if value and not NUMBER.fullmatch(value)]
    if not wrong:
        _refuse_large(values, name, keys)
        return np.array([float(value) if value else np.nan for value in values], np.float64)
    filled = [value for value in values if value]
    meant = sum(_MEANT.fullmatch(value) is not None or NUMBER.fullmatch(value) is not None for value in filled)
    if 2 * meant < len(filled):
        return None
    first = next((i for i in wrong if not re.match(DECIMAL_COMMA, values[i])), wrong[0])
    raise DataError(
        f'column "{name}" holds "{values[first][:40]}" ({len(wrong)} of {len(values)} cells are no numbers)',
        where=keys[first],
        help="write numbers with a decimal point, and leave a missing one empty",
        code="E333",
    )


def _refuse_large(values: list[str], name: str, keys: Sequence[str]) -> None:
    for i, value in enumerate(values):
        if len(value) > 15 and re.fullmatch(r"[+-]?\d+", value) and abs(int(value)) > 2**53:
            raise too_large(int(value), name, keys[i])
