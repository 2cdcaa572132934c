r"""The score of the Numenta Anomaly Benchmark: what an alarm is worth depends on how early in a labelled window it comes.

The worth of an alarm at the relative place $y$ is $\sigma(y) = 2 / (1 + e^{5 y}) - 1$: $y$ runs from -1 at the start of a window to just
below 0 at its end, and behind a window from there on in its lengths. A window counts its best (first) alarm, $\sigma(y)/\sigma(-1)$ times
the weight of a hit, or minus the weight of a miss; every alarm outside counts $\sigma(y)$ of the window before it (-1 from 3 lengths on,
or where there is none) times the weight of a false alarm. The total is scaled so that a detector that is silent has 0 and one that gives
one alarm at the start of each window, and no other, has 100. Lavin, Ahmad 2015, arXiv:1510.03336.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from accord.errors import UsageError

SHARE, LONGEST = 0.15, 750
"""The probationary period: alarms in this share of a series, of at most so many points, count nothing."""
FAR = 3.0
"""Lengths of a window behind it from which a false alarm counts in full."""


class Profile(NamedTuple):
    """Weights of a window that is found, an alarm outside windows, and a window that is missed."""

    hit: float
    false_alarm: float
    miss: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward_low_FP": Profile(1.0, 0.22, 1.0),
    "reward_low_FN": Profile(1.0, 0.11, 2.0),
}
"""The weights that the benchmark publishes results for."""


class Scored(NamedTuple):
    """What a detector says of one series, high where it is alarmed, (n,), and the labelled windows: first and last place, (windows, 2)."""

    score: np.ndarray
    windows: Sequence[tuple[int, int]] | np.ndarray


class Nab(NamedTuple):
    """The normalised score, and the threshold: alarms are scores that reach it, inf for none."""

    score: float
    threshold: float


def probation(n: int) -> int:
    """Points at the start of a series of `n` in which a detector may learn and is not judged."""
    return min(int(SHARE * n), LONGEST)


def worth(place: np.ndarray) -> np.ndarray:
    r"""$\sigma(y)$, -1 from 3 window lengths on."""
    place = np.asarray(place, np.float64)
    scaled: np.ndarray = np.where(place >= FAR, -1.0, 2 / (1 + np.exp(5 * np.minimum(place, FAR))) - 1)
    return scaled


def nab(corpus: Sequence[Scored], profile: Profile = PROFILES["standard"], *, threshold: float | None = None) -> Nab:
    """The score of a detector on a corpus, with one threshold for all series: the given one, or the best there is, as the benchmark does.

    A choice of threshold on the corpus itself is part of the published protocol; it is no estimate of what a threshold chosen elsewhere
    reaches.

    Raises:
        UsageError: no window in the whole corpus, scores that are not finite, or windows beyond a series.
    """
    windows = sum(len(series.windows) for series in corpus)
    if not windows:
        raise UsageError("no series has a labelled window: there is nothing to find")
    parts = [_gains(series, profile) for series in corpus]
    score, gain = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True)) if len(score) else np.zeros(0, int)
    totals = np.concatenate([[0.0], np.cumsum(gain[order])[last]])
    levels = np.concatenate([[np.inf], score[order][last]])
    if threshold is None:
        threshold = float(levels[totals.argmax()])
    reached = int(np.searchsorted(-levels, -threshold, side="right")) - 1
    return Nab(float(100 * totals[reached] / ((profile.hit + profile.miss) * windows)), threshold)


def windowed_gaussian(value: np.ndarray, *, window: int = 6400, step: int = 100) -> np.ndarray:
    r"""The benchmark's baseline: $1 - Q(|v - \mu| / \sigma)$ with mean and (biased) deviation of the values before, (n,).

    The window grows to its size and then moves on in steps. Rounded to 12 decimals, as its published results are: 39.6, 20.9 and 47.4 in
    the profiles standard, reward_low_FP and reward_low_FN.
    """
    value = np.asarray(value, np.float64) - np.mean(value)
    end = np.arange(len(value))
    end[window:] = window + (end[window:] - window) // step * step
    start = np.maximum(end - window, 0)
    count = np.maximum(end - start, 1)
    sums, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (value, value**2))
    mean = (sums[end] - sums[start]) / count
    deviation = np.sqrt(np.maximum((squares[end] - squares[start]) / count - mean**2, 0))
    z = np.abs(value - mean) / np.where(deviation < 1e-9, 1e-6, deviation)
    score: np.ndarray = 1 - torch.erfc(torch.from_numpy(z) / 2**0.5).numpy() / 2
    score[:1] = 0.0
    return score.round(12)


def _gains(series: Scored, profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the points that are judged, and what each adds to the total (above silence) when the threshold sinks to it.

    Of a window the points that are not earlier than all with higher scores add nothing: only its best alarm counts.
    """
    score, start = _checked(series), probation(len(series.score))
    gain, outside = np.empty(len(score)), np.ones(len(score), bool)
    behind = np.full(len(score), FAR)
    for first, last in sorted((int(a), int(b)) for a, b in series.windows):
        outside[first : last + 1] = False
        length = last - first + 1
        behind[last + 1 :] = (np.arange(last + 1, len(score)) - last) / max(length - 1, 1)
        gain[first : last + 1] = _window_gains(score, first, last, start, profile)
    gain[outside] = profile.false_alarm * worth(behind[outside])
    return score[start:], gain[start:]


def _window_gains(score: np.ndarray, first: int, last: int, start: int, profile: Profile) -> np.ndarray:
    """What each point of a window adds; those in the probationary period are never alarms."""
    length = last - first + 1
    value = profile.hit * worth(-np.arange(length, 0, -1) / length) / worth(np.array(-1.0))
    value += profile.miss
    order = np.argsort(-score[first : last + 1], kind="stable")
    order = order[order >= start - first]
    best = np.maximum.accumulate(value[order])
    added = np.zeros(length)
    added[order] = np.diff(best, prepend=0.0)
    return added


def _checked(series: Scored) -> np.ndarray:
    score = np.asarray(series.score, np.float64)
    if score.ndim != 1 or not np.isfinite(score).all():
        raise UsageError(f"scores are finite numbers, one per point: got {score.shape} with some that are not")
    for first, last in series.windows:
        if not 0 <= first <= last < len(score):
            raise UsageError(f"a window from {first} to {last} in a series of {len(score)} points")
    return score
