"""Energies of windows of long series, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from accord.data.pairing_future import future
from accord.data.policy import Policy
from accord.data.samples import Samples
from accord.data.series import SeriesTable, series_samples
from accord.evaluate.over_time import MOST_VALUES, over_time
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor


class Last(nn.Module):
    """The last or the mean value of a series: with these the energy is the square of how far the future is from the last past value."""

    def __init__(self, mean: bool):
        super().__init__()
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1) if self.mean else x[:, -1]


def model() -> JointEmbedding:
    return JointEmbedding(Last(False), Last(True), IdentityPredictor())


def source(*series: np.ndarray, stride: int = 1) -> Samples:
    values = np.concatenate(series)[:, None]
    counts = np.array([len(one) for one in series], np.int64)
    names = [f"s{i}.csv" for i in range(len(series))]
    return series_samples("s", SeriesTable(values, counts, names, ("v",)), Policy(), window=6, stride=stride)


def test_each_step_has_the_mean_energy_of_the_windows_whose_future_holds_it() -> None:
    rng = np.random.default_rng(0)
    series = [rng.normal(size=40), rng.normal(size=25)]
    samples = source(*series)
    assert samples.windows is not None
    index = np.flatnonzero(samples.windows.first >= 10)
    found = over_time(model(), samples, index, future(context=4, horizon=2), seed=0)
    assert found is not None
    energies = [
        [(a + 4, (series[s][a + 4 : a + 6].mean() - series[s][a + 3]) ** 2) for a in range(10, len(series[s]) - 5)]
        for s in (0, 1)
    ]
    every = np.array([e for one in energies for _, e in one])
    median, high = np.median(every), np.quantile(every, 0.99)
    assert (found["median"], found["high"]) == pytest.approx((median, high), rel=1e-5)
    for s, one in enumerate(found["series"]):  # type: ignore[arg-type, var-annotated]
        assert (one["name"], one["first"], one["stride"]) == (f"s{s}.csv", 14, 1)
        assert len(one["surprise"]) == len(series[s]) - 14
        for t, value in enumerate(one["surprise"], 14):
            mean = np.mean([e for first, e in energies[s] if first <= t < first + 2])
            assert value == pytest.approx((mean - median) / (high - median), abs=1e-3)


def test_a_step_that_is_odd_stands_out_and_one_that_no_window_judges_has_nothing() -> None:
    series = np.sin(np.arange(4000) / 50)
    series[2500] += 3
    samples = source(series, stride=4)
    index = np.arange(len(samples))
    found = over_time(model(), samples, index, future(context=4, horizon=2), seed=0)
    assert found is not None
    (one,) = found["series"]  # type: ignore[misc]
    values = [-9.0 if v is None else v for v in one["surprise"]]
    assert abs(int(np.argmax(values)) + one["first"] - 2500) <= 3
    assert None in one["surprise"], "of 4 steps two are judged"


def test_of_very_long_series_the_highest_of_each_stretch_is_kept() -> None:
    series = np.random.default_rng(0).normal(size=3 * MOST_VALUES) * 0.1
    series[7000] = 50
    samples = source(series)
    found = over_time(model(), samples, np.arange(len(samples)), future(context=4, horizon=2), seed=0)
    assert found is not None
    (one,) = found["series"]  # type: ignore[misc]
    assert len(one["surprise"]) <= MOST_VALUES
    place = int(np.argmax(one["surprise"]))
    assert abs(one["first"] + place * one["stride"] - 7000) <= one["stride"] + 2


def test_samples_that_are_no_windows_have_no_time() -> None:
    samples = source(np.random.default_rng(0).normal(size=60))
    samples.windows = None
    assert over_time(model(), samples, np.arange(4), future(context=4, horizon=2), seed=0) is None
