"""What a latent is worth: models that differ in z alone, trained alike, on tasks in which x does not determine y.

    python benchmarks/latent_lab.py forks [--m 6] [--seeds 5]          several outcomes, known exactly
    python benchmarks/latent_lab.py halves [--seeds 5]                 the other half of a digit
    python benchmarks/latent_lab.py capacity [--seeds 3]               F, AUROC and information in z against the capacity of z
    python benchmarks/latent_lab.py temperature [--seeds 5]            training at zero temperature, finite beta, and annealed

Encoders, data, batches, steps and learning rate are the same for every latent of a task; seconds are reported beside. Each seed is
its own data split, initialisation and order; tables show the mean and the standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import accord
from accord.data.pair import Pair
from accord.data.synthetic import Forks
from accord.diagnostics import auroc, effective_rank
from accord.evaluate.energy import cross_energies, pair_energies
from accord.model.amortize import Amortize, Recognition
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian, LowDimensional, Noisy, Sparse
from accord.model.coordinate import Coordinate
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Latent
from accord.model.minimize import Enumerate, Minimizer
from accord.model.multiscale import MultiScale
from accord.model.predictor import DictionaryPredictor, MLPPredictor, Predictor
from accord.model.projector import Projector
from accord.model.sparse_coding import Ista
from accord.model.variational import Variational
from accord.objective.latent_terms import UsageEntropy
from accord.objective.loss import Objective, Terms, free_energy
from accord.objective.principles import sigreg, vicreg

Row = dict[str, float]


class Kind(NamedTuple):
    """A latent, how it is found, and the predictor that takes it; `dim` is the width of the embeddings."""

    latent: Callable[[], Latent | None]
    minimizer: Callable[[Latent | None, int], Minimizer] = lambda z, dim: Enumerate()
    dictionary: bool = False
    usage: float = 0.0


def amortized(z: Latent | None, dim: int) -> Minimizer:
    assert z is not None
    return Amortize(Recognition(dim, z.dim))


def variational(z: Latent | None, dim: int) -> Minimizer:
    assert z is not None
    return Variational(Recognition(dim, 2 * z.dim))


class Task(NamedTuple):
    """Pairs, encoders and principle of a task, and what is measured on held-out pairs."""

    train: Pair
    encoders: Callable[[], tuple[Encoder, Encoder]]
    dim: int
    hidden: int
    terms: Callable[[], Terms]
    measure: Callable[[JointEmbedding], Row]
    rate: float
    batch: int


def train(task: Task, kind: Kind, *, steps: int, seed: int) -> tuple[JointEmbedding, float]:
    """The trained model and the seconds it took."""
    torch.manual_seed(seed)
    encoder_x, encoder_y = task.encoders()  # before the latent: the same weights for every kind
    z = kind.latent()
    width = 0 if z is None else z.dim
    predictor: Predictor = (
        DictionaryPredictor(task.dim, width)
        if kind.dictionary
        else MLPPredictor(task.dim, width, hidden=(task.hidden,))
    )
    model = JointEmbedding(encoder_x, encoder_y, predictor, latent=z, minimizer=kind.minimizer(z, task.dim))
    terms = dict(task.terms())
    if kind.usage:
        terms["usage"] = (kind.usage, UsageEntropy())
    objective = Objective(model, terms)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=task.rate, weight_decay=1e-4, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.rate, steps, pct_start=0.1)
    order = torch.Generator().manual_seed(seed)
    start = time.process_time()
    for step in range(steps):
        rows = torch.randint(len(task.train.x), (task.batch,), generator=order)
        objective.before_step(step / steps)
        loss = objective(Pair(task.train.x[rows], task.train.y[rows]))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
    seconds = time.process_time() - start
    model.eval()
    return model, seconds


# --- forks: every outcome is known ---


def forks(m: int, seed: int, space: str) -> Task:
    """`space`: "y" measures the energy between numbers (the encoder of y is the identity), "sigreg" between learned embeddings."""
    source = Forks(m=m, n=12_288, seed=seed)
    x, y, b = source.sample()
    held = slice(8192, None)
    tx, ty = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    dim, wide = 2 * m, 128

    def encoders() -> tuple[Encoder, Encoder]:
        first = nn.Sequential(
            nn.Linear(source.d, wide), nn.GELU(), nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, dim)
        )
        second: nn.Module = nn.Identity()
        if space != "y":
            second = nn.Sequential(nn.Linear(dim, wide), nn.GELU(), nn.Linear(wide, dim))
        return Encoder(first, sample_ndim=1), Encoder(second, sample_ndim=1)

    def measure(model: JointEmbedding) -> Row:
        return measure_forks(model, source, (tx, ty), x[held], y[held], b[held])

    terms: Callable[[], Terms] = lambda: {"free_energy": (1.0, free_energy)}  # noqa: E731
    if space != "y":
        terms = lambda: sigreg(slices=256)  # noqa: E731
    return Task(Pair(tx[:8192], ty[:8192]), encoders, dim, wide, terms, measure, 3e-3, 128)


def measure_forks(
    model: JointEmbedding, source: Forks, everything: tuple[Tensor, Tensor], x: np.ndarray, y: np.ndarray, b: np.ndarray
) -> Row:
    @torch.no_grad()
    def f(y: np.ndarray) -> Tensor:
        return pair_energies(
            model, model.encoder_x(torch.from_numpy(x).float()), model.encoder_y(torch.from_numpy(y).float())
        )

    true = f(y)
    row = {
        "auroc_average": auroc(true, f(source.average(x))),
        "auroc_recombined": auroc(true, f(source.impossible(x, b))),
        "auroc_halfway": auroc(true, f(source.impossible(x, b, kind="half"))),
        "F": float(true.mean()),
    }
    some = slice(0, 256)
    with torch.no_grad():
        energy = model(torch.from_numpy(x[some]).float(), torch.from_numpy(y[some]).float())
        z = predictions_of(model.latent, energy.s_x)
        s_y_hat = energy.predict(z).movedim(0, 1)
    predicted = decoder(model, everything)(s_y_hat).detach()
    covered, precise = source.score(x[some], predicted.numpy())
    return {**row, "coverage": float(covered.mean()), "precision": float(precise.mean())}


def predictions_of(latent: Latent, s_x: Tensor, draws: int = 256) -> Tensor:
    """Every value of z, or draws from the prior, (k, batch, latent)."""
    every = latent.candidates()
    if every is not None:
        return every[:, None].expand(-1, len(s_x), -1)
    blocks = latent.blocks()
    if blocks is not None:  # too many to list: as many draws as there are values, but no value twice on purpose
        draws = 4 * blocks.shape[1] ** blocks.shape[0]
    return latent.sample((min(draws, 4096), len(s_x)), s_x, torch.Generator().manual_seed(0))


def decoder(model: JointEmbedding, everything: tuple[Tensor, Tensor]) -> nn.Module:
    """From an embedding back to y, fitted afterwards on pairs the model was trained on; nothing to do where it is y itself."""
    if isinstance(model.encoder_y.backbone, nn.Identity):
        return nn.Identity()
    y = everything[1][:8192]
    with torch.no_grad():
        s = model.encoder_y(y)
    net = nn.Sequential(nn.Linear(s.shape[1], 256), nn.GELU(), nn.Linear(256, y.shape[1]))
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, 1500)
    for _ in range(1500):
        rows = torch.randint(len(y), (512,))
        loss = (net(s[rows]) - y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


# --- halves: the other half of a digit ---


def halves(seed: int) -> Task:
    samples = accord.open_source("digits")
    learn, held = accord.split(samples, 0.2, seed)
    images = samples.batch(np.arange(len(samples))).float() / 255
    mean, std = images[learn].mean(), images[learn].std()
    left, right = (((images - mean) / std)[..., part] for part in (slice(0, 4), slice(4, 8)))
    assert samples.labels is not None
    labels = torch.from_numpy(samples.labels[held])
    dim = 64

    def branch() -> Encoder:
        backbone = MultiScale(
            1, stem_width=32, stem_kernel=3, stem_stride=1, widths=(64, 128), blocks=(0, 0), pool_grids=(4, 2, 1)
        )
        return Encoder(backbone, Projector(backbone.feature_dim, dim, hidden=(256,)), sample_ndim=3)

    def measure(model: JointEmbedding) -> Row:
        return measure_halves(model, left[held], right[held], labels)

    return Task(
        Pair(left[learn].contiguous(), right[learn].contiguous()),
        lambda: (branch(), branch()),
        dim,
        256,
        vicreg,
        measure,
        2e-3,
        128,
    )


def measure_halves(model: JointEmbedding, x: Tensor, y: Tensor, labels: Tensor) -> Row:
    with torch.no_grad():
        s_x, s_y = model.encoder_x(x), model.encoder_y(y)
        f = torch.cat([block for _, block in cross_energies(model, s_x, s_y)])
    true = f.diagonal()
    same = labels[:, None] == labels
    other = ~torch.eye(len(x), dtype=torch.bool)
    within = torch.stack([(f[i][same[i] & other[i]] > f[i, i]).double().mean() for i in range(len(x))])
    rank = (f < true[:, None]).sum(1)
    return {
        "auroc_same_class": auroc(true, f[same & other]),
        "auroc_other_class": auroc(true, f[~same]),
        "within_x_same_class": float(within.mean()),
        "recall@1": float((rank < 1).double().mean()),
        "recall@10": float((rank < 10).double().mean()),
        "F": float(true.mean()),
        "rank": effective_rank(s_y.double()),
        **information(model, s_x, s_y),
    }


@torch.no_grad()
def information(model: JointEmbedding, s_x: Tensor, s_y: Tensor) -> Row:
    """Nats that z carries about the pair: entropy of the codes, or the KL of the posterior, or nothing that is known."""
    found = model.minimizer(model.energy(s_x, s_y))
    if isinstance(model.latent, Codebook | ConditionalPrior):
        book = model.latent if isinstance(model.latent, Codebook) else model.latent.codebook
        codes = book.table.shape[1]
        nats = 0.0
        for column in book.index(found.argmin).T:
            p = torch.bincount(column, minlength=codes).double() / len(column)
            nats -= float(torch.special.xlogy(p, p).sum())
        return {"nats": nats}
    if isinstance(model.minimizer, Variational) and isinstance(model.latent, Gaussian):
        mean, log_variance = model.minimizer.posterior(model.energy(s_x, s_y)).chunk(2, -1)
        return {"nats": float(model.latent.divergence(mean, log_variance).mean())}
    return {"nats": math.nan if model.latent.dim else 0.0}


# --- what is compared ---

HALVES: dict[str, Kind] = {
    "deterministic": Kind(lambda: None),
    "4 codes": Kind(lambda: Codebook(4, 8)),
    "16 codes": Kind(lambda: Codebook(16, 8)),
    "64 codes": Kind(lambda: Codebook(64, 8)),
    "16 codes, prior given x": Kind(lambda: ConditionalPrior(Codebook(16, 8), 64, weight=0.01)),
    "6 x 2 codes": Kind(lambda: Codebook(2, 2, blocks=6)),
    "gaussian, .03 a nat": Kind(lambda: Gaussian(8, weight=0.03), variational),
    "noisy, 8 numbers": Kind(lambda: Noisy(8, noise=1.0), amortized),
    "2 numbers": Kind(lambda: LowDimensional(2, bound=1.0), amortized),
    "sparse, .03 a nat": Kind(
        lambda: Sparse(32, weight=0.03), lambda z, dim: Ista(20, accelerated=True), dictionary=True
    ),
}


def fork_kinds(m: int) -> dict[str, Kind]:
    bits = Kind(lambda: Codebook(2, 4, blocks=m))
    if m > 8:
        bits = bits._replace(minimizer=lambda z, dim: Coordinate(restarts=2, sweeps=3))
    kinds = {"deterministic": Kind(lambda: None), f"{m} bits": bits}
    if m <= 6:
        kinds[f"{2**m} codes"] = Kind(lambda: Codebook(2**m, 8, reseed=0.1))
        kinds["gaussian"] = Kind(lambda: Gaussian(m, weight=0.003), variational)
    return kinds


def run(
    tasks: Callable[[int], Task], kinds: dict[str, Kind], *, seeds: Iterable[int], steps: int, label: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, kind in kinds.items():
        for seed in seeds:
            task = tasks(seed)
            model, seconds = train(task, kind, steps=steps, seed=seed)
            row = {
                "task": label,
                "model": name,
                "seed": seed,
                "steps": steps,
                "seconds": seconds,
                **task.measure(model),
            }
            rows.append(row)
            print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
        print(line(name, [r for r in rows if r["model"] == name]), flush=True)
    return rows


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds."""
    parts = [f"{name:26s}"]
    for key, value in rows[0].items():
        if isinstance(value, float):
            values = [r[key] for r in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            parts.append(f"{key} {statistics.mean(values):.3f} ± {spread:.3f}")
    return "# " + " | ".join(parts)


def capacity_kinds() -> dict[str, Kind]:
    codes = {f"{k} codes": Kind(lambda k=k: Codebook(k, 8)) for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)}
    prices = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    gaussian = {f"gaussian, {w} a nat": Kind(lambda w=w: Gaussian(8, weight=w), variational) for w in prices}
    return {**codes, **gaussian}


