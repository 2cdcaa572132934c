"""Pairs of columns through the command line: trained, evaluated, embedded and scored, in the form of the run."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from accord import presets, recipe_toml
from accord.errors import UsageError
from accord.evaluate.calibrate import calibrate, model_hash, save_calibration
from accord.recipe import TableSide
from accord.resolve import resolve
from accord.run import open_run
from accord.train import trainer
from accord.train.checkpoint import WEIGHTS, find_checkpoint
from accord.train.tensors import read_whole

N = 120
QUICK = ("--set", "training.steps=4", "--set", "training.batch_size=16", "--set", "projector.dim=16")
Accord = Callable[..., Any]


def write(
    path: Path, *, colour: str = "colour", colours: tuple[str, ...] = ("red", "green", "blue"), n: int = N
) -> Path:
    """A table of things: numbers, a category, some of it missing, and names."""
    rng = np.random.default_rng(n)
    lines = [f"price,{colour},size,name,label"]
    for i in range(n):
        size = "" if i % 8 == 0 else str(i % 7)
        lines.append(f"{rng.normal():.4f},{colours[i % len(colours)]},{size},thing {i} of {i % 5},{i % 2}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sides")


@pytest.fixture
def run(folder: Path, accord: Accord) -> Path:
    """Numbers and a category with names, trained for four steps; once for all tests."""
    out = folder / "run"
    if not out.exists():
        table = write(folder / "things.csv")
        done = accord("train", table, "--x", "price,colour,size", "--y", "name", *QUICK, "--out", out)
        assert done.code == 0, done.err
        said = done.err + done.out
        assert "x: price (number), colour (category), size (number): vector data, 3; encoder tabular, because" in said
        assert "y: name: text of up to 14 bytes; encoder text_ngrams, because" in said
        assert 'missing values are masked, not filled, of 120 rows: "size" 15' in said
        assert accord("evaluate", out).code == 0
    return out


def test_the_recipe_of_the_run_says_all_that_was_found(run: Path) -> None:
    data = recipe_toml.load(run / "recipe.toml").data
    assert data.kind == "pair" and data.shape is None and data.x is not None and data.y is not None
    assert (data.x.columns, data.x.kinds) == (["price", "colour", "size"], ["number", "category", "number"])
    assert (data.x.kind, data.x.shape, data.x.categories) == ("vector", [3], [[], ["blue", "green", "red"], []])
    assert (data.y.kind, data.y.shape) == ("text", [14])


def test_evaluation_has_probes_baselines_and_the_sides(run: Path) -> None:
    import json

    found = json.loads((run / "evaluation.json").read_text())
    assert found["data"]["kind"] == "pair"
    assert [side["kind"] for side in found["data"]["sides"]] == ["vector", "text"]
    assert set(found["probes"]) >= {"features", "untrained", "pixels", "pca"}
    assert found["thumbnails"] is None and found["energy"]["ladder"].keys() >= {"random", "perturbed"}
    assert (run / "report.html").is_file()


def test_scores_are_one_for_each_row_whatever_is_wrong_with_it(run: Path, folder: Path, accord: Accord) -> None:
    opened, place = open_run(run), run / "calibration.json"
    known = opened.open_data(str(folder / "things.csv"))
    if not place.exists():  # four steps may leave a run that has collapsed, which is not calibrated
        energies = opened.energies(known, np.arange(60))
        parts = {"model": model_hash(opened.model), "preprocess": opened.preprocess_hash()}
        save_calibration(calibrate(energies, content=known.content, **parts), place)
    other = write(folder / "other.csv", colours=("red", "violet"), n=20)
    done = accord("score", run, other, "-o", folder / "scores.parquet", "--allow-overlap")
    assert done.code == 0, done.err
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "error"] * 10
    assert 'column "colour" is "violet"' in rows[1]["error"] and np.isfinite(rows[0]["energy"])


def test_one_side_is_embedded_without_the_columns_of_the_other(run: Path, folder: Path, accord: Accord) -> None:
    renamed = write(folder / "renamed.csv", colour="color", n=20)
    done = accord("embed", run, renamed, "--side", "y", "-o", folder / "names.parquet")
    assert done.code == 0, done.err
    rows = pq.read_table(folder / "names.parquet").to_pylist()
    assert len(rows) == 20 and all(row["status"] == "ok" for row in rows)
    refused = accord("embed", run, renamed, "-o", folder / "things.parquet")
    assert refused.code == 3 and "E334" in refused.err and 'rename "color"' in refused.err


def test_training_on_pairs_goes_on_bit_for_bit(
    folder: Path, tmp_path: Path, accord: Accord, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--x", "price,colour,size", "--y", "name", "--set", "pairing.augment_y.drop_words=0.3", *QUICK)
    table = write(folder / "things.csv")
    assert accord("train", table, *options, "--out", tmp_path / "whole").code == 0
    step, done = trainer.train_step, itertools.count(1)

    def interrupted(*arguments: Any) -> Any:
        if next(done) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(trainer, "train_step", interrupted)
    assert accord("train", table, *options, "--out", tmp_path / "cut").code == 130
    assert find_checkpoint(tmp_path / "cut").step < 4
    assert accord("train", table, "--out", tmp_path / "cut", "--resume").code == 0
    whole, cut = (read_whole(find_checkpoint(tmp_path / name).files(WEIGHTS)) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)


def test_an_energy_does_not_depend_on_what_else_is_scored(run: Path, folder: Path) -> None:
    opened = open_run(run)
    samples = opened.open_data(str(folder / "things.csv"))
    every = opened.energies(samples, np.arange(40))
    some = opened.energies(samples, np.array([3, 30]))
    np.testing.assert_allclose(some, every[[3, 30]], rtol=1e-5)
    x, y = (opened.open_data(str(folder / "things.csv"), side=side) for side in ("x", "y"))  # type: ignore[arg-type]
    np.testing.assert_allclose(opened.energies_of_pairs(x, y, np.arange(40)), every, rtol=1e-5)


@pytest.mark.parametrize(
    "changed", [{"seconds": 0.5}, {"centre": True}, {"trim": 20.0}, {"level": True}, {"level": False}]
)
def test_a_calibration_is_bound_to_how_sounds_are_read(run: Path, changed: dict[str, Any]) -> None:
    opened = open_run(run)
    data = opened.recipe.data.model_copy(update=changed)
    other = replace(opened, recipe=opened.recipe.model_copy(update={"data": data}))
    assert other.preprocess_hash() != opened.preprocess_hash()
    assert data.x is not None
    data = opened.recipe.data.model_copy(update={"x": data.x.model_copy(update=changed)})
    other = replace(opened, recipe=opened.recipe.model_copy(update={"data": data}))
    assert other.preprocess_hash() != opened.preprocess_hash()


def test_calibrations_from_before_sounds_had_a_level_stay_valid() -> None:
    """What they are bound to is this text of a side."""
    assert str(TableSide(columns=["a"])) == (
        "columns=['a'] unit='column' kinds=None kind=None shape=None categories=None rate=None seconds=None centre=False"
    )


def test_scores_and_calibration_are_of_pairs_as_they_are_whatever_training_changes(
    folder: Path, accord: Accord
) -> None:
    out, table = folder / "noisy", write(folder / "noisy.csv")
    noisy = ("--set", "pairing.augment_x={noise=3.0}", "--set", "pairing.augment_y={preset='text', drop_words=0.5}")
    options = ("--x", "price,size", "--y", "name", *QUICK, *noisy, "--out", out)
    assert accord("train", table, *options).code == 0
    opened = open_run(out)
    x, y = (opened.open_data(str(table), side=side) for side in ("x", "y"))  # type: ignore[arg-type]
    index = np.arange(N)
    np.testing.assert_allclose(
        opened.energies(opened.open_data(str(table)), index), opened.energies_of_pairs(x, y, index), rtol=1e-5
    )
    assert opened.pairing.random and opened.calibrated_on is None


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--x", "price,name", "--y", "size"), "E245", "do not go together"),
        (("--x", "price", "--y", "nam"), "E234", 'did you mean "name"'),
        (("--x", "price", "--y", "name", "--kind", "name=tex"), "E246", "did you mean 'text'"),
        (("--x", "price", "--y", "name", "--set", "encoder_y.name=mlp"), "E210", "text_ngrams"),
        (("--x", "price,colour", "--y", "name", "--set", "encoder.name=mlp"), "E210", "use tabular"),
        (("--x", "price", "--y", "name", "--set", "pairing.name=two_views"), "E227", "columns of a table already"),
        (("--x", "price,colour"), "E211", "some columns are categories"),
        (
            ("--x", "price,colour", "--y", "name", "--set", "pairing.augment_x.mask=0.2"),
            "E211",
            "some columns are categories",
        ),
        (("--x", "price", "--y", "name", "--set", "objective.name=byol"), "E213", "use a principle without"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, accord: Accord, options: tuple[str, ...], code: str, says: str
) -> None:
    done = accord("train", write(folder / "things.csv"), *options, *QUICK, "--out", tmp_path / "run")
    assert done.code == 2 and code in done.err and says in done.err, done.err


def test_check_names_the_bad_rows_of_both_sides(tmp_path: Path, accord: Accord) -> None:
    table = write(tmp_path / "t.csv", n=20)
    table.write_text(table.read_text().replace("thing 3 of 3", ""))
    done = accord("check", table, "--x", "price", "--y", "name", "--json")
    assert done.code == 3 and done.json["bad_items"][0]["reason"] == "name: no text: the value is missing"


def test_sides_can_be_changed_at_random(folder: Path) -> None:
    table = write(folder / "things.csv")
    given = {
        "data": {"x": {"columns": ["price"]}, "y": {"columns": ["name"]}},
        "pairing": {"name": "columns", "augment_x": {"noise": 0.5}},
    }
    recipe, samples = resolve(str(table), given, None)
    import torch

    from accord import build
    from accord.data.random import Draws

    pairing = build.pairing(recipe)
    batch = samples.batch(np.arange(8))
    pair = pairing(batch, Draws(0, 0, torch.arange(8)))
    assert pairing.random and not torch.equal(pair.x, pairing.plain(batch))
    assert torch.equal(pair.y, pairing.plain_y(batch))


@pytest.mark.parametrize(
    ("given", "predictor", "objective"),
    [
        ({}, "identity", "vicreg"),
        ({"objective": {"name": "info_nce"}}, "identity", "info_nce"),
        ({"objective": {"name": "autoencoder"}}, "mlp", "autoencoder"),
        ({"latent": {"name": "codebook", "codes": 4, "dim": 2}}, "mlp", "vicreg"),
        ({"predictor": {"name": "mlp"}}, "mlp", "vicreg"),
    ],
)
def test_two_encoders_meet_halfway_unless_something_is_to_be_made(
    folder: Path, given: dict[str, Any], predictor: str, objective: str
) -> None:
    sides = {"data": {"x": {"columns": ["name"]}, "y": {"columns": ["price"]}}}
    recipe, _ = resolve(str(write(folder / "things.csv")), {**given, **sides}, None)
    assert (recipe.predictor.name, recipe.objective.name) == (predictor, objective)


def test_numbers_of_a_side_can_have_one_unit(folder: Path) -> None:
    """They keep their proportions; categories are still codes, and the recipe of the run says so."""
    import torch

    from accord import build
    from accord.run import new_objective

    table = write(folder / "things.csv")
    side = {"columns": ["price", "colour", "size"]}
    units = {}
    for unit in ("column", "side"):
        given = {"data": {"x": {**side, "unit": unit}, "y": {"columns": ["name"]}}}
        recipe, samples = resolve(str(table), given, None)
        assert recipe_toml.parse(recipe.to_dict()).data.x == recipe.data.x
        assert recipe.data.x is not None and recipe.data.x.unit == unit
        model = new_objective(recipe, samples, np.flatnonzero(samples.ok), build.pairing(recipe)).model
        units[unit] = model.encoder_x.backbone[0].std  # type: ignore[union-attr,index]
    assert units["column"].unique().numel() == 3 and units["side"][1] == 1, "the category is left alone"
    expected = units["column"][[0, 2]].square().mean().sqrt()
    torch.testing.assert_close(units["side"][[0, 2]], expected.expand(2))


@pytest.mark.parametrize(
    ("kind", "shape", "more", "name"),
    [
        ("image", (3, 64, 64), {}, "multiscale"),
        ("vector", (4,), {}, "mlp"),
        ("vector", (4,), {"special": True}, "tabular"),
        ("series", (2000, 3), {}, "conv1d"),
        ("audio", (16000, 1), {"rate": 8000}, "conv1d"),
        ("text", (40,), {}, "text_ngrams"),
    ],
)
def test_each_kind_has_an_encoder(kind: str, shape: tuple[int, ...], more: dict[str, Any], name: str) -> None:
    table, why = presets.encoder_for(kind, shape, **more)
    assert table["name"] == name and why
    if kind == "series":
        assert table["stride"] == 4 and table["kernel"] >= table["stride"] and table["halve"]


def test_a_side_that_is_given_twice_is_refused(folder: Path) -> None:
    given = {
        "data": {"x": {"columns": ["price"]}, "y": {"columns": ["name"]}},
        "pairing": {"name": "columns", "x": ["price"]},
    }
    with pytest.raises(UsageError, match="said twice"):
        resolve(str(write(folder / "things.csv")), given, None)


@pytest.mark.data
@pytest.mark.parametrize(
    ("source", "x", "y", "said"),
    [
        ("emoji_pairs/emoji_pairs.parquet", "color", "name", "y: name: text of up to 78 bytes"),
        ("mfeat/mfeat.npz", "fou", "kar", "x: fou: vector data, 76; encoder mlp"),
    ],
)
def test_real_pairs_train(source: str, x: str, y: str, said: str, data: Path, tmp_path: Path, accord: Accord) -> None:
    small = ("--set", "encoder.stem_width=8", "--set", "encoder.widths=[8,8]") if x == "color" else ()
    settings = ("--set", "encoder.name=multiscale", *small) if small else ()
    done = accord("train", data / source, "--x", x, "--y", y, *QUICK, *settings, "--out", tmp_path / "run")
    assert done.code == 0 and said in done.err + done.out, done.err
    assert accord("embed", tmp_path / "run", data / source, "--side", "y", "-o", tmp_path / "y.npy").code == 0
