"""The head of the report: is the run healthy, what are its headline figures, and what should be looked at, in words."""

from __future__ import annotations

from typing import NamedTuple

from accord.report_charts import Html, figure, percent, tag
from accord.report_run import Run
from accord.report_sections import points, probe_value

COLLAPSES = {
    "constant": "All samples get nearly the same embedding. Raise the weight of the variance (or SIGReg) term, lower the learning rate, and check that the inputs differ.",
    "dimensional": "The embeddings use only a few of their dimensions. Raise the weight of the covariance (or SIGReg) term, use larger batches, and make the views differ more.",
    "flat energy": "The energy does not tell pairs that belong together from random ones. Make the two views share more (weaker augmentation), raise the weight of the invariance term, or train longer.",
}
WEAK_AUROC = 0.75
FEW_HELD_OUT = 100


class Figure(NamedTuple):
    """One headline figure: its name, its value, what to hold it against, and what it means."""

    name: str
    value: str
    against: str | None
    meaning: str
    share: float | None = None


def verdict(run: Run) -> Html:
    """The verdict in words, the headline figures and the warnings."""
    kind, title, text = judged(run)
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
        tag("ul", *(tag("li", line) for line in warnings(run)), class_="warnings") if warnings(run) else None,
        tag("div", *figures, class_="figures") if figures else None,
        id="verdict",
        class_=kind,
    )


def judged(run: Run) -> tuple[str, str, str]:
    """Style, title and sentence of the verdict."""
    collapse = run.evaluation.view("collapse").text("verdict")
    if not run.evaluation:
        return (
            "open",
            "Not evaluated yet",
            "This run has been trained but not tested. `accord evaluate RUN` measures it; `accord report RUN` then writes this page again with all that it found.",
        )
    if collapse:
        return (
            "bad",
            f"Collapsed: {collapse}",
            COLLAPSES.get(collapse, "The representation collapsed; see the spectrum and the energies below."),
        )
    count = len(warnings(run))
    if count:
        return "warn", "Works, with a warning" if count == 1 else f"Works, with {count} warnings", summary(run)
    return "good", "Healthy", summary(run)


def summary(run: Run) -> str:
    """What was found, in one or two sentences."""
    auroc, rank, dim = (
        energy_auroc(run),
        run.evaluation.view("collapse").number("rankme"),
        run.evaluation.view("collapse").number("dim"),
    )
    parts = []
    if auroc is not None:
        parts.append(
            f"the energy ranks a pair that belongs together below a random one {figure(100 * auroc)} times in 100"
        )
    if rank and dim:
        parts.append(f"the embeddings use about {figure(round(rank))} of their {figure(dim)} dimensions")
    gain = few_label_gain(run)
    if gain is not None:
        better = "beat" if gain > 0 else "do not beat"
        parts.append(f"with few labels the learned features {better} the raw input and its PCA ({points(gain)} points)")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else "The evaluation holds no headline figures."


def energy_auroc(run: Run) -> float | None:
    """AUROC of the energy against random mismatches."""
    return run.evaluation.view("energy").view("ladder").view("random").number("auroc")


def few_label_gain(run: Run) -> float | None:
    """Few-label score of the features minus the better of raw input and PCA."""
    view = run.evaluation.view("probes")
    learned, *others = (probe_value(view, key, "few_label")[0] for key in ("features", "pixels", "pca"))
    best = max((v for v in others if v is not None), default=None)
    return None if learned is None or best is None else learned - best


def warnings(run: Run) -> list[str]:
    """What the evaluation warned of, and what the figures themselves say."""
    found = run.evaluation.texts("warnings")
    auroc, gain, held_out = energy_auroc(run), few_label_gain(run), run.evaluation.view("data").number("held_out")
    if auroc is not None and auroc < WEAK_AUROC and not run.evaluation.view("collapse").text("verdict"):
        found.append(
            f"The energy tells matched from random pairs only weakly: AUROC {figure(auroc)}, a coin gives 0.5."
        )
    if gain is not None and gain <= 0:
        found.append(
            f"With few labels the learned features are no better than the raw input or its PCA ({points(gain)} points): train longer, or check that the views keep what matters."
        )
    if held_out is not None and held_out < FEW_HELD_OUT:
        found.append(f"Only {figure(held_out)} samples were held out: every figure here is rough.")
    return found + run.notes


def headline(run: Run) -> list[Figure]:
    """Three to five figures that tell most of the story."""
    return [one for one in (few_labels(run), separation(run), found_again(run), dimensions(run)) if one is not None]


def few_labels(run: Run) -> Figure | None:
    """The few-label probe against the raw input and PCA; the energy model earns its keep here."""
    view = run.evaluation.view("probes")
    value = probe_value(view, "features", "few_label")[0]
    if value is None:
        return None
    rivals = [
        f"{name} {percent(score)}"
        for key, name in (("pixels", "raw input"), ("pca", "PCA"))
        if (score := probe_value(view, key, "few_label")[0]) is not None
    ]
    per_class = figure(view.view("features").view("few_label").number("per_class"))
    return Figure(
        "Few-label probe",
        percent(value),
        ", ".join(rivals) or None,
        f"Held-out samples classified right by a simple classifier that saw only {per_class} labels per class.",
    )


def separation(run: Run) -> Figure | None:
    """How well the energy tells matched from random pairs."""
    auroc = energy_auroc(run)
    meaning = "How often a random pair has a higher energy than a pair that belongs together."
    return None if auroc is None else Figure("Energy AUROC", figure(auroc), "a coin gives 0.5, perfect is 1", meaning)


def found_again(run: Run) -> Figure | None:
    """How often the other view comes first."""
    view = run.evaluation.view("retrieval")
    first, candidates = view.number("recall@1"), view.number("candidates")
    if first is None:
        return None
    chance = f"by chance {percent(1 / candidates)}" if candidates else None
    return Figure(
        "Retrieval",
        percent(first),
        chance,
        f"How often the other view of a sample has the lowest energy of all {figure(candidates)} candidates.",
    )


def dimensions(run: Run) -> Figure | None:
    """The effective rank."""
    view = run.evaluation.view("collapse")
    rank, dim = view.number("rankme"), view.number("dim")
    against = f"of {figure(dim)} dimensions" if dim else None
    return (
        None
        if rank is None
        else Figure(
            "Effective rank",
            figure(rank),
            against,
            "About how many dimensions the embeddings really use. Near 1 would be a collapse.",
        )
    )
