"""The figures of a comparison: what is measured of each run, and what the seeds together say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

from accord.intervals import Difference, Interval, difference, holm, interval

ALPHA = 0.05


class Metric(NamedTuple):
    """Something measured of a run: its key, its name, where it stands in an evaluation, how it is written, and which way is better.

    form: "percent", "fraction" or "number". better: 1 where more is better, 0 where it only describes.
    """

    key: str
    name: str
    place: tuple[str, ...]
    form: str
    better: int
    meaning: str


METRICS = (
    Metric(
        "linear", "Linear probe", ("probes", "features", "linear"), "percent", 1, "classes told by a linear classifier"
    ),
    Metric(
        "few_label",
        "Few labels",
        ("probes", "features", "few_label", "mean"),
        "percent",
        1,
        "the same from ten labels of each class",
    ),
    Metric("knn", "k-NN", ("probes", "features", "knn"), "percent", 1, "classes told by the nearest neighbours"),
    Metric(
        "recall@1",
        "R@1",
        ("retrieval", "recall@1"),
        "percent",
        1,
        "the y that belongs to x has the lowest energy of all",
    ),
    Metric("recall@10", "R@10", ("retrieval", "recall@10"), "percent", 1, "it is among the ten lowest"),
    Metric(
        "random",
        "AUROC random",
        ("energy", "ladder", "random", "auroc"),
        "fraction",
        1,
        "energy of matched pairs against y of a random other sample",
    ),
    Metric(
        "nearest",
        "AUROC nearest",
        ("energy", "ladder", "nearest", "auroc"),
        "fraction",
        1,
        "against y of the sample the model finds nearest: its own neighbours, so harder for a better model",
    ),
    Metric(
        "perturbed",
        "AUROC perturbed",
        ("energy", "ladder", "perturbed", "auroc"),
        "fraction",
        1,
        "against a slightly damaged y",
    ),
    Metric("rankme", "Effective rank", ("collapse", "rankme"), "number", 0, "dimensions the embeddings use"),
)
BY_KEY = {metric.key: metric for metric in METRICS}
PROBES = ("linear", "few_label", "knn")
RETRIEVAL = ("recall@1", "recall@10")
Values = dict[str, dict[str, dict[int, float]]]
"""metric -> row -> seed -> value."""


@dataclass(frozen=True)
class Results:
    """What was measured, by row: a principle, or "untrained", "pixels", "pca".

    principles: the reference first. seeds: of the runs. values: what is there. failed: of a principle, how its runs that have no
    figures ended, and how many. collapsed: of a principle, the verdicts on runs that have figures. amount: what each run got, in
    words. open: runs that are still to come. other_pairs: principles whose pairs are not those of the reference, so that their energies
    and ranks are of other questions. fewer: principles whose retrieval was measured among fewer y than that of others, which is easier.
    held_against: the reference, if a user chose it before anything was measured.
    """

    principles: Sequence[str]
    seeds: Sequence[int]
    values: Values
    failed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    collapsed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    amount: str = ""
    open: int = 0
    other_pairs: frozenset[str] = frozenset()
    held_against: str | None = None
    fewer: frozenset[str] = frozenset()

    def of(self, metric: str, row: str) -> list[float]:
        """The values of a row, in the order of seeds."""
        return [value for _, value in sorted(self.values.get(metric, {}).get(row, {}).items())]

    def complete(self, metric: str, row: str) -> bool:
        """Whether a row can be held against others: it has a value for every seed (a mean over those that did not fail would flatter),
        and, where energies are measured, of the same pairs.
        """
        if (row in self.other_pairs and metric not in PROBES) or (row in self.fewer and metric in RETRIEVAL):
            return False
        return set(self.seeds) <= set(self.values.get(metric, {}).get(row, {}))

    def alive(self, row: str) -> bool:
        """Whether no run of a principle collapsed or failed."""
        return not self.failed.get(row) and not self.collapsed.get(row)


class Pair(NamedTuple):
    """a - b over paired seeds; `holm` is p corrected for all pairs of this measure."""

    a: str
    b: str
    difference: Difference
    holm: float | None

    @property
    def differs(self) -> bool:
        """Whether the difference stands after the correction."""
        return self.holm is not None and self.holm < ALPHA


def means(results: Results) -> dict[str, dict[str, Interval]]:
    """Mean over seeds and its interval, by row and metric."""
    rows: dict[str, dict[str, Interval]] = {}
    for metric, by_row in results.values.items():
        for row in by_row:
            if values := results.of(metric, row):
                rows.setdefault(row, {})[metric] = interval(values)
    return rows


def pairs(results: Results, metric: str) -> list[Pair]:
    """Every two principles that have a value of this measure for every seed, the better one first, in order of their p-values."""
    rows = [name for name in results.principles if results.complete(metric, name)]
    found = [_ordered(results, metric, a, b) for a, b in combinations(rows, 2)]
    corrected = holm([d.p for _, _, d in found])
    listed = [Pair(a, b, d, p) for (a, b, d), p in zip(found, corrected, strict=True)]
    return sorted(listed, key=lambda pair: 2.0 if pair.difference.p is None else pair.difference.p)


def _ordered(results: Results, metric: str, a: str, b: str) -> tuple[str, str, Difference]:
    found = difference(results.of(metric, a), results.of(metric, b))
    return (a, b, found) if found.mean >= 0 else (b, a, found._replace(mean=-found.mean))


def against(results: Results, metric: str, row: str) -> dict[str, Pair]:
    """Each principle minus `row` (a principle, or the untrained encoder), corrected for the number of principles held against it."""
    if not results.complete(metric, row):
        return {}
    rows = [name for name in results.principles if name != row and results.complete(metric, name)]
    found = [difference(results.of(metric, name), results.of(metric, row)) for name in rows]
    corrected = holm([d.p for d in found])
    return {name: Pair(name, row, d, p) for name, d, p in zip(rows, found, corrected, strict=True)}


def best(results: Results, metric: str) -> tuple[list[str], bool]:
    """The principle with the best mean and those it cannot be told from; and whether there is an interval at all.

    Only principles with a value for every seed are ranked.
    """
    rows = [name for name in results.principles if results.complete(metric, name)]
    if not rows:
        return [], False
    rows.sort(key=lambda name: -interval(results.of(metric, name)).mean)
    first = rows[0]
    beaten = {pair.b for pair in pairs(results, metric) if pair.a == first and pair.differs}
    return [first, *(name for name in rows[1:] if name not in beaten)], len(results.seeds) > 1


def tables(results: Results) -> dict[str, object]:
    """What compare.json holds of it: means, differences of every two principles, and of each to two rows."""
    ranked = [metric.key for metric in METRICS if metric.better and metric.key in results.values]
    summed = means(results)
    return {
        "means": {row: {key: value._asdict() for key, value in found.items()} for row, found in summed.items()},
        "differences": {key: [_plain(pair) for pair in pairs(results, key)] for key in ranked},
        "against_reference": {
            key: [_plain(pair) for pair in against(results, key, results.principles[0]).values()] for key in ranked
        },
        "against_untrained": {
            key: [_plain(pair) for pair in against(results, key, "untrained").values()] for key in ranked
        },
    }


def _plain(pair: Pair) -> dict[str, object]:
    return {"a": pair.a, "b": pair.b, **pair.difference._asdict(), "holm": pair.holm, "differs": pair.differs}
