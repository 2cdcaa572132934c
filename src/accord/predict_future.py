"""What `predict` adds for pairs of past and future: the hypotheses as values, how good they are, and a picture of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from accord.data.pairing_future import Future
from accord.data.samples import Samples
from accord.errors import UsageError
from accord.evaluate.features import Stop
from accord.evaluate.future_sheet import Course
from accord.evaluate.futures import Tally, future_readout
from accord.evaluate.over_time import steps_judged
from accord.output import window_columns
from accord.predict_table import Lines, Predicted
from accord.run import Run
from accord.terminal import Terminal
from accord.verbs import show_futures


class Forecasts:
    """Predictions as values: columns of the table for each batch, figures over all of them, and the inputs to draw.

    The linear map from embeddings to values is fitted to the training part of the run, never to what is predicted.

    Args:
        run: of pairs of past and future.
        samples: windows that are predicted.
        trained: the samples of the run, and which of them it was trained on.
        shown: places of the inputs that are drawn.
        stop: called between batches.

    Raises:
        UsageError: where too few training pairs are without gaps.
    """

    def __init__(self, run: Run, samples: Samples, trained: tuple[Samples, np.ndarray], shown: set[int], stop: Stop):
        assert isinstance(run.pairing, Future) and samples.windows is not None
        self.pairing, self.samples, self.windows = run.pairing, samples, samples.windows
        self.shown = shown
        self.courses: list[Course] = []
        seed = run.recipe.training.seed
        try:
            self.readout = future_readout(run.model, *trained, self.pairing, seed=seed, stop=stop)
        except UsageError as error:
            raise UsageError(
                f"futures cannot be read out: {error.message}",
                where=trained[0].name,
                help="train on longer series, or on some with fewer gaps",
                code="E240",
            ) from None
        self.tally = Tally(self.readout, samples.features)

    def columns(self, index: np.ndarray, found: Predicted) -> dict[str, Any]:
        """Where each future lies, and of each channel what is predicted and what was observed, with the distance between the two."""
        lines = Lines(index, found.index, found.hypotheses.energy.shape[1])
        where = self.windows.rows(index)
        named: dict[str, Any] = {
            name: lines.repeated(values)
            for name, values in window_columns(where, *steps_judged(where, self.pairing)).items()
        }
        x, y = self._pair(found.index)
        values = self.readout(found.hypotheses.s_y_hat)
        judged = self.tally.add(values, found.hypotheses.probability, x, y)
        for place, channel in enumerate(self.samples.features):
            named[f"predicted_{channel}"] = _lists(lines.of(values[..., place].numpy()))
            observed = y[:, None, :, place].expand(-1, lines.count, -1)
            named[f"observed_{channel}"] = _lists(lines.of(observed.double().numpy()))
        named |= {"ade": lines.of(judged.ade.numpy()), "fde": lines.of(judged.fde.numpy())}
        self._draw(found, x, y, values, judged.ade)
        return named

    def figures(self, terminal: Terminal) -> dict[str, Any]:
        """How good the hypotheses were, also as a table for the reader."""
        found = self.tally.figures()
        show_futures(found, terminal)
        return found

    def _pair(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        if not len(index):
            steps, channels = self.samples.shape
            blank = torch.zeros(0, steps, channels)
            return self.pairing.plain(blank), self.pairing.plain_y(blank)
        values = self.samples.batch(index)
        return self.pairing.plain(values), self.pairing.plain_y(values)

    def _draw(self, found: Predicted, x: Tensor, y: Tensor, values: Tensor, distance: Tensor) -> None:
        for row, i in enumerate(found.index.tolist()):
            if i in self.shown:
                share, ade = found.hypotheses.probability[row], distance[row]
                nearest = int(ade.argmin()) if bool(ade.isfinite().all()) else None
                self.courses.append(Course(self.samples.keys[i], x[row], y[row], values[row], share, nearest))


def _lists(values: np.ndarray) -> pa.Array:
    """A list of numbers for each line; none where all are missing, and a missing number among others stays missing."""
    flat = pa.array(values.reshape(-1), from_pandas=True)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(np.isnan(values).all(axis=1)))
