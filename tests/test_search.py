"""``accord search``: what goes best with each query, in both directions, with bad rows kept and wrong arguments named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits
from tests.conftest import invoke_here

from accord import searching

Command = Callable[..., Any]


@pytest.fixture(scope="session")
def pairs_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of numbers of which one half is x and the other y, and a z that is searched for."""
    path = tmp_path_factory.mktemp("search") / "forks"
    sets = ("training.batch_size=64", "training.on_collapse='warn'", "latent.name=gaussian", "latent.dim=2")
    options = [word for one in sets for word in ("--set", one)]
    outcome = invoke_here(("train", "forks:m=2,n=400", "--epochs", "1", *options, "--out", str(path)), lambda: ("", ""))
    assert outcome.code == 0
    return path


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """The first 40 digits, and 5 of them moved by a pixel."""
    images = np.uint8(load_digits().images / 16 * 255)[:40, None]
    np.save(tmp_path / "forty.npy", images)
    np.save(tmp_path / "moved.npy", np.roll(images[[7, 3, 30, 11, 20]], 1, axis=3))
    return tmp_path


def searched(accord: Command, run: Path, *arguments: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    out = Path(str(arguments[0])).parent / "found.parquet"
    outcome = accord("search", run, *arguments, "-o", out, "--json")
    assert outcome.code == 0, outcome.err
    return pq.read_table(out).to_pylist(), outcome.json


def test_a_moved_digit_finds_itself(accord: Command, digits_run: Path, digits: Path) -> None:
    rows, told = searched(accord, digits_run, digits / "moved.npy", digits / "forty.npy", "-k", 4)
    assert [row["key"] for row in rows] == [f"row {i}" for i in range(5) for _ in range(4)]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4] * 5 and {row["status"] for row in rows} == {"ok"}
    assert [row["match"] for row in rows[:16:4]] == [f"row {i}" for i in (7, 3, 30, 11)]
    assert "row 20" in [row["match"] for row in rows[16:]], "another 0 is a little nearer"
    counts = {"rows": 20, "queries": 5, "bad": 0, "corpus": 40, "corpus_bad": 0}
    assert told == {**counts, "output": told["output"], "side": "x", "index": "exact", "first": told["first"]}
    assert [query["key"] for query in told["first"]] == ["row 0", "row 1", "row 2"]
    assert told["first"][0]["matches"][1] == {name: rows[1][name] for name in ("rank", "match", "energy", "p_value")}


@pytest.mark.parametrize("side", ["x", "y"])
def test_energies_and_p_values_are_those_of_score(accord: Command, digits_run: Path, digits: Path, side: str) -> None:
    rows, _ = searched(accord, digits_run, digits / "moved.npy", digits / "forty.npy", "-k", 3, "--side", side)
    images = np.load(digits / "forty.npy")
    np.save(digits / "asked.npy", np.repeat(np.load(digits / "moved.npy"), 3, axis=0))
    np.save(digits / "answers.npy", images[[int(row["match"].split(" ")[1]) for row in rows]])
    x, y = ("asked", "answers") if side == "x" else ("answers", "asked")
    arguments = (digits / f"{x}.npy", "--y", digits / f"{y}.npy", "-o", digits / "s.parquet", "--allow-overlap")
    done = accord("score", digits_run, *arguments)
    assert done.code == 0 and "an indication and no guarantee" in done.err + done.out  # calibrated on random views
    scored = pq.read_table(digits / "s.parquet")
    np.testing.assert_allclose([row["energy"] for row in rows], scored["energy"].to_numpy(), rtol=1e-5, atol=1e-7)
    assert [row["p_value"] for row in rows] == pytest.approx(scored["p_value"].to_pylist(), abs=0.01)


def test_without_a_file_the_first_answers_are_printed(accord: Command, digits_run: Path, digits: Path) -> None:
    outcome = accord("search", digits_run, digits / "moved.npy", digits / "forty.npy", "-k", 1)
    assert outcome.code == 0 and "5 queries, 0 of them bad, in 40 items" in outcome.out
    lines = [line.split() for line in outcome.out.splitlines() if line.startswith("  row")]
    assert [line[3:5] for line in lines] == [["row", "7"], ["row", "3"], ["row", "30"]]
    assert "used in training" not in outcome.out
    outcome = accord("search", digits_run, digits / "moved.npy", "digits", "-k", 1)
    assert "1,797 items were used in training or calibration: p-values of pairs with them mean little" in outcome.out
    assert sorted(path.name for path in digits.iterdir()) == ["forty.npy", "moved.npy"]


