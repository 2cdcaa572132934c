"""Two processes train as one does on the same global batches: losses, weights and statistics, through `fit` itself."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accord.train.checkpoint import WEIGHTS, verify
from accord.train.tensors import read_whole

sys.path.insert(0, str(Path(__file__).parents[1]))  # the helpers are no package, and processes look for them by name
many, tiny = (importlib.import_module(name) for name in ("many", "tiny"))

MOST = 1e-9
"""Relative difference that rounding in float64 may make in 12 steps."""


def losses(run: Path) -> np.ndarray:
    return np.array([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])


def weights(run: Path) -> dict[str, np.ndarray]:
    last = max((run / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))
    return {name: tensor.double().numpy() for name, tensor in read_whole(verify(last).files(WEIGHTS)).items()}


def difference(a: Path, b: Path) -> float:
    """The largest relative difference of a loss or a weight."""
    assert len(losses(a)) == len(losses(b)) == 12
    found = [np.abs(losses(a) / losses(b) - 1).max()]
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    found += [float(np.abs(ours[k] - theirs[k]).max() / max(np.abs(theirs[k]).max(), 1e-3)) for k in ours]
    return max(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


def both(folder: Path, name: str, **options: Any) -> tuple[Path, Path]:
    one, two = folder / f"{name}-1", folder / f"{name}-2"
    many.train(str(one), **options)
    many.together(2, folder / f"logs-{name}", out=str(two), **options)
    return one, two


PRINCIPLES = ["vicreg", "barlow_twins", "sigreg", "visreg", "info_nce", "siglip", "byol", "jepa"]


@pytest.mark.parametrize("principle", PRINCIPLES)
def test_two_processes_equal_one(folder: Path, principle: str) -> None:
    assert difference(*both(folder, principle, objective={"principle": principle})) < MOST
    assert all(re.search(r"holds (\d+) of \1 numbers", text) for text in many.outputs(2, folder / f"logs-{principle}"))


def test_a_latent_with_codes_too(folder: Path) -> None:
    assert difference(*both(folder, "codes", objective={"codes": 4})) < MOST


def test_each_process_takes_its_share_in_parts(folder: Path) -> None:
    """Two processes with two parts each, and one process with the whole batch."""
    one, two = folder / "parts-1", folder / "parts-2"
    many.train(str(one), objective={"norm": False})
    many.together(2, folder / "logs-parts", out=str(two), objective={"norm": False}, accumulate=2)
    assert difference(one, two) < MOST


def test_ranks_may_hold_different_numbers_of_samples(folder: Path) -> None:
    """33 samples are 16 and 17: every mean is of the global batch, that of the free energy too."""
    assert difference(*both(folder, "uneven", batch_size=33)) < MOST


def test_a_run_goes_on_with_another_number_of_processes(folder: Path) -> None:
    """4 steps by one process, 4 by two, 4 by one: the weights and losses of one process."""
    one, run = folder / "whole-1", folder / "changing"
    many.train(str(one))
    for turn, (size, leave) in enumerate([(1, 4), (2, 8), (1, 0)]):
        code = 143 if leave else 0
        many.together(size, folder / f"logs-{turn}", code=code, out=str(run), leave=leave, resume=turn > 0)
        assert (
            json.loads((run / "checkpoints" / f"step-{leave or 12}" / "manifest.json").read_text())["manifest"][
                "world_size"
            ]
            == size
        )
    assert difference(one, run) < MOST


def test_two_processes_go_on_bit_for_bit_though_the_model_draws_numbers(folder: Path) -> None:
    """With dropout: random numbers are a function of (seed, rank, step), none of a generator that is saved."""
    runs = [folder / "drop-whole", folder / "drop-parts"]
    options = {"objective": {"dropout": 0.3}}
    many.together(2, folder / "logs-d", out=str(runs[0]), **options)
    many.together(2, folder / "logs-e", out=str(runs[1]), code=143, leave=5, **options)
    many.together(2, folder / "logs-f", out=str(runs[1]), resume=True, **options)
    assert tiny.weights_hash(runs[0]) == tiny.weights_hash(runs[1])
    many.train(str(folder / "drop-one"), **options)
    assert difference(folder / "drop-one", runs[0]) > 1e-3, "a control: other numbers, so dropout does something"


@pytest.mark.parametrize("options", [{}, {"objective": {"principle": "info_nce"}}, {"batch_size": 33}], ids=str)
def test_sharded_encoders_equal_whole_ones(folder: Path, options: dict[str, Any]) -> None:
    name = f"fsdp-{len(str(options))}"
    many.train(str(folder / f"{name}-1"), **options)
    many.together(2, folder / f"logs-{name}", out=str(folder / f"{name}-2"), parallel="fsdp", **options)
    assert difference(folder / f"{name}-1", folder / f"{name}-2") < MOST
    for text in many.outputs(2, folder / f"logs-{name}"):
        held, every = map(int, re.findall(r"holds (\d+) of (\d+) numbers", text)[-1])
        assert 0.4 * every < held < 0.6 * every


def test_sharded_encoders_in_parts(folder: Path) -> None:
    options = {"objective": {"norm": False}}
    many.train(str(folder / "sharded-1"), **options)
    many.together(2, folder / "logs-sharded", out=str(folder / "sharded-2"), parallel="fsdp", accumulate=2, **options)
    assert difference(folder / "sharded-1", folder / "sharded-2") < MOST


def test_checkpoints_of_sharded_runs_are_those_of_all_runs(folder: Path) -> None:
    """One process, two with sharded encoders, two with whole ones, and one again."""
    one, run = folder / "plain-1", folder / "sharing"
    many.train(str(one))
    for turn, (size, leave, parallel) in enumerate([(1, 3, "ddp"), (2, 6, "fsdp"), (2, 9, "ddp"), (2, 0, "fsdp")]):
        code = 143 if leave else 0
        many.together(
            size,
            folder / f"logs-sharing-{turn}",
            code=code,
            out=str(run),
            leave=leave,
            resume=turn > 0,
            parallel=parallel,
        )
    assert difference(one, run) < MOST


def test_teachers_are_not_sharded(tmp_path: Path) -> None:
    many.together(2, tmp_path, code=2, out=str(tmp_path / "run"), parallel="fsdp", objective={"principle": "byol"})
    assert "MovingAverage cannot be sharded" in "".join(many.outputs(2, tmp_path))


def test_sharded_encoders_in_half_precision(tmp_path: Path) -> None:
    for parallel in ("ddp", "fsdp"):
        options = {"objective": many.SINGLE, "precision": "bfloat16", "parallel": parallel, "budget": "2s"}
        many.together(2, tmp_path, out=str(tmp_path / parallel), steps=None, **options)
    ddp, fsdp = (losses(tmp_path / parallel)[:3] for parallel in ("ddp", "fsdp"))
    assert np.abs(ddp / fsdp - 1).max() < 0.03, "bfloat16 has 8 bits"


def test_a_larger_difference_would_be_seen(folder: Path) -> None:
    """Negative control: another order of the same samples."""
    one, two = folder / "this-1", folder / "other-1"
    many.train(str(one))
    many.train(str(two), seed=1)
    assert difference(one, two) > 1e-3
