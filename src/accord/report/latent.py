"""What z is, what it tells, whether it cheats, and the several predictions it makes of one x."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from accord.report.charts import Html, clip, figure, percent, tag
from accord.report.latent_charts import WIDE, Curve, curve_chart, usage_chart
from accord.report.latent_text import CHEATING, FINDERS, KINDS, LEAD, PANELS, PREDICTIONS
from accord.report.pictures import thumb
from accord.report.read import Run, Sprite, View, damaged
from accord.report.sections import Fact, legend, panel, section, side_by_side, table

MAX_BLOCKS, MAX_SAMPLES, MAX_HYPOTHESES, MAX_NEIGHBOURS = 12, 12, 16, 3
FEW = 5
"""So many predictions have room for larger pictures."""
LITTLE = 0.05
"""A rise of the energy below this share of the greatest of the rises counts as none."""


def latent(run: Run) -> Html | None:
    """The section about z, None for a model without."""
    view = run.evaluation.view("latent")
    if not view:
        return None
    entries = [
        tag("div", tag("dt", name), tag("dd", value, tag("small", note) if note else None))
        for name, value, note in facts(view)
        if value
    ]
    first = [part for part in (cheating(view), wells(view)) if part is not None]
    used, curves = usage(view), capacity(view)
    several = len(view.view("information").items("usage")) > 1
    second = curves if several or used is None else [used, *curves]
    return section(
        "latent",
        "z: what x cannot tell about y",
        LEAD,
        tag("dl", *entries, class_="facts") if entries else None,
        verdicts(view),
        side_by_side(*first) if first else None,
        tag("div", used, class_="wide") if several else None,
        side_by_side(*second, style="grid") if second else None,
    )


def verdicts(view: View) -> Html | None:
    """What is wrong with z, by name."""
    lines = [
        tag("li", tag("b", one.text("kind") or ""), ": ", one.text("explanation") or "", remedy(one))
        for one in view.views("verdicts")
    ]
    return tag("ul", *lines, class_="warnings") if lines else None


def remedy(verdict: View) -> str:
    """What helps, as a sentence."""
    text = verdict.text("remedy")
    return f". What helps: {text}." if text else "."


def warnings(run: Run, known: Sequence[str]) -> list[str]:
    """The verdicts on z as warnings of the whole report, except those the evaluation has warned of already."""
    found = []
    for one in run.evaluation.view("latent").views("verdicts"):
        explanation = one.text("explanation") or ""
        if not any(explanation and explanation in text for text in known):
            found.append(f"Latent ({one.text('kind') or 'unnamed'}): {explanation}{remedy(one)}")
    return found


def facts(view: View) -> list[Fact]:
    """What z is and how much it says."""
    information, gaps = view.view("information"), view.view("gaps")
    name, finder = view.text("name"), view.text("minimizer")
    kind, meaning = KINDS.get(plain(name), (name, None))
    capacity, dim = view.number("capacity"), view.number("dim")
    told = information.number("mutual")
    told = information.number("kl") if told is None else told
    way, how = FINDERS.get(plain(finder), (finder, None))
    missed = [f"{word} {figure(value)}" for key, word in GAPS.items() if (value := gaps.number(key))]
    return [
        ("Kind", kind, meaning),
        ("Width", figure(dim) if dim is not None else None, "numbers"),
        (
            "Room",
            nats(capacity) if capacity is not None else "no hard limit",
            values(capacity) or "its price limits it",
        ),
        ("Used", nats(told) if told is not None else None, "what z tells about y that x does not; an estimate"),
        ("Price paid", nats(information.number("price")) if priced(information) else None, "mean of R(z), in nats"),
        ("Found by", way, how),
        ("Missed energy", ", ".join(missed) or None, "how far the z that is found lies above the best there is"),
    ]


GAPS = {"optimisation": "by search", "amortisation": "by network"}


def plain(name: str | None) -> str:
    """A name without what differs between spellings: LowDimensional, low_dimensional."""
    return (name or "").replace("_", "").lower()


def priced(information: View) -> bool:
    """Whether z costs anything."""
    return bool(information.number("price"))


def nats(value: float | None) -> str:
    """An amount of information."""
    return "–" if value is None else f"{figure(value)} nats"


def values(capacity: float | None) -> str | None:
    """How many equally likely values an amount of information tells apart."""
    if capacity is None:
        return None
    if capacity > math.log(1e6):
        return f"2 to the power of {figure(round(capacity / math.log(2)))} values"
    return f"{figure(float(f'{math.exp(capacity):.3g}'))} values"


def cheating(view: View) -> Html | None:
    """The energy as it is, and after z or x have been tampered with: each time it should rise."""
    means = view.view("free_energy")
    found = {key: means.number(key) for key in CHEATING}
    honest = found["inferred"]
    known = [value for value in found.values() if value is not None]
    if honest is None or len(known) < 2:
        return None
    most = max(known) - honest
    rows: list[list[str]] = []
    for key, (name, meaning, fine, wrong) in CHEATING.items():
        value = found[key]
        if value is None:
            continue
        rose = value - honest > LITTLE * most and most > 0
        verdict = tag(
            "span", tag("b", "✓ " if rose else "! "), fine if rose else wrong, class_="good" if rose else "warn"
        )
        label = tag("span", name, tag("small", meaning))
        rows.append([label, figure(value), "" if key == "inferred" else verdict])
    return panel(
        "Does z cheat?", PANELS["cheating"], tag("div", table(["", "Energy", "What follows"], rows), class_="cheating")
    )


def usage(view: View) -> Html | None:
    """How often each code is the inferred one, block by block."""
    information = view.view("information")
    perplexity = information.numbers("perplexity")
    blocks = [
        View({"usage": one}, information.where).numbers("usage") for one in information.items("usage")[:MAX_BLOCKS]
    ]
    blocks = [shares for shares in blocks if shares]
    if any(share < 0 for shares in blocks for share in shares):
        raise damaged("a negative share", f"{information.where}usage")
    if not blocks:
        return None
    charts = []
    for number, shares in enumerate(blocks):
        used = f"{figure(perplexity[number])} of {len(shares)}" if number < len(perplexity) else f"{len(shares)} codes"
        name = f"Block {number}: {used}" if len(blocks) > 1 else f"As if {used} codes were in equal use"
        charts.append(tag("figure", tag("p", name, class_="big"), usage_chart(name, shares, small=len(blocks) > 1)))
    rest = len(information.items("usage")) - len(blocks)
    more = f" {rest:,} further blocks are not shown." if rest > 0 else ""
    grid = tag("div", *charts, class_="blocks" if len(charts) > 1 else None)
    return panel("How often each code is used", PANELS["usage"] + more, grid)


def wells(view: View) -> Html | None:
    """The energy on the straight line between two predictions of one x."""
    line = view.view("wells")
    t, hard, soft = line.numbers("t"), line.numbers("energy"), line.numbers("soft")
    if not t or not hard:
        return None
    if len(hard) != len(t) or len(soft) not in (0, len(t)) or len(set(t)) < 2:
        raise damaged("t, energy and soft differ in length", line.where.rstrip("."))
    curves = [Curve("lowest energy over z", "s1", hard)]
    if soft:
        curves.append(Curve("soft minimum", "s2", soft))
    marks = [(0.0, "the one prediction"), (1.0, "the other")]
    colours = legend(*((one.name, one.style) for one in curves))
    chart = curve_chart(
        "Energy wells", t, curves, x_name="from the one prediction to the other", marks=marks, frame=WIDE
    )
    key = line.text("key")
    return panel(
        "Two wells and the hill between", PANELS["wells"] + (f" Sample: {clip(key)}." if key else ""), colours, chart
    )


def capacity(view: View) -> list[Html]:
    """Energy and separation as ever more codes are allowed."""
    points = view.views("capacity_curve")
    codes = [point.number("codes") or 0.0 for point in points]
    if len(points) < 2:
        return []
    if any(a >= b for a, b in pairwise(codes)) or codes[0] < 1:
        raise damaged("the numbers of codes do not rise from 1", f"{view.where}capacity_curve")
    parts = []
    for key, title in (("free_energy", "Energy"), ("auroc", "AUROC")):
        line = [point.number(key) for point in points]
        if any(value is not None for value in line):
            name = {"free_energy": "energy of matched pairs", "auroc": "AUROC against random pairs"}[key]
            chart = curve_chart(
                f"{title} against the number of codes",
                codes,
                [Curve(name, CURVES[key], line)],
                x_name="codes allowed",
                log=True,
            )
            parts.append(panel(f"{title}, if only the most used codes are allowed", PANELS[key], chart))
    return parts


CURVES = {"free_energy": "s1", "auroc": "s3"}


class Seen(NamedTuple):
    """A prediction as it is shown."""

    view: View
    number: int
    nearest: bool


def hypotheses(run: Run) -> Html | None:
    """Some held-out samples: x, the truth, and what the model holds possible."""
    samples = run.evaluation.view("latent").views("hypotheses")[:MAX_SAMPLES]
    rows = [row for one in samples if (row := (pictured if run.sprite else written)(run.sprite, one)) is not None]
    if not rows:
        return None
    lead = PREDICTIONS["pictures"] if run.sprite else PREDICTIONS["written"]
    return section("hypotheses", "Several predictions at once", lead, tag("div", *rows, class_="prospects"))


def seen(sample: View) -> list[Seen]:
    """The predictions of a sample, and which of them came true."""
    nearest = sample.index("nearest")
    return [Seen(one, i, i == nearest) for i, one in enumerate(sample.views("predictions")[:MAX_HYPOTHESES])]


def pictured(sprite: Sprite | None, sample: View) -> Html | None:
    """A sample and its predictions as pictures in a row."""
    assert sprite is not None
    found, key = seen(sample), sample.text("key") or ""
    if not found:
        return None
    known = [
        tag("figure", thumb(sprite, sample.index(side, sprite.total), f"{key}, {word}"), tag("figcaption", word))
        for side, word in (("x", "given"), ("y", "truth"))
    ]
    others = [tag("figure", *prediction(sprite, one), class_="true" if one.nearest else None) for one in found]
    size = "prospect few" if len(others) <= FEW else "prospect"
    return tag("div", tag("div", *known, class_="known"), tag("div", *others, class_="possible"), class_=size)


def prediction(sprite: Sprite, one: Seen) -> list[Html]:
    """The real y's nearest to a prediction: the first large, two more small; and its probability."""
    places, keys = one.view.indices("neighbours", sprite.total)[:MAX_NEIGHBOURS], one.view.texts("keys")
    names = [clip(keys[i]) if i < len(keys) else f"real y {i + 1}" for i in range(len(places))]
    probability, energy = one.view.number("probability"), one.view.number("energy")
    title = f"prediction {one.number + 1}, energy {figure(energy)}: {names[0] if names else 'nothing near'}"
    first = thumb(sprite, places[0] if places else -1, title)
    small = [thumb(sprite, place, name) for place, name in zip(places[1:], names[1:], strict=True)]
    caption = tag("figcaption", tag("b", f"{'✓ ' if one.nearest else ''}{rough(probability)}"))
    return [part for part in (first, caption, tag("div", *small, class_="near") if small else None) if part is not None]


def rough(probability: float | None) -> str:
    """A probability in few characters."""
    if probability is None:
        return "–"
    if 0 < probability < 0.001:
        return "< 0.1\u202f%"
    return percent(probability) if 0 < probability < 0.0095 else f"{100 * probability:.0f}\u202f%"


def written(sprite: Sprite | None, sample: View) -> Html | None:
    """A sample and its predictions in figures, for data without pictures."""
    rows = []
    for one in seen(sample):
        view = one.view
        near = view.texts("keys")[:MAX_NEIGHBOURS]
        rows.append(
            [
                f"✓ {one.number + 1}" if one.nearest else f"{one.number + 1}",
                figure(view.number("energy")),
                rough(view.number("probability")),
                tag("span", ", ".join(clip(key) for key in near) or "–"),
                fraction_or_none(view.numbers("distance")),
            ]
        )
    if not rows:
        return None
    head = ["Prediction", "Energy", "Probability", "Nearest real y's", "Distance"]
    return panel(sample.text("key") or "", None, table(head, rows))


def fraction_or_none(distances: Sequence[float]) -> str:
    """The least distance."""
    return figure(distances[0]) if distances else "–"
