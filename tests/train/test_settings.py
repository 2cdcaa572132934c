"""Settings out of bounds are refused before any file is made; a run goes on only as it began."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from accord.errors import ArtifactError, EnvironmentFault, UsageError
from accord.train.device import choose_device, devices, memory_faults
from accord.train.optim import AdamW
from accord.train.settings import Descent, Habits, Length, Settings, flat, require_same


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


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": None}, "how long"),
        ({"epochs": 1.0}, "epochs and steps"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": None, "epochs": float("nan")}, "epochs"),
        ({"steps": None, "budget": "soon"}, "budget"),
        ({"steps": None, "plan": [(3, 4)]}, "not a plan"),
        ({"batch_size": 1}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"warmup": 1.0}, "warmup"),
        ({"held_out": 1.0}, "held_out"),
        ({"held_out": np.array([0.5])}, "held_out"),
        ({"held_out": np.array([5000])}, "held_out"),
        ({"on_collapse": "panic"}, "on_collapse"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"checkpoint_every": "often"}, "checkpoint_every"),
        ({"log_every": 0}, "log_every"),
        ({"max_bad_fraction": 2.0}, "max_bad_fraction"),
        ({"precision": "float8"}, "precision"),
        ({"device": "abacus"}, "abacus"),
        ({"batch_size": 512}, "0 steps per epoch"),
    ],
)
def test_out_of_bounds_is_refused_and_leaves_no_folder(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        tiny.train(tmp_path / "run", **options)
    assert named in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_an_absent_device_is_named_with_what_there_is() -> None:
    with pytest.raises(EnvironmentFault, match="not there") as caught:
        choose_device("cuda:77")
    assert "cpu" in str(caught.value)
    assert devices()[0] == "cpu"


def test_auto_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    chosen = choose_device()
    assert str(chosen).startswith("CPU, ")
    assert "float32" in str(chosen)
    assert choose_device("cpu", "bfloat16").precision == "bfloat16"


def test_running_out_of_memory_is_no_traceback() -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")):
        with pytest.raises(EnvironmentFault, match="out of memory with 64") as caught, memory_faults(64):
            raise error
        assert "batch_size of 32" in str(caught.value)
    with pytest.raises(RuntimeError, match="shapes"), memory_faults(64):
        raise RuntimeError("shapes do not match")


# --- going on ---

THEN = {"length": "epochs 5", "seed": 0, "lr": 0.1, "data": "abc"}


def test_differences_are_listed() -> None:
    require_same(THEN, dict(THEN), where="x")
    require_same(THEN, {**THEN, "length": ""}, where="x")
    with pytest.raises(ArtifactError) as caught:
        require_same(THEN, {"length": "epochs 9", "seed": 0, "lr": 0.2, "data": "abc", "new": 1}, where="x")
    assert caught.value.exit_code == 4
    for text in ("length: epochs 5 then, epochs 9 now", "lr: 0.1 then, 0.2 now", "new: unset then, 1 now"):
        assert text in str(caught.value)
    assert "seed" not in str(caught.value)


def test_what_changes_no_weight_may_change() -> None:
    settings = Settings(Length(epochs=1), Descent(AdamW()), Habits())
    samples = tiny.samples()
    record = {"data": {"source": "a", "held_out": 0.2}, "training": {"device": "cpu", "seed": 1}, "shape": [1, 2]}
    other = {"data": {"source": "b", "held_out": 0.2}, "training": {"device": "auto", "seed": 1}, "shape": (1, 2)}
    require_same(settings.table(samples, record), settings.table(samples, other), where="x")
    with pytest.raises(ArtifactError, match=r"training\.seed: 1 then, 2 now"):
        require_same(
            settings.table(samples, record), settings.table(samples, {**record, "training": {"seed": 2}}), where="x"
        )
    assert flat(record)["data.held_out"] == 0.2


def test_both_parts_can_be_given_and_nothing_else_is_used() -> None:
    samples = tiny.samples(20)
    samples.ok[3] = False
    both = (np.array([1, 2, 3, 4]), np.array([4, 9]))
    settings = Settings(Length(epochs=1), Descent(AdamW()), Habits(), held_out=both)
    train, held = settings.divide(samples)
    assert (train.tolist(), held.tolist()) == ([1, 2], [4, 9])
    other = replace(settings, held_out=(np.array([1, 2, 3]), both[1]))
    assert settings.table(samples, None)["held_out"] != other.table(samples, None)["held_out"]


def test_a_share_of_numpy_is_a_share_and_no_index() -> None:
    settings = Settings(Length(epochs=1), Descent(AdamW()), Habits(), held_out=np.int64(0))
    train, held = settings.divide(tiny.samples(20))
    assert len(train) == 20 and len(held) == 0


def test_the_split_by_indices_keeps_bad_samples_out() -> None:
    samples = tiny.samples(20)
    samples.ok[[3, 4]] = False
    train, held = Settings(Length(epochs=1), Descent(AdamW()), Habits(), held_out=np.array([4, 5, 6, 6])).divide(
        samples
    )
    assert held.tolist() == [5, 6]
    assert train.tolist() == [i for i in range(20) if i not in (3, 4, 5, 6)]
