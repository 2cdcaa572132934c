"""One side of a pair: columns of a table as samples of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accord.data.column_kinds import ColumnKind, Told, is_text, together
from accord.data.encoded import Options, Progress
from accord.data.encoded_samples import encoded_samples
from accord.data.frames import Frame, NamedFiles
from accord.data.pixels import pixel_samples
from accord.data.policy import Policy
from accord.data.samples import LISTED, ArrayStore, Refused, Samples, hash_bytes
from accord.data.series import SeriesTable, series_samples
from accord.data.sounds import sound_samples
from accord.data.tables import as_float, holds_bytes, is_number
from accord.data.vectors import vector_samples
from accord.errors import DataError, UsageError

LONGEST = 512
"""Bytes of a text that are read, at most, unless a run says otherwise."""
MOST_CATEGORIES = 1000


@dataclass(frozen=True, kw_only=True)
class Side:
    """Which columns make a side, and in what form; what is None is told from the data.

    kinds: of each column. shape: of one sample, (C, S, S), (features,), (steps, channels) or (bytes,).
    categories: of each number of a vector the names of its codes, none for a number. rate: of audio. trim, seconds: what of every sound
    is kept, see `sound_samples`.
    """

    columns: tuple[str, ...]
    kinds: tuple[ColumnKind, ...] | None = None
    shape: tuple[int, ...] | None = None
    categories: tuple[tuple[str, ...], ...] | None = None
    rate: int | None = None
    trim: float | None = None
    seconds: float | None = None

    @property
    def known(self) -> bool:
        """Whether it is the side of a trained run."""
        return self.shape is not None


def open_side(
    frame: Frame,
    side: Side,
    told: Sequence[Told],
    name: str,
    options: Options,
    *,
    progress: Progress | None = None,
    inspect: bool = False,
) -> Samples:
    """The samples of a side, named by its columns; bad ones are marked, and nothing is judged.

    Args:
        frame: the table.
        side: which columns; of a trained run also the form they have to have.
        told: their kinds.
        name: "x" or "y", for messages.
        options: how images are stored.
        progress: called while images are read.
        inspect: find what is bad now.

    Raises:
        UsageError: for columns that do not go together.
        DataError: for values that are not what their column is.
    """
    kind = together(told, name)
    match kind:
        case "vector":
            samples = _vector(frame, side, told)
        case "text":
            samples = _text(frame, side)
        case "image":
            samples = _images(frame, side, options, progress, inspect=inspect)
        case "series":
            samples = _series(frame, side)
        case "audio":
            samples = _sounds(frame, side, progress)
    return replace(samples, columns=side.columns, kinds=tuple(one.kind for one in told))


def name_of(side: Side) -> str:
    """What a side is called in messages."""
    return ", ".join(side.columns)


def _vector(frame: Frame, side: Side, told: Sequence[Told]) -> Samples:
    parts: list[np.ndarray] = []
    names: list[str] = []
    categories: list[tuple[str, ...]] = []
    refused: dict[int, Refused] = {}
    for one in told:
        values = frame.read(one.column)
        if one.kind == "category":
            known = None if side.categories is None else side.categories[len(categories)]
            codes, vocabulary = codes_of(values, one.column, known, refused, frame.name)
            parts.append(codes[:, None])
            categories.append(vocabulary)
            names.append(one.column)
            continue
        numbers = _numbers(values, one.column, frame)
        parts.append(numbers)
        categories += [()] * numbers.shape[1]
        single = numbers.shape[1] == 1
        names += [one.column] if single else [f"{one.column} {i}" for i in range(numbers.shape[1])]
    matrix = np.concatenate(parts, 1)
    return vector_samples(
        name_of(side),
        matrix,
        Policy(limit=False, part=True),
        keys=frame.keys,
        features=names,
        refused=refused,
        masked=True,
        categories=tuple(categories) if any(categories) else (),
    )


def _numbers(values: Any, column: str, frame: Frame) -> np.ndarray:
    """(N, F) float64, NaN where a value is missing."""
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        return values.astype(np.float64).reshape(len(values), -1)
    plain = values.combine_chunks()
    if pa.types.is_dictionary(plain.type):
        plain = plain.cast(plain.type.value_type)
    if not pa.types.is_nested(plain.type):
        return as_float(plain, column, frame.keys, 0)[:, None]
    rows = plain.to_pylist()
    lengths = {len(row) for row in rows if row is not None}
    if len(lengths) != 1:
        raise DataError(
            f'column "{column}" holds lists of {min(lengths, default=0)} to {max(lengths, default=0)} numbers',
            where=frame.name,
            help=f"as a vector all need one length; as series they need not: --kind {column}=series",
            code="E340",
        )
    empty = [np.nan] * lengths.pop()
    return np.array([empty if row is None else row for row in rows], np.float64)


def codes_of(
    values: Any, column: str, known: tuple[str, ...] | None, refused: dict[int, Refused], where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes 0, 1, ... of the categories of a column, float64 (N,), NaN where it is missing, and the names of the codes.

    Of a trained run the names are `known`; rows of other categories are added to `refused`.
    """
    import pyarrow as pa

    plain = values.combine_chunks()
    if pa.types.is_dictionary(plain.type):
        plain = plain.cast(plain.type.value_type)
    encoded = plain.dictionary_encode()
    names = [_named(value) for value in encoded.dictionary.to_pylist()]
    vocabulary = tuple(sorted({name for name in names if name})) if known is None else known
    if len(vocabulary) > MOST_CATEGORIES:
        raise DataError(
            f'column "{column}" has {len(vocabulary):,} different values, as categories at most {MOST_CATEGORIES:,}',
            where=where,
            help="leave it out if it is an identifier",
            code="E392",
        )
    place = {name: i for i, name in enumerate(vocabulary)}
    table = np.array([place.get(name, -1) if name else np.nan for name in names] + [np.nan], np.float64)
    codes: np.ndarray = table[encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
    for row in np.flatnonzero(codes == -1).tolist():
        text = names[encoded.indices[row].as_py()]
        refused[row] = Refused(
            "E392",
            f'column "{column}" is "{text[:40]}", a category that was not there in training',
            "train again with rows of this category, or drop the row",
        )
    return np.where(codes == -1, np.nan, codes), vocabulary


def _named(value: Any) -> str:
    """The name of a category: whole numbers without a decimal point, "" if it is missing."""
    if value is None or value != value:  # noqa: PLR0124  (NaN alone differs from itself)
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _text(frame: Frame, side: Side) -> Samples:
    import pyarrow as pa

    columns = [frame.read(column).cast(pa.string()).to_pylist() for column in side.columns]
    texts = [None if not any(row) else "\n".join(part or "" for part in row) for row in zip(*columns, strict=True)]
    encoded = [b"" if text is None else text.replace("\0", " ").encode() for text in texts]
    length = side.shape[0] if side.shape is not None else max(1, min(LONGEST, max(map(len, encoded))))
    values = np.zeros((len(encoded), length), np.uint8)
    for row, data in zip(values, encoded, strict=True):
        kept = data if len(data) <= length else data[:length].decode(errors="ignore").encode()  # whole characters
        row[: len(kept)] = np.frombuffer(kept, np.uint8)
    ok = np.array([text is not None for text in texts], np.bool_)
    cut = sum(len(data) > length for data in encoded)
    fault = Refused("E390", "no text: the value is missing", "put it in, or drop the row")
    return Samples(
        name=name_of(side),
        kind="text",
        store=ArrayStore(values),
        keys=frame.keys,
        content=np.array([hash_bytes(data) for data in encoded], np.uint64),
        ok=ok,
        bad=[fault.item(frame.keys[i]) for i in np.flatnonzero(~ok)[:LISTED].tolist()],
        notes=[f"{name_of(side)}: {cut:,} texts are longer than {length} bytes; the rest is not read"] if cut else [],
    )


def _sounds(frame: Frame, side: Side, progress: Progress | None) -> Samples:
    """WAV files of one rate, inside the column or named by it."""
    import pyarrow as pa

    (column,), kind = side.columns, frame.type(side.columns[0])
    if kind is None or not (holds_bytes(kind) or is_text(kind) or pa.types.is_null(kind)):
        raise UsageError(
            f'column "{column}" holds {kind or "an array"}: sounds are bytes of WAV files, or their paths',
            where=f"--kind {column}=audio",
            help=f"give WAV files, or take it as series: --kind {column}=series",
            code="E246",
        )
    encoded = frame.encoded(column) if holds_bytes(kind) else NamedFiles(frame.folder, frame.read(column).to_pylist())
    length = None if side.shape is None else side.shape[0]
    policy = Policy(limit=False, part=True)
    return sound_samples(
        name_of(side),
        encoded,
        frame.keys,
        policy,
        rate=side.rate,
        length=length,
        trim=side.trim,
        seconds=side.seconds,
        progress=progress,
    )


def _images(frame: Frame, side: Side, options: Options, progress: Progress | None, *, inspect: bool) -> Samples:
    (column,), name = side.columns, name_of(side)
    if side.shape is not None:
        options = replace(options, size=side.shape[-1], channels=side.shape[0])
    if frame.type(column) is None:
        policy = Policy(limit=False, part=True)
        return pixel_samples(name, frame.read(column), frame.keys, None, [], options, policy)
    inside = holds_bytes(frame.type(column))
    encoded = frame.encoded(column) if inside else NamedFiles(frame.folder, frame.read(column).to_pylist())
    return encoded_samples(name, encoded, frame.keys, options, progress, inspect="plain" if inspect else "")[0]


def _series(frame: Frame, side: Side) -> Samples:
    """Lists of numbers, or an array of them, as series."""
    (column,) = side.columns
    values = frame.read(column)
    whole = isinstance(values, np.ndarray)
    rows = [np.asarray(row, np.float64) for row in values] if whole else _lists(values)
    rows = [row[:, None] if row.ndim == 1 else row for row in rows]
    channels = {row.shape[1] for row in rows if row.size} or {1}
    wanted = channels if side.shape is None else {side.shape[1]}
    if len(channels) > 1 or channels != wanted:
        raise DataError(
            f'column "{column}" holds series of {", ".join(map(str, sorted(channels)))} channels'
            + ("" if side.shape is None else f", the run was trained on {side.shape[1]}"),
            where=frame.name,
            help="give series of one number of channels",
            code="E391",
        )
    (width,) = channels
    table = SeriesTable(
        values=np.concatenate([row.reshape(-1, width) for row in rows]),
        counts=np.array([len(row) if row.size else 0 for row in rows], np.int64),
        names=frame.keys,
        channels=(column,) if width == 1 else tuple(f"{column} {i}" for i in range(width)),
    )
    length = None if side.shape is None else side.shape[0]
    return series_samples(name_of(side), table, Policy(limit=False, part=True), length=length)


def _lists(values: Any) -> list[np.ndarray]:
    """The rows of a column of lists as arrays, (steps,) or (steps, channels); empty where there is none. Numbers stay in Arrow's memory."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if pa.types.is_null(values.type) or not is_number(values.type.value_type):
        return [_steps(row) for row in values.to_pylist()]
    rows: list[np.ndarray] = []
    for chunk in values.chunks:
        numbers = chunk.drop_null().flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        counts = pc.list_value_length(chunk).fill_null(0).to_numpy(zero_copy_only=False)
        rows += np.split(numbers, np.cumsum(counts)[:-1]) if len(counts) else []
    return rows


def _steps(row: Any) -> np.ndarray:
    """A list of numbers, or of lists of as many numbers each, as an array; empty if it is neither."""
    try:
        return np.array([] if row is None else row, np.float64)
    except (ValueError, TypeError):  # lists of several lengths within one series
        return np.zeros(0)
