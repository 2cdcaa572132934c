"""accord beside lightly, stable-pretraining and EB-JEPA: same encoder, weights, data, batch, optimiser, schedule, threads and seconds.

    python benchmarks/peers.py TRAIN.parquet TEST.parquet [--eb-jepa CLONE] [--threads 2] [--seconds 20] [--repeats 3] [--out peers.json]

The peers are installed into an environment of their own (build/peers). EB-JEPA has no release: it takes part where --eb-jepa names a
clone of https://github.com/facebookresearch/eb_jepa, and its files are imported from there. Each run is a process of its own; those
that are compared take turns. A peer trains by the loop, transforms and loader of its own example, with the number of workers that is
best for it. Speed is in samples, of two views each, per second after the first tenth of a run; memory is the largest proportional set
size of all its processes together. Accuracy is that of one linear probe for all, on rows that no training has seen. accord trains on
views of half size by default: what that alone does is seen where both sides train on views of one size.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from peer_place import PEERS, ROOT, Place, digest, install, version_of

NOT_RUN = {"solo-learn": "1.0.2 needs torch 1.9.1, which this Python has no build of"}
NO_CLONE = (
    "takes part with --eb-jepa FOLDER, a clone of https://github.com/facebookresearch/eb_jepa. For orientation its authors' figures, "
    "CIFAR-10, ResNet-18, 300 epochs, on a GPU: VICReg 90.1 %, SIGReg 91.0 % (arXiv:2602.03604)"
)


class Arm(NamedTuple):
    """One side of the comparison."""

    loop: str
    size: int

    def __str__(self) -> str:
        return f"{self.loop} {self.size} px"


ARMS = [Arm("accord", 16), Arm("accord", 32), *(Arm(peer, size) for peer in PEERS for size in (32, 16))]
PAIRS = [(a, b) for a in ARMS for b in ARMS if a.loop == "accord" != b.loop and a.size <= b.size]


# --- one run ---


class Length(NamedTuple):
    """Of a run, in seconds or in samples."""

    seconds: float | None = None
    samples: int | None = None


def run(place: Place, arm: Arm, length: Length, *, workers: int, seed: int, out: Path, train: Path) -> dict[str, Any]:
    """Trains one side and says how fast it was; its weights are in `out`."""
    start = time.perf_counter()
    if arm.loop == "accord":
        times, batch, peak = run_accord(place, arm, length, seed, out, train)
    else:
        job = {"job": "train", **arm._asdict(), **length._asdict(), "workers": workers, "seed": seed}
        found, peak = place.child("peer_loops.py", {**job, "data": str(place.data), "out": str(out)})
        times, batch = list(enumerate(found["times"], 1)), found["batch_size"]
    wall = time.perf_counter() - start
    last_step, seconds = times[-1]
    first_step, begin = next(((s, t) for s, t in times if t >= 0.1 * seconds), times[0])
    steady = (last_step - first_step) * batch / (seconds - begin) if last_step > first_step else None
    return {
        "samples": last_step * batch,
        "seconds": seconds,
        "samples_per_second": steady,
        "seconds_before_training": wall - seconds,
        "peak_megabytes": peak / 1e6,
    }


def run_accord(
    place: Place, arm: Arm, length: Length, seed: int, out: Path, train: Path
) -> tuple[list[tuple[int, float]], int, float]:
    """`accord train`; its own record says when each step ended."""
    recipe = json.loads((place.data / "recipe.json").read_text())
    batch = recipe["training"]["batch_size"]
    settings = {"pairing.size": arm.size, "pairing.plain_size": 32, "data.split_seed": 0, "training.seed": seed}
    if length.samples is not None:
        settings["training.steps"] = max(1, length.samples // batch)
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    budget = [] if length.seconds is None else ["--budget", f"{length.seconds}s"]
    command = [str(place.python), "-m", "accord", "train", str(train), "--out", str(out), *budget, *flags]
    peak = place.watched(command)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["seconds"]) for line in lines], batch, peak


# --- the parts ---


class Bench:
    """All runs of the comparison and what they found."""

    def __init__(self, options: argparse.Namespace, place: Place, arms: list[Arm]):
        self.options, self.place, self.arms = options, place, arms
        self.workers: dict[Arm, int] = {}
        self.found: dict[str, Any] = {"workers": {}, "runs": [], "equal_samples": []}

    def run(self, arm: Arm, length: Length, *, seed: int, name: str, workers: int | None = None) -> dict[str, Any]:
        chosen = self.workers.get(arm, 0) if workers is None else workers
        out = self.place.data / "weights" / name
        try:
            found = run(self.place, arm, length, workers=chosen, seed=seed, out=out, train=self.options.train.resolve())
        except RuntimeError as error:
            found = {"error": str(error)}
        found = {"arm": str(arm), "seed": seed, "workers": chosen, "weights": name, **found}
        print(f"  {name:32s} " + describe(found), flush=True)
        return found

    def choose_workers(self) -> None:
        """How many workers of a loader are best for each peer."""
        for arm in self.arms:
            if arm.loop == "accord":
                continue
            rates = {}
            for count in self.options.workers:
                name = f"workers {arm} {count}"
                found = self.run(arm, Length(seconds=self.options.burst), seed=0, name=name, workers=count)
                rates[count] = found.get("samples_per_second") or 0.0
            self.workers[arm] = max(rates, key=rates.__getitem__)
            self.found["workers"][str(arm)] = {"best": self.workers[arm], "samples_per_second": rates}

    def equal_seconds(self) -> None:
        """Every side in turn, the order reversed every time."""
        for seed in range(self.options.repeats):
            for arm in self.arms[:: 1 - 2 * (seed % 2)]:
                length = Length(seconds=self.options.seconds)
                self.found["runs"].append(self.run(arm, length, seed=seed, name=f"{arm} {seed}"))

    def equal_samples(self) -> None:
        length = Length(samples=self.options.samples)
        for seed in range(self.options.probed if self.options.samples else 0):
            for arm in self.arms:
                self.found["equal_samples"].append(self.run(arm, length, seed=seed, name=f"{arm} equal {seed}"))

    def probe(self) -> None:
        """One probe for all, in accord's evaluation, and for the untrained encoder; the test file for the first seed only."""
        weights = {"untrained": str(self.place.data / "initial-0.safetensors")}
        done = [
            f
            for part in ("runs", "equal_samples")
            for f in self.found[part]
            if f["seed"] < self.options.probed and "error" not in f
        ]
        weights |= {f["weights"]: str(self.place.data / "weights" / f["weights"]) for f in done}
        tested = [f["weights"] for f in self.found["runs"] if f["seed"] == 0]
        job = {"job": "probe", "data": str(self.place.data), "weights": weights, "tested": tested}
        job |= {"labels": self.options.labels, "limit": self.options.limit}
        accuracy, _ = self.place.child("peer_loops.py", job)
        self.found["untrained"] = accuracy["untrained"]["held_out"]
        for f in done:
            f |= {"accuracy": accuracy[f["weights"]]["held_out"]}
            if "test" in accuracy[f["weights"]]:
                f |= {"test_accuracy": accuracy[f["weights"]]["test"]}

    def losses(self) -> None:
        peers = [loop for loop in PEERS if loop in {arm.loop for arm in self.arms}]
        job = {"peers": peers, "repeats": self.options.loss_repeats}
        self.found["losses"], _ = self.place.child("peer_losses.py", job)


