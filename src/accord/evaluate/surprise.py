r"""Surprise over time: the energies of overlapping windows as one number per step, in units of what was usual, or as a likelihood.

An energy has no scale of its own. Two are made here: the energies of windows that are known to be normal (`Usual`), or, of a stream, the
energies that came before (`likelihood`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from accord.errors import UsageError


def per_step(energy: np.ndarray, first: np.ndarray, length: int, steps: int) -> np.ndarray:
    """The energy of each step: the mean over the windows that judge it, NaN where none does, (steps,) float64.

    Args:
        energy: of each window, (windows,); NaN for a window without one.
        first: the first step that each window judges, (windows,) int: for pairs of past and future the first of the future.
        length: how many steps each judges; 1 and the last step of the window gives what is known at that moment.
        steps: in the whole series.

    Raises:
        UsageError: arrays of different lengths, a length below 1, or a window that does not lie within the series.
    """
    energy, first = np.asarray(energy, np.float64), np.asarray(first)
    if energy.shape != first.shape or energy.ndim != 1 or length < 1:
        raise UsageError(
            f"one first step per energy, and a length of 1 or more: got {energy.shape}, {first.shape}, {length}"
        )
    if len(first) and (first.min() < 0 or first.max() + length > steps):
        raise UsageError(f"windows from {first.min()} to {first.max() + length - 1} in a series of {steps} steps")
    known = np.isfinite(energy)
    begun = (np.bincount(first[known], weights, minlength=steps) for weights in (energy[known], None))
    total, count = (_of_the_last(values.astype(np.float64), length) for values in begun)
    mean: np.ndarray = np.divide(total, count, out=np.full(steps, np.nan), where=count > 0)
    return mean


def _of_the_last(values: np.ndarray, length: int) -> np.ndarray:
    """The sum of the last `length` values at each place; nothing is subtracted, so a huge one leaves no trace when it is past."""
    blocks = np.pad(values, (length, -len(values) % length)).reshape(-1, length)
    ending, beginning = blocks.cumsum(1), blocks[:, ::-1].cumsum(1)[:, ::-1]
    before = np.pad(beginning[:-1, 1:], ((0, 0), (0, 1)))  # of the block before, what is less than `length` ago
    sums: np.ndarray = (before + ending[1:]).reshape(-1)[: len(values)]
    return sums


class Usual(NamedTuple):
    """Energies that are usual: their median, and the height that only a given share of them exceeds."""

    median: float
    high: float

    def relative(self, energy: np.ndarray) -> np.ndarray:
        r"""$(F - \mathrm{median}) / (\mathrm{high} - \mathrm{median})$: 0 is usual, 1 is as odd as the oddest of what is usual."""
        scaled: np.ndarray = (np.asarray(energy, np.float64) - self.median) / max(self.high - self.median, 1e-300)
        return scaled


def usual(energy: np.ndarray, *, share: float = 0.01) -> Usual:
    """The scale of energies of windows that are known to be normal and were not trained on; quantiles, so that few odd ones do no harm.

    Raises:
        UsageError: without a finite energy, or with a share that is not between 0 and 1/2.
    """
    known = np.asarray(energy, np.float64)
    known = known[np.isfinite(known)]
    if not len(known) or not 0 < share < 0.5:
        raise UsageError(f"a scale needs finite energies and a share between 0 and 1/2, got {len(known)} and {share}")
    return Usual(float(np.median(known)), float(np.quantile(known, 1 - share)))


def likelihood(energy: np.ndarray, *, short: int = 10, history: int = 8000, least: int = 100) -> np.ndarray:
    r"""How unlikely the mean of the last few energies is, given those before, $-\log_{10} Q(z_t)$, (n,) float64.

    $z_t = (m_t - \mu_t) / \sigma_t$ with $m_t$ the mean of the last `short` energies up to t, $\mu_t$ and $\sigma_t$ mean and (biased)
    standard deviation of at most `history` energies before those, and Q the upper tail of the normal distribution: 3 is one in a thousand
    if energies were normal and independent, which they are not, so read it as a scale. 0 until `least` energies came before. Causal:
    nothing after t is looked at. After the anomaly likelihood of Lavin, Ahmad 2015, arXiv:1510.03336 (Ahmad, Lavin, Purdy, Agha 2017).

    Args:
        energy: in order of time, finite; logarithms of energies whose tail is heavy.
        short: how many are averaged.
        history: how many they are compared with.
        least: how many it takes to compare.

    Raises:
        UsageError: energies that are not finite, or numbers below 1.
    """
    energy = np.asarray(energy, np.float64)
    if energy.ndim != 1 or not np.isfinite(energy).all():
        raise UsageError(f"energies are finite numbers in order of time: got {energy.shape} with some that are not")
    if min(short, history, least) < 1:
        raise UsageError(f"short, history and least are 1 or more, got {short}, {history} and {least}")
    centre = energy.mean() if len(energy) else 0.0  # for precision only: it cancels
    sums, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (energy - centre, (energy - centre) ** 2))
    end = np.arange(1, len(energy) + 1)
    before = np.maximum(end - short, 0)
    start = np.maximum(before - history, 0)
    count = np.maximum(before - start, 1)
    mean = (sums[before] - sums[start]) / count
    deviation = np.sqrt(np.maximum((squares[before] - squares[start]) / count - mean**2, 0))
    recent = (sums[end] - sums[before]) / np.maximum(end - before, 1)
    z = (recent - mean) / np.maximum(deviation, 1e-9 * (1 + np.abs(mean + centre)))
    tail = -torch.special.log_ndtr(torch.from_numpy(-z)).numpy() / np.log(10)
    return np.where(before - start >= least, tail, 0.0)
