"""Embeddings of the rows of a table, as a transformer of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from accord.data.pair import Pair
from accord.data.random import Draws
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor
from accord.model.projector import Projector
from accord.objective.loss import Objective, Terms
from accord.objective.principles import vicreg
from accord.sklearn.rows import Scale, hidden_columns, perceptron
from accord.sklearn.training import train


class JointEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of rows, learned from what belongs together: two masked views of a row, or the two sides of a pair.

    `fit(X)` pairs two views of each row, in which different columns are hidden. `fit(X, Y)` with a table Y (two axes) pairs row i of X
    with row i of Y, and `transform` gives the features of X. A y with one axis holds labels, as pipelines pass them: they are
    not looked at. NaN means not observed.

    Args:
        n_components: features of a row.
        hidden: widths of the hidden layers.
        dim: width of the embeddings, in which the energy is taken.
        mask: share of the columns hidden in each view; at least one column is hidden and one seen, unless it is 0.
        noise: standard deviation of what is added to each view, in standard deviations of the column.
        principle: makes the terms of the objective: `accord.vicreg`, `accord.sigreg`, `accord.info_nce`, or a `functools.partial` of one.
        steps: of training, whatever the number of rows.
        batch_size: rows in a step.
        learning_rate: of AdamW.
        random_state: of initial weights, order and views.
        verbose: 1 prints the loss ten times.

    Attributes:
        model_: the `JointEmbedding`; its inputs are standardised rows.
        scale_: mean and standard deviation of the columns of X.

    Masked columns: Yoon et al. 2020 (VIME), Bahri et al. 2022 (SCARF), arXiv:2106.15147.

    Example:
        >>> pipeline = make_pipeline(JointEmbedder(random_state=0), LogisticRegression())
    """

    def __init__(
        self,
        n_components: int = 32,
        *,
        hidden: Sequence[int] = (128,),
        dim: int = 64,
        mask: float = 0.3,
        noise: float = 0.0,
        principle: Callable[[], Terms] = vicreg,
        steps: int = 500,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.hidden = hidden
        self.dim = dim
        self.mask = mask
        self.noise = noise
        self.principle = principle
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on views of the rows of X, or on pairs of rows of X and of a table y.

        Raises:
            ValueError: fewer than two rows, values that are not numbers or not finite, or tables of different lengths.
        """
        x = validate_data(self, X, ensure_all_finite="allow-nan", ensure_min_samples=2, dtype=np.float64)
        self.scale_ = Scale(x)
        rows = self.scale_(x).float()
        other = None if y is None or np.asarray(y).ndim != 2 else self._other(y, x)
        seed = int(check_random_state(self.random_state).randint(2**31))
        objective = train(
            lambda: self._objective(rows.shape[1], None if other is None else other.shape[1]),
            lambda index, draws: self._pair(rows, other, index, draws),
            len(rows),
            steps=self.steps,
            batch_size=self.batch_size,
            rate=self.learning_rate,
            seed=seed,
            verbose=self.verbose,
        )
        self.model_ = objective.model
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The features of rows, float64 (n, n_components)."""
        check_is_fitted(self)
        x = validate_data(self, X, ensure_all_finite="allow-nan", reset=False, dtype=np.float64)
        with torch.no_grad():
            features: np.ndarray = self.model_.encoder_x.features(self.scale_(x)).numpy()
        return features

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _other(self, y: Any, x: np.ndarray) -> Tensor:
        values = check_array(y, ensure_all_finite="allow-nan", dtype=np.float64, input_name="y")
        check_consistent_length(x, values)
        return Scale(values)(values).float()

    def _encoder(self, columns: int) -> Encoder:
        backbone = perceptron(columns, tuple(self.hidden), self.n_components)
        return Encoder(backbone, Projector(self.n_components, self.dim, hidden=(2 * self.dim,)), sample_ndim=1)

    def _objective(self, columns: int, others: int | None) -> Objective:
        encoder = self._encoder(columns)
        encoder_y = encoder if others is None else self._encoder(others)
        return Objective(JointEmbedding(encoder, encoder_y, IdentityPredictor()), self.principle())

    def _pair(self, rows: Tensor, other: Tensor | None, index: Tensor, draws: Draws) -> Pair:
        x, y = rows[index], (rows if other is None else other)[index]
        if other is None:
            x, y = self._view(x, draws, "x"), self._view(y, draws, "y")
        return Pair(x, y)

    def _view(self, rows: Tensor, draws: Draws, side: str) -> Tensor:
        columns = rows.shape[1]
        noisy = rows + self.noise * draws.normal(f"noise {side}", columns) if self.noise else rows
        return noisy.masked_fill(hidden_columns(draws, columns, self.mask, f"mask {side}"), torch.nan)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
