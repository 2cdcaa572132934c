"""Every named recipe is valid, says how long it runs, and suits the data it is chosen for."""

from __future__ import annotations

import pytest

from accord import presets, recipe_toml


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_preset_is_a_valid_recipe(name: str) -> None:
    recipe = recipe_toml.parse({**presets.PRESETS[name], "data": {"source": "somewhere"}})
    training = recipe.training
    assert sum(value is not None for value in (training.epochs, training.steps, training.budget)) == 1
    assert recipe.encoder is not None


@pytest.mark.parametrize(
    ("kind", "shape", "source", "expected"),
    [
        ("image", (1, 8, 8), "digits", "digits"),
        ("image", (3, 32, 32), "photos", "photo"),
        ("image", (1, 28, 28), "scans", "grey_photo"),
        ("vector", (16,), "table.parquet", "vector"),
    ],
)
def test_preset_for(kind: str, shape: tuple[int, ...], source: str, expected: str) -> None:
    assert presets.preset_for(kind, shape, source) == expected


@pytest.mark.parametrize(
    ("canvas", "size", "plain"), [(8, 8, 8), (28, 16, 28), (32, 16, 32), (96, 48, 96), (280, 64, 128)]
)
def test_view_sizes(canvas: int, size: int, plain: int) -> None:
    assert presets.view_sizes(canvas) == {"size": size, "plain_size": plain}
