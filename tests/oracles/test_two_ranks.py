"""Two gloo ranks with different data give what one process gives on the joined batch: values, gradients, running statistics."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).with_name("two_ranks_worker.py")
spec = importlib.util.spec_from_file_location("two_ranks_worker", WORKER)
assert spec is not None
assert spec.loader is not None
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

Ranks = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    folder = tmp_path_factory.mktemp("two_ranks")
    command = [sys.executable, "-W", "ignore", str(WORKER)]
    processes = [
        subprocess.Popen([*command, str(rank), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output.decode()
    finally:
        for process in processes:
            process.kill()
    return [dict(np.load(folder / f"rank-{rank}.npz")) for rank in range(2)]


LOCAL = ("variance", "covariance", "sigreg", "BatchNorm1d", "contrast:", "uniformity", "centroid", "coding rate")


@pytest.mark.parametrize("name", worker.CASES)
def test_two_ranks_equal_one_process_on_the_joined_batch(name: str, ranks: Ranks) -> None:
    _, case = worker.CASES[name]
    expected = {key: value.numpy() for key, value in case(slice(0, 14)).items()}
    assert expected
    for key, value in expected.items():
        first, second = (rank[f"{name}|{key}"] for rank in ranks)
        kind = key.split(":")[0]
        if kind == "same":  # of the global batch: on each rank
            pairs = [(first, value), (second, value)]
        elif kind == "rows":
            pairs = [(np.concatenate([first, second]), value)]
        elif kind == "sum":  # of a loss that is a sum over rows
            pairs = [(first + second, value)]
        else:  # gradients of the sum of two equal losses
            assert kind == "mean"
            pairs = [(np.concatenate([first, second]) / 2, value)]
        for actual, desired in pairs:
            np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-10, err_msg=f"{name} {key}")


def test_ranks_saw_different_data(ranks: Ranks) -> None:
    """A control: with statistics of each rank's own rows these cases would not agree."""
    local = [case for case in worker.CASES if case.startswith(LOCAL)]
    for name in local:
        parts, case = worker.CASES[name]
        differs = [
            not np.allclose(value.numpy(), ranks[1][f"{name}|{key}"], rtol=1e-2)
            for key, value in case(parts[1]).items()
        ]
        assert any(differs), name
