"""Hypotheses as one picture: a row for each input, what is given, the truth, and the real y nearest to each prediction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from accord.evaluate.pictures import Sheet

if TYPE_CHECKING:
    from PIL import ImageDraw

TILE, GAP, CAPTION, MARGIN, HEAD = 72, 10, 20, 20, 30
"""Pixels: side of a picture, room between two, room for a line below it, around everything, and for the heads of the columns."""
CANDIDATES = 16
"""Hypotheses that are shown of each input, the cheapest ones."""
PAGE, INK, SOFT, MARK = "#fffefb", "#1c2126", "#5b626b", "#0b7a70"


class Candidate(NamedTuple):
    """One hypothesis: the real y nearest to it, None if there is none, its probability, and whether the truth is nearest to it."""

    picture: Tensor | None
    probability: float
    nearest: bool


class Row(NamedTuple):
    """One input: pictures (1, channel, height, width) of what is given and of the truth, and its hypotheses."""

    given: Tensor
    truth: Tensor
    candidates: Sequence[Candidate]


def draw(rows: Sequence[Row], count: int | None = None) -> bytes:
    """The picture as PNG, pixels only. count: hypotheses that there are of each input, if more than are shown."""
    from PIL import Image, ImageDraw, ImageFont

    columns = 2 + max((len(row.candidates) for row in rows), default=0)
    step = TILE + GAP
    width = 2 * MARGIN + columns * step + GAP
    page = Image.new("RGB", (max(width, 420), 2 * MARGIN + HEAD + len(rows) * (step + CAPTION)), PAGE)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    could_be = "what could be, and how probable"
    if count is not None and count > columns - 2 > 0:
        could_be += f": the {columns - 2} cheapest of {count:,}"
    for column, head in ((0, "given"), (1, "truth"), (2, could_be)):
        pen.text((left(column), MARGIN), head, fill=SOFT, font=font)
    for number, row in enumerate(rows):
        top = MARGIN + HEAD + number * (step + CAPTION)
        for column, picture in enumerate([row.given, row.truth, *(one.picture for one in row.candidates)]):
            if picture is not None:
                page.paste(Image.fromarray(tile(picture)), (left(column), top))
        for column, one in enumerate(row.candidates, start=2):
            _label(pen, font, one, (left(column), top))
    out = io.BytesIO()
    page.save(out, "PNG", optimize=True)
    return out.getvalue()


def left(column: int) -> int:
    """Where a column begins; the hypotheses stand a little apart from what is known."""
    return MARGIN + column * (TILE + GAP) + (GAP if column > 1 else 0)


def _label(pen: ImageDraw.ImageDraw, font: object, one: Candidate, at: tuple[int, int]) -> None:
    x, y = at
    pen.rectangle((x - 1, y - 1, x + TILE, y + TILE), outline=MARK if one.nearest else "#e3ded3", width=1)
    if one.nearest:
        pen.rectangle((x - 3, y - 3, x + TILE + 2, y + TILE + 2), outline=MARK, width=2)
    pen.text((x, y + TILE + 4), percent(one.probability), fill=INK, font=font)  # type: ignore[arg-type]


def percent(probability: float) -> str:
    """A probability in few characters."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    return f"{100 * probability:.1f} %" if 0 < probability < 0.0095 else f"{100 * probability:.0f} %"


def tile(picture: Tensor) -> np.ndarray:
    """One picture (1, channel, height, width) as (TILE, TILE, 3) bytes; pictures of few pixels are enlarged without blur."""
    from PIL import Image

    sheet = Sheet(max(picture.shape[-2:]))
    sheet.add(picture)
    small = Image.fromarray(sheet.tiles[0])
    kind = Image.Resampling.NEAREST if sheet.size <= 24 else Image.Resampling.BICUBIC
    return np.asarray(small.resize((TILE, TILE), kind))
