"""compare.html: complete in itself, inert, says what the figures say; damaged files are named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import html5lib
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fake_comparison

from accord.errors import ArtifactError, UsageError
from accord.report.compare_charts import mean_curve, value_at
from accord.report.compare_page import inside, write_comparison


def parsed(path: Path) -> Any:
    return html5lib.HTMLParser(strict=True).parse(path.read_text("utf-8"))


def all_of(root: Any, name: str) -> list[Any]:
    return [node for node in root.iter() if str(node.tag).rpartition("}")[2] == name]


def part(root: Any, key: str) -> Any:
    (found,) = [node for node in root.iter() if node.get("id") == key]
    return found


def text(node: Any) -> str:
    return re.sub(r"\s+", " ", " ".join(node.itertext()))


def rows(root: Any, key: str) -> list[list[str]]:
    return [[text(cell).strip() for cell in row] for row in all_of(part(root, key), "tr")]


def change(out: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((out / "compare.json").read_text())
    edit(values)
    (out / "compare.json").write_text(json.dumps(values))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return parsed(write_comparison(fake_comparison.write(tmp_path_factory.mktemp("c") / "mine")))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return fake_comparison.write(tmp_path / "mine")


def test_the_table_shows_means_marks_and_baselines(page: Any) -> None:
    table = rows(page, "table")
    assert [row[0] for row in table[1:]] == [
        "VICReg",
        "SIGReg",
        "Barlow Twins",
        "untrained encoder",
        "PCA of the input",
        "raw input",
    ]
    assert re.match(r"✓ 9[67]\.\d.% ± 0\.\d", table[1][1])
    assert not any(cell.startswith("✓") for row in table[2:] for cell in row)
    assert table[6][2] == "–"


def test_the_words_are_there(page: Any) -> None:
    said = text(part(page, "verdict"))
    assert "VICReg is better than each of the others on the linear probe" in said
    assert "Holm" in said


def test_every_measure_has_a_picture_with_words(page: Any) -> None:
    pictures = all_of(part(page, "intervals"), "svg")
    assert len(pictures) == 9
    for picture in pictures:
        words = text(all_of(picture, "desc")[0])
        assert all(name in words for name in ("VICReg", "SIGReg", "Barlow Twins")) and "3 seeds" in words
        means = [node for node in all_of(picture, "circle") if "mean" in node.get("class").split()]
        seeds = [node for node in all_of(picture, "circle") if "seed" in node.get("class").split()]
        assert len(means) == 3 and len(seeds) == 9


def test_dots_lie_where_the_figures_are(page: Any) -> None:
    picture = all_of(part(page, "intervals"), "svg")[0]
    means = [float(node.get("cx")) for node in all_of(picture, "circle") if "mean" in node.get("class").split()]
    assert means[0] > means[1] > means[2], ".97, .95 and .90"
    assert (means[0] - means[1]) / (means[1] - means[2]) == pytest.approx(0.02 / 0.05, abs=0.1)


def test_learning_energies_neighbours_cost_trials_and_runs(page: Any) -> None:
    assert len(all_of(part(page, "speed"), "svg")) == 4
    assert len([n for n in all_of(part(page, "speed"), "path") if "line" in n.get("class", "").split()]) == 12
    assert len([n for n in all_of(part(page, "energy"), "svg") if n.get("role") == "img"]) == 3
    assert len(all_of(part(page, "neighbours"), "use")) > 20
    assert rows(page, "cost")[1][2:] == ["80", "20,480", "60 s", "55 s", "170", "500 MB"]
    assert rows(page, "trials")[1] == ["VICReg", "learning rate x 3", "90.0 %", "", "chosen"]
    assert len(rows(page, "runs")) == 1 + 9


def test_settings_and_what_is_not_equal(page: Any, out: Path) -> None:
    assert rows(page, "settings")[1:3] == [
        ["VICReg", "weight 0.5", "nothing", "–"],
        ["SIGReg", "weight 0.5", "cost cosine", "–"],
    ]
    assert "another encoder" not in text(part(page, "verdict"))
    other = {"encoder.name": "vit_tiny", "pairing.name": "masked_blocks"}
    change(out, lambda v: v["principles"][2].update(encoder="vit_tiny", differs=other))
    page = parsed(write_comparison(out))
    said = text(part(page, "verdict"))
    assert "Barlow Twins uses another encoder (ViT tiny) and other pairs than VICReg" in said
    assert "VICReg is better than SIGReg at finding the right y first" in said, "Barlow Twins is not ranked there"
    held = rows(page, "differences")[2]
    assert held[1].startswith("● −") and held[4:] == ["–"] * 5, "probes are, energies are not"


def test_differences_are_to_the_reference(page: Any) -> None:
    table = rows(page, "differences")
    assert table[0][0] == "minus VICReg" and [row[0] for row in table[1:]] == ["SIGReg", "Barlow Twins"]
    assert all(cell.startswith("● −") for cell in table[2][1:])


def test_one_seed_marks_nothing_and_has_no_differences(tmp_path: Path) -> None:
    page = parsed(write_comparison(fake_comparison.write(tmp_path / "one", seeds=1)))
    assert "One seed has no interval" in text(part(page, "verdict"))
    table = text(part(page, "table"))
    assert "✓ 9" not in table and "≈ 9" not in table and "± 0" not in table
    assert not [node for node in page.iter() if node.get("id") == "differences"]


def test_without_labels_or_pictures(tmp_path: Path) -> None:
    page = parsed(write_comparison(fake_comparison.write(tmp_path / "v", labels=False, kind="vector")))
    assert rows(page, "table")[0][1] == "R@1"
    assert not [node for node in page.iter() if node.get("id") == "neighbours"]


def test_collapses_failures_and_what_is_open(out: Path) -> None:
    def spoil(values: dict[str, Any]) -> None:
        values["runs"][0] |= {"status": "diverged", "message": "not finite", "metrics": {}, "histogram": None}
        values["runs"][3]["verdict"] = "dimensional"
        values["runs"][6] |= {"status": "open", "metrics": {}}

    change(out, spoil)
    page = parsed(write_comparison(out))
    table = rows(page, "table")
    assert table[1][0] == "VICReg 1 of 3 diverged" and table[2][0] == "SIGReg 1 of 3 dimensional"
    said = text(part(page, "verdict"))
    assert "1 run is still to come" in said and "VICReg failed in 1 of 3 runs" in said


def test_the_page_is_inert_whatever_names_say(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>\u202e&amp;"
    plain = parsed(write_comparison(fake_comparison.write(tmp_path / "a")))
    page = parsed(write_comparison(fake_comparison.write(tmp_path / "b", name=lambda t: hostile + t)))
    shape = [(str(node.tag), sorted(node.keys())) for node in page.iter()]
    assert shape == [(str(node.tag), sorted(node.keys())) for node in plain.iter()]
    assert not all_of(page, "script")
    source = (tmp_path / "b" / "compare.html").read_text("utf-8")
    assert "\u202e" not in source and not re.findall(r"(?i)https?://|url\(|@import", source)


def test_links_lead_only_into_the_comparison(out: Path) -> None:
    assert inside("runs/vicreg/seed-0")
    for folder in ("../x", "/etc", "runs/../../x", "javascript:alert(1)", "a b", ""):
        assert not inside(folder)
    (out / "runs" / "vicreg" / "seed-0" / "report.html").write_text("x")
    page = parsed(write_comparison(out))
    assert [a.get("href") for a in all_of(page, "a")] == ["runs/vicreg/seed-0/report.html"]


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (lambda v: v["runs"][0].pop("principle"), r"runs\[0\]\.principle"),
        (lambda v: v["runs"][0]["metrics"].update(linear="high"), "linear"),
        (lambda v: v["runs"][0]["curve"]["step"].pop(), "curve"),
        (lambda v: v["runs"][0]["histogram"].update(edges=[1, 0]), "edges"),
        (lambda v: v.update(principles=3), "principles"),
    ],
)
def test_damage_is_named(out: Path, edit: Callable[[dict[str, Any]], object], names: str) -> None:
    change(out, edit)
    with pytest.raises(ArtifactError, match=names):
        write_comparison(out)
    assert not (out / "compare.html").exists()


def test_what_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"compare\.json is missing"):
        write_comparison(tmp_path)


def test_accord_report_writes_it_too(out: Path, accord: Callable[..., Any]) -> None:
    outcome = accord("report", out, "--json")
    assert outcome.code == 0 and outcome.json["report"] == str(out / "compare.html")


def test_the_page_needs_no_torch() -> None:
    code = "import sys, accord.report.compare_page; print([m for m in ('torch', 'numpy', 'PIL', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_mean_of_curves() -> None:
    curves = [[(0.0, 0.0), (10.0, 1.0)], [(2.0, 1.0), (6.0, 1.0), (8.0, 3.0)]]
    found = mean_curve(curves, points=7)
    assert [at for at, _ in found] == pytest.approx([2, 3, 4, 5, 6, 7, 8])
    assert found[0][1] == pytest.approx((0.2 + 1) / 2) and found[-1][1] == pytest.approx((0.8 + 3) / 2)
    assert value_at(curves[1], 7.0) == pytest.approx(2.0)
    assert mean_curve([[(0.0, 1.0)]]) == [] == mean_curve([])


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program = fake_comparison.browser.find()
    if program is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with fake_comparison.browser.Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "mobile", "dark"), [(1366, False, False), (390, True, True)])
def test_in_chromium(chromium: Any, out: Path, width: int, mobile: bool, dark: bool) -> None:
    path = write_comparison(out)
    chromium.open(path, width=width, mobile=mobile, dark=dark)
    assert chromium.dialogs == [] and chromium.complaints == []
    assert [url for url in chromium.requests if url.startswith("file")] == [path.resolve().as_uri()]
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    dot = "document.querySelector('#intervals circle.mean')"
    assert chromium.ask(f"{dot}.getBoundingClientRect().width") > 5
    colours = chromium.ask(
        "[...document.querySelectorAll('#intervals circle.mean')].map(c => getComputedStyle(c).fill)"
    )
    assert len(set(colours[:3])) == 3, "the style sheet is in force"
