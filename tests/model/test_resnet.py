"""ResNets have the published sizes, the field's parameter names, and compute what those names say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import UsageError
from accord.model.resnet import ResNet, resnet18, resnet34, resnet50

MAKERS: list[tuple[Callable[..., ResNet], int, int]] = [
    (resnet18, 11_689_512, 512),
    (resnet34, 21_797_672, 512),
    (resnet50, 25_557_032, 2048),
]


@pytest.mark.parametrize(("make", "published", "feature_dim"), MAKERS)
def test_published_parameter_counts(make: Callable[..., ResNet], published: int, feature_dim: int) -> None:
    """Published counts include a classifier of 1000 classes."""
    with torch.device("meta"):
        model, small, grey = make(), make(stem="small"), make(channels=1)
    ours = sum(p.numel() for p in model.parameters())
    assert ours == published - 1000 * (feature_dim + 1)
    assert sum(p.numel() for p in small.parameters()) == ours - 3 * 64 * (49 - 9)
    assert sum(p.numel() for p in grey.parameters()) == ours - 2 * 64 * 49
    assert model.feature_dim == feature_dim


def bn_names(prefix: str) -> list[str]:
    return [f"{prefix}.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


@pytest.mark.parametrize(
    ("make", "depths", "convolutions", "first_shortcut"),
    [(resnet18, (2, 2, 2, 2), 2, 2), (resnet34, (3, 4, 6, 3), 2, 2), (resnet50, (3, 4, 6, 3), 3, 1)],
)
def test_state_dict_names(
    make: Callable[..., ResNet], depths: tuple[int, ...], convolutions: int, first_shortcut: int
) -> None:
    """The names and the order that published weights have; `fc` is absent."""
    names = ["conv1.weight", *bn_names("bn1")]
    for layer, depth in enumerate(depths, start=1):
        for block in range(depth):
            at = f"layer{layer}.{block}"
            for c in range(1, convolutions + 1):
                names += [f"{at}.conv{c}.weight", *bn_names(f"{at}.bn{c}")]
            if block == 0 and layer >= first_shortcut:
                names += [f"{at}.downsample.0.weight", *bn_names(f"{at}.downsample.1")]
    with torch.device("meta"):
        assert list(make().state_dict()) == names


def test_resolutions() -> None:
    """The stride of a bottleneck sits on its 3x3 convolution; the stems differ by a factor of four."""
    sizes: list[tuple[int, ...]] = []
    for model, side in [(resnet50(stem="standard"), 64), (resnet18(stem="small"), 32)]:
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            layer.register_forward_hook(lambda _, __, y: sizes.append(tuple(y.shape[1:])))
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, side, side))
    assert sizes == [
        *[(256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2)],
        *[(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)],
    ]
    strides = {n: m.stride for n, m in resnet50().layer2[0].named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert strides == {"conv1": (1, 1), "conv2": (2, 2), "conv3": (1, 1), "downsample.0": (2, 2)}


def functional(state: dict[str, Tensor], x: Tensor, depths: tuple[int, ...], bottleneck: bool) -> Tensor:
    """A ResNet with the standard stem in evaluation mode, from the names alone."""

    def bn(name: str, y: Tensor) -> Tensor:
        p = {key: state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(y, p["running_mean"], p["running_var"], p["weight"], p["bias"])

    y = F.max_pool2d(F.relu(bn("bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3))), 3, 2, 1)
    for layer, depth in enumerate(depths, start=1):
        for block in range(depth):
            at, stride = f"layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1
            plan = [(1, 1, 0), (2, stride, 1), (3, 1, 0)] if bottleneck else [(1, stride, 1), (2, 1, 1)]
            h = y
            for c, s, pad in plan:
                h = bn(f"{at}.bn{c}", F.conv2d(h, state[f"{at}.conv{c}.weight"], stride=s, padding=pad))
                h = h if c == len(plan) else F.relu(h)
            if f"{at}.downsample.0.weight" in state:
                y = bn(f"{at}.downsample.1", F.conv2d(y, state[f"{at}.downsample.0.weight"], stride=stride))
            y = F.relu(h + y)
    return y.mean((2, 3))


@pytest.mark.parametrize(
    ("make", "depths", "bottleneck"), [(resnet18, (2, 2, 2, 2), False), (resnet50, (3, 4, 6, 3), True)]
)
def test_forward_from_the_names_alone(make: Callable[..., ResNet], depths: tuple[int, ...], bottleneck: bool) -> None:
    torch.manual_seed(0)
    model = make()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model(x)  # moves the running statistics off their initial values
        torch.testing.assert_close(
            model.eval()(x), functional(model.state_dict(), x, depths, bottleneck), rtol=1e-4, atol=1e-5
        )


def test_channels_last_gives_the_same_features() -> None:
    torch.manual_seed(0)
    model, x = resnet18(stem="small", channels=2).eval(), torch.randn(2, 2, 16, 16)
    with torch.no_grad():
        plain = model(x)
        model = model.to(memory_format=torch.channels_last)
        layouts = []
        model.layer3.register_forward_hook(
            lambda _, __, y: layouts.append(y.is_contiguous(memory_format=torch.channels_last))
        )
        torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)
    assert layouts == [True]


def test_gradients_reach_every_parameter() -> None:
    model = resnet18(stem="small")
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_unknown_stem() -> None:
    with pytest.raises(UsageError, match="'small' or 'standard', got 'tiny'"):
        resnet18(stem="tiny")  # type: ignore[arg-type]
