"""Markup that cannot be broken out of, and small charts as inline SVG: lines, steps, bars and dots, coloured by the style sheet.

Every text that is not `Html` is escaped where it enters a tag, and characters that cannot be seen are written out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from accord.errors import printable

VOID = {"meta", "input", "br"}
SPACES = "\u00a0\u202f"
MAX_TEXT = 400


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def visible(text: str) -> str:
    """`text` with controls, bidirectional overrides and line separators written out as escapes, and cut at 400 characters."""
    if not text.isprintable():
        text = "".join(c if c in SPACES else printable(c) for c in text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def escape(text: str) -> str:
    """`text` as it may stand in a tag or an attribute; `Html` passes as it is."""
    return text if isinstance(text, Html) else html.escape(visible(text))


def tag(name: str, *children: str | None, **attributes: str | float | None) -> Html:
    """One element. Children and attributes of None are left out; ``class_`` is class, ``stroke_width`` stroke-width."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(child) for child in children if child is not None)
    if name in VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{inner}</{name}>")


def join(parts: Iterable[str | None]) -> Html:
    """Parts of a page one after the other."""
    return Html("".join(escape(part) for part in parts if part is not None))


def short(value: float) -> str:
    """A coordinate: two decimals, no trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def figure(value: float | None, digits: int = 3) -> str:
    """A number for people: three significant digits, thousands separated, a true minus sign; a dash where there is none."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif 1e-3 <= abs(value):
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    else:
        text = f"{value:.{digits - 1}g}"
    return text.replace("-", "\u2212")


def percent(value: float | None) -> str:
    """A fraction as per cent with one decimal."""
    return "–" if value is None else f"{100 * value:.1f}\u202f%".replace("-", "\u2212")


class Axis(NamedTuple):
    """Values from `low` to `high` laid on pixels from `start` to `stop`, with the ticks to write."""

    low: float
    high: float
    start: float
    stop: float
    ticks: list[float]
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (*self[:2], value)
        return self.start + (self.stop - self.start) * (value - low) / (high - low)


