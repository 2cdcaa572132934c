"""Rows with a time and a group become series: each value at its step, gaps filled with NaN and said."""

from __future__ import annotations

import numpy as np

from accord.data.long_tables import group_codes, series_of_rows
from accord.data.times import Times
from accord.data.vectors import Labels

NAN = np.nan


def keys(n: int) -> list[str]:
    return [f"t.csv:{i}" for i in range(n)]


def test_groups_in_the_order_of_their_first_row() -> None:
    codes, names = group_codes([["b", "a", "b", "a"], ["1", "1", "1", "2"]])
    assert codes.tolist() == [0, 1, 0, 2] and names == ["b/1", "a/1", "a/2"]


def test_rows_are_sorted_into_series_and_gaps_filled() -> None:
    times = Times(np.array([4.0, 0.0, 1.0, 5.0, 2.0, 8.0, 6.0]), [])
    group = np.array([0, 0, 0, 1, 0, 1, 1])
    matrix = np.arange(14.0).reshape(7, 2)
    labels = Labels(np.array([0, 0, 1, 0, 1, 1, 0]), ("a", "b"))
    found = series_of_rows(
        matrix, ("u", "v"), keys(7), times=times, time="t", group=group, groups=("p", "q"), labels=labels
    )
    assert found.counts.tolist() == [5, 4] and list(found.names) == ["p", "q"]
    assert found.rows is not None and found.rows.tolist() == [1, 2, 4, -1, 0, 3, 6, -1, 5]
    assert found.times is not None and found.times.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert found.values[:, 0].tolist()[:3] == [2, 4, 8] and np.isnan(found.values[[3, 7]]).all()
    assert found.values[[4, 5, 6, 8]].tolist() == matrix[[0, 3, 6, 5]].tolist()
    assert found.labels is not None and found.labels.labels.tolist() == [0, 1, 1, -1, 0, 0, 0, -1, 1]
    assert "2 steps are missing" in found.notes[1] and "longest gap is 1 steps (2)" in found.notes[1]


def test_irregular_times_and_endless_gaps_leave_rows_side_by_side() -> None:
    matrix = np.ones((4, 1))
    for values in ([0.0, 1.0, 2.5, 2.7], [0.0, 1.0, 2.0, 1e6]):
        found = series_of_rows(matrix, ("u",), keys(4), times=Times(np.array(values), []), time="t")
        assert found.counts.tolist() == [4] and "irregular" in found.notes[0]


def test_without_times_the_order_is_that_of_the_rows() -> None:
    found = series_of_rows(np.arange(4.0)[:, None], ("u",), keys(4), group=np.array([0, 1, 0, 1]), groups=("a", "b"))
    assert found.values[:, 0].tolist() == [0, 2, 1, 3] and found.times is None
    one = series_of_rows(np.arange(4.0)[:, None], ("u",), keys(4), where="t.csv")
    assert list(one.names) == ["t.csv"] and one.counts.tolist() == [4]
