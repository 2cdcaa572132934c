"""Charts of a comparison: dots with intervals, and learning against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from accord.intervals import interval
from accord.report.charts import (
    CURVE,
    Axis,
    Html,
    axes,
    figure,
    fraction,
    line_path,
    linear,
    path,
    percent,
    picture,
    short,
    tag,
    tick_text,
)
from accord.report.compare_numbers import Metric, Results
from accord.report.sections import named

ROW, HEAD, FOOT = 24.0, 10.0, 30.0
WIDTH, LEFT, RIGHT = 380.0, 124.0, 370.0
BASELINES = {
    "untrained": ("untrained encoder", "untrained"),
    "pca": ("PCA of the input", "pca"),
    "pixels": ("raw input", "pixels"),
}
"""Row, words and style of what needs no training."""


def style_of(number: int) -> str:
    """The colour of a principle by its place; ten colours, used again from the eleventh on."""
    return f"k{number % 20}"


def written(metric: Metric, value: float | None) -> str:
    """A mean as people write it."""
    return {"percent": percent, "fraction": fraction, "number": figure}[metric.form](value)


def dots(results: Results, metric: Metric) -> Html | None:
    """One row for each principle: a small dot for each seed, a large one at the mean, and the interval; baselines are upright lines."""
    rows = [(name, results.of(metric.key, name)) for name in results.principles]
    plain = {key: results.of(metric.key, key) for key in BASELINES}
    everything = [v for _, values in rows for v in values] + [v for values in plain.values() for v in values]
    if not any(values for _, values in rows):
        return None
    pad = 0.35 * (max(everything) - min(everything))
    low, high = min(everything) - pad, max(everything) + pad
    if metric.form != "number":
        low, high = max(low, 0.0), min(high, 1.0)
    x = linear([low, high], LEFT, RIGHT, count=4, tight=True)
    bottom = HEAD + ROW * len(rows)
    parts = [_grid(metric, x, bottom)]
    for key, values in plain.items():
        if values:
            at = short(x.at(interval(values).mean))
            parts.append(
                path(f"base {BASELINES[key][1]}", f"M{at} {short(HEAD - 4)}V{short(bottom)}", BASELINES[key][0])
            )
    for number, (name, values) in enumerate(rows):
        parts.append(_row(metric, name, values, x, HEAD + ROW * (number + 0.5), style_of(number)))
    words = "; ".join(f"{named(name)} {_in_words(metric, values)}" for name, values in rows)
    return picture(metric.name, f"Dots. {words}.", WIDTH, bottom + FOOT, *parts)


def _grid(metric: Metric, x: Axis, bottom: float) -> Html:
    scale = 100 if metric.form == "percent" else 1
    ticks = [scale * value for value in x.ticks]
    lines = [path("grid-line", f"M{short(x.at(v))} {short(HEAD - 4)}V{short(bottom)}") for v in x.ticks]
    labels = [
        tag("text", tick_text(tick, ticks), x=x.at(value), y=bottom + 17, class_="tick middle")
        for tick, value in zip(ticks, x.ticks, strict=True)
    ]
    return Html("".join([*lines, *labels]))


def _row(metric: Metric, name: str, values: Sequence[float], x: Axis, at: float, style: str) -> Html:
    parts = [tag("text", named(name), x=LEFT - 10, y=at + 4, class_="label end")]
    if not values:
        return Html("".join([*parts, tag("text", "no figures", x=LEFT + 6, y=at + 4, class_="tick")]))
    mean, half, _ = interval(values)
    if half is not None:
        ends = [min(max(end, x.low), x.high) for end in (mean - half, mean + half)]
        inside = [x.low < end < x.high for end in (mean - half, mean + half)]
        caps = "".join(f"M{short(x.at(end))} {short(at - 4)}v8" for end, kept in zip(ends, inside, strict=True) if kept)
        parts.append(path(f"whisker {style}", f"M{short(x.at(ends[0]))} {short(at)}H{short(x.at(ends[1]))}{caps}"))
    parts += [tag("circle", cx=x.at(value), cy=at, r=2.2, class_=f"seed {style}") for value in values]
    parts.append(
        tag("circle", tag("title", _in_words(metric, values)), cx=x.at(mean), cy=at, r=5, class_=f"mean {style}")
    )
    return Html("".join(parts))


def _in_words(metric: Metric, values: Sequence[float]) -> str:
    if not values:
        return "without figures"
    mean, half, n = interval(values)
    scale = 100 if metric.form == "percent" else 1
    width = "" if not half or n == 2 else f" ± {figure(scale * half)}"
    return f"{written(metric, mean)}{width}, {n} seed{'s' * (n != 1)}"


Curve = Sequence[tuple[float, float]]


def learning(title: str, x_name: str, curves: Mapping[str, Sequence[Curve]], order: Sequence[str]) -> Html | None:
    """Mean over seeds of something that grows while training, one line for each principle.

    A mean is drawn as far as all seeds of the principle go.
    """
    means = {name: mean_curve(curves[name]) for name in order if curves.get(name)}
    means = {name: curve for name, curve in means.items() if len(curve) > 1}
    if not means:
        return None
    frame = CURVE
    x = linear([0.0, *(a for curve in means.values() for a, _ in curve)], frame.left, frame.right, tight=True)
    y = linear([b for curve in means.values() for _, b in curve], frame.bottom, frame.top, count=4)
    lines = [
        path(
            f"line {style_of(order.index(name))}",
            line_path(x, y, [a for a, _ in curve], [b for _, b in curve]),
            named(name),
        )
        for name, curve in means.items()
    ]
    words = "; ".join(f"{named(name)} from {figure(c[0][1])} to {figure(c[-1][1])}" for name, c in means.items())
    grid = axes(x, y, x_name)
    return picture(title, f"Lines. {words}.", frame.width, frame.height, grid, *lines)


def mean_curve(curves: Sequence[Curve], points: int = 50) -> list[tuple[float, float]]:
    """The mean of curves at equally many places, from where all have begun to where the first ends; straight lines between points."""
    curves = [curve for curve in curves if curve]
    if not curves:
        return []
    start, stop = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    if not stop > start:
        return []
    places = [start + (stop - start) * i / (points - 1) for i in range(points)]
    return [(at, sum(value_at(curve, at) for curve in curves) / len(curves)) for at in places]


def value_at(curve: Curve, at: float) -> float:
    """The height of a curve at a place."""
    for (a, low), (b, high) in pairwise(curve):
        if a <= at <= b:
            return low if b == a else low + (high - low) * (at - a) / (b - a)
    return curve[0][1] if at < curve[0][0] else curve[-1][1]
