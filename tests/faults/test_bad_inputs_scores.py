"""The rows of the catalogue of bad inputs that concern scores: columns that are not those of the training, and calibrations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.conftest import invoke_here

from accord.errors import ArtifactError, DataError
from accord.evaluate import calibrate as c

Command = Callable[..., Any]
NAMES = [f"c{i}" for i in range(6)]
NONE = np.zeros(0, np.uint64)


def table(path: Path, names: Sequence[str], matrix: np.ndarray, site: Sequence[str] | None = None) -> Path:
    """A CSV file of numbers, and of a column `site` of texts."""
    rows = [",".join(repr(float(v)) for v in row) for row in matrix]
    if site is not None:
        rows, names = [f"{row},{s}" for row, s in zip(rows, site, strict=True)], [*names, "site"]
    path.write_text("\n".join([",".join(names), *rows]) + "\n")
    return path


def values(n: int, seed: int = 0) -> np.ndarray:
    mixing = np.random.default_rng(9).standard_normal((3, 6))
    rng = np.random.default_rng(seed)
    return np.float32(rng.standard_normal((n, 3)) @ mixing + 0.1 * rng.standard_normal((n, 6)))


@pytest.fixture(scope="session")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table of three sites, calibrated by them: about 60 held-out pairs of a, 60 of b and 6 of c."""
    folder = tmp_path_factory.mktemp("scores")
    site = np.resize(["a"] * 10 + ["b"] * 10 + ["c"], 1260)
    source = table(folder / "t.csv", NAMES, values(1260), site.tolist())
    sets = ("training.batch_size=64", "encoder.hidden=[32]", "projector.hidden=[]", "training.on_collapse='warn'")
    options = [word for one in (*sets, "data.held_out=0.1") for word in ("--set", one)]
    for arguments in (
        ["train", str(source), "--epochs", "4", "--out", str(folder / "run"), *options],
        ["evaluate", str(folder / "run"), "--group", "site"],
    ):
        outcome = invoke_here(tuple(arguments), lambda: ("", ""))
        assert outcome.code == 0, arguments
    return folder / "run"


def refused(outcome: Any, code: int, *says: str) -> None:
    assert outcome.code == code, outcome
    assert outcome.err.startswith(f"error[E{code}") and "Traceback" not in outcome.err and "help: " in outcome.err
    for word in says:
        assert word in outcome.err, f"{word!r} is not in: {outcome.err}"


def row_034(accord: Command, run: Path, tmp: Path) -> None:
    """Missing, extra, renamed and re-ordered columns at score time."""
    matrix, out = values(30, 1), tmp / "o.parquet"
    energies = []
    for path in (
        table(tmp / "t.csv", NAMES, matrix),
        table(tmp / "reordered.csv", NAMES[::-1], matrix[:, ::-1]),
        table(tmp / "extra.csv", ["id", *NAMES], np.concatenate([np.arange(30.0)[:, None], matrix], 1)),
    ):
        outcome = accord("score", run, path, "-o", out)
        assert outcome.code == 0, outcome.err
        energies.append(pq.read_table(out)["energy"].to_pylist())
        assert ("note: columns not used, not asked for: id" in outcome.out) == (path.stem == "extra")
    assert energies[0] == energies[1] == energies[2]
    out.unlink()
    renamed = table(tmp / "renamed.csv", ["c_0", *NAMES[1:]], matrix)
    refused(accord("score", run, renamed, "-o", out), 3, 'no column of numbers "c0"', str(renamed), 'rename "c_0"')
    fewer = table(tmp / "fewer.csv", NAMES[1:], matrix[:, 1:])
    refused(accord("score", run, fewer, "-o", out), 3, '"c0"', str(fewer))
    refused(accord("search", run, tmp / "t.csv", fewer, "-o", out), 3, '"c0"', str(fewer))
    refused(accord("score", run, fewer, "--group", "site", "-o", out), 3, '"c0"', str(fewer))
    assert not out.exists()


def row_101(accord: Command, run: Path, tmp: Path) -> None:
    """A calibration set too small for the level, as a whole and of a group; infinity only where it is asked for."""
    out, n = tmp / "o.parquet", json.loads((run / "calibration.json").read_text())["n"]
    source = table(tmp / "t.csv", NAMES, values(4, 1), ["a", "b", "a", "b"])
    level = 1 / (n + 2)
    refused(accord("score", run, source, "-o", out, "--alpha", level), 3, f"at least {n + 1} ", f"there are {n}")
    assert accord("score", run, source, "-o", out, "--alpha", 1.001 / (n + 1)).code == 0
    out.unlink()
    assert accord("score", run, source, "-o", out, "--alpha", 0.05, "--group", "site").code == 0
    out.unlink()
    small = table(tmp / "small.csv", NAMES, values(4, 1), ["a", "c", "a", "b"])
    outcome = accord("score", run, small, "-o", out, "--alpha", 0.05, "--group", "site")
    refused(outcome, 3, "at least 19 ", "'c' has ", f"{small}:site")
    unseen = table(tmp / "unseen.csv", NAMES, values(4, 1), ["a", "elsewhere", "a", "b"])
    for level_given in ([], ["--alpha", 0.1]):
        refused(accord("score", run, unseen, "-o", out, "--group", "site", *level_given), 3, "'elsewhere' has 0")
    refused(accord("score", run, source, "-o", out, "--group", "region"), 2, "'site'", "--group region")
    for alpha in (0, 1, -0.5):
        refused(accord("score", run, source, "-o", out, "--alpha", alpha), 2, "alpha")
    assert not out.exists()
    calibration = c.Calibration(np.arange(19.0), NONE, "", "")
    with pytest.raises(DataError, match="99 calibration pairs, there are 19"):
        calibration.threshold(0.01)
    assert calibration.threshold(0.01, unbounded=True) == np.inf


