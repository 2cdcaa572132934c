"""Kills training without warning, at random times and in the middle of saves, and compares what comes of it with a run left alone.

    python benchmarks/kill.py --kills 50                 # accord train digits, killed, then --resume
    python benchmarks/kill.py --kills 50 --through api   # accord.fit with a checkpoint after every step
    python benchmarks/kill.py --syscalls                 # needs strace: killed at each write, fsync and rename of one save

Every trial is a new run that is killed once with SIGKILL and then goes on to its end. It counts if the final weights and the log (but
for the clock) are equal, byte for byte, to those of the run left alone. 0 failures of N bound the failure rate by 3/N at 95 %.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import multiprocessing.context
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import accord
from accord import cli
from accord.train.checkpoint import newest

CLOCKS = ("seconds", "rate", "waiting")
PRELOAD = ["accord.run", "accord.cli", "accord.data.digits", "sklearn.datasets", "torch._dynamo", "tomli_w"]


def through_cli(run: str) -> None:
    """What `accord train digits --out RUN --resume` does, in a process that has imported everything already."""
    torch.set_num_threads(1)
    sys.argv = ["accord", "train", "digits", "--out", run, "--resume", "--epochs", "8"]
    sys.argv += ["--set", "training.checkpoint_every=0.15s", "--set", "training.batch_size=128"]
    cli.main()


def through_api(run: str) -> None:
    """`accord.fit` on a small model."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 128), nn.ReLU()
    )
    encoder = accord.Encoder(backbone, accord.Projector(128, 64, hidden=(256,)), sample_ndim=3)
    model = accord.JointEmbedding(encoder, encoder, accord.IdentityPredictor())
    digits, pairing = accord.open_source("digits"), accord.two_views(accord.Augmentation.digits())
    accord.fit(
        accord.regularized(model),
        digits,
        pairing,
        out=run,
        epochs=6,
        batch_size=128,
        checkpoint_every=1,
        resume=True,
    )


THROUGH = {"cli": through_cli, "api": through_api}


class Trial(NamedTuple):
    """One kill: when, after how many logged steps, whether a save was under way, and whether the end was the same."""

    seconds: float
    step: int
    saving: bool
    equal: bool


def start(through: str, run: Path) -> multiprocessing.context.ForkServerProcess:
    """The run in a process of its own, which is quiet."""
    process = context().Process(target=quiet, args=(through, str(run)))
    process.start()
    return process


def quiet(through: str, run: str) -> None:
    """Training without its words."""
    with Path(run + ".txt").open("a") as file:
        sys.stdout = sys.stderr = file
        THROUGH[through](run)


