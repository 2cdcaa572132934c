"""What `benchmarks/peers.py` needs to be fair to EB-JEPA, checked without its code: weights, length of a run, files of a clone."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def hinge(s: Tensor) -> Tensor:
    return sum((1 - (column.var() + 1e-4).sqrt()).clamp(min=0) for column in s.T) / s.shape[1]


def mean_of_squares(s: Tensor) -> Tensor:
    c, d = s.T.cov(), s.shape[1]
    return sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / (d * (d - 1))


def theirs(std_coeff: float, cov_coeff: float) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """The formula of EB-JEPA's VICReg."""

    def loss(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        spread, covariance = hinge(x) + hinge(y), mean_of_squares(x) + mean_of_squares(y)
        inv = (x - y).square().mean()
        return {"loss": inv + std_coeff * spread + cov_coeff * covariance, "invariance_loss": inv}

    return loss


def test_its_vicreg_has_the_official_value(bench: Callable[[str], ModuleType]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 64, generator=generator).double()
    y = torch.randn(256, 64, generator=generator).double() * 1.3 + 0.2
    found = bench("peer_eb_jepa").official_vicreg(theirs, 64)(x, y)
    assert found["loss"].item() == pytest.approx(69.45639, rel=1e-6)  # the official 25/25/1, from a float64 loop
    assert found["invariance_loss"].item() == pytest.approx(25 * (x - y).square().mean().item())


def test_lambda_gives_both_terms_their_weight(bench: Callable[[str], ModuleType]) -> None:
    """(1 - w) / 4 * (inv + lambda * statistic), where accord has (1 - w) * inv / 4 + w * n * statistic."""
    w, n, inv, statistic = 0.05, 256, 1.7, 0.003
    value = (1 - w) / 4 * (inv + bench("peer_eb_jepa").lambda_of(w, n) * statistic)
    assert value == pytest.approx((1 - w) * inv / 4 + w * n * statistic)


def test_loader_ends_with_the_run_and_steps_the_schedule(bench: Callable[[str], ModuleType]) -> None:
    setting = bench("peer_setting")
    task = setting.Task("eb-jepa", 32, 0, 0, "", "", samples=5 * 4)
    course, steps = setting.Course(task, 4, 0.1), []
    batches = bench("peer_eb_jepa").Clocked(["a", "b", "c"], course, SimpleNamespace(step=lambda: steps.append(1)))
    assert len(batches) == 3
    assert list(batches) == ["a", "b", "c"]
    assert not batches.over
    assert list(batches) == ["a", "b"]
    assert batches.over
    assert len(steps) == len(course.times) == 5
    assert course.times == sorted(course.times)


def test_clone_without_its_files_is_refused_by_name(bench: Callable[[str], ModuleType], tmp_path: Path) -> None:
    place = bench("peer_place")
    for name in place.CLONE:
        with pytest.raises(FileNotFoundError, match=name):
            place.digest(tmp_path)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first")
    first = place.digest(tmp_path)
    (tmp_path / name).write_text("second")
    assert place.digest(tmp_path) != first
