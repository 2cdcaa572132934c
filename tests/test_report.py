"""The report: what it shows is what the files of the run say, it is complete in itself, and damaged files are named."""

from __future__ import annotations

import base64
import importlib.util
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import html5lib
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from accord.errors import AccordError, ArtifactError, EnvironmentFault, UsageError
from accord.report.charts import (
    Axis,
    Bar,
    Html,
    Series,
    bars,
    duration,
    figure,
    fraction,
    histogram,
    line_chart,
    linear,
    logarithmic,
    percent,
    tag,
    tick_text,
)
from accord.report.page import render, write_report
from accord.report.read import read_run


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    spec = importlib.util.spec_from_file_location(f"accord_tests_{name}", Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fake_run = load("fake_run")
SVG = "{http://www.w3.org/2000/svg}"


def name_of(node: Any) -> str:
    return str(node.tag).rpartition("}")[2]


class Page:
    """A parsed report."""

    def __init__(self, path: Path):
        self.source = path.read_text("utf-8")
        self.root = html5lib.HTMLParser(strict=True).parse(self.source)
        self.parents = {child: parent for parent in self.root.iter() for child in parent}

    def all(self, name: str, within: Any = None) -> list[Any]:
        return [node for node in (self.root if within is None else within).iter() if name_of(node) == name]

    def with_class(self, name: str, within: Any = None) -> list[Any]:
        nodes = (self.root if within is None else within).iter()
        return [node for node in nodes if name in (node.get("class") or "").split()]

    def id(self, key: str) -> Any:
        (found,) = [node for node in self.root.iter() if node.get("id") == key]
        return found

    def has(self, key: str) -> bool:
        return any(node.get("id") == key for node in self.root.iter())

    def text(self, key: str | None = None) -> str:
        node = self.root if key is None else self.id(key)
        return re.sub(r"\s+", " ", " ".join(node.itertext()))

    def table(self, key: str, number: int = 0) -> list[list[str]]:
        rows = self.all("tr", self.all("table", self.id(key))[number])
        return [[re.sub(r"\s+", " ", " ".join(cell.itertext())).strip() for cell in row] for row in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(fake_run.write_run(tmp_path_factory.mktemp("runs") / "digits"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_report(run))


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return Path(fake_run.write_run(tmp_path / "digits", samples=24, lines=12))


def change(run: Path, file: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites a JSON file of the run."""
    values = json.loads((run / file).read_text())
    edit(values)
    (run / file).write_text(json.dumps(values))


# What is shown


def test_the_file_is_where_it_is_said_to_be_and_small(run: Path, page: Page) -> None:
    assert write_report(run) == run / "report.html"
    assert (run / "report.html").stat().st_size < 400_000
    assert page.source.startswith("<!DOCTYPE html>")


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    first = fake_run.write_run(tmp_path / "a" / "run", samples=24, lines=8)
    second = fake_run.write_run(tmp_path / "b" / "run", samples=24, lines=8)
    one, two = write_report(first), write_report(second, tmp_path / "elsewhere.html")
    assert two == tmp_path / "elsewhere.html"
    assert one.read_bytes() == two.read_bytes()
    assert str(tmp_path) not in one.read_text("utf-8")


def test_the_head_says_what_was_trained_on_what(page: Page) -> None:
    (header,) = page.all("header")
    words = " ".join(header.itertext())
    for part in ("digits", "patch network", "1,438 samples", "VICReg", "1,200 steps", "41 s", "CPU", "saw no labels"):
        assert part in words
    facts = page.text("trained")
    for part in (
        "1,797 images",
        "8 × 8 pixels, grey",
        "1,438 + 357",
        "10 classes",
        "412,672 weights",
        "256 → 256",
        "float32",
    ):
        assert part in facts


def test_headline_figures_are_those_of_the_evaluation(run: Path, page: Page) -> None:
    found = json.loads((run / "evaluation.json").read_text())
    assert page.id("verdict").get("class") == "good"
    values = ["".join(node.itertext()).replace("\u202f", " ") for node in page.with_class("value", page.id("verdict"))]
    auroc = found["energy"]["ladder"]["random"]["auroc"]
    assert values == ["93.8 %", f"{auroc:.3f}", "81.2 %", "131"]
    words = page.text("verdict").replace("\u202f", " ")
    assert "raw input 85.3 %, PCA 86.1 %" in words
    assert "+7.7 points" in words
    assert "by chance 0.3 %" in words


def test_probe_bars_are_as_long_as_their_values(page: Page) -> None:
    chart = page.all("svg", page.id("probes"))[0]
    widths = {
        style: [float(node.get("width")) for node in page.with_class(style, chart)]
        for style in ("features", "pca", "pixels")
    }
    expected = {"features": (0.938, 0.972, 0.981), "pca": (0.861, 0.948, 0.958), "pixels": (0.853, 0.951, 0.962)}
    scale = widths["features"][0] / 0.938
    for style, values in expected.items():
        assert widths[style] == pytest.approx([scale * v for v in values], abs=0.2)
    lines = [float(re.match(r"M([\d.]+) ", node.get("d")).group(1)) for node in page.with_class("chance", chart)]
    assert lines == pytest.approx([1 + scale * 0.101] * 3, abs=0.2)
    rows = page.table("probes")
    assert [row[-1] for row in rows[1:]] == ["+7.7", "+1.7", "+1.8"]


def test_energy_table_and_histograms_agree_with_the_evaluation(run: Path, page: Page) -> None:
    energy = json.loads((run / "evaluation.json").read_text())["energy"]
    rows = {row[0]: row[1:] for row in page.table("energy")[1:]}
    assert list(rows) == ["Matched", "Random", "Nearest", "Perturbed"]
    for name in ("random", "nearest", "perturbed"):
        rung = energy["ladder"][name]
        assert rows[name.capitalize()][3] == f"{rung['auroc']:.3f}"
        assert float(rows[name.capitalize()][0]) == pytest.approx(rung["mean"], rel=0.006)
        chart = next(c for c in page.all("svg", page.id("energy")) if page.with_class(name, c))
        for style in ("matched", name):
            (drawn,) = page.with_class(style, chart)
            assert area(drawn.get("d")) == pytest.approx(area_of(energy["histogram"], style, name), rel=0.03)


def area(path: str) -> float:
    """Area between a step outline and its base line."""
    total, x, y, base = 0.0, 0.0, 0.0, 0.0
    for letter, values in re.findall(r"([MVHZ])([-\d. ]*)", path):
        numbers = [float(v) for v in values.split()]
        if letter == "M":
            x, y = numbers
            base = y
        elif letter == "V":
            y = numbers[0]
        elif letter == "H":
            total += (numbers[0] - x) * (base - y)
            x = numbers[0]
    return total


def area_of(counts: dict[str, list[float]], name: str, rung: str) -> float:
    """The same from the counts: shares of pairs, on the scales of the chart."""
    edges = np.array(counts["edges"])
    used = np.flatnonzero(np.array(counts["matched"]) + np.array(counts[rung]))
    low, high = edges[used[0]], edges[used[-1] + 1]
    shares = {n: 100 * np.array(counts[n]) / sum(counts[n]) for n in ("matched", rung)}
    top = linear([0.0, *shares["matched"], *shares[rung]], 0, 1, count=3).high
    return float(shares[name].sum() * (edges[1] - edges[0]) * (330 - 44) / (high - low) * (164 - 22) / top)


def test_retrieval_is_set_against_chance(page: Page) -> None:
    rows = [[cell.replace("\u202f", " ") for cell in row] for row in page.table("energy", 1)]
    assert rows[1][1:] == ["81.2 %", "0.3 %"]
    assert rows[3][1:] == ["98.3 %", "2.8 %"]
    assert rows[4][1:] == ["1", "179"]
    assert rows[6][1:] == ["77.4 %", "0.3 %"] and rows[7][1] == "0.643"


def test_curves_have_one_point_for_each_step_of_the_log(run: Path, page: Page) -> None:
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    titles = [node.text for node in page.all("h3", page.id("training"))]
    assert titles[:3] == ["Loss", "Terms of the loss", "Energy of pairs"]
    assert "Learning rate" in titles
    data = json.loads(page.id("data").text)
    charts = {chart["names"][0]: chart for chart in data["charts"]}
    assert charts["loss"]["x"] == [line["step"] for line in log]
    assert charts["loss"]["y"][0] == pytest.approx([line["loss"] for line in log], rel=1e-4)
    assert charts["invariance"]["names"] == ["invariance", "variance", "covariance"]
    loss = page.with_class("line", page.id(charts["loss"]["id"]))[0].get("d")
    places = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", loss), float)
    assert len(places) == len(log)
    assert np.corrcoef(places[:, 1], [line["loss"] for line in log])[0, 1] == pytest.approx(-1, abs=1e-3)
    rank = page.with_class("line", page.id(charts["effective rank"]["id"]))[0].get("d")
    assert rank.count("M") == 1, "values that were not measured do not break the line"
    assert len(re.findall("[ML]", rank)) == sum(line["effective_rank"] is not None for line in log)
    assert "resumed from step-600" in page.text("training")
    assert len(page.with_class("event", page.id(charts["loss"]["id"]))) == 1


def test_the_map_keeps_distances_and_points_up(run: Path, page: Page) -> None:
    view = json.loads((run / "evaluation.json").read_text())["map"]
    shown = json.loads(page.id("data").text)["map"]
    true, drawn = (np.stack([one["x"], one["y"]], 1) for one in (view, shown))
    ratio = np.linalg.norm(drawn - drawn[0], axis=1)[1:] / np.linalg.norm(true - true[0], axis=1)[1:]
    assert ratio == pytest.approx(np.full(len(ratio), ratio.mean()), rel=0.05)
    assert np.corrcoef(true[:, 1], drawn[:, 1])[0, 1] == pytest.approx(-1, abs=1e-3)
    dots = next(iter(page.with_class("dots", page.id("map"))))
    assert len(dots) == len(view["x"])
    styles = [dot.get("class") for dot in dots]
    assert styles == [f"k{label}" for label in view["label"]]
    shapes = {
        label: (name_of(dot), re.sub(r"^M\S+ [\d.]+", "", dot.get("d") or ""))
        for label, dot in zip(view["label"], dots, strict=True)
    }
    assert len(set(shapes.values())) == 4, "colour is never the only sign of a class"


def test_every_picture_is_a_window_on_the_right_thumbnail(run: Path, page: Page) -> None:
    (image,) = page.all("image")
    href = next(value for key, value in image.attrib.items() if key.endswith("href"))
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(href.removeprefix("data:image/png;base64,")))))
    found = json.loads((run / "evaluation.json").read_text())
    digits = load_digits().images

    def shown(svg: Any) -> np.ndarray:
        x, y, width, height = map(int, svg.get("viewBox").split())
        return sheet[y : y + height, x : x + width]

    rows = page.with_class("row", page.id("neighbours"))
    for group, row in zip(found["neighbours"], rows, strict=True):
        expected = [group["query"], *(one["thumbnail"] for one in group["neighbours"])]
        for svg, index in zip(page.all("svg", row), expected, strict=True):
            assert (shown(svg) == (255 - digits[index] * 15.9).astype(np.uint8)).all()
    views = page.all("svg", page.id("pairs"))
    expected = [one[side] for key in ("lowest", "highest") for one in found["pairs"][key] for side in "xy"]
    for svg, index in zip(views, expected, strict=True):
        assert (shown(svg) == (255 - digits[index] * 15.9).astype(np.uint8)).all()
    for node in page.all("use"):
        assert next(iter(node.attrib.values())) == "#sprite"


def test_neighbours_of_another_class_are_marked_and_counted(run: Path, page: Page) -> None:
    found = json.loads((run / "evaluation.json").read_text())
    label = dict(zip(found["map"]["thumbnail"], found["map"]["label"], strict=True))
    same = [one["label"] == label[group["query"]] for group in found["neighbours"] for one in group["neighbours"]]
    assert 0.5 < np.mean(same) < 1
    assert len(page.with_class("other", page.id("neighbours"))) == len(same) - sum(same)
    assert percent(float(np.mean(same))).split("\u202f")[0] in page.text("neighbours")


def test_every_chart_has_words_for_those_who_cannot_see_it(page: Page) -> None:
    charts = page.with_class("chart")
    assert len(charts) >= 15
    for chart in charts:
        assert chart.get("role") == "img"
        title, words = chart[0], chart[1]
        assert (name_of(title), name_of(words)) == ("title", "desc")
        assert len(title.text) > 3
        assert len(words.text) > 20


def test_links_lead_to_sections(page: Page) -> None:
    links = [link.get("href") for link in page.all("a")]
    assert len(links) >= 6
    for link in links:
        assert page.has(link.removeprefix("#"))


def test_skipped_items_commands_and_environment(page: Page) -> None:
    assert page.table("skipped")[1] == ["broken/7.png", "E301", "empty file", "remove it"]
    assert "accord train digits --epochs 200 --out runs/digits" in page.text("reproduce")
    assert 'name = "patch"' in page.text("reproduce")
    assert "2.13.0" in page.text("environment")


# Runs of other kinds


def test_a_run_without_evaluation_says_how_to_get_one(tmp_path: Path) -> None:
    page = Page(write_report(fake_run.write_run(tmp_path / "run", evaluated=False)))
    assert page.id("verdict").get("class") == "open"
    assert "accord evaluate RUN" in page.text("verdict")
    assert page.has("training")
    assert not page.has("energy")
    assert not page.all("image")
    assert "VICReg" in page.text("trained"), "the recipe knows the principle"


def test_a_run_that_stopped_tells_why(fresh: Path) -> None:
    (fresh / "evaluation.json").unlink()
    with (fresh / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 130, "event": "stopped: dimensional collapse"}) + "\n")
    assert "stopped: dimensional collapse" in Page(write_report(fresh)).text("verdict")


def test_a_run_without_labels_has_all_but_probes(tmp_path: Path) -> None:
    page = Page(write_report(fake_run.write_run(tmp_path / "run", labels=False)))
    assert "no labels" in page.text("probes")
    assert page.id("verdict").get("class") == "good"
    for key in ("training", "energy", "spectrum", "map", "neighbours", "pairs"):
        assert page.has(key)
    assert not page.with_class("classes")
    assert page.id("layer-tiles").get("checked") is not None, "grey dots say less than pictures"
    assert "saw no labels" not in page.text()


def test_vectors_need_no_pictures(tmp_path: Path) -> None:
    run = fake_run.write_run(tmp_path / "run", kind="vector")
    page = Page(write_report(run))
    found = json.loads((run / "evaluation.json").read_text())
    assert not page.all("image")
    assert not page.all("use")
    assert "1,797 rows" in page.text("trained")
    assert "64 numbers each" in page.text("trained")
    assert page.has("map")
    assert [row[0] for row in page.table("pairs")[1:]] == [one["key"] for one in found["pairs"]["lowest"]]
    items = [" ".join(item.itertext()) for item in page.all("li", page.id("neighbours"))]
    for group, item in zip(found["neighbours"], items, strict=True):
        places = [item.index(key) for key in (group["key"], *(one["key"] + " " for one in group["neighbours"]))]
        assert places == sorted(places)


def test_a_run_with_only_a_log(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    page = Page(write_report(tmp_path))
    assert page.has("training")


def test_an_evaluation_with_everything_null(fresh: Path) -> None:
    change(fresh, "evaluation.json", lambda v: v.update(dict.fromkeys(v)))
    page = Page(write_report(fresh))
    assert "none of the headline figures" in page.text("verdict")


def test_many_classes(fresh: Path) -> None:
    def edit(values: dict[str, Any]) -> None:
        values["data"]["classes"] = [f"class {i}" for i in range(100)]
        values["map"]["label"] = list(range(24))

    change(fresh, "evaluation.json", edit)
    page = Page(write_report(fresh))
    assert len(page.all("input", page.with_class("classes")[0])) == 21
    assert "4 smaller classes" in page.text("map-of-embeddings")
    styles = [node.get("class") for node in page.with_class("dots")[0]]
    assert styles.count("k-none") == 4


@pytest.mark.parametrize("kind", ["constant", "dimensional", "flat energy"])
def test_a_collapse_is_named_with_a_remedy(kind: str, fresh: Path) -> None:
    change(fresh, "evaluation.json", lambda v: v["collapse"].update(verdict=kind))
    page = Page(write_report(fresh))
    assert page.id("verdict").get("class") == "bad"
    assert f"Collapsed: {kind}" in page.text("verdict")
    assert re.search(r"[Rr]aise the weight of the \w+", page.text("verdict"))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda v: v["warnings"].append("Half of the data are duplicates."), "Half of the data are duplicates."),
        (lambda v: v["energy"]["ladder"]["random"].update(auroc=0.6), "only weakly: AUROC 0.600"),
        (lambda v: v["probes"]["features"]["few_label"].update(mean=0.85), "no better than"),
        (lambda v: v["data"].update(held_out=60), "Only 60 samples"),
    ],
)
def test_warnings_are_said_in_words(edit: Callable[[dict[str, Any]], object], words: str, fresh: Path) -> None:
    assert Page(write_report(fresh)).id("verdict").get("class") == "good"
    change(fresh, "evaluation.json", edit)
    page = Page(write_report(fresh))
    assert page.id("verdict").get("class") == "warn"
    assert words in page.text("verdict")


@pytest.mark.parametrize(
    ("rival", "words"),
    [
        ("pixels", "no better than the raw input ("),
        ("pca", "no better than the PCA of the input ("),
        ("untrained", "no better than the same encoder before training ("),
    ],
)
def test_the_rival_that_is_not_beaten_is_named(rival: str, words: str, fresh: Path) -> None:
    """Features may beat the raw input and still be no better than before training: the sentence must not mix the two up."""

    def edit(v: dict[str, Any]) -> None:
        few = v["probes"]["features"]["few_label"]
        for name in ("pixels", "pca", "untrained"):
            v["probes"].setdefault(name, {"linear": 0.5, "knn": 0.5})
            v["probes"][name]["few_label"] = {**few, "mean": few["mean"] - 0.1 if name != rival else few["mean"] + 0.02}

    change(fresh, "evaluation.json", edit)
    assert words in Page(write_report(fresh)).text("verdict")


def test_what_a_resumed_run_wrote_again_replaces_what_it_wrote_before(fresh: Path) -> None:
    lines = [{"step": s, "loss": float(loss)} for s, loss in [(1, 9), (2, 8), (3, 7), (4, 6), (2, 80), (3, 70)]]
    (fresh / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    chart = json.loads(Page(write_report(fresh)).id("data").text)["charts"][0]
    assert (chart["x"], chart["y"]) == ([1, 2, 3], [[9, 80, 70]])


def test_a_long_log_makes_no_long_page(fresh: Path) -> None:
    lines = (json.dumps({"step": s, "loss": 1 / s, "terms": {"invariance": 2 / s}}) for s in range(1, 30_001))
    (fresh / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    path = write_report(fresh)
    assert path.stat().st_size < 400_000
    chart = json.loads(Page(path).id("data").text)["charts"][0]
    assert (len(chart["x"]), chart["x"][0], chart["x"][-1]) == (240, 1, 30_000)


def test_big_thumbnails_are_packed(fresh: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96 * 6, 96 * 16, 3), np.uint8)
    Image.fromarray(noise).save(fresh / "evaluation" / "thumbnails.png")
    change(fresh, "evaluation.json", lambda v: v.update(thumbnails={"size": 96, "columns": 16, "count": 24}))
    page = Page(write_report(fresh))
    assert len(page.source) < 0.8 * (fresh / "evaluation" / "thumbnails.png").stat().st_size
    assert "data:image/jpeg;base64," in page.source


def test_thumbnails_lose_their_metadata(fresh: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    path, notes = fresh / "evaluation" / "thumbnails.png", PngInfo()
    notes.add_text("Comment", "taken at home")
    with Image.open(path) as image:
        image.load()
    image.save(path, pnginfo=notes, exif=b"Exif\0\0secret")
    assert b"taken at home" in path.read_bytes()
    found = re.search(r"data:image/png;base64,([^\"]+)", write_report(fresh).read_text("utf-8"))
    assert found is not None
    content = base64.b64decode(found.group(1))
    assert b"taken at home" not in content
    assert b"secret" not in content


# Damage


def damage_cases() -> list[Any]:
    evaluation: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
        ("wrong type", lambda v: v["data"].update(samples="many"), "data.samples"),
        ("truth for number", lambda v: v["data"].update(train=True), "data.train"),
        ("list for object", lambda v: v.update(energy=[]), "energy"),
        ("object for list", lambda v: v.update(warnings={}), "warnings"),
        ("number for text", lambda v: v["warnings"].append(3), "warnings[0]"),
        ("huge number", lambda v: v["model"].update(parameters=10**400), "model.parameters"),
        ("class out of range", lambda v: v["map"]["label"].__setitem__(0, 10), "map.label[0]"),
        ("thumbnail out of range", lambda v: v["map"]["thumbnail"].__setitem__(3, 24), "map.thumbnail[3]"),
        ("fractional index", lambda v: v["neighbours"][0].update(query=1.5), "neighbours[0].query"),
        ("lengths differ", lambda v: v["map"]["x"].pop(), "map"),
        ("bins missing", lambda v: v["energy"]["histogram"]["matched"].pop(), "energy.histogram.matched"),
        ("negative bin", lambda v: v["energy"]["histogram"]["random"].__setitem__(0, -1), "energy.histogram.random"),
        ("edges fall", lambda v: v["energy"]["histogram"]["edges"].reverse(), "energy.histogram.edges"),
        ("no such columns", lambda v: v["thumbnails"].update(columns=0), "thumbnails"),
        ("too few pixels", lambda v: v["thumbnails"].update(count=10_000), "thumbnails.png"),
    ]
    return [pytest.param(edit, where, id=name) for name, edit, where in evaluation]


@pytest.mark.parametrize(("edit", "where"), damage_cases())
def test_a_value_that_cannot_be_is_named(edit: Callable[[dict[str, Any]], object], where: str, fresh: Path) -> None:
    change(fresh, "evaluation.json", edit)
    with pytest.raises(ArtifactError) as error:
        write_report(fresh)
    assert error.value.where is not None
    assert error.value.where.endswith(where)
    assert "evaluation" in error.value.where
    assert error.value.help
    assert not (fresh / "report.html").exists()


@pytest.mark.parametrize("name", ["evaluation.json", "environment.json", "calibration.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"a": NaN}',
        b'{"a": 1} x',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": ' * 50_000,
        b'{"a": 1' + b"0" * 9000 + b"}",
    ],
    ids=["empty", "cut", "list", "null", "nan", "more", "bytes", "deep", "deep objects", "long number"],
)
def test_damaged_json_is_named(name: str, content: bytes, fresh: Path) -> None:
    (fresh / name).write_bytes(content)
    with pytest.raises(ArtifactError) as error:
        write_report(fresh)
    assert name in str(error.value.where)
    assert error.value.exit_code == 4


def test_every_truncation_of_the_evaluation_is_noticed(fresh: Path) -> None:
    whole = (fresh / "evaluation.json").read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25, dtype=int):
        (fresh / "evaluation.json").write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            write_report(fresh)


def test_random_damage_gives_a_report_or_a_named_error(fresh: Path) -> None:
    """Changed bytes may still be JSON; whatever they are, the page is valid HTML or the error is ours."""
    random = np.random.default_rng(0)
    outcomes = set()
    for file in ("evaluation.json", "metrics.jsonl", "evaluation/thumbnails.png"):
        whole = (fresh / file).read_bytes()
        for _ in range(25):
            torn = bytearray(whole)
            for place in random.integers(0, len(whole), 3):
                torn[place] = int(random.choice(np.frombuffer(b'0123456789"{}[]:,.-eabc\x00\xff', np.uint8)))
            (fresh / file).write_bytes(bytes(torn))
            try:
                Page(write_report(fresh))
                outcomes.add("page")
            except AccordError:
                outcomes.add("error")
        (fresh / file).write_bytes(whole)
    assert outcomes == {"page", "error"}


def test_any_number_anywhere_gives_a_page_or_a_named_error(tmp_path: Path) -> None:
    run = fake_run.write_run(tmp_path / "run", samples=12, lines=4)
    values = json.loads((run / "evaluation.json").read_text())
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    pages, extremes = 0, itertools.cycle((0, -1, 1e99, -1e99, 1e-320, 1e300, 0.5))
    for holder, key in [*numbers_in(values), *numbers_in(log)]:
        kept, holder[key] = holder[key], next(extremes)
        (run / "evaluation.json").write_text(json.dumps(values))
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        try:
            render(read_run(run))
            pages += 1
        except ArtifactError:
            pass
        holder[key] = kept
    assert pages > 60


def numbers_in(value: Any) -> list[tuple[Any, Any]]:
    """Where numbers are in JSON, as (holder, key): the first and the last of each list only."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else [(0, value[0]), (len(value) - 1, value[-1])]
        if value
        else []
    )
    found = [(value, key) for key, inner in items if isinstance(inner, int | float)]
    return found + [place for _, inner in items if isinstance(inner, dict | list) for place in numbers_in(inner)]


def test_a_torn_last_line_is_left_out_and_said(fresh: Path) -> None:
    with (fresh / "metrics.jsonl").open("a") as log:
        log.write('{"step": 999, "lo')
    page = Page(write_report(fresh))
    assert "metrics.jsonl is incomplete" in page.text("verdict")
    assert json.loads(page.id("data").text)["charts"][0]["x"][-1] == 120


def test_a_torn_line_in_the_middle_is_named_with_its_number(fresh: Path) -> None:
    lines = (fresh / "metrics.jsonl").read_text().splitlines()
    lines[4] = lines[4][:20]
    (fresh / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl:5"):
        write_report(fresh)


def test_a_damaged_recipe_is_named(fresh: Path) -> None:
    (fresh / "recipe.toml").write_text("[data\n")
    with pytest.raises(ArtifactError, match=r"recipe\.toml"):
        write_report(fresh)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, None])
def test_damaged_thumbnails_are_named(content: bytes | None, fresh: Path) -> None:
    path = fresh / "evaluation" / "thumbnails.png"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(ArtifactError, match=r"thumbnails\.png"):
        write_report(fresh)


def test_a_picture_bomb_is_refused_from_its_header(fresh: Path) -> None:
    path = fresh / "evaluation" / "thumbnails.png"
    data = bytearray(path.read_bytes())
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="50000 x 50000"):
        write_report(fresh)


def test_links_and_devices_are_not_followed(fresh: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "hunter2"}')
    (fresh / "environment.json").unlink()
    (fresh / "environment.json").symlink_to(secret)
    with pytest.raises(ArtifactError, match="symbolic link"):
        write_report(fresh)
    (fresh / "environment.json").unlink()
    os.mkfifo(fresh / "environment.json")
    with pytest.raises(ArtifactError, match="not a regular file"):
        write_report(fresh)


def test_a_planted_link_at_the_report_is_replaced_not_followed(fresh: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    (fresh / "report.html").symlink_to(victim)
    path = write_report(fresh)
    assert victim.read_text() == "keep me"
    assert not path.is_symlink()


def test_what_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(UsageError) as error:
            write_report(path)
        assert error.value.where == str(path)


def test_a_report_that_cannot_be_written_leaves_the_old_one_and_no_rest(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report(fresh)
    before, names = path.read_bytes(), sorted(fresh.iterdir())
    change(fresh, "evaluation.json", lambda v: v["warnings"].append("new"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        write_report(fresh)
    assert path.read_bytes() == before
    assert sorted(fresh.iterdir()) == names
    with pytest.raises(EnvironmentFault):
        write_report(fresh, fresh / "absent" / "report.html")


def test_no_heavy_import() -> None:
    code = "import sys, accord.report; print(sorted(m for m in ('torch', 'numpy', 'PIL', 'matplotlib', 'pydantic') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Charts


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([0, 97], [0, 20, 40, 60, 80, 100]),
        ([-3, 4], [-4, -2, 0, 2, 4]),
        ([5, 5], [2, 3, 4, 5, 6, 7, 8]),
        ([0, 0], [-1, -0.5, 0, 0.5, 1]),
        ([1e-7, 9e-7], [0, 2e-7, 4e-7, 6e-7, 8e-7, 1e-6]),
    ],
)
def test_ticks_are_round_and_cover_the_values(values: list[float], ticks: list[float]) -> None:
    axis = linear(values, 0, 100)
    assert axis.ticks == pytest.approx(ticks)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert axis.at(axis.low) == 0
    assert axis.at(axis.high) == 100


@pytest.mark.parametrize("seed", range(20))
def test_axes_hold_any_values(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = (random.standard_normal(5) * 10.0 ** random.integers(-12, 12) + 10.0 ** random.integers(-3, 9)).tolist()
    axis = linear(values, 0, 100)
    assert 2 <= len(axis.ticks) <= 12
    assert all(-0.1 <= axis.at(v) <= 100.1 for v in values)
    tight = linear(values, 0, 100, tight=True)
    spread = max(values) - min(values) > 1e-9 * max(map(abs, values))
    assert (tight.at(min(values)), tight.at(max(values))) == ((0, 100) if spread else pytest.approx((50, 50), abs=0.1))
    positive = [abs(v) + 1e-9 for v in values]
    log = logarithmic(positive, 0, 100)
    assert all(-0.1 <= log.at(v) <= 100.1 for v in positive)
    assert 1 <= len(log.ticks) <= 10


def test_logarithmic_axis_is_logarithmic() -> None:
    axis = logarithmic([1e-4, 1.0], 0, 100)
    assert axis.ticks == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert [axis.at(v) for v in axis.ticks] == pytest.approx([0, 25, 50, 75, 100])


def test_numbers_for_people() -> None:
    assert [figure(v) for v in (None, 0, 3.0, 1437, 0.04321, 12.3456, 123456.7, -0.5)] == [
        "–", "0", "3", "1,437", "0.0432", "12.3", "123,457", "\u22120.500",
    ]  # fmt: skip
    assert [fraction(v) for v in (1, 0.99999, 0.5, 0.98765)] == ["1.000", "> 0.999", "0.500", "0.988"]
    assert [percent(v) for v in (1, 0.99999, 0.981)] == ["100.0\u202f%", "99.9\u202f%", "98.1\u202f%"]
    assert [duration(v) for v in (0.512, 41.3, 99.6, 200, 3700)] == [
        "0.5 s",
        "41 s",
        "1 min 40 s",
        "3 min 20 s",
        "1 h 1 min",
    ]
    assert [tick_text(v, [0, 20_000]) for v in (0, 20_000)] == ["0", "20k"]
    assert tick_text(1e-5, [1e-5, 1e-4]) == "1e\u22125"


def test_charts_of_degenerate_values() -> None:
    one = line_chart("t", [5.0], [Series("a", "s1", [0.0])])
    assert 'd="M' in one
    assert "nan" not in one.lower()
    none = histogram("t", [0.0, 1.0, 2.0], [("a", "matched", [0, 0]), ("b", "random", [0, 0])])
    assert "nan" not in none.lower()
    constant = line_chart("t", [1.0, 1.0], [Series("a", "s1", [2.0, None])], log=True, zero=True)
    assert "inf" not in constant
    beyond = bars("t", [("g", [Bar("a", "features", 1.2, 0.5)])], chance=None)
    assert "nan" not in beyond


def test_markup_is_escaped_once_and_only_where_it_must_be() -> None:
    inner = tag("b", "<&>")
    assert inner == "<b>&lt;&amp;&gt;</b>"
    assert tag("p", inner, "'\"") == "<p><b>&lt;&amp;&gt;</b>&#x27;&quot;</p>"
    assert tag("i", title='"><x>') == '<i title="&quot;&gt;&lt;x&gt;"></i>'
    assert tag("i", "\u202e\x1b") == "<i>\\u202e\\x1b</i>"
    assert tag("i", "x" * 1000) == f"<i>{'x' * 599}…</i>"
    assert tag("i", Html("<u>"), None) == "<i><u></i>"
    assert not math.isnan(Axis(0, 1, 0, 1, []).at(0.5))
