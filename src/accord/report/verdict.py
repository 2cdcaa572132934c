"""The head of the report: is the run healthy, what are its headline figures, and what should be looked at, in words."""

from __future__ import annotations

from typing import NamedTuple

from accord.report.charts import Html, figure, fraction, join, percent, points, tag
from accord.report.latent import warnings as about_z
from accord.report.read import Run
from accord.report.sections import probe_value
from accord.report.text import COLLAPSED, COLLAPSES, HEADLINE, NOT_EVALUATED, NOTHING_MEASURED, REMEDIES, WARNINGS

WEAK_AUROC = 0.75
FEW_HELD_OUT = 100


class Figure(NamedTuple):
    """One headline figure: its name, its value, what to hold it against, and what it means."""

    name: str
    value: str
    against: str | None
    meaning: str


def verdict(run: Run) -> Html:
    """The verdict in words, the headline figures and the warnings."""
    kind, title, text = judged(run)
    listed = warnings(run)
    figures = [
        tag(
            "article",
            tag("h3", one.name),
            tag("p", one.value, class_="value"),
            tag("p", one.against, class_="against") if one.against else None,
            tag("p", one.meaning, class_="explain"),
        )
        for one in headline(run)
    ]
    return tag(
        "section",
        tag("h2", title),
        tag("p", text, class_="words"),
        tag("ul", *(tag("li", line) for line in listed), class_="warnings") if listed else None,
        tag("div", *figures, class_="figures") if figures else None,
        id="verdict",
        class_=kind,
    )


def with_code(text: str) -> Html:
    """Our own `text` with what stands between backticks as code; never for text that comes from elsewhere."""
    parts = text.split("`")
    return join(tag("code", part) if i % 2 else part for i, part in enumerate(parts))


def judged(run: Run) -> tuple[str, str, str]:
    """Style, title and sentence of the verdict."""
    if not run.evaluation:
        return "open", "Not evaluated yet", join([with_code(NOT_EVALUATED), last_event(run)])
    collapse, count = run.evaluation.view("collapse").text("verdict"), len(warnings(run))
    if collapse:
        remedy = run.evaluation.view("collapse").text("remedy") or REMEDIES.get(collapse)
        advice = f" What helps: {remedy}." if remedy else ""
        return "bad", f"Collapsed: {collapse}", COLLAPSES.get(collapse, COLLAPSED) + advice
    if count:
        return "warn", "Works, with a warning" if count == 1 else f"Works, with {count} warnings", summary(run)
    return "good", "Healthy", summary(run)


def last_event(run: Run) -> str:
    """What the log says last, where it ends with an event: the reason why a run stopped."""
    event = run.metrics[-1].text("event") if run.metrics else None
    return f" Its log ends with: {event}." if event else ""


def summary(run: Run) -> str:
    """What was found, in a sentence."""
    collapse, auroc, gain = run.evaluation.view("collapse"), energy_auroc(run), few_label_gain(run)
    rank, dim = collapse.number("rankme"), collapse.number("dim")
    parts = []
    if auroc is not None:
        parts.append(
            f"in {percent(auroc)} of comparisons a pair that belongs together has less energy than a random one"
        )
    if rank and dim:
        parts.append(f"the embeddings use about {figure(round(rank))} of their {figure(dim)} dimensions")
    if gain is not None:
        verb = "beat" if gain > 0 else "do not beat"
        parts.append(f"with few labels the learned features {verb} all they are compared with ({points(gain)} points)")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else NOTHING_MEASURED


def energy_auroc(run: Run) -> float | None:
    """AUROC of the energy against random mismatches."""
    return run.evaluation.view("energy").view("ladder").view("random").number("auroc")


RIVALS = {"pixels": "raw input", "pca": "PCA", "untrained": "untrained"}
"""What learned features are compared with: key in evaluation.json, words."""


RIVAL_WORDS = {
    "pixels": "the raw input",
    "pca": "the PCA of the input",
    "untrained": "the same encoder before training",
}


def strongest_rival(run: Run) -> str:
    """The rival that does best with few labels, by its key."""
    view = run.evaluation.view("probes")
    return max(RIVALS, key=lambda key: probe_value(view, key, "few_label")[0] or 0.0)


def few_label_gain(run: Run) -> float | None:
    """Few-label score of the features minus the best of the rivals."""
    view = run.evaluation.view("probes")
    learned, *others = (probe_value(view, key, "few_label")[0] for key in ("features", *RIVALS))
    best = max((v for v in others if v is not None), default=None)
    return None if learned is None or best is None else learned - best


def warnings(run: Run) -> list[str]:
    """What the evaluation warned of, and what the figures themselves say."""
    found, collapse = run.evaluation.texts("warnings"), run.evaluation.view("collapse").text("verdict")
    auroc, gain, held_out = energy_auroc(run), few_label_gain(run), run.evaluation.view("data").number("held_out")
    if auroc is not None and auroc < WEAK_AUROC and not collapse:
        found.append(WARNINGS["weak energy"].format(auroc=fraction(auroc)))
    if gain is not None and gain <= 0:
        found.append(WARNINGS["no gain"].format(rival=RIVAL_WORDS[strongest_rival(run)], points=points(gain)))
    if held_out is not None and held_out < FEW_HELD_OUT:
        found.append(WARNINGS["few held out"].format(count=figure(held_out)))
    return found + about_z(run, found) + run.notes


def headline(run: Run) -> list[Figure]:
    """The figures that tell most of the story, as far as they were measured."""
    return [one for one in (few_labels(run), separation(run), found_again(run), dimensions(run)) if one is not None]


def few_labels(run: Run) -> Figure | None:
    """The few-label probe, against its rivals."""
    view = run.evaluation.view("probes")
    value, *rivals = (probe_value(view, key, "few_label")[0] for key in ("features", *RIVALS))
    if value is None:
        return None
    against = [f"{name} {percent(v)}" for name, v in zip(RIVALS.values(), rivals, strict=True) if v is not None]
    per_class = figure(view.view("features").view("few_label").number("per_class"))
    meaning = HEADLINE["few labels"].format(per_class=per_class)
    return Figure("Few-label probe", percent(value), ", ".join(against) or None, meaning)


def separation(run: Run) -> Figure | None:
    """How well the energy tells matched from random pairs."""
    auroc = energy_auroc(run)
    if auroc is None:
        return None
    return Figure("Energy AUROC", fraction(auroc), "a coin gives 0.5, perfect is 1", HEADLINE["auroc"])


def found_again(run: Run) -> Figure | None:
    """How often the right y comes first."""
    view = run.evaluation.view("retrieval")
    first, candidates = view.number("recall@1"), view.number("candidates")
    if first is None:
        return None
    chance = f"by chance {percent(1 / candidates)}" if candidates else None
    return Figure("Retrieval", percent(first), chance, HEADLINE["retrieval"].format(candidates=figure(candidates)))


def dimensions(run: Run) -> Figure | None:
    """The effective rank."""
    view = run.evaluation.view("collapse")
    rank, dim = view.number("rankme"), view.number("dim")
    if rank is None:
        return None
    return Figure("Effective rank", figure(rank), f"of {figure(dim)} dimensions" if dim else None, HEADLINE["rank"])