def row_102(accord: Command, run: Path, tmp: Path) -> None:
    """Ties, NaN and constant energies, and the calibration of another model or of other settings."""
    ties = c.Calibration(np.array([1.0, 2, 2, 2, 3]), NONE, "", "")
    assert ties.p_values(np.array([2.0])).tolist() == [5 / 6], "all that are equal count"
    nothing = np.array([np.nan, -np.inf])
    assert np.isnan(ties.p_values(nothing)).all() and not ties.in_accord(nothing, 0.5, unbounded=True).any()
    for energies, code in (([1.0, np.nan], "E364"), ([2.0, 2.0, 2.0], "E365")):
        with pytest.raises(DataError) as refusal:
            c.calibrate(np.array(energies), content=NONE, model="", preprocess="", where="here")
        assert (refusal.value.code, refusal.value.where) == (code, "here") and refusal.value.help
    source, out = table(tmp / "t.csv", NAMES, values(5, 1), ["a"] * 5), tmp / "o.parquet"
    matrix = values(5, 1)
    matrix[2, 3] = np.nan
    bad = table(tmp / "bad.csv", NAMES, matrix, ["a", "b", "a", "", "b"])
    assert accord("score", run, bad, "-o", out, "--alpha", 0.1, "--group", "site").code == 0
    rows = pq.read_table(out).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "error", "ok"] and "no site" in rows[3]["error"]
    for row in rows[2:4]:
        assert [row[name] for name in ("energy", "p_value", "in_accord")] == [None] * 3
    assert [row["group"] for row in rows] == ["a", "b", "a", None, "b"]
    assert all(row["in_accord"] == (row["p_value"] > 0.1) for row in rows if row["status"] == "ok")
    out.unlink()
    shutil.copytree(run, tmp / "run")
    saved = json.loads((tmp / "run" / "calibration.json").read_text())
    for key in ("model", "preprocess"):
        (tmp / "run" / "calibration.json").write_text(json.dumps({**saved, key: "0" * 64}))
        refused(accord("score", tmp / "run", source, "-o", out), 4, f"calibration.json:{key}", "accord evaluate")
        with pytest.raises(ArtifactError):
            c.load_calibration(tmp / "run" / "calibration.json", model=saved["model"], preprocess=saved["preprocess"])
    assert not out.exists()


ROWS = {name: function for name, function in sorted(vars().items()) if name.startswith("row_")}


@pytest.mark.parametrize("row", [pytest.param(function, id=f"bad-{name[4:]}") for name, function in ROWS.items()])
def test_bad_input(
    row: Callable[[Command, Path, Path], None], accord: Command, table_run: Path, tmp_path: Path
) -> None:
    row(accord, table_run, tmp_path)


def test_groups_have_thresholds_of_their_own(accord: Command, table_run: Path, tmp_path: Path) -> None:
    """Scores of fresh rows: the energies are those without groups, p-values are against the group's own pairs."""
    site = np.resize(["a", "b"], 60).tolist()
    source = table(tmp_path / "t.csv", NAMES, values(60, 2), site)
    told = {}
    for name, options in (("plain", ()), ("groups", ("--group", "site"))):
        outcome = accord(
            "score", table_run, source, "-o", tmp_path / f"{name}.parquet", "--alpha", 0.1, *options, "--json"
        )
        assert outcome.code == 0, outcome.err
        told[name] = outcome.json
    plain, groups = (pq.read_table(tmp_path / f"{name}.parquet") for name in told)
    assert plain["energy"].equals(groups["energy"]) and groups["group"].to_pylist() == site
    assert set(told["groups"]["threshold"]) == {"a", "b"} and isinstance(told["plain"]["threshold"], float)
    saved = json.loads((table_run / "calibration.json").read_text())
    of, names = np.array(saved["groups"]["of"]), saved["groups"]["names"]
    for energy, p, name in zip(*(groups[key].to_pylist() for key in ("energy", "p_value", "group")), strict=True):
        own = np.array(saved["energies"])[of == names.index(name)]
        assert p == (1 + (own >= energy).sum()) / (len(own) + 1)


def test_groups_that_are_not_there_are_named_before_anything_is_measured(
    accord: Command, table_run: Path, tmp_path: Path
) -> None:
    before = (table_run / "calibration.json").read_bytes()
    refused(accord("evaluate", table_run, "--group", "sites"), 2, '"sites"', "site")
    assert (table_run / "calibration.json").read_bytes() == before
