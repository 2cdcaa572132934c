"""Is a collapse named while it happens, and is a healthy run left alone? Alarms of whole runs, healthy ones and ones set up to fail.

    OMP_NUM_THREADS=1 python benchmarks/collapse.py [SOURCE] [--epochs 5] [--seeds 2]

SOURCE is digits (40 epochs) or anything `accord train` takes. Every run goes on to its end; what is printed is the first alarm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from accord.resolve import read_settings, resolve
from accord.run import train_in
from accord.train.progress import Silent
from accord.train.run_directory import RunDirectory
from accord.train.signals import Stop

NAMES = (
    *("vicreg", "barlow_twins", "sigreg", "visreg", "mmcr", "coding_rate", "rdmreg"),
    *("info_nce", "dcl", "siglip", "triplet", "siamese", "align_uniform"),
)
HEALTHY = {name: [f"objective.name={name}"] for name in NAMES}
ALONE = ["objective.variance=0", "objective.covariance=0"]
FAILING = {
    "nothing keeps the variance up": ALONE,
    "the same, slowly": [*ALONE, "optimizer.learning_rate=0.0002"],
    "the same, very slowly": [*ALONE, "optimizer.learning_rate=0.00003"],
    "hardly anything does": ["objective.variance=0.3", "objective.covariance=0"],
    "SIGReg of weight 0": ["objective.name=sigreg", "objective.weight=0.0"],
    "nothing keeps dimensions apart": ["objective.covariance=0"],
    "Barlow Twins on its diagonal": ["objective.name=barlow_twins", "objective.off_diagonal=0.0"],
    "nothing brings views together": ["objective.invariance=0"],
}


def first_alarm(source: str, settings: list[str], seed: int) -> str:
    """The first alarm of a run and the share of the run at which it came."""
    given, preset = read_settings(None, [*settings, f"training.seed={seed}", "training.on_collapse=warn"], {}, run=None)
    with tempfile.TemporaryDirectory() as folder, RunDirectory(Path(folder) / "run") as directory:
        recipe, samples = resolve(source, given, preset)
        done = train_in(directory, recipe, samples, stop=Stop(), progress=Silent(), command="benchmark")
        lines = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
    events = [(line["step"] / done.steps, line["event"]) for line in lines if line.get("event")]
    return "none" if not events else f"{events[0][1].partition(':')[0]} at {events[0][0]:.0%}"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default="digits")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    length = [] if options.epochs is None else [f"training.epochs={options.epochs}"]
    for kind, cases in (("healthy", HEALTHY), ("failing", FAILING)):
        for name, settings in cases.items():
            for seed in range(options.seeds):
                alarm = first_alarm(options.source, [*settings, *length], seed)
                print(f"{kind:8} {name:32} seed {seed}  {alarm}", flush=True)


if __name__ == "__main__":
    main()
