r"""How far a row is from those that are known, in the forms of the columns in which these have most to do with each other.

What is far depends on the scale (`Forms`). Without anomalies to choose it by, mixed rows stand in for them: known rows, a share
`MIXED_SHARE` of whose columns is taken from other known rows. One by one the columns are the same, so that only what they have to do with
each other tells mixed rows from known ones. Let $A_f$ be the probability (AUROC) that a mixed row is farther from the known rows than one
of these is from the others, in form f. Kept are the forms with

$A_f \ge A - \tfrac12 \sqrt{A (1 - A) / n}, \quad A = \max_f A_f$:

of many rows one form as a rule, of few all that half a standard error does not tell apart.
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
MIXED = 400
"""So many mixed rows at least."""
MIXED_SHARE = 0.3
"""Probability of a column to be taken from another row."""


class Usual:
    """What is usual of the parts of an energy, (parts, n): called with others, the mean over parts, in standard deviations from it."""

    def __init__(self, energies: Float[np.ndarray, "parts n"]):
        self.mean, self.std = energies.mean(1, keepdims=True), _positive(energies.std(1, keepdims=True))
        together = self._standardised(energies).mean(0)
        self.centre, self.width = together.mean(), _positive(together.std())

    def __call__(self, energies: Float[np.ndarray, "parts m"]) -> Float[np.ndarray, " m"]:
        """Standardised energies of m rows."""
        standardised: np.ndarray = (self._standardised(energies).mean(0) - self.centre) / self.width
        return standardised

    def _standardised(self, energies: np.ndarray) -> np.ndarray:
        standardised: np.ndarray = (energies - self.mean) / self.std
        return standardised


class Memory:
    """The mean distance to the nearest known rows, the mean over the forms that are kept, standardised.

    Args:
        forms: the known rows, (n, columns) in each form.
        neighbors: how many known rows a row is compared with; all others, if there are fewer.
        seed: of the mixed rows.

    Attributes:
        kept: the numbers of the forms that are kept. Called with rows in these.
    """

    def __init__(self, forms: tuple[np.ndarray, ...], neighbors: int, seed: int):
        near = min(neighbors, min(len(forms[0]), STORED) - 1)
        known = [NearestNeighbors(n_neighbors=near).fit(form[:STORED]) for form in forms]
        rows = np.arange(min(len(forms[0]), NORMAL))
        origin = np.tile(rows, math.ceil(MIXED / len(rows)))
        own = np.stack([_others(k, form[rows], rows) for k, form in zip(known, forms, strict=True)])
        mixed = [_mixed(form[origin], seed) for form in forms]
        far = np.stack([_others(k, form, origin) for k, form in zip(known, mixed, strict=True)])
        self.kept = _kept(own, far)
        self._known = [known[i] for i in self.kept]
        self._usual = Usual(own[list(self.kept)])

    def __call__(self, forms: tuple[np.ndarray, ...]) -> Float[np.ndarray, " m"]:
        """The energy of m rows, standardised."""
        near = [known.kneighbors(form)[0].mean(1) for known, form in zip(self._known, forms, strict=True)]
        return self._usual(np.stack(near))


def _kept(own: Float[np.ndarray, "forms n"], far: Float[np.ndarray, "forms m"]) -> tuple[int, ...]:
    """The forms in which distances of mixed rows are best told from those of known ones."""
    kind = np.repeat([0, 1], [own.shape[1], far.shape[1]])
    told = np.array([roc_auc_score(kind, np.concatenate(pair)) for pair in zip(own, far, strict=True)])
    best = told.max()
    error = math.sqrt(best * (1 - best) / own.shape[1])
    return tuple(np.flatnonzero(told >= best - 0.5 * error).tolist())


def _mixed(rows: Float[np.ndarray, "n columns"], seed: int) -> Float[np.ndarray, "n columns"]:
    """Rows some of whose columns are those of other rows; the same of the same table in every form."""
    random = np.random.default_rng(seed)
    return np.where(random.random(rows.shape) < MIXED_SHARE, random.permuted(rows, axis=0), rows)


def _others(known: NearestNeighbors, rows: np.ndarray, origin: np.ndarray) -> Float[np.ndarray, " n"]:
    """The mean distance to the nearest known rows but the one each row was made of."""
    distances, places = known.kneighbors(rows, known.n_neighbors + 1)
    distances = np.sort(np.where(places == origin[:, None], np.inf, distances), axis=1)
    mean: np.ndarray = distances[:, :-1].mean(1)
    return mean


def _positive(std: np.ndarray) -> np.ndarray:
    """Where all energies are equal nothing is divided."""
    return np.where(std > 1e-12, std, 1.0)
