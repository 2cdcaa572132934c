"""Distilled principles through recipes and the command line: what each brings along, what is refused, and that every verb works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from accord import build
from accord.data.random import Draws
from accord.errors import UsageError
from accord.model.centred import CentredDivergence
from accord.model.energy import cosine, smooth_l1
from accord.model.teacher import MovingAverage, StopGradient
from accord.recipe import MaskedBlocks
from accord.recipe_encoder import OwnViTEncoder
from accord.resolve import resolve
from accord.run import new_objective, open_run

Command = Callable[..., Any]
NAMES = ["byol", "simsiam", "dino", "jepa"]


def given(name: str, **tables: Any) -> dict[str, Any]:
    return {"objective": {"name": name}, **tables}


@pytest.mark.parametrize("source", ["digits", "table"])
@pytest.mark.parametrize("name", NAMES)
def test_each_principle_brings_what_it_needs(name: str, source: str, tmp_path: Path) -> None:
    """One step on images and on rows of a table: the loss is finite, and the teacher that of this encoder."""
    if source == "table":
        source = str(tmp_path / "table.npz")
        np.savez(source, x=np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    recipe, samples = resolve(source, given(name), None)
    index = np.arange(16)
    pairing = build.pairing(recipe)
    made = new_objective(recipe, samples, index, pairing).train()
    loss = made(pairing(samples.batch(index), Draws(0, 0, torch.from_numpy(index))))
    assert loss.total.isfinite()
    loss.total.backward()
    teacher = made.model.encoder_y
    assert isinstance(teacher, StopGradient if name == "simsiam" else MovingAverage)
    assert teacher.student is made.model.encoder_x
    assert made.symmetric is (name != "jepa")
    cost = made.model.cost
    assert isinstance(cost, CentredDivergence) if name == "dino" else cost is (smooth_l1 if name == "jepa" else cosine)


def test_jepa_on_rows_with_hidden_columns_hides_no_blocks_of_images() -> None:
    assert resolve("forks", given("jepa"), "table")[0].pairing.name == "masked"


def test_the_copy_begins_with_the_filters_its_student_took_from_the_data() -> None:
    recipe, samples = resolve("digits", given("byol", encoder={"name": "multiscale", "stem_stride": 1}), None)
    made = new_objective(recipe, samples, np.arange(200), build.pairing(recipe))
    for mine, theirs in zip(made.model.encoder_x.parameters(), made.model.encoder_y.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("canvas", "patch", "block", "size"), [(8, 2, 2, 8), (28, 3, 3, 27), (32, 4, 3, 32), (96, 8, 3, 64)]
)
def test_what_jepa_hides_depends_on_the_size_of_the_images(
    tmp_path: Path, canvas: int, patch: int, block: int, size: int
) -> None:
    np.savez(tmp_path / "images.npz", x=np.random.default_rng(0).integers(0, 256, (40, canvas, canvas), np.uint8))
    recipe, _ = resolve(str(tmp_path / "images.npz"), given("jepa"), None)
    assert isinstance(recipe.pairing, MaskedBlocks) and isinstance(recipe.encoder, OwnViTEncoder)
    assert (recipe.pairing.patch, recipe.pairing.block, recipe.pairing.size) == (patch, block, size)
    assert recipe.encoder.patch == patch


@pytest.mark.parametrize(
    ("tables", "code"),
    [
        (given("byol", encoder_y={"name": "multiscale"}), "E217"),
        (given("dino", cost="cosine"), "E218"),
        (given("vicreg", cost="centred_divergence"), "E218"),
        (given("byol", pairing={"name": "masked_blocks", "patch": 2, "block": 2}), "E213"),
    ],
    ids=["no teacher", "another cost", "another principle", "x and y of two shapes"],
)
def test_what_does_not_go_together_is_refused(tables: dict[str, Any], code: str) -> None:
    recipe, samples = resolve("digits", tables, None)
    with pytest.raises(UsageError) as caught:
        new_objective(recipe, samples, np.arange(20), build.pairing(recipe))
    assert caught.value.code == code and caught.value.help


def test_a_teacher_cannot_take_y_of_another_shape() -> None:
    recipe, samples = resolve("torus:n=60", given("byol"), None)
    with pytest.raises(UsageError, match="both x of shape") as caught:
        new_objective(recipe, samples, np.arange(20), build.pairing(recipe))
    assert caught.value.code == "E213" and "teacher" in str(caught.value.help)


def test_pairs_that_cannot_be_exchanged_are_refused_in_words() -> None:
    tables = given("jepa")
    tables["objective"]["symmetric"] = True
    recipe, samples = resolve("digits", tables, None)
    pairing, index = build.pairing(recipe), np.arange(20)
    made = new_objective(recipe, samples, index, pairing)
    with pytest.raises(UsageError, match="exchanged"):
        made(pairing(samples.batch(index), Draws(0, 0, torch.from_numpy(index))))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dino", "jepa"])
def test_every_verb_works_with_a_teacher(name: str, tmp_path: Path, accord: Command) -> None:
    run = tmp_path / "run"
    few = ["--set", "training.steps=60", "--set", "training.batch_size=64", "--set", "training.on_collapse='warn'"]
    assert accord("train", "digits", "--set", f"objective.name={name}", *few, "--out", str(run)).code == 0
    assert accord("evaluate", str(run)).code == 0
    assert accord("embed", str(run), "digits", "-o", str(tmp_path / "e.parquet"), "--side", "y").code == 0
    assert accord("score", str(run), "digits", "-o", str(tmp_path / "s.parquet"), "--allow-overlap").code == 0
    assert accord("report", str(run)).code == 0
    assert len(pq.read_table(tmp_path / "e.parquet")) == len(pq.read_table(tmp_path / "s.parquet")) == 1797
    opened = open_run(run).model
    assert isinstance(opened.encoder_y, MovingAverage) and opened.encoder_y.student is opened.encoder_x
    if isinstance(opened.cost, CentredDivergence):
        assert opened.cost.centre.abs().sum() > 0
