r"""How good are the encoders of series, sound, rows and text where labels are given? They choose the sizes that are the defaults.

    OMP_NUM_THREADS=1 ACCORD_DATA=DATA python benchmarks/encoders.py series sound rows text --seeds 3

Every figure is of a validation part of the training data; files and rows for testing are not read. One linear layer on the features is
trained with the encoder, AdamW, rate warmed up and then lowered along a cosine, no augmentation.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import statistics
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from accord.model.audio import LogMel
from accord.model.normalize import Standardize
from accord.model.series import SeriesConv, SeriesTransformer
from accord.model.tabular import Tabular
from accord.model.text import ByteNGrams, ByteTransformer
from accord.train.optim import AdamW, parameter_groups, set_rate

BATCH, RATE, DECAY = 128, 2e-3, 0.05
NEVER_HEARD = "yweweler"
"""A speaker no choice is made on."""


class Task(NamedTuple):
    """Inputs and labels to train on, and those to validate on."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor


def split(x: Tensor, y: Tensor, share: float = 0.2, seed: int = 0) -> Task:
    """A random part of the training data for validation."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held, rest = order[: int(share * len(x))], order[int(share * len(x)) :]
    return Task(x[rest], y[rest], x[held], y[held])


def logits(encoder: nn.Module, width: int, task: Task, *, steps: int, seed: int) -> Tensor:
    """Of the validation part, after training."""
    torch.manual_seed(seed)
    model = nn.Sequential(encoder, nn.Linear(width, int(task.y.max()) + 1))
    optimizer = AdamW().build(parameter_groups(model, DECAY))
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(task.x), generator=generator)
        rows, order = order[:BATCH], order[BATCH:]
        set_rate(optimizer, RATE * min((step + 1) / (0.1 * steps), 0.5 * (1 + math.cos(math.pi * step / steps))))
        loss = F.cross_entropy(model(task.x[rows]), task.y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return torch.cat([model(rows) for rows in task.x_val.split(500)])


def report(name: str, make: Callable[[], nn.Module], tasks: list[Task], *, steps: int, auroc: bool = False) -> None:
    """One line: accuracy (or AUROC) over the tasks, one seed each."""
    start, found = time.process_time(), []
    for seed, task in enumerate(tasks):
        torch.manual_seed(seed)
        encoder = make()
        last = encoder[-1] if isinstance(encoder, nn.Sequential) else encoder
        made = logits(encoder, last.feature_dim, task, steps=steps, seed=seed)  # type: ignore[arg-type]
        if auroc:
            found.append(float(roc_auc_score(task.y_val, made[:, 1] - made[:, 0])))
        else:
            found.append(float((made.argmax(1) == task.y_val).float().mean()))
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    size = sum(p.numel() for p in make().parameters())
    seconds = (time.process_time() - start) / len(tasks)
    each = " ".join(f"{100 * value:.1f}" for value in found)
    print(
        f"{name:44s} {100 * statistics.mean(found):5.1f} ± {100 * spread:.1f} % ({each})  {size:7,d} parameters, {seconds:.0f} CPU s",
        flush=True,
    )


def mnist1d(data: Path, seeds: int) -> list[Task]:
    """Series of 40 steps, 3,200 to train on and 800 of the same file to validate on."""
    with np.load(data / "mnist1d" / "mnist1d.npz") as file:
        x, y = torch.from_numpy(file["x_train"])[..., None], torch.from_numpy(file["y_train"])
    return [split(Standardize.fit(x)(x), y, seed=seed) for seed in range(seeds)]


def spoken(data: Path, seeds: int) -> list[Task]:
    """Waveforms of the official training part, cut after a second; each task validates on a speaker that was not trained on."""
    table = pq.read_table(data / "fsdd" / "fsdd.parquet").to_pylist()
    rows = [row for row in table if row["split"] == "train" and row["speaker"] != NEVER_HEARD]
    x = torch.full((len(rows), 8000, 1), math.nan)
    for i, row in enumerate(rows):
        with wave.open(io.BytesIO(row["audio"])) as file:
            sound = np.frombuffer(file.readframes(8000), "<i2") / np.float32(32768)
        x[i, : len(sound), 0] = torch.from_numpy(sound)
    y = torch.tensor([row["label"] for row in rows])
    x = Standardize.fit(x)(x)
    who = np.array([row["speaker"] for row in rows])
    speakers = sorted(set(who))[:seeds]
    out = [torch.from_numpy(who == speaker) for speaker in speakers]
    return [Task(x[~held], y[~held], x[held], y[held]) for held in out]


def table(data: Path, name: str, seeds: int) -> list[Task]:
    """Rows of numbers and whether they are anomalies, as two classes."""
    with np.load(data / "adbench" / f"{name}.npz") as file:
        x, y = torch.from_numpy(file["X"]).float(), torch.from_numpy(file["y"]).long()
    return [split(Standardize.fit(x)(x), y, 0.3, seed) for seed in range(seeds)]


def names(data: Path, seeds: int, length: int = 40) -> tuple[list[Task], list[str]]:
    """Names of emoji of the training part and their categories, and the names as they are."""
    rows = [
        row
        for row in pq.read_table(data / "emoji_pairs" / "emoji_pairs.parquet").to_pylist()
        if row["split"] == "train"
    ]
    x = torch.tensor([list(row["name"].encode()[:length].ljust(length, b"\0")) for row in rows], dtype=torch.uint8)
    known = sorted({row["category"] for row in rows})
    y = torch.tensor([known.index(row["category"]) for row in rows])
    return [split(x, y, 0.25, seed) for seed in range(seeds)], known


def series(data: Path, seeds: int) -> None:
    tasks = mnist1d(data, seeds)
    report("mnist1d, SeriesConv", lambda: SeriesConv(1), tasks, steps=1500)
    report("mnist1d, SeriesTransformer, patch 4", lambda: SeriesTransformer(1, 40, patch=4), tasks, steps=1500)


def sound(data: Path, seeds: int) -> None:
    tasks = spoken(data, seeds)
    for centre in (False, True):
        report(
            f"fsdd, LogMel and SeriesConv, centre {centre}",
            lambda c=centre: nn.Sequential(LogMel(8000, centre=c), SeriesConv(40, width=32, blocks=3, stride=2)),
            tasks,
            steps=200,
        )


def rows(data: Path, seeds: int) -> None:
    for name in ("7_Cardiotocography", "35_SpamBase"):
        tasks = table(data, name, seeds)
        report(f"{name}, Tabular, AUROC", lambda t=tasks: Tabular(t[0].x.shape[1]), tasks, steps=1000, auroc=True)
        found = []
        for seed, task in enumerate(tasks):
            mlp = make_pipeline(StandardScaler(), MLPClassifier((256, 256), early_stopping=True, random_state=seed))
            probabilities = mlp.fit(task.x.numpy(), task.y.numpy()).predict_proba(task.x_val.numpy())
            found.append(100 * float(roc_auc_score(task.y_val, probabilities[:, 1])))
        print(f"{name}, scikit-learn's MLP, AUROC: {statistics.mean(found):.1f} {[round(f, 1) for f in found]}")


def text(data: Path, seeds: int) -> None:
    tasks, _ = names(data, seeds)
    report("emoji, ByteNGrams", ByteNGrams, tasks, steps=400)
    report("emoji, ByteTransformer", lambda: ByteTransformer(40), tasks, steps=400)
    found = []
    for task in tasks:
        known, held = ([bytes(row.tolist()).rstrip(b"\0").decode(errors="ignore") for row in x] for x in task[::2])
        linear = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5)), LogisticRegression(C=30))
        found.append(100 * float((linear.fit(known, task.y.numpy()).predict(held) == task.y_val.numpy()).mean()))
    print(f"emoji, tf-idf of n-grams and logistic regression: {statistics.mean(found):.1f} {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=["series", "sound", "rows", "text"])
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ["ACCORD_DATA"])
    for name in chosen.tasks:
        {"series": series, "sound": sound, "rows": rows, "text": text}[name](data, chosen.seeds)


if __name__ == "__main__":
    main()
