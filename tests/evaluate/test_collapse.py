"""The table of label-free figures: healthy, constant, low-rank and flat representations."""

from __future__ import annotations

import math

import pytest
import torch

from accord import diagnostics
from accord.evaluate.collapse import summary, verdict_of


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def healthy(dim: int = 32) -> torch.Tensor:
    return randn(200, 1, dim) + 0.1 * randn(200, 4, dim, seed=1)


def found(views: torch.Tensor, auroc: float = 0.99, **more: object) -> dict[str, object]:
    energies = randn(20, 50).abs()
    return summary(views, randn(90, 7), energies, energy_auroc=auroc, pairs=1000, values=64, **more)  # type: ignore[arg-type]


def test_a_healthy_representation_has_no_verdict() -> None:
    views = healthy()
    table = found(views)
    assert table["verdict"] is table["explanation"] is table["remedy"] is None is verdict_of(table)
    rows = views.flatten(0, 1)
    assert table["rankme"] == pytest.approx(diagnostics.effective_rank(rows))
    assert table["feature_rankme"] == pytest.approx(diagnostics.effective_rank(randn(90, 7)))
    assert table["lidar"] == pytest.approx(diagnostics.lidar(views)) and float(table["lidar"]) > 25  # type: ignore[arg-type]
    assert table["std_mean"] == pytest.approx(1, abs=0.1) and table["std_share_below_0.1"] == 0
    assert table["flatness"] == pytest.approx(diagnostics.flatness(randn(20, 50).abs()))
    assert table["dim"] == 32


def test_the_spectrum_is_relative_descending_and_short() -> None:
    spectrum = found(healthy(600))["spectrum"]
    assert isinstance(spectrum, list) and len(spectrum) == 512 and spectrum[0] == 1
    assert spectrum == sorted(spectrum, reverse=True) and spectrum[-1] > 0
    assert found(torch.zeros(20, 3, 4))["spectrum"] == [0.0] * 4


@pytest.mark.parametrize(
    ("views", "auroc", "kind"),
    [
        (torch.full((50, 4, 16), 0.3), 0.5, "constant"),
        (torch.zeros(50, 4, 16), 0.5, "constant"),
        (torch.ones(50, 4, 16) + 1e-3 * randn(50, 4, 16), 0.9, "constant"),
        (healthy(2) @ randn(2, 64, seed=5), 0.9, "dimensional"),
        (healthy(), 0.51, "flat energy"),
    ],
)
def test_each_collapse_has_its_name_and_a_remedy(views: torch.Tensor, auroc: float, kind: str) -> None:
    table = found(views, auroc)
    assert table["verdict"] == kind and table["explanation"] and table["remedy"]
    assert verdict_of(table) == (kind, table["explanation"], table["remedy"])
    assert all(value is None or not isinstance(value, float) or math.isfinite(value) for value in table.values())


def test_a_collapse_of_the_other_branch_is_a_collapse() -> None:
    assert found(healthy(), s_x=torch.ones(50, 32))["verdict"] == "constant"
    assert found(healthy(), s_x=randn(50, 32))["verdict"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    views = healthy()
    views[3, 1, 4] = bad
    with pytest.raises(ValueError, match="not finite"):
        found(views)
