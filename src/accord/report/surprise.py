"""Series over time: surprise as a chart, one line per series, with what is usual and what is labelled as odd; figures of futures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from accord.report.charts import Frame, Html, axes, figure, line_path, linear, path, picture, short, tag
from accord.report.read import Run, View
from accord.report.sections import explained, panel, section, table
from accord.report.text import EXPLAIN, FUTURES, LEADS

FRAME = Frame(width=900, height=230, left=50, right=888, top=20, bottom=186)
COLUMNS = 400
"""Stretches of time of which the lowest and the highest value are drawn: a peak of one step is never lost."""


def surprise(run: Run) -> Html | None:
    """Surprise over the held-out time of each series, where samples are windows."""
    panels = [
        panel(one.text("name") or "", None, chart_of(one)) for one in run.evaluation.view("surprise").views("series")
    ]
    if not panels:
        return None
    count = run.evaluation.view("surprise").number("all_series") or 0
    cut = f" Shown are the first {len(panels)} of {figure(count)} series." if count > len(panels) else ""
    note = tag("p", EXPLAIN["surprise"] + cut, class_="explain")
    return section("surprise", "Surprise over time", LEADS["surprise"], *panels, note)


def futures(run: Run) -> Html | None:
    """How good the hypotheses of held-out futures are, where pairs are of past and future."""
    view = run.evaluation.view("futures")
    rows, k = view.number("rows"), view.view("hypotheses").number("k")
    if not rows or k is None:
        return None
    note = EXPLAIN["futures"].format(r2=figure(view.number("readout_r2")), rows=figure(rows))
    panels = [panel("How far from what came", note, *_accuracy(view, k))]
    scaled = view.view("standardized")
    std = [scaled.view("std").number(name) for name in scaled.view("std").values]
    if scaled.number("rows") and not proportional(std):
        note = EXPLAIN["futures standardised"]
        if None in std:
            note += EXPLAIN["constant channels"].format(constant=std.count(None), channels=len(std))
        panels.append(panel("How far, in standard deviations", note, *_accuracy(scaled, k)))
    return section("futures", "Futures", LEADS["futures"], *panels)


def proportional(std: Iterable[float | None]) -> bool:
    """Whether dividing each channel by its standard deviation changes figures by one factor only, as with one channel.

    Channels that are left out, None, are a change of another kind.
    """
    return len(set(std)) <= 1


def _accuracy(view: View, k: float) -> tuple[Html, Html | None]:
    """The measures of K hypotheses, of their mean and of the last value as a table, and the fair CRPS if there is one."""
    lines = []
    for key, (name, meaning) in FUTURES.items():
        if key == "mean" and k == 1:
            continue
        one = view.view(key)
        values = [figure(one.number(measure)) for measure in ("min_ade", "min_fde", "crps")]
        lines.append([explained(name.format(k=figure(k)), meaning), *values])
    fair = view.view("hypotheses").number("crps_fair")
    more = None if fair is None else tag("p", EXPLAIN["crps fair"].format(fair=figure(fair)), class_="explain")
    return table(["", "minADE", "minFDE", "CRPS"], lines), more


def chart_of(one: View) -> Html:
    """The chart of one series of evaluation.json."""
    known = View({"known": [v for v in one.items("surprise") if v is not None]}, one.where).numbers("known")
    left = iter(known)
    values = [None if v is None else next(left) for v in one.items("surprise")]
    first, stride = max(one.index("first"), 0), max(one.index("stride"), 1)
    return surprise_chart(one.text("name") or "", values, first=first, stride=stride)


def surprise_chart(
    title: str,
    surprise: Sequence[float | None],
    *,
    first: int = 0,
    stride: int = 1,
    high: float = 1.0,
    spans: Sequence[tuple[int, int]] = (),
    x_name: str = "step",
) -> Html:
    """Surprise step by step, as a picture 900 wide.

    Args:
        title: of the series.
        surprise: of each step, or of stretches of them, None where there is none; the line is broken there.
        first: number of the first step.
        stride: steps per value.
        high: what is usual stays below: a dashed line across.
        spans: first and last step of stretches that are known to be odd, shaded.
        x_name: what steps are.
    """
    values = [v for v in surprise if v is not None]
    steps = [float(first), float(first + stride * max(len(surprise) - 1, 1))]
    x = linear(steps, FRAME.left, FRAME.right, count=8, tight=True)
    y = linear([0.0, high, *values], FRAME.bottom, FRAME.top, count=4)
    shades = [
        tag(
            "rect",
            tag("title", f"labelled odd: {a} to {b}"),
            x=x.at(a),
            y=FRAME.top,
            class_="span",
            **_size(x.at(a), x.at(b)),
        )
        for a, b in spans
        if x.low <= a <= b <= x.high
    ]
    lines = [path("line fine s1", line_path(x, y, at, drawn)) for at, drawn in pieces(surprise, first, stride)]
    level = short(y.at(high))
    usual = path("chance", f"M{short(FRAME.left)} {level}H{short(FRAME.right)}", f"usual: up to {figure(high)}")
    return picture(
        title, words(surprise, first, stride, high, spans), FRAME.width, FRAME.height,
        *shades, axes(x, y, x_name, "surprise"), *lines, usual,
    )  # fmt: skip


def _size(left: float, right: float) -> dict[str, float]:
    return {"width": max(right - left, 1.5), "height": FRAME.bottom - FRAME.top}


def pieces(surprise: Sequence[float | None], first: int, stride: int = 1) -> list[tuple[list[float], list[float]]]:
    """Unbroken parts of the line as (steps, values): of each stretch of time its lowest and its highest, in their order."""
    width = max(1, math.ceil(len(surprise) / COLUMNS))
    found: list[tuple[list[float], list[float]]] = [([], [])]
    for start in range(0, len(surprise), width):
        known = [(v, t) for t, v in enumerate(surprise[start : start + width], start) if v is not None]
        if not known:
            found.append(([], []))
            continue
        for value, t in sorted({min(known), max(known)}, key=lambda one: one[1]):
            found[-1][0].append(float(first + stride * t))
            found[-1][1].append(value)
    return [part for part in found if part[0]]


def words(
    surprise: Sequence[float | None], first: int, stride: int, high: float, spans: Sequence[tuple[int, int]]
) -> str:
    """What the chart shows, for those who do not see it."""
    known = [(v, t) for t, v in enumerate(surprise) if v is not None]
    if not known:
        return "No surprise was measured."
    top, place = max(known, key=lambda one: one[0])
    share = sum(v > high for v, _ in known) / len(known)
    said = f"Surprise over {stride * len(known):,} steps: highest, {figure(top)}, at step {first + stride * place:,}; "
    said += f"{100 * share:.1f} % above {figure(high)}."
    return said + (f" {len(spans)} stretches are labelled as odd." if spans else "")
