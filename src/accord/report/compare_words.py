"""What the figures of a comparison support, and what they do not, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accord.intervals import Difference, interval, spread
from accord.report.charts import figure, fraction, minus, percent
from accord.report.compare_numbers import (
    BY_KEY,
    Metric,
    Pair,
    Results,
    against,
    best,
    pairs,
)
from accord.report.sections import named

HEADLINES = ("linear", "recall@1", "random")
"""What is put into words, in this order, as far as it was measured."""
PHRASES = {
    "linear": "on the linear probe",
    "recall@1": "at finding the right y first",
    "random": "at telling matched from random pairs by the energy (AUROC)",
}
FEW_SEEDS = 5
UNEQUAL = 1.2
"""Shares of the processor that differ by this factor are told."""


def listed(names: Sequence[str], last: str = "and") -> str:
    """A, B and C, as the field spells them."""
    words = [named(name) or name for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


MANY = 7


def some(names: Sequence[str]) -> str:
    """The names, or how many others there are where they are many."""
    return listed(names) if len(names) <= MANY else f"{len(names)} others"


def value(metric: Metric, number: float) -> str:
    """A mean."""
    return {"percent": percent, "fraction": fraction, "number": figure}[metric.form](number)


def gap(metric: Metric, found: Difference) -> str:
    """A difference and half its interval, "2.1 ± 0.8 points", or how many pairs it is of, "2.1 points, n = 2"."""
    scale, digits, unit = {"percent": (100, 1, " points"), "fraction": (1, 3, ""), "number": (1, 1, "")}[metric.form]
    half = spread(found, scale=scale, digits=digits)
    width, count = (f" {half}", "") if half.startswith("±") else ("", f", {half}" * bool(half))
    return minus(f"{scale * found.mean:.{digits}f}{width}{unit}{count}")


def paragraph(results: Results, shares: Mapping[str, float] | None = None, unlike: Sequence[str] = ()) -> list[str]:
    """Sentences that follow from the figures, and what they leave open.

    Args:
        results: all figures.
        shares: of each principle, CPU seconds by seconds of its runs.
        unlike: what else is not equal, in sentences.
    """
    ranked = [BY_KEY[key] for key in HEADLINES if best(results, key)[0]]
    said = [opening(results)]
    if results.open:
        runs = "run is" if results.open == 1 else "runs are"
        said.append(f"{results.open} {runs} still to come, so all of this is provisional.")
    said += [*unlike, *troubles(results)]
    if not ranked:
        return [*said, "No principle has figures for every seed, so none can be held against another."]
    if len(results.seeds) == 1:
        said += ["One seed has no interval: which differences are chance cannot be told from these figures."]
        return [*said, *(order(results, metric) for metric in ranked), *baselines(results)]
    for metric in ranked:
        said += [standing(results, metric), *versus(results, metric)]
    return [*said, *baselines(results), *caveats(results, shares or {})]


def opening(results: Results) -> str:
    """What was compared."""
    count, seeds = len(results.principles), len(results.seeds)
    names = f" ({listed(results.principles)})" if count <= MANY else ""
    return (
        f"On these data, with {results.amount} for each run and {seeds} seed{'s' * (seeds != 1)} for each of "
        f"{count} principle{'s' * (count != 1)}{names}:"
    )


def troubles(results: Results) -> list[str]:
    """Runs that failed or collapsed."""
    said, count = [], len(results.seeds)
    for name in results.principles:
        failed, collapsed = results.failed.get(name, {}), results.collapsed.get(name, {})
        word = named(name)
        if failed:
            how = ", ".join(f"{number} {kind}" for kind, number in failed.items())
            said.append(f"{word} failed in {sum(failed.values())} of {count} runs ({how}), so it is not ranked.")
        if collapsed:
            kinds = ", ".join(collapsed)
            said.append(f"{word} collapsed in {sum(collapsed.values())} of {count} runs ({kinds}).")
    if said and not any(results.alive(name) for name in results.principles):
        said.append(
            "No principle came through without a collapse or a failure: the settings do not suit these data, and a ranking of what "
            "is left says little."
        )
    return said


def rows_of(results: Results, metric: Metric) -> list[tuple[str, float]]:
    """Principles with a value for every seed and their means, the best first."""
    found = [
        (name, interval(results.of(metric.key, name)).mean)
        for name in results.principles
        if results.complete(metric.key, name)
    ]
    return sorted(found, key=lambda row: -row[1])


def order(results: Results, metric: Metric) -> str:
    """The figures of one seed; of many principles, the best."""
    rows = [f"{named(name)} {value(metric, mean)}" for name, mean in rows_of(results, metric)]
    return (
        f"{metric.name}, in order: {', '.join(rows[:4])}{f', and {len(rows) - 4} more below' if len(rows) > 4 else ''}."
    )


def standing(results: Results, metric: Metric) -> str:
    """Who is better than whom by one measure, as far as the intervals support it."""
    rows, found = rows_of(results, metric), pairs(results, metric.key)
    (first, mean), phrase = rows[0], PHRASES[metric.key]
    leader = f"{named(first)}{_although(results, first)}"
    stands = [pair for pair in found if pair.differs]
    if len(rows) == 1:
        return f"{leader} alone has figures {phrase}: {value(metric, mean)}."
    if not stands:
        together = "both principles" if len(rows) == 2 else f"the {len(rows)} principles"
        first_pair = f" (difference {gap(metric, found[0].difference)})" if len(rows) == 2 else ""
        means = f"means from {value(metric, rows[-1][1])} to {value(metric, mean)}"
        return f"{together[0].upper()}{together[1:]} cannot be told apart {phrase}{first_pair}; {means}."
    beaten = [pair for pair in stands if pair.a == first]
    level = [name for name, _ in rows[1:] if name not in {pair.b for pair in beaten}]
    if not level:
        closest = min(beaten, key=lambda pair: pair.difference.mean)
        if len(beaten) == 1:
            return (
                f"{leader} is better than {named(closest.b)} {phrase} (difference {gap(metric, closest.difference)})."
            )
        behind = f"{named(closest.b)}, is behind by {gap(metric, closest.difference)}"
        return f"{leader} is better than each of the others {phrase} ({value(metric, mean)}; the closest, {behind})."
    return (
        f"{leader} has the highest mean {phrase} ({value(metric, mean)}), but {some(level)} cannot be told from it; "
        + _rest(metric, beaten or stands)
    )


def versus(results: Results, metric: Metric) -> list[str]:
    """Each principle against a reference that was chosen beforehand: that takes fewer tests than every two."""
    found = {} if results.held_against is None else against(results, metric.key, results.held_against)
    if len(found) < 2:
        return []
    better = [name for name, pair in found.items() if pair.differs and pair.difference.mean > 0]
    worse = [name for name, pair in found.items() if pair.differs and pair.difference.mean < 0]
    level = [name for name in found if name not in better + worse]
    parts = [
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} {word}"
        for names, word in ((better, "better"), (worse, "worse"))
        if names
    ]
    told = " and ".join(parts)
    rest = f"{some(level)} cannot be told from it" if level else ""
    text = "; ".join(part for part in (told, rest) if part)
    return [
        f"Against {named(results.held_against)} alone, corrected for {len(found)} principles, {PHRASES[metric.key]}: {text}."
    ]


def _although(results: Results, name: str) -> str:
    kinds = results.collapsed.get(name)
    if not kinds:
        return ""
    some = "all" if sum(kinds.values()) == len(results.seeds) else "some"
    return f", {some} of whose runs collapsed ({', '.join(kinds)}),"


def _rest(metric: Metric, stands: Sequence[Pair]) -> str:
    """The differences that stand, of at most three in full."""
    shown = [f"{named(pair.a)} is better than {named(pair.b)} ({gap(metric, pair.difference)})" for pair in stands[:3]]
    more = f", and {len(stands) - 3} more differences stand" if len(stands) > 3 else ""
    return ", ".join(shown) + more + "."


def baselines(results: Results) -> list[str]:
    """What needs no training at all, against the best that was trained."""
    said = []
    for key in HEADLINES:
        metric, untrained = BY_KEY[key], results.of(key, "untrained")
        if not untrained or not rows_of(results, metric):
            continue
        said.append(_against_untrained(results, metric, interval(untrained).mean))
    rows = rows_of(results, BY_KEY["linear"])
    dull = {name: results.of("linear", name) for name in ("pixels", "pca")}
    best_dull = max((values[0], name) for name, values in dull.items() if values) if any(dull.values()) else None
    if rows and best_dull is not None:
        mean, name = best_dull
        word = {"pixels": "the raw input", "pca": "the principal components of the input"}[name]
        than = (
            "more than the mean of any principle"
            if mean >= rows[0][1]
            else f"{named(rows[0][0])} has {percent(rows[0][1])}"
        )
        said.append(f"A linear probe on {word} reaches {percent(mean)} without any training; {than}.")
    return said


def _against_untrained(results: Results, metric: Metric, mean: float) -> str:
    """Which principles are better than the same encoder before training."""
    phrase = PHRASES[metric.key]
    start = f"The untrained encoder already reaches {value(metric, mean)} {phrase}"
    found = against(results, metric.key, "untrained")
    above = [name for name, pair in found.items() if pair.differs and pair.difference.mean > 0]
    below = [name for name, pair in found.items() if pair.differs and pair.difference.mean < 0]
    if len(results.seeds) == 1 or not found:
        return f"{start}."
    if len(above) == len(found):
        text = (
            "every principle is above it by more than chance"
            if len(above) > 1
            else f"{listed(above)} is above it by more than chance"
        )
    elif above:
        text = (
            f"of the principles only {listed(above)} {'is' if len(above) == 1 else 'are'} above it by more than chance"
        )
    else:
        text = "no principle is above it by more than chance"
    worse = f", and {listed(below)} {'is' if len(below) == 1 else 'are'} below it" if below else ""
    return f"{start}; {text}{worse}."


def caveats(results: Results, shares: Mapping[str, float]) -> list[str]:
    """How the words above were come by, and what they do not cover."""
    count, seeds = len(results.principles), len(results.seeds)
    tests = count * (count - 1) // 2
    said = [
        "Differences are paired over seeds, each with its own 95 % interval (Student's t); one counts as a difference only if it stands at "
        f"5 % after Holm's correction for {'the one pair' if tests == 1 else f'all {tests} pairs'} of a measure. The measures are not "
        "corrected for one another."
    ]
    if seeds < FEW_SEEDS:
        said.append(f"With {seeds} seeds small differences go unseen: not told apart does not mean equal.")
    said.append(
        "Seeds change the initial weights, the order and the views, not which samples are held out: the intervals say nothing of "
        "other data or of other settings."
    )
    known = {name: share for name, share in shares.items() if share > 0}
    if len(known) > 1 and max(known.values()) > UNEQUAL * min(known.values()):
        least, most = min(known, key=lambda n: known[n]), max(known, key=lambda n: known[n])
        said.append(
            f"The machine did not give all runs the same: {known[least]:.2f} seconds of processor time a second to {named(least)}, "
            f"{known[most]:.2f} to {named(most)}; where seconds are equal, compare with --equal steps or passes as well."
        )
    return said
