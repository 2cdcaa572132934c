"""The measured parts of the report: what was trained on what, probes, energies, retrieval and the spectrum of the embeddings.

Each function takes a run and gives one section of the page, or None where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from accord.report.charts import (
    Bar,
    Html,
    bars,
    duration,
    figure,
    fraction,
    histogram,
    percent,
    points,
    spectrum_chart,
    tag,
)
from accord.report.read import Run, View, damaged
from accord.report.text import EXPLAIN, LADDER, LEADS, NAMES, NO_LABELS, PROBES, SPECTRUM

REPRESENTATIONS = (
    ("features", "learned features", "Features"),
    ("untrained", "same encoder, untrained", "Untrained"),
    ("pca", "PCA of the input", "PCA"),
    ("pixels", "raw input", "Input"),
)
"""Key in evaluation.json, words in the legend, head of the column."""


def section(key: str, title: str, lead: str | None, *content: str | None) -> Html:
    """A part of the page with an anchor, a heading and a sentence for newcomers."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *content, id=key)


def panel(title: str, explanation: str | None, *content: str | None) -> Html:
    """A figure: heading, drawing, and what it means in a line."""
    caption = tag("p", explanation, class_="explain") if explanation else None
    return tag("div", tag("h3", title), *content, caption, class_="panel")


def side_by_side(*panels: str | None, style: str = "two") -> Html:
    """Panels next to one another where there is room."""
    return tag("div", *panels, class_=style)


def legend(*entries: tuple[str, str]) -> Html:
    """Name and style of each colour of a chart."""
    return tag(
        "p", *(tag("span", tag("i", class_=f"swatch {style}"), name) for name, style in entries), class_="legend"
    )


def empty(text: str) -> Html:
    """What stands where nothing can be shown."""
    return tag("p", text, class_="empty")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table that scrolls by itself where it is too wide; the first column names the row."""
    top = tag("tr", *(tag("th", name, scope="col") for name in head))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    return tag("div", tag("table", tag("thead", top), tag("tbody", *body)), class_="scroll")


def explained(name: str, meaning: str) -> Html:
    """A row's name with what it means below."""
    return tag("span", name, tag("small", meaning))


def named(name: str | None) -> str | None:
    """The field's spelling of a principle, an encoder or a device."""
    return None if name is None else NAMES.get(name, name)


class Facts(NamedTuple):
    """What was trained on what, from the evaluation, or else from the recipe and the log."""

    source: str | None
    principle: str | None
    encoder: str | None
    steps: float | None
    seconds: float | None
    device: str | None
    detail: str | None


def facts_of(run: Run) -> Facts:
    """The facts that the head of the page tells."""
    model, recipe = run.evaluation.view("model"), run.recipe
    last = run.metrics[-1] if run.metrics else View({}, "")
    device = run.environment.text("device") or recipe.view("training").text("device") or ""
    steps, seconds = model.number("steps"), model.number("seconds")
    return Facts(
        source=run.evaluation.view("data").text("source") or recipe.view("data").text("source"),
        principle=named(model.text("principle") or recipe.view("objective").text("name")),
        encoder=named(model.text("encoder") or recipe.view("encoder").text("name")),
        steps=last.number("step") if steps is None else steps,
        seconds=last.number("seconds") if seconds is None else seconds,
        device=named(device.partition(",")[0]) or None,
        detail=device.partition(", ")[2] or run.environment.text("precision"),
    )


Fact = tuple[str, str | None, str | None]


def trained(run: Run) -> Html:
    """What was trained on what."""
    facts = [*data_facts(run), *model_facts(run)]
    entries = [
        tag("div", tag("dt", name), tag("dd", value, tag("small", note) if note else None))
        for name, value, note in facts
        if value
    ]
    return section("trained", "What was trained on what", None, tag("dl", *entries, class_="facts"))


def data_facts(run: Run) -> list[Fact]:
    """Where the samples came from and how they were used."""
    data = run.evaluation.view("data")
    count, train, held_out = (data.number(key) for key in ("samples", "train", "held_out"))
    classes, words = (
        data.texts("classes"),
        {"image": "images", "vector": "rows", "pair": "pairs", "text": "texts", "audio": "sounds"}.get(
            data.text("kind") or "", "samples"
        ),
    )
    labels = f"{figure(float(len(classes)))} classes" if classes else "none" if run.evaluation else None
    split = None if train is None or held_out is None else f"{figure(train)} + {figure(held_out)}"
    return [
        ("Source", facts_of(run).source, None),
        ("Samples", None if count is None else f"{figure(count)} {words}", shape_words(data)),
        ("Split", split, "to learn from + held out; every figure here is of held-out samples"),
        ("Tested on", data.text("test_source"), "a source of its own"),
        ("Labels", labels, "read by probes only, never by training" if classes else None),
    ]


