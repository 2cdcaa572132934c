"""When a run is looked at, and what its embeddings have lost since it began and go on losing: what is known of it early.

In the first tenth of a run no value proves a collapse: an untrained network may have a nearly constant embedding and an energy that
tells nothing. What counts is the trend. Healthy runs lose dimensions, too, while training sets in, but then keep the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

EARLY, EARLY_LOOKS, EARLY_BETWEEN = 0.1, 20, 4
"""Looks in the first tenth of a run, at most, and steps from one to the next, at least. What will collapse starts to within it."""
LATER_LOOKS, LATER_BETWEEN = 30, 16
"""The same for what follows. A look costs about as much as a step of 128 pairs: 2 % of 3,000 steps."""

SMALL = 0.25
"""A standard deviation below: principles that fix one fix it at 1."""
LOST_SCALE, LOST_RANK, GONE_RANK = 0.25, 0.28, 0.22
"""By trend: constant if the standard deviation is small and below this share of the largest one seen, dimensional if the
effective rank is below this share of the largest one seen."""
FALLING, STILL = 0.8, 0.98
"""And if it goes on falling: below this share of what it was at half the time, and of what it was three looks before, now and at the
look before. A healthy run went down to 0.31 of its dimensions (VICReg on digits), and kept these."""
GROWING = 1.05
"""While the standard deviation grows by this factor in half the time, dimensions are not lost: some only grow before others do.
Unless fewer than 0.22 of them are left."""
LOOKS_SCALE, LOOKS_RANK = 8, 16
"""No trend is told from fewer looks."""
SPAN = 4
"""Looks from which a trend is told, this one included."""


class Looks(NamedTuple):
    """The steps after which a run is judged: every `early` steps up to step `until`, then every `later`."""

    early: int
    until: int
    later: int

    @classmethod
    def over(cls, total: int, *, lines_every: int = 1) -> Looks:
        """Those of a run of `total` steps, in steps that have a line in the log anyway."""

        def spaced(least: float) -> int:
            return lines_every * max(1, int(least / lines_every))

        until = round(EARLY * total)
        early, later = until / EARLY_LOOKS, (total - until) / LATER_LOOKS
        return cls(spaced(max(EARLY_BETWEEN, early)), until, spaced(max(LATER_BETWEEN, later)))

    def due(self, step: int) -> bool:
        """Whether to look after so many steps."""
        return step % (self.early if step <= self.until else self.later) == 0


Trail = Sequence[tuple[float, float, float]]
"""Of each evaluation so far: progress, mean standard deviation, effective rank."""


def lost(trail: Trail) -> str | None:
    """What embeddings have lost since training began, and go on losing: "constant", "dimensional", or nothing."""
    if len(trail) < LOOKS_SCALE:
        return None
    times, stds, ranks = zip(*trail, strict=True)
    half = max((k for k, then in enumerate(times) if then <= times[-1] / 2), default=0)
    small = stds[-1] < min(SMALL, LOST_SCALE * max(stds))
    if small and _falls(stds, half):
        return "constant"
    limit = LOST_RANK if stds[-1] < GROWING * stds[half] else GONE_RANK
    if len(trail) >= LOOKS_RANK and ranks[-1] < limit * max(ranks) and _falls(ranks, half):
        return "dimensional"
    return None


def _falls(values: Sequence[float], half: int) -> bool:
    return values[-1] < min(FALLING * values[half], STILL * values[-SPAN])
