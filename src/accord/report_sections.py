"""The parts of the report below the verdict: each takes a run and gives one section of the page, or None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from accord.report_charts import (
    Bar,
    Html,
    Series,
    bars,
    figure,
    histogram,
    line_chart,
    percent,
    spectrum_chart,
    tag,
)
from accord.report_run import Run, View, damaged

NAMES = {
    "vicreg": "VICReg",
    "barlow_twins": "Barlow Twins",
    "sigreg": "SIGReg",
    "visreg": "VISReg",
    "patch": "patch network",
    "mlp": "MLP",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "vit_tiny": "ViT tiny",
    "vit_small": "ViT small",
    "vit_base": "ViT base",
}
MAX_POINTS = 240


def section(key: str, title: str, lead: str | None, *content: str | None) -> Html:
    """A part of the page with an anchor, a heading and one sentence for newcomers."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *content, id=key)


def panel(title: str, explanation: str | None, *content: str | None, wide: bool = False) -> Html:
    """A figure: heading, drawing, and what it means in a line."""
    caption = tag("p", explanation, class_="explain") if explanation else None
    return tag("div", tag("h3", title), *content, caption, class_="panel wide" if wide else "panel")


def legend(*entries: tuple[str, str]) -> Html:
    """Name and style of each colour of a chart."""
    return tag(
        "p", *(tag("span", tag("i", class_=f"swatch {style}"), name) for name, style in entries), class_="legend"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table that scrolls by itself where it is too wide; the first column names the row."""
    top = tag("tr", *(tag("th", name, scope="col") for name in head))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    return tag("div", tag("table", tag("thead", top), tag("tbody", *body)), class_="scroll")


def duration(seconds: float | None) -> str | None:
    """Seconds as people say them."""
    if seconds is None:
        return None
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def named(name: str | None) -> str | None:
    """The field's spelling of a principle or an encoder."""
    return None if name is None else NAMES.get(name, name)


class Facts(NamedTuple):
    """What was trained on what, from the evaluation, or else from the recipe and the log."""

    source: str | None
    principle: str | None
    encoder: str | None
    steps: float | None
    seconds: float | None
    device: str | None


def facts_of(run: Run) -> Facts:
    """Reads the facts that the head of the page tells."""
    model, last = run.evaluation.view("model"), run.metrics[-1] if run.metrics else View({}, "")
    steps, seconds = model.number("steps"), model.number("seconds")
    return Facts(
        source=run.evaluation.view("data").text("source") or run.recipe.view("data").text("source"),
        principle=named(model.text("principle") or run.recipe.view("objective").text("name")),
        encoder=named(model.text("encoder") or run.recipe.view("encoder").text("name")),
        steps=last.number("step") if steps is None else steps,
        seconds=last.number("seconds") if seconds is None else seconds,
        device=run.environment.text("device") or run.recipe.view("training").text("device"),
    )


def trained(run: Run) -> Html:
    """What was trained on what."""
    facts, data, model = facts_of(run), run.evaluation.view("data"), run.evaluation.view("model")
    shape = [figure(n) for n in data.numbers("shape")]
    kind = data.text("kind")
    classes, split = data.texts("classes"), (data.number("train"), data.number("held_out"))
    epochs = run.metrics[-1].number("epoch") if run.metrics else None
    rates = [rate for line in run.metrics if (rate := line.number("rate")) is not None]
    rows: list[tuple[str, str | None, str | None]] = [
        ("Source", facts.source, "where the samples came from"),
        ("Samples", counted(data.number("samples"), kind), " × ".join(shape) + " each" if shape else None),
        (
            "Split",
            f"{figure(split[0])} to learn from" if split[0] else None,
            f"{figure(split[1])} held out, used below" if split[1] else None,
        ),
        ("Tested on", data.text("test_source"), "a source of its own"),
        (
            "Labels",
            f"{len(classes)} classes" if classes else "none" if run.evaluation else None,
            "read by the probes only, never by training",
        ),
        (
            "Encoder",
            facts.encoder,
            f"{figure(model.number('parameters'))} weights" if model.number("parameters") else None,
        ),
        (
            "Features → embedding",
            f"{figure(model.number('feature_dim'))} → {figure(model.number('dim'))}" if model.number("dim") else None,
            "probes read features, the energy reads embeddings",
        ),
        ("Principle", facts.principle, "what keeps the embeddings from collapsing"),
        ("Length", f"{figure(facts.steps)} steps" if facts.steps else None, f"{epochs:.3g} epochs" if epochs else None),
        ("Time", duration(facts.seconds), f"{figure(sorted(rates)[len(rates) // 2], 2)} samples/s" if rates else None),
        ("Device", facts.device, run.environment.text("precision")),
    ]
    entries = [
        tag("div", tag("dt", name), tag("dd", value, tag("small", note) if note else None))
        for name, value, note in rows
        if value
    ]
    return section("trained", "What was trained on what", None, tag("dl", *entries, class_="facts"))


def counted(count: float | None, kind: str | None) -> str | None:
    """A count with what is counted."""
    return (
        None
        if count is None
        else f"{figure(count)} {'images' if kind == 'image' else 'rows' if kind == 'vector' else 'samples'}"
    )


REPRESENTATIONS = (
    ("features", "learned features", "features"),
    ("pca", "PCA of the input", "pca"),
    ("pixels", "raw input", "pixels"),
)
PROBES = (
    ("few_label", "Few labels", "logistic regression on {per_class} labelled samples per class, mean of {draws} draws"),
    ("linear", "Linear probe", "logistic regression on all labels of the training split"),
    ("knn", "Nearest neighbours", "vote of the most similar training samples"),
)


def probe_value(probes: View, representation: str, probe: str) -> tuple[float | None, float | None]:
    """The score of a probe and how much it varies between draws of labels."""
    scores = probes.view(representation)
    if probe == "few_label":
        few = scores.view("few_label")
        return few.number("mean"), few.number("std")
    return scores.number(probe), None


def probes(run: Run) -> Html | None:
    """Features against PCA and raw input."""
    view = run.evaluation.view("probes")
    if not run.evaluation:
        return None
    lead = "A probe is a simple classifier trained on frozen features. If it does better on the features than on the input itself, the encoder has made something easier to read."
    if not view:
        return section(
            "probes",
            "Probes",
            lead,
            tag(
                "p",
                "This data has no labels, so there is nothing to probe. Everything below needs none.",
                class_="empty",
            ),
        )
    few = view.view("features").view("few_label")
    counts = {"per_class": figure(few.number("per_class")), "draws": figure(few.number("draws"))}
    groups, rows = [], []
    for probe, name, meaning in PROBES:
        scores = {key: probe_value(view, key, probe) for key, _, _ in REPRESENTATIONS}
        group = [
            Bar(word, style, value, spread)
            for key, word, style in REPRESENTATIONS
            for value, spread in [scores[key]]
            if value is not None
        ]
        if not group:
            continue
        groups.append((name, group))
        learned, others = scores["features"][0], [scores[key][0] for key in ("pca", "pixels")]
        best = max((v for v in others if v is not None), default=None)
        gain = "–" if learned is None or best is None else points(learned - best)
        rows.append(
            [
                tag("span", name, tag("small", meaning.format(**counts))),
                *(with_spread(*scores[key]) for key, _, _ in REPRESENTATIONS),
                gain,
            ]
        )
    chart = bars("Probes", groups, chance=view.number("chance")) if groups else None
    return section(
        "probes",
        "Probes",
        lead,
        tag(
            "div",
            panel(
                "Held-out samples classified right",
                "Longer is better. The dashed line is what guessing the commonest class reaches; whiskers are one standard deviation over draws of labels.",
                legend(*((name, style) for _, name, style in REPRESENTATIONS)),
                chart,
            ),
            panel(
                "The same in numbers",
                "“Gain” is learned features minus the better of the other two, in percentage points.",
                table(["Probe", "Features", "PCA", "Input", "Gain"], rows),
            ),
            class_="two",
        ),
    )


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\u2212")


def with_spread(value: float | None, spread: float | None) -> str:
    """A share, with its standard deviation where there is one."""
    return percent(value) if spread is None else f"{percent(value)} ± {100 * spread:.1f}"


class Curve(NamedTuple):
    """One chart of the training log: its heading, what it tells, and the columns it draws."""

    title: str
    explanation: str
    columns: Sequence[tuple[str, str, str]]


CURVES = (
    Curve(
        "Loss",
        "What training makes small. Its height means little; that it falls and settles does.",
        [("loss", "loss", "s1")],
    ),
    Curve(
        "Effective rank",
        "About how many dimensions the embeddings use. A fall towards 1 is a collapse.",
        [("effective_rank", "effective rank", "s1")],
    ),
    Curve(
        "Energy of pairs",
        "Matched pairs should lie below mismatched ones, and the gap should open.",
        [("energy_matched", "matched", "matched"), ("energy_mismatched", "mismatched", "random")],
    ),
    Curve(
        "Energy AUROC",
        "How often a mismatched pair has the higher energy: 1 always, 0.5 no better than a coin.",
        [("energy_auroc", "AUROC", "s1")],
    ),
    Curve(
        "Spread of the embeddings",
        "Standard deviation over samples, per dimension. Near 0 all samples look alike to the model.",
        [("std_mean", "mean", "s1"), ("std_min", "least", "s2")],
    ),
    Curve("Learning rate", "The size of a step: it warms up, then falls.", [("lr", "learning rate", "s1")]),
    Curve("Speed", "Samples per second of training.", [("rate", "samples/s", "s1")]),
    Curve(
        "Waiting for data",
        "Share of the time in which training stood still for want of data.",
        [("waiting", "waiting", "s1")],
    ),
)


def thin(lines: Sequence[View]) -> list[View]:
    """At most 240 lines of the log, evenly spread, the first and the last among them."""
    count = len(lines)
    if count <= MAX_POINTS:
        return list(lines)
    return [lines[round(i * (count - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def training(run: Run) -> tuple[Html, list[dict[str, object]]]:
    """Training curves, and the values behind them for the read-out under the pointer."""
    if not run.metrics:
        return section(
            "training",
            "Training",
            None,
            tag("p", "There is no training log (metrics.jsonl) in this run.", class_="empty"),
        ), []
    events = [(line.number("step") or 0, text) for line in run.metrics if (text := line.text("event"))]
    lines = thin(run.metrics)
    steps = [line.number("step") or 0 for line in lines]
    terms = list(dict.fromkeys(name for line in lines for name in line.view("terms").values))
    charts: list[tuple[str, str, list[Series]]] = []
    for curve in CURVES:
        series = [Series(name, style, [line.number(key) for line in lines]) for key, name, style in curve.columns]
        charts.append(
            (curve.title, curve.explanation, [one for one in series if any(v is not None for v in one.values)])
        )
    parts = [
        Series(name, f"s{1 + i % 6}", [line.view("terms").number(name) for line in lines])
        for i, name in enumerate(terms)
    ]
    charts.insert(1, ("Terms of the loss", "The parts it is made of, before they are weighted.", parts))
    panels, data = [], []
    for title, explanation, series in charts:
        if not series:
            continue
        key = f"chart{len(data)}"
        names = legend(*((one.name, one.style) for one in series)) if len(series) > 1 else None
        panels.append(panel(title, explanation, names, line_chart(title, steps, series, events=events, key=key)))
        data.append(
            {"id": key, "x": steps, "names": [one.name for one in series], "y": [rounded(one.values) for one in series]}
        )
    listed = (
        tag(
            "ul",
            *(tag("li", tag("b", f"step {figure(step)}"), " ", text) for step, text in events[:50]),
            class_="events",
        )
        if events
        else None
    )
    said = tag("p", "Dashed upright lines mark what happened on the way:", class_="explain") if events else None
    lead = "How the run went, step by step. Point at a curve to read its values."
    return section("training", "Training", lead, tag("div", *panels, class_="grid"), said, listed), data


def rounded(values: Sequence[float | None]) -> list[float | None]:
    """Values with five significant digits, to keep the page small."""
    return [None if v is None else float(f"{v:.5g}") for v in values]


LADDER: Mapping[str, tuple[str, str]] = {
    "random": ("Random", "the partner comes from another sample, drawn by chance: easy to tell"),
    "nearest": ("Nearest", "the partner comes from the most similar other sample: hard to tell"),
    "perturbed": ("Perturbed", "the right partner, damaged a little: the hardest"),
}


def energy(run: Run) -> Html | None:
    """Histograms and figures of matched against mismatched pairs."""
    view = run.evaluation.view("energy")
    if not view:
        return None
    matched, rungs, counts = view.view("matched"), view.view("ladder"), view.view("histogram")
    edges = counts.numbers("edges")
    if any(a >= b for a, b in pairwise(edges)):
        raise damaged("the edges do not rise", f"{counts.where}edges")
    known = [key for key in (*LADDER, *(k for k in rungs.values if k not in LADDER)) if rungs.view(key)]
    panels, rows = [], []
    rows.append(["Matched", figure(matched.number("mean")), figure(matched.number("std")), "", "", ""])
    for key in known:
        rung = rungs.view(key)
        name, meaning = LADDER.get(key, (key, None))
        rows.append([name, *(figure(rung.number(k)) for k in ("mean", "std", "gap", "auroc", "d_prime"))])
        bins = [
            ("matched", "matched", bin_counts(counts, "matched", edges)),
            (name.lower(), key if key in LADDER else "random", bin_counts(counts, key, edges)),
        ]
        if len(edges) > 1 and all(n for _, _, n in bins):
            auroc = rung.number("auroc")
            big = tag("p", tag("b", figure(auroc)), " AUROC", class_="big") if auroc is not None else None
            panels.append(
                panel(
                    f"Matched against {name.lower()}",
                    f"{meaning}." if meaning else None,
                    big,
                    histogram(f"Energies, matched and {name.lower()}", edges, bins, x_name="energy"),
                )
            )
    lead = "The energy of a pair is low where the two belong together and high where they do not. The less the two hills overlap, the better the model tells them apart. All pairs are held out."
    shown = [("matched pairs", "matched"), *((f"{LADDER[k][0].lower()} mismatches", k) for k in known if k in LADDER)]
    return section(
        "energy",
        "Energy",
        lead,
        legend(*shown),
        tag("div", *panels, class_="grid"),
        tag(
            "div",
            panel(
                "The ladder of mismatches",
                "Gap: mean energy above matched pairs. AUROC: share of comparisons in which the mismatch has the higher energy. d′: the gap in standard deviations.",
                table(["Pairs", "Mean", "Std", "Gap", "AUROC", "d′"], rows),
            ),
            retrieval(run),
            class_="two",
        ),
    )


def bin_counts(counts: View, key: str, edges: Sequence[float]) -> list[float]:
    """The bins of one histogram, checked against the edges."""
    values = counts.numbers(key)
    if values and len(values) != len(edges) - 1:
        raise damaged(f"{len(values)} bins for {len(edges)} edges", f"{counts.where}{key}")
    if any(v < 0 for v in values):
        raise damaged("a negative count", f"{counts.where}{key}")
    return values


def retrieval(run: Run) -> Html | None:
    """Finding the other view of a sample by its energy."""
    view = run.evaluation.view("retrieval")
    if not view:
        return None
    candidates = view.number("candidates")
    rows = [
        [
            f"Right one among the first {k}",
            percent(view.number(f"recall@{k}")),
            percent(min(1, k / candidates)) if candidates else "–",
        ]
        for k in (1, 5, 10)
    ]
    rows.append(
        [
            "Median place of the right one",
            figure(view.number("median_rank")),
            figure((candidates + 1) / 2) if candidates else "–",
        ]
    )
    rows.append(["Mean of 1 / place", figure(view.number("mrr")), ""])
    text = f"Given one view, all {figure(candidates)} candidates are put in order of energy. How near the front is the other view of the same sample?"
    return panel("Retrieval by energy", text, table(["Figure", "Here", "By chance"], rows))


def spectrum(run: Run) -> Html | None:
    """Singular values of the embeddings, and the figures that sum them up."""
    view = run.evaluation.view("collapse")
    if not view:
        return None
    values, dim, rank = view.numbers("spectrum"), view.number("dim"), view.number("rankme")
    chart = None
    if values:
        chart = panel(
            "Singular values",
            "How much of the embedding lies along each of its directions, greatest first. A flat line uses all of them, a cliff only those before it; the dashed line is the effective rank.",
            spectrum_chart(values, rank),
        )
    rows: list[tuple[str, str, str]] = [
        (
            "Effective rank (RankMe)",
            f"{figure(rank)} of {figure(dim)}" if dim else figure(rank),
            "how many dimensions are really used; more is richer, 1 is a collapse",
        ),
        (
            "LiDAR",
            figure(view.number("lidar")),
            "how many directions tell samples apart better than views of one sample",
        ),
        (
            "α-ReQ",
            figure(view.number("alpha_req")),
            "how fast the spectrum falls; about 1 is good, far above is too steep",
        ),
        ("Standard deviation, mean", figure(view.number("std_mean")), "spread of one dimension over samples"),
        ("Standard deviation, least", figure(view.number("std_min")), "of the dimension that varies least"),
        (
            "Dimensions that hardly vary",
            percent(view.number("std_share_below_0.1")),
            "share with a standard deviation below 0.1",
        ),
        (
            "Correlation of dimensions",
            figure(view.number("off_diagonal_correlation")),
            "mean size over pairs; 0 each says something new, 1 all say the same",
        ),
    ]
    body = [[tag("span", name, tag("small", meaning)), value] for name, value, meaning in rows if value != "–"]
    lead = "If the embeddings collapsed on to few directions, or one point, they would say little about the samples. These figures would show it."
    return section(
        "spectrum",
        "Spectrum of the embeddings",
        lead,
        tag("div", chart, panel("Figures", None, table(["Figure", "Value"], body)), class_="two"),
    )
