"""The default encoder: any size from 8 pixels, any number of channels, features of the announced width."""

from __future__ import annotations

import pytest
import torch

from accord.errors import UsageError
from accord.model.multiscale import MultiScale


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [8, 9, 32, 33, 64])
def test_features_have_the_announced_width(channels: int, size: int) -> None:
    encoder = MultiScale(channels, stem_width=8, widths=(12, 16), blocks=(1, 0), pool_grids=(2, 0, 1))
    features = encoder(torch.rand(3, channels, size, size))
    assert features.shape == (3, encoder.feature_dim) == (3, 8 * 4 + 16)


def test_features_are_means_over_the_cells_of_each_stage() -> None:
    encoder = MultiScale(
        1, stem_width=4, stem_kernel=3, stem_stride=1, widths=(6,), blocks=(1,), pool_grids=(2, 1)
    ).eval()
    x = torch.rand(2, 1, 8, 8)
    stem = encoder.stem(x)
    stage = encoder.stages[0](stem)
    cells = [stem[:, :, i : i + 4, j : j + 4].mean((2, 3)) for i in (0, 4) for j in (0, 4)]
    expected = torch.cat([torch.stack(cells, 2).flatten(1), stage.mean((2, 3))], 1)
    torch.testing.assert_close(encoder(x), expected)


def test_every_parameter_gets_a_gradient() -> None:
    encoder = MultiScale(3, stem_width=8, widths=(8, 8), blocks=(1, 1), pool_grids=(0, 0, 1))
    encoder(torch.rand(4, 3, 16, 16)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "wrong",
    [{"widths": (8,)}, {"blocks": (1,)}, {"pool_grids": (1, 1)}, {"pool_grids": (0, 0, 0)}],
)
def test_lists_that_do_not_fit_are_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(UsageError, match="pool_grids"):
        MultiScale(3, **wrong)  # type: ignore[arg-type]
