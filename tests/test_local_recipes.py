"""VICRegL through recipes and the command line: what it brings along, what is refused, and that every verb works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accord import build
from accord.data.random import Draws
from accord.data.sources import open_source
from accord.errors import UsageError
from accord.model.matching import LocalMatching
from accord.resolve import resolve
from accord.run import new_objective, open_run

Command = Callable[..., Any]
VICREGL = {"objective": {"name": "vicregl"}}
SMALL = [
    "encoder.stem_width=8",
    "encoder.widths=[8,16]",
    "projector.hidden=[16]",
    "projector.dim=16",
    "projector.local_dim=4",
]


def settings(*values: str) -> list[str]:
    return [part for value in ("objective.name=vicregl", *SMALL, *values) for part in ("--set", value)]


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"encoder": {"name": "resnet18"}},
        {"encoder": {"name": "vit", "patch": 2}},
        {"encoder": {"name": "multiscale", "stem_kernel": 3, "stem_init": "whitened"}},
        {"projector": {"grid": 2, "local_dim": 8}, "objective": {"name": "vicregl", "matches": 2, "alpha": 0.5}},
        {"encoder_y": {"name": "moving_average"}},
        {"pairing": {"name": "two_views", "local": 2, "local_size": 8}},
    ],
    ids=str,
)
def test_one_step_of_each_encoder(tables: dict[str, Any]) -> None:
    recipe, samples = resolve("digits", {**VICREGL, **tables}, None)
    index = np.arange(16)
    pairing = build.pairing(recipe)
    made = new_objective(recipe, samples, index, pairing).train()
    loss = made(pairing(samples.batch(index), Draws(0, 0, torch.from_numpy(index))))
    assert loss.total.isfinite()
    loss.total.backward()
    cost, grid = made.model.cost, recipe.projector.grid
    assert isinstance(cost, LocalMatching) and grid is not None
    assert (cost.dim, cost.positions, cost.alpha) == (256, grid**2, tables.get("objective", {}).get("alpha", 0.75))
    assert made.model.encoder_x(pairing.plain(samples.batch(index))).shape == (16, recipe.projector.width)


@pytest.mark.parametrize(
    ("source", "tables", "code", "message"),
    [
        ("digits", {"cost": "squared_error"}, "E218", "do not go together"),
        ("digits", {"objective": {"name": "vicreg"}, "cost": "local_matching"}, "E218", "a projector with no grid"),
        ("digits", {"objective": {"name": "vicreg"}, "projector": {"grid": 2, "local_dim": 8}}, "E218", "'vicreg'"),
        (
            "digits",
            {"objective": {"name": "vicregl", "matches": 17}},
            "E218",
            "17 matches were asked for of 16 positions",
        ),
        ("digits", {"pairing": {"name": "masked_blocks", "patch": 2, "block": 1}}, "E210", "'masked_blocks' hides"),
        ("forks", {}, "E210", "the encoder 'mlp' of vector data has no map"),
    ],
)
def test_what_has_no_parts_is_refused(source: str, tables: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        recipe, samples = resolve(source, {**VICREGL, **tables}, None)
        new_objective(recipe, samples, np.arange(16), build.pairing(recipe))
    assert (caught.value.code, caught.value.exit_code) == (code, 2)
    assert caught.value.help


def test_half_of_a_map_is_refused() -> None:
    with pytest.raises(UsageError, match="both grid and local_dim, or neither"):
        resolve("digits", {"projector": {"grid": 2}}, None)


def test_every_verb_works(accord: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert accord("train", "digits", *settings("training.steps=200"), "--out", run).code == 0
    assert accord("evaluate", run).code == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["energy"]["ladder"]["random"]["auroc"] > 0.8
    assert found["collapse"]["verdict"] is None
    opened = open_run(run).model
    widths = {"features": opened.encoder_x.features(torch.zeros(1, 1, 8, 8)).shape[1], "embedding": 16 + 16 * 4}
    for layer, width in widths.items():
        out = tmp_path / f"{layer}.npy"
        assert accord("embed", run, "digits", "-o", out, "--layer", layer).code == 0
        assert np.load(out).shape == (1797, width)
    assert widths["features"] == (8 + 16) * 4, "the map is no part of the features"
    some = tmp_path / "some.npz"
    np.savez(some, x=open_source("digits").batch(np.arange(100))[:, 0].numpy())
    assert accord("search", run, some, some, "-k", "3", "-o", tmp_path / "found.parquet").code == 0
    assert accord("score", run, some, "-o", tmp_path / "scores.parquet", "--allow-overlap").code == 0


def test_a_run_that_goes_on_ends_with_the_same_weights(accord: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    once = ["train", "digits", *settings("training.steps=30", "training.checkpoint_every=0.001s"), "--out", run]
    assert accord(*once).code == 0
    weights = run / "checkpoints" / "step-30" / "weights.safetensors"
    expected = weights.read_bytes()
    shutil.rmtree(weights.parent)
    assert accord("train", "digits", "--out", run, "--resume").code == 0
    assert weights.read_bytes() == expected


def test_a_run_without_map_is_refused_with_exit_code_2(accord: Command, tmp_path: Path) -> None:
    refused = accord("train", "forks", "--set", "objective.name=vicregl", "--out", tmp_path / "run")
    assert refused.code == 2 and "has no map" in refused.err and "use vicreg" in refused.err


def test_a_collapse_of_parts_is_named(accord: Command, tmp_path: Path) -> None:
    without = settings("objective.variance=0", "objective.covariance=0", "training.steps=300")
    stopped = accord("train", "digits", *without, "--out", tmp_path / "run")
    assert stopped.code == 6 and "constant collapse" in stopped.err
