r"""The learning rate as a pure function of (step, plan): linear warm-up, then $\tfrac12(1 + \cos \pi t)$ down to zero.

A plan says how many steps there will be. A time budget changes it while training; what it was, and since when, is recorded, so
that the same plan gives the same rates again.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from accord.errors import UsageError

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Plan:
    """(step, total) pairs, oldest first: from `step` on, training was to end after `total` steps.

    Raises:
        UsageError: unless steps rise from 0 and every total lies after the step it was made at.
    """

    entries: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        steps = [step for step, _ in self.entries]
        rises = steps[:1] == [0] and all(a < b for a, b in itertools.pairwise(steps))
        if not rises or not all(total > step for step, total in self.entries):
            raise UsageError(
                f"not a plan: {list(self.entries)}",
                help="give (step, total) pairs: the first step is 0, steps rise, every total is after its step",
                code="E255",
            )

    @classmethod
    def of(cls, entries: Sequence[Sequence[int]]) -> Plan:
        """A plan from pairs, as JSON gives them."""
        return cls(tuple((int(step), int(total)) for step, total in entries))

    @property
    def total(self) -> int:
        """Steps in all, as it stands."""
        return self.entries[-1][1]

    def changed(self, step: int, total: int) -> Plan:
        """The plan with a new total from `step` on."""
        return Plan((*(e for e in self.entries if e[0] < step), (step, total)) if step else ((0, total),))

    def progress(self, step: float) -> float:
        """Share of the run that is done, in [0, 1]: continuous and rising, whatever was changed on the way."""
        done = 0.0
        ends = [start for start, _ in self.entries[1:]] + [math.inf]
        for (start, total), end in zip(self.entries, ends, strict=True):
            part = (min(step, end) - start) / (total - start)
            done += (1 - done) * min(part, 1.0)
            if step <= end:
                break
        return done


def learning_rate(step: int, plan: Plan, *, peak: float, warmup: float) -> float:
    """The rate of step 0, 1, ...; taken at the middle of the step, so that neither the first nor the last one is lost.

    Args:
        step: steps taken before.
        plan: how many there will be.
        peak: the rate after warm-up.
        warmup: share of the run over which the rate rises linearly from 0, in [0, 1).

    Half a cosine after warm-up: Loshchilov, Hutter 2017, arXiv:1608.03983; warm-up: Goyal et al. 2017, arXiv:1706.02677.
    """
    t = plan.progress(step + 0.5)
    if t < warmup:
        return peak * t / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))


def seconds_of(duration: str | float, *, where: str = "budget") -> float:
    """Seconds of "90s", "10m", "1.5h", "1d" or a plain number.

    Raises:
        UsageError: for anything else, and unless it is more than 0.
    """
    number = duration if isinstance(duration, int | float) else None
    if isinstance(duration, str) and (match := re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([smhd]?)\s*", duration)):
        number = float(match[1]) * UNITS[match[2]]
    if number is None or not 0 < number < math.inf:
        raise UsageError(
            f"{duration!r} is no length of time", where=where, help="write 90s, 10m or 1.5h, more than 0", code="E256"
        )
    return float(number)


class Pace:
    """Watches the clock of a run with a budget and says when its number of steps must change.

    Args:
        budget: seconds the run may take.
        tolerance: share of the budget by which the projected end may be off.

    The projection uses the pace of the last tenth of the budget, and is made every fiftieth of it.
    """

    def __init__(self, budget: float, *, tolerance: float = 0.05):
        self.budget = budget
        self.tolerance = tolerance
        self._seen: deque[tuple[int, float]] = deque(maxlen=6)

    def total(self, step: int, seconds: float, plan: Plan) -> int | None:
        """A new total after `step` steps in `seconds`, or None while the plan will do."""
        if self._seen and seconds - self._seen[-1][1] < self.budget / 50:
            return None
        self._seen.append((step, seconds))
        first_step, first_seconds = self._seen[0]
        if step <= first_step:
            return None
        each = (seconds - first_seconds) / (step - first_step)
        end = seconds + (plan.total - step) * each
        if abs(end - self.budget) <= self.tolerance * self.budget:
            return None
        return steps_for(self.budget, each, step=step, seconds=seconds)


def steps_for(budget: float, each: float, *, step: int = 0, seconds: float = 0.0) -> int:
    """Steps in all, when `step` took `seconds` and every further one takes `each`; at least one more."""
    return step + max(1, round((budget - seconds) / each))


class Clock:
    """Seconds of training so far, those before an interruption included. Monotonic: a changed system clock does nothing to it."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def set(self, seconds: float) -> None:
        """Goes on from here."""
        self._start = time.perf_counter() - seconds

    def __call__(self) -> float:
        return time.perf_counter() - self._start
