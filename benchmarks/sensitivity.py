r"""Careless settings: which runs collapse, is each one named while it happens, and is a healthy run left alone?

    OMP_NUM_THREADS=1 python benchmarks/sensitivity.py digits --out grid.json            # small encoder, 1,500 steps a run
    python benchmarks/sensitivity.py data.parquet --only grid --set training.epochs=5 --out photos.json
    python benchmarks/sensitivity.py --judge grid.json photos.json                       # the rules as they are now, nothing is trained

Every run goes on to its end, whatever the alarm says, so that it is known what became of it. It counts as collapsed if, at the end,
the features tell less of the labels than those of the untrained encoder (k nearest neighbours, by 0.05), or the energy no more than
chance, or the embeddings have fewer dimensions than `diagnostics.rank_limit`, or nearly no spread or scale. What each look found is written
down, and rules are judged on that again in a second.

The grid is the one of EB-JEPA (arXiv:2602.03604) on CIFAR-10, in the units used here. Its VICReg is inv + std * sum of two hinges
+ cov * sum of two *means* of off-diagonal squares; the official code, which the recipe follows, halves the hinges and sums the
squares over D: official (s, v, c) = s * EB-JEPA(std = v / 2s, cov = c (D - 1) / s). With s = 25, variance = 50 std and covariance
= 25 cov / (D - 1). Its SIGReg is inv + lambda * SIGReg without the factor N; the recipe has (1 - w) inv + w N SIGReg: w = a / (1 + a)
with a = lambda / N, if both mean the same by inv. It uses LARS and a ResNet-18, here it is AdamW and few convolutions: not all that
collapses there does here. So neighbours are added, which surely do: the same weights near 0, and great learning rates.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accord import diagnostics
from accord.data.samples import Samples
from accord.division import divided
from accord.errors import AccordError
from accord.evaluate.features import extract, numbers
from accord.evaluate.probe import Labelled, knn_probe
from accord.objective.loss import Objective
from accord.recipe import Recipe
from accord.resolve import read_settings, resolve
from accord.run import new_objective, train_in, unfilled
from accord.train.checkpoint import load_weights
from accord.train.monitor import ROWS, CollapseWatch, Health
from accord.train.progress import Silent
from accord.train.run_directory import RunDirectory
from accord.train.signals import Stop

DIM, BATCH = 128, 128
WORSE = 0.05
"""Share of neighbours' votes that must be lost: on easy data untrained features are hard to improve on."""
SMALL = ["encoder.stem_width=16", "encoder.widths=[32,64]", "projector.hidden=[128]", f"projector.dim={DIM}"]
"""The preset of digits at half its width: what is studied needs many runs, not good ones."""
LENGTH = ["training.steps=1500", f"training.batch_size={BATCH}"]
SLICES = "objective.slices=256"


def vicreg(std: float, cov: float) -> list[str]:
    """EB-JEPA's weights as settings."""
    return [f"objective.variance={50 * std:g}", f"objective.covariance={25 * cov / (DIM - 1):.6g}"]


def sigreg(weight: float) -> list[str]:
    """EB-JEPA's lambda as settings."""
    a = weight / BATCH
    return ["objective.name=sigreg", SLICES, f"objective.weight={a / (1 + a):.6g}"]


NOTHING = ["objective.variance=0", "objective.covariance=0"]
PRINCIPLES = (
    "vicreg vicregl barlow_twins sigreg visreg info_nce dcl siglip triplet siamese square_square logistic spectral align_uniform "
    "mmcr coding_rate rdmreg byol simsiam"
)
CASES: dict[str, dict[str, list[str]]] = {
    "grid": {
        **{f"VICReg {std}, {cov}": vicreg(std, cov) for std, cov in itertools.product((1, 10, 100), repeat=2)},
        **{f"SIGReg {weight}": sigreg(weight) for weight in (0.1, 1, 10, 100)},
    },
    "neighbours": {
        "VICReg 0.01, 1": vicreg(0.01, 1),
        "VICReg 0, 1": vicreg(0, 1),
        "VICReg 1, 0": vicreg(1, 0),
        "VICReg 1, 1, rate x 100": [*vicreg(1, 1), "optimizer.learning_rate=0.2"],
        "SIGReg 0.01": sigreg(0.01),
        "invariance alone": NOTHING,
        "the same, rate x 0.1": [*NOTHING, "optimizer.learning_rate=0.0002"],
        "the same, rate x 0.015": [*NOTHING, "optimizer.learning_rate=0.00003"],
        "the same, rate x 100": [*NOTHING, "optimizer.learning_rate=0.2"],
        "hardly any variance": ["objective.variance=0.3", "objective.covariance=0"],
        "Barlow Twins, diagonal alone": ["objective.name=barlow_twins", "objective.off_diagonal=0.0"],
        "no invariance": ["objective.invariance=0"],
    },
    "as it is": {"the recipe": []},
    "healthy": {name: [f"objective.name={name}"] for name in PRINCIPLES.split()},
}


