"""Energies of windows as numbers of steps, against loops; scales of surprise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from accord.errors import UsageError
from accord.evaluate.surprise import likelihood, per_step, usual


def test_a_step_has_the_mean_of_the_windows_that_judge_it() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 26, 15)
    energy = rng.random(15)
    energy[3] = math.nan
    found = per_step(energy, first, 5, 40)
    for t in range(40):
        covering = [e for e, a in zip(energy, first, strict=True) if a <= t < a + 5 and not math.isnan(e)]
        if covering:
            assert found[t] == pytest.approx(np.mean(covering), abs=1e-12)
        else:
            assert math.isnan(found[t])
    assert np.isnan(found[31:]).all()


@pytest.mark.parametrize(("length", "steps"), [(1, 7), (3, 9), (4, 30), (7, 7)])
def test_a_huge_energy_leaves_no_trace_in_steps_that_its_window_does_not_judge(length: int, steps: int) -> None:
    first = np.arange(steps - length + 1)
    energy = np.full(len(first), 0.1)
    energy[0] = 1e20
    found = per_step(energy, first, length, steps)
    assert found[:length].min() > 1e18
    np.testing.assert_allclose(found[length:], 0.1, rtol=1e-12)


def test_windows_that_do_not_fit_are_refused() -> None:
    for first, length in (([36], 5), ([-1], 5), ([0, 1], 5), ([0], 0)):
        with pytest.raises(UsageError):
            per_step(np.ones(1), np.array(first), length, 40)


def test_what_is_usual_lies_between_0_and_1_and_few_odd_windows_do_not_move_it() -> None:
    energy = np.random.default_rng(0).exponential(size=5000)
    scale = usual(energy)
    assert (scale.relative(energy) > 1).mean() == pytest.approx(0.01, abs=0.002)
    assert np.median(scale.relative(energy)) == pytest.approx(0, abs=1e-12)
    dirty = usual(np.append(energy, np.full(10, 1e6)))
    assert dirty.high < 1.2 * scale.high
    assert usual(np.array([1.0, math.nan])).median == 1.0
    with pytest.raises(UsageError):
        usual(np.array([math.nan]))
    with pytest.raises(UsageError):
        usual(energy, share=0.5)


@pytest.mark.parametrize(("short", "history"), [(1, 1000), (4, 30)])
def test_likelihood_is_the_tail_of_what_came_before(short: int, history: int) -> None:
    energy = np.random.default_rng(1).normal(100, 2, 80)
    found = likelihood(energy, short=short, history=history, least=10)
    for t in range(80):
        recent = energy[max(t + 1 - short, 0) : t + 1]
        before = energy[max(t + 1 - short - history, 0) : max(t + 1 - short, 0)]
        if len(before) < 10:
            assert found[t] == 0
            continue
        z = (recent.mean() - before.mean()) / before.std()
        assert found[t] == pytest.approx(-math.log10(math.erfc(z / math.sqrt(2)) / 2), abs=1e-6)


def test_likelihood_sees_a_rise_at_once_and_never_the_future() -> None:
    energy = np.random.default_rng(2).random(500)
    odd = energy.copy()
    odd[300:310] += 4
    plain, found = likelihood(energy), likelihood(odd)
    assert np.allclose(found[:300], plain[:300])
    assert found[300:310].max() > 20
    assert plain[100:].max() < 5
    assert np.isfinite(likelihood(np.zeros(300))).all()
    assert np.isfinite(likelihood(np.append(np.zeros(200), 1.0))).all()
    assert len(likelihood(np.zeros(0))) == 0
    with pytest.raises(UsageError):
        likelihood(np.array([1.0, math.inf]))
    with pytest.raises(UsageError):
        likelihood(energy, short=0)
