"""What a latent is worth: models that differ in z alone, trained alike, on tasks in which x does not determine y.

    python benchmarks/latent_lab.py forks [--m 6] [--seeds 5]          several outcomes, known exactly
    python benchmarks/latent_lab.py halves [--seeds 5] [--given pixels]  the other half of a digit
    python benchmarks/latent_lab.py capacity [--seeds 3]               F, AUROC and information in z against the capacity of z
    python benchmarks/latent_lab.py guards [--seeds 3]                 what keeps codes from dying, each alone and together, on forks
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
from accord.data.synthetic import Forks, Jump
from accord.diagnostics import auroc, effective_rank
from accord.evaluate.energy import cross_energies, pair_energies
from accord.model.amortize import Amortize, Recognition
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian, LowDimensional, Noisy, Sparse
from accord.model.coordinate import Coordinate
from accord.model.descend import Descend
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Latent
from accord.model.minimize import Enumerate, Minimizer
from accord.model.multiscale import MultiScale
from accord.model.predictor import DictionaryPredictor, IdentityPredictor, MLPPredictor, Predictor
from accord.model.projector import Projector
from accord.model.sparse_coding import Ista
from accord.model.variational import Variational
from accord.objective.latent_terms import UsageEntropy
from accord.objective.loss import Objective, Terms, free_energy
from accord.objective.principles import sigreg, vicreg

Row = dict[str, float]
VIEWS = 60
"""Augmented copies of the digits that the task of halves draws its batches from."""


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


def one_step(z: Latent | None, dim: int) -> Minimizer:
    """Exact where the prediction is linear in z."""
    return Descend(1, restarts=0)


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
    with torch.no_grad():
        told = information(
            model, model.encoder_x(torch.from_numpy(x).float()), model.encoder_y(torch.from_numpy(y).float())
        )
    return {**row, "coverage": float(covered.mean()), "precision": float(precise.mean()), **told}


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
    pairing = accord.halves(augmentation=accord.Augmentation.light())
    plain = accord.halves()
    pixels, rows = samples.batch(learn), torch.from_numpy(learn)
    views = [pairing(pixels, accord.Draws(seed, epoch, rows)) for epoch in range(VIEWS)]
    x, y = (torch.cat([view[side] for view in views]) for side in (0, 1))
    mean, std = torch.cat([x, y]).mean(), torch.cat([x, y]).std()
    x, y = (x - mean) / std, (y - mean) / std
    test = samples.batch(held)
    held_x, held_y = (plain.plain(test) - mean) / std, (plain.plain_y(test) - mean) / std
    assert samples.labels is not None
    labels = torch.from_numpy(samples.labels[held])
    dim = 32

    def branch() -> Encoder:
        backbone = MultiScale(
            1, stem_width=32, stem_kernel=3, stem_stride=1, widths=(64, 128), blocks=(0, 0), pool_grids=(4, 2, 1)
        )
        return Encoder(backbone, Projector(backbone.feature_dim, dim, hidden=(256,)), sample_ndim=3)

    def measure(model: JointEmbedding) -> Row:
        return measure_halves(model, held_x, held_y, labels)

    return Task(
        Pair(x, y),
        lambda: (branch(), branch()),
        dim,
        256,
        lambda: sigreg(slices=256),
        measure,
        2e-3,
        128,
    )


def jump(seed: int) -> Task:
    """A digit that goes left or right: two outcomes for each x, and their average is none."""
    images, _, side = Jump().sample()
    n = len(images) // 2
    held = np.random.default_rng(seed).permutation(n) < n // 5
    pixels = torch.from_numpy(images).float() / 255
    pixels = (pixels - pixels.mean()) / pixels.std()
    x, y = pixels[:, :, :8], pixels[:, :, 8:]
    learn, test = (torch.from_numpy(np.repeat(mask, 2)) for mask in (~held, held))

    def measure(model: JointEmbedding) -> Row:
        return measure_jump(model, x[test], y[test], torch.from_numpy(side)[test])

    dim = 64

    def branch() -> Encoder:
        backbone = MultiScale(
            1, stem_width=32, stem_kernel=3, stem_stride=1, widths=(64, 128), blocks=(0, 0), pool_grids=(4, 2, 1)
        )
        return Encoder(backbone, Projector(backbone.feature_dim, dim, hidden=(256,)), sample_ndim=3)

    return Task(Pair(x[learn], y[learn]), lambda: (branch(), branch()), dim, 256, vicreg, measure, 2e-3, 128)


def frozen(task: Task, *, steps: int, seed: int) -> Task:
    """The task with the encoders of a deterministic model, trained on it and kept: what differs is predictor and z alone."""
    model, _ = train(task, Kind(lambda: None), steps=steps, seed=seed)

    @torch.no_grad()
    def embedded(encoder: Encoder, values: Tensor) -> Tensor:
        return torch.cat([encoder(part) for part in values.split(4096)])

    pairs = Pair(embedded(model.encoder_x, task.train.x), embedded(model.encoder_y, task.train.y))

    def measure(other: JointEmbedding) -> Row:
        whole = JointEmbedding(
            model.encoder_x, model.encoder_y, other.predictor, latent=other.latent, minimizer=other.minimizer
        )
        return task.measure(whole.eval())

    def encoders() -> tuple[Encoder, Encoder]:
        return Encoder(nn.Identity(), sample_ndim=1), Encoder(nn.Identity(), sample_ndim=1)

    return task._replace(
        train=pairs, encoders=encoders, terms=lambda: {"free_energy": (1.0, free_energy)}, measure=measure, batch=256
    )


def given(task: Task, *, how: str, steps: int, seed: int) -> Task:
    """The task with an encoder of y that is not trained with the rest, so that it cannot drop what x does not tell.

    "pixels" are y itself; "views" is an encoder that learned from two views of y alone (SIGReg), kept.
    """
    encoder_y: Encoder = Encoder(nn.Flatten(), sample_ndim=3)
    if how == "views":
        torch.manual_seed(seed)
        encoder_y = task.encoders()[1]
        learn_from_views(encoder_y, task.train.y, steps=steps, seed=seed, rate=task.rate, batch=task.batch)
    encoder_y.eval().requires_grad_(False)
    with torch.no_grad():
        s_y = torch.cat([encoder_y(part) for part in task.train.y.split(4096)])

    def measure(model: JointEmbedding) -> Row:
        whole = JointEmbedding(
            model.encoder_x, encoder_y, model.predictor, latent=model.latent, minimizer=model.minimizer
        )
        return task.measure(whole.eval())

    return task._replace(
        train=Pair(task.train.x, s_y),
        encoders=lambda: (task.encoders()[0], Encoder(nn.Identity(), sample_ndim=1)),
        dim=s_y.shape[1],
        terms=lambda: {"free_energy": (1.0, free_energy)},
        measure=measure,
    )


def learn_from_views(encoder: Encoder, views: Tensor, *, steps: int, seed: int, rate: float, batch: int) -> None:
    """SIGReg on pairs of two of the `VIEWS` augmented copies of the same sample."""
    objective = Objective(JointEmbedding(encoder, encoder, IdentityPredictor()), sigreg(slices=256))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=rate, weight_decay=1e-4, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    order, samples = torch.Generator().manual_seed(seed), len(views) // VIEWS
    for step in range(steps):
        rows = torch.randint(samples, (batch,), generator=order)
        first, second = torch.randint(VIEWS, (2, batch), generator=order) * samples + rows
        objective.before_step(step / steps)
        optimizer.zero_grad()
        objective(Pair(views[first], views[second])).total.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def measure_jump(model: JointEmbedding, x: Tensor, y: Tensor, side: Tensor) -> Row:
    s_x, s_y = model.encoder_x(x), model.encoder_y(y)
    f = torch.cat([block for _, block in cross_energies(model, s_x, s_y)])
    true, n = f.diagonal(), len(x)
    digit = torch.arange(n) // 2
    average = pair_energies(model, s_x, model.encoder_y((y[0::2] + y[1::2]).repeat_interleave(2, 0) / 2))
    other = digit[:, None] != digit
    found = model.minimizer(model.energy(s_x, s_y))
    z = predictions_of(model.latent, s_x)
    nearest = torch.cdist(model.energy(s_x, s_y).predict(z), s_y).argmin(-1)  # (k, n)
    left, right = ((digit[nearest] == digit) & (side[nearest] == end) for end in (0, 1))
    return {
        "auroc_average": auroc(true, average),
        "auroc_other_digit": auroc(true, f[other]),
        "recall@2": float(((f < true[:, None]).sum(1) < 2).double().mean()),
        "both_outcomes": float((left.any(0) & right.any(0)).double().mean()),
        "one_outcome": float((left.any(0) | right.any(0)).double().mean()),
        "side_known_from_y": side_probe(s_y, side),
        "F": float(found.value.double().mean()),
        "rank": effective_rank(s_y.double()),
        **information(model, s_x, s_y),
    }


def side_probe(s_y: Tensor, side: Tensor) -> float:
    """Does the embedding of y keep the side? Accuracy of least squares on half of the digits, measured on the others."""
    ones = torch.cat([s_y, torch.ones(len(s_y), 1)], dim=1).double()
    half = len(s_y) // 4 * 2
    target = 2.0 * side.double() - 1
    gram = ones[:half].T @ ones[:half] + 1e-3 * half * torch.eye(ones.shape[1], dtype=torch.float64)
    w = torch.linalg.solve(gram, ones[:half].T @ target[:half])
    return float(((ones[half:] @ w > 0) == (side[half:] == 1)).double().mean())


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
        shares = [torch.bincount(column, minlength=codes).double() / len(s_x) for column in book.index(found.argmin).T]
        return {
            "nats": -sum(float(torch.special.xlogy(p, p).sum()) for p in shares),
            "dead": statistics.mean(float((p < 0.1 / codes).double().mean()) for p in shares),
        }
    if isinstance(model.minimizer, Variational) and isinstance(model.latent, Gaussian):
        mean, log_variance = model.minimizer.posterior(model.energy(s_x, s_y)).chunk(2, -1)
        return {"nats": float(model.latent.divergence(mean, log_variance).mean())}
    return {} if model.latent.dim else {"nats": 0.0}


# --- what is compared ---

HALVES: dict[str, Kind] = {
    "deterministic": Kind(lambda: None),
    "4 codes": Kind(lambda: Codebook(4, 8)),
    "16 codes": Kind(lambda: Codebook(16, 8)),
    "16 codes, annealed": Kind(lambda: Codebook(16, 8), lambda z, dim: Enumerate(anneal=(1.0, 0.95))),
    "64 codes": Kind(lambda: Codebook(64, 8)),
    "16 codes, prior given x": Kind(lambda: ConditionalPrior(Codebook(16, 8), 32, weight=0.01)),
    "6 x 2 codes": Kind(lambda: Codebook(2, 2, blocks=6)),
    "gaussian, .03 a nat": Kind(lambda: Gaussian(8, weight=0.03), variational),
    "gaussian, 16 numbers, .01 a nat": Kind(lambda: Gaussian(16, weight=0.01), variational),
    "gaussian, linear, .2 a nat": Kind(lambda: Gaussian(8, weight=0.2), one_step, dictionary=True),
    "noisy, 8 numbers": Kind(lambda: Noisy(8, noise=1.0), amortized),
    "2 numbers": Kind(lambda: LowDimensional(2, bound=1.0), amortized),
    "sparse, .2 a nat": Kind(
        lambda: Sparse(32, weight=0.2), lambda z, dim: Ista(20, accelerated=True), dictionary=True
    ),
}


JUMP: dict[str, Kind] = {
    "deterministic": Kind(lambda: None),
    "2 codes": Kind(lambda: Codebook(2, 8)),
    "4 codes": Kind(lambda: Codebook(4, 8)),
    "2 codes, prior given x": Kind(lambda: ConditionalPrior(Codebook(2, 8), 64, weight=0.01)),
    "gaussian, .03 a nat": Kind(lambda: Gaussian(4, weight=0.03), variational),
}
CODES: dict[str, Callable[[int], Latent]] = {
    "forks": lambda m: Codebook(2, 4, blocks=m),
    "halves": lambda m: Codebook(16, 8),
    "jump": lambda m: Codebook(2, 8),
}


def fork_kinds(m: int) -> dict[str, Kind]:
    bits = Kind(lambda: Codebook(2, 4, blocks=m))
    if m > 8:
        bits = bits._replace(minimizer=lambda z, dim: Coordinate(restarts=2, sweeps=3))
    kinds = {"deterministic": Kind(lambda: None), f"{m} bits": bits}
    if m <= 6:
        kinds[f"{2**m} codes"] = Kind(lambda: Codebook(2**m, 8))
        kinds["gaussian"] = Kind(lambda: Gaussian(m, weight=0.003), variational)
    return kinds


def run(
    tasks: Callable[[int], Task], kinds: dict[str, Kind], *, seeds: Iterable[int], steps: int, label: str, cold: bool
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        task = tasks(seed)
        for name, kind in kinds.items():
            model, seconds = train(task, kind, steps=steps, seed=seed)
            if cold:
                model.minimizer = Enumerate()
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
    for name in kinds:
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


def fork_capacity() -> dict[str, Kind]:
    """More and fewer choices than there are branches."""
    bits = {f"{b} bits": Kind(lambda b=b: Codebook(2, 4, blocks=b)) for b in (2, 4, 5, 6, 7, 8)}
    return {"deterministic": Kind(lambda: None), **bits}


def guard_kinds(codes: int) -> dict[str, Kind]:
    """What looks after codes, one by one and together."""

    def annealed(z: Latent | None, dim: int) -> Minimizer:
        return Enumerate(anneal=(1.0, 0.8))

    return {
        "no guard": Kind(lambda: Codebook(codes, 8, reseed=0.0)),
        "reseeded": Kind(lambda: Codebook(codes, 8)),
        "usage entropy": Kind(lambda: Codebook(codes, 8, reseed=0.0), usage=0.1),
        "annealed": Kind(lambda: Codebook(codes, 8, reseed=0.0), annealed),
        "all three": Kind(lambda: Codebook(codes, 8), annealed, usage=0.1),
    }


def capacity_kinds(width: int) -> dict[str, Kind]:
    """Numbers of codes, and prices of a Gaussian z of `width` numbers."""
    codes = {f"{k} codes": Kind(lambda k=k: Codebook(k, 8)) for k in (1, 2, 4, 8, 16, 32, 64, 128, 256)}
    prices = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    gaussian = {f"gaussian, {w} a nat": Kind(lambda w=w: Gaussian(width, weight=w), variational) for w in prices}
    return {**codes, **gaussian}


def temperature_kinds(codes: Callable[[], Latent]) -> dict[str, Kind]:
    def at(beta: float, anneal: tuple[float, float] | None = None) -> Kind:
        return Kind(codes, lambda z, dim: Enumerate(beta, anneal=anneal))

    return {
        "zero temperature": at(math.inf),
        "beta 100": at(100.0),
        "beta 30": at(30.0),
        "beta 10": at(10.0),
        "beta 3": at(3.0),
        "annealed 1 to inf": at(math.inf, (1.0, 0.95)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("forks", "halves", "jump", "capacity", "guards", "temperature"))
    parser.add_argument("--m", type=int, default=6)
    parser.add_argument("--space", choices=("y", "sigreg"), default="y")
    parser.add_argument("--task", choices=("forks", "halves", "jump"), default="halves")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="choices were made on seeds from 100 on")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--frozen", action="store_true", help="all latents get the encoders of the deterministic model")
    parser.add_argument("--given", choices=("pixels", "views"), help="the encoder of y is not trained with the rest")
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = {"forks": "forks", "guards": "forks", "jump": "jump"}.get(options.what, options.task)
    kinds: dict[str, Kind] = {
        "forks": lambda: fork_kinds(options.m),
        "halves": lambda: HALVES,
        "jump": lambda: JUMP,
        "capacity": fork_capacity if task == "forks" else lambda: capacity_kinds(16 if options.given else 8),
        "guards": lambda: guard_kinds(2**options.m),
        "temperature": lambda: temperature_kinds(lambda: CODES[task](options.m)),
    }[options.what]()
    tasks: dict[str, Callable[[int], Task]] = {
        "forks": lambda seed: forks(options.m, seed, options.space),
        "halves": halves,
        "jump": jump,
    }
    steps = options.steps or (4000 if task == "forks" else 800)
    of: Callable[[int], Task] = tasks[task]
    if options.frozen:
        of = lambda seed: frozen(tasks[task](seed), steps=steps, seed=seed)  # noqa: E731
    if options.given:
        of = lambda seed: given(tasks[task](seed), how=options.given, steps=steps, seed=seed)  # noqa: E731
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    chosen: Iterable[str] = options.only or kinds
    label = f"{options.what} {task}{' frozen' if options.frozen else ''}{' given ' + options.given if options.given else ''}"
    cold = options.what == "temperature"  # whatever the temperature of training was, all are measured at zero
    some = {name: kinds[name] for name in chosen}
    rows = run(of, some, seeds=seeds, steps=steps, label=label, cold=cold)
    if options.out is not None:
        options.out.write_text(json.dumps({"format": 1, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
