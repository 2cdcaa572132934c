"""The learning rate is a pure function of step and plan; a budget becomes a plan that ends on time."""

from __future__ import annotations

import itertools
import math

import pytest

from accord.errors import UsageError
from accord.train.schedule import Pace, Plan, learning_rate, seconds_of, steps_for


def rates(plan: Plan, warmup: float = 0.1, peak: float = 2.0) -> list[float]:
    return [learning_rate(step, plan, peak=peak, warmup=warmup) for step in range(plan.total)]


def test_warm_up_is_linear_and_the_rest_half_a_cosine() -> None:
    values = rates(Plan(((0, 100),)))
    for step, rate in enumerate(values):
        t = (step + 0.5) / 100
        expected = 2.0 * t / 0.1 if t < 0.1 else 1.0 + math.cos(math.pi * (t - 0.1) / 0.9)
        assert rate == pytest.approx(expected, rel=1e-12)
    assert min(values) > 0, "no step is wasted"
    assert max(values) <= 2.0


def test_no_warm_up_and_a_run_of_one_step() -> None:
    assert rates(Plan(((0, 1),)), warmup=0.0) == pytest.approx([1.0])
    assert rates(Plan(((0, 4),)), warmup=0.0)[0] > 1.9


def test_a_changed_plan_goes_on_without_a_jump_and_ends_at_zero() -> None:
    plan = Plan(((0, 1000),)).changed(300, 500).changed(400, 900)
    progress = [plan.progress(s) for s in range(901)]
    assert progress[0] == 0.0
    assert progress[300] == pytest.approx(0.3)
    assert progress[400] == pytest.approx(0.3 + 0.7 * 100 / 200)
    assert progress[900] == pytest.approx(1.0)
    assert all(0 < b - a < 0.004 for a, b in itertools.pairwise(progress))
    values = rates(plan)
    assert all(abs(a - b) < 0.03 for a, b in itertools.pairwise(values) if a != values[0])
    assert values[:300] == rates(Plan(((0, 1000),)))[:300], "what is done does not change afterwards"
    assert values[-1] < 1e-4


def test_the_plan_alone_decides() -> None:
    plan = Plan.of([[0, 50], [20, 40]])
    assert rates(plan) == rates(Plan(((0, 50),)).changed(20, 40))
    assert plan.changed(0, 10) == Plan(((0, 10),))
    assert Plan(((0, 9), (3, 7))).changed(3, 8) == Plan(((0, 9), (3, 8))), (
        "a second change at one step replaces the first"
    )


@pytest.mark.parametrize("entries", [(), ((1, 5),), ((0, 0),), ((0, 5), (0, 6)), ((0, 9), (5, 5))])
def test_what_is_no_plan_is_refused(entries: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(UsageError, match="not a plan"):
        Plan(entries)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2 d ", 172800), ("45", 45), (7, 7), (0.5, 0.5), (".5m", 30)],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10 minutes", "-5m", "0s", "1e3", "m", "nan", float("nan"), float("inf"), -1, "1h30m"]
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(UsageError, match="no length of time") as caught:
        seconds_of(text)
    assert "10m" in str(caught.value)


def simulate(
    budget: float, seconds_per_step: list[float], estimate: float, overhead: float = 0.0
) -> tuple[float, Plan]:
    """A run on a machine whose steps take these times, one after the other (the last for ever)."""
    plan, pace, clock, step = Plan(((0, steps_for(budget, estimate)),)), Pace(budget), 0.0, 0
    while step < plan.total:
        clock += seconds_per_step[min(step, len(seconds_per_step) - 1)] + overhead
        step += 1
        total = pace.total(step, clock, plan)
        if total is not None and step < plan.total:
            plan = plan.changed(step, total)
    return clock, plan


@pytest.mark.parametrize(
    ("times", "estimate"),
    [
        ([0.1], 0.1),  # as measured
        ([0.1], 0.03),  # three times slower than measured
        ([0.1], 0.5),  # five times faster
        ([0.1] * 300 + [0.2], 0.1),  # the machine gets busy half-way
        ([0.1] * 560 + [0.3], 0.1),  # near the end
        ([0.05 + 0.1 * (i % 2) for i in range(5000)], 0.1),  # noise
        ([3.0] * 40, 3.0),  # few long steps
    ],
)
def test_training_ends_within_five_per_cent_of_the_budget(times: list[float], estimate: float) -> None:
    end, plan = simulate(60.0, times, estimate)
    assert abs(end - 60.0) <= 0.05 * 60.0 + max(times) / 2
    assert len(plan.entries) <= 51


def test_a_run_that_keeps_to_its_plan_is_left_alone() -> None:
    _, plan = simulate(60.0, [0.1 + 0.003 * ((i % 3) - 1) for i in range(2000)], 0.1)
    assert plan.entries == ((0, 600),)
