"""From what a user says to a recipe with nothing left open: presets, files, options, and what the data themselves decide."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from accord import build, presets, recipe_toml
from accord.build_encoder import identified
from accord.data.images import MAX_PIXELS
from accord.data.pairing_parts import columns
from accord.data.samples import Samples
from accord.data.series_sources import SeriesOptions
from accord.data.sides import Side
from accord.data.sources import open_source, rows_may_be_steps
from accord.data.values import Sides
from accord.data.vectors import unnamed_features
from accord.division import suited
from accord.errors import UsageError
from accord.recipe import Columns, Data, Future, Masked, Recipe, TableSide
from accord.recipe_encoder import EncoderSection, IdentityEncoder
from accord.recipe_rivals import Rival

LENGTHS = {"epochs", "steps", "budget"}
MOST_NAMES = 250_000
"""Characters in all the names of columns that a recipe keeps: it is refused beyond a million."""


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
    drafted = draft(source, given, preset)
    data = windowed(drafted, source)
    samples = _opened(source, drafted.model_copy(update={"data": data}))
    _require_sounds(data, samples)
    preset = preset or presets.preset_of(_name(given, "pairing"), samples.kind, samples.shape, source)
    canvas = samples.shape[-1] if samples.shape else 32
    table = complete(presets.PRESETS[preset], given, canvas)
    found: dict[str, Any] = {"data": _found(samples, data)}
    if samples.kind == "image":
        found["data"]["canvas"] = canvas
        two_views = table["pairing"].get("name", "two_views") == "two_views"
        if preset in presets.SMALL_VIEWS and two_views and "size" not in table["pairing"]:
            found["pairing"] = presets.view_sizes(canvas)
        if preset in presets.OF_HALVES:
            table = complete(recipe_toml.merge(presets.PRESETS[preset], presets.halves_of(canvas)), given, canvas)
    resolved = recipe_toml.parse(recipe_toml.merge(table, found))
    if samples.kind == "pair":
        _require_sides(resolved)
    elif isinstance(resolved.pairing, Columns):
        features = list(samples.features)
        if samples.kind != "vector":
            raise UsageError(
                "images have no columns"
                if samples.kind == "image"
                else f"samples of kind {samples.kind} have no columns",
                where="pairing.name",
                help="use halves" if samples.kind == "image" else "name the columns of both sides with --x and --y",
                code="E227",
            )
        chosen = columns(resolved.pairing.x, resolved.pairing.y, features=features)
        found["data"]["features"] = features
        found["pairing"] = {"x": [features[i] for i in chosen.x], "y": [features[i] for i in chosen.y]}
        resolved = recipe_toml.parse(recipe_toml.merge(table, found))
    return suited(_completed(resolved, given, samples), given, samples)


def _opened(source: str, recipe: Recipe) -> Samples:
    """The source as a recipe says that it is read."""
    data = recipe.data
    return open_source(
        source,
        size=data.canvas,
        column=data.column,
        label=data.label,
        x=None if data.x is None else side_of(data.x),
        y=None if data.y is None else side_of(data.y),
        kinds=data.kinds,
        masked=masked(recipe),
        features=None if data.time is None and data.group is None else data.features,
        **reading(recipe),
    )


def _found(samples: Samples, data: Data) -> dict[str, Any]:
    """What the recipe keeps of the data's form."""
    found: dict[str, Any] = {"kind": samples.kind, **_sides(data, samples)}
    if samples.kind == "series":
        steps = {"window": data.window, "stride": data.stride, "group": data.group}
        found |= {key: value for key, value in steps.items() if value is not None}
    if samples.kind != "pair":
        found["shape"] = list(samples.shape)
    if samples.rate:
        found |= {"rate": samples.rate, **({} if samples.columns else _level(data))}
    if samples.shuffle_buffer and data.shuffle_buffer is None:
        found["shuffle_buffer"] = samples.shuffle_buffer
    return {**found, "features": list(samples.features)} if named(samples) else found