def nice_step(span: float, count: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that gives about `count` ticks."""
    power = 10.0 ** math.floor(math.log10(span / count))
    return next(m * power for m in (1, 2, 5, 10) if m * power * count >= span * 0.999)


def linear(values: Sequence[float], start: float, stop: float, *, count: int = 5, tight: bool = False) -> Axis:
    """An axis over `values`, from tick to tick, or from the least to the greatest value if `tight`."""
    low, high = min(values), max(values)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        pad = abs(high) / 2 or 1.0
        low, high = low - pad, high + pad
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    if not tight:
        first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
        low, high = first * step, last * step
    return Axis(low, high, start, stop, [k * step for k in range(first, last + 1)])


def logarithmic(values: Sequence[float], start: float, stop: float) -> Axis:
    """A logarithmic axis over positive values, with ticks at powers of ten (and 2 and 5 between where there are few)."""
    low, high = math.log10(min(values)), math.log10(max(values))
    if high - low < 0.1:
        low, high = low - 0.5, high + 0.5
    steps = (1,) if high - low > 2.5 else (1, 2, 5)
    every = max(1, math.ceil((high - low) / 6))
    decades = range(math.floor(low), math.ceil(high) + 1, every)
    ticks = [m * 10.0**k for k in decades for m in steps if low - 1e-9 <= k + math.log10(m) <= high + 1e-9]
    return Axis(10**low, 10**high, start, stop, ticks, log=True)


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick in as few characters as tell it from its neighbours: 0.25, 40k, 1e−5."""
    size = max(abs(t) for t in ticks)
    if abs(value) < 1e-12 * size:
        return "0"
    if size >= 10_000:
        scale, unit = (1e6, "M") if size >= 1e6 else (1e3, "k")
        return f"{value / scale:g}{unit}".replace("-", "\u2212")
    text = f"{value:.6g}" if abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")
    return text.replace("-", "\u2212")


class Series(NamedTuple):
    """A line: its name, its class in the style sheet and its values, None where there is none."""

    name: str
    style: str
    values: Sequence[float | None]


WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 388, 12, 186


def picture(
    title: str, description: str, *children: str, width: float = WIDTH, height: float = HEIGHT, key: str | None = None
) -> Html:
    """An SVG with its text alternative."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *children,
        id=key,
        class_="chart",
        viewBox=f"0 0 {short(width)} {short(height)}",
        role="img",
    )


def axes(x: Axis, y: Axis, x_name: str, y_name: str = "") -> Html:
    """Grid, ticks and names of the axes."""
    parts = []
    for value in y.ticks:
        at = y.at(value)
        parts.append(tag("path", d=f"M{short(x.start)} {short(at)}H{short(x.stop)}", class_="grid"))
        parts.append(tag("text", tick_text(value, y.ticks), x=x.start - 6, y=at + 4, class_="tick end"))
    parts.append(tag("path", d=f"M{short(x.start)} {short(y.start)}H{short(x.stop)}", class_="axis"))
    for value in x.ticks:
        at = x.at(value)
        parts.append(tag("path", d=f"M{short(at)} {short(y.start)}v4", class_="axis"))
        parts.append(tag("text", tick_text(value, x.ticks), x=at, y=y.start + 17, class_="tick middle"))
    parts.append(tag("text", x_name, x=x.stop, y=y.start + 31, class_="name end"))
    if y_name:
        parts.append(tag("text", y_name, x=x.start, y=y.stop - 2, class_="name"))
    return join(parts)


def line_path(x: Axis, y: Axis, at: Sequence[float], values: Sequence[float | None]) -> str:
    """The path through the values that are there; a gap breaks it, and a value alone is a dot."""
    parts, pen = [], "M"
    for where, value in zip(at, values, strict=True):
        if value is None or (y.log and value <= 0):
            pen = "M"
            continue
        here = f"{short(round(x.at(where), 1))} {short(round(y.at(value), 1))}"
        parts.append(f"{pen}{here}" if pen == "L" else f"M{here}h0")
        pen = "L"
    return "".join(parts)


def line_chart(
    title: str,
    steps: Sequence[float],
    series: Sequence[Series],
    *,
    events: Sequence[tuple[float, str]] = (),
    key: str | None = None,
) -> Html:
    """Lines over training steps. The scale is logarithmic where values are positive and span more than a factor of 50."""
    values = [v for one in series for v in one.values if v is not None]
    positive = [v for v in values if v > 0]
    log = len(positive) > 0.9 * len(values) and max(positive) > 50 * min(positive)
    y = logarithmic(positive, BOTTOM, TOP) if log else linear(values, BOTTOM, TOP, count=4)
    x = linear(steps, LEFT, RIGHT, tight=True)
    marks = [
        tag("path", tag("title", text), d=f"M{short(x.at(step))} {BOTTOM}V{TOP}", class_="event")
        for step, text in events
        if x.low <= step <= x.high
    ]
    lines = [tag("path", d=line_path(x, y, steps, one.values), class_=f"line {one.style}") for one in series]
    scale = "logarithmic scale" if log else "linear scale"
    ends = "; ".join(f"{one.name}: {trend(one.values)}" for one in series)
    cursor = tag("path", d=f"M0 {BOTTOM}V{TOP}", class_="cursor")
    return picture(
        title,
        f"Lines over training steps, {scale}. {ends}.",
        axes(x, y, "step", "log" if log else ""),
        *marks,
        *lines,
        cursor,
        key=key,
    )


def trend(values: Sequence[float | None]) -> str:
    """What a line does, in words: its first and its last value."""
    given = [v for v in values if v is not None]
    return f"from {figure(given[0])} to {figure(given[-1])}" if given else "no values"


def histogram(
    title: str, edges: Sequence[float], counts: Sequence[tuple[str, str, Sequence[float]]], *, x_name: str
) -> Html:
    """Filled steps, each scaled to shares of its own total so that unequal counts compare."""
    shares = [(name, style, [100 * c / (sum(n) or 1) for c in n]) for name, style, n in counts]
    x = linear(edges, LEFT, RIGHT, tight=True)
    y = linear([0, *(v for _, _, n in shares for v in n)], BOTTOM, TOP + 8, count=3)
    steps = [tag("path", d=step_path(x, y, edges, n), class_=f"fill {style}") for _, style, n in shares]
    means = "; ".join(
        f"{name}: most often at {figure(edges[max(range(len(n)), key=n.__getitem__)])}" for name, _, n in shares
    )
    return picture(title, f"Share of pairs at each {x_name}. {means}.", axes(x, y, x_name, "% of pairs"), *steps)


def step_path(x: Axis, y: Axis, edges: Sequence[float], values: Sequence[float]) -> str:
    """The outline of a histogram."""
    parts = [f"M{short(x.at(edges[0]))} {short(y.start)}"]
    for right, value in zip(edges[1:], values, strict=True):
        parts.append(f"V{short(round(y.at(value), 1))}H{short(round(x.at(right), 1))}")
    return "".join(parts) + f"V{short(y.start)}"


class Bar(NamedTuple):
    """One bar of a group: its name, its class, its value and how far it is off by chance."""

    name: str
    style: str
    value: float
    spread: float | None = None


def bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], *, chance: float | None) -> Html:
    """Groups of horizontal bars from 0 to 100 %, with the line that guessing reaches."""
    left, right, thick, gap = 8.0, 448.0, 18.0, 36.0
    x = Axis(0, 1, left, right - 58, [0, 0.25, 0.5, 0.75, 1])
    parts, at = [], 0.0
    for name, group in groups:
        parts.append(tag("text", name, x=left, y=at + 17, class_="group"))
        at += 26
        for bar in group:
            end = x.at(bar.value)
            parts.append(
                tag("rect", x=left, y=at, width=max(end - left, 1), height=thick, rx=3.0, class_=f"bar {bar.style}")
            )
            reach = end
            if bar.spread:
                reach = x.at(min(bar.value + bar.spread, 1))
                parts.append(
                    tag(
                        "path",
                        d=f"M{short(x.at(max(bar.value - bar.spread, 0)))} {short(at + thick / 2)}H{short(reach)}",
                        class_="spread",
                    )
                )
            parts.append(tag("text", percent(bar.value), x=reach + 7, y=at + 13.5, class_="value"))
            at += thick + 4
        at += gap - 26
    bottom = at - 4
    grid = [tag("path", d=f"M{short(x.at(v))} {short(bottom)}v4", class_="axis") for v in x.ticks]
    grid += [tag("text", f"{100 * v:.0f}", x=x.at(v), y=bottom + 17, class_="tick middle") for v in x.ticks]
    if chance is not None:
        grid.append(tag("path", d=f"M{short(x.at(chance))} 24V{short(bottom)}", class_="chance"))
        grid.append(tag("text", "guessing", x=x.at(chance) + 4, y=bottom - 3.0, class_="name"))
    grid.append(tag("text", "% right", x=right, y=bottom + 17, class_="name end"))
    words = "; ".join(f"{name}: " + ", ".join(f"{b.name} {percent(b.value)}" for b in group) for name, group in groups)
    return picture(
        title,
        f"Bars. {words}.",
        tag("path", d=f"M{left} {short(bottom)}H{short(right - 58)}", class_="axis"),
        *grid,
        *parts,
        width=right,
        height=bottom + 22,
    )


def spectrum_chart(values: Sequence[float], rank: float | None) -> Html:
    """Singular values in descending order on a logarithmic scale, with a mark at the effective rank."""
    places, positive = [float(i) for i in range(1, len(values) + 1)], [v for v in values if v > 0]
    x = linear([1.0, max(2.0, places[-1])], LEFT, RIGHT, tight=True)
    floor = max(positive, default=1.0) * 1e-6
    y = logarithmic([max(v, floor) for v in positive] or [1.0], BOTTOM, TOP)
    line = line_path(x, y, places, [max(v, floor) if v > 0 else None for v in values])
    marks = []
    if rank is not None and x.low <= rank <= x.high:
        marks.append(
            tag(
                "path",
                tag("title", f"effective rank {figure(rank)}"),
                d=f"M{short(x.at(rank))} {BOTTOM}V{TOP}",
                class_="event",
            )
        )
    words = f"{len(values)} singular values, {trend(values)}."
    return picture("Spectrum", words, axes(x, y, "direction", "log"), *marks, tag("path", d=line, class_="line s1"))
