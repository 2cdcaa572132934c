"""What holds for every encoder of rows, series, sound and text: shapes, gradients, and that a sample is encoded by itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.model.audio import LogMel
from accord.model.series import SeriesConv, SeriesTransformer
from accord.model.tabular import Tabular
from accord.model.text import ByteNGrams, ByteTransformer

NAN = math.nan


def rows() -> Tensor:
    """Numbers, codes of 4 and of 2 categories; some are missing, in one row all."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(12, 3, generator=generator)
    codes = torch.stack([torch.arange(12) % 4, torch.arange(12) // 6], dim=1)
    x = torch.cat([numbers, codes], dim=1)
    x[1:5, 0], x[3:7, 3], x[6:8, 4], x[8] = NAN, NAN, NAN, NAN
    x[9, 1:3] = NAN
    return x


def series() -> Tensor:
    """Three channels and lengths of 1 to 29 steps; some values and whole steps within are missing, in one series all."""
    x = torch.randn(8, 29, 3, generator=torch.Generator().manual_seed(0))
    for i, length in enumerate([29, 20, 1, 7, 0, 13, 28, 5]):
        x[i, length:] = NAN
    x[0, 3:11], x[1, 2:9, 1], x[6, :4] = NAN, NAN, NAN
    return x


def sound() -> Tensor:
    """A hundred and fewer milliseconds at 2 kHz; one is shorter than a window, one is empty."""
    x = torch.randn(5, 200, 1, generator=torch.Generator().manual_seed(0))
    for i, length in enumerate([200, 170, 33, 0, 90]):
        x[i, length:] = NAN
    return x


def texts() -> Tensor:
    names = ["grinning face", "été", "日本語", "", "a", "нет 🙂", "ab" * 8]
    encoded = [name.encode()[:16].ljust(16, b"\0") for name in names]
    return torch.tensor([list(text) for text in encoded], dtype=torch.uint8)


ENCODERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "tabular": (lambda: Tabular(5, categories=[0, 0, 0, 4, 2], width=4, hidden=(16, 12)), rows),
    "series conv": (lambda: SeriesConv(3, width=12, blocks=2, kernel=3), series),
    "series conv, stride": (lambda: SeriesConv(3, width=12, blocks=2, kernel=5, stride=4), series),
    "series conv, halved": (lambda: SeriesConv(3, width=12, blocks=3, kernel=3, stride=2, halve=True), series),
    "series transformer": (lambda: SeriesTransformer(3, 44, patch=4, width=16, depth=2, heads=2), series),
    "sound": (lambda: nn.Sequential(LogMel(2000, mels=6), SeriesConv(6, width=12, blocks=2)), sound),
    "n-grams": (lambda: ByteNGrams(sizes=(1, 3), buckets=50, width=8, hidden=(16,)), texts),
    "byte transformer": (lambda: ByteTransformer(32, width=16, depth=2, heads=2), texts),
}
PADDED = [name for name in ENCODERS if name != "tabular"]
EACH = pytest.mark.parametrize("name", ENCODERS)


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, batch = ENCODERS[name]
    return make(), batch()


def trained(name: str) -> tuple[nn.Module, Tensor]:
    """In evaluation, with statistics of batch norms, if there are any, that are not those of a new layer."""
    encoder, x = made(name)
    for _ in range(3):
        encoder(x)
    return encoder.eval(), x


@EACH
def test_features_are_finite_and_as_wide_as_said(name: str) -> None:
    encoder, x = made(name)
    last = encoder[-1] if isinstance(encoder, nn.Sequential) else encoder
    for mode in (True, False):
        features = encoder.train(mode)(x)
        assert features.shape == (len(x), last.feature_dim)
        assert bool(torch.isfinite(features).all())


@EACH
def test_gradients_reach_every_parameter_and_are_finite(name: str) -> None:
    encoder, x = made(name)
    features = encoder(x)
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for parameter, p in encoder.named_parameters():
        assert p.grad is not None and bool(torch.isfinite(p.grad).all()), parameter
        assert bool(p.grad.abs().sum() > 0), parameter


@EACH
def test_a_sample_is_encoded_by_itself(name: str) -> None:
    encoder, x = trained(name)
    together = encoder(x)
    for i in range(len(x)):
        torch.testing.assert_close(encoder(x[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-5)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(encoder(x[order]), together[order], rtol=1e-5, atol=1e-5)
    assert together.std(0).max() > 1e-3, "a constant would pass"


@pytest.mark.parametrize("more", [1, 2, 3, 4, 15])
@pytest.mark.parametrize("name", PADDED)
def test_padding_changes_nothing(name: str, more: int) -> None:
    encoder, x = trained(name)
    longer = F.pad(x, (0, more)) if x.ndim == 2 else F.pad(x, (0, 0, 0, more), value=NAN)
    torch.testing.assert_close(encoder(longer), encoder(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tabular", "series conv", "series transformer"])
def test_what_is_missing_is_not_zero(name: str) -> None:
    encoder, x = trained(name)
    assert (encoder(x) - encoder(x.nan_to_num(0.0))).abs().amax(1)[1] > 1e-3


@EACH
def test_saved_weights_are_all_there_is(name: str) -> None:
    encoder, x = trained(name)
    torch.manual_seed(1)
    other = ENCODERS[name][0]().eval()
    assert not torch.equal(other(x), encoder(x))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(x), encoder(x))
