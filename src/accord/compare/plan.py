"""What a comparison is: the principles, the recipe of each, and how much of what is equal for all."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from accord import presets_tuning, recipe_toml
from accord.about_data import Sides
from accord.data.samples import Samples
from accord.errors import AccordError, EnvironmentFault, UsageError
from accord.recipe import Recipe
from accord.recipe_objective import ObjectiveSection
from accord.resolve import LENGTHS, read_settings, resolve
from accord.run import unfilled
from accord.train.schedule import seconds_of

EQUAL = ("seconds", "steps", "passes")
SHORTEST = 1.0
"""Seconds a run must have at least."""
FEWEST = 10
"""Steps a run must have at least."""
NOT_OF_A_PRINCIPLE = ("E220", "E234", "E501", "E502", "E503")
"""Errors that say nothing about a principle: a source that is not there or not plain, a disk."""
TRIAL_SEED = 1_000_000
"""The seed of trials is so far from those of the runs."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks for.

    principles: as typed, separated by commas: names, groups or "all". budget: a time, or with `equal` steps or passes also a number of
    them. reference: what the others are held against, None for the first. data: a test source.
    sides: what is said of columns. out: None for a new folder.
    """

    source: str
    principles: str
    budget: str = "60s"
    equal: str = "seconds"
    seeds: int = 3
    trials: int = 1
    reference: str | None = None
    data: str | None = None
    recipe: str | None = None
    settings: Sequence[str] = ()
    sides: Sides = Sides()  # noqa: RUF009  (it cannot be changed)
    column: str | None = None
    label: str | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Amount:
    """How much each run gets: `seconds`, or a `count` of steps or passes; one of the two is None."""

    seconds: float | None
    count: int | None

    @classmethod
    def of(cls, budget: str, equal: str) -> Amount:
        """From what was typed.

        Raises:
            UsageError: for what is neither, or less than a second or `FEWEST` steps.
        """
        if equal != "seconds" and budget.strip().isdigit():
            count = int(budget)
            if count < 1:
                raise _short(f"{count} {equal} are none", "give 1 or more")
            if equal == "steps" and count < FEWEST:
                raise _short(f"{count} steps are too short", f"give {FEWEST} or more")
            return cls(None, count)
        seconds = seconds_of(budget, where="--budget")
        if seconds < SHORTEST:
            raise _short(f"a budget of {seconds:g} s is too short: nothing is learned", "give 1s or more; 60s, say")
        return cls(seconds, None)


def _short(what: str, remedy: str) -> UsageError:
    return UsageError(what, where="--budget", help=remedy, code="E273")


def principles() -> tuple[str, ...]:
    """Every principle a recipe knows, in the order of its sections."""
    sections = get_args(get_args(ObjectiveSection)[0])
    return tuple(name for section in sections for name in get_args(section.model_fields["name"].annotation))


def chosen(text: str) -> dict[str, str]:
    """The principles a user names, each with the word it was named by: recipe names, other names for them, groups, or "all".

    Raises:
        UsageError: for an unknown name, with the closest known one; for one that is named twice; for none.
    """
    found: dict[str, str] = {}
    for word in (part.strip() for part in text.split(",")):
        for name in _meant(word):
            if name in found:
                raise UsageError(
                    f"{name} is named twice"
                    + ("" if found[name] == word == name else f", as {found[name]} and {word}"),
                    where="--principles",
                    help="name each principle once",
                    code="E271",
                )
            found[name] = word
    return found


def _meant(word: str) -> tuple[str, ...]:
    """The principles one word stands for."""
    known = principles()
    name = word.lower().replace("-", "_")
    name = presets_tuning.ALIASES.get(name, name)
    if name == "all":
        return known
    if name in presets_tuning.GROUPS:
        return tuple(p for p in known if p in presets_tuning.GROUPS[name])
    if name in known:
        return (name,)
    aliases = [alias for alias, principle in presets_tuning.ALIASES.items() if principle in known]
    close = difflib.get_close_matches(name, [*known, *presets_tuning.GROUPS, *aliases], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(
        f"unknown principle {word!r}",
        where="--principles",
        help=f"{hint}known: {', '.join(known)}; groups: all, {', '.join(presets_tuning.GROUPS)}",
        code="E270",
    )


def group_of(principle: str) -> str:
    """The group of a principle."""
    return next(group for group, members in presets_tuning.GROUPS.items() if principle in members)


def one_of_many(word: str) -> bool:
    """Whether a word names a group, or all."""
    name = word.lower().replace("-", "_")
    return presets_tuning.ALIASES.get(name, name) in ("all", *presets_tuning.GROUPS)


def check(wanted: Wanted) -> tuple[dict[str, str], Amount]:
    """The principles and how each was named, the reference first, and how much each run gets, before any data is read.

    Raises:
        UsageError: for what is unknown or out of bounds.
    """
    names = chosen(wanted.principles)
    if wanted.equal not in EQUAL:
        raise UsageError(
            f"unknown: --equal {wanted.equal}", where="--equal", help=f"give one of {', '.join(EQUAL)}", code="E277"
        )
    amount = Amount.of(wanted.budget, wanted.equal)
    if wanted.seeds < 1:
        raise UsageError(
            f"--seeds {wanted.seeds}: nothing would be trained",
            where="--seeds",
            help="give 3 or more: one seed tells nothing of chance",
            code="E272",
        )
    if not 1 <= wanted.trials <= presets_tuning.MOST:
        raise UsageError(
            f"--trials {wanted.trials}: expected 1 to {presets_tuning.MOST}",
            where="--trials",
            help="1 takes the recipes as they are",
            code="E274",
        )
    if wanted.reference is None:
        return names, amount
    (reference, *more) = _meant(wanted.reference)
    if more or reference not in names:
        raise UsageError(
            f"the reference {wanted.reference!r} is not one of the principles",
            where="--reference",
            help=f"name one of {', '.join(names)}",
            code="E275",
        )
    return {reference: names.pop(reference), **names}, amount


def recipes(wanted: Wanted, names: Mapping[str, str]) -> tuple[dict[str, Recipe], Samples, list[str]]:
    """The resolved recipe of each principle, still without its length, the samples, and which principles were left out, and why.

    The encoder, the pairs and the optimiser are those of the user's recipe, or of the preset that suits the data. A principle of a
    group that does not suit them, or needs a package that is not installed, is left out; one that was named itself is refused.

    Raises:
        UsageError: for a setting that is unknown, out of bounds, or not of every principle.
    """
    flags: dict[str, dict[str, Any]] = {
        "data": {"column": wanted.column, "label": wanted.label, **wanted.sides.settings()}
    }
    given, preset = read_settings(wanted.recipe, list(wanted.settings), flags, run=None)
    training = {key: value for key, value in given.get("training", {}).items() if key not in LENGTHS}
    given["training"] = {"on_collapse": "warn", **training, "steps": 1}
    own = given.pop("objective", {})
    found: dict[str, Recipe] = {}
    refused: dict[str, AccordError] = {}
    for name, word in names.items():
        section = {**own, "name": name} if own.get("name", name) == name else {"name": name}
        try:
            resolved, samples = resolve(wanted.source, {**given, "objective": section}, preset)
            unfilled(resolved)
        except (UsageError, EnvironmentFault) as error:
            if error.code in NOT_OF_A_PRINCIPLE:
                raise
            if not one_of_many(word):
                raise _of(name, error) from error
            refused[name] = error
            continue
        data = resolved.data
        if data.split_seed is None:
            data = data.model_copy(update={"split_seed": resolved.training.seed})
        found[name] = resolved.model_copy(update={"data": data})
    if not found:
        raise next(iter(refused.values()))
    return found, samples, [f"{name} is left out: {error.message}" for name, error in refused.items()]


def _of(principle: str, error: UsageError | EnvironmentFault) -> UsageError | EnvironmentFault:
    """The error, which says of which principle it is where the data do not suit it (E210 to E219)."""
    if not error.code.startswith("E21"):
        return error
    return UsageError(f"{principle}: {error.message}", where=error.where, help=error.help, code=error.code)


def with_length(recipe: Recipe, *, seconds: float | None = None, steps: int | None = None, seed: int) -> Recipe:
    """A recipe that says how long it runs, and from which seed."""
    length = {"epochs": None, "steps": steps, "budget": None if seconds is None else f"{seconds:g}s"}
    training = recipe.training.model_copy(update={**length, "seed": seed})
    return recipe.model_copy(update={"training": training})


def with_setting(recipe: Recipe, setting: presets_tuning.Setting) -> Recipe:
    """A recipe with one of the settings that are tried."""
    over = setting.over(recipe.optimizer.learning_rate, recipe.objective.name)
    return recipe_toml.parse(recipe_toml.merge(recipe.to_dict(), over))


def for_trial(recipe: Recipe) -> Recipe:
    """A recipe that also holds out a part of what runs are trained on: trials are judged on it.

    A sample is held out if its number in [0, 1), a function of its content, is below `held_out`; raising that adds samples to the
    held-out part and moves none out of it.
    """
    share = recipe.data.held_out + (1 - recipe.data.held_out) * presets_tuning.VALIDATION
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"held_out": share})})


def steps_of(
    equal: str, amount: Amount, seconds: Mapping[str, float], passes: Mapping[str, float], names: Sequence[str]
) -> dict[str, int]:
    """Steps of each principle's runs where steps or passes are equal.

    A time is turned into as many as the costliest principle does in it, so that no run takes longer.

    Args:
        equal: "steps" or "passes".
        amount: what each run gets.
        seconds: of one step of each principle; needed for a time.
        passes: of one step of each.
        names: the principles.
    """
    each = {name: 1.0 if equal == "steps" else passes[name] for name in names}
    if amount.count is not None:
        total = float(amount.count)
    else:
        assert amount.seconds is not None
        total = min(amount.seconds / seconds[name] * each[name] for name in names)
    return {name: max(1, round(total / each[name])) for name in names}
