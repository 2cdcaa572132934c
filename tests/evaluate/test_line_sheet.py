"""Lines as a picture: what is drawn for values and titles of every kind."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from accord.evaluate.line_sheet import Line, Panel, draw_lines


@pytest.mark.parametrize("title", ["plain", "two\nlines", "no \udcff text", "日本"])
@pytest.mark.parametrize("values", [[1.0, 2.0, np.nan, 3.0], [np.nan], [5.0], [1e300, -1e300], []])
def test_any_title_and_any_values_make_a_picture(title: str, values: list[float]) -> None:
    panel = Panel(title, [Line(0, np.array(values), "#000000")], upright=[0.0], level=[1.0])
    png = draw_lines([panel] * 3, [("values", "#000000")], columns=2, width=300, height=100)
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width > 600 and picture.height > 200 and len(np.unique(np.asarray(picture.convert("L")))) > 2
