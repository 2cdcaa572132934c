"""What a step costs: counted by hand for a perceptron, and the same however the batch is computed."""

from __future__ import annotations

from typing import Any

import pytest

from accord.compare.pace import Steps
from accord.data.samples import Samples
from accord.division import divided
from accord.recipe import Recipe
from accord.resolve import resolve

BATCH = 64


def made(objective: dict[str, Any], **training: Any) -> tuple[Recipe, Samples]:
    given = {
        "encoder": {"name": "mlp", "hidden": [64]},
        "projector": {"hidden": [64], "dim": 16},
        "objective": objective,
        "training": {"steps": 10, "batch_size": BATCH, **training},
        "pairing": {"name": "two_views"},
    }
    return resolve("torus:n=400", given, "vector")


def passes(objective: dict[str, Any], **training: Any) -> float:
    recipe, samples = made(objective, **training)
    found = Steps(recipe, samples, divided(recipe, samples)[0]).passes()
    assert found is not None
    return found


def one_pass(features: int) -> int:
    """Operations of a sample through Linear(features, 64), Linear(64, 64) and Linear(64, 16), forwards and backwards: a product forwards,
    two backwards (to the weights and to the input), but for the first layer, whose input needs no gradient.
    """
    forwards = [2 * a * b for a, b in ((features, 64), (64, 64), (64, 16))]
    return 3 * sum(forwards) - forwards[0]


def test_by_hand() -> None:
    recipe, samples = made({"name": "sigreg", "slices": 8})
    found = Steps(recipe, samples, divided(recipe, samples)[0])
    count = found.passes()
    assert count is not None and samples.shape == (6,)
    term = (
        2 * 3 * 2 * BATCH * 16 * 8
    )  # two branches of 64 rows of 16 numbers on 8 slices, at most forwards and twice backwards
    assert 2 * BATCH <= count <= 2 * BATCH + term / one_pass(6) + 1


def test_more_slices_cost_more_and_views_count() -> None:
    few, many = (passes({"name": "sigreg", "slices": n}) for n in (8, 512))
    assert many > 1.5 * few


def test_a_batch_in_parts_costs_about_the_same() -> None:
    whole, parts = passes({"name": "sigreg", "slices": 8}), passes({"name": "sigreg", "slices": 8}, accumulate=4)
    assert parts == pytest.approx(whole, rel=0.05)


def test_seconds_are_those_of_a_step() -> None:
    recipe, samples = made({"name": "vicreg"})
    assert 1e-4 < Steps(recipe, samples, divided(recipe, samples)[0]).seconds(0.05) < 2


def test_an_encoder_that_computes_nothing_has_no_passes() -> None:
    given = {
        "encoder": {"name": "identity"},
        "projector": {"dim": 6},
        "training": {"steps": 10, "batch_size": BATCH},
    }
    recipe, samples = resolve("torus:n=400", given, "vector")
    assert Steps(recipe, samples, divided(recipe, samples)[0]).passes() is None
