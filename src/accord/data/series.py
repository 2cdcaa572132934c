"""Series as samples: whole ones, padded at the end with NaN, or windows cut from long ones without copying them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from accord.data.policy import Policy, judge
from accord.data.samples import LISTED, BadItem, Samples, Store, hash_bytes
from accord.data.vectors import Labels
from accord.data.windows import WindowKeys, Windows, places_of_windows
from accord.errors import DataError


@dataclass(eq=False)
class SeriesTable:
    """S series of C channels, one after the other.

    values: (R, C) real numbers; NaN is what was not observed. counts: int64 (S,), steps of each; their sum is R.
    names: one key per series. channels: their names. rows: int64 (R,), the row of its file that a step is from (-1: from none, it
    fills a gap), None: steps are counted in each series.
    times: (R,) int64 microseconds since 1970 (UTC) or float64, None: unknown.
    labels: of the series (S,), or of the steps (R,). notes: said once to the user.
    parts: int64 (S,), which file or group a series is from, and `part_names`; None: all are of one.
    """

    values: np.ndarray
    counts: np.ndarray
    names: Sequence[str]
    channels: tuple[str, ...]
    rows: np.ndarray | None = None
    times: np.ndarray | None = None
    labels: Labels | None = None
    notes: list[str] = field(default_factory=list)
    parts: np.ndarray | None = None
    part_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert self.values.ndim == 2 and self.values.shape[1] == len(self.channels)
        assert len(self.counts) == len(self.names) and int(self.counts.sum()) == len(self.values)

    @property
    def starts(self) -> np.ndarray:
        """The place in `values` where each series begins, int64 (S,)."""
        starts: np.ndarray = np.cumsum(self.counts, dtype=np.int64) - self.counts
        return starts


class WindowStore(Store):
    """Windows of at most `length` steps of arrays that lie one after the other; what is past the end of one is NaN.

    Args:
        values: (R, C) real numbers, in memory or mapped.
        start: where each window begins, int64 (N,).
        count: how many steps it has, int64 (N,), each at most `length`.
        length: of what is read.
    """

    def __init__(self, values: np.ndarray, start: np.ndarray, count: np.ndarray, length: int):
        assert len(start) == len(count) and (len(count) == 0 or int(count.max()) <= length)
        self.values, self.start, self.count, self.length = values, start, count, length

    @property
    def shape(self) -> tuple[int, ...]:
        return self.length, int(self.values.shape[1])

    def read(self, index: np.ndarray) -> Tensor:
        steps = np.arange(self.length)
        there = steps < self.count[index][:, None]
        place = np.where(there, self.start[index][:, None] + steps, 0)
        found = np.asarray(self.values[place], np.float32)
        found[~there] = np.nan
        return torch.from_numpy(np.ascontiguousarray(found))


def hash_samples(store: WindowStore) -> np.ndarray:
    """64 bits that identify the values of each window and its length, uint64 (N,)."""
    content = np.zeros(len(store.start), np.uint64)
    for i, (start, count) in enumerate(zip(store.start.tolist(), store.count.tolist(), strict=True)):
        if count:
            values = np.ascontiguousarray(store.values[start : start + count], np.float32)
            content[i] = hash_bytes(values.data.cast("B"))
    return content


def longest_gap(values: np.ndarray, counts: np.ndarray) -> tuple[int, int, int]:
    """The longest run of steps of one series at which one channel was not observed: (steps, place of its first step, channel).

    >>> longest_gap(np.array([[1.0], [np.nan], [np.nan], [2.0], [np.nan]]), np.array([5]))
    (2, 1, 0)
    """
    best = (0, -1, -1)
    border = np.zeros(len(values) + 1, np.bool_)
    border[np.cumsum(counts)] = border[0] = True
    for channel in range(values.shape[1]):
        missing = np.isnan(values[:, channel])
        if not missing.any():
            continue
        before = np.concatenate([[False], missing[:-1]]) & ~border[:-1]
        after = np.concatenate([missing[1:], [False]]) & ~border[1:]
        first, last = np.flatnonzero(missing & ~before), np.flatnonzero(missing & ~after)
        longest = int((last - first).argmax())
        steps = int(last[longest] - first[longest]) + 1
        best = max(best, (steps, int(first[longest]), channel), key=lambda gap: gap[0])
    return best


def series_samples(
    name: str,
    table: SeriesTable,
    policy: Policy,
    *,
    window: int | None = None,
    stride: int = 1,
    length: int | None = None,
    context: int = 0,
    ahead: int = 0,
) -> Samples:
    """Series as samples: each as a whole, or every window of `window` steps that begins at a multiple of `stride`.

    Args:
        name: the source as given.
        table: the series. What was not observed is NaN; a number that is not finite makes a sample bad.
        policy: for bad samples. A series shorter than a window is one, and so is one of which nothing was observed; windows of
            which nothing was observed are left out with a note.
        window: steps of a sample; None: each series is one sample.
        stride: steps from one window to the next.
        length: steps that whole series are padded to, by default those of the longest; a longer one is bad.
        context: so many steps of a window are its past; a window without an observed past or rest is left out as well.
        ahead: windows reach so many steps beyond the end of a series, where nothing was observed yet, and only their past has to be.

    Raises:
        DataError: as the policy says, or if all series are constant.
        UsageError: for a window or stride below 1.
    """
    values = np.asarray(table.values, np.float32)
    about, constant, left_out = _gap_notes(values, table) + _drift_notes(values, table), _constant(values, table), 0
    table = continued(table, ahead) if ahead else table
    values = np.asarray(table.values, np.float32)
    seen, wrong = _running(np.any(~np.isnan(values), 1)), _running(np.any(np.isinf(values), 1))
    windows, short = _places(table, window, stride)
    start, count = table.starts[windows.series] + windows.first, windows.last - windows.first + 1
    if window is not None:
        kept = _known(seen, start, count, context, ahead > 0) | short
        windows, start, count, short = windows.rows(kept), start[kept], count[kept], short[kept]
        left_out = _count_left_out(kept, context, ahead, name)
    longest = window or length or max(1, int(table.counts.max(initial=0)))
    faults = {
        "E381": short,
        "E388": count > longest,
        "E331": wrong[start + count] > wrong[start],
        "E385": seen[start + count] == seen[start],
    }
    keys = _keys(table, windows, start, start + count - 1) if window is not None else table.names
    store = WindowStore(values, start, np.minimum(count, longest), longest)
    ok = ~np.logical_or.reduce(list(faults.values()))
    named = np.flatnonzero(~ok)[:LISTED].tolist()
    bad = [_bad(keys[i], i, faults, int(count[i]) - ahead, longest - ahead) for i in named]
    policy.enforce(int(short.sum()), len(table.counts), [item for item in bad if item.code == "E381"], name)
    samples = Samples(
        name=name,
        kind="series",
        store=store,
        keys=keys,
        content=hash_samples(store),
        ok=ok,
        bad=bad,
        labels=_labels(table, windows, start + count - 1),
        classes=() if table.labels is None else table.labels.classes,
        notes=[*table.notes, *_left_out(left_out, context, ahead), *about],
        features=table.channels,
        windows=None if window is None else windows,
    )
    return judge(samples, policy, constant if window is None else int(ok.sum()) * (constant == len(table.counts)))


def continued(table: SeriesTable, steps: int) -> SeriesTable:
    """The same series with `steps` more steps after the end of each, at which nothing was observed; times go on by their median step."""
    counts, old = (
        table.counts + steps,
        np.arange(len(table.values)) + np.repeat(np.arange(len(table.counts)) * steps, table.counts),
    )
    total, new = int(counts.sum()), np.arange(1, steps + 1)

    def spread(known: np.ndarray, empty: float) -> np.ndarray:
        found = np.full((total, *known.shape[1:]), empty, known.dtype)
        found[old] = known
        return found

    times = None
    if table.times is not None:
        times = spread(table.times, 0)
        for start, count in zip((np.cumsum(counts) - counts).tolist(), table.counts.tolist(), strict=True):
            known = times[start : start + count]
            if count:
                step = np.median(np.diff(known)) if count > 1 else 0
                times[start + count : start + count + steps] = known[-1] + (new * step).astype(times.dtype)
    labels = table.labels
    if labels is not None and len(labels.labels) != len(table.counts):
        labels = Labels(spread(labels.labels, -1), labels.classes)
    rows = None if table.rows is None else spread(table.rows, -1)
    values = spread(np.asarray(table.values, np.float32), np.nan)
    return replace(table, values=values, counts=counts, rows=rows, times=times, labels=labels)


def _running(flags: np.ndarray | np.bool) -> np.ndarray:
    """How many are set before each place, int64 (R + 1,)."""
    return np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])


def _known(seen: np.ndarray, start: np.ndarray, count: np.ndarray, context: int, ahead: bool) -> np.ndarray:
    """Whether anything was observed of each window: in its past, if it has one, and, unless it may be `ahead`, in the rest."""
    border = start + np.minimum(context, count)
    past, rest = (seen[border] > seen[start]) | (context == 0), (seen[start + count] > seen[border]) | ahead
    found: np.ndarray = past & rest
    return found


def _places(table: SeriesTable, window: int | None, stride: int) -> tuple[Windows, np.ndarray]:
    """Where samples lie, and which of them are series that are too short for a window: these stand for themselves."""
    counts = table.counts
    if window is None:
        whole = Windows(np.arange(len(counts)), np.zeros(len(counts), np.int64), counts - 1, counts)
        return whole, np.zeros(len(counts), np.bool_)
    series, first = places_of_windows(counts, window, stride)
    few = np.flatnonzero(counts < window)
    order = np.argsort(np.concatenate([series, few]), kind="stable")
    series, first = np.concatenate([series, few])[order], np.concatenate([first, np.zeros(len(few), np.int64)])[order]
    last = np.minimum(first + window, counts[series]) - 1
    return Windows(series, first, last, counts, table.names, table.times), counts[series] < window


def _count_left_out(kept: np.ndarray, context: int, ahead: int, name: str) -> int:
    """How many windows are left out; never all of them."""
    if len(kept) and not kept.any():
        part = " the past of" if ahead else " a part of" * (context > 0)
        raise DataError(
            f"nothing was observed in{part} each of the {len(kept):,} windows, so none is left",
            where=name,
            help="check that these are the right columns and that their values are numbers",
            code="E385",
        )
    return int((~kept).sum())


def _left_out(count: int, context: int, ahead: int) -> list[str]:
    """The note on windows of which too little was observed."""
    part = " the past of" if ahead else " a part of" * (context > 0)
    return [f"{count} windows are left out: nothing was observed in{part} them"] if count else []


def _keys(table: SeriesTable, windows: Windows, first: np.ndarray, last: np.ndarray) -> WindowKeys:
    """Keys by rows of the file where they are known, else by steps; a step that fills a gap counts as the row before it."""
    if table.rows is None:
        return WindowKeys(table.names, windows, windows.first, windows.last)
    place = np.maximum.accumulate(np.where(table.rows >= 0, np.arange(len(table.rows)), 0))
    rows = table.rows[place]
    return WindowKeys(table.names, windows, rows[first], rows[last])


def _labels(table: SeriesTable, windows: Windows, last: np.ndarray) -> np.ndarray | None:
    """Of each sample the label of its series, or of its last step."""
    if table.labels is None:
        return None
    labels = table.labels.labels
    found: np.ndarray = labels[windows.series] if len(labels) == len(table.counts) else labels[last]
    return found


def _bad(key: str, i: int, faults: dict[str, np.ndarray], count: int, longest: int) -> BadItem:
    code = next(code for code, found in faults.items() if found[i])
    reason, help = {
        "E381": (f"a series of {count} steps, {longest} are needed", "use a shorter context, horizon or window"),
        "E388": (
            f"a series of {count} steps, at most {longest} are taken",
            "cut it, or set data.length and train anew",
        ),
        "E331": ("a number that is not finite", "write NaN for what was not measured"),
        "E385": ("nothing was observed in it", "drop it"),
    }[code]
    return BadItem(key, code, reason, help)


def _constant(values: np.ndarray, table: SeriesTable) -> int:
    """How many series do not change in any channel."""
    starts = table.starts[table.counts > 0]
    if len(starts) == 0:
        return 0
    low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    return int(((low == high) | np.isnan(low)).all(1).sum())


def _gap_notes(values: np.ndarray, table: SeriesTable) -> list[str]:
    steps, place, channel = longest_gap(values, table.counts)
    if not steps:
        return []
    series = int(np.searchsorted(table.starts, place, "right")) - 1
    where = f"{table.names[series]}, step {place - int(table.starts[series])}"
    share = float(np.isnan(values).mean())
    return [
        f"{_percent(share)} % of the values are missing and taken as not observed; the longest run is {steps} steps of "
        f'"{table.channels[channel]}" ({where})'
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"


JUMP = 100.0
"""Files or groups whose values are so many times larger or smaller than the others' are named: a unit may have changed."""


def _drift_notes(values: np.ndarray, table: SeriesTable) -> list[str]:
    """Files or groups whose typical size of a channel is far from that of the others."""
    if table.parts is None or len(table.part_names) < 2:
        return []
    of_row = np.repeat(table.parts, table.counts)
    notes = []
    for channel, title in enumerate(table.channels):
        size = np.array([_size(values[of_row == part, channel]) for part in range(len(table.part_names))])
        known = np.flatnonzero(size > 0)
        usual = np.sort(size[known])[(len(known) - 1) // 2] if len(known) else 1.0
        for part in known[(size[known] > JUMP * usual) | (size[known] * JUMP < usual)].tolist():
            notes.append(
                f'"{title}" is {size[part] / usual:.3g} times as large in {table.part_names[part]} as in the others: check its unit'
            )
    return notes


def _size(column: np.ndarray) -> float:
    """The median magnitude of the values that are not 0, 0 where there are none."""
    found = np.abs(column[np.isfinite(column) & (column != 0)])
    return float(np.median(found)) if len(found) else 0.0
