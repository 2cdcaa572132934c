"""A comparison on the terminal: tables, and what they support in words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from accord.intervals import Interval, spread
from accord.report.compare_numbers import METRICS, Metric, Results, best, means
from accord.report.compare_read import results_of
from accord.report.read import View
from accord.terminal import Terminal

BASELINES = {"untrained": "untrained", "pca": "PCA of the input", "pixels": "raw input"}


def told(outcome: Mapping[str, Any]) -> str:
    """What came of a job, in a line."""
    if outcome["status"] != "done":
        return f"{outcome['status']}: {outcome.get('message')}"
    if "steps" in outcome:
        measured = outcome.get("measuring_seconds")
        then = "" if measured is None else f", measured in {measured:.1f} s, whatever the budget"
        return f"{outcome['steps']:,} steps in {outcome['seconds']:.1f} s{then}"
    if outcome.get("seconds_per_step"):
        return f"{1 / outcome['seconds_per_step']:.3g} steps/s"
    return "measured"


def written(metric: Metric, value: Interval | None) -> str:
    """A mean and half its interval, or how many values there are where they do not give one."""
    if value is None:
        return "-"
    scale, digits = {"percent": (100, 1), "fraction": (1, 3), "number": (1, 1)}[metric.form]
    half = spread(value, scale=scale, digits=digits)
    return f"{scale * value.mean:.{digits}f} {half if half.startswith('±') else f'({half})' * bool(half)}".rstrip()


def show(state: Mapping[str, Any], terminal: Terminal) -> None:
    """All tables, and the conclusion in words."""
    results = results_of(View(state, "compare.json:"))
    rows = means(results)
    known = [metric for metric in METRICS if any(metric.key in row for row in rows.values())]
    leading = {metric.key: best(results, metric.key)[0] for metric in known if metric.better}
    lines = []
    for name in [*results.principles, *(name for name in BASELINES if name in rows)]:
        cells = [
            written(metric, rows.get(name, {}).get(metric.key))
            + (" *" if leading.get(metric.key) == [name] and len(results.seeds) > 1 else "")
            for metric in known
        ]
        lines.append([BASELINES.get(name, name), *cells, health(results, name)])
    header = ["", *(metric.name + (" %" if metric.form == "percent" else "") for metric in known), ""]
    count = len(results.seeds)
    title = f"{results.amount} a run, {count} seed{'s' * (count != 1)}"
    terminal.table(f"{title}: mean" + (" and 95 % interval" if count > 1 else ""), header, lines)
    if count > 1:
        terminal.say("  * better than every other principle, paired t-tests corrected by Holm's method at 5 %")
    terminal.table("what it took, mean of the runs", COST, [cost(name, state["runs"]) for name in results.principles])
    terminal.say("")
    for sentence in state["words"]:
        terminal.say(textwrap.fill(sentence, 110, break_on_hyphens=False))


def health(results: Results, name: str) -> str:
    """How many runs of a principle collapsed or failed."""
    count = len(results.seeds)
    found = [*results.failed.get(name, {}).items(), *results.collapsed.get(name, {}).items()]
    return ", ".join(f"{number} of {count}: {kind}" for kind, number in found)


COST = ["", "steps", "passes", "s", "CPU s", "samples/s", "peak MB"]


def cost(name: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row of what the runs of a principle took."""
    mine = [run for run in runs if run["principle"] == name]

    def mean(key: str, digits: int = 0, scale: float = 1.0) -> str:
        values = [run[key] for run in mine if run.get(key) is not None]
        return f"{fmean(values) / scale:,.{digits}f}" if values else "-"

    return [
        name,
        mean("steps"),
        mean("passes"),
        mean("seconds", 1),
        mean("cpu_seconds", 1),
        mean("samples_per_second"),
        mean("peak_memory", 0, 2**20),
    ]
