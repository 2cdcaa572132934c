"""Energies of windows of long series, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from accord.data.pairing_future import future
from accord.data.pairing_parts import columns
from accord.data.policy import Policy
from accord.data.samples import Samples
from accord.data.series import SeriesTable, series_samples
from accord.evaluate.over_time import MOST_VALUES, Course, Stretch, courses, highest, over_time
from accord.evaluate.surprise import Usual, likelihood
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


def test_courses_are_means_relative_to_the_scale_and_what_is_unlikely_at_the_moment() -> None:
    rng = np.random.default_rng(0)
    samples = source(rng.normal(size=300), rng.normal(size=8))
    assert samples.windows is not None
    energy = rng.normal(size=len(samples)) ** 2
    energy[5] = np.nan
    pairs, scale = future(context=4, horizon=2), Usual(0.5, 2.0)
    first, second = courses(energy, samples.windows, pairs, scale)
    assert len(first.energy) == 300 and len(second.energy) == 8
    assert np.isnan(first.energy[:4]).all() and np.isnan(first.likelihood[:5]).all(), "nothing judges the first past"
    assert first.energy[4] == pytest.approx(energy[0]) and first.energy[5] == pytest.approx((energy[0] + energy[1]) / 2)
    assert first.energy[9] == pytest.approx(energy[4]), "the window without an energy counts nowhere"
    assert np.isnan(first.likelihood[10]), "it ends there"
    np.testing.assert_allclose(first.surprise[4:], (first.energy[4:] - 0.5) / 1.5)
    kept = np.delete(np.arange(295), 5)
    np.testing.assert_allclose(first.likelihood[kept + 5], likelihood(energy[kept]))
    assert second.energy[7] == pytest.approx(energy[-1])
    whole = next(courses(energy, samples.windows, columns([0], [1]), scale))  # pairs without a future judge all steps
    assert whole.energy[0] == pytest.approx(energy[0]) and whole.energy[1] == pytest.approx(energy[:2].mean())


@pytest.mark.parametrize(
    ("surprise", "stretch"),
    [
        ([0.0, 1.5, 3.0, 1.2, 0.9, 2.0], (1, 3, 3.0)),
        ([2.0, 2.5, np.nan, 2.4], (0, 1, 2.5)),
        ([0.1, 0.7, 0.2], (1, 1, 0.7)),
        ([0.1, 0.7, 9.0], (2, 2, 9.0)),
        ([np.nan, np.nan], None),
    ],
)
def test_the_highest_stretch(surprise: list[float], stretch: tuple[int, int, float] | None) -> None:
    values = np.array(surprise)
    found = highest(Course(3, values, values, values))
    assert found == (None if stretch is None else Stretch(3, *stretch))