def describe(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"failed: {found['error']}"
    rate = found["samples_per_second"]
    shown = "too short for a rate" if rate is None else f"{rate:6.0f} samples/s"
    return (
        f"{shown}, {found['samples']:,} samples in {found['seconds']:.1f} s, {found['peak_megabytes']:.0f} MB, "
        f"{found['seconds_before_training']:.1f} s before"
    )


# --- what it says ---


def median(values: Iterable[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return statistics.median(there) if there else None


def of(found: list[dict[str, Any]], arm: Arm, key: str) -> dict[int, float]:
    """Value by seed."""
    return {f["seed"]: f[key] for f in found if f["arm"] == str(arm) and f.get(key) is not None}


def compared(bench: Bench) -> list[dict[str, Any]]:
    """accord against each peer: ratio of speeds in the same turn, and differences of accuracy."""
    rows = []
    for ours, other in [p for p in PAIRS if set(p) <= set(bench.arms)]:
        speed, theirs = (of(bench.found["runs"], arm, "samples_per_second") for arm in (ours, other))
        row: dict[str, Any] = {"ours": str(ours), "peer": str(other)}
        row["times_faster"] = median(speed[s] / theirs[s] for s in speed.keys() & theirs.keys())
        for part, name in (("runs", "points_in_equal_seconds"), ("equal_samples", "points_in_equal_samples")):
            a, b = (of(bench.found[part], arm, "accuracy") for arm in (ours, other))
            differences = [100 * (a[s] - b[s]) for s in sorted(a.keys() & b.keys())]
            row[name] = differences
        rows.append(row)
    return rows


def table(bench: Bench) -> None:
    print("\nside               samples/s   MB  | equal seconds: samples, accuracy (test) | equal samples: accuracy")
    for arm in bench.arms:
        values = {
            k: median(of(bench.found["runs"], arm, k).values())
            for k in ("samples_per_second", "peak_megabytes", "samples")
        }
        found = [shown(of(bench.found[p], arm, k)) for p, k in (("runs", "accuracy"), ("runs", "test_accuracy"))]
        equal = shown(of(bench.found["equal_samples"], arm, "accuracy"))
        rate, memory, seen = (f"{v:,.0f}" if v is not None else "-" for v in values.values())
        print(f"{arm!s:18s} {rate:>9s} {memory:>6s} | {seen:>9s} {found[0]} ({found[1]}) | {equal}")
    if "untrained" in bench.found:
        print(f"untrained encoder: {100 * bench.found['untrained']:.1f} %")
    for row in bench.found["compared"]:
        faster = "-" if row["times_faster"] is None else f"{row['times_faster']:.2f} x the samples per second"
        points = [
            f"{name}: " + " ".join(f"{d:+.1f}" for d in row[f"points_in_equal_{name}"]) + " points"
            for name in ("seconds", "samples")
            if row[f"points_in_equal_{name}"]
        ]
        print(f"{row['ours']} against {row['peer']}: {faster}; {'; equal '.join(['', *points])[2:]}")
    for name, why in {**bench.found["peers"], **bench.found["not_run"]}.items():
        print(f"{name}: {why}")


def shown(values: dict[int, float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values.values()):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values.values()):.1f}{spread} %"


def show_losses(rows: list[dict[str, Any]]) -> None:
    print("\nloss alone, n = 256, forward and backward, ms; values under the stated conversion")
    for r in rows:
        print(
            f"{r['principle']:13s} d={r['dim']:4d} {r['peer']:8s} {r['peer_milliseconds']:8.1f}, accord {r['milliseconds']:8.1f}: "
            f"{r['times_faster']:5.1f} x | values differ by {r['relative_difference']:.1e} ({r['conversion']})"
        )


def require_agreement(rows: list[dict[str, Any]]) -> None:
    """Raises RuntimeError where a peer's value is not accord's, under the conversion: then one of the two is wrong."""
    off = [f"{r['peer']} {r['principle']} d={r['dim']}" for r in rows if not r["relative_difference"] < 1e-5]
    if off:
        raise RuntimeError(f"values differ: {', '.join(off)}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="images and labels, as accord reads them")
    parser.add_argument("test", type=Path)
    parser.add_argument("--eb-jepa", type=Path, metavar="CLONE", help="a clone of EB-JEPA; without it, it is left out")
    parser.add_argument("--venv", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "peers-data", help="decoded images, weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--samples", type=int, default=15_360, help="of each run in the part with equal samples; 0 for none"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 8], help="to try for a peer's loader")
    parser.add_argument("--burst", type=float, default=5.0, help="seconds of each such trial")
    parser.add_argument("--probed", type=int, default=3, help="seeds whose weights are probed")
    parser.add_argument("--labels", type=int, default=20_000)
    parser.add_argument("--limit", type=int, default=10**9, help="rows that the probe answers, to be quick")
    parser.add_argument("--loss-repeats", type=int, default=9)
    parser.add_argument("--arms", nargs="*", help="for example 'accord 16 px' 'lightly 32 px'; by default all")
    parser.add_argument("--parts", nargs="+", default=["train", "losses"], choices=["train", "losses"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    try:
        options.version = None if options.eb_jepa is None else digest(options.eb_jepa)
    except FileNotFoundError as error:
        parser.error(str(error))
    if options.eb_jepa is None and any(arm.startswith("eb-jepa") for arm in options.arms or []):
        parser.error(f"EB-JEPA {NO_CLONE}")
    return options


def main() -> None:
    options = parsed()
    left_out = {"eb-jepa"} if options.eb_jepa is None else set()
    found = install(options.venv, [loop for loop in PEERS if loop not in left_out])
    left_out |= {loop for loop, what in found.items() if what.startswith("could not")}
    if "eb-jepa" not in left_out:
        found["eb-jepa"] = f"files {options.version}, with {found['eb-jepa']}"
    options.data.mkdir(parents=True, exist_ok=True)
    clone = None if options.eb_jepa is None else options.eb_jepa.resolve()
    place = Place(options.venv.resolve() / "bin" / "python", options.data.resolve(), options.threads, clone)
    arms = [a for a in ARMS if a.loop not in left_out and (not options.arms or str(a) in options.arms)]
    bench = Bench(options, place, arms)
    bench.found |= {"peers": found, "not_run": NOT_RUN if clone else {"EB-JEPA": NO_CLONE, **NOT_RUN}}
    if "losses" in options.parts:
        bench.losses()
        show_losses(bench.found["losses"])
    if "train" in options.parts:
        seeds = list(range(max(options.repeats, options.probed)))
        job = {"train": str(options.train.resolve()), "test": str(options.test.resolve()), "seeds": seeds}
        place.child("peer_loops.py", {"job": "prepare", **job, "out": str(place.data)})
        shutil.rmtree(place.data / "weights", ignore_errors=True)
        (place.data / "weights").mkdir()
        for part in (bench.choose_workers, bench.equal_seconds, bench.equal_samples, bench.probe):
            part()
        bench.found["compared"] = compared(bench)
        table(bench)
    if options.out is not None:
        machine = {
            "machine": platform.machine(),
            "threads": options.threads,
            "torch": version_of(place.python, "torch"),
        }
        report = {"format": 1, **machine, "seconds": options.seconds, **bench.found}
        options.out.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    require_agreement(bench.found.get("losses", []))


if __name__ == "__main__":
    main()
