"""Futures as values and surprise over time through the command line, on real hourly values of a transformer."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.conftest import Outcome, invoke_here

Accord = Callable[..., Outcome]
CONTEXT, HORIZON, HOURS = 24, 6, 480
FUTURE = [f"--set=pairing.{name}" for name in ("name=future", f"context={CONTEXT}", f"horizon={HORIZON}")]
QUICK = ["--set=training.steps=40", "--set=training.batch_size=32", "--set=encoder_y.name=identity"]


def rows(data: Path, first: int, count: int) -> list[list[str]]:
    with gzip.open(data / "ett" / "ETTh1.csv.gz", "rt") as file:
        table = [[row["date"], row["MULL"], row["OT"]] for row in csv.DictReader(file)]
    return table[first : first + count]


def write(path: Path, table: list[list[str]]) -> Path:
    path.write_text("date,load,oil\n" + "".join(",".join(row) + "\n" for row in table))
    return path


def width(picture: Path) -> int:
    with Image.open(picture) as image:
        return image.width


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 480 hours with two codes, evaluated, and the 200 hours that came next, the last three of which are missing."""
    path = tmp_path_factory.mktemp("forecasts")
    source = write(path / "first.csv", rows(data, 0, HOURS))
    later = rows(data, HOURS, 200)
    later[100:103] = [[date, "", oil] for date, _, oil in later[100:103]]
    write(path / "later.csv", later)
    codes = ["--set=latent.name=codebook", "--set=latent.codes=2"]
    for arguments in (
        ["train", source, "--time", "date", "--out", path / "run", *FUTURE, *QUICK, *codes],
        ["evaluate", path / "run"],
    ):
        outcome = invoke_here(tuple(map(str, arguments)), lambda: ("", ""))
        assert outcome.code == 0, arguments
    return path


def test_hypotheses_are_values_in_the_units_of_the_data(
    accord: Accord, data: Path, folder: Path, tmp_path: Path
) -> None:
    out, sheet = tmp_path / "p.parquet", tmp_path / "p.png"
    outcome = accord("predict", folder / "run", folder / "later.csv", "-k", 2, "-o", out, "--sheet", sheet, "--json")
    assert outcome.code == 0, outcome.err
    pasts = 200 - CONTEXT + 1
    assert outcome.json["inputs"] == pasts and outcome.json["rows"] == 2 * pasts and outcome.json["bad"] == 0
    table = pq.read_table(out)
    found = table.to_pydict()
    oil = np.array([float(row[2]) for row in rows(data, HOURS, 200)])
    assert found["first_step"][::2] == list(range(CONTEXT, 200 + 1)) and set(found["steps"]) == {HORIZON}
    dates = [datetime.fromisoformat(row[0]) for row in rows(data, HOURS, 207)]
    assert (
        found["first_time"][::2] == dates[CONTEXT:201] and found["last_time"][::2] == dates[CONTEXT + HORIZON - 1 : 206]
    )
    assert set(found["series"]) == {"later.csv"}
    expected, errors = [], []
    for place in range(pasts):
        true = oil[place + CONTEXT : place + CONTEXT + HORIZON]
        observed = found["observed_oil"][2 * place]
        if len(true) == 0:
            assert observed is None and found["ade"][2 * place] is None and found["truth_nearest"][2 * place] is None
            assert found["truth_energy"][2 * place] is None and found["truth_code"][2 * place] is None
            continue
        np.testing.assert_allclose(observed[: len(true)], true, rtol=1e-6)
        assert observed[len(true) :] == [None] * (HORIZON - len(true))
        last = oil[place + CONTEXT - 1]
        both = [np.array(found["predicted_oil"][2 * place + k][: len(true)]) for k in (0, 1)]
        expected.append(np.abs(last - true).mean())
        errors.append(min(np.abs(values - true).mean() for values in both))
    assert all(value is not None for value in found["predicted_load"]), "also of a future that nobody knows yet"
    assert np.mean(errors) < 20, "degrees, not standard deviations"
    figures = outcome.json["futures"]
    assert figures["rows"] == pasts - 1 and figures["readout_r2"] > 0.999, "y is its own embedding"
    ade = np.array([np.nan if v is None else v for v in found["ade"]]).reshape(-1, 2)[:-1]
    assert figures["hypotheses"]["min_ade"] == pytest.approx(ade.min(1).mean())
    assert figures["last_value"]["min_ade"] > np.mean(expected), "two channels are farther apart than one"
    scaled = figures["standardized"]
    known = rows(data, 0, HOURS)
    rough = np.array([[float(value) for value in row[1:]] for row in known]).std(0)
    assert list(scaled["std"]) == ["load", "oil"] and list(scaled["std"].values()) == pytest.approx(rough, rel=0.5)
    assert scaled["rows"] == figures["rows"] and scaled["hypotheses"]["k"] == 2
    assert 0 < scaled["last_value"]["min_ade"] < figures["last_value"]["min_ade"]
    assert "in standard deviations of its training futures" in outcome.err
    assert width(sheet) > 700 and outcome.json["sheet"] == str(sheet)


