"""Which principle gets out of an almost collapsed start, and how fast?

    python benchmarks/escape.py [--steps 6000] [--spread 1e-3 0] [--optimizer adam sgd] [--out escape.json]

A small MLP encoder maps two noisy views of 8 independent variables to 8 dimensions. At the start its last layer is scaled so that
embeddings are a constant plus a spread of 1e-3. There is no batch norm, which would hide the matter, except for "barlow_twins + norm":
the loss of Barlow Twins does not see mean and scale, so it is served with a batch norm at the end, and shown with and without.

Reported on held-out samples: mean standard deviation and effective rank (not centred: a constant has rank 1) before and after, the step
at which the effective rank reached 90 % of what the same principle reaches from a healthy start (spread 1), and whether it did. Adam
divides the gradient by its size, so it forgives a small one; plain gradient descent does not. "invariance alone" is the control.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.diagnostics import effective_rank
from accord.model.batch_norm import BatchNorm1d
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor
from accord.objective.loss import Terms, free_energy
from accord.objective.principles import barlow_twins, regularized, sigreg, vicreg, visreg

DIM, BATCH = 8, 128
PRINCIPLES: dict[str, Callable[[], Terms]] = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "barlow_twins + norm": barlow_twins,
    "sigreg": lambda: sigreg(slices=64),
    "visreg": lambda: visreg(slices=64),
    "invariance alone": lambda: {"free_energy": (1.0, free_energy)},
}
ADAM_RATE = 1e-3
# the largest of 0.1, 0.05, 0.02, ... that does not diverge from a healthy start
SGD_RATES = {
    "vicreg": 0.005,
    "barlow_twins": 0.05,
    "barlow_twins + norm": 0.05,
    "sigreg": 0.1,
    "visreg": 0.1,
    "invariance alone": 0.1,
}


class Trace(NamedTuple):
    """Of one run: mean standard deviation and effective rank at each measured step."""

    steps: list[int]
    std: list[float]
    rank: list[float]


def views(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two noisy views of 8 independent variables, mixed into 16."""
    mixing = torch.randn(DIM, 16, generator=torch.Generator().manual_seed(7)) / DIM**0.5
    causes = torch.randn(batch, DIM, generator=generator)
    x, y = (causes @ mixing + 0.1 * torch.randn(batch, 16, generator=generator) for _ in range(2))
    return x, y


def encoder(spread: float, seed: int) -> nn.Module:
    """An MLP whose embeddings are a constant (about 1 per dimension) plus `spread`; spread 0 is a total collapse."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, DIM))
    last = net[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        x, _ = views(1024, torch.Generator().manual_seed(1))
        last.weight *= spread / net(x).std(0).mean()
        last.bias += torch.randn(DIM) - net(x).mean(0)
    return net


def train(principle: str, *, spread: float, steps: int, optimizer: str, seed: int = 0, every: int = 20) -> Trace:
    """Train and measure; batch norm, where there is one, by the moments of the batch as in training."""
    final = BatchNorm1d(DIM, affine=False) if principle.endswith("norm") else None
    shared = Encoder(encoder(spread, seed), final)
    objective = regularized(JointEmbedding(shared, shared, IdentityPredictor()), PRINCIPLES[principle]())
    optim: torch.optim.Optimizer = torch.optim.Adam(objective.parameters(), lr=ADAM_RATE)
    if optimizer == "sgd":
        optim = torch.optim.SGD(objective.parameters(), lr=SGD_RATES[principle])
    generator = torch.Generator().manual_seed(100 + seed)
    held_out, _ = views(2048, torch.Generator().manual_seed(2))
    trace = Trace([], [], [])
    for step in range(steps + 1):
        if step % every == 0:
            with torch.no_grad():
                s = shared(held_out)
            trace.steps.append(step)
            trace.std.append(s.std(0).mean().item())
            trace.rank.append(effective_rank(s))
        loss = objective(Pair(*views(BATCH, generator)))
        if not torch.isfinite(loss.total):
            raise SystemExit(
                f"{principle} with {optimizer} from spread {spread} diverged at step {step}: lower its rate"
            )
        optim.zero_grad()
        loss.total.backward()
        optim.step()
    return trace


def against(healthy: Trace, trace: Trace) -> dict[str, Any]:
    """A run against the one from a healthy start."""
    goal = 0.9 * healthy.rank[-1]
    reached = [step for step, rank in zip(trace.steps, trace.rank, strict=True) if rank >= goal]
    sound = healthy.std[-1] > 0.1  # else there is nothing to reach
    return {
        "std": [trace.std[0], trace.std[-1]],
        "effective_rank": [trace.rank[0], trace.rank[-1]],
        "from_healthy_start": {"std": healthy.std[-1], "effective_rank": healthy.rank[-1]},
        "step_of_90_percent": reached[0] if reached and sound else None,
        "escaped": bool(trace.rank[-1] >= goal and sound),
    }


def line(r: dict[str, Any]) -> str:
    before, after = (f"{s:.3f}" for s in r["std"])
    rank = f"{r['effective_rank'][0]:.2f} -> {r['effective_rank'][1]:.2f} ({r['from_healthy_start']['effective_rank']:.2f})"
    return (
        f"{r['principle']:20s} {r['optimizer']:6s} {r['spread']:6.0e} {before:>7s} -> {after:8s} {rank:24s} "
        f"{r['step_of_90_percent']!s:>6s}   {'yes' if r['escaped'] else 'no'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--spread", type=float, nargs="+", default=[1e-3, 0.0])
    parser.add_argument("--optimizer", nargs="+", default=["adam", "sgd"], choices=["adam", "sgd"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    print("principle            optim  spread   std before, after   rank before, after (healthy)  90 % at  escaped")
    for optimizer in options.optimizer:
        for principle in PRINCIPLES:
            healthy = train(principle, spread=1.0, steps=options.steps, optimizer=optimizer)
            for spread in options.spread:
                trace = train(principle, spread=spread, steps=options.steps, optimizer=optimizer)
                setting = {"principle": principle, "optimizer": optimizer, "spread": spread}
                results.append(setting | against(healthy, trace))
                print(line(results[-1]), flush=True)
    if options.out is not None:
        options.out.write_text(
            json.dumps({"format": 1, "torch": torch.__version__, "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
