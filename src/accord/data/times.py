"""Time columns: read by fixed rules, put in order within each group, and every gap found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from accord.errors import DataError

_ZONE = re.compile(r"[T ]\d{1,2}(?::?\d\d)*(?:\.\d+)?\s*(?:Z|[+-]\d\d(?::?\d\d)?)$")
_NAMED = 3
_HELP = (
    'write times as "2024-05-01 13:00:00", 2024-05-01T13:00:00+02:00 or 2024-05-01 (ISO 8601), or as numbers; or leave out --time and set '
    "data.window=STEPS where rows are in order already"
)
_DATE = r"^(\d{4})/(\d\d)/(\d\d)"
SECOND = 1_000_000
"""Microseconds."""


class Times(NamedTuple):
    """Of each row: int64 microseconds since 1970 (UTC where zones are given), or float64 numbers in a unit of their own."""

    values: np.ndarray
    notes: list[str]

    @property
    def dates(self) -> bool:
        """Whether these are dates."""
        return self.values.dtype == np.int64


def read_times(column: Any, name: str, keys: Sequence[str]) -> Times:
    """A column of an Arrow table as times: time stamps, dates, numbers, or texts of ISO 8601, also with 2024/05/01 for the date.

    Text with an offset from UTC in every row is converted to UTC, with a note if there are several offsets; without any it is
    taken as it is.

    Raises:
        DataError: for a row without a time, or with one that cannot be read, or where some rows have an offset and others do not; for dates
            that are written as numbers, 20240501.
    """
    import pyarrow as pa

    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = column.type
    if column.null_count:
        missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        raise rows_refused(f'no time in column "{name}"', missing, keys, "fill it in, or drop the row", "E382")
    if pa.types.is_temporal(kind) and not pa.types.is_time(kind) and not pa.types.is_duration(kind):
        stamps = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        return _with_notes(stamps.cast(pa.int64()).to_numpy(), [], keys)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_text(column, name, keys)
    try:
        numbers: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f'column "{name}" holds {kind}, no times', where=keys[0], help=_HELP, code="E382") from error
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise rows_refused(f'no time in column "{name}"', wrong, keys, "fill it in, or drop the row", "E382")
    return _numbers(numbers, name, keys)


def _numbers(values: np.ndarray, name: str, keys: Sequence[str]) -> Times:
    """Numbers in a unit of their own; refused where all are dates of this form, between which most steps would be missing."""
    year, rest = np.divmod(values, 10_000)
    month, day = np.divmod(rest, 100)
    dates = (year >= 1900) & (year < 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (day % 1 == 0)
    if len(np.unique(values)) > 1 and dates.all():
        shown = f"{int(values[0])}"
        raise DataError(
            f'column "{name}" holds {shown}, which is a date or a number',
            where=keys[0],
            help=f"write dates as {shown[:4]}-{shown[4:6]}-{shown[6:]} (ISO 8601), and numbers counted from 0 or 1",
            code="E382",
        )
    return Times(values, [])


def _from_text(column: Any, name: str, keys: Sequence[str]) -> Times:
    import pyarrow as pa
    from pyarrow import compute as pc

    text = pc.utf8_trim_whitespace(column)
    empty = np.flatnonzero(pc.equal(text, "").to_numpy(zero_copy_only=False))
    if len(empty):
        raise rows_refused(f'no time in column "{name}"', empty, keys, "fill it in, or drop the row", "E382")
    try:
        numbers = text.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        pass
    else:
        return _numbers(numbers, name, keys)
    zones = [_zone(value) for value in text.to_pylist()]
    if len(set(map(bool, zones))) > 1:
        fewer = len([zone for zone in zones if zone]) * 2 <= len(zones)
        odd = np.flatnonzero([bool(zone) == fewer for zone in zones])
        what = "with" if fewer else "without"
        reason = f'column "{name}" has times {what} an offset from UTC among others'
        raise rows_refused(reason, odd, keys, "give every time an offset, or none", "E384")
    stamps = _parsed(text, name, keys, tz="UTC" if zones[0] else None)
    several = sorted(set(zones))
    notes = [f"times of several offsets ({', '.join(several[:4])}) are converted to UTC"] if len(several) > 1 else []
    return _with_notes(stamps, notes, keys)


def _zone(text: str) -> str:
    found = _ZONE.search(text)
    return "" if found is None else re.sub(r"^.*?(Z|[+-]\d\d:?(\d\d)?)$", r"\1", found[0])


def _parsed(text: Any, name: str, keys: Sequence[str], tz: str | None) -> np.ndarray:
    """Microseconds of every text, all of them or none."""
    import pyarrow as pa
    from pyarrow import compute as pc

    dashed = pc.replace_substring_regex(text, _DATE, r"\1-\2-\3")
    for unit in ("us", "ns"):  # nanoseconds are written by some, but reach from 1677 to 2262 only
        try:
            stamps = dashed.cast(pa.timestamp(unit, tz=tz)).cast(pa.timestamp("us", tz=tz), safe=False)
        except pa.ArrowInvalid:
            continue
        found: np.ndarray = stamps.cast(pa.int64()).to_numpy()
        return found
    kind = pa.timestamp("us", tz=tz)
    wrong = [i for i, value in enumerate(dashed.to_pylist()) if not _is_time(value, kind)][:1000]
    reason = f'column "{name}" holds "{text[wrong[0]].as_py()[:40]}", which is no time that is read'
    raise rows_refused(reason, np.array(wrong), keys, _HELP, "E382")


def _is_time(value: str, kind: Any) -> bool:
    import pyarrow as pa

    try:
        pa.scalar(value).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _with_notes(stamps: np.ndarray, notes: list[str], keys: Sequence[str]) -> Times:
    """With a note on times that have not come yet."""
    now = np.datetime64("now", "us").astype(np.int64) + 86_400 * SECOND  # a day for clocks and zones that differ
    later = np.flatnonzero(stamps > now)
    if len(later):
        notes = [*notes, f"{len(later)} times lie in the future, first {keys[int(later[0])]}: taken as they are"]
    return Times(stamps, notes)


class Order(NamedTuple):
    """Rows in the order of their group (as it first occurs) and time, and steps of each group; notes for the user."""

    rows: np.ndarray
    counts: np.ndarray
    notes: list[str]


def in_order(times: Times, group: np.ndarray, name: str, keys: Sequence[str]) -> Order:
    """Rows sorted by time within their group (codes 0, 1, ..., int64); rows that were not in order give a note.

    Raises:
        DataError: for two rows of one group with the same time.
    """
    values = times.values
    rows = np.lexsort((np.arange(len(values)), values, group))
    same = np.diff(group[rows]) == 0
    again = np.flatnonzero(same & (np.diff(values[rows]) == 0))
    if len(again):
        help = "name the column that tells series apart (data.group), or drop one of the rows"
        if times.dates:
            help += "; if a clock was put back, write the offset from UTC"
        raise rows_refused(f'column "{name}" has the same time twice', np.sort(rows[again + 1]), keys, help, "E383")
    by_group = np.argsort(group, kind="stable")
    back = np.flatnonzero((np.diff(group[by_group]) == 0) & (np.diff(values[by_group]) < 0))
    notes = []
    if len(back):
        first = ", ".join(keys[int(i)] for i in by_group[back + 1][:_NAMED])
        notes.append(f"{len(back)} rows were not in the order of their time, first {first}: all are sorted by it")
    return Order(rows, np.bincount(group), notes)


def missing_steps(values: np.ndarray) -> tuple[np.ndarray, float]:
    """How many steps are missing before each row of one series, int64 (n,), and the time from step to step.

    The step is the median one (the lower of two). Where all differences are whole multiples of it (to a hundredth of it) what
    lies between is missing; otherwise times are irregular, which gives a step of 0 and nothing missing.

    >>> missing_steps(np.array([0.0, 1.0, 2.0, 5.0]))
    (array([0, 0, 0, 2]), 1.0)
    """
    none = np.zeros(len(values), np.int64)
    if len(values) < 3:
        return none, float(values[-1] - values[0]) if len(values) > 1 else 0.0
    steps = np.diff(values).astype(np.float64)
    step = float(np.sort(steps)[(len(steps) - 1) // 2])
    number = np.rint(steps / step)
    if (number < 1).any() or (np.abs(steps - number * step) > 0.01 * step).any():
        return none, 0.0
    return np.concatenate([[0], number.astype(np.int64) - 1]), step


def spoken(duration: float, *, dates: bool) -> str:
    """A duration for the reader: microseconds as seconds, minutes, hours or days; numbers as they are."""
    if not dates:
        return f"{duration:g}"
    seconds = duration / SECOND
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.4g} seconds"


def rows_refused(reason: str, rows: np.ndarray, keys: Sequence[str], help: str, code: str) -> DataError:
    """The error for rows that cannot be used, of which the first few are named."""
    named = ", ".join(keys[int(row)] for row in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return DataError(f"{reason}: {named}{more}", where=keys[int(rows[0])], help=help, code=code)
