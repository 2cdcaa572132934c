"""Lines over steps as one picture: panels side by side, each with its scale, for series as they were and as they could go on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from accord.evaluate.hypothesis_sheet import GAP, HEAD, INK, MARGIN, PAGE, SOFT
from accord.report.charts import Axis, linear, tick_text

FINE = 3
"""Lines are drawn so many times larger and made small again, which smooths them."""
LEFT, TOP, BELOW = 46, 18, 18
"""Pixels of a panel beside and above its drawing for ticks and title, and below it for steps."""
NOTE = 20
"""Pixels of a note below the legend."""
GRID = "#e3ded3"


class Line(NamedTuple):
    """Values at the steps `first`, `first` + 1, ...; the line is broken where one is NaN. width in pixels."""

    first: float
    values: np.ndarray
    colour: str
    width: float = 1.0


class Panel(NamedTuple):
    """Lines with one scale, a title, upright marks at steps and level ones at values."""

    title: str
    lines: Sequence[Line]
    upright: Sequence[float] = ()
    level: Sequence[float] = ()


def draw_lines(
    panels: Sequence[Panel],
    legend: Sequence[tuple[str, str]],
    *,
    columns: int,
    width: int,
    height: int,
    note: str = "",
) -> bytes:
    """The panels in rows of `columns`, each `width` x `height` pixels, below a legend of names and colours and a note, as PNG."""
    rows, head = -(-len(panels) // columns), HEAD + (NOTE if note else 0)
    size = (2 * MARGIN + columns * (width + GAP) - GAP, 2 * MARGIN + head + max(rows, 1) * (height + GAP) - GAP)
    large = Image.new("RGB", (size[0] * FINE, size[1] * FINE), PAGE)
    pen, texts = ImageDraw.Draw(large), list[tuple[float, float, str, str]]()
    for number, panel in enumerate(panels):
        left, top = MARGIN + number % columns * (width + GAP), MARGIN + head + number // columns * (height + GAP)
        texts += _panel(pen, panel, left, top, left + width, top + height)
    page = large.resize(size, Image.Resampling.LANCZOS)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for x, y, text, anchor in texts:
        pen.text((x, y), text, fill=SOFT, font=font, anchor=anchor)
    x = float(MARGIN)
    for name, colour in legend:
        pen.line((x, MARGIN + 7, x + 18, MARGIN + 7), fill=colour, width=3)
        pen.text((x + 24, MARGIN), name, fill=INK, font=font)
        x += 24 + pen.textlength(name, font=font) + 20
    pen.text((MARGIN, MARGIN + NOTE), note, fill=SOFT, font=font)
    out = io.BytesIO()
    page.save(out, "PNG", optimize=True)
    return out.getvalue()


def mixed(colour: str, share: float) -> str:
    """A colour so much of which is left, the rest is the page's."""
    pair = [[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in (colour, PAGE)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in zip(*pair, strict=True))


def _panel(
    pen: ImageDraw.ImageDraw, panel: Panel, left: float, top: float, right: float, bottom: float
) -> list[tuple[float, float, str, str]]:
    """Draws the lines of a panel and gives its texts: place, text, anchor."""
    title = " ".join(panel.title.split())  # the name of a series may have several lines
    ends = [end for line in panel.lines for end in _ends(line.values)]
    if not ends:
        return [(left + LEFT, top, title, "lt"), (left + LEFT, top + TOP, "nothing was observed", "lt")]
    steps = [at for line in panel.lines for at in (line.first, line.first + max(len(line.values) - 1, 0))]
    x = linear(steps, left + LEFT, right, count=6, tight=True)
    y = linear([*ends, *panel.level], bottom - BELOW, top + TOP, count=3)
    texts = [(left + LEFT, top, title, "lt")]
    for value in y.ticks:
        _stroke(pen, [(x.start, y.at(value)), (x.stop, y.at(value))], GRID, 1)
        texts.append((x.start - 6, y.at(value), _ascii(tick_text(value, y.ticks)), "rm"))
    texts += [
        (x.at(value), y.start + 4, _ascii(tick_text(value, x.ticks)), "mt")
        for value in x.ticks
        if value == round(value)
    ]
    for value in panel.level:
        _stroke(pen, [(x.start, y.at(value)), (x.stop, y.at(value))], SOFT, 1)
    for at in panel.upright:
        _stroke(pen, [(x.at(at), y.start), (x.at(at), y.stop)], SOFT, 1)
    for line in panel.lines:
        for piece in _pieces(line, x, y):
            _stroke(pen, piece, line.colour, line.width)
    return texts


def _ascii(number: str) -> str:
    """With a minus sign that the font has."""
    return number.replace("\u2212", "-")


def _ends(values: np.ndarray) -> list[float]:
    """The least and the greatest value that was observed, nothing where none was."""
    known = values[np.isfinite(values)]
    return [float(known.min()), float(known.max())] if len(known) else []


def thinned(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of a line of many values: of each of at most `most` stretches the least and the greatest, in their order.

    A stretch of one pixel looks the same then, and a peak of one value is never lost. A stretch without a value is NaN.
    """
    stride = -(-len(values) // most)
    if stride <= 2:
        return np.arange(len(values)), values
    parts = np.concatenate([values, np.full(-len(values) % stride, np.nan)]).reshape(-1, stride)
    known = np.isfinite(parts)
    low, high = np.where(known, parts, np.inf).argmin(1), np.where(known, parts, -np.inf).argmax(1)
    both = np.sort(np.stack([low, high], 1), axis=1)
    chosen = np.where(known.any(1, keepdims=True), np.take_along_axis(parts, both, 1), np.nan)
    return (both + stride * np.arange(len(parts))[:, None]).ravel(), chosen.ravel()


def _pieces(line: Line, x: Axis, y: Axis) -> list[list[tuple[float, float]]]:
    """Unbroken parts of a line in pixels; a value alone is a short stroke."""
    found: list[list[tuple[float, float]]] = [[]]
    for t, value in zip(*(part.tolist() for part in thinned(line.values, int(x.stop - x.start))), strict=True):
        if np.isfinite(value):
            found[-1].append((x.at(line.first + t), y.at(value)))
        elif found[-1]:
            found.append([])
    return [
        piece if len(piece) > 1 else [(piece[0][0] - 1, piece[0][1]), (piece[0][0] + 1, piece[0][1])]
        for piece in found
        if piece
    ]


def _stroke(pen: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
    pen.line([(FINE * a, FINE * b) for a, b in points], fill=colour, width=round(FINE * width), joint="curve")
