"""A comparison read from its compare.json, every value checked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import fmean

from accord.errors import UsageError
from accord.report.compare_numbers import METRICS, Results
from accord.report.read import View, damaged, read_json
from accord.report.sections import named

STATE = "compare.json"
UNFINISHED = ("open", "interrupted", "trained")


def read_comparison(out: Path) -> View:
    """The content of compare.json.

    Raises:
        UsageError: if there is none.
        ArtifactError: if it is damaged, with the key.
        EnvironmentFault: if it cannot be read.
    """
    view = read_json(out, STATE)
    if not view:
        raise UsageError(
            "there is no comparison here: compare.json is missing",
            where=str(out),
            help="accord compare SOURCE --principles A,B --out FOLDER makes one",
            code="E230",
        )
    return view


def is_comparison(out: Path) -> bool:
    """Whether a folder holds a comparison."""
    return (out / STATE).is_file()


def results_of(view: View) -> Results:
    """The figures of a comparison as tables.

    Raises:
        ArtifactError: for a value of the wrong type.
    """
    runs, baselines = view.views("runs"), view.views("baselines")
    names = [required(one, "name") for one in view.views("principles")]
    values: dict[str, dict[str, dict[int, float]]] = {}
    rows = [(required(run, "principle"), run) for run in runs] + [(required(b, "name"), b) for b in baselines]
    for name, row in rows:
        for metric in METRICS:
            value = row.view("metrics").number(metric.key)
            if value is not None:
                values.setdefault(metric.key, {}).setdefault(name, {})[row.index("seed")] = value
    failed: dict[str, Counter[str]] = {}
    collapsed: dict[str, Counter[str]] = {}
    for run in runs:
        name, status, verdict = required(run, "principle"), required(run, "status"), run.text("verdict")
        if status not in ("done", *UNFINISHED):
            failed.setdefault(name, Counter())[status] += 1
        if verdict:
            collapsed.setdefault(name, Counter())[verdict] += 1
    return Results(
        names,
        view.indices("seeds"),
        values,
        failed,
        collapsed,
        view.text("amount") or "",
        sum(required(run, "status") in UNFINISHED for run in runs),
        other_pairs(view),
        view.text("held_against"),
        fewer(view),
    )


def required(view: View, key: str) -> str:
    """A string that must be there."""
    found = view.text(key)
    if found is None:
        raise damaged("missing", f"{view.where}{key}", "run the same comparison again: it writes the file anew")
    return found


def shares_of(view: View) -> dict[str, float]:
    """Of each principle, processor seconds by seconds of its runs."""
    found: dict[str, list[float]] = {}
    for run in view.views("runs"):
        cpu, seconds = run.number("cpu_seconds"), run.number("seconds")
        if cpu is not None and seconds:
            found.setdefault(required(run, "principle"), []).append(cpu / seconds)
    return {name: fmean(values) for name, values in found.items()}


def mean_of(view: View, principle: str, key: str) -> float | None:
    """The mean of something over the runs of a principle that have it."""
    values = [run.number(key) for run in view.views("runs") if run.text("principle") == principle]
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def other_pairs(view: View) -> frozenset[str]:
    """Principles whose pairs are not those of the reference."""
    return frozenset(required(one, "name") for one in view.views("principles") if differs(one, "pairing."))


def fewer(view: View) -> frozenset[str]:
    """Principles whose retrieval was measured among fewer y than that of others."""
    counts = {required(run, "principle"): run.number("candidates") for run in view.views("runs")}
    most = max((count for count in counts.values() if count is not None), default=0)
    return frozenset(name for name, count in counts.items() if count is not None and count < most)


def differs(principle: View, part: str) -> bool:
    """Whether a part of the recipe of a principle is not that of the reference."""
    return any(key.startswith(part) for key in principle.view("differs").values)


def unlike(view: View) -> list[str]:
    """Sentences about principles with another encoder or other pairs than the reference: what is compared then is more than a principle."""
    said, principles = [], view.views("principles")
    for one in principles:
        encoder, pairs = differs(one, "encoder."), differs(one, "pairing.")
        what = [f"another encoder ({named(one.text('encoder'))})"] * encoder + ["other pairs"] * pairs
        if what:
            rest = " Its energies and retrieval are of those pairs and are not ranked." if pairs else ""
            said.append(
                f"{named(required(one, 'name'))} uses {' and '.join(what)} than {named(required(principles[0], 'name'))}: what differs is "
                f"not the principle alone.{rest}"
            )
    few = [named(name) or name for name in sorted(fewer(view))]
    if few:
        said.append(
            f"Retrieval by {', '.join(few)} was measured among fewer y, for each pair is dear there, and is not ranked."
        )
    return said
