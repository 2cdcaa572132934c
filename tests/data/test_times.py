"""Time columns: what is read as which moment, and the first rows of what is missing, doubled, mixed or out of order."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from accord.data.times import Times, in_order, missing_steps, read_times, spoken
from accord.errors import DataError

KEYS = [f"t.csv:{i}" for i in range(10)]


def microseconds(*moments: datetime) -> list[int]:
    return [round(m.timestamp()) * 1_000_000 for m in moments]


def refused(values: Any, code: str, *says: str, group: list[int] | None = None) -> None:
    with pytest.raises(DataError) as caught:
        times = read_times(pa.chunked_array([pa.array(values)]), "date", KEYS)
        in_order(times, np.array(group or [0] * len(values)), "date", KEYS)
    assert caught.value.code == code and caught.value.help
    for word in says:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        ["2016-07-01 00:00:00", "2016-07-02 12:30:00"],
        [" 2016-07-01T00:00 ", "2016-07-02T12:30:00.000"],
        ["2016/07/01 00:00", "2016/07/02 12:30:00"],
        ["2016/07/01 02:00:00+02:00", "2016-07-02 12:30:00Z"],
        ["2016-07-01T02:00:00+02:00", "2016-07-02 12:30:00Z"],
        [datetime(2016, 7, 1), datetime(2016, 7, 2, 12, 30)],
        [datetime(2016, 7, 1, tzinfo=UTC), datetime(2016, 7, 2, 12, 30, tzinfo=UTC)],
    ],
)
def test_moments(values: list[Any]) -> None:
    found = read_times(pa.chunked_array([pa.array(values)]), "date", KEYS)
    expected = microseconds(datetime(2016, 7, 1, tzinfo=UTC), datetime(2016, 7, 2, 12, 30, tzinfo=UTC))
    assert found.dates and found.values.tolist() == expected
    assert ("several offsets" in str(found.notes)) == ("+02:00" in str(values[0]))


def test_dates_and_numbers() -> None:
    dates = read_times(pa.array([date(2016, 7, 1), date(2016, 7, 2)]), "d", KEYS)
    assert dates.values.tolist() == microseconds(datetime(2016, 7, 1, tzinfo=UTC), datetime(2016, 7, 2, tzinfo=UTC))
    for column in (pa.array([1, 3]), pa.array([1.0, 3.0]), pa.array(["1", " 3 "])):
        numbers = read_times(column, "t", KEYS)
        assert not numbers.dates and numbers.values.tolist() == [1.0, 3.0]


def test_the_first_rows_without_a_time_are_named() -> None:
    refused(["2016-07-01", "", None, "2016-07-02"], "E382", "no time", "t.csv:2")
    refused(["2016-07-01", "", "2016-07-02", " "], "E382", "t.csv:1, t.csv:3")
    refused(["2016-07-01", "yesterday", "2016-13-01"], "E382", '"yesterday"', "t.csv:1, t.csv:2")
    refused(["2016/07/01", "2016/13/01"], "E382", '"2016/13/01"', "t.csv:1")
    refused([1.0, float("nan")], "E382", "t.csv:1")
    refused([[1], [2]], "E382", "no times")


@pytest.mark.parametrize("value", ["01.02.2024", "02/01/2024 10:00 AM", "1-Feb-2024", "2024-02", "10:00"])
def test_times_that_may_be_read_in_several_ways_are_refused_with_what_is_read(value: str) -> None:
    refused([value, "2024-02-02"], "E382", f'"date" holds "{value}"', "t.csv:0", "ISO 8601", "--time")


@pytest.mark.parametrize("convert", [str, int, float])
def test_dates_that_are_written_as_numbers_are_refused_and_counts_are_not(convert: Any) -> None:
    refused([convert(20240131), convert(20240201)], "E382", '"date" holds 20240131', "2024-01-31")
    counts = [20240131, 20240132, 20240133]
    assert read_times(pa.array([convert(c) for c in counts]), "t", KEYS).values.tolist() == counts


def test_a_mixture_of_zones_and_none_is_refused() -> None:
    refused(
        ["2016-07-01 00:00:00", "2016-07-01 01:00:00+01:00", "2016-07-01 02:00:00"], "E384", "with an offset", "t.csv:1"
    )
    refused(
        ["2016-07-01 00:00:00Z", "2016-07-01 01:00:00Z", "2016-07-01 02:00:00"], "E384", "without an offset", "t.csv:2"
    )


def test_the_same_time_twice_is_refused_within_a_group() -> None:
    clock_put_back = ["2016-10-30 01:30:00", "2016-10-30 02:30:00", "2016-10-30 02:30:00", "2016-10-30 03:30:00"]
    refused(clock_put_back, "E383", "same time twice: t.csv:2", "offset from UTC")
    with_offsets = [*(f"{t}+02:00" for t in clock_put_back[:2]), *(f"{t}+01:00" for t in clock_put_back[2:])]
    times = read_times(pa.array(with_offsets), "date", KEYS)
    assert in_order(times, np.zeros(4, np.int64), "date", KEYS).rows.tolist() == [0, 1, 2, 3]
    other = read_times(pa.array(clock_put_back), "date", KEYS)
    assert in_order(other, np.array([0, 0, 1, 1]), "date", KEYS).counts.tolist() == [2, 2]


def test_rows_out_of_order_are_sorted_with_a_note() -> None:
    times = Times(np.array([5.0, 1.0, 3.0, 2.0, 4.0]), [])
    found = in_order(times, np.array([0, 1, 0, 1, 0]), "t", KEYS)
    assert found.rows.tolist() == [2, 4, 0, 1, 3] and found.counts.tolist() == [3, 2]
    assert found.notes == ["1 rows were not in the order of their time, first t.csv:2: all are sorted by it"]
    assert in_order(Times(np.arange(4.0), []), np.array([1, 0, 1, 0]), "t", KEYS).notes == []


def test_times_that_have_not_come_yet_give_a_note() -> None:
    found = read_times(pa.array(["2016-07-01", "2999-01-01"]), "date", KEYS)
    assert "lie in the future, first t.csv:1" in found.notes[0]


def test_missing_and_irregular_steps() -> None:
    missing, step = missing_steps(np.array([0, 60, 120, 300, 360, 420]) * 1_000_000)
    assert missing.tolist() == [0, 0, 0, 2, 0, 0] and step == 60_000_000
    assert missing_steps(np.array([0.0, 1.0, 2.5, 3.0]))[1] == 0.0
    assert missing_steps(np.array([0.0, 0.999, 2.004]))[0].tolist() == [0, 0, 0]
    assert missing_steps(np.array([3.0]))[0].tolist() == [0]


def test_durations() -> None:
    assert spoken(90e6, dates=True) == "90 seconds" and spoken(3600e6 * 5, dates=True) == "5 hours"
    assert spoken(86400e6 * 3, dates=True) == "3 days" and spoken(2.5, dates=False) == "2.5"
