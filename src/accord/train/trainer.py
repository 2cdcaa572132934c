"""The life of a run: go on or begin, step, log, look for collapse, keep to the budget, save, stop when told to."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing
from copy import deepcopy
from itertools import chain, starmap
from pathlib import Path
from typing import Any, NamedTuple

import torch

from accord.data.loader import Batch
from accord.data.pair import Pair
from accord.data.pairing import Pairing
from accord.data.policy import Policy
from accord.data.random import Draws
from accord.data.samples import BadItem, Samples
from accord.errors import ArtifactError, Collapsed, Diverged, Interrupted, UsageError
from accord.objective.loss import Loss, Objective
from accord.train.checkpoint import Checkpoint, newest, quarantine, verify
from accord.train.device import Device
from accord.train.distributed import Ranks
from accord.train.monitor import NOT_EVALUATED, CollapseWatch, Probe, shifts_of
from accord.train.optim import parameter_groups, set_rate
from accord.train.parallel import seed_step, spread
from accord.train.progress import Progress
from accord.train.run_directory import METRICS, MetricsLog, RunDirectory, code_hash, describe_environment, version
from accord.train.schedule import Clock, Pace, Plan, learning_rate, seconds_of, steps_for
from accord.train.settings import ONE_LENGTH, Settings, require_same
from accord.train.signals import Stop
from accord.train.state import pack, read_training, space_needed, unpack
from accord.train.step import Guard, train_step
from accord.train.together import save_together
from accord.train.trend import Looks
from accord.train.trial import seconds_per_step

LINES = 1000
"""Lines of the log in a run, about, unless `log_every` says otherwise."""
TRIAL_SHARE = 0.02
"""A budget is turned into steps by timing some, in up to 2 % of it."""
CHANGES_TOLD = 2
"""Changes of the plan that are told; the progress shows the total, and the checkpoint holds them all."""
SAVE_SHARE, SAVE_AT_LEAST, SAVE_AT_MOST = 0.02, 60.0, 600.0
"""By default saving takes at most 2 % of the time, and no more than ten minutes of work are lost."""


class Story(NamedTuple):
    """What is told of a run while it goes on, and written down about it."""

    progress: Progress
    record: Mapping[str, Any] | None = None
    command: str | None = None


class Trainer:
    """Trains one objective in one run directory. `fit` is the way to use it."""

    def __init__(
        self,
        objective: Objective,
        samples: Samples,
        pairing: Pairing,
        *,
        run: RunDirectory,
        settings: Settings,
        story: Story,
        device: Device,
        stop: Stop,
        ranks: Ranks,
    ):
        self.objective, self.samples, self.pairing = objective, samples, pairing
        self.run, self.settings, self.device, self.stop, self.ranks = run, settings, device, stop, ranks
        self.progress, self.story = story.progress, story
        self.table = settings.table(samples, story.record)
        train, held_out = settings.divide(samples)
        self.loader = settings.loader(samples, train, ranks.rank, ranks.size)
        fixed = held_out if len(held_out) >= 32 else train
        self.probe = Probe(samples, fixed, pairing, seed=settings.seed, batch_size=settings.batch_size)
        self.copy = deepcopy(objective) if settings.length.budget is not None else None  # sharded it cannot be copied
        device.place(objective)
        self.gradient = spread(objective, device, parts=settings.accumulate, parallel=settings.parallel)
        self.optimizer = settings.descent.optimizer.build(parameter_groups(objective, settings.descent.weight_decay))
        self.peak = settings.descent.rate(settings.batch_size)
        self.guard = Guard(objective, self.optimizer)
        self.clock = Clock()
        self.log: MetricsLog | None = None
        self.watch = CollapseWatch(
            rows=len(self.probe),
            values=self.probe.values,
            fixed=objective.model.takes_y_as_it_is,
            shifts=shifts_of(objective.model),
        )
        self.step = 0
        self.signal: int | None = None
        self.plan = Plan(((0, 1),))
        self.budget = None if settings.length.budget is None else seconds_of(settings.length.budget)
        self.finished = False
        self.noted = -1
        self.changes = 0
        self.unchecked: list[list[int]] = []

    # --- begin or go on ---

    def begin(self) -> None:
        """Restores the newest valid checkpoint, or plans and saves the start."""
        self.ranks.require_alike({**self.table, "accord": version(), "torch": torch.__version__, "code": code_hash()})
        checkpoint = self._newest() if self.run.resume else None
        if checkpoint is None:
            if self.ranks.first:
                self.run.require_space(space_needed(self.objective))
                recipe = self.story.record or self.settings.as_recipe(self.samples)
                self.run.write_once(describe_environment(str(self.device), self.story.command, self.ranks), recipe)
            self.plan = self._first_plan()
        self.copy = None
        keep = 0 if checkpoint is None else self._restore(checkpoint)
        self.log = MetricsLog(self.run.path / METRICS, keep=keep) if self.ranks.first else None
        self.pace = None if self.budget is None else Pace(self.budget)
        self._note_bad_samples()
        total = self.plan.entries[0][1]
        self.log_every = self.settings.habits.log_every or max(1, total // LINES)
        self.looks = Looks.over(total, lines_every=self.log_every)
        every = self.settings.habits.checkpoint_every
        self.save_every = seconds_of(every) if isinstance(every, str) else every
        self.save_seconds, self.last_save = 0.0, self.clock()
        self.last_line = (self.step, self.clock(), self.loader.waited)
        if checkpoint is None:
            self.save()

    def _newest(self) -> Checkpoint | None:
        for name in self.run.unfinished:
            self.progress.said(f"removed {name}, the rest of a save that was cut off")
        found = newest(self.run.checkpoints, on_damage=self._quarantine) if self.ranks.first else None
        step = self.ranks.of_first(None if found is None else found.step)
        if step is None:
            self.progress.said("nothing to go on from: training starts at step 0")
            return None
        return found or verify(self.run.checkpoints / f"step-{step}")

    def _quarantine(self, path: Path, error: ArtifactError) -> None:
        self.progress.said(f"{path.name} is damaged ({error.message}) and was set aside as {quarantine(path).name}")

    def _restore(self, checkpoint: Checkpoint) -> int:
        """Puts everything back as it was, and returns how much of the log belongs to it."""
        where = str(checkpoint.path)
        require_same(read_training(checkpoint)["table"], self.table, where=where)
        state = unpack(checkpoint, self.objective, self.optimizer)
        self.step, self.finished = checkpoint.step, bool(state["finished"])
        self.plan, self.budget = Plan.of(state["plan"]), state["budget"]
        self.clock.set(float(state["seconds"]))
        self.watch.restore(state["watch"])
        self.progress.said(
            f"this run is finished, at step {self.step:,}"
            if self.finished
            else f"going on from {checkpoint.path.name}, {self.clock():.0f} s into the run"
        )
        if checkpoint.about.get("code_sha256") != code_hash():
            self.progress.said("the code of accord has changed since: the run may not go on bit for bit")
        if state["threads"] != torch.get_num_threads():
            self.progress.said(f"{state['threads']} threads before, {torch.get_num_threads()} now: not bit for bit")
        if checkpoint.about["world_size"] != self.ranks.size:
            self.progress.said(
                f"{checkpoint.about['world_size']} processes before, {self.ranks.size} now: the same samples, not bit for bit"
            )
        return int(state["log_bytes"])

    def _first_plan(self) -> Plan:
        length = self.settings.length
        if length.plan is not None:
            return Plan.of(length.plan)
        if length.epochs is not None:
            return Plan(((0, max(1, round(length.epochs * self.loader.steps_per_epoch))),))
        if length.steps is not None:
            return Plan(((0, int(length.steps)),))
        if self.budget is None:
            raise UsageError(
                "how long? nothing is given, and there is nothing to go on from", help=ONE_LENGTH, code="E258"
            )
        assert self.copy is not None
        each = seconds_per_step(
            self.copy,
            self.settings,
            self._batches,
            self._pair,
            device=self.device,
            ranks=self.ranks,
            stop=self.stop,
            limit=TRIAL_SHARE * self.budget,
        )
        total = self.ranks.of_first(steps_for(self.budget, each, seconds=self.clock()))
        self.progress.said(f"{1 / each:.3g} steps a second: {total:,} steps fit into {self.budget:g} s")
        return Plan(((0, total),))

    # --- the loop ---

    def train(self) -> None:
        """Steps until the plan is fulfilled.

        Raises:
            Diverged, Collapsed: see `fit`.
            Interrupted: after a signal, once a verified checkpoint is there.
        """
        self.objective.train()
        self.progress.started(
            step=self.step, total=self.plan.total, samples=len(self.loader.index), batch_size=self.settings.batch_size
        )
        while self.step < self.plan.total:
            with self._batches(self.step, self.plan.total) as batches:
                for batch in batches:
                    self._advance(batch)
                    if self.signal is not None or self.step >= self.plan.total:
                        break
            if self.signal is not None:
                self._leave(self.signal)
        if not self.finished:
            self.finished = True
            self.save()

    def _batches(self, start: int, stop: int) -> AbstractContextManager[Iterator[Batch]]:
        """The batches of these steps; leaving the context ends the thread that reads them."""
        batches: Any = self.loader.batches(start, stop)
        return closing(batches)

    def _pair(self, batch: Batch) -> Pair:
        device = self.device.device
        aspect = None if batch.aspect is None else batch.aspect.to(device, non_blocking=True)
        draws = Draws(self.settings.seed, batch.epoch, batch.index.to(device, non_blocking=True))
        return self.device.lay_out(self.pairing(batch.data.to(device, non_blocking=True), draws, aspect))

    def _advance(self, batch: Batch) -> None:
        """One step and what is due after it."""
        rate = learning_rate(self.step, self.plan, peak=self.peak, warmup=self.settings.descent.warmup)
        set_rate(self.optimizer, rate)
        self.objective.before_step(self.plan.progress(self.step))
        if self.ranks.size > 1:
            seed_step(self.settings.seed, self.ranks.rank, self.step)
        pair = self._pair(batch)
        loss = train_step(self.objective, self.optimizer, pair, self.guard, self.device, self.gradient)
        self.step += 1
        self.unchecked.append(batch.index.tolist())
        last = self.step >= self.plan.total
        logs = self.step % self.log_every == 0 or last
        if self.device.is_cpu or logs:
            self._check()
        if logs:
            self._log(batch, loss, rate, looks=self.looks.due(self.step) or last)
        self._settle(logs)

    def _settle(self, logs: bool) -> None:
        """What all ranks must do after the same step: a signal to any of them counts, otherwise the first one decides."""
        first = self.ranks.first
        total = self._planned_again() if first and logs else self.plan.total
        due = first and self.step < total and self._save_is_due()
        found = len(self.probe.bad) + len(self.loader.bad)
        number, total, saves, news = self.ranks.agree(
            self.stop.signal or 0, total if first else 0, due, logs and found != self.noted
        )
        self.signal = number or None
        if total != self.plan.total:
            if self.changes < CHANGES_TOLD:
                self.progress.said(
                    f"planned again at step {self.step:,}: {total:,} steps instead of {self.plan.total:,}"
                )
            self.changes += 1
            self.plan = self.plan.changed(self.step, total)
        if news:
            self._note_bad_samples()
        if saves:
            self.save()

    def _check(self) -> None:
        """Nothing that was not finite gets into a line or a checkpoint."""
        if self.ranks.size > 1 and self.guard.is_bad():  # on all of them: a message names the global batch
            shares = zip(*self.ranks.everyone(self.unchecked), strict=True)
            self.unchecked = [list(chain.from_iterable(parts)) for parts in shares]
        try:
            self.guard.check(self.step, self.unchecked, self.samples.keys)
        except Diverged as error:
            nothing = dict.fromkeys(("rate", "lr", "loss", "waiting"))
            line = {
                "step": self.step,
                "epoch": self.step / self.loader.steps_per_epoch,
                "seconds": self.clock(),
                "terms": {},
            }
            self._write({**line, **nothing, **NOT_EVALUATED, "event": f"diverged: {error.message}"})
            raise
        self.unchecked = []

    def _log(self, batch: Batch, loss: Loss, rate: float, *, looks: bool) -> None:
        seconds = self.clock()
        before, then, waited = self.last_line
        elapsed = max(seconds - then, 1e-9)
        line: dict[str, Any] = {
            "step": self.step,
            "epoch": self.step / self.loader.steps_per_epoch,
            "seconds": seconds,
            "rate": (self.step - before) * self.settings.batch_size / elapsed,
            "lr": rate,
            "loss": float(loss.total),
            "terms": {name: float(value) for name, value in loss.terms.items()},
            **NOT_EVALUATED,
            "waiting": min(1.0, max(0.0, self.loader.waited - waited) / elapsed),
        }
        alarm = None
        if looks:
            health = self.probe.examine(self.objective.model, self.device)
            line |= health.as_metrics()
            alarm = self.watch.observe(self.plan.progress(self.step), health)
        self.last_line = (self.step, self.clock(), self.loader.waited)
        if alarm is not None:
            line["event"] = str(alarm)
        self._write(line)
        self.progress.advanced(step=self.step, total=self.plan.total, line=line)
        if alarm is not None and alarm.certain and self.settings.habits.on_collapse == "stop":
            raise Collapsed(alarm.kind, f"{alarm.kind} collapse at step {self.step:,}: {alarm.seen}", help=alarm.remedy)
        if alarm is not None:
            self.progress.said(f"warning: {str(alarm).removeprefix('warning: ')}; {alarm.remedy}")

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(line)

    def _planned_again(self) -> int:
        """Steps in all, as the clock and the budget have it now."""
        total = self.pace.total(self.step, self.clock(), self.plan) if self.pace is not None else None
        return self.plan.total if total is None or self.step >= self.plan.total else total

    # --- saving ---

    def _save_is_due(self) -> bool:
        if isinstance(self.save_every, int):
            return self.step % self.save_every == 0
        if self.save_every is not None:
            return self.clock() - self.last_save >= self.save_every
        interval = min(max(self.save_seconds / SAVE_SHARE, SAVE_AT_LEAST), SAVE_AT_MOST)
        return self.clock() - self.last_save >= interval

    def save(self) -> Path:
        """A verified checkpoint of this very step, written by the first rank, or by all where each holds a part of it."""
        if self.unchecked:
            self._check()
        begin = self.clock()
        training = {
            "seconds": begin,
            "plan": self.plan.entries,
            "budget": self.budget,
            "finished": self.finished,
            "log_bytes": self.log.sync() if self.log is not None else 0,
            "watch": self.watch.state(),
            "table": self.table,
            "threads": torch.get_num_threads(),
            "loader": {"step": self.step, "seed": self.settings.seed, "batch_size": self.settings.batch_size},
        }
        about = {
            "accord": version(),
            "torch": str(torch.__version__),
            "data_sha256": self.samples.fingerprint,
            "code_sha256": code_hash(),
            "world_size": self.ranks.size,
        }
        files = pack(self.objective, self.optimizer, training)
        save_together(self.run.checkpoints, self.step, files, about, self.ranks)
        self.last_save = self.clock()
        self.save_seconds = self.last_save - begin
        return self.run.checkpoints / f"step-{self.step}"

    def _note_bad_samples(self) -> None:
        """Writes down what reading has met on any rank, and stops if it is too much.

        Raises:
            DataError: beyond the share that may be skipped.
        """
        found = [*self.probe.bad, *self.loader.bad.values()]
        self.noted = len(found)
        parts = self.ranks.everyone(found)
        found = list({item.key: item for part in parts for item in starmap(BadItem, part)}.values())
        if self.ranks.first and (self.samples.bad or found):
            self.run.write_bad_samples([*self.samples.bad, *found])
        Policy(max_bad_fraction=self.settings.habits.max_bad_fraction).enforce(len(found), len(self.samples), found)

    def close(self) -> None:
        """Closes the log."""
        if self.log is not None:
            self.log.close()

    def _leave(self, number: int) -> None:
        self.finished = self.step >= self.plan.total
        path = self.save()
        raise Interrupted(
            number,
            f"stopped by {signal.Signals(number).name} after step {self.step:,} of {self.plan.total:,}; all of it is saved",
            where=str(path),
            help="--resume goes on from there",
        )
