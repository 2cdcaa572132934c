"""Where series come from: `.ts` files, arrays, tables of one row per series, and tables of one row per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accord.data.column_kinds import require_columns
from accord.data.frames import Frame
from accord.data.long_tables import group_codes, series_of_rows
from accord.data.policy import Policy
from accord.data.samples import RowKeys, Samples
from accord.data.series import SeriesTable, series_samples
from accord.data.tables import Numbers, as_float, is_number, left_out
from accord.data.times import read_times, rows_refused
from accord.data.ts_files import read_ts
from accord.data.vectors import Labels
from accord.errors import DataError


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """How a source is read as series.

    time: the column of times of a table whose rows are steps. group: the columns that tell its series apart; () for one series in
    each file. window, stride: samples are windows of so many steps. context: how many of them are the past, 0 where they are not
    divided. ahead: windows reach so many steps beyond the end of their series, into what nobody knows yet. length: whole series and
    sounds are padded to so many steps, longer ones are bad. rate: of sounds, steps per second.
    trim, seconds: what of every sound is kept, see `sound_samples`.
    """

    time: str | None = None
    group: tuple[str, ...] | None = None
    window: int | None = None
    stride: int = 1
    context: int = 0
    ahead: int = 0
    length: int | None = None
    rate: int | None = None
    trim: float | None = None
    seconds: float | None = None

    @property
    def rows_are_steps(self) -> bool:
        """Whether it says so: there are times, or series are told apart by columns."""
        return self.time is not None or self.group is not None

    def samples(self, name: str, table: SeriesTable, policy: Policy) -> Samples:
        """The series, or windows of them."""
        return series_samples(
            name,
            table,
            policy,
            window=self.window,
            stride=self.stride,
            context=self.context,
            ahead=self.ahead if self.window else 0,
            length=None if self.window else self.length,
        )


def open_ts(name: str, paths: Sequence[Path], options: SeriesOptions, policy: Policy) -> Samples:
    """`.ts` files; see `read_ts`."""
    return options.samples(name, read_ts(paths), policy)


def open_arrays(
    name: str,
    array: np.ndarray,
    options: SeriesOptions,
    policy: Policy,
    *,
    keys: Sequence[str],
    labels: Labels | None = None,
    notes: Sequence[str] = (),
) -> Samples:
    """An array (N, steps) or (N, steps, channels): N series. It is not copied if it is float32.

    Raises:
        DataError: for an array that is empty or has another number of axes.
    """
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(
            f"an array of shape {array.shape}: expected (N, steps) or (N, steps, channels)",
            where=name,
            help="give series as an array of two or three axes",
            code="E340",
        )
    count, steps, channels = (*array.shape, 1)[:3]
    table = SeriesTable(
        values=array.reshape(count * steps, channels),
        counts=np.full(count, steps, np.int64),
        names=keys,
        channels=tuple(f"channel {i}" for i in range(channels)),
        labels=labels,
        notes=list(notes),
    )
    return options.samples(name, table, policy)


def open_steps(
    name: str,
    frame: Frame,
    options: SeriesOptions,
    policy: Policy,
    *,
    label: str | None = None,
    features: Sequence[str] | None = None,
) -> Samples:
    """A table whose rows are steps: one series for each value of the columns `group`, or for each file, in the order of time.

    Its channels are the columns of numbers that are neither time nor group nor label, or those named by `features`.

    Raises:
        UsageError: for a column that is not there.
        DataError: for times that cannot be read or occur twice, or a table without numbers.
    """
    group = options.group or ()
    taken = [*group, *([] if options.time is None else [options.time])]
    for option, columns in (("group", group), ("time", taken[len(group) :])):
        if columns:
            require_columns(frame, columns, option, again=features is not None)
    chosen = frame.label(label, taken)
    numbers = _numbers(frame, [*taken, chosen]).picked(features, name)
    times = None if options.time is None else read_times(frame.read(options.time), options.time, frame.keys)
    codes, names = _groups(frame, group, timed=times is not None)
    table = series_of_rows(
        numbers.matrix,
        numbers.names,
        frame.keys,
        times=times,
        time=options.time or "",
        group=codes,
        groups=names,
        labels=None if chosen is None else frame.labels(chosen),
    )
    _rows_in_files(table, frame)
    table.notes = [*frame.notes, *numbers.notes, *table.notes]
    return options.samples(name, table, policy)


def _numbers(frame: Frame, taken: Sequence[str | None]) -> Numbers:
    """The other columns of numbers, NaN where a value is missing, and a note on those that are left out."""
    wanted = [column for column in frame.names if column not in taken]
    parts, names, other = list[np.ndarray](), list[str](), list[str]()
    for column in wanted:
        values = frame.read(column)
        if isinstance(values, np.ndarray) and values.ndim == 2:
            parts.append(values.astype(np.float64))
            names += [f"{column} {i}" for i in range(values.shape[1])]
        elif not isinstance(values, np.ndarray) and is_number(values.type):
            parts.append(as_float(values.combine_chunks(), column, frame.keys, 0)[:, None])
            names.append(column)
        else:
            other.append(column)
    if not parts:
        raise DataError(
            f"no column of numbers beside {', '.join(str(column) for column in taken if column) or 'others'}",
            where=frame.name,
            help="pass a table that has one",
            code="E333",
        )
    return Numbers(np.concatenate(parts, 1), names, left_out(other))


def _groups(frame: Frame, columns: Sequence[str], *, timed: bool) -> tuple[np.ndarray, list[str]]:
    """The series each row belongs to, int64 (R,), and the names of the series.

    Rows of several files are put in order by their times; without times a group goes no further than its file.
    """
    starts, files = _files(frame)
    file = np.repeat(np.arange(len(files)), np.diff(starts))
    if not columns:
        return file, files
    codes, names = group_codes([_group_names(frame, column) for column in columns])
    if timed:
        return codes, [f"{Path(frame.name).name}:{name}" for name in names]
    known, series = np.unique(file * len(names) + codes, return_inverse=True)
    return series, [f"{files[one // len(names)]}:{names[one % len(names)]}" for one in known.tolist()]


def _group_names(frame: Frame, column: str) -> list[str]:
    """A column of groups as texts: whole numbers without a decimal point. Raises `DataError` for rows without one."""
    values = frame.read(column).to_pylist()
    missing = np.flatnonzero([value is None or value == "" or value != value for value in values])  # noqa: PLR0124  (NaN)
    if len(missing):
        raise rows_refused(f'no group in column "{column}"', missing, frame.keys, "fill it in, or drop the row", "E394")
    return [str(int(value)) if isinstance(value, float) and value.is_integer() else str(value) for value in values]


def _files(frame: Frame) -> tuple[np.ndarray, list[str]]:
    """The first row of each file, with the number of all rows at the end, and the names of the files."""
    if isinstance(frame.keys, RowKeys) and frame.keys.names is not None:
        return frame.keys.starts, list(frame.keys.names)
    return np.array([0, len(frame)]), [Path(frame.name).name]


def _rows_in_files(table: SeriesTable, frame: Frame) -> None:
    """Counts the rows of each file from 0."""
    starts, _ = _files(frame)
    if table.rows is not None and len(starts) > 2:
        file = np.searchsorted(starts, table.rows, "right") - 1
        table.rows = np.where(table.rows < 0, -1, table.rows - starts[file.clip(0)])