def context() -> multiprocessing.context.ForkServerContext:
    """Processes forked from one that has imported everything and done nothing."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


def outcome(run: Path) -> str:
    """sha256 over the newest weights and the log without its clock."""
    newest = max((p for p in (run / "checkpoints").glob("step-*") if p.suffix == ""), key=lambda p: int(p.name[5:]))
    digest = hashlib.sha256((newest / "weights.safetensors").read_bytes())
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        digest.update(json.dumps({k: v for k, v in line.items() if k not in CLOCKS}).encode())
    return digest.hexdigest()


def logged(run: Path) -> int:
    """Whole lines in the log."""
    log = run / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def is_saving(run: Path) -> bool:
    """Whether a checkpoint is half-written."""
    return any((run / "checkpoints").glob("*.tmp-*"))


def kill_once(through: str, run: Path, after: float, *, while_saving: bool) -> tuple[float, int, bool] | None:
    """Starts a run and kills it; None if it came to its end first."""
    process, begin = start(through, run), time.perf_counter()
    while process.is_alive() and (time.perf_counter() - begin < after or (while_saving and not is_saving(run))):
        time.sleep(0.0005)
    saving = is_saving(run)
    process.kill()
    process.join()
    if process.exitcode == 0:
        return None
    assert process.exitcode == -9, f"the run ended by itself with {process.exitcode}: see {run}.txt"
    return time.perf_counter() - begin, logged(run), saving or is_saving(run)


def trial(through: str, folder: Path, choose: random.Random, longest: float, expected: str, *, saving: bool) -> Trial:
    """Kills a fresh run once, lets it go on, and compares."""
    for attempt in range(20):
        run = folder / f"run-{attempt}"
        hit = kill_once(through, run, choose.uniform(0, longest), while_saving=saving)
        if hit is not None:
            break
        shutil.rmtree(run)
    else:
        raise SystemExit("20 runs in a row ended before they could be killed")
    process = start(through, run)
    process.join()
    assert process.exitcode == 0, f"going on ended with {process.exitcode}: see {run}.txt"
    return Trial(*hit, equal=outcome(run) == expected)


def kills(through: str, count: int, seed: int) -> int:
    """The experiment; returns how many trials ended differently."""
    choose, folder = random.Random(seed), Path(tempfile.mkdtemp(prefix="accord-kill-"))
    for name in ("warm", "whole"):
        begin = time.perf_counter()
        process = start(through, folder / name)
        process.join()
        assert process.exitcode == 0, f"the run left alone ended with {process.exitcode}: see {folder / name}.txt"
    longest, expected = time.perf_counter() - begin, outcome(folder / "whole")
    assert outcome(folder / "warm") == expected, "two runs left alone differ: nothing can be compared"
    print(f"left alone: {longest:.1f} s, {logged(folder / 'whole')} steps, sha256 {expected[:16]}", flush=True)
    trials = []
    for number in range(count):
        place = folder / f"trial-{number}"
        place.mkdir()
        trials.append(trial(through, place, choose, longest, expected, saving=number % 2 == 1))
        one = trials[-1]
        where = "while saving" if one.saving else "while training" if one.step else "before the first step"
        print(
            f"{number + 1:3}  killed after {one.seconds:5.2f} s, {one.step:3} steps, {where}: {'equal' if one.equal else 'DIFFERENT'}",
            flush=True,
        )
        shutil.rmtree(place)
    equal, saving = sum(t.equal for t in trials), sum(t.saving for t in trials)
    print(
        f"{equal} of {count} killed runs ended with the same weights and log, bit for bit; {saving} were killed while saving"
    )
    shutil.rmtree(folder)
    return count - equal


SAVE = """
import sys
from pathlib import Path
from accord.train.checkpoint import FILES, save_checkpoint
import safetensors.torch, torch
data = safetensors.torch.save({"a": torch.full((999,), float(sys.argv[2]))})
files = {name: data if name.endswith("tensors") else b"{}" for name in FILES}
save_checkpoint(Path(sys.argv[1]), int(sys.argv[2]), files, {})
"""


def syscalls() -> int:
    """Kills a save at each write, fsync and rename it asks of the system; returns how often no checkpoint was left."""
    folder = Path(tempfile.mkdtemp(prefix="accord-kill-"))
    lost = points = 0
    for call in ("write", "fsync", "rename"):
        for k in range(1, 100):
            shutil.rmtree(folder)
            folder.mkdir()
            for step in ("1", "2"):
                subprocess.run([sys.executable, "-c", SAVE, str(folder), step], check=True)
            options = ["-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
            inject = ["-e", f"inject={call}:signal=SIGKILL:when={k}"]
            done = subprocess.run(
                ["strace", *options, *inject, sys.executable, "-c", SAVE, str(folder), "3"], check=False
            )
            if done.returncode == 0:
                break
            found = newest(folder, on_damage=lambda path, error: print(f"{path}: {error}"))
            points, lost = points + 1, lost + (found is None)
            print(f"killed at {call} {k}: step {found.step if found else None} loads", flush=True)
    print(f"{points - lost} of {points} killed saves left a checkpoint that loads")
    shutil.rmtree(folder)
    return lost


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--through", choices=sorted(THROUGH), default="cli")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--syscalls", action="store_true")
    given = parser.parse_args()
    failures = syscalls() if given.syscalls else kills(given.through, given.kills, given.seed)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
