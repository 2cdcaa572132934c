"""Which principle gets out of an almost collapsed start, and how fast?

    python benchmarks/escape.py [--steps 600] [--spread 1e-3] [--optimizer adam sgd] [--out escape.json]

A small MLP encoder (no batch norm, which would hide the matter) maps two noisy views of 16 independent variables to 16 dimensions. At
the start the last layer is scaled so that embeddings are a constant plus a spread of 1e-3. Reported on held-out samples: mean
standard deviation and effective rank (not centred) before and after, the step at which the effective rank reached 90 % of what the same
principle reaches from a healthy start (spread 1), and whether it did. Adam divides the gradient by its size, so it forgives a small one;
plain gradient descent does not. "invariance alone" is the control: it must collapse.
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
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor
from accord.objective.loss import Terms, free_energy
from accord.objective.principles import barlow_twins, regularized, sigreg, vicreg, visreg

DIM = 16
PRINCIPLES: dict[str, Callable[[], Terms]] = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "sigreg": lambda: sigreg(slices=256),
    "visreg": lambda: visreg(slices=256),
    "invariance alone": lambda: {"free_energy": (1.0, free_energy)},
}
LEARNING_RATES = {"adam": {}, "sgd": {"vicreg": 0.02, "barlow_twins": 0.02, "sigreg": 0.2, "visreg": 0.2}}


class Trace(NamedTuple):
    """Of one run: mean standard deviation and effective rank at each measured step."""

    steps: list[int]
    std: list[float]
    rank: list[float]


def views(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two noisy views of 16 independent variables of different scales, mixed into 32."""
    mixing = torch.randn(DIM, 32, generator=torch.Generator().manual_seed(7)) / DIM**0.5
    causes = torch.randn(batch, DIM, generator=generator)
    x, y = (causes @ mixing + 0.1 * torch.randn(batch, 32, generator=generator) for _ in range(2))
    return x, y


def encoder(spread: float, seed: int) -> nn.Module:
    """An MLP whose embeddings are a constant (about 1 per dimension) plus `spread`; spread 0 is a total collapse."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, DIM))
    last = net[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        x, _ = views(1024, torch.Generator().manual_seed(1))
        last.weight *= spread / net(x).std(0).mean()
        last.bias += torch.randn(DIM) - net(x).mean(0)
    return net


def train(principle: str, *, spread: float, steps: int, optimizer: str, seed: int = 0, every: int = 20) -> Trace:
    """Train and measure."""
    shared = Encoder(encoder(spread, seed))
    objective = regularized(JointEmbedding(shared, shared, IdentityPredictor()), PRINCIPLES[principle]())
    rate = LEARNING_RATES[optimizer].get(principle, 1e-3)
    optim = (torch.optim.Adam if optimizer == "adam" else torch.optim.SGD)(objective.parameters(), lr=rate)
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
        loss = objective(Pair(*views(256, generator)))
        optim.zero_grad()
        loss.total.backward()
        optim.step()
    return trace


def escape(principle: str, *, spread: float, steps: int, optimizer: str, seed: int = 0) -> dict[str, Any]:
    """The run from `spread` against the one from a healthy start."""
    trace = train(principle, spread=spread, steps=steps, optimizer=optimizer, seed=seed)
    healthy = train(principle, spread=1.0, steps=steps, optimizer=optimizer, seed=seed)
    goal = 0.9 * healthy.rank[-1]
    reached = [step for step, rank in zip(trace.steps, trace.rank, strict=True) if rank >= goal]
    collapsed = healthy.std[-1] < 0.05
    return {
        "principle": principle,
        "optimizer": optimizer,
        "spread": spread,
        "std": [trace.std[0], trace.std[-1]],
        "effective_rank": [trace.rank[0], trace.rank[-1]],
        "from_healthy_start": {"std": healthy.std[-1], "effective_rank": healthy.rank[-1]},
        "step_of_90_percent": reached[0] if reached and not collapsed else None,
        "escaped": bool(trace.rank[-1] >= goal and not collapsed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--spread", type=float, nargs="+", default=[1e-3, 0.0])
    parser.add_argument("--optimizer", nargs="+", default=["adam", "sgd"], choices=["adam", "sgd"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    print(
        "principle          optimiser  spread   std before -> after      rank before -> after (healthy)   90 % at step   escaped"
    )
    for optimizer in options.optimizer:
        for spread in options.spread:
            for principle in PRINCIPLES:
                r = escape(principle, spread=spread, steps=options.steps, optimizer=optimizer)
                results.append(r)
                healthy = r["from_healthy_start"]["effective_rank"]
                print(
                    f"{principle:18s} {optimizer:9s} {spread:7.0e}   {r['std'][0]:.1e} -> {r['std'][1]:.3f}         "
                    f"{r['effective_rank'][0]:5.2f} -> {r['effective_rank'][1]:5.2f} ({healthy:5.2f})            "
                    f"{r['step_of_90_percent']!s:>5s}          {'yes' if r['escaped'] else 'no'}",
                    flush=True,
                )
    if options.out is not None:
        options.out.write_text(
            json.dumps({"format": 1, "torch": torch.__version__, "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
