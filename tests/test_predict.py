"""``accord predict``: two outcomes of a jump found as two hypotheses, bad rows kept, wrong arguments named, pictures drawn."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.conftest import invoke_here

from accord.data.pairing import two_views
from accord.data.pairing_masked import masked_blocks
from accord.data.pairing_parts import halves
from accord.data.sources import open_source
from accord.data.synthetic import Jump
from accord.evaluate.hypothesis_pictures import Pictures
from accord.evaluate.hypothesis_sheet import CAPTION, GAP, MARGIN, TILE, Candidate, Row, draw, left, percent
from accord.predict import evenly
from accord.predict_table import Lines

Command = Callable[..., Any]
CODES = ["--set", "latent.name=codebook", "--set", "latent.codes=2"]


def trained(path: Path, *arguments: str) -> Path:
    outcome = invoke_here(("train", *arguments, "--out", str(path)), lambda: ("", ""))
    assert outcome.code == 0, arguments
    return path


@pytest.fixture(scope="session")
def jump_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digit that goes left or right, and a z of two values."""
    path = tmp_path_factory.mktemp("predict") / "jump"
    return trained(path, "jump", "--epochs", "4", *CODES, "--set", "objective.name=sigreg")


@pytest.fixture(scope="session")
def forks_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of numbers, and a z that is a vector."""
    path = tmp_path_factory.mktemp("predict") / "forks"
    quick = ("--epochs", "2", "--set", "training.batch_size=64", "--set", "training.on_collapse='warn'")
    return trained(path, "forks:m=2,n=400", *quick, "--set", "latent.name=gaussian", "--set", "latent.dim=3")


def predicted(accord: Command, run: Path, source: object, out: Path, *arguments: object) -> list[dict[str, Any]]:
    outcome = accord("predict", run, source, "-o", out, *arguments)
    assert outcome.code == 0, outcome.err
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def row_of(key: str) -> int:
    return int(key.rpartition(" ")[2])


def test_the_two_hypotheses_of_a_jump_are_left_and_right(accord: Command, jump_run: Path, tmp_path: Path) -> None:
    outcome = accord("predict", jump_run, "jump", "-k", 2, "-o", tmp_path / "p.parquet", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json | {"output": ""} == {
        **{"output": "", "rows": 2 * 3594, "inputs": 3594, "bad": 0, "hypotheses": 2, "neighbours": 3},
        **{"corpus": "jump", "sheet": None},
    }
    table = pq.read_table(tmp_path / "p.parquet")
    rows = table.to_pylist()
    _, _, side = Jump().sample()
    assert [row["key"] for row in rows] == [f"row {i}" for i in range(3594) for _ in range(2)]
    assert [row["hypothesis"] for row in rows] == [0, 1] * 3594
    sides = side[[[row_of(key) for key in row["neighbours"]] for row in rows]].reshape(-1, 2, 3)
    assert (sides[:, 0] != sides[:, 1]).mean() > 0.9, "one goes left, the other right"
    assert (sides == sides[:, :, :1]).mean() > 0.9, "all neighbours of one prediction are on one side"
    came_true = np.array([row["truth_nearest"] for row in rows]).reshape(-1, 2)
    assert (came_true.sum(1) == 1).all()
    assert (sides[:, :, 0][came_true] == side).mean() > 0.95, "the hypothesis that came true is the side of the sample"


def test_columns_agree_with_one_another(accord: Command, jump_run: Path, tmp_path: Path) -> None:
    rows = predicted(accord, jump_run, "jump:both=0", tmp_path / "p.parquet", "-k", 2, "--neighbours", 2)
    assert list(rows[0]) == [
        *(
            "key",
            "status",
            "error",
            "hypothesis",
            "code",
            "z",
            "energy",
            "probability",
            "usage",
            "neighbours",
            "distances",
        ),
        *("truth_energy", "truth_nearest", "truth_free_energy", "truth_code"),
    ]
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert {first["code"], second["code"]} == {0, 1} and first["z"] != second["z"]
        assert first["usage"] >= second["usage"], "of equal price the one that was used more comes first"
        assert first["energy"] == second["energy"] == 0 and first["probability"] == second["probability"] == 0.5
        assert first["distances"] == sorted(first["distances"]) and len(first["neighbours"]) == 2
        best = min((first, second), key=lambda row: row["truth_energy"])
        assert best["truth_nearest"] and best["code"] == best["truth_code"]
        assert first["truth_free_energy"] == pytest.approx(best["truth_energy"], rel=1e-4, abs=1e-7)


def test_the_digit_itself_is_never_its_own_neighbour(accord: Command, jump_run: Path, tmp_path: Path) -> None:
    rows = predicted(accord, jump_run, "jump", tmp_path / "p.parquet", "--neighbours", 1)
    assert not any(row_of(row["key"]) // 2 == row_of(row["neighbours"][0]) // 2 for row in rows)


def test_more_than_there_are_gives_fewer_and_is_said_once(accord: Command, jump_run: Path, tmp_path: Path) -> None:
    outcome = accord("predict", jump_run, "jump:both=0", "-o", tmp_path / "p.parquet", "--neighbours", 0)
    assert outcome.code == 0 and outcome.out.count("this model has 2 predictions of each x, not 8") == 1
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.num_rows == 2 * 1797 and "neighbours" not in table.column_names


def test_vectors_and_a_corpus_of_ones_own(accord: Command, forks_run: Path, tmp_path: Path) -> None:
    arguments = ("-k", 5, "--neighbours", 2, "--corpus", "forks:m=2,n=50,seed=7")
    rows = predicted(accord, forks_run, "forks:m=2,n=30,seed=3", tmp_path / "p.parquet", *arguments)
    assert len(rows) == 150 and "code" not in rows[0] and len(rows[0]["z"]) == len(rows[0]["truth_z"]) == 3
    energy = np.array([row["energy"] for row in rows]).reshape(30, 5)
    assert (np.diff(energy, axis=1) >= 0).all() and energy.max() > 0
    assert np.array([row["probability"] for row in rows]).reshape(30, 5).sum(1) == pytest.approx(np.ones(30))
    assert all(row_of(key) < 50 for row in rows for key in row["neighbours"])
    again = predicted(accord, forks_run, "forks:m=2,n=30,seed=3", tmp_path / "q.parquet", *arguments)
    assert again == rows, "nothing is left to chance"


def test_a_model_without_z_has_one_prediction(accord: Command, digits_run: Path, tmp_path: Path) -> None:
    outcome = accord("predict", digits_run, "digits", "-o", tmp_path / "p.parquet", "--sheet", tmp_path / "p.png")
    assert outcome.code == 0 and "1 prediction of each x, not 8" in outcome.out
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert len(rows) == 1797 and "z" not in rows[0]
    assert all(row["hypothesis"] == 0 and row["energy"] == 0 and row["probability"] == 1 for row in rows)
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_a_decoder_draws_both_outcomes(accord: Command, jump_run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in jump_run.rglob("*") if path.is_file()}
    sheets = []
    for name, options in (("nearest", ()), ("drawn", ("--draw",)), ("again", ("--draw",))):
        table, sheet = tmp_path / f"{name}.parquet", tmp_path / f"{name}.png"
        predicted(accord, jump_run, "jump:both=0", table, "-k", 2, "--sheet", sheet, *options)
        sheets.append(np.asarray(Image.open(sheet).convert("L")).astype(float) / 255)
    nearest, drawn, again = sheets
    assert np.array_equal(drawn, again) and nearest.shape == drawn.shape and not np.array_equal(nearest, drawn)
    assert {path: path.read_bytes() for path in jump_run.rglob("*") if path.is_file()} == before
    ends = []
    for row in range(12):
        top = MARGIN + 30 + row * (TILE + GAP + CAPTION) + TILE // 2
        halves_ = [drawn[top : top + TILE // 2, left(2 + h) : left(2 + h) + TILE] for h in (0, 1)]
        ends.append([half[:, : TILE // 2].mean() < half[:, TILE // 2 :].mean() for half in halves_])
    assert np.mean([first != second for first, second in ends]) > 0.8, "one is drawn on the left, one on the right"


@pytest.fixture
def strips(tmp_path: Path) -> Path:
    """Images of jumps as files, one of them damaged."""
    folder = tmp_path / "strips"
    folder.mkdir()
    images, _, _ = Jump().sample()
    for i in range(5):
        Image.fromarray(images[i, 0]).save(folder / f"{i}.png")
    (folder / "2b.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    return folder


def test_bad_rows_are_kept_without_numbers(accord: Command, jump_run: Path, strips: Path, tmp_path: Path) -> None:
    arguments = ("-k", 2, "--sheet", tmp_path / "p.png", "--json")
    outcome = accord("predict", jump_run, strips, "-o", tmp_path / "p.parquet", *arguments)
    assert outcome.code == 0, outcome.err
    assert (outcome.json["rows"], outcome.json["inputs"], outcome.json["bad"]) == (12, 6, 1)
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["key"] for row in rows[::2]] == ["0.png", "1.png", "2.png", "2b.png", "3.png", "4.png"]
    for row in rows:
        numbers = [value for key, value in row.items() if key not in ("key", "status", "error", "hypothesis")]
        if row["key"] == "2b.png":
            assert row["status"] == "error" and row["error"] and numbers == [None] * len(numbers)
        else:
            assert row["status"] == "ok" and row["error"] is None and None not in numbers


def test_nothing_but_bad_rows(accord: Command, jump_run: Path, strips: Path, tmp_path: Path) -> None:
    for path in strips.glob("?.png"):
        path.write_bytes(b"")
    rows = predicted(accord, jump_run, strips, tmp_path / "p.parquet", "-k", 2)
    assert [row["status"] for row in rows] == ["error"] * 12
    refusal = accord("predict", jump_run, "jump", "--corpus", strips, "-o", tmp_path / "q.parquet")
    assert refusal.code == 3 and "no y to look among" in refusal.err
    assert not (tmp_path / "q.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-k", "0", "-o", "p.parquet"], "--hypotheses 0"),
        (["-k", "many", "-o", "p.parquet"], "--hypotheses"),
        (["--neighbours", "-1", "-o", "p.parquet"], "--neighbours -1"),
        (["-o", "p.csv"], ".parquet"),
        (["-o", "no/such/p.parquet"], "no/such"),
        ([], "-o"),
        (["-o", "p.parquet", "--sheet", "p.jpg"], ".png"),
        (["-o", "p.parquet", "--sheet", "no/such/p.png"], "no/such"),
        (["-o", "p.parquet", "--sheet", "p.png", "--neighbours", "0"], "--neighbours"),
        (["-o", "p.parquet", "--draw"], "--draw"),
        (["-o", "p.parquet", "--corpus", "nowhere"], "nowhere"),
        (["-o", "p.parquet", "--corpus", "forks"], "vector"),
        (["-o", "p.parquet", "--hypothesis", "3"], "--hypotheses"),
    ],
)
def test_usage_errors_name_the_culprit(
    accord: Command, jump_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = accord("predict", jump_run, "jump:both=0", *arguments)
    assert outcome.code == 2 and outcome.err.startswith("error[E2") and "help: " in outcome.err
    assert named in outcome.err and "Traceback" not in outcome.err
    assert not list(tmp_path.iterdir())


def test_rows_of_numbers_have_no_pictures(accord: Command, forks_run: Path, tmp_path: Path) -> None:
    outcome = accord("predict", forks_run, "forks:m=2,n=9", "-o", tmp_path / "p.parquet", "--sheet", tmp_path / "p.png")
    assert outcome.code == 2 and "E237" in outcome.err


def test_a_run_whose_data_is_gone_asks_for_a_corpus(
    accord: Command, strips: Path, jump_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(jump_run, run)
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace('source = "jump"', f'source = "{tmp_path}/gone"'))
    refusal = accord("predict", run, "jump:both=0", "-o", tmp_path / "p.parquet")
    assert refusal.code == 2 and "gone" in refusal.err and "--corpus" in refusal.err
    assert len(predicted(accord, run, strips, tmp_path / "p.parquet", "--corpus", "jump:both=0")) == 12


def test_ctrl_c_leaves_nothing(jump_run: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "accord", "predict", str(jump_run), "jump", "-o", str(tmp_path / "p.parquet")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


# Tables and pictures


def test_lines_put_values_where_they_belong() -> None:
    lines = Lines(np.arange(10, 14), np.array([11, 13]), 2)
    np.testing.assert_array_equal(
        lines.of(np.array([[1.0, 2.0], [3.0, 4.0]])), [*[np.nan] * 2, 1, 2, *[np.nan] * 2, 3, 4]
    )
    assert lines.repeated(["a", "b", "c", "d"]).to_pylist() == list("aabbccdd")
    codes = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
    assert lines.codes(codes).to_pylist() == [None, None, [1, 2], [3, 4], None, None, [5, 6], [7, 8]]
    assert lines.codes(codes[..., :1]).to_pylist() == [None, None, 1, 3, None, None, 5, 7]


def test_inputs_on_the_sheet_are_spread_evenly() -> None:
    assert evenly(3) == {0, 1, 2} and evenly(0) == set()
    assert len(evenly(1000)) == 12 and {0, 999} <= evenly(1000)


@pytest.mark.parametrize("split", ["left_right", "right_left", "top_bottom", "bottom_top"])
def test_halves_are_put_together_as_they_were(split: Any) -> None:
    digits = open_source("digits")
    pictures = Pictures(halves(split), digits, digits)
    image = digits.batch(np.array([3])).float() / 255
    torch.testing.assert_close(pictures.truth(3), image)
    given, other = pictures.given(3), pictures.candidate(3, 8)
    known = torch.zeros(8, 8, dtype=torch.bool)
    known[
        {"left_right": np.s_[:, :4], "right_left": np.s_[:, 4:], "top_bottom": np.s_[:4], "bottom_top": np.s_[4:]}[
            split
        ]
    ] = True
    assert (given[0, 0][~known] == 0.5).all()
    torch.testing.assert_close(given[0, 0][known], image[0, 0][known])
    torch.testing.assert_close(other[0, 0][known], image[0, 0][known])
    torch.testing.assert_close(other[0, 0][~known], digits.batch(np.array([8]))[0, 0][~known].float() / 255)


def test_blocks_are_put_back_and_views_stand_alone() -> None:
    digits = open_source("digits")
    pictures = Pictures(masked_blocks(patch=2, block=2), digits, digits)
    image, other = (digits.batch(np.array([i])).float() / 255 for i in (3, 8))
    torch.testing.assert_close(pictures.truth(3), image)
    expected = image.clone()
    expected[..., 2:6, 2:6] = other[..., 2:6, 2:6]
    torch.testing.assert_close(pictures.candidate(3, 8), expected)
    torch.testing.assert_close(Pictures(two_views(), digits, digits).candidate(3, 8), other)


def test_a_sheet_shows_each_picture_in_its_place() -> None:
    import io

    black, white = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    rows = [Row(black, white, [Candidate(black, 0.75, True), Candidate(None, 0.25, False)]), Row(white, white, [])]
    sheet = np.asarray(Image.open(io.BytesIO(draw(rows))).convert("L")).astype(int)
    for column, value in ((0, 0), (1, 255), (2, 0), (3, 254)):  # nothing but the page where there is no picture
        x, y = left(column) + TILE // 2, MARGIN + 30 + TILE // 2
        assert abs(sheet[y, x] - value) <= 2, column
    assert draw(rows) == draw(rows) and draw([])
    assert [percent(p) for p in (1, 0.096, 0.0123, 0.004, 1e-9, 0)] == [
        "100 %",
        "10 %",
        "1 %",
        "0.4 %",
        "< 0.1 %",
        "0 %",
    ]
