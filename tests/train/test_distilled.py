"""Runs with a teacher: healthy ones raise no alarm, collapsed ones are named, and all go on bit for bit."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from accord.data.pair import Pair
from accord.errors import Collapsed, Interrupted
from accord.model.centred import CentredDivergence
from accord.model.teacher import MovingAverage
from accord.objective.loss import Objective
from accord.train.checkpoint import load_weights
from accord.train.device import choose_device
from accord.train.optim import AdamW, parameter_groups, set_rate
from accord.train.progress import Silent
from accord.train.signals import Stop
from accord.train.step import Guard, train_step


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
NAMES = ["byol", "simsiam", "dino"]


def run(folder: Path, made: Objective, **options: Any) -> list[dict[str, Any]]:
    """The log of a run on 64 numbers a sample, of which eight are independent."""
    given = {"steps": 150, "checkpoint_every": 1000, "log_every": 10, "lr": 3e-3, **options}
    try:
        tiny.train(folder / "run", objective=made, samples=tiny.samples(features=64), **given)
    finally:
        log = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in log]


@pytest.mark.parametrize("name", NAMES)
def test_healthy_runs_raise_no_alarm(tmp_path: Path, name: str) -> None:
    lines = run(tmp_path, tiny.with_teacher(name, dim=96, features=64))
    assert not [line for line in lines if "event" in line]
    evaluated = [line for line in lines if line["effective_rank"] is not None]
    assert evaluated[-1]["energy_auroc"] > 0.85


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("byol", {"predictor": False, "momentum": (0.9, 0.9)}),
        ("byol", {"stop": False}),
        ("simsiam", {"predictor": False}),
        ("simsiam", {"stop": False}),
    ],
    ids=[
        "BYOL without predictor",
        "BYOL without teacher",
        "SimSiam without predictor",
        "SimSiam without stop-gradient",
    ],
)
def test_without_what_keeps_it_from_collapsing_it_does_and_is_named(
    tmp_path: Path, name: str, missing: dict[str, Any]
) -> None:
    with pytest.raises(Collapsed) as caught:
        run(tmp_path, tiny.with_teacher(name, dim=96, features=64, **missing), steps=300, lr=1e-2)
    assert caught.value.kind in ("constant", "dimensional")
    assert "predictor" in str(caught.value.help)


# --- going on ---


class StopAt(Silent):
    """Asks the run to stop after a step."""

    def __init__(self, stop: Stop, at: int):
        self.stop, self.at = stop, at

    def advanced(self, *, step: int, total: int, line: Any) -> None:
        if step == self.at:
            self.stop.signal = signal.SIGTERM


@pytest.mark.parametrize("name", NAMES)
def test_a_run_with_a_teacher_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    tiny.train(tmp_path / "whole", objective=tiny.with_teacher(name))
    stop = Stop()
    with pytest.raises(Interrupted):
        tiny.train(
            tmp_path / "run", objective=tiny.with_teacher(name), stop=stop, progress=StopAt(stop, 17), log_every=1
        )
    tiny.train(tmp_path / "run", objective=tiny.with_teacher(name, seed=7), resume=True)
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(tmp_path / "whole")


def test_teacher_and_centre_are_in_the_checkpoint_and_are_not_the_student(tmp_path: Path) -> None:
    made = tiny.with_teacher("dino")
    tiny.train(tmp_path / "run", objective=made, steps=20)
    other = tiny.with_teacher("dino", seed=7)
    load_weights(tmp_path / "run", other)
    for name, value in made.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    cost, teacher = other.model.cost, other.model.encoder_y
    assert isinstance(cost, CentredDivergence) and isinstance(teacher, MovingAverage)
    assert cost.centre.abs().sum() > 0
    pairs = zip(teacher.parameters(), other.model.encoder_x.parameters(), strict=True)
    assert not any(torch.equal(mean, weight) for mean, weight in pairs if weight.ndim == 2)


@pytest.mark.parametrize("left_out", ["teacher", "centre"])
def test_leaving_it_out_would_be_noticed(tmp_path: Path, left_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: what follows depends on them."""
    tiny.train(tmp_path / "whole", objective=tiny.with_teacher("dino"))
    stop = Stop()
    with pytest.raises(Interrupted):
        tiny.train(tmp_path / "run", objective=tiny.with_teacher("dino"), stop=stop, progress=StopAt(stop, 17))
    made = tiny.with_teacher("dino")
    train = Objective.train

    def forgetful(self: Objective, mode: bool = True) -> Objective:
        with torch.no_grad():
            if left_out == "teacher":
                self.model.encoder_y.restart()
            else:
                self.model.cost.centre.zero_()
        return train(self, mode)

    monkeypatch.setattr(Objective, "train", forgetful)
    tiny.train(tmp_path / "run", objective=made, resume=True)
    assert tiny.weights_hash(tmp_path / "run") != tiny.weights_hash(tmp_path / "whole")


def test_timing_the_first_steps_leaves_the_teacher_alone(tmp_path: Path) -> None:
    """A budget is turned into steps by steps on a copy: a plan that is given says the same without them."""
    made = tiny.with_teacher("dino")
    tiny.train(tmp_path / "timed", objective=made, steps=None, budget=0.5)
    plan = [list(entry) for entry in json.loads(state_of(tmp_path / "timed"))["training"]["plan"]]
    tiny.train(tmp_path / "planned", objective=tiny.with_teacher("dino"), steps=None, plan=plan)
    assert tiny.weights_hash(tmp_path / "timed") == tiny.weights_hash(tmp_path / "planned")


def state_of(run: Path) -> str:
    newest = sorted((run / "checkpoints").glob("step-*"), key=lambda p: int(p.name.split("-")[1]))[-1]
    return (newest / "state.json").read_text()


# --- loops of one's own ---


def batches() -> list[Pair]:
    return [Pair(*torch.randn(2, 32, 16, generator=torch.Generator().manual_seed(step))) for step in range(20)]


def prepared(name: str) -> tuple[Objective, torch.optim.Optimizer]:
    made = tiny.with_teacher(name).train()
    optimizer = AdamW().build(parameter_groups(made, 0.05))
    set_rate(optimizer, 1e-3)
    torch.manual_seed(0)
    return made, optimizer


def by_hand(name: str, *, follow: bool = True) -> tuple[Objective, float]:
    """What the documentation says a loop of one's own is, and its last loss."""
    made, optimizer = prepared(name)
    for step, pair in enumerate(batches()):
        made.before_step(step / 20)
        loss = made(pair)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        if follow:
            made.after_step()
    return made, loss.total.item()


@pytest.mark.parametrize("name", NAMES)
def test_a_loop_of_ones_own_trains_as_the_trainer_does(name: str) -> None:
    made, optimizer = prepared(name)
    guard, device = Guard(made, optimizer), choose_device("cpu")
    for step, pair in enumerate(batches()):
        made.before_step(step / 20)
        train_step(made, optimizer, pair, guard, device)
    other, _ = by_hand(name)
    assert all(torch.equal(t, other.state_dict()[key]) for key, t in made.state_dict().items())
    if name != "simsiam":  # whose teacher does not move by itself
        still, _ = by_hand(name, follow=False)
        assert not all(torch.equal(t, still.state_dict()[key]) for key, t in made.state_dict().items()), "a control"


@pytest.mark.parametrize(("name", "loss"), [("byol", 1.4283655), ("simsiam", 0.5017795), ("dino", 4.5743532)])
def test_golden_twenty_steps(name: str, loss: float) -> None:
    """The last loss of twenty steps; a refactor keeps it."""
    assert by_hand(name)[1] == pytest.approx(loss, rel=1e-4)