def shape_words(data: View) -> str | None:
    """The shape of a sample in words."""
    shape = data.numbers("shape")
    if data.text("kind") == "image" and len(shape) == 3:
        colours = {1.0: "grey", 3.0: "colour"}.get(shape[0], f"{figure(shape[0])} channels")
        return f"{figure(shape[2])} × {figure(shape[1])} pixels, {colours}"
    return f"{' × '.join(figure(n) for n in shape)} numbers each" if shape else None


def model_facts(run: Run) -> list[Fact]:
    """What learned, how and for how long."""
    facts, model = facts_of(run), run.evaluation.view("model")
    weights, width, dim = (model.number(key) for key in ("parameters", "feature_dim", "dim"))
    epochs = run.metrics[-1].number("epoch") if run.metrics else None
    rates = sorted(rate for line in run.metrics if (rate := line.number("rate")) is not None)
    speed = f"{figure(round(rates[len(rates) // 2]))} samples per second" if rates else None
    sizes = f"{figure(width)} → {figure(dim)}" if width and dim else None
    return [
        ("Encoder", facts.encoder, None if weights is None else f"{figure(weights)} weights"),
        ("Features → embedding", sizes, "probes read features, the energy reads embeddings"),
        ("Principle", facts.principle, "what keeps the embeddings from collapsing"),
        (
            "Length",
            f"{figure(facts.steps)} steps" if facts.steps else None,
            f"{figure(epochs)} epochs" if epochs else None,
        ),
        ("Time", duration(facts.seconds), speed),
        ("Device", facts.device, facts.detail),
    ]


def probe_value(view: View, representation: str, probe: str) -> tuple[float | None, float | None]:
    """The score of a probe and how much it varies between draws of labels."""
    scores = view.view(representation)
    if probe != "few_label":
        return scores.number(probe), None
    return scores.view(probe).number("mean"), scores.view(probe).number("std")


def probes(run: Run) -> Html | None:
    """Features against PCA and raw input."""
    if not run.evaluation:
        return None
    view = run.evaluation.view("probes")
    if not view:
        return section("probes", "Probes", LEADS["probes"], empty(NO_LABELS))
    few, chance = view.view("features").view("few_label"), view.number("chance")
    counts = {"per_class": figure(few.number("per_class")), "draws": figure(few.number("draws"))}
    groups, rows = [], []
    shown = [row for row in REPRESENTATIONS if view.view(row[0])]
    for probe, (name, meaning) in PROBES.items():
        scores = [(key, word, *probe_value(view, key, probe)) for key, word, _ in shown]
        group = [Bar(word, key, value, spread) for key, word, value, spread in scores if value is not None]
        if group:
            groups.append((name, group))
            cells = [with_spread(value, spread) for _, _, value, spread in scores]
            rows.append([explained(name, meaning.format(**counts)), *cells, gain([value for _, _, value, _ in scores])])
    colours = [(word, key) for key, word, _ in shown]
    if chance is not None:
        colours.append((f"guessing: {percent(chance)}", "guessing"))
    drawing = bars("Probes", groups, chance=chance) if groups else None
    chart = panel("Held-out samples classified right", EXPLAIN["bars"], legend(*colours), drawing)
    numbers = panel(
        "The same in numbers", EXPLAIN["gain"], table(["Probe", *(head for _, _, head in shown), "Gain"], rows)
    )
    return section("probes", "Probes", LEADS["probes"], side_by_side(chart, numbers))


def gain(scores: Sequence[float | None]) -> str:
    """The first score minus the best of the others, in percentage points."""
    best = max((v for v in scores[1:] if v is not None), default=None)
    return "–" if scores[0] is None or best is None else points(scores[0] - best)


def with_spread(value: float | None, spread: float | None) -> Html:
    """A share, with its standard deviation where there is one."""
    return tag("span", percent(value), None if spread is None else tag("small", f"± {100 * spread:.1f}"))


