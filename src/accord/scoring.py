"""The verb `score`: how much each pair belongs together, and how many pairs that do have at least its energy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from accord.data.samples import Samples, pair_content
from accord.errors import DataError, UsageError
from accord.evaluate.by_group import Grouped, by_group
from accord.evaluate.calibrate import Calibration, load_calibration, model_hash
from accord.evaluate.surprise import usual
from accord.output import require_picture, require_writable, table_file
from accord.run import Run, open_run
from accord.scoring_steps import InTime
from accord.terminal import Terminal
from accord.train.signals import stop_on_signals
from accord.verbs import Problems, Result, batches, say_notes


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks for.

    y: a second source, paired row by row. alpha: flag pairs at this false-alarm rate. group: hold each pair against calibration pairs
    of its own group, which this column says. allow_overlap: score what was trained on. column: the image column of tables.
    steps: a table of every step of series, too. sheet: a PNG of it.
    """

    y: str | None = None
    alpha: float | None = None
    group: str | None = None
    allow_overlap: bool = False
    column: str | None = None
    steps: Path | None = None
    sheet: Path | None = None


def score(run_directory: Path, source: str, output: Path, wanted: Wanted, *, terminal: Terminal) -> Result:
    """Writes the energy and the p-value of each pair, in order; a bad pair keeps its row without numbers.

    Windows of series also have their place in time.

    Raises:
        UsageError: for a file that cannot be written, groups the run was not calibrated by, or steps of what is no window of a series.
        DataError: for a level that the calibration pairs, of any group, are too few for, or items that were trained on.
        ArtifactError: without a calibration of this model.
    """
    _check(output, wanted)
    run = open_run(run_directory)
    calibration = load_calibration(
        run_directory / "calibration.json", model=model_hash(run.model), preprocess=run.preprocess_hash()
    )
    if wanted.alpha is not None and wanted.group is None:
        calibration.threshold(wanted.alpha)  # refused before anything is read
    parts = None if wanted.group is None else by_group(calibration, wanted.group)
    side: Literal["x"] | None = None if wanted.y is None else "x"
    samples = run.open_data(source, column=wanted.column, side=side).kept()
    say_notes(samples, terminal)
    over_time = None if wanted.y is not None else scored_in_time(run, samples, calibration, wanted)
    others = None if wanted.y is None else open_second(run, samples, wanted.y, wanted.column).kept()
    if others is not None and run.calibrated_on is not None:
        terminal.say(f"note: {run.calibrated_on}")
    if not wanted.allow_overlap:
        sides = others is not None and run.recipe.data.x is not None and run.recipe.data.y is not None
        content = pair_content(samples, others) if others is not None and sides else samples.content
        good = samples.ok if others is None else samples.ok & others.ok
        calibration.refuse_overlap(content[good], where=source)
    problems = Problems(samples, others)
    judge = Judge(calibration, wanted.alpha)
    if parts is not None and wanted.group is not None:
        groups = run.groups(source, wanted.group, images=wanted.column, side=side)
        judge = Judge(calibration, wanted.alpha, Grouped(parts, groups, wanted.alpha, source))
        problems.refuse(np.flatnonzero((groups.of < 0) & samples.ok), f"no {wanted.group} to compare within")
    with stop_on_signals() as stop, table_file(output, rows=len(samples)) as table:
        for index in batches(samples):
            stop.check("scoring")
            good = problems.readable(index)
            check = partial(stop.check, "scoring")
            if others is None:
                energies = run.energies(samples, good, stop=check)
            else:
                energies = run.energies_of_pairs(samples, others, good, stop=check)
            problems.refuse(good[~np.isfinite(energies)], "the energy is not finite")
            energy = problems.spread(index, good, energies)
            where = {} if over_time is None else over_time.add(index, energy)
            table.write({**problems.columns(index), **where, "energy": energy, **judge(energy, index)})
        more = {} if over_time is None else over_time.write(wanted.steps, wanted.sheet)
    files = "".join(f", {path}" for path in (wanted.steps, wanted.sheet) if path is not None)
    terminal.say(f"{len(samples):,} pairs, {problems.count:,} of them bad: {output}{files}")
    if over_time is not None:
        over_time.say(terminal)
    told = {"output": str(output), "rows": len(samples), "bad": problems.count, "alpha": wanted.alpha}
    return {**told, "group": wanted.group, "threshold": judge.threshold, **more}


