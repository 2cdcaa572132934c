"""Hypotheses of futures in the units of the values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accord.data.pairing_future import future
from accord.data.policy import Policy
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.data.series import SeriesTable, series_samples
from accord.evaluate.features import embed_plain
from accord.evaluate.forecast import accuracy, fit_readout
from accord.evaluate.futures import Tally, future_readout, futures, judged, last_values, means
from accord.evaluate.hypotheses import hypotheses
from accord.model.codebook import Codebook
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.normalize import Standardize
from accord.model.predictor import MLPPredictor
from accord.objective.loss import Objective, free_energy

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


def test_the_last_value_of_a_channel_is_the_last_that_was_observed() -> None:
    nan = math.nan
    x = torch.tensor([[[1.0, nan], [2.0, nan], [nan, nan]], [[1.0, 5.0], [nan, 6.0], [3.0, nan]]])
    found = last_values(x)
    assert found[0, 0] == 2 and found[0, 1].isnan() and found[1].tolist() == [3, 6]


def test_hypotheses_are_judged_beside_their_mean_and_the_last_value() -> None:
    x = torch.tensor([[[0.0], [1.0]], [[0.0], [2.0]], [[0.0], [math.nan]]])
    y = torch.tensor([[[2.0], [3.0]], [[math.nan], [math.nan]], [[1.0], [math.nan]]])
    values = torch.tensor([[[2.0], [4.0]], [[0.0], [-2.0]]], dtype=torch.float64).expand(3, -1, -1, -1)
    found = judged(values, torch.tensor([[0.75, 0.25]]).expand(3, -1), x, y)
    assert found.ade[0].tolist() == [0.5, 3.5] and found.fde[0].tolist() == [1, 5]
    assert found.hypotheses.min_ade[0] == 0.5 and found.hypotheses.min_fde[0] == 1
    assert found.mean.min_ade[0] == pytest.approx((0.5 + 0.5) / 2), "the mean is 1.5, 2.5"
    assert found.last_value.min_ade[0] == pytest.approx((1 + 2) / 2)
    weighted = [0.75 * 0 + 0.25 * 2 - 0.75 * 0.25 * 2, 0.75 * 1 + 0.25 * 5 - 0.75 * 0.25 * 6]
    assert found.hypotheses.crps[0] == pytest.approx(np.mean(weighted))
    assert found.crps_fair[0] == pytest.approx(np.mean([1 - 1, 3 - 3])), (
        "as draws: half of the distance of the pair, not a quarter"
    )
    assert all(part[1].isnan().all() for part in (found.ade, found.crps_fair, *found.mean, *found.last_value))
    assert found.ade[2].tolist() == [1, 1] and found.last_value.min_ade[2] == 1, "of one step that was observed"
    told = means([found])
    assert (told["rows"], told["hypotheses"]["k"]) == (2, 2)
    assert told["last_value"]["min_ade"] == pytest.approx((1.5 + 1) / 2)
    one = means([judged(values[:, :1], torch.ones(3, 1), x, y)])
    assert one["hypotheses"]["crps_fair"] is None and one["hypotheses"]["crps"] == one["mean"]["crps"]


def test_where_a_channel_of_the_past_was_never_observed_nothing_is_compared() -> None:
    x, y = torch.tensor([[[math.nan], [math.nan]]]), torch.ones(1, 2, 1)
    found = judged(torch.zeros(1, 3, 2, 1, dtype=torch.float64), torch.ones(1, 3) / 3, x, y)
    assert found.ade.isnan().all() and means([found])["rows"] == means([])["rows"] == 0


def by_numpy(values: np.ndarray, y: np.ndarray, std: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """minADE, minFDE, CRPS of one future, values (k, step, channel), each error divided by the standard deviation of its channel."""
    kept = np.flatnonzero(~np.isnan(std))
    error = (values[..., kept] - y[:, kept]) / std[kept]
    steps = [t for t in range(len(y)) if not np.isnan(y[t, kept]).all()]
    distance = np.stack([np.sqrt(np.nansum(error[:, t] ** 2, axis=-1)) for t in steps], 1)
    spread = np.abs(error[:, None] - error[None])
    cells = np.einsum("k,ktc->tc", p, np.abs(error)) - np.einsum("k,l,kltc->tc", p, p, spread) / 2
    return {
        "min_ade": distance.mean(1).min(),
        "min_fde": distance[:, -1].min(),
        "crps": float(np.nanmean(cells)),
    }


def test_standardised_figures_are_those_of_the_formulas() -> None:
    """Degrees, pascals and a channel that never changed; a gap in each of the first two."""
    rng, unit = np.random.default_rng(7), np.array([4.0, 900.0, 1.0])
    train = 20 + unit * rng.normal(size=(60, 3, 3)) + np.array([0, 1e5, 0])
    train[..., 2] = 1.7e4
    train[5, 1, 0] = math.nan
    readout = fit_readout(torch.from_numpy(rng.normal(size=(60, 2))), torch.from_numpy(train))
    flat = train.reshape(-1, 3)
    std = np.array([np.nanstd(flat[:, 0]), flat[:, 1].std(), math.nan])
    np.testing.assert_allclose(readout.std.numpy(), std, rtol=1e-12)
    x, y = (train[:4] + rng.normal(size=(4, 3, 3)) * 5 * unit for _ in range(2))
    y[0, 2, 1] = y[1, 2, :2] = y[3, :, :2] = x[2, 1, 0] = math.nan
    values, p = y.round(-1)[:, None] + rng.normal(size=(4, 5, 3, 3)) * unit, rng.dirichlet(np.ones(5), 4)
    values = np.where(np.isnan(values), 20.0, values)
    tally = Tally(readout, ["degrees", "pascals", "constant"])
    for rows in (slice(0, 2), slice(2, 4)):
        tally.add(*(torch.from_numpy(part[rows]) for part in (values, p, x, y)))
    found = tally.figures()
    assert found["rows"] == 4 and found["standardized"]["rows"] == 3, (
        "nothing but the constant was observed of the last"
    )
    assert found["standardized"]["std"] == pytest.approx({"degrees": std[0], "pascals": std[1], "constant": None})
    last = np.where(np.isnan(x[:, -1]), x[:, 0], x[:, -1])
    for name, k, predicted, weight in (
        ("hypotheses", 5, values, p),
        ("mean", 1, np.einsum("nk,nktc->ntc", p, values)[:, None], np.ones((4, 1))),
        ("last_value", 1, np.repeat(last[:, None, None], 3, 2), np.ones((4, 1))),
    ):
        assert predicted.shape == (4, k, 3, 3)
        expected = [by_numpy(predicted[i], y[i], std, weight[i]) for i in range(3)]
        for measure in ("min_ade", "min_fde", "crps"):
            mean = np.mean([one[measure] for one in expected])
            assert found["standardized"][name][measure] == pytest.approx(mean, rel=1e-9), (name, measure)
    raw = [by_numpy(values[i], y[i], np.ones(3), p[i])["min_ade"] for i in range(4)]
    assert found["hypotheses"]["min_ade"] == pytest.approx(np.mean(raw), rel=1e-9), "what was there is what it was"


def test_one_channel_is_in_proportion_and_channels_that_never_varied_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    train, s = torch.from_numpy(5 + 3 * rng.normal(size=(40, 2, 1))), torch.from_numpy(rng.normal(size=(40, 2)))
    values, p = torch.from_numpy(rng.normal(size=(40, 4, 2, 1))), torch.full((40, 4), 0.25)
    for y, same in ((train, True), (torch.full_like(train, 1e5), False)):
        tally = Tally(fit_readout(s, y), ["level"])
        tally.add(values, p, train, train)
        found = tally.figures()
        std = found["standardized"]["std"]["level"]
        if same:
            for name in ("min_ade", "min_fde", "crps", "crps_fair"):
                assert found["standardized"]["hypotheses"][name] == pytest.approx(found["hypotheses"][name] / std)
        else:
            assert std is None and found["standardized"]["rows"] == 0
            assert found["standardized"]["hypotheses"]["min_ade"] is None and found["rows"] == 40


def forked(series: int, seed: int) -> Samples:
    """After six steps at one level a series rises or falls by 10 in three: nothing in the past says which."""
    rng = np.random.default_rng(seed)
    level, turn = 50 + 5 * rng.normal(size=(series, 1)), rng.choice([-1.0, 1.0], (series, 1))
    values = level + turn * np.array([0.0] * 6 + [3, 7, 10]) + 0.1 * rng.normal(size=(series, 9))
    counts = np.full(series, 9, np.int64)
    table = SeriesTable(values.reshape(-1, 1), counts, [f"s{i}" for i in range(series)], ("level",))
    return series_samples("forked", table, Policy(), window=9)


@pytest.mark.parametrize(("codes", "learned"), [(2, False), (2, True), (1, False)])
def test_two_futures_of_one_past_are_both_found_with_two_codes(codes: int, learned: bool) -> None:
    samples = forked(300, 1)
    torch.manual_seed(0)
    encoder_x = Encoder(nn.Sequential(Standardize([50.0], [10.0]), nn.Flatten(), nn.Linear(6, 16)), sample_ndim=2)
    flat = nn.Sequential(Standardize([50.0], [10.0]), nn.Flatten(), *([nn.Linear(3, 6)] if learned else []))
    predictor = MLPPredictor(16, 3, out_dim=6 if learned else 3)
    one = JointEmbedding(encoder_x, Encoder(flat, sample_ndim=2), predictor, latent=Codebook(codes, dim=3))
    objective = Objective(one, {"free_energy": (1.0, free_energy)})
    optimizer = torch.optim.Adam([*encoder_x.parameters(), *one.predictor.parameters(), *one.latent.parameters()], 0.01)
    train, rest = np.arange(200), np.arange(200, 300)
    pair = PAIRS(samples.batch(train), Draws(0, 0, torch.arange(200)))
    for _ in range(300):
        optimizer.zero_grad()
        objective(pair).total.backward()
        optimizer.step()
    readout = future_readout(one, samples, train, PAIRS, seed=0)
    s_x, _, _ = embed_plain(one, samples, rest, PAIRS)
    values = samples.batch(rest)
    assert isinstance(values, Tensor)
    found = hypotheses(one, s_x, codes)
    told = judged(readout(found.s_y_hat), found.probability, PAIRS.plain(values), PAIRS.plain_y(values))
    best, middle = told.hypotheses.min_ade.mean(), told.mean.min_ade.mean()
    assert middle == pytest.approx(20 / 3, rel=0.15), "one prediction is the middle, as far from both"
    assert told.last_value.min_ade.mean() == pytest.approx(20 / 3, rel=0.1)
    if codes == 1:
        assert best == middle
    else:
        ends = readout(found.s_y_hat)[:, :, -1, 0] - values[:, 5].double()
        assert best < 0.1 * middle and torch.allclose(
            ends.sort(1).values.mean(0), torch.tensor([-10.0, 10.0]).double(), atol=1
        )