def test_bad_queries_keep_a_row_and_bad_items_are_not_found(accord: Command, pairs_run: Path, tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(6, np.load(forks(tmp_path))["x"].shape[1]))
    matrix[2, 1] = np.nan
    np.savez(tmp_path / "asked.npz", x=matrix)
    matrix[4, 0] = np.inf
    np.savez(tmp_path / "known.npz", x=matrix)
    rows, told = searched(accord, pairs_run, tmp_path / "asked.npz", tmp_path / "known.npz", "-k", 9)
    assert (told["rows"], told["bad"], told["corpus"], told["corpus_bad"]) == (5 * 4 + 1, 1, 4, 2)
    bad = [row for row in rows if row["status"] == "error"]
    assert [row["key"] for row in bad] == ["row 2"] and "nan" in bad[0]["error"]
    assert [bad[0][name] for name in ("rank", "match", "energy", "p_value")] == [None] * 4
    good = [row for row in rows if row["status"] == "ok"]
    assert {row["match"] for row in good} == {"row 0", "row 1", "row 3", "row 5"}
    energies = np.array([row["energy"] for row in good]).reshape(5, 4)
    assert (np.diff(energies, axis=1) >= 0).all() and {row["p_value"] for row in good} == {None}, "not calibrated"


def forks(folder: Path) -> Path:
    """Some pairs as a file."""
    from accord.data.sources import open_source

    samples = open_source("forks:m=2,n=30,seed=5")
    np.savez(folder / "forks.npz", x=np.asarray(samples.batch(np.arange(30))))
    return folder / "forks.npz"


def test_x_is_found_for_y_where_z_is_searched_for(accord: Command, pairs_run: Path, tmp_path: Path) -> None:
    """F(x_j, y_i) of one direction are the energies of the other, exchanged."""
    file = forks(tmp_path)
    found = {}
    for side in ("x", "y"):
        rows, _ = searched(accord, pairs_run, file, file, "-k", 30, "--side", side)
        found[side] = {(row["key"], row["match"]): row["energy"] for row in rows}
        assert len(found[side]) == 900
    assert found["x"] != found["y"]
    for (x, y), energy in found["x"].items():
        assert found["y"][y, x] == pytest.approx(energy, rel=1e-3, abs=1e-5)


def test_more_pairs_than_z_can_be_searched_for_are_refused(
    accord: Command, pairs_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = forks(tmp_path)
    monkeypatch.setattr(searching, "most_pairs", lambda *_: 40)
    assert "has to search for z in each of 900 pairs" in accord("search", pairs_run, file, file, "-k", 1).out
    monkeypatch.setattr(searching, "most_pairs", lambda *_: 7)
    outcome = accord("search", pairs_run, file, file, "-o", tmp_path / "f.parquet")
    assert outcome.code == 2 and "900 pairs" in outcome.err and "784" in outcome.err and "help: " in outcome.err
    assert not (tmp_path / "f.parquet").exists()


def test_a_calibration_of_other_weights_is_refused(accord: Command, digits_run: Path, digits: Path) -> None:
    shutil.copytree(digits_run, digits / "run")
    calibration = digits / "run" / "calibration.json"
    calibration.write_text(json.dumps({**json.loads(calibration.read_text()), "model": "0" * 64}))
    outcome = accord("search", digits / "run", digits / "moved.npy", digits / "forty.npy")
    assert outcome.code == 4 and "E462" in outcome.err


def test_a_corpus_of_nothing_but_bad_items_is_refused(accord: Command, digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    outcome = accord("search", digits_run, "digits", tmp_path / "images", "-o", tmp_path / "f.parquet")
    assert outcome.code == 3 and str(tmp_path / "images") in outcome.err and not (tmp_path / "f.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-k", "0"], "-k 0"),
        (["-k", "many"], "-k"),
        (["--side", "z"], "--side"),
        (["-o", "f.csv"], ".parquet"),
        (["-o", "no/such/f.parquet"], "no/such"),
        (["--sides", "x"], "--side"),
    ],
)
def test_usage_errors_name_the_culprit(
    accord: Command, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = accord("search", digits_run, "digits", "digits", *arguments)
    assert outcome.code == 2 and named in outcome.err and "help: " in outcome.err and "Traceback" not in outcome.err
    assert not list(tmp_path.iterdir())
    assert accord("search", digits_run, "digits", "nowhere").code == 2
