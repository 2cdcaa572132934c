"""Surprise on real series: the energy of a pair as a detector of anomalies.

    python benchmarks/surprise.py skab DATA [--seeds 5]     35 runs of a water loop, 8 sensors: F1, false and missed alarms
    python benchmarks/surprise.py nab DATA [--seeds 5]      58 series, one value at a time: the score of the benchmark

DATA is the folder with skab/skab.parquet and nab/nab.parquet. Settings were chosen with seeds 0 and 1 on every other series (the first, the
third, ...: "dev"); "rest" are the others.

skab: a model for each experiment, trained on its first 400 steps, detects in the rest. A step is its 8 sensors, each the mean of the
last 20 steps; x shows half of the sensors, y is the other half; surprise is the mean energy over 8 such choices, in units of what is
usual in the first 400 steps. The factor from which that is an alarm is chosen on dev with the same seed.

nab: one model for all series, trained on their probationary parts (the first 15 %, at most 750 points), never after. x is what came
before (32 values, means of ever longer stretches, the same time of yesterday and of a week ago, time of day), of which more and more is
hidden, y is the last two values, all in units of the 4,000 values before. For each of 5 choices of what is hidden the energy is compared
with those before (`likelihood`); their mean, less a part of the height that was reached in the last 500 steps, counts where it exceeds
all of the last 100. "no model" and "as the last value" are the same with the squared errors of trivial predictions. The threshold is the
best one for the series that are scored, as the benchmark chooses it; "at_devs" is the score with that of dev.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

import accord
from accord.evaluate.anomaly import RangeWeights, auroc, range_score, ranges, volume_under_surface
from accord.evaluate.nab import PROFILES, Scored, nab, probation, windowed_gaussian
from accord.evaluate.surprise import likelihood, usual

SENSORS, TRAIN, SMOOTH, CHOICES = 8, 400, 20, 8
JUDGED, LAGS, BEFORE, HIDDEN = 2, 32, 4000, 5
CAP, SHORT, QUIET, MEMORY, PART, HISTORY = 8.0, 2, 100, 500, 0.25, 4000


def running_mean(values: np.ndarray, length: int) -> np.ndarray:
    """Of the last `length` rows up to each."""
    sums = np.cumsum(np.concatenate([np.zeros_like(values[:1]), values]), 0)
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - length, 0)
    mean: np.ndarray = (sums[end] - sums[start]) / (end - start).reshape(-1, *[1] * (values.ndim - 1))
    return mean


def train(model: accord.JointEmbedding, pairs: Any, *, steps: int, rate: float, seed: int) -> None:
    """AdamW on the free energy of the pairs that `pairs(generator)` draws."""
    objective = accord.Objective(model, {"free_energy": (1.0, accord.free_energy)})
    optimizer = torch.optim.AdamW(objective.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss = objective(pairs(generator))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
    model.eval()


class Seen(nn.Module):
    """Values with 0 for what is hidden (NaN), and which are seen."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.nan_to_num(0), (~x.isnan()).float()], 1)


def hidden_cost(predicted: Tensor, y: Tensor) -> Tensor:
    """Mean over what y holds (not NaN) of log(1 + d^2): one sensor that drifts far does not outweigh all others."""
    there = ~y.isnan()
    errors = torch.where(there, (predicted - y.nan_to_num(0)).square().log1p(), 0.0)
    return errors.sum(-1) / there.sum(-1)


def sides(values: Tensor, hidden: Tensor) -> accord.Pair:
    return accord.Pair(values.masked_fill(hidden, torch.nan), values.masked_fill(~hidden, torch.nan))


