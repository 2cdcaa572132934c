"""A loss or gradient that is not finite ends the run before the update; what was saved is finite and intact."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from accord.data.loader import Loader
from accord.errors import Diverged
from accord.objective.loss import Inference, free_energy
from accord.objective.regularizers import Covariance, Variance
from accord.train.checkpoint import WEIGHTS, listed, verify
from accord.train.device import Device
from accord.train.optim import AdamW
from accord.train.settings import Descent, Habits, Length, Settings
from accord.train.tensors import read_tensors


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


class BreaksAt:
    """A term that is not finite in one training step."""

    def __init__(self, step: int, value: float = float("nan")):
        self.step, self.value, self.count = step, value, 0

    def __call__(self, inference: Inference) -> Tensor:
        self.count += 1
        return inference.energy.s_y.sum() * (self.value if self.count == self.step else 0.0)


def broken(term: BreaksAt) -> Any:
    terms = {"free_energy": (25.0, free_energy), "variance": (25.0, Variance()), "covariance": (1.0, Covariance())}
    return tiny.objective({**terms, "odd": (1.0, term)})


def batch_of(step: int) -> list[str]:
    """The samples of a step (from 1), from the order of the epoch alone."""
    samples = tiny.samples()
    train, _ = Settings(Length(steps=1), Descent(AdamW()), Habits()).divide(samples)
    return [samples.keys[i] for i in Loader(samples, train, batch_size=32, seed=0).indices(step - 1)[1]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_run_stops_before_the_update_and_names_step_term_and_batch(tmp_path: Path, value: float) -> None:
    objective = broken(BreaksAt(24, value))
    with pytest.raises(Diverged) as caught:
        tiny.train(tmp_path / "run", objective=objective)
    text = str(caught.value)
    assert caught.value.exit_code == 6
    assert "the term odd of the loss is not finite at step 24" in text
    assert ", ".join(batch_of(24)[:8]) in text
    assert all(p.isfinite().all() for p in objective.state_dict().values())
    saved = listed(tmp_path / "run" / "checkpoints")
    assert [p.name for p in saved] == ["step-10", "step-20"]
    for path in saved:
        assert all(
            t.isfinite().all() for t in read_tensors(verify(path).path / WEIGHTS).values() if t.is_floating_point()
        )
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)
    assert last["event"].startswith("diverged: the term odd")
    assert last["loss"] is None


def test_the_weights_are_those_of_the_step_before(tmp_path: Path) -> None:
    stopped, whole = broken(BreaksAt(24)), broken(BreaksAt(-1))
    with pytest.raises(Diverged):
        tiny.train(tmp_path / "run", objective=stopped)
    tiny.train(tmp_path / "whole", objective=whole, plan=[(0, 40), (23, 24)], steps=None)  # 24 steps of the rates of 40
    with pytest.raises(Diverged):
        tiny.train(tmp_path / "again", objective=(again := broken(BreaksAt(24))))
    for a, b in zip(stopped.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(stopped.parameters(), whole.parameters(), strict=True)), "control"


def test_once_the_cause_is_gone_the_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    tiny.train(tmp_path / "whole", objective=broken(BreaksAt(-1)))
    with pytest.raises(Diverged):
        tiny.train(tmp_path / "run", objective=broken(BreaksAt(24)))
    tiny.train(tmp_path / "run", objective=broken(BreaksAt(-1)), resume=True)
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(tmp_path / "whole")
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 41)), "the line of the failure is gone"


def test_read_late_as_on_a_gpu_nothing_bad_is_ever_applied_or_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judgement is read with the log, here after steps 10, 20, 30; step 24 is bad and a save is due after step 28."""
    on_time, late = broken(BreaksAt(24)), broken(BreaksAt(24))
    with pytest.raises(Diverged):
        tiny.train(tmp_path / "cpu", objective=on_time, log_every=10, checkpoint_every=14)
    monkeypatch.setattr(Device, "is_cpu", False)
    with pytest.raises(Diverged, match="at step 24") as caught:
        tiny.train(tmp_path / "late", objective=late, log_every=10, checkpoint_every=14)
    assert ", ".join(batch_of(24)[:8]) in str(caught.value)
    assert [p.name for p in listed(tmp_path / "late" / "checkpoints")] == ["step-0", "step-14"]
    floats = [(a, b) for a, b in zip(on_time.state_dict().values(), late.state_dict().values(), strict=True)]
    assert all(torch.equal(a, b) for a, b in floats if a.is_floating_point())


def test_a_hopeless_learning_rate_ends_as_divergence_or_collapse_never_as_success(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        tiny.train(tmp_path / "run", lr=1e30, warmup=0.0, on_collapse="warn")
    for path in listed(tmp_path / "run" / "checkpoints"):
        assert all(t.isfinite().all() for t in read_tensors(path / WEIGHTS).values() if t.is_floating_point())