def _check(output: Path, wanted: Wanted) -> None:
    """Refuses what could not be written at the end, before anything is computed."""
    require_writable(output, vectors=False)
    if wanted.steps is not None:
        require_writable(wanted.steps, vectors=False)
        if wanted.steps.resolve() == output.resolve():
            raise UsageError(
                "the table of steps would replace that of the windows",
                where=str(wanted.steps),
                help="name another file with --steps",
                code="E222",
            )
    if wanted.sheet is not None:
        require_picture(wanted.sheet)
    for option, value in (("--steps", wanted.steps), ("--sheet", wanted.sheet)):
        if value is not None and wanted.y is not None:
            raise UsageError(
                f"{option} is for the pairs that the run makes of one series, not for those of two sources",
                where=option,
                help="leave out --y",
                code="E247",
            )


def scored_in_time(run: Run, samples: Samples, calibration: Calibration, wanted: Wanted) -> InTime | None:
    """What collects energies over time; None where samples are no windows.

    Raises:
        UsageError: if steps are asked for all the same.
    """
    if samples.windows is not None:
        return InTime(samples.windows, run.pairing, usual(calibration.energies))
    for option, value in (("--steps", wanted.steps), ("--sheet", wanted.sheet)):
        if value is not None:
            whole = " as a whole" if samples.kind == "series" else " data"
            raise UsageError(
                f"there are no steps: this run was trained on {samples.kind}{whole}, not on windows of series",
                where=option,
                help=f"leave out {option}, or train on series with --set pairing.name=future or --set data.window=STEPS",
                code="E247",
            )
    return None


@dataclass(frozen=True, eq=False)
class Judge:
    """Says what energies mean: against all calibration pairs, or against those of the same group."""

    calibration: Calibration
    alpha: float | None
    grouped: Grouped | None = None

    def __call__(self, energy: np.ndarray, rows: np.ndarray) -> dict[str, object]:
        """Columns of the table: the group and its p-value where there are groups; whether a pair is in accord where there is a level."""
        columns: dict[str, object] = {}
        if self.grouped is None:
            columns["p_value"] = self.calibration.p_values(energy)
        else:
            names, of = self.grouped.groups.names, self.grouped.groups.of[rows].tolist()
            columns["group"] = pa.array([None if place < 0 else names[place] for place in of], pa.string())
            columns["p_value"] = self.grouped.p_values(energy, rows)
        if self.alpha is not None:
            known = ~np.isnan(energy)
            fine = self._in_accord(energy, rows, self.alpha)
            columns["in_accord"] = pa.array(fine, mask=~known)
        return columns

    def _in_accord(self, energy: np.ndarray, rows: np.ndarray, alpha: float) -> np.ndarray:
        if self.grouped is None:
            return self.calibration.in_accord(energy, alpha)
        return self.grouped.in_accord(energy, rows)

    @property
    def threshold(self) -> float | dict[str, float] | None:
        """Up to which energy a pair is in accord; of each group that occurs."""
        if self.alpha is None:
            return None
        if self.grouped is None:
            return self.calibration.threshold(self.alpha)
        return self.grouped.thresholds()


def open_second(run: Run, samples: Samples, y: str, column: str | None) -> Samples:
    """The other halves of pairs whose first halves are `samples`.

    Raises:
        DataError: if there are more or fewer.
    """
    others = run.open_data(y, column=column, side="y")
    if len(others) != len(samples):
        raise DataError(
            f"{len(samples):,} x in {samples.name}, but {len(others):,} y in {others.name}",
            where=f"{samples.name} and {others.name}",
            help="row i of the one belongs to row i of the other: give as many",
            code="E366",
        )
    return others