def half_of(rows: int, generator: torch.Generator) -> Tensor:
    """Half of the sensors of each row, at random."""
    return torch.rand(rows, SENSORS, generator=generator).argsort(1).argsort(1) < SENSORS // 2


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means of the last 20 steps, in units of the first 400."""
    scaled = np.clip((values - values[:TRAIN].mean(0)) / (values[:TRAIN].std(0) + 1e-9), -20, 20)
    smooth = running_mean(scaled, SMOOTH)
    units: np.ndarray = (smooth - smooth[SMOOTH:TRAIN].mean(0)) / (smooth[SMOOTH:TRAIN].std(0) + 1e-9)
    return units


def learned(values: np.ndarray, seed: int) -> np.ndarray:
    """Mean energy of each step."""
    rows = torch.from_numpy(values).float()
    torch.manual_seed(seed)
    body = nn.Sequential(Seen(), nn.Linear(2 * SENSORS, 64), nn.GELU(), nn.Linear(64, 32))
    predictor = accord.MLPPredictor(32, hidden=(64,), out_dim=SENSORS)
    model = accord.JointEmbedding(body, nn.Identity(), predictor, cost=hidden_cost)

    def pairs(generator: torch.Generator) -> accord.Pair:
        some = torch.randint(TRAIN, (64,), generator=generator)
        return sides(rows[some], half_of(64, generator))

    train(model, pairs, steps=150, rate=3e-3, seed=seed)
    choices, total = torch.Generator().manual_seed(7), np.zeros(len(rows))
    for _ in range(CHOICES):
        pair = sides(rows, half_of(1, choices).expand(len(rows), -1))
        total += model.free_energy(pair.x, pair.y).double().numpy() / CHOICES
    return total


def t_squared(values: np.ndarray, seed: int) -> np.ndarray:
    """Hotelling's T^2 of the same means."""
    covariance = np.cov(values[SMOOTH:TRAIN].T) + 1e-6 * np.eye(SENSORS)
    distance: np.ndarray = np.einsum("ti,ij,tj->t", values, np.linalg.inv(covariance), values)
    return distance


def unlearned(values: np.ndarray, seed: int) -> np.ndarray:
    """The cost of the energy with 0 for a prediction."""
    cost: np.ndarray = np.log1p(values**2).mean(1)
    return cost


DETECTORS = {"T^2": t_squared, "no model": unlearned, "energy": learned}


class Alarms(NamedTuple):
    """F1, share of normal steps with an alarm, share of anomalous steps without one."""

    f1: float
    far: float
    mar: float


def alarms(alarm: np.ndarray, label: np.ndarray) -> Alarms:
    hits = (alarm & label).sum()
    return Alarms(2 * hits / (alarm.sum() + label.sum()), alarm[~label].mean(), (~alarm)[label].mean())


def skab(data: Path, seeds: int) -> None:
    table = pq.read_table(data / "skab" / "skab.parquet")
    names = [n for n in table.column_names if n not in ("file", "datetime", "anomaly", "changepoint")]
    files = np.array(table["file"].to_pylist())
    values, odd = np.stack([table[n].to_numpy() for n in names], 1), table["anomaly"].to_numpy()
    found = [files == name for name in dict.fromkeys(files.tolist()) if not name.startswith("anomaly-free")]
    labels = [odd[rows][TRAIN:] > 0 for rows in found]
    everything = np.concatenate(labels)
    print("alarm always", alarms(np.ones_like(everything), everything))
    inputs = [smoothed(values[rows]) for rows in found]
    for name, detector in DETECTORS.items():
        print(name)
        show(detected(detector, inputs, labels, seeds if detector is learned else 1))


def detected(
    detector: Any, inputs: list[np.ndarray], labels: list[np.ndarray], seeds: int
) -> dict[str, list[dict[str, float]]]:
    """Figures of each part, seed by seed."""
    parts = {"all": range(len(inputs)), "rest": range(1, len(inputs), 2)}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in parts}
    for seed in range(seeds):
        start, scores = time.process_time(), []
        for one in inputs:
            energy = detector(one, seed)
            scores.append(usual(energy[:TRAIN]).relative(energy)[TRAIN:])
        score, label = (np.concatenate(list(what[::2])) for what in (scores, labels))
        factors = np.quantile(score, np.linspace(0, 1, 400))
        factor = max(factors.tolist(), key=lambda f: alarms(score > f, label).f1)
        for name, part in parts.items():
            row = {"factor": factor, **figures([scores[i] for i in part], [labels[i] for i in part], factor)}
            results[name].append({**row, "seconds": time.process_time() - start})
    return results


