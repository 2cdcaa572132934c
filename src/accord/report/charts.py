"""Markup that cannot be broken out of, and small charts as inline SVG: lines, steps and bars, coloured by the style sheet.

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
MAX_TEXT = 600
MAX_PLACES = 400
"""Values of a spectrum that are drawn, evenly spread: more than the chart has pixels."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def visible(text: str) -> str:
    """`text` with controls, bidirectional overrides and line separators written out as escapes."""
    return text if text.isprintable() else "".join(c if c in SPACES else printable(c) for c in text)


def clip(text: str) -> str:
    """`text`, cut at 600 characters."""
    return text if isinstance(text, Html) or len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def escape(text: str) -> str:
    """`text` as it may stand in a tag or an attribute; `Html` passes as it is."""
    return text if isinstance(text, Html) else html.escape(visible(text))


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Html:
    """One element. Children and attributes of None are left out; ``class_`` is class, ``aria_label`` aria-label."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(clip(child)) for child in children if child is not None)
    return Html(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{inner}</{name}>")


def join(parts: Iterable[str | None]) -> Html:
    """Parts of a page one after the other."""
    return Html("".join(escape(part) for part in parts if part is not None))


def short(value: float) -> str:
    """A coordinate: at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def minus(text: str) -> str:
    """A number with a true minus sign."""
    return text.replace("-", "\u2212")


def figure(value: float | None) -> str:
    """A number for people: three significant digits, thousands separated; a dash where there is none."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return minus(f"{int(value):,}")
    if abs(value) >= 1000:
        return minus(f"{value:,.0f}")
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return minus(f"{value:.{decimals}f}" if decimals < 6 else f"{value:.2g}")


def fraction(value: float | None) -> str:
    """A number in [0, 1] with three decimals that says 1 or 0 only where it is meant."""
    if value is None:
        return "–"
    return "> 0.999" if 0.9995 <= value < 1 else minus(f"{value:.3f}")


def percent(value: float | None) -> str:
    """A fraction as per cent with one decimal; 100 only where it is meant."""
    if value is None:
        return "–"
    return minus(f"{99.9 if 0.9995 <= value < 1 else 100 * value:.1f}\u202f%")


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return minus(f"{100 * difference:+.1f}")


def duration(seconds: float | None) -> str | None:
    """Seconds as people say them."""
    if seconds is None:
        return None
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


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
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return round(self.start + (self.stop - self.start) * (value - low) / (high - low), 1)


def nice_step(span: float, count: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that gives about `count` ticks."""
    power = 10.0 ** math.floor(math.log10(span / count))
    return next((m * power for m in (1, 2, 5) if m * power * count >= span * 0.999), 10 * power)


def linear(values: Sequence[float], start: float, stop: float, *, count: int = 5, tight: bool = False) -> Axis:
    """An axis over `values`, from tick to tick, or from the least to the greatest value if `tight`."""
    low, high = min(values), max(values)
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        pad = abs(high) / 2 or 1.0
        low, high = low - pad, high + pad
    step = nice_step(high - low, count)
    if tight:
        first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    else:
        first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
        low, high = first * step, last * step
    return Axis(low, high, start, stop, [k * step for k in range(first, last + 1)])


