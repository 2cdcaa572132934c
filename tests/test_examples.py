"""Every example runs, and shows what it says; several processes get the loss and the gradient of one on the joined batch."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import accord

sys.path.insert(0, str(Path(__file__).parent))
worker = importlib.import_module("examples_worker")
EXAMPLES, load = worker.EXAMPLES, worker.load

ENGINES = {"own_loop": "torch", "lightning_module": "lightning", "accelerate_loop": "accelerate"}
"""Loops that are not accord's -> the package they need."""


def test_two_encoders() -> None:
    chance = 10 / 359
    assert load("two_encoders").main(steps=150) > 5 * chance


def test_own_loop() -> None:
    assert load("own_loop").main(steps=33) < 0.5


def learns(train: Callable[[accord.Objective, int], list[float]], objective: accord.Objective) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs are not ours
        losses = train(objective, 30)
    return len(losses) == 30 and np.mean(losses[-5:]) < 0.8 * losses[0]


def test_lightning_module() -> None:
    pytest.importorskip("lightning", reason="pip install lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = load("lightning_module")
    assert learns(module.train, module.make_objective())


def test_accelerate_loop() -> None:
    pytest.importorskip("accelerate", reason="pip install accelerate")
    module = load("accelerate_loop")
    assert learns(module.train, module.make_objective())


# several processes


def results(folder: Path, kind: str, who: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"{kind}-{who}.npz"))


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray], what: str) -> float:
    """Of all gradients, or all values, as one vector: relative to its length."""
    names = [name for name in b if name.startswith(what)]
    one, other = (np.concatenate([x[name].astype(np.float64).ravel() for name in names]) for x in (a, b))
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.mark.parametrize("example", ENGINES)
def test_two_processes_have_the_loss_and_the_gradient_of_one(example: str, tmp_path: Path) -> None:
    pytest.importorskip(ENGINES[example], reason=f"pip install {ENGINES[example]}")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(Path(worker.__file__)), example, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    with warnings.catch_warnings():
        worker.main(example, str(tmp_path))
    for kind in ("batch", "teacher"):
        one = results(tmp_path, kind, "one")
        for rank in ("0", "1"):
            mine = results(tmp_path, kind, rank)
            assert mine.keys() == one.keys()
            np.testing.assert_allclose(mine["losses"], one["losses"], rtol=1e-10)
            assert difference(mine, one, "gradient") < 1e-9
            assert difference(mine, one, "value") < 1e-8, "weights, teacher and running statistics after the step"


@pytest.mark.parametrize("kind", ["batch", "teacher"])
def test_the_share_of_one_process_alone_has_another_gradient(kind: str) -> None:
    """Negative control: what averaging local losses and local statistics would give is not within the tolerance."""
    module = load("own_loop")
    found = []
    for world in (1, 2):
        objective = worker.objective(kind)
        batch = accord.Loader(module.SAMPLES, module.TRAIN, batch_size=128, seed=0, world_size=world).read(0)
        objective.before_step(0.0)
        objective(module.PAIRING(batch.data, accord.Draws(0, 0, batch.index))).total.backward()
        found.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
    assert (found[0] - found[1]).norm() > 0.02 * found[0].norm()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_tested(path: Path) -> None:
    assert f'load("{path.stem}")' in Path(__file__).read_text()
