"""Models that make y, or a distribution of it, beside an energy with a z, on the tasks of latent_lab.

    python benchmarks/rivals.py forks [--m 6] [--seeds 3]     64 outcomes, known exactly: who scores them right, who finds them all?
    python benchmarks/rivals.py halves [--seeds 3]            the other half of a digit, between pixels

Encoder of x, data, batches and steps are those of latent_lab; y is what it is, standardised, for every model. The CVAE was
tuned on seed 100, nothing else was. Coverage and precision are those of 256 draws (of all values of z where z is a choice).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import accord
from accord.data.synthetic import Forks
from accord.diagnostics import auroc
from accord.evaluate.energy import pair_energies
from latent_lab import Task, forks, halves, line, predictions_of

DRAWS = 256


class Rival(NamedTuple):
    """A cost made for D numbers of y given s_x of some width, what z is, and a peak learning rate."""

    cost: Callable[[int, int], accord.Cost]
    latent: Callable[[], accord.Latent] | None = None
    rate: float = 3e-3


RIVALS: dict[str, Rival] = {
    "pixel predictor": Rival(lambda size, given: accord.squared_error),
    "gaussian": Rival(lambda size, given: accord.GaussianDensity(size)),
    "mixture of 16": Rival(lambda size, given: accord.MixtureDensity(size, components=16)),
    "mixture of 64": Rival(lambda size, given: accord.MixtureDensity(size, components=64)),
    "cvae": Rival(lambda size, given: accord.CommonWidthGaussian(size), lambda: accord.Gaussian(16, weight=1.0)),
    "flow": Rival(accord.FlowDensity, rate=1e-3),
    "flow matching": Rival(accord.FlowMatchingDensity, rate=2e-3),
    "z of 6 bits": Rival(lambda size, given: accord.squared_error, lambda: accord.Codebook(2, 4, blocks=6)),
}


def made(rival: Rival, task: Task, seed: int) -> accord.JointEmbedding:
    torch.manual_seed(seed)
    encoder_x, y = task.encoders()[0], task.train.y
    size = y[0].numel()
    latent = None if rival.latent is None else rival.latent()
    minimizer: accord.Minimizer = accord.Enumerate()
    if isinstance(latent, accord.Gaussian):
        minimizer = accord.Variational(
            accord.Recognition(task.dim, 2 * latent.dim, dim_y=size, hidden=(128,)), samples=4, warm_up=0.5
        )
    return accord.generative(
        encoder_x,
        task.dim,
        y.shape[1:],
        standardize=accord.Standardize.fit(y),
        cost=rival.cost(size, task.dim),
        latent=latent,
        minimizer=minimizer,
        hidden=(task.hidden, task.hidden),
    )


def train(model: accord.JointEmbedding, task: Task, *, rate: float, steps: int, seed: int) -> float:
    """CPU seconds."""
    dim = model.cost.dim if isinstance(model.cost, accord.Density) else 1
    objective = accord.Objective(model, accord.likelihood(dim))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=rate, weight_decay=1e-4, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    order, start = torch.Generator().manual_seed(seed), time.process_time()
    for step in range(steps):
        objective.before_step(step / steps)
        rows = torch.randint(len(task.train.x), (task.batch,), generator=order)
        loss = objective(accord.Pair(task.train.x[rows], task.train.y[rows]))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    return time.process_time() - start


@torch.no_grad()
def drawn(model: accord.JointEmbedding, x: Tensor) -> Tensor:
    """Draws of y for each x, (batch, draws, dim), in y's own units."""
    s_x = model.encoder_x(x)
    standardize = model.encoder_y.backbone[0]
    if isinstance(model.cost, accord.Density):
        if model.latent.dim:
            z = predictions_of(model.latent, s_x, DRAWS)
            theta = model.energy(s_x, s_x).predict(z)
        else:
            theta = model.predictor(s_x, s_x[:, :0]).expand(DRAWS, len(x), -1)
        y = model.cost.sample(theta, torch.Generator().manual_seed(0))
    else:
        y = model.energy(s_x, s_x).predict(predictions_of(model.latent, s_x))
    return (y * standardize.std + standardize.mean).movedim(0, 1)


def measure_forks(model: accord.JointEmbedding, source: Forks) -> dict[str, float]:
    x, y, b = (part[8192:] for part in source.sample())

    @torch.no_grad()
    def f(outcome: np.ndarray) -> Tensor:
        s = [encoder(torch.from_numpy(v).float()) for encoder, v in ((model.encoder_x, x), (model.encoder_y, outcome))]
        return pair_energies(model, *s)

    true, few = f(y), slice(0, 256)
    covered, precise = source.score(x[few], drawn(model, torch.from_numpy(x[few]).float()).numpy())
    return {
        "auroc_average": auroc(true, f(source.average(x))),
        "auroc_recombined": auroc(true, f(source.impossible(x, b))),
        "auroc_halfway": auroc(true, f(source.impossible(x, b, kind="half"))),
        "coverage": float(covered.mean()),
        "precision": float(precise.mean()),
        "F": float(true.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("forks", "halves"))
    parser.add_argument("--m", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", nargs="*", default=list(RIVALS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = options.steps or (4000 if options.what == "forks" else 800)
    rows: list[dict[str, Any]] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        task = forks(options.m, seed, "y") if options.what == "forks" else halves(seed)
        for name in options.only:
            model = made(RIVALS[name], task, seed)
            seconds = train(model, task, rate=RIVALS[name].rate, steps=steps, seed=seed)
            source = Forks(m=options.m, n=12_288, seed=seed)
            found = measure_forks(model, source) if options.what == "forks" else task.measure(model)
            rows.append({"model": name, "seed": seed, "seconds": seconds, **found})
            print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}), flush=True)
    for name in options.only:
        print(line(name, [r for r in rows if r["model"] == name]), flush=True)


if __name__ == "__main__":
    main()
