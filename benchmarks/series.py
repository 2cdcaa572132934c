r"""What series teach without labels: probes of features, and forecasts read from the predicted representation of the future.

    OMP_NUM_THREADS=1 python benchmarks/series.py mnist1d DATA [--seeds 5] [--validate]
    OMP_NUM_THREADS=1 python benchmarks/series.py ucr DATA [--only GunPoint ...]
    OMP_NUM_THREADS=1 python benchmarks/series.py ett DATA [--horizons 96 336]

DATA is the folder with mnist1d/, ucr_uea_samples/ and ett/. With --validate nothing of a test part is looked at: a fifth of the training
series is probed instead, and seeds begin at 100; every choice below was made so.

mnist1d: 4,000 series of 40 points of 10 shapes. Two random views of each, then a linear probe of the features. "untrained" is the same
encoder before training, which is no weak rival: maxima over random convolutions are good features of series.

ucr: five data sets with 36 to 200 series to train on, which are all the encoder ever sees. One setting for all of them. Against 1-NN by
Euclidean distance on the values, as the archive gives it, and on the features.

ett: ETTh1, hourly, 12 / 4 / 4 months to train on, validate and test, standardised by the first. x is the last 336 steps of a column, y the
next ones, both less the last value of x; one linear encoder of x and one of y for all seven columns, each by itself, and the identity as
predictor. Values are read from the predicted embedding of y by ridge regression alone, fitted on windows of the training part. With
--validate all is trained on the first nine of its months, and measured on the last three. Rivals are ridge regressions on the values
of x whose penalty is chosen on the validation part: each column by itself, as it is and less the last value, and all columns at once.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import accord
from accord.evaluate.probe import Labelled, linear_probe
from accord.train.optim import AdamW, parameter_groups, set_rate

UCR = ("GunPoint", "ArrowHead", "ItalyPowerDemand", "OSULeaf", "ACSF1")
PAST, MONTH = 336, 30 * 24
PENALTIES = tuple(10.0**k for k in range(-6, 3))
MOST_STEPS = 128
"""Steps that blocks of the encoder see of a series of the archive, at most."""


@dataclass(frozen=True)
class Setting:
    """How an encoder is trained."""

    steps: int
    batch: int
    rate: float = 2e-3
    decay: float = 1e-4
    hidden: tuple[int, ...] = (256,)
    dim: int = 128
    terms: Callable[[], object] = field(default=accord.vicreg)


SHAPES = accord.SeriesAugmentation(stretch=0.2, wrap=0.5, scale=0.3, noise=0.2, drift=0.5, trend=0.7)
MNIST1D = Setting(steps=1000, batch=128)
ARCHIVE = accord.SeriesAugmentation(stretch=0.1, shift=0.1, scale=0.3, noise=0.1, drift=0.2, trend=0.3)
FEW = Setting(steps=150, batch=32, rate=1e-3)
FORECAST = Setting(steps=1000, batch=512, rate=1e-3, decay=1e-2, hidden=(), dim=128)
READOUT = (0.1,)


def train(
    objective: accord.Objective, pairs: Callable[[Tensor, int], accord.Pair], rows: int, setting: Setting, seed: int
) -> None:
    """AdamW on batches of places 0..rows-1, each place once an epoch; the rate rises, then falls along a cosine."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = AdamW(beta2=0.95).build(parameter_groups(objective, setting.decay))
    batch, order, epoch = min(setting.batch, rows), torch.empty(0, dtype=torch.long), -1
    for step in range(setting.steps):
        if len(order) < batch:
            order, epoch = torch.randperm(rows, generator=generator), epoch + 1
        some, order = order[:batch], order[batch:]
        ramp = min((step + 1) / (0.05 * setting.steps), 0.5 * (1 + math.cos(math.pi * step / setting.steps)))
        set_rate(optimizer, setting.rate * ramp)
        loss = objective(pairs(some, epoch))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    objective.eval()


class Task(NamedTuple):
    """Series (n, step, channel) with labels to train a probe on, and those it is measured on."""

    train: Labelled
    held: Labelled

    @property
    def classes(self) -> int:
        return int(self.train.label.max()) + 1


