"""Encoders of series: what a step sees, shifts, gaps and refusals. What all encoders have in common is in the contracts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import UsageError
from accord.model.normalize import Standardize
from accord.model.series import ConvOverSteps, SeriesConv, SeriesTransformer, halved


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kernel", "dilation", "stride"), [(3, 1, 1), (5, 4, 1), (4, 1, 1), (5, 1, 3), (4, 1, 4)])
def test_convolution_with_channels_last_equals_a_loop(kernel: int, dilation: int, stride: int) -> None:
    conv, h = ConvOverSteps(3, 2, kernel, dilation=dilation, stride=stride).double(), noise(1, 11, 3).double()
    y = conv(h)
    assert y.shape == (1, math.ceil(11 / stride), 2)
    assert conv.bias is not None
    for j in range(y.shape[1]):
        expected = conv.bias.clone()
        for k in range(kernel):
            t = j * stride + k * dilation - ((kernel - 1) * dilation + 1 - stride) // 2
            if 0 <= t < 11:
                expected = expected + conv.weight[:, :, k] @ h[0, t]
        torch.testing.assert_close(y[0, j], expected)


def test_series_that_are_shifted_within_the_padding_have_nearly_the_same_features() -> None:
    """Exactly so where silence leads: steps that are not observed are past an end, on whichever side."""
    torch.manual_seed(0)
    encoder, x = SeriesConv(2, width=16), noise(4, 30, 2)
    ends = F.pad(x, (0, 0, 0, 12), value=math.nan)
    later = F.pad(x, (0, 0, 7, 5), value=math.nan)
    torch.testing.assert_close(encoder(later), encoder(ends), rtol=1e-4, atol=1e-5)
    transformer = SeriesTransformer(2, 42, patch=7, width=16, depth=1)
    assert (transformer(later) - transformer(ends)).abs().max() > 1e-3, "positions are told apart there"


def test_both_ends_of_a_long_series_are_read() -> None:
    torch.manual_seed(0)
    for encoder in (SeriesConv(1, width=8, stride=5), SeriesTransformer(1, 500, patch=10, width=8, depth=1)):
        x = noise(1, 500, 1).requires_grad_()
        encoder(x).square().sum().backward()
        assert x.grad is not None
        assert bool((x.grad[0, [0, 1, 250, 498, 499], 0] != 0).all())


def test_statistics_of_training_see_no_padding() -> None:
    """In training, too, a series has the features it has by itself."""
    x = noise(6, 20, 1)
    x[1:, 4:] = math.nan
    for encoder in (
        SeriesConv(1, width=8).train(),
        SeriesConv(1, width=8, halve=True).train(),
        SeriesTransformer(1, 20, patch=4, width=8, depth=1).train(),
    ):
        torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]), rtol=1e-5, atol=1e-5)


def test_halved_against_a_loop() -> None:
    h, seen = noise(3, 7, 2), noise(3, 7) > 0
    seen[1, 2:4] = False
    half, left = halved(h, seen)
    assert half.shape == (3, 4, 2) and left.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            found = [h[i, t] for t in (2 * j, 2 * j + 1) if t < 7 and seen[i, t]]
            assert bool(left[i, j]) == bool(found)
            expected = torch.stack(found).mean(0) if found else torch.zeros(2)
            torch.testing.assert_close(half[i, j], expected)


def test_features_of_every_block_where_steps_are_halved() -> None:
    """Those of the first block do not change with what later blocks are; a series of one step has them all."""
    torch.manual_seed(0)
    short = SeriesConv(2, width=8, blocks=1, kernel=3, halve=True)
    long = SeriesConv(2, width=8, blocks=3, kernel=3, halve=True)
    long.load_state_dict(short.state_dict(), strict=False)
    x = noise(4, 21, 2)
    assert short.feature_dim == 16 and long.feature_dim == 48
    torch.testing.assert_close(long(x)[:, :16], short(x))
    assert long(x)[:, 16:].std() > 0 and long(x[:, :1]).isfinite().all()


def test_refusals() -> None:
    for options in ({"kernel": 3, "stride": 5}, {"kernel": 0}, {"blocks": 0}, {"width": 0}):
        with pytest.raises(UsageError, match="the stride is at most the kernel"):
            SeriesConv(1, **options)
    with pytest.raises(UsageError, match="channels, length and patch"):
        SeriesTransformer(1, 0)
    for encoder in (SeriesConv(2), SeriesTransformer(2, 8)):
        with pytest.raises(UsageError, match=r"series of 2 channels.*got \(1, 8, 3\)"):
            encoder(torch.zeros(1, 8, 3))
    with pytest.raises(UsageError, match="at most 2 tokens, got 3"):
        SeriesTransformer(1, 16)(torch.zeros(1, 17, 1))


@pytest.mark.data
def test_a_few_steps_on_real_series_tell_digits_apart(data: Path) -> None:
    """Chance is 10 %; a logistic regression on the values gets about 32 %."""
    with np.load(data / "mnist1d" / "mnist1d.npz") as file:
        x, y = torch.from_numpy(file["x_train"])[..., None], torch.from_numpy(file["y_train"])
    x = Standardize.fit(x)(x)
    torch.manual_seed(0)
    encoder = SeriesConv(1, width=32)
    model = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.feature_dim, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        rows = torch.arange(64 * step, 64 * step + 64) % 3200
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        right = (model(x[3200:]).argmax(1) == y[3200:]).float().mean()
    assert right > 0.4
