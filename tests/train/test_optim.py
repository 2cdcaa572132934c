"""Optimisers: LARS against a loop over numbers, groups, and the mask that stops an update on the device."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from accord.errors import UsageError
from accord.train.optim import LARS, SGD, AdamW, LayerwiseSGD, OptimizerSettings, parameter_groups, set_rate

SETTINGS: list[OptimizerSettings] = [AdamW(), SGD(), LARS()]


def lars_by_hand(
    w: list[float], v: list[float], g: list[float], lr: float, momentum: float, decay: float, trust: float, adapt: bool
) -> None:
    """Algorithm 1 of the paper on lists of numbers, in place."""
    length, slope = math.sqrt(sum(x * x for x in w)), math.sqrt(sum(x * x for x in g))
    rate = trust * length / (slope + decay * length) if adapt and length > 0 and slope > 0 else 1.0
    for i in range(len(w)):
        v[i] = momentum * v[i] + lr * rate * (g[i] + decay * w[i])
        w[i] -= v[i]


def test_lars_follows_the_paper_for_five_steps() -> None:
    torch.manual_seed(0)
    matrix, bias = (
        nn.Parameter(torch.randn(3, 4, dtype=torch.float64)),
        nn.Parameter(torch.randn(4, dtype=torch.float64)),
    )
    still = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    groups = [
        {"params": [matrix, still], "weight_decay": 0.01, "adapt": True},
        {"params": [bias], "weight_decay": 0.0, "adapt": False},
    ]
    optimizer = LayerwiseSGD(groups, momentum=0.9, trust=0.02)
    expected = {p: (p.detach().flatten().tolist(), [0.0] * p.numel()) for p in (matrix, bias, still)}
    for step in range(5):
        rate = 0.5 / (step + 1)  # a changing rate tells apart where it enters the momentum
        set_rate(optimizer, rate)
        for p in (matrix, bias, still):
            p.grad = torch.randn(p.shape, dtype=torch.float64)
            w, v = expected[p]
            decay, adapt = (0.0, False) if p is bias else (0.01, True)
            lars_by_hand(w, v, p.grad.flatten().tolist(), rate, 0.9, decay, 0.02, adapt)
        optimizer.step()
        for p in (matrix, bias, still):
            torch.testing.assert_close(
                p.detach().flatten(), torch.tensor(expected[p][0], dtype=torch.float64), rtol=1e-12, atol=1e-14
            )


def test_lars_does_not_depend_on_the_scale_of_the_gradient() -> None:
    ends = []
    for scale in (1e-3, 1e3):
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(5, 5))
        optimizer = LayerwiseSGD([{"params": [p], "adapt": True}], lr=1.0)
        for _ in range(3):
            p.grad = scale * torch.randn(5, 5)
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: type(s).__name__)
def test_found_inf_leaves_weights_and_memory_alone(settings: OptimizerSettings) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 3)
    optimizer = settings.build(parameter_groups(module, 0.1))
    set_rate(optimizer, 0.1)

    def step(gradient: float, found: float) -> list[torch.Tensor]:
        for p in module.parameters():
            p.grad = torch.full_like(p, gradient)
        optimizer.found_inf = torch.tensor(found)  # type: ignore[attr-defined]
        optimizer.step()
        memory = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
        return [t.detach().clone() for t in [*module.parameters(), *memory]]

    start = [p.detach().clone() for p in module.parameters()]
    good = step(1.0, 0.0)
    assert not torch.equal(good[0], start[0]), "the control: without the flag it moves"
    for a, b in zip(good, step(float("nan"), 1.0), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(good[0], step(1.0, 0.0)[0]), "and it goes on afterwards"


def test_biases_and_norms_get_no_decay_and_shared_weights_count_once() -> None:
    shared = nn.Linear(4, 4)
    module = nn.ModuleDict({"a": shared, "b": shared, "norm": nn.BatchNorm1d(4), "conv": nn.Conv2d(1, 2, 3)})
    module["frozen"] = nn.Linear(4, 4).requires_grad_(False)
    decayed, plain = parameter_groups(module, 0.3)
    assert decayed["names"] == ["a.weight", "conv.weight"]
    assert plain["names"] == ["a.bias", "norm.weight", "norm.bias", "conv.bias"]
    assert (decayed["weight_decay"], decayed["adapt"], plain["weight_decay"], plain["adapt"]) == (0.3, True, 0.0, False)


def test_a_frozen_model_cannot_be_trained() -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: type(s).__name__)
def test_every_optimiser_finds_the_bottom_of_a_bowl(settings: OptimizerSettings) -> None:
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(4, 4))
    module = nn.ParameterList([p])
    optimizer = settings.build(parameter_groups(module, 0.0))
    for step in range(200):
        set_rate(optimizer, {AdamW: 0.1, SGD: 0.05, LARS: 20.0}[type(settings)] * (1 - step / 200))
        loss = (p - 3).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float((p.detach() - 3).abs().max()) < 0.1


def test_bounds() -> None:
    for make in (
        lambda: SGD(momentum=1.0),
        lambda: LARS(momentum=-0.1),
        lambda: AdamW(beta1=1.5),
        lambda: LARS(trust=-1),
    ):
        with pytest.raises(UsageError, match="out of bounds"):
            make()


def test_large_batches_get_larger_default_rates_where_that_is_the_custom() -> None:
    assert AdamW().default_rate(64) == AdamW().default_rate(1024)
    assert LARS().default_rate(1024) == 4 * LARS().default_rate(256)
    assert SGD().default_rate(128) == SGD().default_rate(256) / 2
