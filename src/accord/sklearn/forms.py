"""The numbers of a table in two forms, because what is far away is a matter of the scale one looks at."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from accord.sklearn.rows import Scale

QUANTILES = 4096
"""Ranks are those among at most so many quantiles of a column."""


class Forms:
    r"""Each column twice: standardised, and as the normal score of its rank.

    $v = (x - \mu)/\sigma$, and $\Phi^{-1}(\mathrm{rank}(x)/(n + 1))$ with ranks among the fitted rows, ties in the middle (van der Waerden
    1952), standardised again. Standardised numbers tell how far out a row is, ranks treat every column alike whatever its distribution.

    Args:
        rows: (n, columns), finite; means, deviations and ranks are theirs.
    """

    def __init__(self, rows: Float[np.ndarray, "n columns"]):
        self.plain = Scale(rows)
        values = self.plain(rows).numpy()
        self.sorted = np.sort(values, axis=0)[
            np.linspace(0, len(rows) - 1, min(len(rows), QUANTILES)).round().astype(int)
        ]
        self.ranked = Scale(self._scores(values))

    def __call__(self, rows: Float[np.ndarray, "n columns"]) -> tuple[np.ndarray, np.ndarray]:
        """Both forms, (n, columns) each."""
        values = self.plain(rows).numpy()
        return values, self.ranked(self._scores(values)).numpy()

    def _scores(self, values: np.ndarray) -> np.ndarray:
        found = np.empty_like(values)
        for j, column in enumerate(self.sorted.T):
            below, upto = (np.searchsorted(column, values[:, j], side) for side in ("left", "right"))
            found[:, j] = (below + upto + 1) / (2 * (len(column) + 1))
        scores: np.ndarray = torch.special.ndtri(torch.from_numpy(found)).numpy()
        return scores
