r"""How far a row is from those that are known, beside how far these are from each other there, on the scale that fits the columns.

With d(r) the mean distance to the k nearest known rows (a known row is not its own neighbour), the energy of a row in one form of the
columns (`Forms`) is

$E_f(r) = \log(d(r) + c) - \beta \sum_i w_i \log(d(i) + c), \quad w_i \propto 1 - \lVert r - i \rVert / \lVert r - n \rVert$

over the `AROUND` nearest known rows i, the last of them n: a row is strange at a distance that would be usual in a sparse region if the
rows around it lie dense. $\beta = 0$ is the distance alone, $\beta = 1$ a local outlier factor (Breunig et al. 2000). Weights that end
in 0 let no tie decide which rows count.

What is far depends on the scale. Without anomalies to choose it by, mixed rows stand in for them: known rows, a share `MIXED_SHARE` of
whose columns is taken from other known rows. One by one the columns are the same, so that only what they have to do with each other tells
mixed rows from known ones. With $A_f$ the probability (AUROC) that a mixed row is farther from the known rows than one of these is from
the others, form f has a weight in proportion to $(A_f / (1 - A_f))^8$: the better form alone where the two differ much, else both.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

STORED = 20_000
"""At most so many rows are kept to be compared with."""
NORMAL = 2_000
"""Fitted rows whose energies say what is usual."""
AROUND = 20
"""Known rows around a row that say how dense it is there."""
LOCAL = 0.3
"""What the logarithm of their distances counts for, beside that of the row."""
FLOOR = 0.5
"""Added to distances, in medians of those that are not 0: repetitions must not make the logarithm boundless."""
MIXED = 1_000
"""So many mixed rows at least."""
MIXED_SHARE = 0.2
"""Probability of a column to be taken from another row."""
SHARPNESS = 8
"""Power of the odds by which forms are weighed."""


class Usual:
    """What is usual of the parts of an energy, (parts, n): called with others, the mean over parts, in standard deviations from it.

    Args:
        energies: of known rows.
        weights: of the parts, with sum 1; all alike by default.
    """

    def __init__(self, energies: Float[np.ndarray, "parts n"], weights: Float[np.ndarray, " parts"] | None = None):
        self.weights = np.full(len(energies), 1 / len(energies)) if weights is None else weights
        self.mean, self.std = energies.mean(1, keepdims=True), _positive(energies.std(1, keepdims=True))
        together = self._standardised(energies)
        self.centre, self.width = together.mean(), _positive(together.std())

    def __call__(self, energies: Float[np.ndarray, "parts m"]) -> Float[np.ndarray, " m"]:
        """Standardised energies of m rows."""
        standardised: np.ndarray = (self._standardised(energies) - self.centre) / self.width
        return standardised

    def _standardised(self, energies: np.ndarray) -> np.ndarray:
        mean: np.ndarray = np.average((energies - self.mean) / self.std, axis=0, weights=self.weights)
        return mean


class Near:
    """The known rows in one form, and how far each is from the others.

    Args:
        rows: (n, columns), two or more; of more than `STORED` the first.
        neighbors: how many known rows a distance is the mean over; all others, if there are fewer.
    """

    def __init__(self, rows: Float[np.ndarray, "n columns"], neighbors: int):
        rows = rows[:STORED]
        self.neighbors = min(neighbors, len(rows) - 1)
        self._known = NearestNeighbors(n_neighbors=min(max(AROUND, self.neighbors), len(rows) - 1)).fit(rows)
        distances, places = self._others(rows, np.arange(len(rows)))
        self._own = self._mean(distances)
        self._floor = FLOOR * float(np.median(self._own[self._own > 0])) if self._own.any() else 1.0
        self._far = np.log(self._own + self._floor)
        self.own = self._energy(distances, places)
        """Energies of the known rows."""

    def __call__(self, rows: Float[np.ndarray, "m columns"]) -> Float[np.ndarray, " m"]:
        """Energies of other rows."""
        return self._energy(*self._known.kneighbors(rows))

    def told(self, mixed: Float[np.ndarray, "m columns"], origin: np.ndarray) -> float:
        """The AUROC of distances of mixed rows, made of the rows `origin`, against those of the first `NORMAL` known rows.

        In float32, so that a row of which nothing was exchanged is a tie whatever the rounding.
        """
        far, own = self._mean(self._others(mixed, origin)[0]), self._own[:NORMAL]
        kind = np.repeat([0, 1], [len(own), len(far)])
        return float(roc_auc_score(kind, np.concatenate([own, far]).astype(np.float32)))

    def _energy(self, distances: np.ndarray, places: np.ndarray) -> np.ndarray:
        last = distances[:, -1:]
        weights = 1 - distances / np.where(last > 0, last, 1.0) + 1e-6
        around = np.average(self._far[places], axis=1, weights=weights)
        energy: np.ndarray = np.log(self._mean(distances) + self._floor) - LOCAL * around
        return energy

    def _mean(self, distances: np.ndarray) -> np.ndarray:
        mean: np.ndarray = distances[:, : self.neighbors].mean(1)
        return mean

    def _others(self, rows: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances to the nearest known rows but the one each row was made of, and which these are, nearest first."""
        distances, places = self._known.kneighbors(rows, self._known.n_neighbors + 1)
        distances = np.where(places == origin[:, None], np.inf, distances)
        order = np.argsort(distances, axis=1, kind="stable")[:, :-1]
        return np.take_along_axis(distances, order, 1), np.take_along_axis(places, order, 1)


