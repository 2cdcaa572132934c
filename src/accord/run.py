"""A run directory as an object: its recipe, model, pairing and data, and what the verbs of the command line do with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accord import build, presets, recipe_toml
from accord.data.samples import Samples, split
from accord.data.pairing import TwoViews
from accord.data.sources import open_source
from accord.errors import UsageError
from accord.model.joint_embedding import JointEmbedding
from accord.model.normalize import Standardize
from accord.recipe import Recipe
from accord.train.checkpoint import load_weights

STANDARDIZE_ON = 2048
"""Samples that mean and standard deviation of the input are taken from."""


@dataclass(frozen=True)
class Run:
    """A trained run, ready for use: weights of its newest valid checkpoint, in evaluation mode."""

    path: Path
    recipe: Recipe
    model: JointEmbedding
    pairing: TwoViews

    def open_data(self, source: str, *, column: str | None = None, label: str | None = None) -> Samples:
        """Another source in the form this model takes; bad items are marked and never stop anything."""
        return open_like(self.recipe, source, column=column, label=label, limit_bad=False)

    def training_data(self) -> tuple[Samples, np.ndarray, np.ndarray]:
        """The samples the run was trained on, with its training and held-out indices."""
        data = self.recipe.data
        samples = open_like(self.recipe, data.source, column=data.column, label=data.label)
        return samples, *split(samples, data.held_out, self.recipe.training.seed)


def open_run(path: Path) -> Run:
    """The run in `path`.

    Raises:
        UsageError: if there is none, or it was trained from Python with a model no recipe describes.
        ArtifactError: if its checkpoints are damaged.
    """
    recipe = read_recipe(path)
    assert recipe.data.shape is not None
    torch.manual_seed(0)  # weights are overwritten; the generator of the caller's process starts the same everywhere
    objective = build.objective(recipe, build.placeholder(recipe.data.shape))
    load_weights(path, objective)
    objective.eval()
    return Run(path, recipe, objective.model, build.pairing(recipe))


def read_recipe(path: Path) -> Recipe:
    """The resolved recipe of a run.

    Raises:
        UsageError: if there is no run at `path`, or it has no recipe that can be built.
    """
    file = path / "recipe.toml"
    if not file.is_file():
        raise UsageError(
            "there is no run here: recipe.toml is missing",
            where=str(path),
            help="accord train SOURCE --out RUN makes one",
            code="E230",
        )
    recipe = recipe_toml.load(file)
    if recipe.data.shape is None or recipe.encoder is None:
        raise UsageError(
            "this run was trained from Python with a model that no recipe describes",
            where=str(file),
            help="build the model yourself and fill it with accord.load_weights(run, model)",
            code="E231",
        )
    return recipe


def open_like(
    recipe: Recipe, source: str, *, column: str | None = None, label: str | None = None, limit_bad: bool = True
) -> Samples:
    """A source in the form the recipe says, so that a model trained by it can read it.

    Raises:
        UsageError: if it is of another kind or shape.
    """
    data = recipe.data
    assert data.shape is not None
    channels = data.shape[0] if data.kind == "image" and data.shape[0] in (1, 3) else None
    samples = open_source(
        source,
        size=data.canvas,
        channels=channels,
        column=column,
        label=label,
        max_bad_fraction=data.max_bad_fraction,
        limit_bad=limit_bad,
    )
    _require_same_form(recipe, samples)
    return samples


def _require_same_form(recipe: Recipe, samples: Samples) -> None:
    expected = tuple(recipe.data.shape or ())
    fits = samples.kind == recipe.data.kind and samples.shape[0] == expected[0]
    if not fits:
        raise UsageError(
            f"this is {samples.kind} data of shape {samples.shape}, the run was trained on {recipe.data.kind} data of shape {expected}",
            where=samples.name,
            help="give data of the same kind, or train a run on this kind",
            code="E232",
        )


def resolve(source: str, given: dict[str, Any], preset: str | None) -> tuple[Recipe, Samples]:
    """A recipe with nothing left open, and the samples it was resolved against.

    Args:
        source: what to train on.
        given: what the user set, over the preset.
        preset: its name; by default the one that suits the data.

    Raises:
        UsageError: for a setting that is unknown or out of bounds, before any data is read.
    """
    given = recipe_toml.merge(given, {"data": {**given.get("data", {}), "source": source}})
    draft = recipe_toml.parse(complete(presets.PRESETS[preset or "photo"], given))
    data = draft.data
    samples = open_source(
        source, size=data.canvas, column=data.column, label=data.label, max_bad_fraction=data.max_bad_fraction
    )
    preset = preset or presets.preset_for(samples.kind, samples.shape, source)
    table = complete(presets.PRESETS[preset], given)
    found: dict[str, Any] = {"kind": samples.kind, "shape": list(samples.shape)}
    if samples.kind == "image":
        found["canvas"] = samples.shape[-1]
    return recipe_toml.parse(recipe_toml.merge(table, {"data": found})), samples


def complete(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The preset under what is given; a length that is given replaces the preset's."""
    lengths = {"epochs", "steps", "budget"}
    base = recipe_toml.merge(preset, {})
    if lengths & set(given.get("training", {})):
        base["training"] = {key: value for key, value in base["training"].items() if key not in lengths}
    return recipe_toml.merge(base, given)


def standardize_on(samples: Samples, index: np.ndarray, pairing: TwoViews) -> Standardize:
    """Mean and standard deviation per channel of plain views of up to 2,048 training samples, evenly chosen."""
    some = index[:: max(1, len(index) // STANDARDIZE_ON)][:STANDARDIZE_ON]
    aspect = torch.from_numpy(samples.aspect[some]) if samples.kind == "image" else None
    return build.standardization(pairing.plain(samples.batch(some), aspect))
