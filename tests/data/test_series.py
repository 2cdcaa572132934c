"""Windows and whole series: read as they lie, padded at the end, split by time without a step in both parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from accord.data.policy import Policy
from accord.data.samples import BadItem, split
from accord.data.series import SeriesTable, WindowStore, hash_samples, longest_gap, series_samples
from accord.data.vectors import Labels
from accord.data.windows import Windows, places_of_windows
from accord.errors import DataError, UsageError


def test_every_whole_window_in_order() -> None:
    for counts, window, stride in (([7, 3, 12, 1], 3, 1), ([7, 3, 12, 1], 4, 5), ([2], 3, 1), ([], 2, 1)):
        expected = [(s, f) for s, count in enumerate(counts) for f in range(0, count - window + 1, stride)]
        series, first = places_of_windows(np.array(counts, np.int64), window, stride)
        assert list(zip(series.tolist(), first.tolist(), strict=True)) == expected
    with pytest.raises(UsageError, match="stride"):
        places_of_windows(np.array([3]), 2, 0)


def test_a_store_reads_windows_and_pads_what_is_past_the_end() -> None:
    values = np.arange(20.0).reshape(10, 2)
    store = WindowStore(values, np.array([0, 4, 7]), np.array([3, 3, 2]), 3)
    found = store.read(np.array([2, 0, 1])).numpy()
    assert store.shape == (3, 2) and found.dtype == np.float32
    np.testing.assert_array_equal(found[0], [[14, 15], [16, 17], [np.nan, np.nan]])
    np.testing.assert_array_equal(found[1:], values[[[0, 1, 2], [4, 5, 6]]])
    assert store.read(np.zeros(0, np.int64)).shape == (0, 3, 2)


def test_reading_at_the_very_end_reads_nothing_beyond() -> None:
    store = WindowStore(np.ones((4, 1), np.float32), np.array([3]), np.array([1]), 5)
    assert np.isnan(store.read(np.array([0])).numpy()[0, 1:]).all()


def test_windows_are_split_by_time() -> None:
    counts = np.array([100, 50])
    series, first = places_of_windows(counts, 10, 3)
    windows = Windows(series, first, first + 9, counts)
    ok = np.ones(len(first), np.bool_)
    ok[0] = False
    train, held_out = windows.split(ok, 0.3)
    for s, border in ((0, 70), (1, 35)):
        steps = [
            {int(t) for i in part if series[i] == s for t in range(first[i], first[i] + 10)}
            for part in (train, held_out)
        ]
        assert steps[0] and steps[1] and max(steps[0]) < border <= min(steps[1])
    assert 0 not in train and len(train) + len(held_out) < ok.sum(), "some straddle the border"
    assert windows.split(ok, 0.0)[1].tolist() == []


def test_short_series_are_held_out_whole_if_wished() -> None:
    made = table(*[ramp(8, 100.0 * i) for i in range(12)], ramp(8, 300.0))  # the last is a copy of the fourth
    found = series_samples("s", made, Policy(), window=6, stride=1)
    with pytest.raises(DataError, match="no window of 6 steps") as caught:
        split(found, 0.2, 0)
    assert caught.value.code == "E389" and "data.hold_out_by=series" in caught.value.help
    assert found.windows is not None
    for seed in range(5):
        train, held_out = split(found, 0.2, seed, "series")
        parts = [set(found.windows.series[part].tolist()) for part in (train, held_out)]
        assert len(train) + len(held_out) == len(found) and parts[0] and parts[1] and not parts[0] & parts[1]
        assert any({3, 12} <= part for part in parts), "copies stay together"
    with pytest.raises(UsageError, match="only pairs of columns can"):
        split(found, 0.2, 0, "x")


def test_hashes_tell_values_and_lengths_apart() -> None:
    values = np.array([[0.0], [0.0], [0.0], [0.0], [1.0]])
    content = hash_samples(WindowStore(values, np.array([0, 2, 0, 3]), np.array([2, 2, 3, 2]), 3))
    assert content[0] == content[1] and len(set(content.tolist())) == 3


def test_the_longest_gap_stays_within_one_series() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        counts = rng.integers(1, 12, 5)
        values = np.where(rng.random((counts.sum(), 2)) < 0.6, np.nan, 1.0)
        best, start = 0, 0
        for count in counts:
            for channel in range(2):
                run = 0
                for t in range(start, start + count):
                    run = run + 1 if np.isnan(values[t, channel]) else 0
                    best = max(best, run)
            start += count
        steps, place, channel = longest_gap(values, counts)
        assert steps == best and np.isnan(values[place : place + steps, channel]).all()
    assert longest_gap(np.ones((3, 1)), np.array([3])) == (0, -1, -1)


def table(*series: list[list[float]], **more: Any) -> SeriesTable:
    values = np.array([row for one in series for row in one], np.float64)
    names = [f"s{i}" for i in range(len(series))]
    channels = tuple("uvw"[: values.shape[1]])
    return SeriesTable(values, np.array([len(one) for one in series], np.int64), names, channels, **more)


def ramp(n: int, start: float = 0.0) -> list[list[float]]:
    return [[start + i, start + 2.0 * i] for i in range(n)]


def test_whole_series_are_padded_at_the_end() -> None:
    found = series_samples("s", table(ramp(3), ramp(5, 7.0)), Policy())
    assert found.kind == "series" and found.shape == (5, 2) and found.features == ("u", "v") and found.windows is None
    batch = found.batch(np.array([0, 1]))
    assert isinstance(batch, torch.Tensor)
    np.testing.assert_array_equal(batch[0, :3], np.array(ramp(3)))
    assert bool(batch[0, 3:].isnan().all()) and not batch[1].isnan().any()
    assert series_samples("s", table(ramp(3), ramp(5)), Policy(), length=9).shape == (9, 2)


def test_windows_have_keys_times_and_labels() -> None:
    labels = Labels(np.array([0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0], np.int64), ("no", "yes"))
    rows, times = np.array([5, 6, 7, -1, 8, 9, 0, 1, 2, 3, 4, -1]), np.arange(12.0)
    made = table(ramp(6), ramp(6), rows=rows, times=times, labels=labels)
    found = series_samples("s", made, Policy(), window=4, stride=2)
    assert list(found.keys) == ["s0:5-7", "s0:7-9", "s1:0-3", "s1:2-4"] and found.keys[1:2] == ["s0:7-9"]
    assert found.labels is not None and found.labels.tolist() == [0, 1, 0, 0]
    assert found.windows is not None and found.windows.times is not None
    where = found.windows
    assert where.times_at(where.series, where.first).tolist() == [0, 2, 6, 8]  # type: ignore[union-attr]
    assert where.times_at(where.series, where.last).tolist() == [3, 5, 9, 11]  # type: ignore[union-attr]
    assert [where.names[s] for s in where.series] == ["s0", "s0", "s1", "s1"] and where.several
    whole = series_samples("s", table(ramp(3), ramp(4), labels=Labels(np.array([1, 0]), ("a", "b"))), Policy())
    assert whole.labels is not None and whole.labels.tolist() == [1, 0]


def test_a_series_that_is_too_short_is_a_bad_sample_with_its_lengths() -> None:
    made = table(ramp(6), ramp(2), ramp(5))
    found = series_samples("s", made, Policy(max_bad_fraction=0.4), window=4)
    assert found.ok.tolist() == [True, True, True, False, True, True]
    assert found.bad == [BadItem("s1:0-1", "E381", "a series of 2 steps, 4 are needed", found.bad[0].help)]
    with pytest.raises(
        DataError, match=r"1 of 3 items cannot be used.*s1:0-1: a series of 2 steps, 4 are needed"
    ) as caught:
        series_samples("s", made, Policy(), window=4)
    assert caught.value.code == "E381" and caught.value.help


def test_one_window_a_series_is_a_series_as_a_whole() -> None:
    found = series_samples("s", table(ramp(4), ramp(5, 3.0)), Policy(), window=4, stride=2)
    assert found.windows is not None and not found.windows.several
    assert split(found, 0.5, 0)[0].tolist() != split(found, 0.5, 3)[0].tolist(), "by content, not by time"


def test_windows_of_one_series_are_split_by_time_however_many_series_are_empty() -> None:
    made = table(ramp(12), [[np.nan, np.nan]] * 8, [[np.nan, np.nan]] * 8)
    found = series_samples("s", made, Policy(), window=4, stride=2)
    train, held_out = split(found, 0.4, 0)
    assert found.windows is not None and found.windows.series.tolist() == [0] * 5
    assert (found.windows.last[train] < 8).all() and found.windows.first[held_out].tolist() == [8]


def test_windows_without_a_past_or_a_future_are_left_out() -> None:
    values = ramp(16)
    values[6:9] = [[np.nan, np.nan]] * 3
    found = series_samples("s", table(values), Policy(), window=5, context=3)
    empty = [f for f in range(12) if f == 6 or {f + 3, f + 4} <= {6, 7, 8}]
    assert found.windows is not None and found.windows.first.tolist() == [f for f in range(12) if f not in empty]
    assert empty == [3, 4, 6] and "3 windows are left out" in " ".join(found.notes)


def test_what_is_infinite_too_long_or_empty_is_bad() -> None:
    made = table(ramp(3), [[1.0, np.inf]], [[np.nan, np.nan]] * 2, ramp(9))
    found = series_samples("s", made, Policy(limit=False), length=4)
    assert [(item.key, item.code) for item in found.bad] == [("s1", "E331"), ("s2", "E385"), ("s3", "E388")]
    assert found.ok.tolist() == [True, False, False, False] and all(item.help for item in found.bad)


def test_windows_without_any_value_are_left_out_and_gaps_are_said() -> None:
    values = ramp(20)
    values[6:14] = [[np.nan, np.nan]] * 8
    found = series_samples("s", table(values), Policy(), window=4)
    assert [int(f) for f in found.windows.first] == [0, 1, 2, 3, 4, 5, 11, 12, 13, 14, 15, 16]  # type: ignore[union-attr]
    assert "5 windows are left out" in found.notes[0]
    assert (
        "40 % of the values are missing" in found.notes[1]
        and 'longest run is 8 steps of "u" (s0, step 6)' in found.notes[1]
    )


def test_windows_of_which_nothing_at_all_was_observed_are_refused() -> None:
    nothing = table([[np.nan, np.nan]] * 20)
    for more in ({}, {"context": 3}, {"context": 3, "ahead": 1}):
        with pytest.raises(DataError, match=r"nothing was observed in .*each of the 1[78] windows") as refused:
            series_samples("s", nothing, Policy(limit=False), window=4, **more)
        assert refused.value.code == "E385" and refused.value.where == "s"
    half = [[np.nan, float(i)] for i in range(20)]
    assert "50 % of the values" in series_samples("s", table(half), Policy(), window=4).notes[0]
    whole = series_samples("s", nothing, Policy(limit=False))
    assert "100 % of the values" in whole.notes[0]


def test_constant_series() -> None:
    flat = [[1.0, 2.0]] * 4
    assert "zero-variance samples: 1" in series_samples("s", table(flat, ramp(4)), Policy()).notes
    for window in (None, 2):
        with pytest.raises(DataError) as caught:
            series_samples("s", table(flat, flat), Policy(), window=window)
        assert caught.value.code == "E316"


def test_a_unit_that_changes_from_part_to_part_is_said() -> None:
    large = [[a, 1000 * b] for a, b in ramp(5)]
    parts = {"parts": np.arange(3), "part_names": ["a.csv", "b.csv", "c.csv"]}
    notes = series_samples("s", table(ramp(5), large, ramp(5), **parts), Policy()).notes
    assert [note for note in notes if "unit" in note] == [
        '"v" is 1e+03 times as large in b.csv as in the others: check its unit'
    ]
    assert not [
        note
        for note in series_samples("s", table(ramp(5), ramp(5), ramp(5, 3.0), **parts), Policy()).notes
        if "unit" in note
    ]


def test_a_part_without_a_window_is_refused() -> None:
    found = series_samples("s", table(ramp(20)), Policy(), window=5)
    assert len(split(found, 0.3, 0)[1]) == 2
    with pytest.raises(DataError, match="no window of 5 steps fits in the last part") as caught:
        split(found, 0.2, 0)
    assert caught.value.code == "E389"


def test_windows_ahead_hold_the_whole_past_and_what_is_known_of_the_future() -> None:
    labels = Labels(np.array([0, 1, 0, 0, 0, 1, 0, 0, 0], np.int64), ("no", "yes"))
    times = np.array([0, 10, 20, 30, 40, 0, 1, 2, 3], np.int64)
    made = table(ramp(5), ramp(4), rows=np.arange(9), times=times, labels=labels)
    found = series_samples("s", made, Policy(limit=False), window=5, context=3, ahead=2)
    assert list(found.keys) == ["s0:0-4", "s0:1-4", "s0:2-4", "s1:5-8", "s1:6-8"] and found.ok.all()
    assert found.windows is not None and found.windows.first.tolist() == [0, 1, 2, 0, 1]
    values = found.batch(np.arange(5))
    assert isinstance(values, torch.Tensor) and values[:, :, 0].isnan().sum(1).tolist() == [0, 1, 2, 1, 2]
    last = found.windows.times_at(found.windows.series, found.windows.last)
    assert last is not None and last.tolist() == [40, 50, 60, 4, 5], "times go on as they did"
    assert found.labels is not None and found.labels.tolist() == [0, -1, -1, -1, -1]
    assert made.counts.tolist() == [5, 4], "the table is as it was"


def test_ahead_of_a_past_of_which_nothing_was_observed_there_is_nothing() -> None:
    gap = [*ramp(4), *([[np.nan, np.nan]] * 4), *ramp(3)]
    found = series_samples("s", table(gap), Policy(limit=False), window=5, context=3, ahead=2)
    assert found.windows is not None and [int(f) for f in found.windows.first] == [0, 1, 2, 3, 6, 7, 8]
    assert "2 windows are left out: nothing was observed in the past of them" in found.notes
    short = series_samples("s", table(ramp(2), ramp(9)), Policy(limit=False), window=5, context=3, ahead=2)
    assert short.bad[0].reason == "a series of 2 steps, 3 are needed" and short.ok.sum() == 7