def _sides(data: Data, samples: Samples) -> dict[str, Any]:
    """What the columns of each side turned out to be."""
    parts = samples.sides or ((samples,) if samples.columns else ())
    given = {name: side for name, side in (("x", data.x), ("y", data.y)) if side is not None}
    return {name: _side(part, given[name]) for name, part in zip(given, parts, strict=True)}


def _side(samples: Samples, section: TableSide) -> dict[str, Any]:
    found: dict[str, Any] = {"columns": list(samples.columns), "kinds": list(samples.kinds), "kind": samples.kind}
    found["shape"] = list(samples.shape)
    if samples.categories:
        found["categories"] = [list(names) for names in samples.categories]
    if samples.rate:
        found |= {"rate": samples.rate, **_level(section)}
    return found


def _level(section: Data | TableSide) -> dict[str, Any]:
    """New runs have one; the recipe of a run, which knows the shape already, is left as it was when it was trained."""
    return {} if section.shape is not None and section.level is None else {"level": section.level is not False}


def _require_sounds(data: Data, samples: Samples) -> None:
    """Refuses what is said of sounds where it would change nothing: of other data, or of the table whose columns are the sides."""
    parts = samples.sides or ((samples,) if samples.columns else ())
    sides = [(name, side) for name, side in (("x", data.x), ("y", data.y)) if side is not None]
    heard = [f"data.{name}" for (name, _), part in zip(sides, parts, strict=True) if part.kind == "audio"]
    keys = ("trim", "seconds") if heard and not samples.sides else ("trim", "seconds", "level", "centre")
    sections: list[tuple[str, Data | TableSide]] = [(f"data.{name}", side) for name, side in sides]
    if sides or samples.kind != "audio":
        sections.append(("data", data))
    for name, section in sections:
        said = [
            key
            for key in keys
            if getattr(section, key) not in (None, False) or (key == "level" and section.level is False)
        ]
        if said and name not in heard:
            raise UsageError(
                f"{name}.{said[0]} is said of sounds, and {'a side has its own' if heard else 'there are none'}",
                where=f"recipe:{name}.{said[0]}",
                help=f"set {heard[0]}.{said[0]}" if heard else "leave it out",
                code="E234",
            )


def side_of(section: TableSide) -> Side:
    """The columns of a side as `open_source` takes them; of a trained run also their form."""
    return Side(
        columns=tuple(section.columns),
        kinds=None if section.kinds is None else tuple(section.kinds),
        shape=None if section.shape is None else tuple(section.shape),
        categories=None if section.categories is None else tuple(map(tuple, section.categories)),
        rate=section.rate,
        trim=section.trim,
        seconds=section.seconds,
    )


def masked(recipe: Recipe) -> bool:
    """Whether missing values of a table of numbers are part of the data, and no fault."""
    return isinstance(recipe.pairing, Masked)


def windowed(recipe: Recipe, source: str) -> Data:
    """What is read, with the windows that the pairing needs; rows of a table are steps then, unless each is said to be a series.

    Raises:
        UsageError: for windows of another length than the pairing needs.
    """
    data, pairing = recipe.data, recipe.pairing
    if isinstance(pairing, Future):
        needed = pairing.context + pairing.horizon
        if data.window not in (None, needed):
            raise UsageError(
                f"data.window is {data.window}, but context and horizon are {pairing.context} and {pairing.horizon} steps",
                where="data.window",
                help="leave it out",
                code="E227",
            )
        data = data.model_copy(update={"window": needed, "stride": pairing.stride})
    rows = data.window is not None and data.time is None and data.group is None and data.kind is None
    rows = rows and rows_may_be_steps(source)
    return data.model_copy(update={"group": []}) if rows else data


