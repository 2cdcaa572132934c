"""One piece of a comparison in a process of its own: its memory is its own, and what goes wrong in it ends nothing else.

The job comes as one line of JSON on standard input, which then stays open: when it closes, who asked for the job is gone, and the
job ends as on SIGTERM. What happens is told on standard output, a line of JSON each: {"said": ...}, at last {"done": ...} or
{"error": ...}.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from accord import build, recipe_toml
from accord.compare.pace import Steps
from accord.data.samples import Samples, split
from accord.division import divided
from accord.errors import AccordError, DataError, EnvironmentFault, Interrupted, TrainingError
from accord.evaluate.collapse import verdict_of
from accord.evaluate.evaluation import Origin
from accord.evaluate.evaluation import evaluate as measure
from accord.recipe import Recipe
from accord.report.page import write_report
from accord.run import Run, new_objective, open_like, open_run, train_in
from accord.storage import disk_faults, write_json
from accord.terminal import Terminal
from accord.train.run_directory import METRICS, RunDirectory
from accord.train.signals import Stop, stop_on_signals
from accord.verbs import calibrate_run

FINAL = ("done", "collapsed", "diverged", "failed")
"""Outcomes that stand; what was interrupted, or died, is done again."""
EVERY = 10.0
Said = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done.

    kind: "run" trains and measures; "trial" the same on the training part alone; "baseline" measures the model before training;
    "pace" measures what a step costs.
    recipe: resolved, plain values. out: the folder. held_out: the share that runs hold out (a trial leaves it alone).
    test, label, column: a test source. baseline: the folder of the baseline of the same seed. pixels: a baseline also probes the
    input. limit: seconds a pace is measured for; 0 for passes only. command: what environment.json says.
    """

    kind: Literal["run", "trial", "baseline", "pace"]
    recipe: dict[str, Any]
    out: str
    held_out: float
    test: str | None = None
    label: str | None = None
    column: str | None = None
    baseline: str | None = None
    pixels: bool = False
    limit: float = 0.0
    command: str | None = None


def outcome_file(folder: Path) -> Path:
    """Where it is written what came of a job: beside its folder, which is an ordinary run directory."""
    return folder.with_name(f"{folder.name}.json")