class Memory:
    """The energy of rows beside those that are known, the weighted mean over the forms, standardised.

    Args:
        forms: the known rows, (n, columns) in each form.
        neighbors: how many known rows a row is compared with; all others, if there are fewer.
        seed: of the mixed rows.

    Attributes:
        weights: of the forms, with sum 1.
        kept: the numbers of the forms that have at least half the weight of the first.
    """

    def __init__(self, forms: tuple[np.ndarray, ...], neighbors: int, seed: int):
        self._near = [Near(form, neighbors) for form in forms]
        rows = np.arange(min(len(forms[0]), NORMAL))
        origin = np.tile(rows, math.ceil(MIXED / len(rows)))
        mixed = (_mixed(form[origin], seed) for form in forms)
        told = [near.told(rows, origin) for near, rows in zip(self._near, mixed, strict=True)]
        self.weights = _weights(np.array(told))
        self.kept = tuple(np.flatnonzero(self.weights >= 0.5 * self.weights.max()).tolist())
        self._usual = Usual(np.stack([near.own[:NORMAL] for near in self._near]), self.weights)

    def __call__(self, forms: tuple[np.ndarray, ...]) -> Float[np.ndarray, " m"]:
        """The energy of m rows, standardised."""
        return self._usual(np.stack([near(form) for near, form in zip(self._near, forms, strict=True)]))


def _weights(told: Float[np.ndarray, " forms"]) -> Float[np.ndarray, " forms"]:
    """In proportion to a power of the odds, bounded where all mixed rows are told."""
    told = np.clip(told, 1e-3, 1 - 1e-3)
    odds = (told / (1 - told)) ** SHARPNESS
    weights: np.ndarray = odds / odds.sum()
    return weights


def _mixed(rows: Float[np.ndarray, "n columns"], seed: int) -> Float[np.ndarray, "n columns"]:
    """Rows some of whose columns are those of other rows; the same of the same table in every form."""
    random = np.random.default_rng(seed)
    return np.where(random.random(rows.shape) < MIXED_SHARE, random.permuted(rows, axis=0), rows)


def _positive(std: np.ndarray) -> np.ndarray:
    """Where all energies are equal nothing is divided."""
    return np.where(std > 1e-12, std, 1.0)
