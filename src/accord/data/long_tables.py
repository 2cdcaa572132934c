"""Tables of one row per time as series: rows are put in order, one series per group, what is missing becomes NaN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from accord.data.series import SeriesTable
from accord.data.times import Times, in_order, missing_steps, spoken
from accord.data.vectors import Labels

MOST_FILLED = 4
"""Gaps are filled with at most so many times the rows there are; beyond that steps stay side by side."""
_NAMED = 3


def series_of_rows(
    matrix: np.ndarray,
    channels: Sequence[str],
    keys: Sequence[str],
    *,
    times: Times | None = None,
    time: str = "",
    group: np.ndarray | None = None,
    groups: Sequence[str] = ("",),
    labels: Labels | None = None,
    where: str = "",
) -> SeriesTable:
    """One series of each group of rows, in the order of time, or of the file where there are no times.

    Where the steps of a series are regular but for gaps, these are filled with steps at which nothing was observed.

    Args:
        matrix: (R, C) values of the rows.
        channels: their names.
        keys: of the rows.
        times: of the rows.
        time: the name of the column of times.
        group: int64 (R,), the series each row belongs to.
        groups: their names.
        labels: of the rows.
        where: the source, for the name of the only series.

    Raises:
        DataError: for two rows of one group with the same time.
    """
    codes = np.zeros(len(matrix), np.int64) if group is None else group
    if times is None:
        rows, counts, notes = np.argsort(codes, kind="stable"), np.bincount(codes), list[str]()
        place, fill = np.arange(len(rows)), 0
    else:
        rows, counts, notes = in_order(times, codes, time, keys)
        place, counts, more = _spread(times, rows, counts, groups)
        notes = [*times.notes, *notes, *more]
        fill = int(counts.sum()) - len(rows)
    total = int(counts.sum())
    stamps = None if times is None else times.values[rows]
    if stamps is not None and fill:
        stamps = np.interp(np.arange(total), place, stamps).astype(stamps.dtype)
    return SeriesTable(
        values=_placed(matrix[rows].astype(np.float64, copy=False), place, total, np.nan),
        counts=counts,
        names=[where] if group is None else list(groups),
        channels=tuple(channels),
        rows=_placed(rows, place, total, -1),
        parts=None if group is None else np.arange(len(counts)),
        part_names=() if group is None else list(groups),
        times=stamps,
        labels=None if labels is None else Labels(_placed(labels.labels[rows], place, total, -1), labels.classes),
        notes=notes,
    )


def group_codes(columns: Sequence[Sequence[str]]) -> tuple[np.ndarray, list[str]]:
    """Rows by the values of one or several columns: codes int64 (R,) in the order of first occurrence, and names "a/b"."""
    seen: dict[tuple[str, ...], int] = {}
    codes = np.array([seen.setdefault(row, len(seen)) for row in zip(*columns, strict=True)], np.int64)
    return codes, ["/".join(row) for row in seen]


def _placed(values: np.ndarray, place: np.ndarray, total: int, empty: float) -> np.ndarray:
    if total == len(values):
        return values
    found = np.full((total, *values.shape[1:]), empty, values.dtype)
    found[place] = values
    return found


def _spread(
    times: Times, rows: np.ndarray, counts: np.ndarray, groups: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The place of each row among the steps, steps of each series, and notes on gaps and irregular steps."""
    values, ends = times.values[rows], np.cumsum(counts)
    before = np.zeros(len(rows), np.int64)
    irregular: list[str] = []
    longest = (0, 0.0, 0)
    for code, (start, end) in enumerate(zip(ends - counts, ends, strict=True)):
        missing, step = missing_steps(values[start:end])
        if step == 0 and end - start > 2:
            irregular.append(groups[code])
        if int(missing.sum()) > MOST_FILLED * int(end - start):
            irregular.append(groups[code])
            continue
        before[start:end] = missing
        if len(missing) and int(missing.max()) > longest[0]:
            longest = (int(missing.max()), step, int(start + missing.argmax()))
    place = np.arange(len(rows)) + np.cumsum(before)
    added = np.add.reduceat(before, ends - counts) if len(rows) else counts
    return place, counts + added, _notes(times, rows, longest, irregular, groups, int(before.sum()))


def _notes(
    times: Times,
    rows: np.ndarray,
    longest: tuple[int, float, int],
    irregular: Sequence[str],
    groups: Sequence[str],
    filled: int,
) -> list[str]:
    notes = []
    if filled:
        steps, step, row = longest
        duration = spoken((steps + 1) * step, dates=times.dates)
        notes.append(
            f"{filled} steps are missing, taken as not observed; the longest gap is {steps} steps ({duration}) before row "
            f"{int(rows[row])}"
        )
    if irregular:
        named = ", ".join(name for name in irregular[:_NAMED] if name)
        which = f"{len(irregular)} of {len(groups)} series" + (f" ({named})" if named else "")
        notes.append(f"times are irregular in {which}: rows follow each other as one step each")
    return notes
