"""The same samples and their neighbours under each principle, on one sheet of thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accord.report.charts import Html, tag
from accord.report.pictures import pictured, pool
from accord.report.read import MAX_SPRITE_PIXELS, Sprite, View, damaged, read_bytes, read_json
from accord.report.sections import named, section

if TYPE_CHECKING:
    from PIL.Image import Image

QUERIES, NEIGHBOURS, COLUMNS, LARGEST = 5, 7, 32, 64
SHEET = "evaluation/thumbnails.png"
LEAD = (
    "Some held-out samples and what each principle finds nearest to them among all held-out samples, by cosine of the features, with "
    "the first seed. Dashed frames mark another class. A few samples prove nothing; they show what kind of mistakes are made."
)


def neighbours(folders: Mapping[str, Path]) -> tuple[Html | None, Html | None]:
    """The section, and the pool of its thumbnails; nothing where the samples are no images."""
    tiles: list[Image] = []
    rows: dict[int, list[tuple[str, View, list[str]]]] = {}
    for name, folder in folders.items():
        evaluation = read_json(folder, "evaluation.json")
        sheet = _sheet(folder, evaluation.view("thumbnails"))
        if sheet is None:
            return None, None
        classes = evaluation.view("data").texts("classes")
        for number, group in enumerate(evaluation.views("neighbours")[:QUERIES]):
            rows.setdefault(number, []).append((name, _renumbered(group, sheet, tiles), classes))
    if not tiles:
        return None, None
    sprite = _together(tiles)
    strips = []
    for found in rows.values():
        cells = []
        for name, group, classes in found:
            label = group.index("label", len(classes))
            cells += [tag("b", named(name)), pictured(sprite, group, classes, label)]
        strips.append(tag("div", *cells, class_="strip"))
    return section("neighbours", "Neighbours", LEAD, *strips), pool(sprite)


def _sheet(folder: Path, about: View) -> tuple[Image, int, int, int] | None:
    """The picture of all thumbnails of a run; side, columns and count of them."""
    from PIL import Image, UnidentifiedImageError

    data = read_bytes(folder, SHEET) if about else None
    if data is None:
        return None
    side, columns, count = (about.index(key) for key in ("size", "columns", "count"))
    where = str(folder / SHEET)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            fits = image.width >= columns * side and image.height >= -(-count // max(columns, 1)) * side
            if side < 1 or columns < 1 or not fits or image.width * image.height > MAX_SPRITE_PIXELS:
                raise damaged(f"{image.width} x {image.height} pixels do not fit {count} thumbnails", where)
            return image.convert("RGB"), side, columns, count
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        raise damaged("the picture cannot be decoded", where) from None


def _renumbered(group: View, sheet: tuple[Image, int, int, int], tiles: list[Image]) -> View:
    """A sample and its neighbours, their thumbnails taken over to `tiles`."""
    image, side, columns, count = sheet

    def taken(index: int) -> int:
        if index < 0:
            return -1
        left, top = index % columns * side, index // columns * side
        tile = image.crop((left, top, left + side, top + side))
        tiles.append(tile if side <= LARGEST else tile.resize((LARGEST, LARGEST)))
        return len(tiles) - 1

    values: dict[str, Any] = {**group.values, "query": taken(group.index("query", count))}
    values["neighbours"] = [
        {**one.values, "thumbnail": taken(one.index("thumbnail", count))}
        for one in group.views("neighbours")[:NEIGHBOURS]
    ]
    return View(values, group.where)


def _together(tiles: Sequence[Image]) -> Sprite:
    from PIL import Image

    side = max(tile.width for tile in tiles)
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * side, rows * side))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % COLUMNS * side, number // COLUMNS * side))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    href = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
    return Sprite(href, side, COLUMNS, len(tiles), sheet.width, sheet.height)