def figures(scores: list[np.ndarray], labels: list[np.ndarray], factor: float) -> dict[str, float]:
    score, label = np.concatenate(scores), np.concatenate(labels)
    alarm, volume = score > factor, volume_under_surface(score, label, buffer=SMOOTH)
    each = [auroc(one, its) for one, its in zip(scores, labels, strict=True)]
    found = {**alarms(alarm, label)._asdict(), "auroc": auroc(score, label), "auroc_each": float(np.mean(each))}
    found |= {"vus_roc": volume.roc, "vus_pr": volume.pr}
    return found | {"range_f1": range_score(alarm, label, RangeWeights(existence=0.5)).f1}


class Stream(NamedTuple):
    """A series of the benchmark: seconds, values, labelled windows."""

    seconds: np.ndarray
    values: np.ndarray
    windows: np.ndarray


def streams(data: Path) -> list[Stream]:
    table = pq.read_table(data / "nab" / "nab.parquet")
    files = np.array(table["file"].to_pylist())
    seconds = np.array(table["timestamp"].to_pylist(), dtype="datetime64[s]").astype(np.int64)
    values, inside = table["value"].to_numpy(), table["in_window"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.append(True, files[1:] != files[:-1])).tolist()
    places = zip(starts, [*starts[1:], len(files)], strict=True)
    return [Stream(seconds[a:b], values[a:b], ranges(inside[a:b])) for a, b in places]


class Described(NamedTuple):
    """Steps that are judged, what came before (x, in groups of columns), and the last few values (y); all float32."""

    step: np.ndarray
    x: Tensor
    y: Tensor


