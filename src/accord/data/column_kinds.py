"""What the columns of one side of a pair are, told from their type and first values, and what they make together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from accord.data.files import EXTENSIONS
from accord.data.frames import Frame
from accord.data.tables import holds_bytes, is_number
from accord.data.values import Kind
from accord.errors import DataError, UsageError

ColumnKind = Literal["image", "audio", "series", "text", "number", "category"]
COLUMN_KINDS: tuple[str, ...] = get_args(ColumnKind)
MOST_CATEGORIES, SEEN = 64, 5
"""Texts beside numbers are categories if there are at most so many different ones, each there so often on average."""


class Told(NamedTuple):
    """A column, its kind, and why."""

    column: str
    kind: ColumnKind
    why: str


def require_columns(frame: Frame, columns: Sequence[str], side: str, *, again: bool) -> None:
    """Refuses columns that are not there, or a side without any.

    Args:
        frame: the table.
        columns: what is wanted.
        side: "x" or "y", for the message.
        again: whether a trained run asks for them.

    Raises:
        UsageError: E234, for a column that the user named and the table has not; an empty or repeated one.
        DataError: E334, for a column the run was trained on.
    """
    if not columns or len(set(columns)) < len(columns) or isinstance(columns, str):
        raise UsageError(
            f"{side} = {columns!r}: expected a list of different columns",
            where=side,
            help=f'for example {side} = ["{frame.names[0]}"]; this table has {", ".join(frame.names[:12])}',
            code="E234",
        )
    for column in columns:
        if column in frame.names:
            continue
        close = difflib.get_close_matches(column, [n for n in frame.names if n not in columns], n=1, cutoff=0.5)
        if again:
            raise DataError(
                f'no column "{column}", which the run takes for {side}; there are {", ".join(frame.names[:12])}',
                where=frame.name,
                help=f'rename "{close[0]}" to it if that is what it is' if close else "give a table that has it",
                code="E334",
            )
        hint = f'did you mean "{close[0]}"? ' if close else ""
        raise UsageError(
            f'no column "{column}"', where=frame.name, help=f"{hint}known: {', '.join(frame.names)}", code="E234"
        )


def tell(frame: Frame, columns: Sequence[str], given: Mapping[str, ColumnKind]) -> list[Told]:
    """The kind of each column of a side.

    Images and sounds are told by their first bytes, or by paths that end like those of images; lists of numbers and arrays of
    three axes of floating point are series, other arrays of several images; numbers are numbers. Texts are texts; beside numbers
    they are categories if there are at most 64 different ones and each is there 5 times on average.

    Raises:
        UsageError: for a kind that a column cannot have.
        DataError: for a column of no kind that is known.
    """
    told = [
        Told(column, given[column], "as you said") if column in given else _told(frame, column) for column in columns
    ]
    for column in given:
        if column in columns:
            _require_possible(frame, column, given[column])
    if not any(one.kind in ("number", "category") for one in told):
        return told
    return [_beside_numbers(frame, one) if one.column not in given else one for one in told]


def together(told: Sequence[Told], side: str) -> Kind:
    """What the columns of a side make: numbers and categories one vector, texts one text, all else is by itself.

    Raises:
        UsageError: for a mixture.
    """
    kinds = {one.kind for one in told}
    if kinds <= {"number", "category"}:
        return "vector"
    if kinds == {"text"}:
        return "text"
    if len(told) == 1:
        (kind,) = kinds
        return kind  # type: ignore[return-value]
    listed = ", ".join(f"{one.column} ({one.kind})" for one in told)
    raise UsageError(
        f"the columns of {side} do not go together: {listed}",
        where=side,
        help="a side is numbers and categories, or texts, or one column of images, sounds or series: leave some out, or say what a "
        "column is with --kind COLUMN=KIND",
        code="E245",
    )


def _told(frame: Frame, column: str) -> Told:
    import pyarrow as pa

    kind = frame.type(column)
    if kind is None:
        return _array(frame, column)
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if holds_bytes(plain):
        return _bytes(frame, column)
    if is_text(plain):
        return _text(frame, column)
    if is_number(plain):
        return Told(column, "number", "numbers")
    if is_list(plain):
        return Told(column, "series", "lists of numbers")
    raise DataError(
        f'column "{column}" holds {kind}, which is none of {", ".join(COLUMN_KINDS)}',
        where=frame.name,
        help="leave it out, or convert it to numbers or text",
        code="E333",
    )


def _array(frame: Frame, column: str) -> Told:
    array = frame.read(column)
    if array.ndim == 2:
        return Told(column, "number", f"an array of {array.shape[1]} numbers a row")
    if array.ndim == 3 and array.dtype.kind == "f":
        return Told(column, "series", "an array of floating point with three axes")
    return Told(column, "image", f"an array of {array.dtype} with {array.ndim} axes")


def _bytes(frame: Frame, column: str) -> Told:
    first = next((bytes_of(value) for value in frame.peek(column) if bytes_of(value)), b"")
    if first[:4] == b"RIFF" and first[8:12] == b"WAVE":
        return Told(column, "audio", "bytes of WAV files")
    return Told(column, "image", "bytes of images")


def _text(frame: Frame, column: str) -> Told:
    values = [value for value in frame.peek(column) if value]
    for kind, endings in (("image", EXTENSIONS), ("audio", {".wav"})):
        if values and all("." + value.rpartition(".")[2].lower() in endings and "\n" not in value for value in values):
            return Told(column, kind, "paths of files")  # type: ignore[arg-type]
    return Told(column, "text", "text")


def _beside_numbers(frame: Frame, told: Told) -> Told:
    """A text beside numbers is a category if few different ones are there."""
    if told.kind != "text":
        return told
    values = frame.read(told.column)
    different, there = len(values.unique().drop_null()), len(values) - values.null_count
    if different <= MOST_CATEGORIES and there >= SEEN * different:
        return Told(told.column, "category", f"{different} different texts beside numbers")
    return told


def _require_possible(frame: Frame, column: str, kind: ColumnKind) -> None:
    import pyarrow as pa

    type_ = frame.type(column)
    if type_ is None:
        axes = frame.read(column).ndim
        possible = {2: ("number", "series"), 3: ("image", "series", "audio"), 4: ("image",)}.get(axes, ())
    else:
        plain = type_.value_type if pa.types.is_dictionary(type_) else type_
        if pa.types.is_null(plain):
            return  # all of it is missing
        if holds_bytes(plain):
            possible = ("image", "audio")
        elif is_list(plain):
            possible = ("series", "audio", "number")
        elif is_text(plain):
            possible = ("text", "category", "image", "audio")
        else:
            possible = ("number", "category") if is_number(plain) else ()
    if kind not in possible:
        raise UsageError(
            f'column "{column}" cannot be {kind}: it holds {"an array" if type_ is None else type_}',
            where=f"--kind {column}={kind}",
            help=f"it could be {' or '.join(possible)}" if possible else "leave it out",
            code="E246",
        )


def bytes_of(value: Any) -> bytes:
    """The encoded bytes of a value, or of its field "bytes"."""
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else b""


def is_list(kind: Any) -> bool:
    """Whether each value is a list of numbers, or of lists of them."""
    import pyarrow as pa

    types = pa.types
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type
    return is_number(inner) or (is_list(inner) and is_number(inner.value_type))


def is_text(kind: Any) -> bool:
    """Whether the values are texts."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
