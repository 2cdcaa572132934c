"""Hypotheses of futures in the units of the values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accord.data.pairing_future import future
from accord.data.policy import Policy
from accord.data.samples import Samples
from accord.data.series import SeriesTable, series_samples
from accord.evaluate.features import embed_plain
from accord.evaluate.forecast import accuracy
from accord.evaluate.futures import future_readout, futures
from accord.evaluate.hypotheses import hypotheses
from accord.model.codebook import Codebook
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.normalize import Standardize
from accord.model.predictor import MLPPredictor

PAIRS = future(context=6, horizon=3)


def source() -> Samples:
    rng = np.random.default_rng(0)
    values = 50 + 7 * np.cumsum(rng.normal(size=(400, 2)), 0)
    values[200, 1] = math.nan
    table = SeriesTable(values, np.array([400], np.int64), ["walk.csv"], ("a", "b"))
    return series_samples("walk", table, Policy(), window=9)


class Part(nn.Module):
    """A series without gaps, flat."""

    def forward(self, x: Tensor) -> Tensor:
        return x.nan_to_num(50.0).flatten(1) / 50


def model(y_itself: bool) -> JointEmbedding:
    torch.manual_seed(0)
    encoder_x = Encoder(nn.Sequential(Part(), nn.Linear(12, 16)), sample_ndim=2)
    if y_itself:
        encoder_y = Encoder(nn.Sequential(Standardize([50.0, 50.0], [70.0, 30.0]), nn.Flatten()), sample_ndim=2)
    else:
        encoder_y = Encoder(nn.Sequential(Part(), nn.Linear(6, 6)), sample_ndim=2)
    return JointEmbedding(encoder_x, encoder_y, MLPPredictor(16, 3, out_dim=6), latent=Codebook(5, dim=3))


def test_a_future_that_is_its_own_embedding_is_read_back() -> None:
    samples, one = source(), model(True)
    index = np.flatnonzero(samples.ok)
    readout = future_readout(one, samples, index[:300], PAIRS, seed=0)
    assert readout.score == pytest.approx(1, abs=1e-5)
    some = index[320:340]
    s_x, s_y, _ = embed_plain(one, samples, some, PAIRS)
    y = PAIRS.plain_y(samples.batch(some))
    assert torch.allclose(readout(s_y), y.double(), atol=0.05)
    found = hypotheses(one, s_x, 5)
    made = futures(readout, found, y)
    expected = found.s_y_hat.view(20, 5, 3, 2) * torch.tensor([70.0, 30.0]) + 50
    assert torch.allclose(made.values, expected.double(), atol=0.1)
    assert made.accuracy.min_ade.shape == (20,)
    by_hand = accuracy(made.values, y.double(), found.probability.double())
    for ours, theirs in zip(made.accuracy, by_hand, strict=True):
        assert torch.allclose(ours, theirs)


def test_a_learned_embedding_is_read_out_as_well_as_predictions_tell() -> None:
    samples, one = source(), model(False)
    index = np.flatnonzero(samples.ok)
    readout = future_readout(one, samples, index[:300], PAIRS, seed=0)
    assert readout.score < 0.9999, "predictions of an untrained model do not hold y"
    some = index[320:330]
    s_x, _, _ = embed_plain(one, samples, some, PAIRS)
    made = futures(readout, hypotheses(one, s_x, 3), PAIRS.plain_y(samples.batch(some)))
    assert made.values.shape == (10, 3, 3, 2)
    assert made.values.isfinite().all()
    assert made.accuracy.crps.isfinite().all(), "three of five codes: their shares are scaled to 1"
