"""Charts about z: how often its codes are used, and curves over something that is no training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from accord.report.charts import (
    CURVE,
    Axis,
    Frame,
    Html,
    axes,
    figure,
    line_path,
    linear,
    logarithmic,
    path,
    percent,
    picture,
    short,
    tag,
    trend,
)

MOST_BARS = 128
"""Codes drawn; of more the most used."""
WIDEST = 48.0
"""Width of a bar, at most."""
SMALL_BARS = Frame(width=220, height=130, left=34, right=214, top=18, bottom=98)
WIDE = Frame(width=480, height=230, left=48, right=470, top=16, bottom=192)


class Curve(NamedTuple):
    """A line: its name, its class in the style sheet and its values, None where there is none."""

    name: str
    style: str
    values: Sequence[float | None]


def curve_chart(
    title: str,
    at: Sequence[float],
    curves: Sequence[Curve],
    *,
    x_name: str,
    marks: Sequence[tuple[float, str]] = (),
    log: bool = False,
    frame: Frame = CURVE,
) -> Html:
    """Lines over `at`, with upright marks; `log` gives the horizontal axis a logarithmic scale."""
    values = [v for one in curves for v in one.values if v is not None] or [0.0]
    x = logarithmic(at, frame.left, frame.right) if log else linear(at, frame.left, frame.right, tight=True)
    y = linear(values, frame.bottom, frame.top, count=4)
    upright = f"{short(frame.bottom)}V{short(frame.top)}"
    lines = [path(f"line {one.style}", line_path(x, y, at, one.values)) for one in curves]
    shown = [
        path("event", f"M{short(x.at(place))} {upright}", text) for place, text in marks if x.low <= place <= x.high
    ]
    dots = [
        tag("circle", cx=x.at(place), cy=y.at(value), r=3, class_=f"bar {one.style}")
        for one in curves
        for place, value in zip(at, one.values, strict=True)
        if value is not None and len(at) <= 16
    ]
    words = f"Lines, {x_name}. {'; '.join(f'{one.name} {trend(one.values)}' for one in curves)}."
    return picture(
        title,
        words,
        frame.width,
        frame.height,
        axes(x, y, x_name),
        *shown,
        *lines,
        *dots,
    )


def usage_chart(title: str, shares: Sequence[float], *, small: bool = False) -> Html:
    """Upright bars, one for each code, the most used first, and the line at which all would be equal."""
    frame, equal = SMALL_BARS if small else CURVE, 1 / len(shares)
    order = sorted(range(len(shares)), key=lambda code: -shares[code])[:MOST_BARS]
    y = linear([0.0, 100 * max(shares), 100 * equal], frame.bottom, frame.top, count=3)
    step = min((frame.right - frame.left) / len(order), WIDEST)
    room = min(0.2 * step, 3.0)
    parts = []
    for place, code in enumerate(order):
        top = y.at(100 * shares[code])
        left = frame.left + place * step + room / 2
        name = tag("title", f"code {code}: {percent(shares[code])}")
        height = max(frame.bottom - top, 0.75)
        style = "bar s1" if shares[code] >= 0.1 * equal else "bar dead"
        parts.append(
            tag(
                "rect",
                name,
                x=left,
                y=frame.bottom - height,
                width=step - room,
                height=height,
                rx=min(2.0, step / 4),
                class_=style,
            )
        )
    line = f"M{short(frame.left)} {short(y.at(100 * equal))}H{short(frame.right)}"
    marks = [path("halo", line), path("chance", line, f"equal use: {percent(equal)}")]
    x = Axis(0, 1, frame.left, frame.right, [])
    count = (
        f"{len(order)} most used of {len(shares)} codes"
        if len(order) < len(shares)
        else f"{len(shares)} codes, most used first"
    )
    words = f"{count}: from {percent(max(shares))} to {percent(min(shares))} of the pairs; equal use would be {figure(100 * equal)} %."
    return picture(title, words, frame.width, frame.height, axes(x, y, count, "% of pairs"), *parts, *marks)
