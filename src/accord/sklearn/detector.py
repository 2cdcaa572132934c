"""Rows that are not in accord with those a table is made of, as an outlier detector of scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from accord.data.pair import Pair
from accord.data.random import Draws
from accord.errors import UsageError
from accord.evaluate.calibrate import Calibration, conformal_rank
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import MLPPredictor
from accord.objective.loss import Objective, Terms
from accord.objective.principles import vicreg
from accord.sklearn.forms import Forms
from accord.sklearn.memory import NORMAL, Memory, Usual
from accord.sklearn.rows import perceptron
from accord.sklearn.training import train

SHARES = (0.25, 0.5, 0.75)
"""Of the columns, hidden by one mask after the other."""
PARTS = 0.15
"""Weight of the energy of parts, which is learned; the rest is that of the memory."""
ROUNDING = 1e-6
"""In standard deviations of the energy: what the threshold is raised by, for the row it came from must not depend on rounding."""
BLOCK = 8_192
"""Rows that are scored together, to bound memory."""


class EnergyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    r"""The energy of a row: how little its parts are in accord with each other, and the row with the rows that are known.

    $E(r) = 0.15\,\tilde E_\text{parts} + 0.85\,\tilde E_\text{memory}$; a tilde stands for: minus the mean over fitted rows, by their
    standard deviation.

    - parts: some columns are hidden. A joint embedding predicts the embedding of the hidden part y from that of the visible part x; its
      energy is $\lVert s_y - \mathrm{Pred}(s_x) \rVert$, the mean over fixed masks, a tilde on each. There are two such models, each
      trained on half of the fitted rows: a new row gets the mean of both, and what is usual is told by the energies of each on the other
      half, for on rows it was trained on they are too low;
    - memory: nothing is hidden, and z is which known row this is a repetition of: the logarithm of the mean over the `neighbors` lowest
      energies $\lVert r - r_z \rVert$, less 0.3 times what it is for the known rows around r (`accord.sklearn.memory`).

    Both look at the columns in two forms (`Forms`), because what is far depends on the scale. The memory weighs them by how well distances
    tell known rows from rows with a fifth of the columns exchanged; the parts are those of forms with at least half of the greatest weight.

    Some of the rows given to `fit` are held out. From their energies, with which nothing else was done, comes the threshold
    (split-conformal): of new rows like them, a share of at most `false_alarms` is called outliers.

    Args:
        dim: width of the embeddings.
        hidden: widths of the hidden layers of both encoders.
        masks: how many masks.
        neighbors: how many known rows a row is compared with.
        principle: makes the terms of the objective: `accord.vicreg`, `accord.sigreg`, or a `functools.partial` of one.
        held_out: share of the rows for the threshold.
        false_alarms: share of rows in accord that may be called outliers, if `contamination` is "auto".
        contamination: "auto", or the share of outliers among the rows given to `fit`: the threshold is then the quantile of their energies.
        steps: of training, of both models together, whatever the number of rows.
        batch_size: rows in a step.
        learning_rate: of AdamW.
        random_state: of the rows held out, masks, initial weights and order.
        verbose: 1 prints the loss ten times.

    Attributes:
        offset_: minus the threshold (raised by 1e-6); `decision_function` is `score_samples` minus it.
        models_: the two `JointEmbedding`.

    Prediction of hidden columns: Shenkar, Wolf 2022 (ICL, contrastive), Yin et al. 2024 (MCM). Distance to neighbours: Ramaswamy, Rastogi,
    Shim 2000; Angiulli, Pizzuti 2002; beside that of their neighbours: Breunig et al. 2000. Calibration: see `accord.evaluate.calibrate`.
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        hidden: Sequence[int] = (128,),
        masks: int = 12,
        neighbors: int = 3,
        principle: Callable[[], Terms] = vicreg,
        held_out: float = 0.1,
        false_alarms: float = 0.05,
        contamination: float | str = "auto",
        steps: int = 400,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.dim = dim
        self.hidden = hidden
        self.masks = masks
        self.neighbors = neighbors
        self.principle = principle
        self.held_out = held_out
        self.false_alarms = false_alarms
        self.contamination = contamination
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learns what rows are like, and the threshold from those held out; y is not looked at.

        Raises:
            ValueError: fewer than five rows, values that are not numbers or not finite, or a setting that is out of bounds.
        """
        x = validate_data(self, X, ensure_min_samples=5, dtype=np.float64)
        self._check()
        seed = int(check_random_state(self.random_state).randint(2**31))
        order = np.random.default_rng(seed).permutation(len(x))
        held = min(len(x) - 4, max(1, round(self.held_out * len(x))))
        fitted = x[order[held:]]
        self._forms = Forms(fitted)
        forms = self._forms(fitted)
        self._memory = Memory(forms, self.neighbors, seed)
        self._masks = _masks(x.shape[1], self.masks, seed)
        self._learn(self._kept(forms), seed)
        self._calibration = Calibration(np.sort(self._energy(x[order[:held]])), np.zeros(0, np.uint64), "", "")
        self.offset_ = -self._threshold(x) - ROUNDING
        return self

    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """Minus the energy of each row, float64: the lower, the less in accord."""
        check_is_fitted(self)
        return -self._energy(validate_data(self, X, reset=False, dtype=np.float64))

    def decision_function(self, X: Any) -> Float[np.ndarray, " n"]:
        """`score_samples` minus `offset_`: below 0 for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """1 for rows in accord, -1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> Float[np.ndarray, " n"]:
        """Of each row, (1 + held-out rows with as high an energy) / (held-out rows + 1): small for outliers; see `Calibration`."""
        return self._calibration.p_values(-self.score_samples(X))

    def _check(self) -> None:
        for name, value in (("held_out", self.held_out), ("false_alarms", self.false_alarms)):
            if not 0 < value < 1:
                raise UsageError(f"{name} = {value} is out of bounds", help=f"give 0 < {name} < 1", code="E257")
        if self.contamination != "auto" and not (
            isinstance(self.contamination, float) and 0 < self.contamination <= 0.5
        ):
            raise UsageError(
                f"contamination = {self.contamination!r} is out of bounds",
                help='give "auto", or a share of the rows, at most 0.5',
                code="E257",
            )

    def _threshold(self, x: np.ndarray) -> float:
        """The energy from which rows are outliers; with too few rows held out for the rate, the largest among them."""
        if self.contamination != "auto":
            return float(np.quantile(self._energy(x), 1 - float(self.contamination)))
        energies = self._calibration.energies
        return float(energies[min(conformal_rank(len(energies), self.false_alarms), len(energies)) - 1])

    def _learn(self, forms: np.ndarray, seed: int) -> None:
        """Two models, each of every other row; what is usual of a row's parts is told by the one that was not trained on it."""
        halves = forms[::2], forms[1::2]
        self.models_ = [self._train(half, seed) for half in halves]
        unseen = (half[: NORMAL // 2] for half in reversed(halves))
        self._usual_parts = Usual(
            np.hstack([self._parts(rows, m) for rows, m in zip(unseen, self.models_, strict=True)])
        )

    def _train(self, forms: np.ndarray, seed: int) -> JointEmbedding:
        rows, masks = torch.from_numpy(forms).float(), self._masks

        def pairs(index: Tensor, draws: Draws) -> Pair:
            mask = masks[(draws.uniform("mask", 1)[:, 0] * len(masks)).long()]
            return _pair(rows[index], mask)

        objective = train(
            lambda: self._objective(rows.shape[1]),
            pairs,
            len(rows),
            steps=math.ceil(self.steps / 2),
            batch_size=self.batch_size,
            rate=self.learning_rate,
            seed=seed,
            verbose=self.verbose,
        )
        return objective.model

    def _objective(self, columns: int) -> Objective:
        x, y = (Encoder(perceptron(columns, tuple(self.hidden), self.dim), sample_ndim=1) for _ in range(2))
        return Objective(JointEmbedding(x, y, MLPPredictor(self.dim)), self.principle())

    def _energy(self, x: np.ndarray) -> np.ndarray:
        blocks = [self._forms(x[start : start + BLOCK]) for start in range(0, len(x), BLOCK)]
        return np.concatenate([self._energy_of(forms) for forms in blocks])

    def _energy_of(self, forms: tuple[np.ndarray, ...]) -> np.ndarray:
        rows = self._kept(forms)
        parts = self._usual_parts(np.mean([self._parts(rows, model) for model in self.models_], axis=0))
        energy: np.ndarray = PARTS * parts + (1 - PARTS) * self._memory(forms)
        return energy

    def _kept(self, forms: tuple[np.ndarray, ...]) -> np.ndarray:
        """What the models look at, (n, columns of the forms that are kept)."""
        return np.hstack([forms[i] for i in self._memory.kept])

    def _parts(self, forms: np.ndarray, model: JointEmbedding) -> np.ndarray:
        """The root of the energy with each mask, (masks, n)."""
        rows = torch.from_numpy(forms)
        pairs = (_pair(rows, mask.expand(len(rows), -1)) for mask in self._masks)
        return np.stack([model.free_energy(x, y).sqrt().numpy() for x, y, *_ in pairs])


def _pair(rows: Tensor, mask: Bool[Tensor, "batch columns"]) -> Pair:
    """What is visible and what is hidden of rows in one or more forms; a column is hidden in all of them."""
    hidden = mask.repeat(1, rows.shape[1] // mask.shape[1])
    return Pair(rows.masked_fill(hidden, torch.nan), rows.masked_fill(~hidden, torch.nan))


def _masks(columns: int, count: int, seed: int) -> Bool[Tensor, "mask columns"]:
    """Which columns each mask hides: at least one, and, where there are two, not all."""
    order = Draws(seed, 0, torch.arange(count)).uniform("masks", columns).argsort(1).argsort(1)
    hidden = [min(columns - 1, max(1, round(SHARES[i % len(SHARES)] * columns))) for i in range(count)]
    return order < torch.tensor(hidden)[:, None]
