"""Which samples are trained on and which are held out, and what follows from their number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from accord.data.samples import Samples, split
from accord.errors import DataError
from accord.recipe import Recipe


def divided(recipe: Recipe, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """(train, held-out) indices, by `data.split_seed`, or by the seed of the training where there is none."""
    data = recipe.data
    return split(
        samples, data.held_out, recipe.training.seed if data.split_seed is None else data.split_seed, data.hold_out_by
    )


def suited(recipe: Recipe, given: dict[str, Any], samples: Samples) -> tuple[Recipe, Samples]:
    """The recipe with a batch that suits how many samples are trained on, and the samples with notes on how they are divided.

    A preset's batch is at most a quarter of the training samples; what the user set stays.

    Raises:
        DataError: if fewer than two samples are left to train on.
    """
    train, held_out = (len(part) for part in divided(recipe, samples))
    if train < 2:
        raise _nothing_left(samples, train, held_out)
    notes, training = _unevenness(recipe, train, held_out), recipe.training
    small = max(2, train // 4)
    if "batch_size" not in given.get("training", {}) and training.batch_size > small:
        notes.append(
            f"{small} samples a batch instead of {training.batch_size}, for {train:,} are trained on; "
            "training.batch_size sets another number"
        )
        training = training.model_copy(update={"batch_size": small})
    return recipe.model_copy(update={"training": training}), replace(samples, notes=[*samples.notes, *notes])


def _unevenness(recipe: Recipe, train: int, held_out: int) -> list[str]:
    """A note where what is held out as a whole comes in so few kinds that the share asked for is missed by a factor of two."""
    by, wanted, share = recipe.data.hold_out_by, recipe.data.held_out, held_out / (train + held_out)
    if by in (None, "sample", "time") or wanted / 2 <= share <= 2 * wanted:
        return []
    return [
        f"{held_out:,} of {train + held_out:,} samples are held out, a share of {share:.2g} where {wanted:g} was asked for: "
        f"there are few different {by}; another data.split_seed divides them differently"
    ]


def _nothing_left(samples: Samples, train: int, held_out: int) -> DataError:
    whole = samples.kind == "series" and samples.windows is None
    unit = "series" if whole else "sample" if train == 1 else "samples"
    return DataError(
        f"{train:,} {unit} to train on and {held_out:,} held out: at least 2 are needed to train on",
        where=samples.name,
        help="cut it into windows: --set data.window=STEPS"
        if whole
        else "give more samples, or hold fewer of them out (data.held_out)",
        code="E319",
    )
