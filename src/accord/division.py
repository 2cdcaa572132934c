"""Which samples are trained on and which are held out, and what follows from their number."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from accord.data.samples import Samples, split
from accord.data.series import WindowStore
from accord.errors import DataError, UsageError
from accord.recipe import Data, Recipe, TableSide

LOOKED_AT = 2048
"""Samples that a fresh model takes mean, standard deviation and filters from."""
STEP_BYTES = 16
"""What a step of a sound takes while it is read: its place, whether it is there, and its value."""


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
        UsageError: if sounds are padded to more than fits into memory.
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
    _require_memory(recipe, samples, rows=max(training.batch_size, min(LOOKED_AT, train)))
    return recipe.model_copy(update={"training": training}), replace(samples, notes=[*samples.notes, *notes])


def _require_memory(recipe: Recipe, samples: Samples, rows: int) -> None:
    """Refuses a number of seconds that pads `rows` sounds beyond the memory that this machine has."""
    data, parts = recipe.data, samples.sides or (samples,)
    sections: list[tuple[str, Data | TableSide]] = [
        (f"data.{name}", side) for name, side in (("x", data.x), ("y", data.y)) if side is not None
    ] or [("data", data)]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for part, (section, said) in zip(parts, sections, strict=True):
        if part.kind != "audio" or said.seconds is None or not isinstance(part.store, WindowStore):
            continue
        longest, needed = int(part.store.count.max()), STEP_BYTES * rows * part.store.length
        if longest < part.store.length and needed > memory:
            raise UsageError(
                f"{section}.seconds = {said.seconds:g}: {rows:,} sounds of that length take {needed / 1e9:.3g} GB, this machine has "
                f"{memory / 1e9:.3g} GB; the longest sound is {longest / part.rate:.3g} s",
                where=f"recipe:{section}.seconds",
                help=f"set {section}.seconds to about {longest / part.rate:.3g}, or leave it out",
                code="E227",
            )


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