def record(source: str, recipe: str | None, settings: list[str], seed: int) -> dict[str, Any]:
    """Trains to the end and tells what each look found, the first alarm, and what became of the run."""
    settings = [*settings, f"training.seed={seed}", "training.on_collapse=warn"]
    given, preset = read_settings(recipe, settings, {}, run=None)
    with tempfile.TemporaryDirectory() as folder, RunDirectory(Path(folder) / "run") as directory:
        resolved, samples = resolve(source, given, preset)
        try:
            train_in(directory, resolved, samples, stop=Stop(), progress=Silent(), command="benchmark")
            error = None
        except AccordError as caught:
            error = f"{type(caught).__name__}: {caught.message}"
        lines = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
        total = resolved.training.steps or lines[-1]["step"]
        looks = [[line["step"] / total, *_health(line, resolved)] for line in lines if line["spread"] is not None]
        objective, pairing = unfilled(resolved)
        if error is None:
            load_weights(directory.path, objective)
        index = divided(resolved, samples)
        fresh = new_objective(resolved, samples, index[0], pairing)
        return {
            "rows": min(ROWS, len(index[1])),
            "values": min(numbers(samples, index[0], pairing)),
            "looks": looks,
            "knn": None if error else _knn(objective, resolved, samples),
            "knn untrained": _knn(fresh, resolved, samples),
            "error": error,
        }


def _health(line: dict[str, Any], recipe: Recipe) -> list[float]:
    return [recipe.projector.dim if key == "dim" else line[key] for key in Health._fields]


def _knn(objective: Objective, recipe: Recipe, samples: Samples) -> float | None:
    """How many held-out labels the nearest features of at most 4,000 training samples tell."""
    if samples.labels is None:
        return None
    _, pairing = unfilled(recipe)
    parts = []
    for index in divided(recipe, samples):
        labelled = index[samples.labels[index] >= 0][:4000]
        features = extract(objective.model.encoder_x, samples, labelled, pairing, finite=False).features
        parts.append(Labelled(features.nan_to_num(), torch.from_numpy(samples.labels[labelled])))
    return knn_probe(parts[0], parts[1], int(np.max(samples.labels)) + 1)


def first_alarm(found: dict[str, Any]) -> tuple[str, float] | None:
    """The first certain alarm of a recorded run, by the rules as they are, and the share of the run at which it comes."""
    watch = CollapseWatch(rows=found["rows"], values=found["values"])
    for progress, *values in found["looks"]:
        alarm = watch.observe(progress, Health(*values))
        if alarm is not None and alarm.certain:
            return alarm.kind, progress
    return None


def what_became(found: dict[str, Any]) -> list[str]:
    """Why a run counts as collapsed, whatever the rules say; nothing if it does not."""
    if found["error"] is not None:
        return [found["error"]]
    watch, last = CollapseWatch(found["rows"], found["values"]), Health(*found["looks"][-1][1:])
    below = found["knn"] is not None and found["knn"] < found["knn untrained"] - WORSE
    reasons = {
        f"k-NN {found['knn']} below {found['knn untrained']}": below,
        "energy at chance": last.energy_auroc < watch.auroc_limit,
        f"effective rank {last.effective_rank:.1f}": last.effective_rank < watch.rank_limit(last.dim),
        f"spread {last.spread:.2g}": last.spread < diagnostics.CONSTANT_SPREAD,
        f"standard deviation {last.std_mean:.2g}": last.std_mean < 0.01,
    }
    return [reason for reason, holds in reasons.items() if holds]


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    alarm, reasons = first_alarm(found), what_became(found)
    told = "no alarm" if alarm is None else f"{alarm[0]} at {alarm[1]:.1%}"
    return f"{found['group']:10} {found['name']:30} seed {found['seed']:<4} {told:26} {'; '.join(reasons) or 'sound'}"


def main() -> None:
    """Prints a table, and writes down what every look found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="digits")
    parser.add_argument("--recipe", help="a preset, where that of the data is not meant")
    parser.add_argument("--only", nargs="+", choices=CASES, default=["grid", "neighbours", "healthy"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], dest="settings", help="over those of the case")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--judge", type=Path, nargs="+")
    options = parser.parse_args()
    for path in options.judge or []:
        for found in json.loads(path.read_text()):
            print(line(found))
    if options.judge:
        return
    base = [*SMALL, *LENGTH] if options.source == "digits" and options.recipe is None else []
    results = []
    for group, seed in itertools.product(options.only, options.seeds):
        for name, settings in CASES[group].items():
            about = {"group": group, "name": name, "seed": seed, "source": options.source}
            results.append(about | record(options.source, options.recipe, [*base, *settings, *options.settings], seed))
            print(line(results[-1]), flush=True)
            if options.out is not None:
                options.out.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