def energy(run: Run) -> Html | None:
    """Histograms and figures of matched against mismatched pairs, and retrieval."""
    view = run.evaluation.view("energy")
    if not view:
        return None
    rungs, matched = view.view("ladder"), view.view("matched")
    known = [key for key in LADDER if rungs.view(key)]
    rows = [["Matched", figure(matched.number("mean")), figure(matched.number("std")), "", "", ""]]
    for key in known:
        rung = rungs.view(key)
        mean, std, gap, d_prime = (figure(rung.number(k)) for k in ("mean", "std", "gap", "d_prime"))
        rows.append([LADDER[key][0], mean, std, gap, fraction(rung.number("auroc")), d_prime])
    panels = [histogram_panel(view, key) for key in known]
    ladder = table(["Pairs", "Mean", "Std", "Gap", "AUROC", "d′"], rows)
    return section(
        "energy",
        "Energy",
        LEADS["energy"],
        side_by_side(*panels, style="grid"),
        side_by_side(panel("The ladder of mismatches", EXPLAIN["ladder"], ladder), retrieval(run)),
    )


def histogram_panel(view: View, key: str) -> Html | None:
    """Energies of matched pairs and of one kind of mismatch."""
    counts, auroc = view.view("histogram"), view.view("ladder").view(key).number("auroc")
    edges = counts.numbers("edges")
    if any(a >= b for a, b in pairwise(edges)):
        raise damaged("the edges do not rise", f"{counts.where}edges")
    matched, other = (bin_counts(counts, name, edges) for name in ("matched", key))
    if len(edges) < 2 or not matched or not other:
        return None
    name, meaning = LADDER[key]
    big = None if auroc is None else tag("p", tag("b", fraction(auroc)), " AUROC", class_="big")
    colours = legend(("matched", "matched"), (name.lower(), key))
    chart = histogram(f"Energies: {name.lower()}", edges, [("matched", "matched", matched), (name.lower(), key, other)])
    return panel(f"Matched against {name.lower()}", meaning, big, colours, chart)


def bin_counts(counts: View, key: str, edges: Sequence[float]) -> list[float]:
    """The bins of one histogram, checked against the edges."""
    values = counts.numbers(key)
    if values and len(values) != len(edges) - 1:
        raise damaged(f"{len(values)} bins for {len(edges)} edges", f"{counts.where}{key}")
    if any(v < 0 for v in values):
        raise damaged("a negative count", f"{counts.where}{key}")
    return values


def retrieval(run: Run) -> Html | None:
    """Finding the y that belongs to x by its energy."""
    view = run.evaluation.view("retrieval")
    candidates = view.number("candidates")
    if not view or not candidates or candidates < 1:
        return None
    rows = []
    for k in (1, 5, 10):
        name = "The right one is first" if k == 1 else f"among the first {k}"
        rows.append([name, percent(view.number(f"recall@{k}")), percent(min(1.0, k / candidates))])
    rows.append(["Its place, median", figure(view.number("median_rank")), figure((candidates + 1) / 2)])
    rows.append(["Mean of 1 / place", fraction(view.number("mrr")), ""])
    reverse = view.view("reverse")
    if reverse:
        rows.append(["Asked the other way round: first", percent(reverse.number("recall@1")), percent(1 / candidates)])
    if view.number("class_map") is not None:
        rows.append(["Same class early (mean average precision)", fraction(view.number("class_map")), ""])
    text = (
        f"Given x (one view, say), all {figure(candidates)} candidates for y are put in order of energy. "
        "How near the front is the one that belongs to x (the other view of the same sample)?"
    )
    return panel("Retrieval by energy", text, table(["", "Here", "By chance"], rows))


def spectrum(run: Run) -> Html | None:
    """Singular values of the embeddings, and the figures that sum them up."""
    view = run.evaluation.view("collapse")
    if not view:
        return None
    values, dim, rank = view.numbers("spectrum"), view.number("dim"), view.number("rankme")
    rows = []
    for key, (name, meaning) in SPECTRUM.items():
        value = view.number(key)
        if value is not None:
            text = percent(value) if "share" in key else figure(value)
            rows.append([explained(name, meaning), f"{text} of {figure(dim)}" if key == "rankme" and dim else text])
    chart = panel("Singular values", EXPLAIN["spectrum"], spectrum_chart(values, rank)) if values else None
    numbers = panel("In figures", None, table(["", "Value"], rows)) if rows else None
    return section("spectrum", "Spectrum of the embeddings", LEADS["spectrum"], side_by_side(chart, numbers))
