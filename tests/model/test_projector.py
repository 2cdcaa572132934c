"""Projector and MLP: layers, norms given as objects, and what a final norm makes of the energy."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

from accord.errors import UsageError
from accord.model.batch_norm import BatchNorm1d
from accord.model.energy import squared_error
from accord.model.mlp import MLP
from accord.model.projector import Projector


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in cast(nn.Sequential, module.net)]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_projector_layers() -> None:
    projector = Projector(12, 4, hidden=(32, 16))
    assert kinds(projector) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert count(projector) == 12 * 32 + 2 * 32 + 32 * 16 + 2 * 16 + 16 * 4 + 4
    assert projector(torch.randn(6, 12)).shape == (6, 4)
    assert (projector.feature_dim, projector.dim) == (12, 4)


def test_norms_are_objects() -> None:
    assert kinds(Projector(3, 4, hidden=(5,), norm=nn.LayerNorm)) == ["Linear", "LayerNorm", "ReLU", "Linear"]
    bare = Projector(3, 4, hidden=(5,), norm=None)
    assert kinds(bare) == ["Linear", "ReLU", "Linear"]
    assert count(bare) == 3 * 5 + 5 + 5 * 4 + 4
    assert kinds(Projector(3, 4, hidden=())) == ["Linear"]
    assert kinds(MLP(3, (4,), norm=nn.LayerNorm)) == ["Linear", "LayerNorm", "GELU"]


def test_final_norm_makes_the_energy_the_cross_correlation() -> None:
    """Mean squared error of both views is 2 (1 - mean_i C_ii), up to eps."""
    projector = Projector(6, 5, hidden=(16,), final_norm=True)
    assert kinds(projector)[-1] == "BatchNorm1d"
    assert not list(cast(nn.Sequential, projector.net)[-1].parameters())
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    s_x, s_y = (projector(v).double() for v in (x, x + 0.5 * torch.randn(64, 6)))
    for s in (s_x, s_y):
        torch.testing.assert_close(s.mean(0), torch.zeros(5).double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(s.var(0, correction=0), torch.ones(5).double(), atol=5e-3, rtol=0)
    diagonal = torch.stack([torch.corrcoef(torch.stack([u, v]))[0, 1] for u, v in zip(s_x.T, s_y.T, strict=True)])
    assert squared_error(s_x, s_y).mean().item() == pytest.approx(2 * (1 - diagonal.mean().item()), rel=5e-3)


def test_mlp() -> None:
    mlp = MLP(3, (7, 5))
    assert kinds(mlp) == ["Linear", "BatchNorm1d", "GELU"] * 2
    assert isinstance(cast(nn.Sequential, mlp.net)[1], BatchNorm1d)
    assert mlp.feature_dim == 5
    assert mlp(torch.randn(4, 3)).shape == (4, 5)
    with pytest.raises(UsageError, match="made for vectors of 3 numbers, got 4"):
        mlp(torch.randn(4, 4))


def test_widths_are_checked() -> None:
    with pytest.raises(UsageError, match=r"widths >= 1, got 3 -> \(0,\) -> 4"):
        Projector(3, 4, hidden=(0,))
    with pytest.raises(UsageError, match="widths >= 1"):
        MLP(0, (3,))


def test_an_mlp_without_layers_gives_the_vector() -> None:
    mlp, x = MLP(3, ()), torch.randn(4, 3)
    assert mlp.feature_dim == 3 and torch.equal(mlp(x), x)
