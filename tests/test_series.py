"""Series, sounds and rows through the command line, from a source to a score of each input."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.conftest import Outcome
from tests.data.test_sounds import wav

from accord import build, build_encoder
from accord.recipe_toml import load
from accord.resolve import resolve
from accord.run import Run, new_objective, train_in
from accord.train.progress import Silent
from accord.train.run_directory import RunDirectory
from accord.train.settings import Settings
from accord.train.signals import Stop

Accord = Callable[..., Outcome]


def through(accord: Accord, tmp: Path, source: Path | str, *options: str, rows: int, held_out: int) -> dict[str, Any]:
    """Trains two steps, evaluates, embeds and scores; what evaluation.json holds."""
    run = tmp / "run"
    given = ["--set", "training.steps=2", "--set", "training.batch_size=16", *options]
    assert accord("train", source, "--out", run, *given).code == 0
    assert accord("evaluate", run).code == 0
    found: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    assert found["data"]["held_out"] == held_out
    for verb in ("embed", "score"):
        out = tmp / f"{verb}.parquet"
        more = ["--allow-overlap"] if verb == "score" else []
        outcome = accord(verb, run, source, "-o", out, *more)
        assert outcome.code == 0, outcome.err
        table = pq.read_table(out).to_pydict()
        assert len(table["key"]) == rows and set(table["status"]) == {"ok"}
        assert all(np.isfinite(value).all() for value in table["embedding" if verb == "embed" else "energy"])
    return found


def hourly(path: Path, steps: int = 90) -> Path:
    heat = ["" if 30 <= h < 33 else f"{math.sin(h / 4):.4f}" for h in range(steps)]
    rows = [f"2024-01-{1 + h // 24:02d} {h % 24:02d}:00:00,{heat[h]},{math.cos(h / 4):.4f}" for h in range(steps)]
    path.write_text("date,heat,load\n" + "\n".join(rows) + "\n")
    return path


def test_past_and_future_of_a_table(accord: Accord, tmp_path: Path) -> None:
    source = hourly(tmp_path / "h.csv")
    options = (
        "--time",
        "date",
        "--set",
        "pairing.name=future",
        "--set",
        "pairing.context=8",
        "--set",
        "pairing.horizon=4",
    )
    found = through(accord, tmp_path, source, *options, rows=79, held_out=18 - 12 + 1)
    assert found["data"]["kind"] == "series" and found["data"]["train"] == 72 - 12 + 1, "no step is in both parts"
    recipe = load(tmp_path / "run" / "recipe.toml")
    assert (recipe.data.time, recipe.data.window, recipe.data.stride) == ("date", 12, 1)
    assert recipe.encoder is not None and recipe.encoder.name == "conv1d" and recipe.predictor.name == "mlp"
    key = pq.read_table(tmp_path / "score.parquet")["key"].to_pylist()[5]
    assert key == "h.csv:5-16"
    renamed = tmp_path / "other.csv"
    renamed.write_text(source.read_text().replace("heat", "heats"))
    outcome = accord("score", tmp_path / "run", renamed, "-o", tmp_path / "s.parquet")
    assert outcome.code == 3 and "E334" in outcome.err and "heats" in outcome.err


def test_rows_with_missing_values_and_hidden_columns(accord: Accord, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 5))
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    lines = [",".join("" if math.isnan(v) else f"{v:.4f}" for v in row) for row in matrix]
    (tmp_path / "t.csv").write_text("a,b,c,d,e\n" + "\n".join(lines) + "\n")
    found = through(
        accord, tmp_path, tmp_path / "t.csv", "--set", "pairing.name=masked", rows=60, held_out=_held_out(matrix)
    )
    assert found["data"]["kind"] == "vector"
    assert load(tmp_path / "run" / "recipe.toml").encoder.name == "tabular"  # type: ignore[union-attr]
    for setting, code in (("encoder.name=mlp", "E210"), ("objective.name=cvae", "E216")):
        outcome = accord(
            "train", tmp_path / "t.csv", "--set", "pairing.name=masked", "--set", setting, "--out", tmp_path / code
        )
        assert outcome.code == 2 and code in outcome.err, outcome.err


def _held_out(matrix: np.ndarray) -> int:
    from accord.data.samples import split
    from accord.data.sources import open_source

    rounded = np.array([[float(f"{v:.4f}") for v in row] for row in matrix])
    return len(split(open_source(rounded, masked=True), 0.2, 0)[1])


@pytest.mark.parametrize("pairing", ["two_views", "masked"])
def test_whole_series_of_several_lengths(accord: Accord, tmp_path: Path, pairing: str) -> None:
    rng = np.random.default_rng(0)
    lines = [",".join(f"{v:.3f}" for v in rng.normal(size=20 + i % 5)) + f":{'ab'[i % 2]}" for i in range(60)]
    (tmp_path / "s.ts").write_text("@classLabel true a b\n@data\n" + "\n".join(lines) + "\n")
    run = tmp_path / "run"
    given = ["--set", "training.steps=2", "--set", "training.batch_size=16", "--set", f"pairing.name={pairing}"]
    assert accord("train", tmp_path / "s.ts", "--out", run, *given).code == 0
    longer = tmp_path / "longer.ts"
    longer.write_text((tmp_path / "s.ts").read_text() + ",".join("1" * 30) + ":a\n1,2,1:b\n")
    assert accord("embed", run, longer, "-o", tmp_path / "e.parquet").code == 0
    table = pq.read_table(tmp_path / "e.parquet").to_pydict()
    assert table["status"][-2:] == ["error", "ok"] and "30 steps, at most 24" in table["error"][-2]


def test_sounds(accord: Accord, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "sounds" / "ab"[i % 2] / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(3000 * np.sin(np.arange(400 + 10 * i) * (0.2 + i % 2)) + rng.normal(size=400 + 10 * i)))
    source, run = tmp_path / "sounds", tmp_path / "run"
    assert (
        accord("train", source, "--out", run, "--set", "training.steps=2", "--set", "training.batch_size=16").code == 0
    )
    recipe = load(run / "recipe.toml")
    assert (recipe.data.kind, recipe.data.rate, recipe.data.shape) == ("audio", 8000, [790, 1])
    (source / "a" / "other.wav").write_bytes(wav(rng.normal(size=500) * 1000, rate=16000))
    assert accord("embed", run, source, "-o", tmp_path / "e.parquet").code == 0
    table = pq.read_table(tmp_path / "e.parquet").to_pydict()
    bad = [
        (key, error)
        for key, status, error in zip(*(table[k] for k in ("key", "status", "error")), strict=True)
        if status != "ok"
    ]
    assert len(bad) == 1 and bad[0][0] == "a/other.wav" and "16000" in bad[0][1] and "8000" in bad[0][1]


@pytest.mark.parametrize("columns", [False, True])
def test_sounds_of_a_number_of_seconds(accord: Accord, tmp_path: Path, columns: bool) -> None:
    """Long sounds are cut, in training as in what a run embeds later, though none so long was there before."""
    rng = np.random.default_rng(0)
    sounds = [
        wav(3000 * np.sin(np.arange(400 + 10 * i) * (0.2 + i % 2)) + rng.normal(size=400 + 10 * i)) for i in range(40)
    ]
    source, later, run = tmp_path / "s.parquet", tmp_path / "later.parquet", tmp_path / "run"
    numbers = rng.normal(size=40)
    pq.write_table(pa.table({"sound": sounds, "number": numbers}), source)
    pq.write_table(pa.table({"sound": [wav(rng.normal(size=2000) * 1000), sounds[0]], "number": numbers[:2]}), later)
    sides = (
        ("--x", "sound", "--y", "number", "--set=data.x.seconds=0.075") if columns else ("--set=data.seconds=0.075",)
    )
    quick = ("--set=training.steps=2", "--set=training.batch_size=16")
    outcome = accord("train", source, "--out", run, *sides, *quick)
    assert outcome.code == 0, outcome.err
    data = load(run / "recipe.toml").data
    side = data.x if columns else data
    assert side is not None and (side.shape, side.seconds) == ([600, 1], 0.075)
    assert accord("embed", run, later, "-o", tmp_path / "e.parquet", *(("--side", "x") if columns else ())).code == 0
    assert pq.read_table(tmp_path / "e.parquet").to_pydict()["status"] == ["ok", "ok"]


@pytest.mark.parametrize("columns", [False, True])
def test_sounds_lose_their_quiet_ends(accord: Accord, tmp_path: Path, columns: bool) -> None:
    """In training as in what a run embeds later: a sound that is too long only for its silence is taken, from a table or a file."""
    rng = np.random.default_rng(0)

    def sound(quiet: int) -> bytes:
        return wav(np.concatenate([np.ones(quiet), rng.normal(size=600) * 3000, np.zeros(quiet)]))

    source, later, run = tmp_path / "s.parquet", tmp_path / "later.parquet", tmp_path / "run"
    numbers = rng.normal(size=40)
    pq.write_table(pa.table({"sound": [sound(300 + i) for i in range(40)], "number": numbers}), source)
    pq.write_table(pa.table({"sound": [sound(5000), wav(rng.normal(size=2000) * 1000)], "number": [0.0, 1.0]}), later)
    (tmp_path / "one.wav").write_bytes(sound(4000))
    sides = ("--x", "sound", "--y", "number", "--set=data.x.trim=20") if columns else ("--set=data.trim=20",)
    outcome = accord("train", source, "--out", run, *sides, "--set=training.steps=2", "--set=training.batch_size=16")
    assert outcome.code == 0, outcome.err
    data = load(run / "recipe.toml").data
    side = data.x if columns else data
    assert side is not None and side.shape is not None and 600 <= side.shape[0] < 1000 and side.trim == 20
    of = ("--side", "x") if columns else ()
    assert accord("embed", run, later, "-o", tmp_path / "e.parquet", *of).code == 0
    assert pq.read_table(tmp_path / "e.parquet").to_pydict()["status"] == ["ok", "error"]
    assert accord("embed", run, tmp_path / "one.wav", "-o", tmp_path / "f.parquet", *of).code == 0
    assert pq.read_table(tmp_path / "f.parquet").to_pydict()["status"] == ["ok"]


@pytest.mark.parametrize("sides", [(), ("x",), ("x", "y")])
def test_a_run_from_before_there_was_a_level_goes_on_without(tmp_path: Path, sides: tuple[str, ...]) -> None:
    """Its recipe, which knows the shape but no level, resolves to itself; that of a new run as well."""
    rng = np.random.default_rng(0)
    sounds = [wav(rng.normal(size=900) * 3000) for _ in range(12)]
    source = tmp_path / "s.parquet"
    pq.write_table(pa.table({"sound": sounds, "number": rng.normal(size=12)}), source)
    columns = {side: {"columns": [name]} for side, name in zip(sides, ("sound", "number"), strict=False)}
    new = resolve(str(source), {"data": columns}, None)[0].model_dump(exclude_unset=True)
    assert resolve(str(source), new, None)[0].model_dump(exclude_unset=True) == new
    old = copy.deepcopy(new)
    section = old["data"]["x"] if sides else old["data"]
    assert section.pop("level") is True and "level" not in str(old)
    again = resolve(str(source), old, None)[0]
    assert again.model_dump(exclude_unset=True) == old and not build_encoder.form_of(again, "x").level


@pytest.mark.parametrize(
    ("columns", "wrong", "remedy"),
    [
        (("sound", "number"), "data.trim=20", "set data.x.trim"),
        (("sound", "number"), "data.level=false", "set data.x.level"),
        (("number", "sound"), "data.x.seconds=0.1", "set data.y.seconds"),
        (("sound",), "data.seconds=0.1", "set data.x.seconds"),
        (("number",), "data.x.centre=true", "leave it out"),
        ((), "data.level=false", ""),
    ],
)
def test_what_is_said_of_sounds_where_it_would_change_nothing_is_refused(
    accord: Accord, tmp_path: Path, columns: tuple[str, ...], wrong: str, remedy: str
) -> None:
    rng = np.random.default_rng(0)
    sounds = [wav(rng.normal(size=900) * 3000) for _ in range(12)]
    pq.write_table(pa.table({"sound": sounds, "number": rng.normal(size=12)}), tmp_path / "s.parquet")
    sides = [word for side, name in zip(("--x", "--y"), columns, strict=False) for word in (side, name)]
    outcome = accord(
        "train", tmp_path / "s.parquet", "--out", tmp_path / "run", *sides, "--set", wrong, "--set=training.steps=1"
    )
    assert outcome.code == (2 if remedy else 0) and remedy in outcome.err
    assert not remedy or f"recipe:{wrong.partition('=')[0]}" in outcome.err


@pytest.mark.parametrize("columns", [False, True])
def test_a_recipe_can_take_the_mean_of_each_band_off_a_sound(tmp_path: Path, columns: bool) -> None:
    """A sound and the same one, four times as loud, are then one and the same to the encoder; otherwise they are not."""
    rng = np.random.default_rng(0)
    sounds = [wav(rng.normal(size=900) * (i + 1) * 50) for i in range(12)]
    pq.write_table(pa.table({"sound": sounds, "number": rng.normal(size=12)}), tmp_path / "s.parquet")
    wave = torch.from_numpy(rng.normal(size=(1, 900, 1)).astype(np.float32)) / 8
    for centre in (False, True):
        sound = {"centre": centre, "level": False}
        data: dict[str, Any] = {"x": {"columns": ["sound"], **sound}, "y": {"columns": ["number"]}}
        recipe, samples = resolve(str(tmp_path / "s.parquet"), {"data": data if columns else sound}, None)
        model = new_objective(recipe, samples, np.arange(12), build.pairing(recipe)).model.eval()
        quiet, loud = model.encoder_x.features(wave), model.encoder_x.features(4 * wave)
        apart = float((quiet - loud).detach().norm() / quiet.detach().norm())
        assert apart < 0.02 if centre else apart > 0.1, apart


@pytest.mark.parametrize("columns", [False, True])
def test_new_runs_do_not_hear_how_loud_a_sound_is_and_a_recipe_without_the_key_does(
    tmp_path: Path, columns: bool
) -> None:
    rng = np.random.default_rng(0)
    sounds = [wav(rng.normal(size=900) * (i + 1) * 50) for i in range(12)]
    pq.write_table(pa.table({"sound": sounds, "number": rng.normal(size=12)}), tmp_path / "s.parquet")
    wave = torch.from_numpy(rng.normal(size=(1, 900, 1)).astype(np.float32)) / 8
    data: dict[str, Any] = {"x": {"columns": ["sound"]}, "y": {"columns": ["number"]}} if columns else {}
    recipe, samples = resolve(str(tmp_path / "s.parquet"), {"data": data}, None)
    side = recipe.data.x if columns else recipe.data
    assert side is not None and side.level is True
    model = new_objective(recipe, samples, np.arange(12), build.pairing(recipe)).model.eval()
    torch.testing.assert_close(model.encoder_x.features(wave), model.encoder_x.features(4 * wave), rtol=1e-3, atol=1e-3)
    without = side.model_copy(update={"level": None})
    older = recipe.model_copy(update={"data": recipe.data.model_copy(update={"x": without}) if columns else without})
    assert build_encoder.form_of(recipe, "x").level and not build_encoder.form_of(older, "x").level


@pytest.mark.parametrize("form", ["s.ts", "s.npy"])
def test_the_past_and_future_of_series_that_are_no_rows(accord: Accord, tmp_path: Path, form: str) -> None:
    values = np.random.default_rng(0).normal(size=(12, 20)).astype(np.float32)
    lines = [",".join(f"{v:.3f}" for v in row) for row in values]
    (tmp_path / "s.ts").write_text("@data\n" + "\n".join(lines) + "\n")
    np.save(tmp_path / "s.npy", values[:, :, None])
    options = [f"--set=pairing.{name}" for name in ("name=future", "context=2", "horizon=1")]
    through(accord, tmp_path, tmp_path / form, *options, rows=12 * 18, held_out=12 * 2)


def test_rivals_make_all_of_y(accord: Accord, tmp_path: Path) -> None:
    rows = [",".join(f"{v:.3f}" for v in row) for row in np.random.default_rng(0).normal(size=(30, 16))]
    (tmp_path / "s.ts").write_text("@data\n" + "\n".join(rows) + "\n")
    (tmp_path / "gap.ts").write_text("@data\n" + "\n".join([*rows, "1,?" + ",2" * 14]) + "\n")
    quick = ("--set=training.steps=2", "--set=training.batch_size=8", "--set=objective.name=masked_autoencoder")
    outcome = accord("train", tmp_path / "s.ts", *quick, "--out", tmp_path / "a")
    assert outcome.code == 2 and "E216" in outcome.err and "hide a part" in outcome.err
    still = [f"--set=pairing.augment.{name}=0" for name in ("stretch", "shift", "mask")]
    outcome = accord("train", tmp_path / "gap.ts", *quick, *still, "--out", tmp_path / "b")
    assert outcome.code == 2 and "E216" in outcome.err and "a part is missing" in outcome.err
    outcome = accord("train", tmp_path / "s.ts", *quick, *still, "--out", tmp_path / "c")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("by", [None, "series"])
def test_no_step_is_trained_on_and_held_out(tmp_path: Path, by: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{t},{s},{math.sin(t / 5 + s):.4f}" for s in range(8) for t in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["time,site,heat", *lines]) + "\n")
    used: list[np.ndarray] = []
    divide = Settings.divide

    def noted(settings: Settings, samples: Any) -> tuple[np.ndarray, np.ndarray]:
        used[:] = divide(settings, samples)
        return used[0], used[1]

    monkeypatch.setattr(Settings, "divide", noted)
    data = {"window": 6, "hold_out_by": by, "time": "time", "group": ["site"], "split_seed": 3}
    settings = {"training": {"steps": 1, "batch_size": 8, "seed": 1}, "data": data}
    recipe, samples = resolve(str(tmp_path / "t.csv"), settings, None)
    with RunDirectory(tmp_path / "run") as folder:
        train_in(folder, recipe, samples, stop=Stop(), progress=Silent(), command="test")
    places = samples.windows
    assert places is not None and len(used[0]) and len(used[1])
    steps = [
        {(int(places.series[i]), t) for i in part for t in range(int(places.first[i]), int(places.last[i]) + 1)}
        for part in used
    ]
    assert not steps[0] & steps[1]
    assert (len(used[0]) + len(used[1]) == len(samples)) == (by == "series"), (
        "by time windows over the border are in neither"
    )


def test_groups_are_those_of_the_windows_of_the_run(tmp_path: Path) -> None:
    """Windows without an observed value are left out; a column of classes, which is none of the channels, must not keep them."""
    rows = [f"{i},{'' if 20 <= i < 40 else i % 7},{i % 2},{'ab'[i >= 30]}" for i in range(80)]
    (tmp_path / "g.csv").write_text("t,heat,label,site\n" + "\n".join(rows) + "\n")
    given = {"data": {"time": "t", "window": 6}, "pairing": {"name": "masked"}}
    recipe, samples = resolve(str(tmp_path / "g.csv"), given, None)
    assert "windows are left out" in " ".join(samples.notes)
    empty: Any = None  # neither the model nor its pairs are asked
    groups = Run(tmp_path, recipe, empty, empty).groups(str(tmp_path / "g.csv"), "site")
    last = [int(key.rpartition("-")[2]) for key in samples.keys]
    assert [groups.names[place] for place in groups.of] == ["ab"[row >= 30] for row in last]


def test_settings_that_contradict_each_other(accord: Accord, tmp_path: Path) -> None:
    source = hourly(tmp_path / "h.csv")
    outcome = accord(
        "train",
        source,
        "--time",
        "date",
        "--set",
        "pairing.name=future",
        "--set",
        "data.window=7",
        "--out",
        tmp_path / "r",
    )
    assert outcome.code == 2 and "data.window is 7" in outcome.err
    outcome = accord("check", source, "--time", "dat")
    assert outcome.code == 2 and 'no column "dat"' in outcome.err
    assert accord("check", source, "--time", "date").code == 0


def test_texts_of_one_column(accord: Accord, tmp_path: Path) -> None:
    names = [
        f"{a} {b} {c}"
        for a in ("small", "large", "grüne")
        for b in ("red", "blue", "old", "new")
        for c in ("house", "Tür", "車")
    ]
    (tmp_path / "t.csv").write_text("name,n\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names)))
    run = tmp_path / "run"
    given = ["--set", "training.steps=2", "--set", "training.batch_size=8", "--set", "pairing.augment.drop_words=0.3"]
    outcome = accord("train", tmp_path / "t.csv", "--x", "name", "--out", run, *given)
    assert outcome.code == 0, outcome.err
    recipe = load(run / "recipe.toml")
    assert recipe.data.kind == "text" and recipe.encoder is not None and recipe.encoder.name == "text_ngrams"
    assert accord("evaluate", run).code == 0
    assert accord("embed", run, tmp_path / "t.csv", "-o", tmp_path / "e.parquet").code == 0