def logarithmic(values: Sequence[float], start: float, stop: float) -> Axis:
    """A logarithmic axis over positive values, with ticks at powers of ten (and 2 and 5 between where there are few)."""
    low, high = math.log10(min(values)), math.log10(max(values))
    if high - low < 0.1:
        low, high = low - 0.5, high + 0.5
    steps = (1,) if high - low > 2.2 else (1, 2, 5)
    every = max(1, math.ceil((high - low) / 6))
    decades = range(math.floor(low), math.ceil(high) + 1, every)
    ticks = [m * 10.0**k for k in decades for m in steps if low - 1e-9 <= k + math.log10(m) <= high + 1e-9]
    return Axis(10**low, 10**high, start, stop, ticks, log=True)


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick in as few characters as tell it from its neighbours: 0.25, 40k, 1e−5."""
    size = max(abs(t) for t in ticks)
    if abs(value) < 1e-9 * size:
        return "0"
    if size >= 10_000:
        scale, unit = (1e6, "M") if size >= 1e6 else (1e3, "k")
        return minus(f"{value / scale:g}{unit}")
    if abs(value) < 1e-3:
        return minus(f"{value:.2g}".replace("e-0", "e-"))
    return minus(f"{value:,.6g}")


class Series(NamedTuple):
    """A line: its name, its class in the style sheet and its values, None where there is none."""

    name: str
    style: str
    values: Sequence[float | None]


class Frame(NamedTuple):
    """The size of a chart and the edges of its drawing within."""

    width: float = 340.0
    height: float = 200.0
    left: float = 44.0
    right: float = 330.0
    top: float = 14.0
    bottom: float = 164.0


CURVE = Frame()
WIDE = Frame(width=420, height=300, left=50, right=408, top=16, bottom=262)


def picture(title: str, words: str, width: float, height: float, *children: str, key: str | None = None) -> Html:
    """An SVG with its text alternative."""
    box = f"0 0 {short(width)} {short(height)}"
    return tag(
        "svg", tag("title", title), tag("desc", words), *children, id=key, class_="chart", viewBox=box, role="img"
    )


def path(style: str, d: str, title: str | None = None) -> Html:
    """A path, with a tooltip where it needs one."""
    return tag("path", tag("title", title) if title else None, d=d, class_=style)


def axes(x: Axis, y: Axis, x_name: str, y_name: str = "") -> Html:
    """Grid, ticks and names of the axes."""
    parts = []
    for value in y.ticks:
        at = y.at(value)
        parts.append(path("grid-line", f"M{short(x.start)} {short(at)}H{short(x.stop)}"))
        parts.append(tag("text", tick_text(value, y.ticks), x=x.start - 6, y=at + 4, class_="tick end"))
    parts.append(path("axis", f"M{short(x.start)} {short(y.start)}H{short(x.stop)}"))
    for value in x.ticks:
        at = x.at(value)
        parts.append(path("axis", f"M{short(at)} {short(y.start)}v4"))
        parts.append(tag("text", tick_text(value, x.ticks), x=at, y=y.start + 17, class_="tick middle"))
    parts.append(tag("text", x_name, x=x.stop, y=y.start + 32, class_="name end"))
    if y_name:
        parts.append(tag("text", y_name, x=x.start + 4, y=y.stop - 4, class_="name"))
    return join(parts)


def line_path(x: Axis, y: Axis, at: Sequence[float], values: Sequence[float | None]) -> str:
    """The path through the values that are there; one value alone is a dot."""
    places = [
        f"{short(x.at(where))} {short(y.at(value))}"
        for where, value in zip(at, values, strict=True)
        if value is not None and (value > 0 or not y.log)
    ]
    return f"M{'L'.join(places)}{'h0' if len(places) == 1 else ''}" if places else ""


def line_chart(
    title: str,
    steps: Sequence[float],
    series: Sequence[Series],
    *,
    events: Sequence[tuple[float, str]] = (),
    key: str | None = None,
    zero: bool = False,
    log: bool = False,
) -> Html:
    """Lines over training steps. `zero` keeps 0 in sight; `log` allows a logarithmic scale, for values that span a factor of 50."""
    frame, values = CURVE, [v for one in series for v in one.values if v is not None]
    positive = [v for v in values if v > 0]
    log = log and len(positive) > 0.9 * len(values) and max(positive) > 50 * min(positive)
    span = [0.0, *values] if zero else values
    y = logarithmic(positive, frame.bottom, frame.top) if log else linear(span, frame.bottom, frame.top, count=4)
    x = linear(steps, frame.left, frame.right, tight=True)
    upright = f"{short(frame.bottom)}V{short(frame.top)}"
    marks = [path("event", f"M{short(x.at(step))} {upright}", text) for step, text in events if x.low <= step <= x.high]
    lines = [path(f"line {one.style}", line_path(x, y, steps, one.values)) for one in series]
    words = f"Lines over training steps. {'; '.join(f'{one.name} {trend(one.values)}' for one in series)}."
    grid = axes(x, y, "step", "log scale" if log else "")
    cursor = path("cursor", f"M0 {upright}")
    return picture(title, words, frame.width, frame.height, grid, *marks, *lines, cursor, key=key)


def trend(values: Sequence[float | None]) -> str:
    """What a line does, in words: its first and its last value."""
    given = [v for v in values if v is not None]
    return f"from {figure(given[0])} to {figure(given[-1])}" if given else "without values"


def spectrum_chart(values: Sequence[float], rank: float | None) -> Html:
    """Singular values in descending order on a logarithmic scale, with a mark at the effective rank."""
    frame, count = WIDE, len(values)
    drawn = (
        sorted({round(i * (count - 1) / (MAX_PLACES - 1)) for i in range(MAX_PLACES)})
        if count > MAX_PLACES
        else range(count)
    )
    floor, places = max(values) * 1e-6, [float(i + 1) for i in drawn]
    x = linear([1.0, max(2.0, float(count))], frame.left, frame.right, tight=True)
    y = logarithmic([max(v, floor) for v in values] if floor > 0 else [1.0], frame.bottom, frame.top)
    line = path("line s1", line_path(x, y, places, [max(values[i], floor) if values[i] > 0 else None for i in drawn]))
    marks = []
    if rank is not None and x.low <= rank <= x.high:
        upright = f"M{short(x.at(rank))} {short(frame.bottom)}V{short(frame.top)}"
        marks.append(path("event", upright, f"effective rank {figure(rank)}"))
    words = f"{len(values)} singular values, {trend(values)}."
    return picture("Spectrum", words, frame.width, frame.height, axes(x, y, "direction", "log scale"), *marks, line)


def histogram(title: str, edges: Sequence[float], counts: Sequence[tuple[str, str, Sequence[float]]]) -> Html:
    """Filled steps (name, style, bins), each as shares of its own total so that unequal counts compare; empty ends are cut."""
    frame = CURVE
    used = [i for i in range(len(edges) - 1) if any(n[i] for _, _, n in counts)] or [0]
    edges = edges[used[0] : used[-1] + 2]
    shares = [(name, style, shares_of(n[used[0] : used[-1] + 1])) for name, style, n in counts]
    x = linear(edges, frame.left, frame.right, tight=True)
    y = linear([0.0, *(v for _, _, n in shares for v in n)], frame.bottom, frame.top + 8, count=3)
    steps = [path(f"fill {style}", step_path(x, y, edges, n)) for _, style, n in shares]
    modes = "; ".join(f"{name} most often near {figure(edges[n.index(max(n))])}" for name, _, n in shares)
    words = f"Share of pairs at each energy: {modes}."
    return picture(title, words, frame.width, frame.height, axes(x, y, "energy", "% of pairs"), *steps)


def shares_of(counts: Sequence[float]) -> list[float]:
    """Counts as per cent of their sum."""
    total = sum(counts) or 1
    return [100 * count / total for count in counts]


def step_path(x: Axis, y: Axis, edges: Sequence[float], values: Sequence[float]) -> str:
    """The outline of a histogram: one shape for each run of bins that are not empty."""
    parts, drawing = [], False
    for left, right, value in zip(edges, edges[1:], values, strict=False):
        if value and not drawing:
            parts.append(f"M{short(x.at(left))} {short(y.start)}")
        if value:
            parts.append(f"V{short(y.at(value))}H{short(x.at(right))}")
        elif drawing:
            parts.append(f"V{short(y.start)}Z")
        drawing = value > 0
    return "".join(parts) + (f"V{short(y.start)}Z" if drawing else "")


class Bar(NamedTuple):
    """One bar of a group: its name, its class, its value and how far it varies."""

    name: str
    style: str
    value: float
    spread: float | None = None


BAR, BAR_GAP, GROUP_HEAD, GROUP_GAP = 18.0, 4.0, 24.0, 14.0


def bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], *, chance: float | None) -> Html:
    """Groups of horizontal bars from 0 to 100 %, with the line that guessing reaches."""
    x = Axis(0, 1, 1, 352, [0, 0.25, 0.5, 0.75, 1])
    parts, at = [], 0.0
    for name, group in groups:
        parts.append(tag("text", name, x=x.start, y=at + 14, class_="group"))
        at += GROUP_HEAD
        top = at
        for bar in group:
            parts.append(one_bar(bar, x, at))
            at += BAR + BAR_GAP
        if chance is not None:
            mark = f"M{short(x.at(chance))} {short(top - 3)}V{short(at - BAR_GAP + 3)}"
            parts += [path("halo", mark), path("chance", mark)]
        at += GROUP_GAP
    bottom = at - GROUP_GAP / 2
    grid = [path("axis", f"M{short(x.at(v))} {short(bottom)}v4") for v in x.ticks]
    grid += [tag("text", f"{100 * v:g}", x=max(x.at(v), 5), y=bottom + 18, class_="tick middle") for v in x.ticks]
    grid.append(path("axis", f"M{short(x.start)} {short(bottom)}H{short(x.stop)}"))
    grid.append(tag("text", "% right", x=420, y=bottom + 18, class_="name end"))
    words = "; ".join(f"{name}: {', '.join(f'{b.name} {percent(b.value)}' for b in group)}" for name, group in groups)
    return picture(title, f"Bars. {words}.", 420, bottom + 24, *grid, *parts)


def one_bar(bar: Bar, x: Axis, top: float) -> Html:
    """A bar with its value, and a whisker where it varies."""
    end = reach = x.at(min(max(bar.value, 0.0), 1.0))
    parts = [tag("rect", x=x.start, y=top, width=max(end - x.start, 1.0), height=BAR, rx=3, class_=f"bar {bar.style}")]
    if bar.spread:
        low, reach = x.at(max(bar.value - bar.spread, 0.0)), x.at(min(bar.value + bar.spread, 1.0))
        parts.append(path("spread", f"M{short(low)} {short(top + BAR / 2)}H{short(reach)}"))
    parts.append(tag("text", percent(bar.value), x=reach + 7, y=top + 13.5, class_="value"))
    return join(parts)
