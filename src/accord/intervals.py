r"""What a few repetitions tell: mean and interval by Student's t, paired differences, Holm's correction. Exact, without scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Mean of n values and half the width of its confidence interval; None where one value cannot tell."""

    mean: float
    half: float | None
    n: int


class Difference(NamedTuple):
    """Mean of n paired differences, half the width of its interval and the two-sided p-value of "there is none".

    p is None where nothing can be tested: with one pair, or where all differences are equal to the last digit, which says nothing
    of how they vary (figures that are counted, such as accuracies, come out equal by chance).
    """

    mean: float
    half: float | None
    p: float | None
    n: int


def spread(found: Interval | Difference, *, scale: float = 1.0, digits: int) -> str:
    """How far a mean may be off, as it is written beside it: "± 0.8", or only how many values there are, "n = 2".

    An interval of two values is wider than anything that is compared, and one that rounds to 0 claims a certainty that equal values
    do not give: figures that are counted come out equal by chance. "" for one value.
    """
    if found.half is None:
        return ""
    half = f"{scale * found.half:.{digits}f}"
    return f"± {half}" if found.n > 2 and float(half) else f"n = {found.n}"


def inside(t: float, freedom: int) -> float:
    r"""$P(|T| < t)$ of Student's t, t >= 0: the finite sums of Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.

    With $\theta = \arctan(t / \sqrt\nu)$: for odd $\nu$ $\frac{2}{\pi}(\theta + \sin\theta (\cos\theta + \frac23 \cos^3\theta + ...))$,
    for even $\nu$ $\sin\theta (1 + \frac12 \cos^2\theta + \frac{1 \cdot 3}{2 \cdot 4} \cos^4\theta + ...)$, up to $\cos^{\nu-2}$.
    """
    return _inside(math.atan(t / math.sqrt(freedom)), freedom)


def _inside(theta: float, freedom: int) -> float:
    odd, cosine = freedom % 2 == 1, math.cos(theta)
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    total *= math.sin(theta)
    return 2 / math.pi * (theta + total) if odd else total


def quantile(confidence: float, freedom: int) -> float:
    """The t that |T| stays below with this probability."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    r"""$\bar v \pm t_{n-1} s / \sqrt n$ with the unbiased standard deviation s (Student 1908).

    Raises:
        ValueError: without any value.
    """
    n = len(values)
    if not n:
        raise ValueError("an interval needs at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    return Interval(mean, quantile(confidence, n - 1) * _error(values, mean), n)


def difference(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Difference:
    """The mean of a - b over pairs, and the paired t-test.

    Raises:
        ValueError: if they are not equally many, or none.
    """
    pairs = [x - y for x, y in zip(a, b, strict=True)]
    mean, half, n = interval(pairs, confidence)
    if half is None:
        return Difference(mean, None, None, n)
    error = _error(pairs, mean)
    if error <= 1e-12 * max(1e-300, *map(abs, [*a, *b])):
        return Difference(mean, half, None, n)
    return Difference(mean, half, 1 - inside(abs(mean) / error, n - 1), n)


def _error(values: Sequence[float], mean: float) -> float:
    """Standard error of the mean."""
    n = len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number: with all below alpha kept, the chance of any false one is at most alpha.

    The i-th smallest of m is multiplied by m - i (i from 0), never falling below the one before, at most 1. What could not be tested
    counts as a test all the same. Holm 1979, Scandinavian Journal of Statistics 6.
    """
    found: list[float | None] = [None] * len(p)
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    least = 0.0
    for rank, (value, i) in enumerate(known):
        least = max(least, min(1.0, value * (len(p) - rank)))
        found[i] = least
    return found
