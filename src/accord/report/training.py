"""The training log as curves, with what happened on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from accord.report.charts import Html, Series, figure, line_chart, tag
from accord.report.read import Run, View
from accord.report.sections import empty, legend, panel, section, side_by_side
from accord.report.text import EXPLAIN, LEADS, NO_LOG

MAX_POINTS = 240
MAX_EVENTS = 50


class Curve(NamedTuple):
    """One chart of the log: heading, what it tells, its columns (key, name, style), and how its values are laid out."""

    title: str
    explanation: str
    columns: Sequence[tuple[str, str, str]]
    zero: bool = False
    log: bool = False


MAIN = (
    Curve(
        "Loss",
        "What training makes small. Its height means little; that it falls and settles does.",
        [("loss", "loss", "s1")],
        log=True,
    ),
    Curve("Terms of the loss", "The parts it is made of, before they are weighted.", [], log=True),
    Curve(
        "Energy of pairs",
        "Matched pairs should lie below mismatched ones, and the gap should open.",
        [("energy_matched", "matched", "matched"), ("energy_mismatched", "mismatched", "random")],
        zero=True,
    ),
    Curve(
        "Energy AUROC",
        "How often a mismatched pair has the higher energy: 1 is always, 0.5 no better than a coin.",
        [("energy_auroc", "AUROC", "s1")],
    ),
    Curve(
        "Effective rank",
        "About how many dimensions the embeddings use. A fall towards 1 is a collapse.",
        [("effective_rank", "effective rank", "s1")],
        zero=True,
    ),
    Curve(
        "Spread of the embeddings",
        "Standard deviation over samples, per dimension. Near 0 all samples look alike to the model.",
        [("std_mean", "mean", "s1"), ("std_min", "least", "s2")],
        zero=True,
    ),
)
MORE = (
    Curve("Learning rate", "The size of a step: it warms up, then falls.", [("lr", "learning rate", "s1")], zero=True),
    Curve("Speed", "Samples per second of training.", [("rate", "samples per second", "s1")], zero=True),
    Curve(
        "Waiting for data",
        "Share of the time in which training stood still for want of data.",
        [("waiting", "waiting", "s1")],
        zero=True,
    ),
)


def training(run: Run) -> tuple[Html, list[dict[str, object]]]:
    """Training curves, and the values behind them for the read-out under the pointer."""
    if not run.metrics:
        return section("training", "Training", None, empty(NO_LOG)), []
    events = [(line.number("step") or 0.0, text) for line in run.metrics if (text := line.text("event"))]
    lines, data = thin(run.metrics), list[dict[str, object]]()
    shown = events[:MAX_EVENTS]
    main = [curve_panel(curve, lines, shown, data) for curve in MAIN]
    more = [one for one in (curve_panel(curve, lines, shown, data) for curve in MORE) if one]
    listed = [tag("li", tag("b", f"step {figure(step)}"), " ", text) for step, text in shown]
    if len(events) > len(shown):
        listed.append(tag("li", f"and {len(events) - len(shown):,} more, in metrics.jsonl"))
    content = section(
        "training",
        "Training",
        LEADS["training"],
        side_by_side(*main, style="grid"),
        tag("p", EXPLAIN["events"], class_="explain") if events else None,
        tag("ul", *listed, class_="events") if events else None,
        tag("details", tag("summary", "Learning rate and speed"), side_by_side(*more, style="grid")) if more else None,
    )
    return content, data


def thin(lines: Sequence[View]) -> list[View]:
    """At most 240 lines of the log, evenly spread, the first and the last among them."""
    count = len(lines)
    if count <= MAX_POINTS:
        return list(lines)
    return [lines[round(i * (count - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def series_of(curve: Curve, lines: Sequence[View]) -> list[Series]:
    """The lines of a chart that have values; a chart without columns shows the terms of the loss, whatever their names."""
    if curve.columns:
        found = [Series(name, style, [line.number(key) for line in lines]) for key, name, style in curve.columns]
    else:
        terms = [line.view("terms") for line in lines]
        names = list(dict.fromkeys(name for one in terms for name in one.values))
        found = [
            Series(name.replace("_", " "), f"s{1 + i % 6}", [one.number(name) for one in terms])
            for i, name in enumerate(names)
        ]
    return [one for one in found if any(value is not None for value in one.values)]


def curve_panel(
    curve: Curve, lines: Sequence[View], events: Sequence[tuple[float, str]], data: list[dict[str, object]]
) -> Html | None:
    """One chart; its values go to `data`."""
    series = series_of(curve, lines)
    if not series:
        return None
    steps, key = [line.number("step") or 0.0 for line in lines], f"chart{len(data)}"
    values = [[None if v is None else float(f"{v:.5g}") for v in one.values] for one in series]
    data.append({"id": key, "x": steps, "names": [one.name for one in series], "y": values})
    chart = line_chart(curve.title, steps, series, events=events, key=key, zero=curve.zero, log=curve.log)
    colours = legend(*((one.name, one.style) for one in series))
    return panel(curve.title, curve.explanation, colours, chart)
