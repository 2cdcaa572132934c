"""Views of series: each change against a loop, what is not observed stays so, and nothing depends on the batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from accord.data.augment_series import SeriesAugmentation, augment_series, lengths
from accord.data.random import Draws
from accord.errors import UsageError
from accord.model.normalize import Standardize

ALL = SeriesAugmentation(
    stretch=0.3, shift=0.2, wrap=0.5, scale=0.5, noise=0.1, drift=0.2, trend=0.3, mask=0.4, channel_drop=0.3
)


def series(n: int = 40, steps: int = 30, channels: int = 2) -> Tensor:
    """Ragged ones, some with a gap."""
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(n, steps, channels, generator=generator)
    for i in range(n):
        found[i, steps - i % 10 :] = math.nan
        found[i, 5 : 5 + i % 3, 0] = math.nan
    return found


def draws(n: int = 40) -> Draws:
    return Draws(0, 0, torch.arange(n))


def equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def test_the_defaults_change_nothing() -> None:
    assert equal(augment_series(series(), draws(), SeriesAugmentation()), series())


def test_lengths() -> None:
    assert lengths(series()).tolist() == [30 - i % 10 for i in range(40)]
    assert lengths(torch.full((1, 3, 2), math.nan)).tolist() == [0]


def test_time_against_a_loop() -> None:
    batch, a = series(), SeriesAugmentation(stretch=0.3, shift=0.2)
    view, u = augment_series(batch, draws(), a), draws().uniform("time", 2).double() * 2 - 1
    seen = 0
    for i in range(40):
        count = 30 - i % 10
        factor, shift = math.exp(float(u[i, 0]) * math.log(1.3)), float(u[i, 1]) * 0.2 * count
        for t in range(30):
            place = (t - (count - 1) / 2) * factor + (count - 1) / 2 + shift
            if abs(place) < 1e-3 or abs(place - count + 1) < 1e-3 or abs(place - round(place)) < 1e-3:
                continue  # rounding decides
            low = math.floor(place)
            for c in range(2):
                if not 0 <= place <= count - 1:
                    assert view[i, t, c].isnan()
                    continue
                expected = batch[i, low, c] + (place - low) * (batch[i, low + 1, c] - batch[i, low, c])
                assert expected.isnan() == view[i, t, c].isnan()
                assert expected.isnan() or abs(float(expected - view[i, t, c])) < 1e-4
                seen += 1
    assert seen > 1500


def test_a_step_beside_a_gap_is_kept_where_time_does_not_move() -> None:
    batch = torch.tensor([[[1.0], [math.nan], [3.0]]])
    assert equal(augment_series(batch, draws(1), SeriesAugmentation(stretch=1e-12)), batch)


def test_scale_and_noise_are_in_the_units_of_each_channel() -> None:
    normal = torch.randn(3000, 8, 2, generator=torch.Generator().manual_seed(0))
    batch = normal * torch.tensor([1.0, 100.0]) + torch.tensor([0.0, 1000.0])
    units = Standardize([0.0, 1000.0], [1.0, 100.0])
    noisy = augment_series(batch, draws(3000), SeriesAugmentation(noise=0.1), units)
    torch.testing.assert_close((noisy - batch).std((0, 1)), torch.tensor([0.1, 10.0]), rtol=0.03, atol=0)
    scaled = augment_series(batch, draws(3000), SeriesAugmentation(scale=0.5), units)
    one = draws(3000).uniform("scale", 1, 1) * 2 - 1
    torch.testing.assert_close(scaled - units.mean, (1 + 0.5 * one) * (batch - units.mean), rtol=1e-4, atol=1e-3)
    assert 0.5 <= float(one.min() * 0.5 + 1) < 0.51


def test_a_series_turns_around_the_ring_of_its_own_steps() -> None:
    batch = series()
    view, u = augment_series(batch, draws(), SeriesAugmentation(wrap=0.5)), draws().uniform("wrap", 1) * 2 - 1
    places = set()
    for i in range(40):
        count = 30 - i % 10
        by = round(float(u[i, 0]) * 0.5 * count)
        places.add(by)
        for t in range(count):
            assert equal(view[i, (t + by) % count], batch[i, t])
        assert view[i, count:].isnan().all()
    assert min(places) < -8 and max(places) > 8


def test_drift_is_smooth_noise_in_the_units_of_each_channel() -> None:
    batch, units = torch.zeros(4000, 12, 2), Standardize([0.0, 5.0], [1.0, 100.0])
    drift = augment_series(batch, draws(4000), SeriesAugmentation(drift=0.2), units)
    torch.testing.assert_close(drift.std(0), torch.tensor([0.2, 20.0]).expand(12, 2), rtol=0.06, atol=0)
    white = drift / drift.std(0)
    weight = {k: math.exp(-(k**2) / 8) for k in range(-4, 5)}
    for lag in (1, 2, 4, 9):
        found = (white[:, lag:] * white[:, :-lag]).mean((0, 1))
        shared = sum(w * weight.get(k + lag, 0.0) for k, w in weight.items()) / sum(w * w for w in weight.values())
        torch.testing.assert_close(found, torch.full((2,), shared), atol=0.03, rtol=0)
    assert abs(float((white[..., 0] * white[..., 1]).mean())) < 0.03, "channels drift each on its own"


def test_a_trend_is_a_line_over_the_length_of_the_series() -> None:
    batch, units = torch.zeros(3000, 9, 2), Standardize([0.0, 5.0], [1.0, 100.0])
    batch[:, 7:] = math.nan
    view = augment_series(batch, draws(3000), SeriesAugmentation(trend=0.5), units)
    end = draws(3000).normal("trend", 1, 2)[:, 0] * torch.tensor([0.5, 50.0])
    torch.testing.assert_close(view[:, :7], torch.linspace(-1, 1, 7)[:, None] * end[:, None], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end.std(0), torch.tensor([0.5, 50.0]), rtol=0.05, atol=0)
    assert view[:, 7:].isnan().all()
    one = torch.full((1, 3, 1), math.nan)
    one[0, 0] = 4.0
    assert equal(augment_series(one, draws(1), SeriesAugmentation(trend=0.5)), one), "a single step is the middle"


def test_a_run_within_the_series_is_hidden() -> None:
    batch = series()
    batch[:, 5:8] = 0.0
    view = augment_series(batch, draws(), SeriesAugmentation(mask=0.5))
    for i in range(40):
        count = 30 - i % 10
        hidden = view[i, :count].isnan().all(1)
        run = int(hidden.sum())
        assert torch.equal(view[i, :count].isnan().any(1), hidden) and run <= count / 2
        if run:
            first = int(hidden.nonzero()[0])
            assert hidden[first : first + run].all(), "in one run"


def test_one_channel_stays() -> None:
    view = augment_series(torch.zeros(500, 2, 3), draws(500), SeriesAugmentation(channel_drop=0.9))
    there = ~view.isnan()
    assert torch.equal(there[:, 0], there[:, 1]) and bool(there[:, 0].any(1).all())
    assert abs(float(there[:, 0].float().mean()) - (0.1 * 3 + 0.9**3) / 3) < 0.03


def test_a_view_is_a_function_of_the_sample_alone() -> None:
    batch, part = series(), torch.tensor([31, 2, 17])
    whole = augment_series(batch, draws(), ALL)
    assert equal(augment_series(batch[part], Draws(0, 0, part), ALL), whole[part])
    long = augment_series(torch.cat([batch] * 200), Draws(0, 0, torch.arange(40).repeat(200)), ALL)
    assert equal(long[-40:], whole), "a batch that is worked on in parts"
    assert not equal(augment_series(batch, draws().fork(1), ALL), whole)
    assert not whole.isinf().any()


@pytest.mark.parametrize(
    ("name", "value"), [("mask", 1.0), ("shift", -0.1), ("noise", math.nan), ("scale", "much"), ("wrap", 0.6)]
)
def test_values_out_of_bounds(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        SeriesAugmentation(**{name: value})  # type: ignore[arg-type]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="series"):
        augment_series(torch.zeros(3, 4), draws(3), ALL)
