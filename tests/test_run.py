"""A recipe is resolved against the data: nothing is left open, and what the user set wins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accord import recipe_toml
from accord.errors import UsageError
from accord.run import read_settings, resolve


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


def test_resolving_again_changes_nothing(photos: str) -> None:
    recipe, _ = resolve(photos, {}, None)
    again, _ = resolve(photos, recipe_toml.parse(recipe.to_dict()).to_dict(), None)
    assert again == recipe


def test_a_length_replaces_the_length_of_the_preset(photos: str) -> None:
    given, preset = read_settings(None, [], {"training": {"epochs": 3.0, "budget": None}}, None)
    recipe, _ = resolve(photos, given, preset)
    assert recipe.training.epochs == 3.0
    assert recipe.training.budget is None


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
