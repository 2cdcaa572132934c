"""A run directory as one HTML file that needs no network: what was trained on what, how it went, and what it learned.

The page is inert: a content security policy allows its own style sheet and script by their hashes and nothing else, every text is
escaped, and its data stands in a block that no browser executes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

from accord.report.charts import CURVE, Html, duration, escape, figure, tag, visible
from accord.report.latent import hypotheses, latent
from accord.report.pictures import embedding_map, neighbours, pairs, pool
from accord.report.read import MAX_BAD_SHOWN, Run, read_run
from accord.report.sections import energy, facts_of, probes, section, spectrum, table, trained
from accord.report.surprise import futures, surprise
from accord.report.text import LEADS
from accord.report.training import training
from accord.report.verdict import verdict
from accord.storage import replace_file


def write_report(run: Path, out: Path | None = None) -> Path:
    """Writes the report of a run, by default as ``report.html`` in its directory, and returns its path.

    The same run directory gives the same bytes. The file is written aside and renamed, so a reader never sees half of it.

    Raises:
        UsageError: if `run` is not a run directory.
        ArtifactError: for a damaged file of the run, with its name and key.
        EnvironmentFault: if a file cannot be read or the report cannot be written.
    """
    page = render(read_run(Path(run)))
    path = Path(run) / "report.html" if out is None else Path(out)
    replace_file(path, page.encode("utf-8"))
    return path


def render(run: Run) -> str:
    """The page."""
    style, script = (
        resources.files("accord.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js")
    )
    curves, chart_data = training(run)
    the_map, map_data = embedding_map(run)
    sections = [
        trained(run),
        probes(run),
        curves,
        energy(run),
        surprise(run),
        futures(run),
        latent(run),
        hypotheses(run),
        spectrum(run),
        the_map,
        neighbours(run),
        pairs(run),
        skipped(run),
        reproduce(run),
        environment(run),
    ]
    sprite, present = run.sprite, "".join(part for part in sections if part)
    data = {
        "plot": {"left": CURVE.left, "right": CURVE.right, "width": CURVE.width},
        "charts": chart_data,
        "map": map_data,
        "classes": run.evaluation.view("data").texts("classes") if map_data else [],
        "sprite": None
        if sprite is None
        else {"side": sprite.side, "columns": sprite.columns, "crisp": sprite.side <= 16},
    }
    body = tag(
        "body",
        pool(sprite),
        head(run),
        tag("main", verdict(run), navigation(present), *sections),
        tag(
            "footer",
            tag("p", "Written by accord. This file is complete in itself: it loads nothing and sends nothing."),
        ),
        tag("div", id="tip", hidden=""),
        tag("script", Html(data_block(data)), type="application/json", id="data"),
        tag("script", Html(script)),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{document_head(run, style, script)}{body}</html>\n'


def document_head(run: Run, style: str, script: str) -> Html:
    """Title, policy and style sheet."""
    rules = ("default-src 'none'", "img-src data:", f"style-src '{digest(style)}'", f"script-src '{digest(script)}'")
    policy = "; ".join((*rules, "base-uri 'none'", "form-action 'none'"))
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{run.name} – accord report"),
        tag("style", Html(style)),
    )


def digest(text: str) -> str:
    """The hash by which a content security policy knows an inline script or style sheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def data_block(data: Mapping[str, object]) -> str:
    """JSON that can neither end its script element nor start another."""
    text = json.dumps(readable(data), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def readable(value: object) -> object:
    """The same data with what cannot be seen written out in every text."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {key: readable(inner) for key, inner in value.items()}
    return [readable(inner) for inner in value] if isinstance(value, list) else value


AFTER = ("accord evaluate RUN", "accord report RUN")
ANCHORS = (
    ("probes", "Probes"),
    ("training", "Training"),
    ("energy", "Energy"),
    ("surprise", "Surprise"),
    ("futures", "Futures"),
    ("latent", "z"),
    ("hypotheses", "Predictions"),
    ("spectrum", "Spectrum"),
    ("map-of-embeddings", "Map"),
    ("neighbours", "Neighbours"),
    ("pairs", "Pairs"),
    ("reproduce", "Do it again"),
)


def navigation(content: str) -> Html:
    """Links to the sections that there are."""
    links = (tag("a", name, href=f"#{key}") for key, name in ANCHORS if f'<section id="{key}"' in content)
    return tag("nav", *links, aria_label="Sections")


def head(run: Run) -> Html:
    """The name of the run and one sentence about it."""
    facts, count = facts_of(run), run.evaluation.view("data").number("train")
    parts = [
        "An energy model",
        f" ({facts.encoder})" if facts.encoder else "",
        " learned",
        f" from {figure(count)} samples of" if count else " from",
        f" {Path(facts.source).name or facts.source}" if facts.source else " pairs",
        f" by {facts.principle}" if facts.principle else "",
        f", in {figure(facts.steps)} steps" if facts.steps else "",
        f" and {duration(facts.seconds)}" if facts.seconds else "",
        f" on {facts.device}" if facts.device and facts.device != "auto" else "",
        ". It saw no labels." if run.evaluation.view("data").texts("classes") else ".",
    ]
    return tag(
        "header",
        tag("p", "accord report", class_="kicker"),
        tag("h1", run.name),
        tag("p", "".join(parts), class_="lead"),
    )


def skipped(run: Run) -> Html | None:
    """The items that could not be used."""
    count = run.evaluation.view("data").number("skipped") or run.bad_count
    if not count and not run.bad:
        return None
    rows = [
        [line.text("key") or "", line.text("code") or "", line.text("reason") or "", line.text("help") or ""]
        for line in run.bad
    ]
    cut = (
        f" The first {MAX_BAD_SHOWN} are listed; all are in bad_samples.jsonl." if run.bad_count > len(run.bad) else ""
    )
    lead = f"{figure(count)} items could not be used and were left out.{cut}"
    return section("skipped", "Skipped data", lead, table(["Item", "Code", "Why", "Remedy"], rows) if rows else None)


def reproduce(run: Run) -> Html:
    """The commands, and the recipe."""
    trained_by = run.environment.text("command")
    commands = run.evaluation.texts("commands") or [*([trained_by] if trained_by else []), *AFTER]
    recipe = (
        tag("details", tag("summary", "recipe.toml: everything this run depends on"), verbatim(run.recipe_text))
        if run.recipe_text
        else None
    )
    return section(
        "reproduce",
        "Do it again",
        LEADS["reproduce"],
        tag("pre", *(tag("code", Html(escape(line))) for line in commands), class_="commands"),
        recipe,
    )


def verbatim(text: str) -> Html:
    """A text file, line by line."""
    return tag("pre", Html("\n".join(escape(line) for line in text.split("\n"))))


def environment(run: Run) -> Html | None:
    """What it ran on, and the calibration where there is one."""
    parts = []
    for title, view in (
        ("What it ran on", run.environment),
        ("Calibration: what p-values are made from", run.calibration),
    ):
        rows = list(flat(view.values))
        if rows:
            parts.append(tag("details", tag("summary", title), table(["Key", "Value"], rows)))
    return section("environment", "Environment", None, *parts) if parts else None


def flat(values: Mapping[str, object], prefix: str = "", depth: int = 4) -> Iterator[list[str]]:
    """Keys and values of nested objects, one row each; long or deep ones as their length."""
    for key, value in values.items():
        if isinstance(value, Mapping) and depth:
            yield from flat(value, f"{prefix}{key}.", depth - 1)
        elif isinstance(value, Mapping | list) and (
            len(value) > 8 or any(isinstance(v, list | Mapping) for v in value)
        ):
            yield [prefix + key, f"{len(value):,} values"]
        else:
            yield [prefix + key, ", ".join(map(plain, value)) if isinstance(value, list) else plain(value)]


def plain(value: object) -> str:
    """A value as people write it."""
    return {None: "–", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)
