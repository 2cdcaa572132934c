"""Surprise over the time of long series, for evaluation.json and the report: what the energies of windows say of each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from accord.data.pairing import Pairing
from accord.data.pairing_future import Future
from accord.data.samples import Samples
from accord.data.windows import Windows
from accord.evaluate.energy import scores
from accord.evaluate.features import Stop, never
from accord.evaluate.surprise import Usual, likelihood, per_step, usual
from accord.model.joint_embedding import JointEmbedding

MOST_SERIES, MOST_VALUES = 12, 4000
"""Series that are kept, and values of each; of more steps the highest of each stretch."""
DRAWS = 8


def over_time(
    model: JointEmbedding,
    samples: Samples,
    index: np.ndarray,
    pairing: Pairing,
    *,
    seed: int,
    stop: Stop = never,
) -> dict[str, object] | None:
    """The energies of the windows `index` step by step, relative to what is usual among them; None where samples are no windows.

    A window judges all its steps, and where pairs are of past and future the steps of the future. 1 % of the windows lie above 1 by
    definition: the figures say where surprise is, not whether there is any.

    Returns:
        "median" and "high" (the energies at 0 and at 1), "all_series" (how many there are), and "series", of the first 12: "name",
        "first" (step of the first value), "stride" (steps per value) and "surprise", None for steps that no window judges. Also None if
        no energy is finite.
    """
    windows = samples.windows
    if windows is None or not len(index):
        return None
    draws = DRAWS if pairing.random else 1
    energy = scores(model, samples, index, pairing, seed=seed, draws=draws, stop=stop).numpy()
    if not np.isfinite(energy).any():
        return None
    scale, some = usual(energy), windows.rows(index)
    first, length = steps_judged(some, pairing)
    found = []
    there = np.unique(some.series)
    for place in there[:MOST_SERIES].tolist():
        mine = some.series == place
        found.append({"name": some.names[place], **_one(energy[mine], first[mine], int(length.max()), scale)})
    return {"median": scale.median, "high": scale.high, "all_series": len(there), "series": found}


class Course(NamedTuple):
    """Of every step of one series, (steps,), NaN where nothing is known: energy, surprise and likelihood."""

    series: int
    energy: np.ndarray
    surprise: np.ndarray
    likelihood: np.ndarray


def courses(energy: np.ndarray, windows: Windows, pairing: Pairing, scale: Usual) -> Iterator[Course]:
    """The energies of windows, NaN for a window without one, step by step, one series after the other.

    - energy: the mean over the windows that judge the step; surprise: the same in units of what is usual (`Usual.relative`).
    - likelihood: how unlikely the energies of the last windows are, given those before (`likelihood`), at the last step of each window:
      what is known at that moment, with nothing that comes after.
    """
    first, length = steps_judged(windows, pairing)
    known = np.flatnonzero(np.isfinite(energy))
    known = known[np.lexsort((windows.last[known], windows.series[known]))]
    border = np.searchsorted(windows.series[known], np.arange(len(windows.counts) + 1))
    for series, steps in enumerate(windows.counts.tolist()):
        mine = known[border[series] : border[series + 1]]
        mean, unlikely = np.full(steps, np.nan), np.full(steps, np.nan)
        if len(mine):
            mean = per_step(energy[mine], first[mine], int(length[mine[0]]), steps)
            unlikely[windows.last[mine]] = likelihood(energy[mine])
        yield Course(series, mean, scale.relative(mean), unlikely)


class Stretch(NamedTuple):
    """Where surprise is highest: the series, the steps around its height that are above what is usual, and the height."""

    series: int
    first: int
    last: int
    surprise: float


def highest(found: Course, level: float = 1.0) -> Stretch | None:
    """The stretch of steps with more than `level` around the highest, or that step alone; None where nothing is known."""
    if not np.isfinite(found.surprise).any():
        return None
    top = int(np.nanargmax(found.surprise))
    above = np.flatnonzero(~(found.surprise > level))
    before, after = above[above < top], above[above > top]
    first = int(before[-1]) + 1 if len(before) else 0
    last = int(after[0]) - 1 if len(after) else len(found.surprise) - 1
    if not found.surprise[top] > level:
        first = last = top
    return Stretch(found.series, first, last, float(found.surprise[top]))


def steps_judged(windows: Windows, pairing: Pairing) -> tuple[np.ndarray, np.ndarray]:
    """The first of the steps that the energy of each window judges, and how many: all, or where it has a future those of the future."""
    length = windows.last - windows.first + 1
    if isinstance(pairing, Future):
        length = np.minimum(length, pairing.horizon)
    return windows.last - length + 1, length


def _one(energy: np.ndarray, first: np.ndarray, length: int, scale: Usual) -> dict[str, object]:
    """Of one series."""
    start = int(first.min())
    steps = int(first.max()) + length - start
    values = scale.relative(per_step(energy, first - start, length, steps))
    stride = -(-steps // MOST_VALUES)
    padded = np.concatenate([values, np.full(-steps % stride, np.nan)]).reshape(-1, stride)
    highest = np.where(np.isnan(padded), -np.inf, padded).max(1)
    shown = [round(v, 4) if np.isfinite(v) else None for v in highest.tolist()]
    return {"first": start, "stride": stride, "surprise": shown}
