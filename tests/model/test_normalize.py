"""Standardisation from data: exact over batches, honest about constant columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from accord.errors import DataError, UsageError
from accord.model.normalize import Standardize


def test_fit_equals_numpy_in_one_or_many_batches() -> None:
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(101, 4)) * [1, 1e3, 1e-6, 5] + [0, 1e5, 1e-5, -3]).astype(np.float32)
    whole = Standardize.fit(torch.from_numpy(data))
    parts = Standardize.fit(iter(torch.from_numpy(data).split([1, 0, 60, 40])))
    exact = data.astype(np.float64)
    for fitted in (whole, parts):
        np.testing.assert_allclose(fitted.mean, exact.mean(0), rtol=1e-6)
        np.testing.assert_allclose(fitted.std, exact.std(0), rtol=1e-6)


def test_images_are_standardised_per_channel() -> None:
    images = torch.rand(20, 3, 8, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 3]).view(3, 1, 1)
    y = Standardize.fit(images)(images)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_constant_columns_become_zero_and_small_ones_are_scaled() -> None:
    """0.1 is not a float32: a column of it may look as if it varied. A column around 0 of scale 1e-9 does vary."""
    noise = torch.randn(50, generator=torch.Generator().manual_seed(0))
    data = torch.stack([torch.full((50,), 0.1), torch.zeros(50), 1e-9 * noise, 1e4 + 0 * noise, noise], dim=1)
    fitted = Standardize.fit(data)
    assert fitted.std[[0, 1, 3]].tolist() == [1, 1, 1]
    assert fitted.std[2].item() == pytest.approx(1e-9, rel=0.3)
    y = fitted(data)
    assert y[:, [0, 1, 3]].abs().max() < 1e-6
    torch.testing.assert_close(y.std(0, correction=0)[[2, 4]], torch.ones(2), atol=1e-5, rtol=0)


def test_one_unit_keeps_the_proportions_of_the_columns() -> None:
    """Each is divided by the root of the mean variance; a code of a category is left alone and counts for nothing."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(101, 4)) * [1, 30, 5, 1e6] + [0, 2, -3, 7]
    exact = math.sqrt(sum(data[:, i].var() for i in range(3)) / 3)
    fitted = Standardize.fit(torch.from_numpy(data), kept=[3], one_unit=True)
    np.testing.assert_allclose(fitted.std, [exact, exact, exact, 1.0], rtol=1e-6)
    np.testing.assert_allclose(fitted.mean, [*data.mean(0)[:3], 0.0], rtol=1e-5)
    assert Standardize.fit(torch.full((5, 2), 0.1), one_unit=True).std.tolist() == [1, 1], "nothing varies"


def test_saved_with_the_model_and_not_trained() -> None:
    layer = Standardize([1.0, 2.0], [3.0, 4.0])
    assert list(layer.state_dict()) == ["mean", "std"]
    assert not list(layer.parameters())
    other = Standardize([0.0, 0.0], [1.0, 1.0])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(torch.tensor([[4.0, 6.0]])), torch.tensor([[1.0, 1.0]]))


def test_what_is_missing_counts_for_nothing_and_stays_missing() -> None:
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(101, 4)) * [1, 1e3, 1e-6, 5] + [0, 1e5, 1e-5, -3]).astype(np.float32)
    data[rng.random((101, 4)) < 0.3] = np.nan
    data[:40, 1] = np.nan
    data[:, 3] = np.nan
    for batches in (torch.from_numpy(data), torch.from_numpy(data).split([1, 30, 70])):
        fitted = Standardize.fit(batches)
        exact = data[:, :3].astype(np.float64)
        np.testing.assert_allclose(fitted.mean[:3], np.nanmean(exact, 0), rtol=1e-6)
        np.testing.assert_allclose(fitted.std[:3], np.nanstd(exact, 0), rtol=1e-6)
        assert (fitted.mean[3], fitted.std[3]) == (0, 1)
    assert torch.equal(torch.isnan(fitted(torch.from_numpy(data))), torch.from_numpy(np.isnan(data)))


def test_series_are_standardised_per_channel_the_last_axis() -> None:
    x = torch.randn(20, 11, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 50.0]) + 7
    x[3, 5:] = math.nan
    y = Standardize.fit(x.split(7))(x)
    for channel in range(2):
        known = y[..., channel][~torch.isnan(y[..., channel])]
        assert len(known) == 20 * 11 - 6
        assert known.mean().item() == pytest.approx(0, abs=1e-5)
        assert known.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_codes_of_categories_are_kept() -> None:
    data = torch.tensor([[0.0, 5.0], [3.0, 7.0]])
    fitted = Standardize.fit(data, kept=[0])
    assert fitted(data).tolist() == [[0, -1], [3, 1]]


def test_refusals() -> None:
    bad = torch.ones(5, 3)
    bad[2, 1] = math.inf
    with pytest.raises(DataError, match=r"1 of 3 columns.*column 1"):
        Standardize.fit(bad)
    with pytest.raises(DataError, match="no rows"):
        Standardize.fit(torch.ones(0, 3))
    with pytest.raises(UsageError, match="stds positive"):
        Standardize([0.0], [0.0])
    with pytest.raises(UsageError, match=r"got \(2,\) and \(1,\)"):
        Standardize([0.0, 1.0], [1.0])
    with pytest.raises(UsageError, match="made for 3 channels, got 1"):
        Standardize([0.0] * 3, [1.0] * 3)(torch.ones(2, 1, 8, 8))