def validation(known: Labelled, seed: int) -> Task:
    """A fifth of each class, at least one series, is held out."""
    generator = torch.Generator().manual_seed(seed)
    held = []
    for label in known.label.unique():
        rows = (known.label == label).nonzero()[:, 0]
        held.append(rows[torch.randperm(len(rows), generator=generator)][: max(1, len(rows) // 5)])
    left_out = torch.zeros(len(known.label), dtype=torch.bool).index_fill(0, torch.cat(held), True)
    return Task(
        Labelled(known.x[~left_out], known.label[~left_out]), Labelled(known.x[left_out], known.label[left_out])
    )


@torch.no_grad()
def features(encoder: accord.Encoder, x: Tensor) -> Tensor:
    encoder.eval()
    made = torch.cat([encoder.features(part) for part in x.split(256)])
    encoder.train()
    return made


def nearest(train: Labelled, held: Labelled) -> float:
    """Accuracy of the label of the nearest row, Euclidean."""
    place = torch.cdist(held.x, train.x, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    return float((train.label[place] == held.label).double().mean())


def measured(encoder: accord.Encoder, task: Task, seed: int) -> dict[str, float]:
    """Linear probe and 1-NN of the standardised features."""
    f = features(encoder, task.train.x)
    mean, scale = f.mean(0), f.std(0).clamp_min(1e-6)
    train = Labelled((f - mean) / scale, task.train.label)
    held = Labelled((features(encoder, task.held.x) - mean) / scale, task.held.label)
    return {"probe": linear_probe(train, held, task.classes, seed=seed), "1-NN": nearest(train, held)}


def learned(task: Task, augmentation: accord.SeriesAugmentation, setting: Setting, seed: int) -> dict[str, float]:
    """Of one encoder before and after training on the series of the task without their labels."""
    torch.manual_seed(seed)
    x = task.train.x
    standard = accord.Standardize.fit(x)
    stride = max(2, -(-x.shape[1] // MOST_STEPS))
    body = accord.SeriesConv(x.shape[2], width=64, blocks=3, kernel=max(3, stride + 1), stride=stride, halve=True)
    projector = accord.Projector(body.feature_dim, setting.dim, hidden=setting.hidden)
    encoder = accord.Encoder(nn.Sequential(standard, body), projector)
    before = measured(encoder, task, seed)
    objective = accord.Objective(accord.JointEmbedding(encoder, encoder, accord.IdentityPredictor()), setting.terms())
    pairing = accord.two_views(augmentation, units=standard)
    train(objective, lambda rows, epoch: pairing(x[rows], accord.Draws(seed, epoch, rows)), len(x), setting, seed)
    after = measured(encoder, task, seed)
    return {f"untrained {name}": value for name, value in before.items()} | after


def spread(found: list[float], scale: float = 100.0, digits: int = 1) -> str:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(found) if len(found) > 1 else 0.0
    return f"{scale * statistics.mean(found):.{digits}f} ± {scale * deviation:.{digits}f}"


def report(name: str, runs: list[dict[str, float]], start: float) -> None:
    values = "; ".join(f"{key} {spread([run[key] for run in runs])}" for key in runs[0])
    print(f"{name}: {values}; {(time.process_time() - start) / len(runs):.0f} CPU s each", flush=True)


def labelled(samples: accord.Samples, labels: np.ndarray | None = None) -> Labelled:
    found = samples.labels if labels is None else labels
    values = samples.batch(np.arange(len(samples)))
    assert isinstance(values, Tensor) and found is not None
    return Labelled(values, torch.from_numpy(np.asarray(found)))


def mnist1d(data: Path, chosen: argparse.Namespace) -> None:
    with np.load(data / "mnist1d" / "mnist1d.npz") as file:
        parts = ["train"] if chosen.validate else ["train", "test"]
        known = [labelled(accord.open_source(file[f"x_{p}"], kind="series"), file[f"y_{p}"]) for p in parts]
    start, runs = time.process_time(), []
    for seed in seeds(chosen):
        task = validation(known[0], seed) if chosen.validate else Task(*known)
        raw = Task(*(Labelled(part.x.flatten(1), part.label) for part in task))
        values = linear_probe(*raw, task.classes, seed=seed)
        runs.append({"values": values, "values 1-NN": nearest(*raw), **learned(task, SHAPES, MNIST1D, seed)})
        report("mnist1d", runs, start)


def ucr(data: Path, chosen: argparse.Namespace) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(data / "ucr_uea_samples" / "ucr_uea_samples.tar.gz") as file,
    ):
        file.extractall(folder, filter="data")
        for name in chosen.only:
            parts = ["TRAIN"] if chosen.validate else ["TRAIN", "TEST"]
            known = [labelled(accord.open_source(Path(folder) / name / f"{name}_{p}.ts")) for p in parts]
            start, runs = time.process_time(), []
            for seed in seeds(chosen):
                task = validation(known[0], seed) if chosen.validate else Task(*known)
                raw = nearest(*(Labelled(part.x.flatten(1), part.label) for part in task))
                runs.append({"values 1-NN": raw, **learned(task, ARCHIVE, FEW, seed)})
            report(f"{name} ({len(task.train.x)} series of {task.train.x.shape[1]} steps)", runs, start)


class Windows(NamedTuple):
    """Past (n, columns, 336) and future (n, columns, horizon)."""

    x: Tensor
    y: Tensor

    def less_last(self) -> Windows:
        last = self.x[..., -1:]
        return Windows(self.x - last, self.y - last)


Parts = dict[str, Windows]
MONTHS = {"train": (0, 12), "val": (12, 16), "test": (16, 20)}
FIRST_MONTHS = {"train": (0, 9), "val": (12, 16), "test": (9, 12)}


def etth1(data: Path, horizon: int, months: dict[str, tuple[int, int]]) -> Parts:
    """Windows whose future lies in each part; the past may reach into the part before."""
    path = data / "ett" / "ETTh1.csv.gz"
    samples = accord.open_source(path, series=accord.SeriesOptions(time="date", window=PAST + horizon))
    assert samples.windows is not None
    first = samples.windows.first + PAST  # of the future
    places = {
        part: np.flatnonzero((first >= MONTH * low) & (first + horizon <= MONTH * high))
        for part, (low, high) in months.items()
    }
    known = samples.batch(places["train"])
    assert isinstance(known, Tensor)
    standard = accord.Standardize.fit(torch.cat([known[0], known[1:, -1]])[None])
    pairing = accord.future(context=PAST, horizon=horizon)
    found = {}
    for part, rows in places.items():
        batch = samples.batch(rows)
        assert isinstance(batch, Tensor)
        pair = pairing(standard(batch), accord.Draws(0, 0, torch.from_numpy(rows)))
        found[part] = Windows(pair.x.mT.contiguous(), pair.y.mT.contiguous())
    return found


def by_column(values: Tensor) -> Tensor:
    """(n, columns, steps) to (n columns, steps)."""
    return values.flatten(0, 1)


class Ridge(NamedTuple):
    """MSE of a ridge regression on the validation and the test part, and its penalty as a share of the mean variance."""

    val: float
    test: float
    penalty: float

    def words(self) -> str:
        return f"MSE {self.test:.4f} ({self.val:.4f} validation, penalty {self.penalty:g})"


def sides(parts: Parts, form: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """x and y of each part, as rows."""
    x = {part: form(windows.x) for part, windows in parts.items()}
    return x, {part: form(windows.y) for part, windows in parts.items()}


def ridge(s: dict[str, Tensor], y: dict[str, Tensor], penalties: tuple[float, ...] = PENALTIES) -> Ridge:
    """Fitted on the training part; of several penalties the best on the validation part."""
    mean_s, mean_y = s["train"].mean(0), y["train"].mean(0)
    x, target = s["train"] - mean_s, y["train"] - mean_y
    values, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    projected = vectors.T @ (x.T @ target / len(x)).double()
    values = values.clamp_min(0)
    found = []
    for penalty in penalties:
        weight = (vectors @ (projected / (values + penalty * values.mean())[:, None])).float()
        errors = (float((mean_y + (s[part] - mean_s) @ weight - y[part]).square().mean()) for part in ("val", "test"))
        found.append(Ridge(*errors, penalty))
    return min(found, key=lambda one: one.val)


@torch.no_grad()
def predicted(model: accord.JointEmbedding, x: Tensor) -> Tensor:
    """The predicted embedding of the future."""
    s_x = torch.cat([model.encoder_x(part) for part in x.split(8192)])
    found: Tensor = model.predictor(s_x, s_x[:, :0])
    return found


def forecast(parts: Parts, setting: Setting, seed: int) -> Ridge:
    """A joint embedding of past and future, and what is read from its predictions."""
    torch.manual_seed(seed)
    x, y = sides(parts, by_column)
    encoder_x, encoder_y = (nn.Linear(side["train"].shape[1], setting.dim) for side in (x, y))
    model = accord.JointEmbedding(encoder_x, encoder_y, accord.IdentityPredictor())
    objective = accord.Objective(model, setting.terms())
    train(objective, lambda rows, _: accord.Pair(x["train"][rows], y["train"][rows]), len(x["train"]), setting, seed)
    return ridge({part: predicted(model, rows) for part, rows in x.items()}, y, READOUT)


def ett(data: Path, chosen: argparse.Namespace) -> None:
    for horizon in chosen.horizons:
        as_it_is = etth1(data, horizon, FIRST_MONTHS if chosen.validate else MONTHS)
        parts = {part: windows.less_last() for part, windows in as_it_is.items()}
        name, runs = f"{PAST} -> {horizon}", list[Ridge]()
        print(f"{name}, ridge, each column by itself: {ridge(*sides(as_it_is, by_column)).words()}", flush=True)
        print(f"{name}, the same less the last value: {ridge(*sides(parts, by_column)).words()}", flush=True)
        for seed in seeds(chosen):
            runs.append(forecast(parts, FORECAST, seed))
            test, val = spread([run.test for run in runs], 1, 4), spread([run.val for run in runs], 1, 4)
            print(f"{name}, read from the predicted embedding: MSE {test} ({val} validation)", flush=True)
        del parts
        rows = sides(as_it_is, lambda values: values.flatten(1))
        print(f"{name}, ridge, all columns at once: {ridge(*rows).words()}", flush=True)


def seeds(chosen: argparse.Namespace) -> range:
    first = 100 if chosen.validate else 0
    return range(first, first + chosen.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["mnist1d", "ucr", "ett"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--only", nargs="+", choices=UCR, default=UCR)
    parser.add_argument("--horizons", nargs="+", type=int, default=[96, 336])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    {"mnist1d": mnist1d, "ucr": ucr, "ett": ett}[chosen.task](chosen.data, chosen)


if __name__ == "__main__":
    main()
