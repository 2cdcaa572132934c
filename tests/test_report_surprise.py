"""The chart of surprise over time: no peak is lost, gaps are gaps, and what is labelled is shaded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.test_report import Page, change, fake_run

from accord.errors import ArtifactError
from accord.report.page import write_report
from accord.report.surprise import COLUMNS, pieces, surprise_chart


def places(d: str) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in re.findall(r"(-?[\d.]+) (-?[\d.]+)", d)]


def test_every_peak_and_trough_of_a_long_series_is_drawn() -> None:
    values = np.random.default_rng(0).random(50_000)
    values[31_234], values[40_000] = 9.0, -3.0
    (steps, drawn), *others = pieces(values.tolist(), 100)
    assert not others
    assert len(steps) <= 2 * COLUMNS
    assert (np.diff(steps) > 0).all()
    assert drawn[steps.index(31_334)] == 9.0
    assert drawn[steps.index(40_100)] == -3.0


def test_a_line_is_broken_where_nothing_was_measured() -> None:
    found = pieces([None, 1.0, 2.0, None, None, 3.0], 0)
    assert found == [([1.0, 2.0], [1.0, 2.0]), ([5.0], [3.0])]
    assert pieces([], 0) == []


def test_the_chart_shows_line_level_and_labelled_stretches() -> None:
    values = [0.1] * 300
    values[200:220] = [5.0] * 20
    chart = surprise_chart("valve <1>", values, spans=[(195, 225)], high=1.0)
    assert "valve &lt;1&gt;" in chart
    assert "highest, 5, at step 200" in chart
    assert "6.7 % above 1" in chart
    (rect,) = re.findall(r'<rect [^>]*class="span"[^>]*>', chart)
    left, width = (float(re.search(rf'{name}="([\d.]+)"', rect)[1]) for name in (" x", "width"))  # type: ignore[index]
    line = places(re.search(r'd="([^"]+)" class="line fine s1"', chart)[1])  # type: ignore[index]
    high = [x for x, y in line if y < min(y for _, y in line) + 1]
    assert left < min(high)
    assert max(high) < left + width
    assert 'class="chance"' in chart


def test_a_series_without_any_value_still_makes_a_chart() -> None:
    chart = surprise_chart("empty", [None, None])
    assert "No surprise was measured" in chart
    assert 'class="line fine s1"' not in chart
    assert "No surprise" in surprise_chart("nothing at all", [])


def accuracies(scale: float) -> dict[str, dict[str, float]]:
    one = {"min_ade": 31 * scale, "min_fde": 47 * scale, "crps": 13 * scale}
    return {"hypotheses": {"k": 4, "crps_fair": 11 * scale, **one}, "mean": one, "last_value": one}


@pytest.mark.parametrize(
    ("std", "shown", "left_out"),
    [
        ({"degrees": 2.0}, False, False),
        ({"degrees": 2.0, "pascals": 9.0}, True, False),
        ({"degrees": 2.0, "pascals": None}, True, True),
    ],
)
def test_standardised_figures_of_futures_are_shown_where_they_say_more(
    tmp_path: Path, std: dict[str, float | None], shown: bool, left_out: bool
) -> None:
    run = fake_run.write_run(tmp_path / "run", samples=24, lines=12)
    found = {"rows": 50, "readout_r2": 0.9, **accuracies(1)}
    change(run, "evaluation.json", lambda values: values.update(futures=found))
    before = Page(write_report(run)).text("futures")
    assert "in the units of the data" in before.lower() and "31" in before
    found["standardized"] = {"rows": 50, "std": std, **accuracies(0.001)}
    change(run, "evaluation.json", lambda values: values.update(futures=found))
    text = Page(write_report(run)).text("futures")
    assert text.startswith(before[:100]) and ("0.0310" in text) == ("standard deviations" in text) == shown
    assert ("Of 2 channels, 1 did not vary" in text) == left_out


def test_the_page_shows_surprise_where_it_was_measured(tmp_path: Path) -> None:
    run = fake_run.write_run(tmp_path / "run", samples=24, lines=12)
    assert 'id="surprise"' not in write_report(run).read_text()
    values = [None, 0.5, 3.0, *([0.1] * 20)]
    series = [{"name": "pump<1>.csv", "first": 90, "stride": 2, "surprise": values}]
    change(run, "evaluation.json", lambda found: found.update(surprise={"median": 1, "high": 2, "series": series}))
    page = Page(write_report(run))
    assert "pump<1>.csv" in page.text("surprise")
    assert "highest, 3, at step 94" in page.text("surprise")
    assert "#surprise" in {link.get("href") for link in page.all("a")}
    series[0]["surprise"] = ["high"]
    change(run, "evaluation.json", lambda found: found.update(surprise={"series": series}))
    with pytest.raises(ArtifactError, match="surprise"):
        write_report(run)
