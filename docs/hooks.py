"""Fills in what the documentation takes from the code: the table of every recipe key."""

from __future__ import annotations

from typing import Any

MARK = "<!-- every key -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces the mark in recipes.md by one table per section of `accord.recipe`."""
    return markdown.replace(MARK, recipe_tables()) if MARK in markdown else markdown


def recipe_tables() -> str:
    """Every section of the recipe: its description, keys, types, bounds and defaults."""
    from accord import recipe

    sections = sorted(_kinds(recipe.Section), key=lambda section: section.__name__)
    return "\n".join(_table(section) for section in sections)


def _kinds(section: Any) -> list[Any]:
    """The sections a recipe can have: those below this one that have none below themselves."""
    below = section.__subclasses__()
    return [kind for part in below for kind in _kinds(part)] if below else [section]


def _table(section: Any) -> str:
    schema = section.model_json_schema()
    rows = [
        f"### {section.__name__}",
        "",
        schema.get("description", ""),
        "",
        "| key | value | default |",
        "|---|---|---|",
    ]
    for key, field in schema["properties"].items():
        default = (
            f"`{field['default']}`"
            if field.get("default") is not None
            else "required"
            if key in schema.get("required", [])
            else ""
        )
        rows.append(f"| `{key}` | {_kind(field)} | {default} |")
    return "\n".join([*rows, ""])


def _kind(field: dict[str, Any]) -> str:
    if "anyOf" in field or "oneOf" in field:
        variants = field.get("anyOf", field.get("oneOf", []))
        return " or ".join(_kind(variant) for variant in variants if variant.get("type") != "null")
    if "$ref" in field:
        return f"table {field['$ref'].rsplit('/', 1)[-1]}"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    limits = [f"{words} {field[key]}" for key, words in bounds.items() if key in field]
    return " ".join([str(field.get("type", "value")), ", ".join(limits)]).strip()
