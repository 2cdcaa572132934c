"""The two sides of pairs of columns asked about apart: queries have the columns of one side only, the corpus those of the other."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import invoke_here
from tests.data.test_sounds import wav

from accord.errors import UsageError
from accord.run import open_run

Accord = Callable[..., Any]
N = 240
COLUMNS = ("size", "colour", "name", "shop")
COLOURS = {"red": (250, 20, 20), "white": (240, 240, 240), "blue": (20, 20, 250)}


def things(n: int, seed: int) -> list[dict[str, Any]]:
    """Things of a size and a colour, their names, and the shop they are in."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        kind, colour = rng.choice(["cup", "plate", "bowl"]), rng.choice(list(COLOURS))
        size = {"cup": 8, "plate": 24, "bowl": 15}[str(kind)] + rng.normal()
        rows.append({"size": f"{size:.5f}", "colour": colour, "name": f"{colour} {kind}", "shop": f"shop {i % 2}"})
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sizes and colours with names, trained, and calibrated by shop."""
    folder = tmp_path_factory.mktemp("apart")
    table = write(folder / "things.csv", things(N, 0))
    sets = ("training.steps=60", "training.batch_size=64", "objective.name=vicreg", "projector.dim=16")
    train = ["train", table, "--x", "size,colour", "--y", "name", *(f"--set={one}" for one in sets)]
    for command in ([*train, "--out", folder / "run"], ["evaluate", folder / "run", "--group", "shop"]):
        assert invoke_here(tuple(map(str, command)), lambda: ("", "")).code == 0
    return folder / "run"


def found(accord: Accord, folder: Path, run: Path, *arguments: object) -> list[dict[str, Any]]:
    done = accord("search", run, *arguments, "-o", folder / "found.parquet")
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = pq.read_table(folder / "found.parquet").to_pylist()
    return rows


def test_tables_of_one_side_are_searched_in_both_directions(run: Path, tmp_path: Path, accord: Accord) -> None:
    rows, k = things(12, 1), 12
    whole = write(tmp_path / "whole.csv", rows)
    xs = write(tmp_path / "xs.csv", rows, ["colour", "size"])
    ys = write(tmp_path / "ys.csv", rows, ["name"])
    energy = {}
    for side, asked, known in (("x", xs, ys), ("y", ys, xs)):
        apart = found(accord, tmp_path, run, asked, known, "-k", k, "--side", side)
        together = found(accord, tmp_path, run, whole, whole, "-k", k, "--side", side)
        assert len(apart) == 12 * k and {row["status"] for row in apart} == {"ok"}
        assert [row["energy"] for row in apart] == [row["energy"] for row in together]
        assert all(row["p_value"] is not None for row in apart), "the run is calibrated"
        pairs = ((row["key"], row["match"]) if side == "x" else (row["match"], row["key"]) for row in apart)
        places = ((int(x.rsplit(":")[-1]), int(y.rsplit(":")[-1])) for x, y in pairs)
        energy[side] = dict(zip(places, (row["energy"] for row in apart), strict=True))
    assert energy["x"].keys() == energy["y"].keys() and len(energy["x"]) == 12 * k
    np.testing.assert_allclose([energy["y"][pair] for pair in energy["x"]], list(energy["x"].values()), rtol=1e-4)


def test_what_belongs_together_is_found_first(run: Path, tmp_path: Path, accord: Accord) -> None:
    names = [{"name": f"{colour} {kind}"} for colour in COLOURS for kind in ("cup", "plate", "bowl")]
    asked, rows = write(tmp_path / "xs.csv", things(90, 2), ["size", "colour"]), things(90, 2)
    best = found(accord, tmp_path, run, asked, write(tmp_path / "ys.csv", names, ["name"]), "-k", 1)
    right = [
        names[int(row["match"].rsplit(":")[-1])]["name"] == one["name"] for row, one in zip(best, rows, strict=True)
    ]
    assert np.mean(right) > 0.5, "1 in 9 by chance"


def test_the_column_that_a_side_lacks_is_named(run: Path, tmp_path: Path, accord: Accord) -> None:
    rows = things(4, 1)
    xs, ys = write(tmp_path / "xs.csv", rows, ["size", "colour"]), write(tmp_path / "ys.csv", rows, ["name"])
    for asked, known, side, wrong, column in ((ys, ys, "x", "ys", "size"), (xs, ys, "y", "xs", "name")):
        done = accord("search", run, asked, known, "--side", side)
        assert done.code == 3 and f'"{column}"' in done.err and f"{wrong}.csv" in done.err, done.err
        assert "help:" in done.err


def test_a_category_that_was_not_there_is_a_bad_query(run: Path, tmp_path: Path, accord: Accord) -> None:
    rows = things(4, 1)
    rows[2]["colour"] = "violet"
    asked = write(tmp_path / "xs.csv", rows, ["size", "colour"])
    known = write(tmp_path / "ys.csv", rows, ["name"])
    lines = found(accord, tmp_path, run, asked, known, "-k", 2)
    assert [row["status"] for row in lines] == ["ok"] * 4 + ["error"] + ["ok"] * 2
    assert "violet" in lines[4]["error"] and lines[4]["energy"] is None


def test_a_text_that_is_missing_is_a_bad_query(run: Path, tmp_path: Path, accord: Accord) -> None:
    rows = things(4, 1)
    xs = write(tmp_path / "xs.csv", rows, ["size", "colour"])
    pq.write_table(pa.table({"name": [None, *(row["name"] for row in rows[1:])]}), tmp_path / "ys.parquet")
    lines = found(accord, tmp_path, run, tmp_path / "ys.parquet", xs, "-k", 1, "--side", "y")
    assert [row["status"] for row in lines] == ["error", "ok", "ok", "ok"]
    assert [row["text"] for row in lines] == [None, *(row["name"] for row in rows[1:])]


def test_two_tables_are_scored_row_by_row_within_groups(run: Path, tmp_path: Path, accord: Accord) -> None:
    """The group comes from the first table, which has no column of y."""
    rows, scores = things(20, 3), []
    whole = write(tmp_path / "whole.csv", rows)
    xs = write(tmp_path / "xs.csv", rows, ["shop", "size", "colour"])
    ys = write(tmp_path / "ys.csv", rows, ["name"])
    for sources in ((whole,), (xs, "--y", ys)):
        done = accord("score", run, *sources, "--group", "shop", "--alpha", 0.2, "-o", tmp_path / "s.parquet")
        assert done.code == 0, done.err
        scores.append(pq.read_table(tmp_path / "s.parquet").to_pydict())
    assert scores[0]["group"] == scores[1]["group"] == [row["shop"] for row in rows]
    np.testing.assert_allclose(scores[1]["energy"], scores[0]["energy"], rtol=1e-4)
    assert scores[1]["p_value"] == pytest.approx(scores[0]["p_value"], abs=0.05)
    assert None not in scores[0]["p_value"] and len(set(scores[0]["p_value"])) > 3


def test_pairs_that_were_trained_on_are_told_from_two_tables_as_from_one(
    run: Path, tmp_path: Path, accord: Accord
) -> None:
    rows = things(N, 0)[:9]
    xs, ys = write(tmp_path / "xs.csv", rows, ["size", "colour"]), write(tmp_path / "ys.csv", rows, ["name"])
    done = accord("score", run, xs, "--y", ys, "-o", tmp_path / "s.parquet")
    assert done.code == 3 and "E362" in done.err and "9 of 9 items" in done.err
    other = write(tmp_path / "other.csv", [{"name": "green bottle"}] * 9, ["name"])
    done = accord("score", run, xs, "--y", other, "-o", tmp_path / "s.parquet")
    assert done.code == 0, "a known x with another y is a new pair"
    done = accord("search", run, xs, other, "-k", 1)
    assert done.code == 0 and "warning: 9 items were used in training or calibration" in done.err + done.out


def test_pictures_are_searched_by_names(tmp_path: Path, accord: Accord) -> None:
    import io

    from PIL import Image

    rng = np.random.default_rng(0)
    rows = things(40, 4)

    def picture(colour: str) -> bytes:
        noisy = np.array(COLOURS[colour]) + rng.integers(-10, 10, (16, 16, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    pictures = [picture(row["colour"]) for row in rows]
    pq.write_table(pa.table({"view": pictures, "name": [row["name"] for row in rows]}), tmp_path / "both.parquet")
    pq.write_table(pa.table({"view": pictures[:6]}), tmp_path / "views.parquet")
    sets = [
        "training.steps=2",
        "training.batch_size=8",
        "projector.dim=8",
        "encoder.name=multiscale",
        "encoder.stem_width=8",
        "encoder.widths=[8,8]",
    ]
    train = ("train", tmp_path / "both.parquet", "--x", "view", "--y", "name", *(f"--set={one}" for one in sets))
    assert accord(*train, "--out", tmp_path / "run").code == 0
    names = write(tmp_path / "names.csv", rows[:5], ["name"])
    asked = found(accord, tmp_path, tmp_path / "run", names, tmp_path / "views.parquet", "-k", 6, "--side", "y")
    assert len(asked) == 30 and {row["rank"] for row in asked} == set(range(1, 7))
    assert len(found(accord, tmp_path, tmp_path / "run", tmp_path / "views.parquet", names, "-k", 2)) == 12
    (tmp_path / "views").mkdir()
    for i, encoded in enumerate(pictures[:6]):
        (tmp_path / "views" / f"{i}.png").write_bytes(encoded)
    files = found(accord, tmp_path, tmp_path / "run", tmp_path / "views", names, "-k", 2)
    column = found(accord, tmp_path, tmp_path / "run", tmp_path / "views.parquet", names, "-k", 2)
    assert [row["key"] for row in files[::2]] == [f"{i}.png" for i in range(6)]
    for key in ("match", "match_text", "energy"):
        assert [row[key] for row in files] == [row[key] for row in column]
    assert all(row["match_text"] == rows[int(row["match"].rsplit(":")[-1])]["name"] for row in files)
    one = accord("search", tmp_path / "run", tmp_path / "views" / "2.png", names, "-k", 1, "--json")
    assert one.code == 0 and one.json["first"][0]["matches"][0]["match_text"] == files[4]["match_text"]
    backwards = found(accord, tmp_path, tmp_path / "run", names, tmp_path / "views", "-k", 6, "--side", "y")
    assert [row["text"] for row in backwards[::6]] == [row["name"] for row in rows[:5]]
    pairs = ("score", tmp_path / "run", tmp_path / "views", "--y", write(tmp_path / "six.csv", rows[:6], ["name"]))
    assert accord("evaluate", tmp_path / "run").code == 0
    opened = open_run(tmp_path / "run")
    with pytest.raises(UsageError, match="no columns"):
        opened.open_data(str(tmp_path / "views"), side="y")
    assert accord("search", tmp_path / "run", tmp_path / "empty", names).code == 2
    outcome = accord(*pairs, "--allow-overlap", "-o", tmp_path / "s.parquet")
    assert outcome.code in (0, 4), "two steps may leave a collapsed run, which is not calibrated"


def test_sounds_in_a_folder_are_one_side(tmp_path: Path, accord: Accord) -> None:
    encoded = [wav(9000 * np.sin(np.arange(800) * 0.05 * (1 + i % 4))) for i in range(24)]
    (tmp_path / "tones").mkdir()
    for i, tone in enumerate(encoded):
        (tmp_path / "tones" / f"{i:02}.wav").write_bytes(tone)
    names = [f"tone {i % 4}" for i in range(24)]
    pq.write_table(pa.table({"tone": encoded, "name": names}), tmp_path / "both.parquet")
    sets = ("--set", "training.steps=2", "--set", "training.batch_size=8", "--set", "projector.dim=8")
    train = ("train", tmp_path / "both.parquet", "--x", "tone", "--y", "name", *sets)
    assert accord(*train, "--out", tmp_path / "run").code == 0
    files, column = (
        found(accord, tmp_path, tmp_path / "run", asked, tmp_path / "both.parquet", "-k", 3)
        for asked in (tmp_path / "tones", tmp_path / "both.parquet")
    )
    assert [row["energy"] for row in files] == [row["energy"] for row in column] and len(files) == 72
