"""A recipe is resolved against the data: nothing is left open, and what the user set wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accord import build, build_encoder, build_objective, recipe_toml
from accord.data.augment import Augmentation
from accord.data.random import Draws
from accord.division import divided
from accord.errors import DataError, UsageError
from accord.resolve import read_settings, resolve
from accord.run import new_objective


@pytest.fixture
def photos(tmp_path: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", x=images)
    return str(tmp_path / "photos.npz")


def test_views_are_half_the_size_unless_set(photos: str) -> None:
    recipe, samples = resolve(photos, {}, None)
    assert samples.shape == (3, 32, 32)
    assert (recipe.pairing.size, recipe.pairing.plain_size) == (16, 32)
    assert recipe.data.shape == [3, 32, 32]
    recipe, _ = resolve(photos, {"pairing": {"size": 24}}, None)
    assert (recipe.pairing.size, recipe.pairing.plain_size) == (24, None)
    recipe, _ = resolve(photos, {}, "resnet18")
    assert recipe.pairing.size is None


def test_pairs_of_two_kinds_get_an_encoder_for_y_and_a_predictor() -> None:
    recipe, _ = resolve("digits", {}, "halves")
    assert recipe.encoder_y == recipe.encoder and recipe.predictor.name == "mlp"
    recipe, _ = resolve("digits", {"pairing": {"name": "halves"}}, None)
    assert recipe.encoder_y == recipe.encoder and recipe.predictor.name == "mlp", "whatever the preset says"
    recipe, _ = resolve("digits", {"pairing": {"name": "halves"}, "predictor": {"name": "identity"}}, None)
    assert recipe.predictor.name == "identity", "what the user says comes first"
    own = {"name": "vit_tiny", "patch": 4}
    recipe, _ = resolve("digits", {"encoder_y": own}, "halves")
    assert recipe.encoder_y is not None and recipe.encoder_y.name == "vit_tiny" and recipe.encoder.name == "multiscale"
    recipe, _ = resolve("digits", {}, None)
    assert recipe.encoder_y is None and recipe.predictor.name == "identity"


@pytest.mark.parametrize("source", ["forks:m=2,n=64", "ellipse:n=64", "torus:n=64"])
def test_columns_are_written_down_by_name(source: str) -> None:
    recipe, samples = resolve(source, {}, None)
    assert recipe.data.features == list(samples.features)
    assert recipe.pairing.x + recipe.pairing.y == list(samples.features)
    assert all(name.startswith("x") for name in recipe.pairing.x)
    again, _ = resolve(source, recipe_toml.parse(recipe.to_dict()).to_dict(), None)
    assert again == recipe
    recipe, _ = resolve(source, {"pairing": {"x": [1]}}, None)
    assert recipe.pairing.x == [samples.features[1]] and len(recipe.pairing.y) == len(samples.features) - 1


def test_a_table_does_not_say_which_columns_are_x(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.random.default_rng(0).normal(size=(40, 3)))
    with pytest.raises(UsageError, match="which columns are x"):
        resolve(str(tmp_path / "t.npz"), {"pairing": {"name": "columns"}}, None)
    recipe, _ = resolve(str(tmp_path / "t.npz"), {"pairing": {"name": "columns", "x": [0, 2]}}, None)
    assert recipe.pairing.x == ["column 0", "column 2"] and recipe.pairing.y == ["column 1"]


def test_the_light_augmentation_of_halves_can_be_left_out() -> None:
    recipe, _ = resolve("digits", {}, "halves")
    assert build.pairing(recipe).random and build.pairing(recipe).augmentation == Augmentation.light()
    recipe, _ = resolve("digits", {"pairing": {"augment": {"preset": "none"}}}, "halves")
    assert not build.pairing(recipe).random
    recipe, _ = resolve("jump:both=0", {}, None)
    assert not build.pairing(recipe).random, "a moved digit would cross the border between x and y"


def test_halves_of_photos(photos: str) -> None:
    recipe, _ = resolve(photos, {}, "halves")
    assert (recipe.pairing.size, recipe.encoder.stem_stride) == (32, 2)
    recipe, _ = resolve(photos, {"pairing": {"name": "halves"}}, None)
    assert recipe.pairing.name == "halves", "the preset for photos has sizes of views, which halves do not have"
    again, _ = resolve(photos, recipe_toml.parse(recipe.to_dict()).to_dict(), None)
    assert again == recipe
    assert build.forms(recipe) == ((3, 32, 16), (3, 32, 16))


MASKED = {"name": "masked_blocks", "patch": 2, "block": 2}


def test_masked_blocks_drop_tokens_and_know_where_the_block_is() -> None:
    recipe, samples = resolve("digits", {"pairing": MASKED, "encoder": {"name": "vit_tiny", "patch": 2}}, None)
    assert build.forms(recipe) == ((2, 8, 8), (1, 4, 4))
    model = new_objective(recipe, samples, np.arange(64), build.pairing(recipe)).model
    vit_x, vit_y = model.encoder_x.backbone[1], model.encoder_y.backbone[1]
    assert vit_x.masked and not vit_y.masked and vit_x.patch_embed.proj.in_channels == 1
    assert (vit_x.grid, vit_y.grid) == ((4, 4), (2, 2))
    scale = model.encoder_x.backbone[0]
    assert scale.mean[1] == 0 and scale.std[1] == 1, "the mask is not standardised"
    model.eval()
    pair = build.pairing(recipe)(samples.batch(np.arange(8)), Draws(0, 0, torch.arange(8)))
    energy, moved = model.free_energy(pair.x, pair.y, pair.action), model.free_energy(pair.x, pair.y, pair.action + 0.5)
    assert (energy != moved).all(), "the predictor is told where the block is"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pairing": MASKED, "encoder": {"name": "vit_tiny", "patch": 4}}, "do not divide the hidden ones"),
        ({"pairing": {**MASKED, "block": 4}}, "hide all of 4 x 4 patches"),
        ({"pairing": {"name": "columns", "x": [0], "y": [1]}}, "columns"),
        ({"pairing": {"name": "halves", "augment": {"preset": "vector"}}}, "for images"),
    ],
)
def test_pairings_that_do_not_fit_the_data(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe, samples = resolve("digits", given, None)
        new_objective(recipe, samples, np.arange(64), build.pairing(recipe))


def test_one_encoder_cannot_take_two_forms() -> None:
    recipe, _ = resolve("forks:m=2,n=64", {}, None)
    with pytest.raises(UsageError, match="one encoder cannot take both") as caught:
        build.model(recipe.model_copy(update={"encoder_y": None}), build_encoder.placeholder([2]))
    assert "encoder_y" in (caught.value.help or "")


def test_resolving_again_changes_nothing(photos: str) -> None:
    recipe, _ = resolve(photos, {}, None)
    again, _ = resolve(photos, recipe_toml.parse(recipe.to_dict()).to_dict(), None)
    assert again == recipe


def test_a_length_replaces_the_length_of_the_preset(photos: str) -> None:
    given, preset = read_settings(None, [], {"training": {"epochs": 3.0, "budget": None}}, None)
    recipe, _ = resolve(photos, given, preset)
    assert recipe.training.epochs == 3.0
    assert recipe.training.budget is None


def test_a_batch_is_at_most_a_quarter_of_few_samples_unless_it_was_set(photos: str) -> None:
    recipe, samples = resolve(photos, {}, None)
    train, _ = divided(recipe, samples)
    assert recipe.training.batch_size == len(train) // 4 < 256
    note = samples.notes[-1]
    assert f"{len(train) // 4} samples a batch instead of 256" in note and f"{len(train)} are trained on" in note
    recipe, samples = resolve(photos, {"training": {"batch_size": 20}}, None)
    assert recipe.training.batch_size == 20 and "batch" not in " ".join(samples.notes)
    recipe, samples = resolve("digits", {}, None)
    assert recipe.training.batch_size == 128 and "batch" not in " ".join(samples.notes), "1,400 samples are enough"


def test_a_split_that_misses_its_share_is_told(tmp_path: Path) -> None:
    rows = [f"{i / 7:.3f},{'abc'[i % 3]} thing" for i in range(90)]
    (tmp_path / "t.csv").write_text("\n".join(["size,name", *rows]) + "\n")
    told = []
    for by in ("y", None):
        data = {"x": {"columns": ["size"]}, "y": {"columns": ["name"]}, "hold_out_by": by, "held_out": 0.1}
        told.append(
            [note for note in resolve(str(tmp_path / "t.csv"), {"data": data}, None)[1].notes if "held out" in note]
        )
    assert told[1] == [] and "30 of 90 samples are held out, a share of 0.33 where 0.1 was asked for" in told[0][0]


def test_a_setting_names_another_principle(photos: str) -> None:
    given, preset = read_settings("photo", ["objective.name=sigreg", "objective.slices=64"], {}, None)
    recipe, _ = resolve(photos, given, preset)
    assert recipe.objective.model_dump() == {"name": "sigreg", "weight": 0.05, "slices": 64}


def test_an_unknown_key_is_refused_before_the_data_are_read() -> None:
    with pytest.raises(UsageError, match="unknown key"):
        resolve("no/such/folder", {"training": {"epoch": 3}}, None)


def test_an_unknown_recipe_is_refused_with_the_closest_name() -> None:
    with pytest.raises(UsageError) as caught:
        read_settings("digit", [], {}, None)
    assert "did you mean 'digits'?" in (caught.value.help or "")


@pytest.mark.parametrize("principle", ["contrastive_divergence", "score_matching"])
def test_a_principle_that_takes_y_as_data_gets_y_as_data(principle: str) -> None:
    recipe, _ = resolve("ellipse", {"objective": {"name": principle}}, None)
    assert recipe.encoder_y is not None and recipe.encoder_y.name == "identity"
    assert recipe.projector.dim == 2
    assert set(build_objective.terms(recipe)) == {principle}
    trained = {"objective": {"name": principle}, "encoder_y": {"name": "mlp"}}
    recipe, _ = resolve("ellipse", trained, None)
    with pytest.raises(UsageError, match="takes its embeddings as data") as caught:
        build_objective.terms(recipe)
    assert caught.value.code == "E219"
    with pytest.raises(UsageError, match="'identity'"):
        build.model(resolve("digits", {"objective": {"name": principle}}, None)[0], build_encoder.placeholder((1,)))


@pytest.mark.parametrize(("length", "says"), [(1, "series to train on"), (2, "1 series to train on and 1 held out")])
def test_what_leaves_nothing_to_train_on_is_refused_with_a_remedy(length: int, says: str, tmp_path: Path) -> None:
    rows = "".join(f"{site},{t},{t % 7 + site}\n" for site in range(length) for t in range(60))
    (tmp_path / "s.csv").write_text("site,t,v\n" + rows)
    with pytest.raises(DataError, match=rf"{says}[\s\S]*data\.window=STEPS"):
        resolve(str(tmp_path / "s.csv"), {"data": {"time": "t", "group": ["site"]}}, None)
