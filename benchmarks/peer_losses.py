"""What benchmarks/peers.py runs to compare losses alone: seconds forward and backward, and values under a stated conversion.

The same numbers are different objectives in different libraries: each case says what makes the two values equal.
"""

# ruff: noqa: PLC0415 (a peer is imported by its own side only)
from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from accord.objective.principles import barlow_twins, vicreg
from accord.objective.slices import directions
from losses import Loss, forward_backward, frozen_sigreg, shipped
from peer_eb_jepa import KNOTS, lambda_of, official_vicreg
from peer_setting import declare_operators

N, DIMS = 256, (512, 2048)
SLICES = 1024
SHARE = 0.05
"""Weight of SIGReg; the invariance has the rest."""


def barlow64(x: Tensor, y: Tensor) -> Tensor:
    """Barlow Twins in float64, standardised as stable-pretraining does it: by the unbiased std + 1e-5."""
    u, v = ((s.double() - s.double().mean(0)) / (s.double().std(0) + 1e-5) for s in (x, y))
    c = u.T @ v / len(x)
    diagonal = c.diagonal()
    return (1 - diagonal).square().sum() + 0.005 * (c.square().sum() - diagonal.square().sum())


def sigreg64(x: Tensor, y: Tensor) -> Tensor:
    """SIGReg in float64, with accord's slices and weights and EB-JEPA's quadrature, which is coarser."""
    a = directions(x.shape[1], SLICES, 0).double()
    t = torch.linspace(-3, 3, KNOTS, dtype=torch.float64)
    gauss = torch.exp(-(t**2) / 2)

    def statistic(s: Tensor) -> Tensor:
        phase = (s.double() @ a)[..., None] * t
        distance = (phase.cos().mean(0) - gauss).square() + phase.sin().mean(0).square()
        return len(s) * torch.trapezoid(distance * gauss, t).mean()

    inv = (x.double() - y.double()).square().mean() / 4
    return (1 - SHARE) * inv + SHARE * (statistic(x) + statistic(y)) / 2


class Case(NamedTuple):
    """A peer's loss, and accord's value of it where that is not simply accord's own loss."""

    principle: str
    peer: str
    loss: Loss
    conversion: str = "none needed"
    expected: Loss | None = None


OURS: dict[str, Callable[[], Loss]] = {
    "VICReg": lambda: shipped(vicreg()),
    "Barlow Twins": lambda: shipped(barlow_twins()),
    "SIGReg": lambda: shipped(frozen_sigreg()),
}


def lightly_cases(dim: int) -> list[Case]:
    from lightly.loss import BarlowTwinsLoss, SIGReg, VICRegLoss
    from lightly.loss.lejepa_loss import lejepa_invariance_loss

    statistic, fixed = SIGReg(num_vectors=SLICES), directions(dim, SLICES, 0)
    statistic._generate_unit_vectors = lambda *_: fixed

    def sigreg(x: Tensor, y: Tensor) -> Tensor:
        views = torch.stack([x, y])
        return (1 - SHARE) * lejepa_invariance_loss(all_proj=views, global_proj=views) + SHARE * statistic(views)

    return [
        Case("VICReg", "lightly", VICRegLoss()),
        Case("Barlow Twins", "lightly", BarlowTwinsLoss()),
        Case("SIGReg", "lightly", sigreg, "accord's slices"),
    ]


def spt_cases(_dim: int) -> list[Case]:
    from stable_pretraining.losses import BarlowTwinsLoss, VICRegLoss
    from stable_pretraining.methods.lejepa import SlicedEppsPulley

    statistic = SlicedEppsPulley(SLICES)

    def sigreg(x: Tensor, y: Tensor) -> Tensor:
        found = []
        for view in (x, y):
            statistic.global_step.zero_()
            found.append(statistic(view))
        centre = (x + y) / 2
        inv = ((x - centre).square().mean() + (y - centre).square().mean()) / 2
        return (1 - SHARE) * inv + SHARE * (found[0] + found[1]) / 2

    return [
        Case("VICReg", "spt", VICRegLoss()),
        Case(
            "Barlow Twins",
            "spt",
            BarlowTwinsLoss(),
            "float64 formula with its unbiased std, which makes every correlation (n-1)/n of accord's",
            barlow64,
        ),
        Case(
            "SIGReg",
            "spt",
            sigreg,
            "per view, and accord's weights: its own are inv + 0.02 SIGReg of both views as one batch",
        ),
    ]


def eb_jepa_cases(dim: int) -> list[Case]:
    from eb_jepa.losses import BCS, VICRegLoss

    official, statistic = official_vicreg(VICRegLoss, dim), BCS(num_slices=SLICES, lmbd=lambda_of(SHARE, N))

    def vicreg(x: Tensor, y: Tensor) -> Tensor:
        return official(x, y)["loss"]

    def sigreg(x: Tensor, y: Tensor) -> Tensor:
        statistic.step = 0
        return (1 - SHARE) / 4 * statistic(x, y)["loss"]

    return [
        Case("VICReg", "eb-jepa", vicreg, "25 x its own with weights 0.5 and (d-1)/25"),
        Case(
            "SIGReg",
            "eb-jepa",
            sigreg,
            f"(1-w)/4 x its own with lambda 4wn/(1-w), w = {SHARE:g}; float64 formula with its {KNOTS} knots on [-3, 3]",
            sigreg64,
        ),
    ]


CASES = {"lightly": lightly_cases, "spt": spt_cases, "eb-jepa": eb_jepa_cases}


def inputs(dim: int) -> tuple[Tensor, Tensor]:
    """Those of `forward_backward`."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, dim, generator=generator)
    return x, x + 0.3 * torch.randn(N, dim, generator=generator)


def compare(case: Case, dim: int, repeats: int) -> dict[str, Any]:
    """Turns of both, after one that is not counted."""
    ours = OURS[case.principle]()
    value, own = (forward_backward(loss, N, dim)[1].item() for loss in (case.loss, ours))
    expected = own if case.expected is None else case.expected(*inputs(dim)).item()
    turns = [(forward_backward(ours, N, dim)[0], forward_backward(case.loss, N, dim)[0]) for _ in range(repeats)]
    return {
        "principle": case.principle,
        "peer": case.peer,
        "n": N,
        "dim": dim,
        "milliseconds": 1e3 * statistics.median(a for a, _ in turns),
        "peer_milliseconds": 1e3 * statistics.median(b for _, b in turns),
        "times_faster": statistics.median(b / a for a, b in turns),
        "value": own,
        "peer_value": value,
        "relative_difference_unconverted": abs(value - own) / abs(own),
        "conversion": case.conversion,
        "relative_difference": abs(value - expected) / abs(expected),
    }


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    declare_operators()
    found = []
    for peer in job["peers"]:
        for dim in DIMS:
            found += [compare(case, dim, job["repeats"]) for case in CASES[peer](dim)]
    Path(job["result"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