def outcome_of(folder: Path) -> dict[str, Any]:
    """What is known of a job; empty if nothing is."""
    try:
        found = json.loads(outcome_file(folder).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def perform(job: Job, stop: Stop, said: Said) -> dict[str, Any]:
    """Does a job, writes what came of it beside its folder and returns it.

    Raises:
        AccordError: for what ends the whole comparison: interruption, disk, data, usage. A training that fails is an outcome.
    """
    recipe = recipe_toml.parse(job.recipe)
    samples = open_like(recipe, recipe.data.source, column=recipe.data.column, label=recipe.data.label)
    match job.kind:
        case "pace":
            found = _pace(job, recipe, samples, stop)
        case "baseline":
            found = _baseline(job, recipe, samples, stop)
        case _:
            found = _train(job, recipe, samples, stop, said)
    return keep(Path(job.out), found)


def keep(folder: Path, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Writes down what came of a job.

    Raises:
        EnvironmentFault: if it cannot be written.
    """
    with disk_faults(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    write_json(outcome_file(folder), outcome)
    return dict(outcome)


def _pace(job: Job, recipe: Recipe, samples: Samples, stop: Stop) -> dict[str, Any]:
    steps = Steps(recipe, samples, divided(recipe, samples)[0])
    passes = steps.passes()
    seconds = steps.seconds(job.limit, stop=lambda: stop.check("measuring the pace")) if job.limit else None
    return {"status": "done", "passes_per_step": passes, "seconds_per_step": seconds}


def _baseline(job: Job, recipe: Recipe, samples: Samples, stop: Stop) -> dict[str, Any]:
    train, held_out = divided(recipe, samples)
    pairing = build.pairing(recipe)
    model = new_objective(recipe, samples, train, pairing).model.eval()
    found = measure(
        model,
        samples,
        build.in_units(pairing, model),
        train_index=train,
        held_out_index=held_out,
        test=_test(job, recipe),
        seed=recipe.training.seed,
        origin=Origin(principle="untrained"),
        baselines=job.pixels,
        stop=lambda: stop.check("measuring the baselines"),
    )
    kept = {key: found[key] for key in ("data", "model", "probes", "energy", "retrieval", "collapse", "warnings")}
    return {"status": "done", "evaluation": kept}


def _test(job: Job, recipe: Recipe) -> Samples | None:
    if job.test is None:
        return None
    return open_like(recipe, job.test, column=job.column, label=job.label, limit_bad=False)


class Trained(NamedTuple):
    """What training took; `cpu` is None where a part of it is unknown."""

    steps: int
    seconds: float
    cpu: float | None
    memory: int


def _train(job: Job, recipe: Recipe, samples: Samples, stop: Stop, said: Said) -> dict[str, Any]:
    """Trains, or goes on, and measures."""
    if job.kind == "trial":
        samples = without_held_out(samples, recipe, job.held_out)
    folder = Path(job.out)
    before = outcome_of(folder)
    if "steps" not in before or not folder.is_dir():  # otherwise it was trained, and only measuring was cut off
        try:
            before = keep(folder, {"status": "trained", **_learn(job, recipe, samples, before, stop, said)})
        except TrainingError as error:
            status = "collapsed" if error.code == "E602" else "diverged"
            return {"status": status, "message": error.message, "remedy": error.help}
        except EnvironmentFault as error:
            if error.code != "E505":
                raise
            return {"status": "failed", "message": error.message, "remedy": error.help}
    passes = Steps(recipe, samples, divided(recipe, samples)[0]).passes()
    before |= {"passes": None if passes is None else passes * before["steps"]}
    begin = time.monotonic()
    try:
        _measure(job, recipe, samples, stop)
    except (DataError, AccordError) as error:
        if isinstance(error, Interrupted) or error.code not in ("E400", "E300", "E365"):
            raise
        return {**before, "status": "failed", "message": error.message, "remedy": error.help}
    return {**before, "status": "done", "measuring_seconds": time.monotonic() - begin}


def without_held_out(samples: Samples, recipe: Recipe, held_out: float) -> Samples:
    """The samples of which only those that runs train on can be used."""
    train, _ = split(samples, held_out, recipe.data.split_seed or 0, recipe.data.hold_out_by)
    ok = np.zeros_like(samples.ok)
    ok[train] = True
    return replace(samples, ok=ok)


def _learn(
    job: Job, recipe: Recipe, samples: Samples, before: Mapping[str, Any], stop: Stop, said: Said
) -> dict[str, Any]:
    """Trains in the run directory; what an interrupted part took is kept for when it goes on."""
    folder, begin = Path(job.out), time.process_time()
    log = folder / METRICS
    earlier = before.get("cpu_seconds", None if log.is_file() and log.stat().st_size else 0.0)

    def taken() -> dict[str, Any]:
        cpu = None if earlier is None else earlier + time.process_time() - begin
        peaks = {"peak_memory": peak_memory(), "peak_device_memory": torch.cuda.max_memory_allocated()}
        return {"cpu_seconds": cpu, **{key: max(value, before.get(key, 0)) for key, value in peaks.items()}}

    try:
        with RunDirectory(folder, resume=True) as directory:
            done = train_in(
                directory, recipe, samples, stop=stop, progress=Telling(said), command=job.command or "accord compare"
            )
    except Interrupted:
        keep(folder, {"status": "interrupted", **taken()})
        raise
    rate = done.steps * recipe.training.batch_size / max(done.seconds, 1e-9)
    return {"steps": done.steps, "seconds": done.seconds, "samples_per_second": rate, **taken()}


def _measure(job: Job, recipe: Recipe, samples: Samples, stop: Stop) -> None:
    """evaluation.json, calibration.json and report.html, as `accord evaluate` writes them."""
    run = open_run(Path(job.out))
    train, held_out = divided(recipe, samples)
    found = measure(
        run.model,
        samples,
        run.pairing,
        train_index=train,
        held_out_index=held_out,
        test=_test(job, recipe),
        seed=recipe.training.seed,
        origin=run.origin(),
        baselines=False,
        commands=run.commands(job.test),
        out=run.path,
        stop=lambda: stop.check("evaluating"),
    )
    if job.kind == "trial":
        return
    _add_baselines(job, run, found)
    energies = run.energies(samples, held_out, stop=lambda: stop.check("calibrating"))
    used = np.concatenate([train, held_out])
    calibrate_run(run, samples, used, energies, verdict_of(found["collapse"]), Terminal(as_json=True))  # type: ignore[arg-type]
    write_report(run.path)


def _add_baselines(job: Job, run: Run, found: dict[str, object]) -> None:
    """What the baseline of this seed was probed for stands in the evaluation too, as if it had been measured here."""
    if job.baseline is None or not isinstance(found["probes"], dict):
        return
    known = outcome_of(Path(job.baseline)).get("evaluation", {}).get("probes") or {}
    named = {"untrained": known.get("features"), "pixels": known.get("pixels"), "pca": known.get("pca")}
    found["probes"] = {**found["probes"], **{name: values for name, values in named.items() if values}}
    write_json(run.path / "evaluation.json", found)


class Telling:
    """Hears of a training and says where it is now and then."""

    def __init__(self, said: Said):
        self._said, self._next = said, time.monotonic() + EVERY

    def started(self, *, step: int, total: int, samples: int, batch_size: int) -> None:
        """Says it where the run goes on."""
        if step:
            self._said(f"goes on from step {step:,} of {total:,}")

    def advanced(self, *, step: int, total: int, line: Mapping[str, Any]) -> None:
        """Says it every ten seconds."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self._said(f"step {step:,} of {total:,}, {line['rate']:,.0f} samples/s")

    def said(self, text: str) -> None:
        """Only warnings."""
        if text.startswith("warning"):
            self._said(text)

    def finished(self) -> None:
        """Nothing to close."""


def peak_memory() -> int:
    """The most bytes this process has held in memory, since its program began."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """The process: reads a job, does it, tells the outcome."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints does not disturb
    job = Job(**json.loads(_line()))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(key: str, value: object) -> None:
        channel.write(json.dumps({key: value}) + "\n")

    try:
        with stop_on_signals() as stop:
            tell("done", perform(job, stop, lambda text: tell("said", text)))
    except AccordError as error:
        tell("error", error.as_dict())
        sys.exit(error.exit_code)


def _line() -> bytes:
    """The first line of standard input, and nothing beyond it."""
    line = b""
    while not line.endswith(b"\n") and (part := os.read(0, 1)):
        line += part
    return line


def _end_with_parent() -> None:
    while os.read(0, 4096):  # nothing more is sent: this waits for the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
