"""A step moves down; a step that is not finite moves nothing: neither weights nor optimiser nor running statistics."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from accord.data.pair import Pair
from accord.errors import Diverged
from accord.objective.loss import Inference, Objective
from accord.train.device import choose_device
from accord.train.optim import LARS, SGD, AdamW, OptimizerSettings, parameter_groups, set_rate
from accord.train.step import Guard, train_step

CPU = choose_device("cpu")


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tiny = load("tiny")


class Breaks:
    """A term that is 0 until it is told otherwise."""

    def __init__(self) -> None:
        self.how: Callable[[Tensor], Tensor] = lambda s: s.sum() * 0

    def __call__(self, inference: Inference) -> Tensor:
        return self.how(inference.energy.s_y)


def setup(settings: OptimizerSettings) -> tuple[Objective, Breaks, torch.optim.Optimizer, Guard]:
    term = Breaks()
    objective = tiny.objective({"free_energy": (1.0, lambda i: i.minimum.value.mean()), "odd": (1.0, term)})
    optimizer = settings.build(parameter_groups(objective, 0.1))
    set_rate(optimizer, 1e-2)
    return objective, term, optimizer, Guard(objective, optimizer)


def batch(seed: int) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    return Pair(torch.randn(8, 16, generator=generator), torch.randn(8, 16, generator=generator))


def everything(objective: Objective, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    memory = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    numbers = [b for b in objective.buffers() if b.is_floating_point()]
    return [t.detach().clone() for t in [*objective.parameters(), *numbers, *memory]]


class NanGradient(torch.autograd.Function):
    """Finite value, gradient that is not."""

    @staticmethod
    def forward(ctx: object, s: Tensor) -> Tensor:
        return s.sum() * 0

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return torch.full((8, 16), float("nan"))


KINDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "nan term": (lambda s: s.sum() * float("nan"), "the term odd of the loss"),
    "infinite term": (lambda s: s.sum() * 0 + float("inf"), "the term odd of the loss"),
    "nan gradient": (NanGradient.apply, "the gradient"),
}


def test_steps_lower_the_loss() -> None:
    objective, _, optimizer, guard = setup(AdamW())
    pair = batch(0)
    losses = [float(train_step(objective, optimizer, pair, guard, CPU).total) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    guard.check(30, [[0]] * 30, ["a"])


@pytest.mark.parametrize("settings", [AdamW(), SGD(), LARS()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_not_finite_changes_nothing(settings: OptimizerSettings, kind: str) -> None:
    objective, term, optimizer, guard = setup(settings)
    for seed in range(3):
        train_step(objective, optimizer, batch(seed), guard, CPU)
    guard.check(3, [[0], [1], [2]], ["a", "b", "c"])
    before = everything(objective, optimizer)
    term.how, named = KINDS[kind]
    train_step(objective, optimizer, batch(3), guard, CPU)
    with pytest.raises(Diverged, match=f"{named} is not finite at step 4") as caught:
        guard.check(4, [[2, 0]], ["a", "b", "c"])
    assert "c, a" in str(caught.value)
    assert caught.value.exit_code == 6
    for now, then in zip(everything(objective, optimizer), before, strict=True):
        assert torch.equal(now, then)


def test_without_the_guard_the_weights_would_be_spoilt() -> None:
    objective, term, optimizer, _ = setup(AdamW())
    term.how = KINDS["nan term"][0]
    optimizer.found_inf = None  # type: ignore[attr-defined]
    objective(batch(0)).total.backward()
    optimizer.step()
    assert any(not p.isfinite().all() for p in objective.parameters())


def test_a_batch_with_nan_does_not_reach_the_running_statistics() -> None:
    objective, _, optimizer, guard = setup(AdamW())
    train_step(objective, optimizer, batch(0), guard, CPU)
    pair = batch(1)
    pair.x[3, 5] = float("nan")
    train_step(objective, optimizer, pair, guard, CPU)
    assert guard.is_bad()
    assert all(t.isfinite().all() for t in everything(objective, optimizer))


def test_reading_late_names_the_first_bad_step_and_nothing_after_it_counts() -> None:
    """As on a device that is not waited for: six steps, the third is bad, the fourth and later ones would be fine."""
    objective, term, optimizer, guard = setup(SGD())
    fine = term.how
    states = []
    for seed in range(6):
        term.how = KINDS["nan term"][0] if seed == 2 else fine
        train_step(objective, optimizer, batch(seed), guard, CPU)
        states.append(everything(objective, optimizer))
    for now, then in zip(states[-1], states[1], strict=True):
        assert torch.equal(now, then)
    with pytest.raises(Diverged, match="at step 13") as caught:
        guard.check(16, [[i] for i in range(6)], list("abcdef"))
    assert caught.value.where == "batch of step 13: c"


def test_long_batches_are_cut_in_the_message() -> None:
    objective, term, optimizer, guard = setup(SGD())
    term.how = KINDS["nan term"][0]
    train_step(objective, optimizer, batch(0), guard, CPU)
    with pytest.raises(Diverged, match="and 92 more"):
        guard.check(1, [list(range(100))], [str(i) for i in range(100)])
