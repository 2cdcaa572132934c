"""A comparison as one HTML file that needs no network: who is better at what, as far as the seeds tell, and what it took."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path

from accord.intervals import Interval, spread
from accord.report.charts import Html, duration, figure, fraction, histogram, join, percent, tag
from accord.report.compare_charts import BASELINES, Curve, dots, learning, style_of, written
from accord.report.compare_numbers import METRICS, Metric, Pair, Results, against, best, means
from accord.report.compare_pictures import neighbours
from accord.report.compare_read import mean_of, read_comparison, required, results_of, shares_of, unlike
from accord.report.compare_words import gap, paragraph
from accord.report.page import digest, plain
from accord.report.read import View, damaged
from accord.report.sections import bin_counts, legend, named, panel, section, side_by_side, table
from accord.report.text import LADDER
from accord.storage import replace_file

PAGE = "compare.html"
LEADS = {
    "table": "Mean over seeds ± half of the 95 % interval, or n where two seeds, or equal ones, do not tell how far it is off. ✓ marks "
    "a principle that is better than every other; ≈ marks the highest mean and those that cannot be told from it. Nothing is marked where "
    "one seed leaves no interval.",
    "dots": "Large dots are means, small ones seeds, whiskers 95 % intervals; a whisker without an end goes on beyond the picture. Dashed "
    "lines need no training. Two intervals that overlap may still differ: the seeds are paired, which the table of differences uses.",
    "differences": "Each principle minus the reference, paired over seeds, with the 95 % interval of that difference alone. "
    "● marks what stands at 5 % after Holm's correction for the number of principles held against the reference.",
    "speed": "What the log of training saw on a fixed batch of held-out samples: means over seeds.",
    "energy": "Energies of held-out pairs, with the first seed: matched, random and slightly damaged ones. Heights and widths compare "
    "within a picture; energies of different principles have different units.",
    "cost": "Means over runs. A pass is one sample forwards and backwards through the encoder; everything else a step computes (teachers, "
    "decoders, the search for z, the terms) is counted in the same unit by its floating-point operations. Seconds are those of the "
    "clock, processor seconds those this process got: where they differ much, others were using the machine.",
    "settings": "All else is the same: encoder, data, order, views, split, optimiser and batch size, as in the recipe.toml of each run. "
    "What a principle cannot do without (a cost on the sphere, say) is named.",
    "trials": "Settings tried for each principle, the same number for each, trained for a third of a run on a part of the training samples "
    "and judged on the rest of them. No trial saw the samples of the figures above.",
    "runs": "Every run is an ordinary run directory with a report of its own.",
}


def write_comparison(out: Path) -> Path:
    """Writes compare.html from compare.json and returns its path.

    Raises:
        UsageError: if there is no comparison in `out`.
        ArtifactError: for a damaged file, with its name and key.
        EnvironmentFault: if a file cannot be read or the page cannot be written.
    """
    page = render(out, read_comparison(out))
    replace_file(out / PAGE, page.encode("utf-8"))
    return out / PAGE


def render(out: Path, view: View) -> str:
    """The page."""
    style = "".join(
        resources.files("accord.report").joinpath(name).read_text("utf-8") for name in ("page.css", "compare.css")
    )
    results = results_of(view)
    pictures, thumbnails = neighbours(folders(out, view, results))
    sections = [
        main_table(results),
        intervals(results),
        differences(results),
        speed(view, results),
        energies(view, results),
        pictures,
        cost(view, results),
        settings(view),
        trials(view),
        runs(out, view),
    ]
    body = tag(
        "body",
        thumbnails,
        head(out, view, results),
        tag("main", conclusion(view, results), *sections),
        tag(
            "footer",
            tag("p", "Written by accord. This file is complete in itself: it loads nothing and sends nothing."),
        ),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{document_head(out, style)}{body}</html>\n'


def document_head(out: Path, style: str) -> Html:
    """Title, policy and style sheet; there is no script."""
    rules = (
        "default-src 'none'",
        "img-src data:",
        f"style-src '{digest(style)}'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(rules)}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{out.resolve().name} – accord compare"),
        tag("style", Html(style)),
    )


def head(out: Path, view: View, results: Results) -> Html:
    """The name of the comparison and one sentence about it."""
    source = view.text("source") or ""
    count, seeds = len(results.principles), len(results.seeds)
    lead = (
        f"{count} principle{'s' * (count != 1)} on {Path(source).name or source}, {results.amount} for each run, "
        f"{seeds} seed{'s' * (seeds != 1)}: the same encoder, data, order, views and split for all."
    )
    return tag(
        "header",
        tag("p", "accord compare", class_="kicker"),
        tag("h1", out.resolve().name),
        tag("p", lead, class_="lead"),
    )


def conclusion(view: View, results: Results) -> Html:
    """What the figures support, in words."""
    sentences = paragraph(results, shares_of(view), unlike(view))
    troubled = bool(results.failed or results.collapsed or results.open)
    small = ("Differences are", "With ", "Seeds change", "The machine")
    items = [tag("li", text, class_="small" if text.startswith(small) else None) for text in sentences]
    return tag(
        "section",
        tag("h2", "What the figures support"),
        tag("ul", *items, class_="conclusion"),
        id="verdict",
        class_="warn" if troubled else "open",
    )


def ranked(results: Results) -> list[Metric]:
    """The measures that any row has."""
    return [metric for metric in METRICS if results.values.get(metric.key)]


def main_table(results: Results) -> Html:
    """Every principle and what needs no training, by every measure."""
    rows, known = means(results), ranked(results)
    leading = {metric.key: best(results, metric.key) for metric in known if metric.better}
    lines = []
    for name in [*results.principles, *(key for key in BASELINES if key in rows)]:
        cells = [
            cell(metric, rows.get(name, {}).get(metric.key), mark(leading.get(metric.key), name)) for metric in known
        ]
        label = BASELINES[name][0] if name in BASELINES else named(name) or name
        lines.append([tag("span", label, tag("small", state) if (state := health(results, name)) else None), *cells])
    heads = ["Principle", *(metric.name for metric in known)]
    meanings = [tag("li", tag("b", metric.name), f": {metric.meaning}") for metric in known]
    return section(
        "table",
        "All figures",
        LEADS["table"],
        tag("div", table(heads, lines), class_="panel compared"),
        tag("details", tag("summary", "What the columns mean"), tag("ul", *meanings)),
    )


def mark(leading: tuple[list[str], bool] | None, name: str) -> str:
    """✓ for a winner, ≈ for those at the top that cannot be told apart."""
    if leading is None or not leading[1] or name not in leading[0]:
        return ""
    return "✓" if len(leading[0]) == 1 else "≈"


def cell(metric: Metric, value: Interval | None, sign: str = "") -> Html:
    """A mean, half its interval, and a mark."""
    if value is None:
        return tag("span", "–")
    scale, digits = {"percent": (100, 1), "fraction": (1, 3), "number": (1, 1)}[metric.form]
    half = tag("small", width) if (width := spread(value, scale=scale, digits=digits)) else None
    text = written(metric, value.mean)
    return tag("span", tag("b", f"{sign} {text}") if sign else text, half)


def health(results: Results, name: str) -> str:
    """How many runs collapsed or failed, in words."""
    found = [*results.failed.get(name, {}).items(), *results.collapsed.get(name, {}).items()]
    return ", ".join(f"{number} of {len(results.seeds)} {kind}" for kind, number in found)


def intervals(results: Results) -> Html:
    """A picture of each measure."""
    panels = [
        panel(metric.name, metric.meaning, chart)
        for metric in ranked(results)
        if (chart := dots(results, metric)) is not None
    ]
    shown = [value for key, value in BASELINES.items() if any(results.of(m.key, key) for m in METRICS)]
    return section(
        "intervals", "Means and intervals", LEADS["dots"], legend(*shown), side_by_side(*panels, style="grid")
    )


def differences(results: Results) -> Html | None:
    """Each principle against the reference."""
    if len(results.principles) < 2 or len(results.seeds) < 2:
        return None
    reference, known = results.principles[0], [metric for metric in ranked(results) if metric.better]
    found = {metric.key: against(results, metric.key, reference) for metric in known}
    lines = []
    for name in results.principles[1:]:
        cells = []
        for metric in known:
            pair = found[metric.key].get(name)
            cells.append(tag("span", "–") if pair is None else held_against(metric, pair))
        lines.append([named(name) or name, *cells])
    heads = [f"minus {named(reference)}", *(metric.name for metric in known)]
    lead = LEADS["differences"] + " p is the corrected value; differences of percentages are in points."
    return section("differences", "Differences", lead, tag("div", table(heads, lines), class_="panel compared"))


def held_against(metric: Metric, pair: Pair) -> Html:
    """A difference, half its interval, and p."""
    text, *more = re.split(r" (?=±)|, ", gap(metric, pair.difference).replace(" points", ""))
    more += [] if pair.holm is None else [f"p {pair.holm:.2g}"]
    shown = tag("b", f"● {text}") if pair.differs else text
    return tag("span", shown, *(tag("small", line) for line in more))


def speed(view: View, results: Results) -> Html | None:
    """Energy AUROC and effective rank while training, against time and steps."""
    order, panels = list(results.principles), []
    for key, title in (("energy_auroc", "Energy AUROC"), ("effective_rank", "Effective rank")):
        for axis, name in (("seconds", "seconds"), ("step", "step")):
            curves: dict[str, list[Curve]] = {}
            for run in view.views("runs"):
                log = run.view("curve")
                at, values = log.numbers(axis), log.numbers(key)
                if len(at) != len(values):
                    raise damaged("the columns of the log differ in length", log.where.rstrip("."))
                curves.setdefault(required(run, "principle"), []).append(list(zip(at, values, strict=True)))
            chart = learning(title, name, curves, order)
            if chart is not None:
                panels.append(panel(f"{title} against {axis if axis == 'seconds' else 'steps'}", None, chart))
    if not panels:
        return None
    colours = legend(*((named(name) or name, style_of(number)) for number, name in enumerate(order)))
    return section("speed", "Learning speed", LEADS["speed"], colours, side_by_side(*panels))


def energies(view: View, results: Results) -> Html | None:
    """Histograms of the energies of each principle, with the first seed."""
    panels = []
    for run in view.views("runs"):
        counts = run.view("histogram")
        if not counts or run.index("seed") != results.seeds[0]:
            continue
        name, edges = required(run, "principle"), counts.numbers("edges")
        if len(edges) < 2 or any(a >= b for a, b in pairwise(edges)):
            raise damaged("the edges do not rise", f"{counts.where}edges")
        shown = [(key, key, bin_counts(counts, key, edges)) for key in ("random", "perturbed", "matched")]
        aurocs = [run.view("metrics").number(key) for key in ("random", "nearest", "perturbed")]
        words = "AUROC " + ", ".join(
            f"{key} {fraction(value)}" for key, value in zip(("random", "nearest", "perturbed"), aurocs, strict=True)
        )
        title = named(name) or name
        panels.append(panel(title, words, histogram(f"Energies of {title}", edges, [s for s in shown if s[2]])))
    if not panels:
        return None
    colours = legend(("matched", "matched"), *((LADDER[key][0].lower(), key) for key in ("random", "perturbed")))
    return section("energy", "Energies", LEADS["energy"], colours, side_by_side(*panels, style="grid"))


def cost(view: View, results: Results) -> Html:
    """What the runs took."""
    about = {required(one, "name"): one for one in view.views("principles")}
    device = any(mean_of(view, name, "peak_device_memory") for name in results.principles)
    lines = []
    for name in results.principles:
        keys = ("parameters", "steps", "passes", "seconds", "cpu_seconds", "samples_per_second", "peak_memory")
        weights, steps, passes, seconds, cpu, rate, memory = (mean_of(view, name, key) for key in keys)
        one = about[name]
        lines.append(
            [
                tag(
                    "span", named(name), tag("small", f"{one.text('group') or ''}, {named(one.text('encoder')) or ''}")
                ),
                figure(None if weights is None else round(weights)),
                figure(None if steps is None else round(steps)),
                figure(None if passes is None else round(passes)),
                duration(seconds) or "–",
                duration(cpu) or "–",
                figure(None if rate is None else round(rate)),
                megabytes(memory),
                *([megabytes(mean_of(view, name, "peak_device_memory"))] if device else []),
            ]
        )
    heads = ["Principle", "Weights", "Steps", "Passes", "Seconds", "Processor", "Samples/s", "Peak memory"]
    heads += ["On the device"] if device else []
    return section("cost", "What it took", LEADS["cost"], tag("div", table(heads, lines), class_="panel"))


def megabytes(count: float | None) -> str:
    """Bytes as people read them."""
    return "–" if count is None else f"{count / 2**20:,.0f} MB"


def settings(view: View) -> Html:
    """The settings of each principle."""
    lines = []
    for one in view.views("principles"):
        objective, differs = (
            ", ".join(
                f"{key} {plain(value)}"
                for key, value in one.view(part).values.items()
                if key != "name" and value is not None
            )
            for part in ("objective", "differs")
        )
        lines.append([named(required(one, "name")) or "", objective, differs or "nothing", one.text("setting") or "–"])
    heads = ["Principle", "Its own settings", "Beside the principle, other than the reference", "Chosen by trials"]
    return section("settings", "Settings", LEADS["settings"], tag("div", table(heads, lines), class_="panel"))


def trials(view: View) -> Html | None:
    """Every setting that was tried."""
    lines = []
    for trial in view.views("trials"):
        value, measure = trial.number("value"), trial.text("criterion") or ""
        chosen = bool(trial.values.get("chosen"))
        outcome = trial.text("verdict") or trial.text("status") or ""
        lines.append(
            [
                named(trial.text("principle")) or "",
                trial.text("setting") or "",
                percent(value) if "probe" in measure else fraction(value),
                "" if outcome == "done" else outcome,
                "chosen" if chosen else "",
            ]
        )
    if not lines:
        return None
    measure = view.views("trials")[0].text("criterion") or ""
    heads = ["Principle", "Setting", measure[:1].upper() + measure[1:], "Outcome", ""]
    return section("trials", "Trials", LEADS["trials"], tag("div", table(heads, lines), class_="panel"))


INSIDE = re.compile(r"[\w./-]+")


def folders(out: Path, view: View, results: Results) -> dict[str, Path]:
    """The run directories of the first seed, as far as they were measured."""
    found = {}
    for run in view.views("runs"):
        folder = required(run, "folder")
        if run.index("seed") == results.seeds[0] and run.text("status") == "done" and inside(folder):
            found[required(run, "principle")] = out / folder
    return found


def inside(folder: str) -> bool:
    """Whether a name leads to somewhere below the comparison."""
    return bool(INSIDE.fullmatch(folder)) and not folder.startswith("/") and ".." not in folder.split("/")


def runs(out: Path, view: View) -> Html:
    """Every run with what came of it."""
    lines: list[Sequence[str]] = []
    for run in view.views("runs"):
        folder = required(run, "folder")
        link = join([folder])
        if inside(folder) and (out / folder / "report.html").is_file():
            link = tag("a", folder, href=f"{folder}/report.html")
        what = ", ".join(text for text in (run.text("status"), run.text("verdict"), run.text("message")) if text)
        linear, seconds = run.view("metrics").number("linear"), run.number("seconds")
        lines.append([link, what, percent(linear), duration(seconds) or "–"])
    return section(
        "runs",
        "Runs",
        LEADS["runs"],
        tag("div", table(["Run", "Outcome", "Linear probe", "Seconds"], lines), class_="panel"),
    )