def test_truth_of_a_known_future_is_what_it_was(accord: Accord, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    assert accord("predict", folder / "run", folder / "first.csv", "-k", 2, "-o", out, "--neighbours", 0).code == 0
    table = pq.read_table(out).to_pylist()
    assert len(table) == 2 * (HOURS - CONTEXT + 1) and "neighbours" not in table[0]
    for first, second in zip(table[: 2 * 20 : 2], table[1 : 2 * 20 : 2], strict=True):
        best = min((first, second), key=lambda row: row["truth_energy"])
        assert best["truth_nearest"] and best["code"] == best["truth_code"]
        assert first["observed_load"] == second["observed_load"]


def test_evaluation_and_report_hold_the_same_figures(folder: Path) -> None:
    found = json.loads((folder / "run" / "evaluation.json").read_text())["futures"]
    assert found["rows"] == HOURS // 5 - CONTEXT - HORIZON + 1 and found["hypotheses"]["k"] == 2
    assert found["hypotheses"]["min_ade"] <= found["hypotheses"]["crps"] * 10 and found["last_value"]["crps"] > 0
    page = (folder / "run" / "report.html").read_text()
    assert '<section id="futures"' in page and "Their mean" in page and 'href="#futures"' in page


def test_scores_know_their_place_and_are_spread_over_steps(accord: Accord, folder: Path, tmp_path: Path) -> None:
    out, steps, sheet = tmp_path / "s.parquet", tmp_path / "steps.parquet", tmp_path / "s.png"
    outcome = accord(
        "score", folder / "run", folder / "later.csv", "-o", out, "--steps", steps, "--sheet", sheet, "--json"
    )
    assert outcome.code == 0, outcome.err
    windows, found = pq.read_table(out).to_pydict(), pq.read_table(steps).to_pydict()
    assert list(windows)[:8] == ["key", "status", "error", "series", "first_step", "steps", "first_time", "last_time"]
    assert windows["first_step"] == list(range(CONTEXT, 200 - HORIZON + 1))
    assert found["step"] == list(range(200)) and set(found["series"]) == {"later.csv"}
    assert found["time"][CONTEXT] == windows["first_time"][0] and found["time"][199] == windows["last_time"][-1]
    energy, first = np.array(windows["energy"]), np.array(windows["first_step"])
    for step in (CONTEXT, 80, 199):
        assert found["energy"][step] == pytest.approx(energy[(first <= step) & (step < first + HORIZON)].mean())
    assert found["energy"][:CONTEXT] == found["surprise"][:CONTEXT] == [None] * CONTEXT
    usual = json.loads((folder / "run" / "calibration.json").read_text())["energies"]
    low, high = np.median(usual), np.quantile(usual, 0.99)
    known = np.array(found["surprise"][CONTEXT:])
    np.testing.assert_allclose(known, (np.array(found["energy"][CONTEXT:]) - low) / (high - low), rtol=1e-6, atol=1e-9)
    told = outcome.json["most_surprising"]
    assert (
        told["surprise"] == pytest.approx(known.max())
        and told["first_step"] <= CONTEXT + known.argmax() <= told["last_step"]
    )
    assert told["first_time"] == found["time"][told["first_step"]].isoformat()
    assert found["likelihood"][: CONTEXT + HORIZON - 1] == [None] * (CONTEXT + HORIZON - 1)
    assert set(found["likelihood"][CONTEXT + HORIZON - 1 : CONTEXT + HORIZON + 100]) == {0.0}, "too few came before"
    assert width(sheet) > 900


def test_a_series_without_enough_steps_is_named(accord: Accord, data: Path, folder: Path, tmp_path: Path) -> None:
    short = write(tmp_path / "short.csv", rows(data, 0, CONTEXT - 1))
    outcome = accord("predict", folder / "run", short, "-k", 2, "-o", tmp_path / "p.parquet")
    assert outcome.code == 0 and "no future is known yet" in outcome.out
    found = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["status"] for row in found] == ["error"] * 2 and "a series of 23 steps, 24 are needed" in found[0][
        "error"
    ]
    assert found[0]["predicted_oil"] is found[0]["ade"] is None
    exact = write(tmp_path / "exact.csv", rows(data, 0, CONTEXT))
    outcome = accord("predict", folder / "run", exact, "-k", 2, "-o", tmp_path / "p.parquet", "--json")
    assert outcome.code == 0 and outcome.json["futures"]["rows"] == 0 and outcome.json["rows"] == 2
    assert pq.read_table(tmp_path / "p.parquet")["predicted_oil"].null_count == 0
    out = tmp_path / "s.parquet"
    outcome = accord("score", folder / "run", short, "-o", out, "--steps", tmp_path / "t.parquet", "--json")
    assert outcome.code == 0 and outcome.json["bad"] == 1 and outcome.json["most_surprising"] is None
    assert "30 are needed" in pq.read_table(out)["error"][0].as_py()
    assert pq.read_table(tmp_path / "t.parquet")["energy"].null_count == CONTEXT - 1


