"""What the report says of z: figures are those of the evaluation, pictures the right ones, and nothing is needed but what is there."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tests.test_report import Page, change, fake_run

from accord.errors import ArtifactError
from accord.report.latent import rough, values
from accord.report.page import write_report

OPTIONAL = [
    "free_energy",
    "information",
    "gaps",
    "capacity_curve",
    "wells",
    "verdicts",
    "hypotheses",
    "capacity",
    "name",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(fake_run.write_run(tmp_path_factory.mktemp("runs") / "digits"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run))


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return Path(fake_run.write_run(tmp_path / "digits", samples=24, lines=12))


def about_z(edit: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda values: edit(values["latent"])


def test_what_z_is_stands_at_the_top(page: Page) -> None:
    text = page.text("latent")
    for part in ("codes", "2.77 nats", "16 values", "2.31 nats", "trying all", "exact"):
        assert part in text
    assert "Missed energy" not in text, "a gap of 0 is no news"
    assert {link.get("href") for link in page.all("a")} >= {"#latent", "#hypotheses"}


def test_tampering_is_explained_in_words(run: Path, page: Page, fresh: Path) -> None:
    means = json.loads((run / "evaluation.json").read_text())["latent"]["free_energy"]
    rows = page.table("latent")[1:]
    assert [float(row[1]) for row in rows] == pytest.approx(list(means.values()), rel=0.01)
    assert ["✓" in row[2] for row in rows] == [False, True, True, True]
    change(fresh, "evaluation.json", about_z(lambda z: z["free_energy"].update(prior=0.13, permuted_x=0.122)))
    rows = Page(write_report(fresh)).table("latent")[1:]
    assert ["!" in row[2] for row in rows] == [False, True, True, False]
    assert "dead latent" in rows[1][2] and "latent takes all" in rows[2][2]


def test_usage_bars_are_as_high_as_the_shares(run: Path, page: Page) -> None:
    shares = json.loads((run / "evaluation.json").read_text())["latent"]["information"]["usage"][0]
    chart = next(chart for chart in page.with_class("chart", page.id("latent")) if page.all("rect", chart))
    bars = page.all("rect", chart)
    heights = np.array([float(bar.get("height")) for bar in bars])
    assert len(bars) == 16 and heights[:13] / heights[0] == pytest.approx(
        np.sort(shares)[::-1][:13] / max(shares), abs=0.01
    )
    assert len(page.with_class("dead", chart)) == 2, "codes that are hardly used are told apart"
    assert "13.2 of 16" in page.text("latent")


def test_curves_have_the_points_of_the_evaluation(run: Path, page: Page) -> None:
    found = json.loads((run / "evaluation.json").read_text())["latent"]
    curves = [page.with_class("line", chart) for chart in page.with_class("chart", page.id("latent"))]
    wells, energy, auroc = (lines for lines in curves if lines)
    for line, values_ in (
        (wells[0], found["wells"]["energy"]),
        (wells[1], found["wells"]["soft"]),
        (energy[0], [point["free_energy"] for point in found["capacity_curve"]]),
        (auroc[0], [point["auroc"] for point in found["capacity_curve"]]),
    ):
        places = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", line.get("d")), float)
        assert len(places) == len(values_)
        assert np.corrcoef(places[:, 1], values_)[0, 1] == pytest.approx(-1, abs=1e-3)
    assert "row 17" in page.text("latent")


def test_every_picture_of_a_prediction_is_the_right_one(run: Path, page: Page) -> None:
    (image,) = page.all("image")
    href = next(value for key, value in image.attrib.items() if key.endswith("href"))
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(href.removeprefix("data:image/png;base64,")))))
    digits, found = load_digits().images, json.loads((run / "evaluation.json").read_text())["latent"]["hypotheses"]
    shown = page.with_class("prospect", page.id("hypotheses"))
    assert len(shown) == len(found) == 6
    for sample, row in zip(found, shown, strict=True):
        expected = [sample["x"], sample["y"], *(place for one in sample["predictions"] for place in one["neighbours"])]
        for svg, index in zip(page.all("svg", row), expected, strict=True):
            x, y, width, height = map(int, svg.get("viewBox").split())
            assert (sheet[y : y + height, x : x + width] == (255 - digits[index] * 15.9).astype(np.uint8)).all()
        figures = page.all("figure", page.with_class("possible", row)[0])
        marked = [i for i, figure in enumerate(figures) if figure.get("class") == "true"]
        assert marked == [sample["nearest"]]
        captions = ["".join(node.itertext()) for node in page.all("b", row)]
        assert [c.replace("✓ ", "") for c in captions] == [rough(one["probability"]) for one in sample["predictions"]]
        assert [c.startswith("✓") for c in captions].index(True) == sample["nearest"]


def test_rows_of_numbers_are_written_out(tmp_path: Path) -> None:
    run = fake_run.write_run(tmp_path / "run", kind="vector")
    page, found = Page(write_report(run)), json.loads((run / "evaluation.json").read_text())["latent"]["hypotheses"]
    assert not page.all("svg", page.id("hypotheses"))
    rows = page.table("hypotheses")
    assert rows[0] == ["Prediction", "Energy", "Probability", "Nearest real y's", "Distance"]
    assert rows[1][0] == "✓ 1" and rows[1][3] == ", ".join(found[0]["predictions"][0]["keys"])
    assert len(page.all("table", page.id("hypotheses"))) == 6


def test_verdicts_are_warnings_and_said_once(fresh: Path) -> None:
    wrong = {"kind": "dead latent", "explanation": "a guessed z is as good", "remedy": "lower the price of z"}
    change(fresh, "evaluation.json", about_z(lambda z: z.update(verdicts=[wrong])))
    page = Page(write_report(fresh))
    assert page.id("verdict").get("class") == "warn"
    assert page.text("verdict").count("a guessed z is as good") == 1
    words = page.text("latent")
    assert all(part in words for part in ("dead latent", "a guessed z is as good", "What helps: lower the price of z."))
    said = "Latent (dead latent): a guessed z is as good. What helps: lower the price of z."
    change(fresh, "evaluation.json", lambda v: v["warnings"].append(said))
    assert Page(write_report(fresh)).text("verdict").count("a guessed z is as good") == 1


def test_a_model_without_z_has_no_such_sections(fresh: Path) -> None:
    for missing in (lambda v: v.update(latent=None), lambda v: v.pop("latent")):
        change(fresh, "evaluation.json", missing)
        page = Page(write_report(fresh))
        assert not page.has("latent") and not page.has("hypotheses")
        assert not {"#latent", "#hypotheses"} & {link.get("href") for link in page.all("a")}


@pytest.mark.parametrize("way", ["gone", "null"])
@pytest.mark.parametrize("key", OPTIONAL)
def test_every_key_may_be_missing(key: str, way: str, fresh: Path) -> None:
    change(fresh, "evaluation.json", about_z(lambda z: z.pop(key) if way == "gone" else z.update({key: None})))
    page = Page(write_report(fresh))
    assert page.has("latent") and page.has("hypotheses") is (key != "hypotheses")


def test_everything_null_and_everything_empty(fresh: Path) -> None:
    nothing = {"name": "Gaussian", "dim": 3, **dict.fromkeys(OPTIONAL[:-1])}
    change(fresh, "evaluation.json", lambda v: v.update(latent=nothing))
    assert "normal numbers" in Page(write_report(fresh)).text("latent")
    inner = {"information": {"usage": None, "perplexity": None}, "free_energy": {}, "gaps": {}, "wells": None}
    change(fresh, "evaluation.json", about_z(lambda z: z.update(inner, hypotheses=[{}, {"predictions": [{}]}])))
    assert len(Page(write_report(fresh)).with_class("prospect")) == 1


def test_many_blocks_and_many_codes(fresh: Path) -> None:
    blocks = {"usage": [[1 / 500] * 500] * 20, "perplexity": [500.0] * 20}
    change(fresh, "evaluation.json", about_z(lambda z: z["information"].update(blocks)))
    page = Page(write_report(fresh))
    charts = page.all("figure", page.with_class("blocks")[0])
    assert len(charts) == 12 and len(page.all("rect", charts[0])) == 128
    assert "8 further blocks" in page.text("latent") and "128 most used of 500 codes" in page.text("latent")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda z: z["information"]["usage"][0].append(-0.1), "usage"),
        (lambda z: z["information"].update(usage=[[1e200]]), "usage"),
        (lambda z: z["information"].update(usage=["all"]), "usage"),
        (lambda z: z["wells"]["t"].pop(), "wells"),
        (lambda z: z["wells"].update(t=[0.5] * 61), "wells"),
        (lambda z: z["capacity_curve"][0].update(codes=0), "capacity_curve"),
        (lambda z: z["capacity_curve"].reverse(), "capacity_curve"),
        (lambda z: z["free_energy"].update(prior="high"), "prior"),
        (lambda z: z["hypotheses"][0].update(x=10**6), "hypotheses[0].x"),
        (lambda z: z["hypotheses"][0]["predictions"][0].update(neighbours=[24]), "neighbours[0]"),
        (lambda z: z["hypotheses"][0]["predictions"][0].update(probability=True), "probability"),
        (lambda z: z.update(verdicts="dead"), "verdicts"),
        (lambda z: z.update(hypotheses=[1]), "hypotheses[0]"),
    ],
)
def test_damage_is_named(edit: Callable[[dict[str, Any]], object], named: str, fresh: Path) -> None:
    change(fresh, "evaluation.json", about_z(edit))
    with pytest.raises(ArtifactError) as refused:
        write_report(fresh)
    assert named in (refused.value.where or ""), refused.value


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e90, -5.0])
def test_odd_numbers_do_no_harm(value: float, fresh: Path) -> None:
    def edit(z: dict[str, Any]) -> None:
        z["wells"].update(energy=[value] * 61)
        z["free_energy"] = dict.fromkeys(z["free_energy"], value)
        z["capacity"] = abs(value)
        z["information"].update(usage=[[abs(value)] * 3], mutual=value, perplexity=[value])
        z["capacity_curve"][0]["free_energy"] = value
        z["hypotheses"][0]["predictions"][0].update(probability=value, energy=value)

    change(fresh, "evaluation.json", about_z(edit))
    assert Page(write_report(fresh)).has("latent")


def test_amounts_in_words() -> None:
    assert values(np.log(16)) == "16 values" and values(64 * np.log(2)) == "2 to the power of 64 values"
    assert values(None) is None
    assert [rough(p) for p in (None, 0.5, 0.0312, 0.0012, 1e-9, 0.0)] == [
        *("–", "50\u202f%", "3\u202f%", "0.1\u202f%", "< 0.1\u202f%", "0\u202f%")
    ]