def _require_sides(recipe: Recipe) -> None:
    """Refuses pairs of another making where the data have two sides."""
    pairing = recipe.pairing
    if not isinstance(pairing, Columns):
        raise UsageError(
            f"the pairs are columns of a table already, which leaves nothing for the pairing {pairing.name!r}",
            where="pairing.name",
            help="use columns, or name one side only",
            code="E227",
        )
    if pairing.x is not None or pairing.y is not None:
        raise UsageError(
            "the columns of the sides are said twice: in data and in pairing",
            where="pairing.x",
            help="leave out pairing.x and pairing.y",
            code="E227",
        )


def draft(source: str, given: dict[str, Any], preset: str | None) -> Recipe:
    """A recipe of what is given before the kind of data is known: over the first preset it can stand over, the likely one first.

    Raises:
        UsageError: if it can stand over none; what the likely one says to it.
    """
    likely = preset or presets.BUILT_IN.get(source.partition(":")[0], "photo")
    refused: UsageError | None = None
    for name in [likely] if preset else [likely, *(name for name in presets.PRESETS if name != likely)]:
        try:
            return recipe_toml.parse(complete(presets.PRESETS[name], given))
        except UsageError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def named(samples: Samples) -> bool:
    """Whether the columns have names of their own, by which another table can be read; few enough for a recipe."""
    given = samples.kind in ("vector", "series") and samples.features != unnamed_features(len(samples.features))
    return given and sum(map(len, samples.features)) < MOST_NAMES


def _completed(recipe: Recipe, given: dict[str, Any], samples: Samples) -> Recipe:
    """What follows from the rest: encoders that suit each side, a predictor where there is z, how z is found, and the width of embeddings
    where y is its own.
    """
    alike = build.pairing(recipe).alike
    parts = samples.sides or (samples, samples)
    encoder = identified(recipe.encoder or chosen_encoder(parts[0]).section)
    recipe = recipe.model_copy(update={"encoder": encoder})
    encoder_y, predictor = recipe.encoder_y, recipe.predictor
    if isinstance(recipe.objective, Rival):
        encoder_y = encoder_y or IdentityEncoder(name="identity")
    elif not alike:
        encoder_y = encoder_y or (chosen_encoder(parts[1]).section if samples.sides else recipe.encoder)
    encoder_y = None if encoder_y is None else identified(encoder_y)
    if "name" not in given.get("predictor", {}) and predictor.name == "identity":
        if recipe.latent.name == "sparse":
            predictor = predictor.model_copy(update={"name": "dictionary"})
        elif _of_parts(recipe, alike=alike, pairs=samples.kind == "pair") or recipe.latent.name != "deterministic":
            predictor = predictor.model_copy(update={"name": "mlp"})
    projector = recipe.projector
    if encoder_y is not None and encoder_y.name == "identity" and "dim" not in given.get("projector", {}):
        projector = projector.model_copy(update={"dim": math.prod(build.forms(recipe)[1])})  # y is its own embedding
    recipe = recipe.model_copy(update={"encoder_y": encoder_y, "predictor": predictor, "projector": projector})
    return recipe.model_copy(update={"minimizer": recipe.minimizer or build.how_z_is_found(recipe)})


def _of_parts(recipe: Recipe, *, alike: bool, pairs: bool) -> bool:
    """Whether x and y are parts of one thing that are predicted from each other; sides of a table meet halfway, each by its own encoder."""
    return isinstance(recipe.pairing, Masked) or not (alike or pairs)


class Chosen(NamedTuple):
    """An encoder, and why it was chosen."""

    section: EncoderSection
    why: str


def chosen_encoder(samples: Samples) -> Chosen:
    """The encoder that suits samples of one kind."""
    assert samples.kind != "pair"
    table, why = presets.encoder_for(
        samples.kind, samples.shape, rate=samples.rate, special=bool(samples.categories) or _has_gaps(samples)
    )
    return Chosen(TypeAdapter(EncoderSection).validate_python(table), why)