def described(stream: Stream) -> Described:
    """Nothing after a step is looked at, and of its own past x holds what came before the values that y judges."""
    v, n = stream.values, len(stream.values)
    step = np.arange(LAGS + JUDGED, n)
    first = step - JUDGED + 1
    sums, squares = (np.concatenate([[0.0], np.cumsum(c)]) for c in (v - v[0], (v - v[0]) ** 2))
    start = np.maximum(first - BEFORE, 0)
    mean = (sums[first] - sums[start]) / (first - start)
    deviation = np.sqrt(np.maximum((squares[first] - squares[start]) / (first - start) - mean**2, 0))
    known = v[: probation(n)]
    scale = np.maximum(deviation, max(1e-2 * known.std(), 1e-4 * abs(known.mean()), 1e-9))

    def units(values: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = np.arcsinh((values - v[0] - mean[:, None]) / scale[:, None])
        return scaled

    parts = [units(v[first[:, None] - np.arange(1, LAGS + 1)])]
    for near, far in ((32, 64), (64, 128), (128, 256), (256, 512)):
        to, since = np.maximum(first - near, 0), np.maximum(first - far, 0)
        average = np.where(to > since, (sums[to] - sums[since]) / np.maximum(to - since, 1), mean)
        parts.append(units(average[:, None] + v[0]))
    day = round(86400 / max(float(np.median(np.diff(stream.seconds))), 1.0))
    for lag in (day, 7 * day):
        place = step[:, None] - lag + np.arange(-JUDGED - 1, 3)
        there = (place >= 0) & (place < first[:, None])
        parts += [np.where(there, units(v[place.clip(0, n - 1)]), 0.0), there.all(1)[:, None]]
    turn = stream.seconds[step] % 86400 / 86400 * 2 * np.pi
    x = np.concatenate([*parts, np.sin(turn)[:, None], np.cos(turn)[:, None]], 1)
    y = units(v[first[:, None] + np.arange(JUDGED)])
    return Described(step, *(torch.from_numpy(np.clip(a, -8, 8)).float() for a in (x, y)))


def hiding(x: Tensor, level: Tensor) -> Tensor:
    """x with more hidden at each level: nothing, the last 32 values, the last 128, the last 512, all but the time of day."""
    last = (0, LAGS, LAGS + 2, LAGS + 4, x.shape[1] - 2)
    hidden = torch.arange(x.shape[1]) < torch.tensor(last)[level][:, None]
    return torch.cat([x.masked_fill(hidden, 0.0), nn.functional.one_hot(level, HIDDEN).float()], 1)


def nab_energies(all_described: list[Described], lengths: list[int], seed: int) -> list[np.ndarray]:
    """Energies at each level, (levels, judged steps) of each series."""
    early = [d.step < probation(n) for d, n in zip(all_described, lengths, strict=True)]
    x, y = (torch.cat([d[i][torch.from_numpy(e)] for d, e in zip(all_described, early, strict=True)]) for i in (1, 2))
    torch.manual_seed(seed)
    body = accord.MLP(x.shape[1] + HIDDEN, (128, 64), norm=None)
    model = accord.JointEmbedding(body, nn.Identity(), accord.MLPPredictor(64, hidden=(128,), out_dim=JUDGED))

    def pairs(generator: torch.Generator) -> accord.Pair:
        some = torch.randint(len(x), (256,), generator=generator)
        return accord.Pair(hiding(x[some], torch.randint(HIDDEN, (256,), generator=generator)), y[some])

    train(model, pairs, steps=800, rate=2e-3, seed=seed)
    return [
        np.stack(
            [
                model.free_energy(hiding(d.x, torch.full((len(d.x),), level)), d.y).double().numpy()
                for level in range(HIDDEN)
            ]
        )
        for d in all_described
    ]


def highest_before(score: np.ndarray, steps: int) -> np.ndarray:
    """The highest of the last `steps` before each."""
    highest: np.ndarray = sliding_window_view(np.concatenate([np.full(steps, -1e9), score]), steps)[:-1].max(1)
    return highest


def alarm_score(energies: np.ndarray, stream: Stream, step: np.ndarray) -> Scored:
    """See above; what is not judged, or exceeded lately, lies below all else."""
    each = [likelihood(e, short=SHORT, history=HISTORY) for e in np.minimum(energies, CAP)]
    level: np.ndarray = np.mean(each, 0)
    level = level - PART * np.maximum(highest_before(level, MEMORY), 0)
    score = np.full(len(stream.values), -99.0)
    score[step] = np.where(level > highest_before(level, QUIET), level, -99.0)
    return Scored(score, stream.windows)


def nab_rows(corpus: list[Scored]) -> dict[str, dict[str, float]]:
    dev, rest = corpus[::2], corpus[1::2]
    chosen = nab(dev)
    found = {"all": corpus, "rest": rest, "dev": dev}
    rows = {part: {name: nab(some, p).score for name, p in PROFILES.items()} for part, some in found.items()}
    rows["rest"]["at_devs"] = nab(rest, threshold=chosen.threshold).score
    rows["all"]["at_devs"] = nab(corpus, threshold=chosen.threshold).score
    return rows


def benchmark_nab(data: Path, seeds: int) -> None:
    found = streams(data)
    rng = np.random.default_rng(0)
    rivals = {
        "windowed Gaussian": [Scored(windowed_gaussian(s.values), s.windows) for s in found],
        "random": [Scored(rng.random(len(s.values)), s.windows) for s in found],
    }
    each = [described(s) for s in found]
    unlearned_y = {"no model": lambda d: d.y, "as the last value": lambda d: d.y - d.x[:, :1]}
    for name, error in unlearned_y.items():
        squares = [error(d).square().mean(1).double().numpy()[None] for d in each]
        rivals[name] = [alarm_score(e, s, d.step) for e, s, d in zip(squares, found, each, strict=True)]
    for name, corpus in rivals.items():
        print(name, {part: rounded(row) for part, row in nab_rows(corpus).items()}, flush=True)
    results: dict[str, list[dict[str, float]]] = {"all": [], "rest": [], "dev": []}
    for seed in range(seeds):
        start = time.process_time()
        energies = nab_energies(each, [len(s.values) for s in found], seed)
        corpus = [alarm_score(e, s, d.step) for e, s, d in zip(energies, found, each, strict=True)]
        for part, row in nab_rows(corpus).items():
            results[part].append({**row, "seconds": time.process_time() - start})
    show(results)


def rounded(row: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in row.items()}


def show(results: dict[str, list[dict[str, float]]]) -> None:
    """Mean and standard deviation over seeds."""
    for part, rows in results.items():
        for name in rows[0]:
            values = [float(row[name]) for row in rows]
            deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
            print(f"{part:5} {name:14} {np.mean(values):8.3f} ± {deviation:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("skab", "nab"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (skab if options.what == "skab" else benchmark_nab)(options.data, options.seeds)


if __name__ == "__main__":
    main()
