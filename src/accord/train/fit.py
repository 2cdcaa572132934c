"""Training from Python: one call, one run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from accord.data.pairing import Pairing
from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.errors import UsageError
from accord.model.batch_norm import local_norms
from accord.objective.loss import Objective
from accord.train.accumulate import has_batch_norm
from accord.train.device import Device, choose_device, memory_faults, reproducible
from accord.train.distributed import Ranks, joined
from accord.train.optim import AdamW, OptimizerSettings
from accord.train.progress import Lines, Progress, Silent
from accord.train.run_directory import RunDirectory
from accord.train.settings import ONE_LENGTH, Descent, Habits, HeldOut, Length, Settings
from accord.train.signals import Stop, stop_on_signals
from accord.train.trainer import Story, Trainer


class Fit(NamedTuple):
    """A run that has ended: where it is, steps and seconds of training (those before an interruption included), and the limit it
    ended at: "epochs", "steps", "budget" or "plan".
    """

    path: Path
    steps: int
    seconds: float
    stopped: str


def fit(
    objective: Objective,
    samples: Samples | str | Path | np.ndarray,
    pairing: Pairing,
    *,
    out: str | Path | RunDirectory,
    epochs: float | None = None,
    steps: int | None = None,
    budget: str | float | None = None,
    plan: Sequence[tuple[int, int]] | None = None,
    batch_size: int = 256,
    accumulate: int = 1,
    parallel: str = "ddp",
    seed: int = 0,
    held_out: HeldOut = 0.2,
    shuffle_buffer: int | None = None,
    optimizer: OptimizerSettings | None = None,
    lr: float | None = None,
    weight_decay: float = 0.05,
    warmup: float = 0.05,
    device: str | torch.device = "auto",
    precision: str = "auto",
    resume: bool = False,
    on_collapse: str = "stop",
    checkpoint_every: int | str | None = None,
    log_every: int | None = None,
    max_bad_fraction: float = 0.01,
    progress: Progress | None = None,
    record: Mapping[str, Any] | None = None,
    command: str | None = None,
    stop: Stop | None = None,
) -> Fit:
    """Trains `objective` in place on pairs made of `samples`, and keeps everything about it in a run directory.

    On a CPU a run is reproducible bit for bit, resumed or not, with the same data, settings, versions and number of threads;
    a budget is turned into a number of steps by the clock, and the plan it led to (in the checkpoint) reproduces it.

    Started by torchrun or srun, the processes share each batch, and only the first one writes and speaks. What is learned is that
    of one process up to rounding, but for random numbers the model itself draws (dropout, draws of z): each rank has others.

    Args:
        objective: what is minimised. Afterwards it is on `device`, in evaluation mode.
        samples: the data, or a source for `open_source`.
        pairing: makes pairs of a batch.
        out: the run directory: new or empty, or with `resume` one to go on in; or a `RunDirectory` that is open.
        epochs: length of the run in passes over the training part. Give exactly one of the four lengths; when resuming, none will do.
        steps: length in steps.
        budget: length in time, "90s", "10m", "1.5h" or seconds: the schedule fits it, and training ends within about 5 % of it.
        plan: (step, total) pairs of an earlier run, to reproduce it.
        batch_size: samples per step, at least 2, of all processes together.
        accumulate: parts of a batch that the encoders work on one after the other, for batches that do not fit into memory. The
            gradient is that of the whole batch, at the price of one more forward pass; only batch norm sees a part at a time.
        parallel: of several processes, "ddp": each holds all weights; "fsdp": each holds a part of the encoders' weights, which are
            whole only in the checkpoints (`load_weights`) afterwards. The results are the same.
        seed: of the split, the order, the views and what the model draws itself (dropout). Initial weights are the caller's.
        held_out: share of the samples kept for evaluation, or indices, or (training, held-out) indices, which are all that is used then;
            training looks for collapse on them.
        shuffle_buffer: samples that are shuffled together where they are streamed from archives or Parquet files; 0: all of them;
            by default 16,384 (fewer large ones) if they are too many to be kept decoded, else all.
        optimizer: `AdamW()`, `SGD(...)` or `LARS(...)`; AdamW by default.
        lr: learning rate after warm-up; by default the usual one of the optimiser.
        weight_decay: of parameters with two axes or more; not of biases and norms.
        warmup: share of the run over which the learning rate rises.
        device: "auto", "cpu", "cuda", ...
        precision: "auto", "float32" or "bfloat16".
        resume: go on from the newest valid checkpoint in `out`; start there if nothing was saved yet.
        on_collapse: "stop" or "warn".
        checkpoint_every: steps, or a time ("5m"); by default every minute, or less often where saving takes long.
        log_every: steps between lines of metrics.jsonl; by default about 1,000 lines in all.
        max_bad_fraction: share of the samples that may turn out damaged while training; they are replaced and listed.
        progress: hears what happens; by default plain lines on standard error.
        record: what is written to recipe.toml; by default these settings.
        command: how to do this again, for environment.json.
        stop: a flag that ends training after the step; by default signals set one.

    Raises:
        UsageError: a setting that is out of bounds, or a run directory that holds something else.
        DataError: more damaged samples than allowed.
        ArtifactError: when resuming: other settings, another model, or every checkpoint damaged.
        EnvironmentFault: disk, rights, memory or device.
        Diverged: a loss or gradient that is not finite; the update was not made and the last checkpoint is intact.
        Collapsed: constant, dimensional or flat energy, unless `on_collapse` is "warn".
        Interrupted: by SIGINT, SIGTERM or SIGHUP, after a verified checkpoint.
        Locked: if another process is at work in `out`.
    """
    length = Length(epochs, steps, budget, plan)
    descent = Descent(optimizer or AdamW(), lr, weight_decay, warmup)
    habits = Habits(on_collapse, checkpoint_every, log_every, max_bad_fraction)
    settings = Settings(length, descent, habits, batch_size, seed, held_out, accumulate, parallel, shuffle_buffer)
    if not (length.given or resume or isinstance(out, RunDirectory)):
        raise UsageError("how long? nothing is given", help=ONE_LENGTH, code="E258")
    with ExitStack() as stack:
        ranks = stack.enter_context(joined())
        place = choose_device(device, precision)
        story = Story((progress or Lines()) if ranks.first else Silent(), record, command)
        run = out if isinstance(out, RunDirectory) else stack.enter_context(RunDirectory(out, resume=resume))
        flag = stop if stop is not None else stack.enter_context(stop_on_signals())
        data = samples if isinstance(samples, Samples) else open_source(samples)
        return _train(objective, data, pairing, run, settings, story, place, flag, ranks)


def _train(
    objective: Objective,
    samples: Samples,
    pairing: Pairing,
    run: RunDirectory,
    settings: Settings,
    story: Story,
    device: Device,
    stop: Stop,
    ranks: Ranks,
) -> Fit:
    many = f", {ranks.size} processes ({ranks.backend})" if ranks.size > 1 else ""
    story.progress.said(f"device: {device}{many}")
    strange = local_norms(objective.model) if ranks.size > 1 else []
    if strange:
        story.progress.said(
            f"warning: {strange[0]} and {len(strange) - 1} more normalise by the samples of one process, not by the batch; "
            "use accord.BatchNorm1d and accord.BatchNorm2d"
        )
    if settings.accumulate > 1:
        norm = "; only batch norm sees a part at a time" if has_batch_norm(objective.model) else ""
        story.progress.said(f"each batch in {settings.accumulate} parts: the gradient is that of the whole batch{norm}")
    with ExitStack() as stack:
        stack.enter_context(memory_faults(settings.batch_size))
        stack.enter_context(reproducible(device, settings.seed))
        stack.callback(story.progress.finished)
        trainer = Trainer(
            objective, samples, pairing, run=run, settings=settings, story=story, device=device, stop=stop, ranks=ranks
        )
        stack.callback(trainer.close)
        trainer.begin()
        trainer.train()
    objective.eval()
    limit = "steps" if trainer.budget is None else "budget"
    return Fit(run.path, trainer.step, trainer.clock(), next(iter(settings.length.given), limit))
