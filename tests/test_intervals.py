"""Intervals and tests of a few seeds, against closed forms, tables in print, and integration of the density."""

from __future__ import annotations

import math

import numpy as np
import pytest

from accord.intervals import difference, holm, inside, interval, quantile, spread

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}
"""Two-sided 5 % points of Student's t, as every textbook prints them."""


def density(t: float, freedom: int) -> float:
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    return math.exp(log - (freedom + 1) / 2 * math.log1p(t * t / freedom))


@pytest.mark.parametrize(("freedom", "t"), TABLE.items())
def test_quantiles_are_those_in_print(freedom: int, t: float) -> None:
    assert quantile(0.95, freedom) == pytest.approx(t, abs=6e-4)


def test_closed_forms_of_one_and_two_degrees_of_freedom() -> None:
    for t in (0.0, 0.3, 1.0, 4.0, 100.0):
        assert inside(t, 1) == pytest.approx(2 / math.pi * math.atan(t), abs=1e-14)
        assert inside(t, 2) == pytest.approx(t / math.sqrt(2 + t * t), abs=1e-14)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 11, 40])
@pytest.mark.parametrize("t", [0.5, 2.0, 6.0])
def test_the_probability_is_the_integral_of_the_density(freedom: int, t: float) -> None:
    grid = np.linspace(0, t, 20_001)
    values = np.array([density(x, freedom) for x in grid[::100]])
    integral = 2 * float(np.trapezoid(np.interp(grid, grid[::100], values), grid))
    assert inside(t, freedom) == pytest.approx(integral, abs=2e-4)


def test_quantile_and_probability_are_inverse() -> None:
    for freedom in (1, 2, 3, 7, 12):
        for confidence in (0.5, 0.9, 0.95, 0.999):
            assert inside(quantile(confidence, freedom), freedom) == pytest.approx(confidence, abs=1e-10)


def test_interval_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0 and found.n == 3
    assert found.half == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)
    assert interval([5.0]) == (5.0, None, 1), "one value has no interval"
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(3.0, 2.0, size=(4000, 4)).tolist()
    covered = [abs(found.mean - 3.0) <= (found.half or 0) for found in map(interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_differences_are_paired() -> None:
    a, b = [10.0, 20.0, 30.0], [9.0, 18.9, 29.1]
    found = difference(a, b)
    assert found.mean == pytest.approx(1.0) and found.n == 3
    t = 1.0 / (0.1 / math.sqrt(3))
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)
    assert found.p is not None and found.p < 0.01, "unpaired, the spread of 10 would hide a difference of 1"
    assert difference(b, a).mean == pytest.approx(-1.0) and difference(b, a).p == pytest.approx(found.p)


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0]), ([0.9, 0.9], [0.5, 0.5]), ([0.3, 0.3, 0.3], [0.1, 0.1, 0.1])])
def test_what_cannot_be_tested_is_not(a: list[float], b: list[float]) -> None:
    assert difference(a, b).p is None


def test_under_no_difference_p_is_uniform() -> None:
    rng = np.random.default_rng(1)
    p = [difference(*rng.normal(size=(2, 3)).tolist()).p for _ in range(4000)]
    for level in (0.05, 0.3, 0.7):
        assert np.mean([value is not None and value < level for value in p]) == pytest.approx(level, abs=0.025)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06]), "never below the one before"
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.01, None]) == [0.02, None], "what could not be tested counts"
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_find() -> None:
    p = np.random.default_rng(2).uniform(size=(4000, 5))
    plain = np.mean((p < 0.05).any(1))
    corrected = np.mean([min(v for v in holm(row) if v is not None) < 0.05 for row in p.tolist()])
    assert plain > 0.2 and corrected <= 0.06


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([0.5], ""),
        ([0.5, 0.5], "n = 2"),
        ([0.4, 0.6], "n = 2"),
        ([0.5, 0.5, 0.5], "n = 3"),
        ([0.5, 0.5001, 0.5], "n = 3"),
        ([0.49, 0.51, 0.5], "± 2.5"),
    ],
)
def test_no_interval_claims_more_than_its_values_tell(values: list[float], written: str) -> None:
    assert spread(interval(values), scale=100, digits=1) == written