def test_more_hypotheses_than_codes_are_fewer_and_far_too_many_of_a_vector_refused(
    accord: Accord, folder: Path, tmp_path: Path
) -> None:
    outcome = accord("predict", folder / "run", folder / "later.csv", "-k", 9, "-o", tmp_path / "p.parquet")
    assert outcome.code == 0 and "this model has 2 predictions of each x, not 9" in outcome.out
    run = tmp_path / "vectors"
    given = ["--set=latent.name=gaussian", "--set=latent.dim=2", *QUICK, "--set=training.steps=2"]
    assert accord("train", folder / "first.csv", "--time", "date", "--out", run, *FUTURE, *given).code == 0
    outcome = accord("predict", run, folder / "later.csv", "-k", 5000, "-o", tmp_path / "q.parquet")
    assert outcome.code == 2 and "E236" in outcome.err and "4,096" in outcome.err
    assert not (tmp_path / "q.parquet").exists()
    outcome = accord("predict", run, folder / "later.csv", "-k", 3, "-o", tmp_path / "q.parquet", "--json")
    assert outcome.code == 0 and outcome.json["futures"]["hypotheses"]["crps_fair"] is not None


def test_values_need_the_data_of_the_run(accord: Accord, data: Path, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    source = write(tmp_path / "own.csv", rows(data, 0, 200))
    given = [*FUTURE, *QUICK, "--set=training.steps=2", "--set=training.batch_size=8"]
    assert accord("train", source, "--time", "date", "--out", run, *given).code == 0
    source.rename(tmp_path / "elsewhere.csv")
    outcome = accord("predict", run, folder / "later.csv", "-o", tmp_path / "p.parquet", "--neighbours", 0)
    assert outcome.code == 2 and "E238" in outcome.err and "own.csv" in outcome.err and "put them back" in outcome.err
    assert not (tmp_path / "p.parquet").exists()


def test_too_few_pairs_to_read_out(accord: Accord, data: Path, folder: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "few.csv", rows(data, 0, 200))
    given = [*FUTURE, *QUICK, "--set=training.steps=2", "--set=training.batch_size=4", "--set=pairing.stride=15"]
    assert accord("train", source, "--time", "date", "--out", tmp_path / "run", *given).code == 0
    outcome = accord("predict", tmp_path / "run", folder / "later.csv", "-o", tmp_path / "p.parquet")
    assert outcome.code == 2 and "E240" in outcome.err and "10 pairs or more, got 9" in outcome.err


@pytest.mark.parametrize(
    ("verb", "options", "named"),
    [
        ("predict", ["--sheet", "p.png", "--draw"], "--draw"),
        ("predict", ["--sheet", "p.svg"], ".png"),
        ("score", ["--steps", "s.csv"], ".parquet"),
        ("score", ["--steps", "no/such/s.parquet"], "no/such"),
        ("score", ["--steps", "o.parquet"], "replace"),
        ("score", ["--sheet", "s.jpg"], ".png"),
        ("score", ["--steps", "s.parquet", "--y", "later.csv"], "--y"),
    ],
)
def test_usage_errors_name_the_culprit(
    accord: Accord,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    options: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = accord(verb, folder / "run", folder / "later.csv", "-o", "o.parquet", *options)
    assert outcome.code == 2 and outcome.err.startswith("error[E2") and "help: " in outcome.err
    assert named in outcome.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [("--steps", "s.parquet"), ("--sheet", "s.png")])
def test_images_have_no_steps(accord: Accord, digits_run: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    arguments = ("-o", tmp_path / "o.parquet", option[0], tmp_path / option[1], "--allow-overlap")
    outcome = accord("score", digits_run, "digits", *arguments)
    assert outcome.code == 2 and "E247" in outcome.err and option[0] in outcome.err and "image data" in outcome.err
    assert not list(tmp_path.iterdir())
