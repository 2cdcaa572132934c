"""What `score` adds for windows of series: where each lies, and surprise step by step, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from accord.data.pairing import Pairing
from accord.data.windows import Windows
from accord.evaluate.hypothesis_sheet import MARK
from accord.evaluate.line_sheet import Line, Panel, draw_lines
from accord.evaluate.over_time import Course, Stretch, courses, highest, steps_judged
from accord.evaluate.surprise import Usual
from accord.output import printed, table_file, time_column, window_columns
from accord.storage import replace_file
from accord.terminal import Terminal

MOST_PANELS = 12
"""Series on a picture: those with the highest surprise."""


class InTime:
    """Collects the energies of windows, batch by batch, and spreads them over the steps of their series.

    Args:
        windows: all that are scored.
        pairing: it says which steps of a window its energy judges.
        scale: of the calibration energies.
    """

    def __init__(self, windows: Windows, pairing: Pairing, scale: Usual):
        self.windows, self.pairing, self.scale = windows, pairing, scale
        self.energy = np.full(len(windows.series), np.nan)
        self.top: Stretch | None = None

    def add(self, index: np.ndarray, energy: np.ndarray) -> dict[str, pa.Array]:
        """Keeps the energies of some windows, NaN where there is none; columns that say where they lie."""
        self.energy[index] = energy
        some = self.windows.rows(index)
        return window_columns(some, *steps_judged(some, self.pairing))

    def write(self, steps: Path | None, sheet: Path | None) -> dict[str, Any]:
        """Writes the table of steps and the picture, if asked for; what ``--json`` says of both and of the most surprising stretch."""
        panels: list[tuple[float, Panel]] = []
        if steps is None:
            for course in self._courses():
                self._keep(course, panels)
        else:
            with table_file(steps, rows=int(self.windows.counts.sum())) as table:
                for course in self._courses():
                    table.write(self._columns(course))
                    self._keep(course, panels)
        if sheet is not None:
            replace_file(
                sheet,
                draw_lines(
                    [panel for _, panel in panels],
                    [("surprise: usual is up to 1", MARK)],
                    columns=1,
                    width=900,
                    height=170,
                    note=self._shown(len(panels)),
                ),
            )
        return {
            "steps": None if steps is None else str(steps),
            "sheet": None if sheet is None else str(sheet),
            "most_surprising": self._told(),
        }

    def say(self, terminal: Terminal) -> None:
        """The most surprising stretch, in words."""
        if self.top is not None:
            told = self._told()
            assert told is not None
            times = f" ({told['first_time']} to {told['last_time']})" if "first_time" in told else ""
            where = f"{told['series']}, steps {told['first_step']:,} to {told['last_step']:,}{times}"
            terminal.say(f"most surprising: {where}: {told['surprise']:.3g}, where usual is up to 1")

    def _courses(self) -> Iterator[Course]:
        return courses(self.energy, self.windows, self.pairing, self.scale)

    def _keep(self, course: Course, panels: list[tuple[float, Panel]]) -> None:
        """The most surprising stretch so far, and the panels with the most."""
        found = highest(course)
        if found is None:
            return
        if self.top is None or found.surprise > self.top.surprise:
            self.top = found
        name = self.windows.names[course.series]
        panels.append((found.surprise, Panel(name, [Line(0, course.surprise, MARK)], level=[1.0])))
        panels.sort(key=lambda one: -one[0])
        del panels[MOST_PANELS:]

    def _columns(self, course: Course) -> dict[str, Any]:
        step = np.arange(len(course.energy))
        columns: dict[str, Any] = {
            "series": pa.array([printed(self.windows.names[course.series])] * len(step), pa.string()),
            "step": pa.array(step, pa.int64()),
        }
        times = self.windows.times_at(np.full(len(step), course.series), step)
        if times is not None:
            columns["time"] = time_column(times)
        return columns | {"energy": course.energy, "surprise": course.surprise, "likelihood": course.likelihood}

    def _shown(self, panels: int) -> str:
        count = len(self.windows.counts)
        return f"{panels:,} of {count:,} series, those with the highest surprise" if panels < count else ""

    def _told(self) -> dict[str, Any] | None:
        if self.top is None:
            return None
        steps = np.array([self.top.first, self.top.last])
        told: dict[str, Any] = {"series": printed(self.windows.names[self.top.series])}
        told |= {"first_step": self.top.first, "last_step": self.top.last, "surprise": self.top.surprise}
        times = self.windows.times_at(np.full(2, self.top.series), steps)
        if times is not None:
            said = times.astype("datetime64[us]").astype("datetime64[s]") if times.dtype == np.int64 else times
            told |= {"first_time": str(said[0]), "last_time": str(said[1])}
        return told
