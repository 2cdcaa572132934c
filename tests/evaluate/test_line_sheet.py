"""Lines as a picture: what is drawn for values and titles of every kind."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from accord.evaluate import future_sheet, line_sheet
from accord.evaluate.future_sheet import Course, draw_courses
from accord.evaluate.hypothesis_sheet import CANDIDATES, Candidate, Row, draw
from accord.evaluate.line_sheet import Line, Panel, draw_lines, thinned


@pytest.mark.parametrize("title", ["plain", "two\nlines", "no \udcff text", "日本"])
@pytest.mark.parametrize("values", [[1.0, 2.0, np.nan, 3.0], [np.nan], [5.0], [1e300, -1e300], []])
def test_any_title_and_any_values_make_a_picture(title: str, values: list[float]) -> None:
    panel = Panel(title, [Line(0, np.array(values), "#000000")], upright=[0.0], level=[1.0])
    png = draw_lines([panel] * 3, [("values", "#000000")], columns=2, width=300, height=100)
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.width > 600 and picture.height > 200 and len(np.unique(np.asarray(picture.convert("L")))) > 2


def test_a_long_line_keeps_its_peaks_and_gaps() -> None:
    values = np.random.default_rng(0).random(100_003)
    values[31_234], values[40_000], values[60_000:62_000] = 9.0, -3.0, np.nan
    places, kept = thinned(values, 300)
    assert len(places) == len(kept) <= 600 and (np.diff(places) >= 0).all()
    known = np.isfinite(kept)
    assert (kept[known] == values[places[known]]).all() and {9.0, -3.0} <= set(kept[known]) and not known.all()
    np.testing.assert_array_equal(thinned(values[:500], 300)[1], values[:500])


def test_a_thinned_line_is_the_same_picture() -> None:
    rng = np.random.default_rng(1)
    values = np.cumsum(rng.normal(size=40_000))

    def drawn(line: np.ndarray) -> np.ndarray:
        panel = Panel("walk", [Line(0, line, "#000000")])
        with Image.open(io.BytesIO(draw_lines([panel], [], columns=1, width=300, height=100))) as picture:
            return np.asarray(picture.convert("L")).astype(float)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_sheet, "thinned", lambda values, most: (np.arange(len(values)), values))
        whole = drawn(values)
    assert np.abs(drawn(values) - whole).mean() < 1, "grey levels of 255"


def course(k: int, channels: int, steps: int = 8) -> Course:
    generator = torch.Generator().manual_seed(0)
    past, truth = (torch.randn(steps, channels, generator=generator) for _ in range(2))
    probability = torch.rand(k, generator=generator)
    values = torch.randn(k, steps, channels, generator=generator)
    return Course("a", past, truth, values, probability / probability.sum(), None)


def test_a_sheet_of_futures_says_what_it_shows_of_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, list[Panel]]] = []

    def instead(panels: list[Panel], legend: object, *, note: str, **size: int) -> bytes:
        told.append((note, panels))
        return b""

    monkeypatch.setattr(future_sheet, "draw_lines", instead)
    draw_courses([course(1000, 21)] * 12, [f"c{i}" for i in range(21)], 5000)
    draw_courses([course(8, 1)] * 3, ["level"], 3)
    note, panels = told[0]
    assert note == (
        "12 of 5,000 windows, spread evenly; 24 of 1,000 hypotheses, the most probable; 3 of 21 channels, the first"
    )
    assert len(panels) == 36 and {len(panel.lines) for panel in panels} == {24 + 2}
    one = course(1000, 21)
    best = one.hypotheses[int(one.probability.argmax()), :, 0].double().numpy()
    np.testing.assert_array_equal(
        panels[0].lines[-2].values[1:], best, "the most probable is drawn last, below the past"
    )
    assert told[1][0] == "" and {len(panel.lines) for panel in told[1][1]} == {10}


def test_a_sheet_of_many_pictures_is_as_wide_as_sixteen() -> None:
    picture = torch.zeros(1, 1, 8, 8)
    row = Row(picture, picture, [Candidate(picture, 0.1, False)] * CANDIDATES)
    with Image.open(io.BytesIO(draw([row], 1000))) as image:
        assert image.width < 1600
