"""What a user says about columns, and what is said to the user about data before training."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

from accord.data.column_kinds import COLUMN_KINDS
from accord.data.samples import Samples
from accord.errors import UsageError
from accord.recipe import Recipe
from accord.recipe_encoder import EncoderYSection
from accord.resolve import chosen_encoder
from accord.terminal import Terminal


class Sides(NamedTuple):
    """What a user says about columns: of x and of y, separated by commas, "COLUMN=KIND" each, that of times, and those of groups."""

    x: str | None = None
    y: str | None = None
    kinds: Sequence[str] = ()
    time: str | None = None
    group: str | None = None

    def settings(self) -> dict[str, Any]:
        """The same as settings of the recipe's table data.

        Raises:
            UsageError: for a kind without a column, or one that is not known.
        """
        found: dict[str, Any] = {
            name: {"columns": names_in(columns)}
            for name, columns in (("x", self.x), ("y", self.y))
            if columns is not None
        }
        if self.time is not None:
            found["time"] = self.time
        if self.group is not None:
            found["group"] = names_in(self.group)
        kinds = dict(kind_in(text) for text in self.kinds)
        return {**found, "kinds": kinds} if kinds else found


def names_in(columns: str) -> list[str]:
    """The names of columns in a list with commas."""
    return [name for name in (part.strip() for part in columns.split(",")) if name]


def kind_in(text: str) -> tuple[str, str]:
    """Column and kind of "COLUMN=KIND"."""
    column, _, kind = text.rpartition("=")
    if not column or kind not in COLUMN_KINDS:
        close = difflib.get_close_matches(kind, COLUMN_KINDS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(
            f"--kind takes COLUMN=KIND, got {text!r}",
            where="--kind",
            help=f"{hint}kinds are {', '.join(COLUMN_KINDS)}",
            code="E246",
        )
    return column, kind


def say_data(samples: Samples, recipe: Recipe, terminal: Terminal) -> None:
    """What was found, and what was chosen for it."""
    labels = f", {len(samples.classes)} classes that only probes read" if samples.classes else ""
    if samples.sides is None:
        terminal.say(f"{len(samples):,} samples of {described(samples)}{labels}")
    else:
        terminal.say(f"{len(samples):,} pairs{labels}")
        for name, side, section in zip("xy", samples.sides, (recipe.encoder, recipe.encoder_y), strict=True):
            terminal.say(f"{name}: {columns_in_words(side)}: {described(side)}; {encoder_in_words(side, section)}")
    for note in samples.notes:
        terminal.say(f"note: {note}")
    encoder = "" if recipe.encoder is None or samples.sides else f"encoder {recipe.encoder.name}, "
    terminal.say(f"{encoder}principle {recipe.objective.name}, optimiser {recipe.optimizer.name}")


def described(samples: Samples) -> str:
    """Kind and size of one sample in words."""
    steps = samples.shape[0] if samples.shape else 0
    match samples.kind:
        case "text":
            return f"text of up to {steps:,} bytes"
        case "audio":
            return f"sound of up to {steps / max(1, samples.rate):.3g} s at {samples.rate:,} Hz"
        case "series":
            channels = samples.shape[1]
            return f"series of up to {steps:,} steps of {channels} channel{'' if channels == 1 else 's'}"
        case _:
            return f"{samples.kind} data, {' x '.join(map(str, samples.shape))}"


def columns_in_words(side: Samples) -> str:
    """The columns of a side; what each is where they are of two kinds."""
    mixed = len(set(side.kinds)) > 1
    return ", ".join(f"{name} ({kind})" if mixed else name for name, kind in zip(side.columns, side.kinds, strict=True))


def encoder_in_words(side: Samples, section: EncoderYSection | None) -> str:
    """The encoder of a side, and why it is this one unless it was said."""
    chosen = chosen_encoder(side)
    if section is None or section == chosen.section:
        return f"encoder {chosen.section.name}, because {chosen.why}"
    return f"encoder {section.name}, as you said"
