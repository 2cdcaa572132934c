"""Search across two tables by energy, as an estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.evaluate.features import Embedded, OneSide
from accord.evaluate.retrieval import ranks
from accord.evaluate.search import Exact, Side
from accord.model.codebook import Codebook
from accord.model.encoder import Encoder
from accord.model.energy import Cost, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor, MLPPredictor
from accord.objective.loss import Objective, Terms
from accord.objective.principles import vicreg
from accord.sklearn.rows import Scale, perceptron
from accord.sklearn.training import train

CODE = 8
"""Width of a code of z."""


class EnergyRetriever(BaseEstimator):  # type: ignore[misc]
    """Finds the rows of Y that are in accord with a row of X, lowest energy first, and the other way round.

    `fit(X, Y)` learns from pairs, row i of X with row i of Y, and keeps both tables as what is searched. NaN means not observed.

    Args:
        dim: width of the embeddings.
        hidden: widths of the hidden layers of both encoders.
        codes: values of z where one x has several y; 0 for none. With z the embedding of y is predicted from that of x and z.
        principle: makes the terms of the objective: `accord.vicreg`, `accord.info_nce`, or a `functools.partial` of one.
        cost: of two embeddings: `accord.squared_error` or `accord.cosine`.
        noise: standard deviation of what is added to rows in training, in standard deviations of the column.
        steps: of training, whatever the number of rows.
        batch_size: pairs in a step.
        learning_rate: of AdamW.
        random_state: of initial weights and order.
        verbose: 1 prints the loss ten times.

    Attributes:
        model_: the `JointEmbedding`; its inputs are standardised rows.
        n_features_y_: columns of Y.
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        hidden: Sequence[int] = (256,),
        codes: int = 0,
        principle: Callable[[], Terms] = vicreg,
        cost: Cost = squared_error,
        noise: float = 0.0,
        steps: int = 500,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.dim = dim
        self.hidden = hidden
        self.codes = codes
        self.principle = principle
        self.cost = cost
        self.noise = noise
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on the pairs (X[i], y[i]) and keeps them to be searched.

        Raises:
            ValueError: without y, with fewer than two rows, values that are not numbers or not finite, or different lengths.
        """
        if y is None:
            raise ValueError("EnergyRetriever requires y to be passed, but the target y is None: give the other table")
        x = validate_data(self, X, ensure_all_finite="allow-nan", ensure_min_samples=2, dtype=np.float64)
        other = _table(y)
        check_consistent_length(x, other)
        self.n_features_y_, self.feature_names_y_ = other.shape[1], _names(y)
        self.scale_, self.scale_y_ = Scale(x), Scale(other)
        rows, others = self.scale_(x).float(), self.scale_y_(other).float()
        objective = train(
            lambda: self._objective(rows.shape[1], others.shape[1]),
            lambda index, draws: Pair(
                self._noisy(rows[index], draws.normal("x", rows.shape[1])),
                self._noisy(others[index], draws.normal("y", others.shape[1])),
            ),
            len(rows),
            steps=self.steps,
            batch_size=self.batch_size,
            rate=self.learning_rate,
            seed=int(check_random_state(self.random_state).randint(2**31)),
            verbose=self.verbose,
        )
        self.model_ = objective.model
        self._corpus_x, self._corpus_y = self._x(X).numpy(), self._y(other).numpy()
        return self

    def search(self, X: Any, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The k rows of the fitted Y with the lowest energy for each row of X: (energies, places in Y), (n, k) each, lowest first.

        Raises:
            UsageError: if k is not between 1 and the number of fitted rows.
        """
        check_is_fitted(self)
        return self._lowest(self._x(X), torch.from_numpy(self._corpus_y), k, "x")

    def search_x(self, Y: Any, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The k rows of the fitted X that have the lowest energy with each row of Y: (energies, places in X), (n, k) each.

        Raises:
            UsageError: if k is not between 1 and the number of fitted rows.
        """
        check_is_fitted(self)
        return self._lowest(self._y(self._other(Y)), torch.from_numpy(self._corpus_x), k, "y")

    def energy(self, X: Any, Y: Any) -> np.ndarray:
        """F(x_i, y_i) of pairs, (n,)."""
        check_is_fitted(self)
        s_x, s_y = self._x(X), self._y(self._other(Y))
        check_consistent_length(s_x, s_y)
        with torch.no_grad():
            value: np.ndarray = self.model_.minimizer(self.model_.energy(s_x, s_y)).value.numpy()
        return value

    def score(self, X: Any, y: Any) -> float:
        """Recall at 1: the share of rows of X for which their own row, among all of y, has the lowest energy. Ties count against it."""
        check_is_fitted(self)
        other = self._other(y)
        s_x, s_y = self._x(X), self._y(other)
        check_consistent_length(s_x, s_y)
        content = np.unique(other, axis=0, return_inverse=True)[1].reshape(-1)
        found = ranks(self.model_, Embedded(s_x, s_y, s_y, None), content)
        return float((found == 1).double().mean())

    def _objective(self, columns: int, others: int) -> Objective:
        x, y = (Encoder(perceptron(n, tuple(self.hidden), self.dim), sample_ndim=1) for n in (columns, others))
        if not self.codes:
            model = JointEmbedding(x, y, IdentityPredictor(), cost=self.cost)
        else:
            latent = Codebook(self.codes, CODE)
            model = JointEmbedding(x, y, MLPPredictor(self.dim, CODE), cost=self.cost, latent=latent)
        return Objective(model, self.principle())

    def _noisy(self, rows: Tensor, noise: Tensor) -> Tensor:
        return rows + self.noise * noise if self.noise else rows

    def _x(self, X: Any) -> Tensor:
        x = validate_data(self, X, ensure_all_finite="allow-nan", reset=False, dtype=np.float64)
        with torch.no_grad():
            embedding: Tensor = self.model_.encoder_x(self.scale_(x))
        return embedding

    def _other(self, y: Any) -> np.ndarray:
        """The rows of a table y that has the columns of the fitted one, in their order."""
        names, known = _names(y), self.feature_names_y_
        if names is not None and known is not None and names != known:
            raise ValueError(
                f"y has the columns {', '.join(names)}; the fitted one had {', '.join(known)}: give these, in this order"
            )
        return _table(y)

    def _y(self, other: np.ndarray) -> Tensor:
        if other.shape[1] != self.n_features_y_:
            raise ValueError(f"y has {other.shape[1]} columns, the fitted one had {self.n_features_y_}")
        with torch.no_grad():
            embedding: Tensor = self.model_.encoder_y(self.scale_y_(other))
        return embedding

    def _lowest(self, queries: Tensor, corpus: Tensor, k: int, side: Side) -> tuple[np.ndarray, np.ndarray]:
        if not 1 <= k <= len(corpus):
            raise UsageError(f"k = {k} of {len(corpus)} rows", help=f"give 1 <= k <= {len(corpus)}", code="E257")
        found = Exact(self.model_, OneSide(corpus), side)(OneSide(queries), k)
        return found.energy.numpy(), found.place.numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        return tags


def _names(y: Any) -> list[str] | None:
    """The names of the columns of a data frame, None of anything else."""
    columns = getattr(y, "columns", None)
    names = [] if columns is None else list(columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def _table(y: Any) -> np.ndarray:
    values: np.ndarray = check_array(
        y, ensure_all_finite="allow-nan", ensure_2d=False, dtype=np.float64, input_name="y"
    )
    return values.reshape(len(values), -1)
