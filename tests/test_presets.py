"""Every named recipe is valid, says how long it runs, and suits the data it is chosen for."""

from __future__ import annotations

import pytest

from accord import presets, recipe_toml
from accord.build import AUGMENTATIONS, augmentation
from accord.data.augment_series import SeriesAugmentation
from accord.data.sources import BUILT_IN
from accord.recipe import Augment
from accord.recipe_latent import EnumerateMinimizer
from accord.resolve import resolve


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_preset_is_a_valid_recipe(name: str) -> None:
    recipe = recipe_toml.parse({**presets.PRESETS[name], "data": {"source": "somewhere"}})
    training = recipe.training
    assert sum(value is not None for value in (training.epochs, training.steps, training.budget)) == 1
    by_kind = {"pairs", "series", "sound", "text", "future"}
    assert (recipe.encoder is None) == (name in by_kind), "what encodes these follows from their kind and length"


@pytest.mark.parametrize(
    ("kind", "shape", "source", "expected"),
    [
        ("image", (1, 8, 8), "digits", "digits"),
        ("image", (3, 32, 32), "photos", "photo"),
        ("image", (1, 28, 28), "scans", "grey_photo"),
        ("vector", (16,), "table.parquet", "vector"),
        ("vector", (14,), "forks", "forks"),
        ("vector", (10,), "forks:m=4", "forks"),
        ("vector", (3,), "ellipse:n=64", "vector_pairs"),
        ("series", (100, 6), "motions.ts", "series"),
        ("audio", (16000, 1), "sounds", "sound"),
        ("text", (40,), "names.csv", "text"),
        ("vector", (6,), "torus", "vector_pairs"),
        ("image", (1, 16, 16), "jump", "jump"),
        ("vector", (14,), "forks.csv", "vector"),
        ("pair", (), "table.parquet", "pairs"),
    ],
)
def test_preset_for(kind: str, shape: tuple[int, ...], source: str, expected: str) -> None:
    assert presets.preset_for(kind, shape, source) == expected


def test_every_source_known_by_name_has_a_preset() -> None:
    assert set(presets.BUILT_IN) == set(BUILT_IN)
    assert set(presets.BUILT_IN.values()) <= set(presets.PRESETS)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_a_recipe_can_set_all_that_makes_a_view(name: str) -> None:
    assert set(AUGMENTATIONS[name]().__dataclass_fields__) <= set(Augment.model_fields)


def test_what_a_recipe_sets_stands_over_the_preset_of_series() -> None:
    found = augmentation(Augment(preset="series", wrap=0.25, drift=0.1, trend=0.2), "none")
    assert isinstance(found, SeriesAugmentation)
    assert (found.wrap, found.drift, found.trend) == (0.25, 0.1, 0.2)
    assert found.scale == SeriesAugmentation.series().scale


def test_halves_of_larger_images_get_a_larger_stem() -> None:
    assert presets.halves_of(8) == presets.halves_of(16) == {}
    assert presets.halves_of(32)["pairing"] == {"size": 32} and presets.halves_of(280)["pairing"] == {"size": 64}
    for name in presets.OF_HALVES:
        table = recipe_toml.merge(presets.PRESETS[name], presets.halves_of(96))
        recipe = recipe_toml.parse({**table, "data": {"source": "somewhere"}})
        assert recipe.encoder is not None and recipe.encoder.stem_stride == 2


@pytest.mark.parametrize(
    ("canvas", "size", "plain"), [(8, 8, 8), (28, 16, 28), (32, 16, 32), (96, 48, 96), (280, 64, 128)]
)
def test_view_sizes(canvas: int, size: int, plain: int) -> None:
    assert presets.view_sizes(canvas) == {"size": size, "plain_size": plain}


@pytest.mark.parametrize("name", ["deterministic", "codebook", "gaussian", "noisy", "low_dimensional", "sparse"])
def test_another_latent_brings_its_own_minimiser_and_predictor(name: str) -> None:
    found, _ = resolve("digits", {"latent": {"name": name}}, "halves")
    expected = {"deterministic": "enumerate", "codebook": "enumerate", "gaussian": "variational", "sparse": "ista"}
    assert found.minimizer is not None
    assert found.minimizer.name == expected.get(name, "amortize")
    assert found.predictor.name == ("dictionary" if name == "sparse" else "mlp")
    kept = isinstance(found.minimizer, EnumerateMinimizer) and found.minimizer.anneal is not None
    assert kept == (name == "codebook"), "what the preset says of its own latent stays with it"
