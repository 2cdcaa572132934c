"""What a recipe says of z: every latent with every minimiser either trains or is refused before training, with the key and a remedy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from accord import build, recipe_toml
from accord.build_latent import SUITABLE, minimizer
from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.normalize import Standardize
from accord.model.predictor import DictionaryPredictor
from accord.recipe import Recipe

MINIMIZERS = ("enumerate", "coordinate", "best_of", "descend", "ista", "amortize", "variational", "langevin")
PAIRS = [(z, m) for z, m in itertools.product(SUITABLE, MINIMIZERS)]


def recipe(latent: dict[str, Any], how: dict[str, Any] | None = None, **tables: Any) -> Recipe:
    """A small resolved recipe on vectors."""
    parts: dict[str, Any] = {
        "data": {"source": "forks", "kind": "vector", "shape": [6], "features": ["x0", "x1", "y0", "y1", "y2", "y3"]},
        "pairing": {"name": "columns", "x": ["x0", "x1"], "y": ["y0", "y1", "y2", "y3"]},
        "encoder": {"name": "mlp", "hidden": [8]},
        "encoder_y": {"name": "mlp", "hidden": [8]},
        "projector": {"hidden": [8], "dim": 4},
        "predictor": {"name": "dictionary" if latent["name"] == "sparse" else "mlp"},
        "latent": latent,
    }
    return recipe_toml.parse({**parts, **({} if how is None else {"minimizer": how}), **tables})


def objective(of: Recipe) -> Any:
    return build.objective(of, Standardize(torch.zeros(2), torch.ones(2)), Standardize(torch.zeros(4), torch.ones(4)))


def latent_of(name: str) -> dict[str, Any]:
    return {"name": name, **({"bound": 2.0} if name == "low_dimensional" else {})}


def minimizer_of(name: str) -> dict[str, Any]:
    return {"name": name, **({"beta": 5.0, "temperatures": 2} if name == "langevin" else {})}


@pytest.mark.parametrize(("z", "how"), [pair for pair in PAIRS if pair[1] in SUITABLE[pair[0]]])
def test_a_suitable_minimiser_takes_a_step(z: str, how: str) -> None:
    torch.manual_seed(0)
    of = objective(recipe(latent_of(z), minimizer_of(how)))
    loss = of(Pair(torch.randn(6, 2), torch.randn(6, 4)))
    loss.total.backward()
    assert math.isfinite(float(loss.total.detach()))
    assert any(p.grad is not None and bool(p.grad.any()) for p in of.parameters())


@pytest.mark.parametrize(("z", "how"), [pair for pair in PAIRS if pair[1] not in SUITABLE[pair[0]]])
def test_another_is_refused_when_it_is_built_and_would_have_failed_later(z: str, how: str) -> None:
    wrong = recipe(latent_of(z), minimizer_of(how))
    with pytest.raises(UsageError, match=how) as refused:
        objective(wrong)
    assert refused.value.where == "minimizer.name"
    assert all(name in str(refused.value.help) for name in SUITABLE[z])
    model = objective(recipe(latent_of(z))).model
    assert wrong.minimizer is not None
    with pytest.raises(UsageError):  # not refused for nothing
        minimizer(wrong.minimizer, model.latent, 4, 0)(model.energy(torch.randn(3, 4), torch.randn(3, 4)))


@pytest.mark.parametrize(
    ("latent", "how", "where"),
    [
        ({"name": "codebook", "codes": 16, "blocks": 4}, {"name": "enumerate"}, "minimizer.name"),
        ({"name": "codebook", "codes": 16, "blocks": 4, "usage": 0.1}, None, "latent.usage"),
        ({"name": "codebook", "codes": 5000}, {"name": "enumerate"}, "minimizer.name"),
        ({"name": "sparse", "spread": 1.0}, {"name": "ista", "accelerated": True}, "minimizer.accelerated"),
        ({"name": "low_dimensional"}, {"name": "langevin", "beta": 1.0}, "latent.bound"),
        ({"name": "low_dimensional"}, {"name": "best_of", "beta": 1.0}, "latent.bound"),
        ({"name": "sparse", "spread": 1.0}, {"name": "langevin", "beta": 1.0}, "latent.spread"),
        ({"name": "sparse", "spread": 1.0}, {"name": "best_of", "beta": 1.0}, "latent.spread"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused_with_their_key(
    latent: dict[str, Any], how: dict[str, Any] | None, where: str
) -> None:
    with pytest.raises(UsageError) as refused:
        objective(recipe(latent, how))
    assert (refused.value.where, refused.value.code) == (where, "E239")
    assert refused.value.help


def test_fista_is_for_dictionaries_with_the_squared_error() -> None:
    sparse, fista, dictionary = {"name": "sparse"}, {"name": "ista", "accelerated": True}, {"name": "dictionary"}
    objective(recipe(sparse, fista, predictor=dictionary))
    for latent, cost in ((sparse, "smooth_l1"), ({**sparse, "spread": 0.5}, "squared_error")):
        with pytest.raises(UsageError, match="FISTA"):
            objective(recipe(latent, fista, predictor=dictionary, cost=cost))


def test_a_sparse_z_needs_what_stops_it_from_being_scaled_up_again() -> None:
    mlp = {"name": "mlp"}
    with pytest.raises(UsageError, match="scale it up") as refused:
        objective(recipe({"name": "sparse"}, {"name": "amortize"}, predictor=mlp))
    assert (refused.value.where, refused.value.code) == ("predictor.name", "E239")
    objective(recipe({"name": "sparse", "spread": 1.0}, {"name": "amortize"}, predictor=mlp))


def test_a_dictionary_needs_a_z() -> None:
    with pytest.raises(UsageError, match="deterministic") as refused:
        objective(recipe({"name": "deterministic"}, predictor={"name": "dictionary"}))
    assert refused.value.where == "predictor.name"
    with pytest.raises(UsageError, match="3 directions, z has 2"):
        DictionaryPredictor(4, 3)(torch.zeros(5, 4), torch.zeros(5, 2))


def test_a_model_that_does_not_fit_into_memory_is_an_error_of_the_environment(
    accord: Callable[..., Any], tmp_path: Path
) -> None:
    vast = ("--set", f"projector.hidden=[{10**12}]", "--set", "training.steps=1")
    ended = accord("train", "forks:m=2,n=64", *vast, "--out", tmp_path / "run")
    assert ended.code == 5
    assert "out of memory" in ended.err


def test_the_command_line_refuses_before_training_and_leaves_nothing(
    accord: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = ("--set", "latent.name=gaussian", "--set", "minimizer.name=enumerate", "--set", "training.steps=1")
    ended = accord("train", "forks:m=2,n=64", *settings, "--out", out)
    assert ended.code == 2
    assert "minimizer.name" in ended.err
    assert "use variational" in ended.err
    assert not out.exists()
