"""Windows of long series: where each lies, and a split by time that has no step in both parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np

from accord.errors import DataError, UsageError


class Windows(NamedTuple):
    """Where each window lies, N of them: which series it is from, its first and last step there, both int64 (N,).

    counts: int64 (S,), steps of each series. names: of the series. times: of all steps, one series after the other, int64
    microseconds since 1970 (UTC) or float64, None: unknown.
    """

    series: np.ndarray
    first: np.ndarray
    last: np.ndarray
    counts: np.ndarray
    names: Sequence[str] = ()
    times: np.ndarray | None = None

    @property
    def several(self) -> bool:
        """Whether a series has more than one window: only then can a split by time be meant."""
        return len(np.unique(self.series)) < len(self.series)

    def rows(self, kept: np.ndarray) -> Windows:
        """Some of the windows, by a mask or places."""
        return self._replace(series=self.series[kept], first=self.first[kept], last=self.last[kept])

    def times_at(self, series: np.ndarray, step: np.ndarray) -> np.ndarray | None:
        """The times of some steps of some series, None where times are unknown."""
        if self.times is None:
            return None
        found: np.ndarray = self.times[(np.cumsum(self.counts) - self.counts)[series] + step]
        return found

    def split(self, ok: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        """The ok windows as (train, held-out) indices: of each series the last `fraction` of its steps is held out.

        A window that straddles the border is in neither, so that no step is in both.

        Raises:
            DataError: if no window lies in one of the parts.
        """
        border = self.counts - np.floor(self.counts * fraction).astype(np.int64)
        edge = border[self.series]
        train, held_out = np.flatnonzero(ok & (self.last < edge)), np.flatnonzero(ok & (self.first >= edge))
        if fraction > 0.0 and ok.any() and 0 in (len(train), len(held_out)):
            length = int((self.last - self.first).max()) + 1
            raise DataError(
                f"no window of {length} steps fits in the {'first' if len(held_out) else 'last'} part of any series: the longest has "
                f"{int(self.counts.max())} steps, the last {fraction:g} of them are held out",
                where="data.held_out",
                help="use shorter windows, hold out whole series (--set data.hold_out_by=series), or another part, at least "
                f"{length / int(self.counts.max()):.2g}",
                code="E389",
            )
        return train, held_out


def places_of_windows(counts: np.ndarray, window: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """(series, first step) of every whole window, int64 (N,) each, in order.

    Raises:
        UsageError: for a window or stride below 1.

    >>> places_of_windows(np.array([5, 2, 3]), window=3, stride=2)
    (array([0, 0, 2]), array([0, 2, 0]))
    """
    for name, value in (("window", window), ("stride", stride)):
        if value < 1:
            raise UsageError(f"{name}={value}: expected at least 1", where=name, help=f"set {name} to 1 or more")
    number = np.maximum((np.asarray(counts, np.int64) - window) // stride + 1, 0)
    series = np.repeat(np.arange(len(counts)), number)
    first = (np.arange(len(series)) - np.repeat(np.cumsum(number) - number, number)) * stride
    return series, first


class WindowKeys(Sequence[str]):
    """Keys of windows, made when asked for: the name of the series and the rows of the first and last step, "file.csv:24-47"."""

    def __init__(self, names: Sequence[str], windows: Windows, first: np.ndarray, last: np.ndarray):
        self.names, self.windows, self.first, self.last = names, windows, first, last

    def __len__(self) -> int:
        return len(self.windows.series)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return f"{self.names[int(self.windows.series[i])]}:{self.first[i]}-{self.last[i]}"
