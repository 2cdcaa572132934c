"""Recipes as TOML: read, overridden, merged, and refused with the key, the line and the closest known name."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from accord.errors import UsageError
from accord.recipe import Recipe
from accord.recipe_base import Section

FORMAT = 1
MAX_BYTES = 1_000_000
VARIANTS = ("pairing", "encoder", "encoder_y", "latent", "minimizer", "objective")


def dumps(recipe: Recipe) -> str:
    """TOML text from which `parse` gives this recipe again."""
    return tomli_w.dumps(recipe.to_dict())


def parse(table: Mapping[str, Any], *, where: str = "recipe", text: str | None = None) -> Recipe:
    """A recipe from plain values.

    Args:
        table: what TOML gives.
        where: name of the file, for messages.
        text: the TOML itself, to name lines.

    Raises:
        UsageError: for the first unknown key (with the closest known one), wrong type or value out of bounds.
    """
    version = table.get("format", FORMAT)
    if version != FORMAT:
        raise UsageError(
            f"recipe format {version!r} is not known here, this version reads format {FORMAT}",
            where=f"{where}:format",
            help="use the version of accord that wrote it, or remove the key and check the recipe by hand",
            code="E205",
        )
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        raise _explain(error, where, text) from None


def read(path: Path) -> dict[str, Any]:
    """The plain values of a TOML file.

    Raises:
        UsageError: if it is missing, longer than 1 MB or not TOML, with the line.
    """
    return _load(path)[0]


def load(path: Path) -> Recipe:
    """A recipe from a file; see `read` and `parse` for errors."""
    table, text = _load(path)
    return parse(table, where=str(path), text=text)


def _load(path: Path) -> tuple[dict[str, Any], str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(
                f"a recipe of more than {MAX_BYTES:,} bytes is refused",
                where=str(path),
                help="a recipe is a short TOML file",
                code="E206",
            )
        text = path.read_text("utf-8")
        return tomllib.loads(text), text
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the recipe: {error}", where=str(path), help="give a TOML file in UTF-8", code="E207"
        ) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(
            f"not valid TOML: {error}", where=str(path), help="mend the line it names", code="E208"
        ) from None


def override(table: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`table` with each ``a.b=value`` applied; a value is a TOML value, or else a plain string.

    Raises:
        UsageError: if an assignment has no "=", goes through something that is not a table, or gives a table a value.
    """
    result = _copy(table)
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise UsageError(
                f"--set takes key=value, got {assignment!r}",
                help="for example --set optimizer.learning_rate=0.001",
                code="E202",
            )
        inner = result
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise UsageError(
                    f"{key!r} in {path!r} is a value, not a table", where=f"--set {assignment}", code="E202"
                )
        inner[keys[-1]] = _value(value.strip())
        known = _keys(keys)
        if known and not isinstance(inner[keys[-1]], dict):
            raise UsageError(
                f"{path.strip()!r} is a table, not a value",
                where=f"--set {assignment}",
                help=f"set one of its keys: {', '.join(f'{path.strip()}.{key}' for key in known)}",
                code="E202",
            )
    return result


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `top` over it, table by table; a table that names another variant replaces the whole."""
    result = _copy(base)
    for key, value in top.items():
        old = result.get(key)
        if (
            isinstance(old, dict)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            result[key] = merge(old, value)
        else:
            result[key] = _copy(value) if isinstance(value, Mapping) else value
    return result


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError, where: str, text: str | None) -> UsageError:
    """The first problem as one message that names the key, the line and what was expected."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    if len(path) > 2 and path[0] in VARIANTS:
        del path[1]  # the name of the variant, which pydantic puts into the path and a user never wrote
    key = ".".join(path)
    line = _line_of(path, text)
    place = f"{where}:{line}:{key}" if line else f"{where}:{key}"
    if first["type"] == "extra_forbidden":
        return UsageError(f"unknown key {key!r}", where=place, help=_suggest(path), code="E203")
    if first["type"] == "union_tag_invalid":
        return _unknown_variant(first, key, place)
    if first["type"] == "union_tag_not_found":
        return _no_variant(path, list(first["input"]), place)
    came = repr(first.get("input"))
    message = first["msg"][0].lower() + first["msg"][1:]
    return UsageError(
        f"{key}: {message.removeprefix('value error, ')}, got {came[:80]}",
        where=place,
        help="see docs/recipes.md for every key and its bounds",
        code="E204",
    )


def _unknown_variant(error: ErrorDetails, table: str, place: str) -> UsageError:
    """A table with variants that names none of them."""
    name = error["ctx"]["tag"]
    known = [tag.strip().strip("'") for tag in error["ctx"]["expected_tags"].split(",")]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(
        f"there is no {table} named {name!r}",
        where=f"{place}.name",
        help=f"{hint}known: {', '.join(known)}",
        code="E204",
    )


ALIASES = {"lr": "learning_rate", "wd": "weight_decay", "bs": "batch_size"}


def _no_variant(path: list[str], given: list[str], place: str) -> UsageError:
    """A table with variants that does not say which; named are those that have all its keys."""
    table = ".".join(path)
    fields = [section.model_fields for section in _sections(path) if section.model_fields.keys() >= {"name", *given}]
    known = [name for keys in fields for name in get_args(keys["name"].annotation)]
    of_these = f", one of {', '.join(known)}" if known else ""
    return UsageError(
        f"{', '.join(f'{table}.{key}' for key in given)}: of which {table} is not said",
        where=f"{place}.name",
        help=f"set {table}.name as well{of_these}",
        code="E204",
    )


def _suggest(path: list[str]) -> str:
    """The closest key of the same table."""
    known = _keys(path[:-1])
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.6)
    best = close[0] if close else ALIASES.get(path[-1])
    if best == path[-1]:
        table = ".".join(path[:-1])
        return f"{table}.{best} belongs to another {table} than this: set {table}.name as well"
    if best in known:
        return f"did you mean {'.'.join([*path[:-1], best])!r}?"
    return f"known keys here: {', '.join(known)}"


def _keys(table: list[str]) -> list[str]:
    """Every key a table of the recipe may have; of a table with variants, those of all variants."""
    return sorted({key for section in _sections(table) for key in section.model_fields})


def _sections(table: list[str]) -> list[type[Section]]:
    """What a table of the recipe may be: one section, or several variants."""
    sections: list[type[Section]] = [Recipe]
    for name in table:
        annotations = [section.model_fields[name].annotation for section in sections if name in section.model_fields]
        sections = [section for annotation in annotations for section in _section_types(annotation)]
    return sections


def _section_types(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _section_types(inner)]


def _line_of(path: list[str], text: str | None) -> int | None:
    """Line of the last key of `path` in `text`, searched after the header of its table."""
    if text is None:
        return None
    lines = text.splitlines()
    start = 0
    if len(path) > 1:
        header = f"[{'.'.join(path[:-1])}]"
        start = next((i for i, line in enumerate(lines) if line.strip() == header), 0)
    for number, line in enumerate(lines[start:], start=start + 1):
        if line.split("=")[0].strip().strip("\"'") == path[-1]:
            return number
    return None