def temperature_kinds(codes: Callable[[], Latent]) -> dict[str, Kind]:
    def at(beta: float, anneal: tuple[float, float] | None = None) -> Kind:
        return Kind(codes, lambda z, dim: Enumerate(beta, anneal=anneal))

    return {
        "zero temperature": at(math.inf),
        "beta 300": at(300.0),
        "beta 100": at(100.0),
        "beta 30": at(30.0),
        "beta 10": at(10.0),
        "annealed 3 to inf": at(math.inf, (3.0, 0.5)),
        "zero, usage entropy": at(math.inf)._replace(usage=0.1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("forks", "halves", "capacity", "temperature"))
    parser.add_argument("--m", type=int, default=6)
    parser.add_argument("--space", choices=("y", "sigreg"), default="y")
    parser.add_argument("--task", choices=("forks", "halves"), default="halves")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="choices were made on seeds from 100 on")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    on_forks = options.what == "forks" or options.task == "forks"
    kinds: dict[str, Kind] = {
        "forks": lambda: fork_kinds(options.m),
        "halves": lambda: HALVES,
        "capacity": capacity_kinds,
        "temperature": lambda: temperature_kinds(
            lambda: Codebook(2, 4, blocks=options.m) if on_forks else Codebook(16, 8)
        ),
    }[options.what]()
    tasks: Callable[[int], Task] = (lambda seed: forks(options.m, seed, options.space)) if on_forks else halves
    steps = options.steps or (4000 if on_forks else 700)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    chosen: Iterable[str] = options.only or kinds
    rows = run(tasks, {name: kinds[name] for name in chosen}, seeds=seeds, steps=steps, label=options.what)
    if options.out is not None:
        options.out.write_text(json.dumps({"format": 1, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
