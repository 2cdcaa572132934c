"""Calibration by groups (Mondrian): a pair is held against calibration pairs of its own group, so that p-values are valid in each."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from accord.errors import DataError, UsageError
from accord.evaluate.calibrate import Calibration, Groups, needed

LISTED = 5


def by_group(calibration: Calibration, column: str) -> dict[str, Calibration]:
    """One calibration for each group of `column`, of its pairs alone.

    Raises:
        UsageError: unless the calibration was made by the groups of this column.
    """
    groups = calibration.groups
    if groups is None or groups.column != column:
        made = "without groups" if groups is None else f"by the groups of {groups.column!r}"
        raise UsageError(
            f"this run was calibrated {made}, not by those of {column!r}",
            where=f"--group {column}",
            help=f"accord evaluate RUN --group {shlex.quote(column)}",
            code="E244",
        )
    parts = ((name, calibration.energies[groups.of == place]) for place, name in enumerate(groups.names))
    return {name: replace(calibration, energies=part, groups=None) for name, part in parts if len(part)}


@dataclass(frozen=True, eq=False)
class Grouped:
    """What calibrations of groups say of pairs each of which belongs to a group.

    Args:
        of: the calibration of each group, by its name.
        groups: those of the pairs that are asked about.
        alpha: a level that every group that occurs has to support; None: a single calibration pair is enough.
        where: source of the pairs, for messages.

    Raises:
        DataError: for groups that have fewer calibration pairs than needed, or none: their names, how many they have, how many it takes.
    """

    of: dict[str, Calibration]
    groups: Groups
    alpha: float | None = None
    where: str = ""

    def __post_init__(self) -> None:
        least = 1 if self.alpha is None else needed(self.alpha)
        occur = [self.groups.names[place] for place in np.unique(self.groups.of[self.groups.of >= 0]).tolist()]
        have = {name: len(self.of[name].energies) if name in self.of else 0 for name in occur}
        poor = [f"{name!r} has {count:,}" for name, count in have.items() if count < least]
        if poor:
            what = "a p-value" if self.alpha is None else f"a false-alarm rate of {self.alpha:g}"
            more = f" and {len(poor) - LISTED:,} more" if len(poor) > LISTED else ""
            raise DataError(
                f"{what} needs at least {least:,} calibration pairs of the same group: {', '.join(poor[:LISTED])}{more}",
                where=f"{self.where}:{self.groups.column}",
                help="leave these groups out, score without --group, use a larger rate, or train and calibrate with more of them",
                code="E369",
            )

    def p_values(self, energies: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The p of pairs `rows`, float64; NaN where the energy is none or the pair has no group."""
        found = np.full(len(rows), np.nan)
        for calibration, mine in self._parts(rows):
            found[mine] = calibration.p_values(energies[mine])
        return found

    def in_accord(self, energies: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of the pairs `rows` is at most the threshold of its group at `alpha`, bool; never where p is NaN."""
        assert self.alpha is not None
        found = np.zeros(len(rows), np.bool_)
        for calibration, mine in self._parts(rows):
            found[mine] = calibration.in_accord(energies[mine], self.alpha)
        return found

    def thresholds(self) -> dict[str, float]:
        """Up to which energy a pair of each group that occurs is in accord at `alpha`."""
        assert self.alpha is not None
        occur = [self.groups.names[place] for place in np.unique(self.groups.of[self.groups.of >= 0]).tolist()]
        return {name: self.of[name].threshold(self.alpha) for name in occur}

    def _parts(self, rows: np.ndarray) -> Iterator[tuple[Calibration, np.ndarray]]:
        of = self.groups.of[rows]
        for place in np.unique(of[of >= 0]).tolist():
            yield self.of[self.groups.names[place]], of == place