def _has_gaps(samples: Samples) -> bool:
    """Whether values of a vector are missing anywhere."""
    if samples.kind != "vector":
        return False
    index = np.flatnonzero(samples.ok)
    parts = (samples.batch(index[start : start + 65_536]) for start in range(0, len(index), 65_536))
    return any(not isinstance(part, Sides) and bool(part.isnan().any()) for part in parts)


def complete(preset: dict[str, Any], given: dict[str, Any], canvas: int = 32) -> dict[str, Any]:
    """The preset under what is given; a length that is given replaces the preset's, and another latent what goes with the preset's.

    Between the two stands what the principle needs.
    """
    principle = _name(given, "objective") or _name(preset, "objective")
    base = recipe_toml.merge(preset, presets.goes_with(principle, preset, canvas))
    latent = _name(base, "latent")
    if (_name(given, "latent") or latent) != latent:
        base = {key: table for key, table in base.items() if key not in ("minimizer", "predictor")}
    if LENGTHS & set(given.get("training", {})):
        base["training"] = {key: value for key, value in base["training"].items() if key not in LENGTHS}
    return recipe_toml.merge(base, given)


def _name(table: dict[str, Any], section: str) -> str:
    """Which variant a section names, "" if none; what is malformed is refused later, with its place."""
    values = table.get(section)
    name = values.get("name") if isinstance(values, dict) else None
    return name if isinstance(name, str) else ""


def read_settings(
    recipe: str | None, settings: list[str], flags: dict[str, dict[str, Any]], run: Path | None
) -> tuple[dict[str, Any], str | None]:
    """What a user has set, and the name of the preset it goes over, if one is named.

    Args:
        recipe: the name of a preset, or a TOML file.
        settings: assignments, ``a.b=value``.
        flags: values of options, None where not given; they come last.
        run: the run to be resumed, whose own recipe is the base.

    Raises:
        UsageError: for a recipe that is neither a name nor a file, or a malformed setting.
    """
    base: dict[str, Any] = {}
    preset = None
    if run is not None and (run / "recipe.toml").is_file():
        base = recipe_toml.read(run / "recipe.toml")
    if recipe in presets.PRESETS:
        preset = recipe
    elif recipe is not None:
        base = read_recipe_file(recipe)
    given = recipe_toml.merge(base, recipe_toml.override({}, settings))
    for table, values in flags.items():
        known = {key: value for key, value in values.items() if value is not None}
        if known and table == "training":
            given[table] = {k: v for k, v in given.get(table, {}).items() if k not in LENGTHS}
        given = recipe_toml.merge(given, {table: known}) if known else given
    return given, preset


def read_recipe_file(recipe: str) -> dict[str, Any]:
    """The values of a recipe that is named by a path.

    Raises:
        UsageError: if it is no file.
    """
    path = Path(recipe)
    if not path.is_file():
        close = difflib.get_close_matches(recipe, presets.PRESETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(
            f"no recipe {recipe!r}",
            where="--recipe",
            help=f"{hint}give a TOML file or one of {', '.join(presets.PRESETS)}",
            code="E209",
        )
    return recipe_toml.load(path).model_dump(mode="json", exclude_unset=True)


def reading(recipe: Recipe) -> dict[str, Any]:
    """How a recipe says that items are read, as options of `open_source`; of a resolved one also their length and rate."""
    data, pairing = recipe.data, recipe.pairing
    whole = data.kind in ("series", "audio") and data.window is None and data.shape is not None
    return {
        "kind": None if data.kind == "pair" else data.kind,
        "series": SeriesOptions(
            time=data.time,
            group=None if data.group is None else tuple(data.group),
            window=data.window,
            stride=data.stride or 1,
            context=pairing.context if isinstance(pairing, Future) else 0,
            length=data.length or (data.shape[0] if whole and data.shape else None),
            rate=data.rate,
            trim=data.trim,
            seconds=data.seconds,
        ),
        "max_bad_fraction": data.max_bad_fraction,
        "impute": data.impute,
        "follow_links": bool(data.follow_links),
        "max_pixels": data.max_pixels or MAX_PIXELS,
    }
