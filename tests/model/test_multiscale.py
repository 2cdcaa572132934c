"""The default encoder: any size from 8 pixels, any number of channels, features of the announced width."""

from __future__ import annotations

import pytest
import torch

from accord.errors import UsageError
from accord.model.multiscale import MultiScale, whitened_patches


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
    expected = torch.cat([torch.cat(cells, 1), stage.mean((2, 3))], 1)
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


def test_whitened_filters_answer_with_unit_variance_in_both_signs() -> None:
    smooth = torch.nn.functional.avg_pool2d(torch.rand(64, 3, 40, 40, generator=torch.Generator().manual_seed(1)), 5, 1)
    filters = whitened_patches(smooth, 4, 10, seed=0)
    torch.testing.assert_close(filters[:5], -filters[5:])
    answers = torch.nn.functional.conv2d(smooth, filters)
    torch.testing.assert_close(answers.std((0, 2, 3)), torch.ones(10), atol=0.05, rtol=0)
    again = whitened_patches(smooth, 4, 10, seed=0)
    assert torch.equal(filters, again)
    assert not torch.equal(filters, whitened_patches(smooth, 4, 10, seed=1))


def test_whitening_damps_the_direction_in_which_patches_vary_most() -> None:
    """In smooth images that is brightness: a good part of a raw patch lies along it, and hardly anything of a whitened filter."""
    smooth = torch.nn.functional.avg_pool2d(
        torch.rand(256, 1, 24, 24, generator=torch.Generator().manual_seed(1)), 3, 1
    )
    raw = smooth.unfold(2, 3, 3).unfold(3, 3, 3).reshape(-1, 9)
    raw = raw - raw.mean(0)
    first = torch.linalg.eigh(raw.T @ raw)[1][:, -1]

    def share(rows: torch.Tensor) -> float:
        return float(((rows @ first).square() / rows.square().sum(1)).mean())

    assert share(raw) > 0.3
    assert share(whitened_patches(smooth, 3, 18, seed=0).flatten(1)) < 0.1


def test_a_stem_larger_than_the_images_is_refused() -> None:
    with pytest.raises(UsageError, match="stem_kernel = 6"):
        MultiScale(1).initialise_stem(torch.rand(4, 1, 5, 5), seed=0)
