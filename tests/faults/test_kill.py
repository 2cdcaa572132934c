"""Killed without warning, at any time and as often as you like, a run ends with the same weights, bit for bit."""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from accord.train.checkpoint import listed, newest
from accord.train.run_directory import RunDirectory


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tiny = load("tiny")

KILLS = 6
OPTIONS = {"steps": 60, "checkpoint_every": 7}


def start(run: Path, **options: Any) -> Any:
    process = tiny.processes().Process(target=tiny.train_here, args=(str(run), {**OPTIONS, "resume": True, **options}))
    process.start()
    return process


def log(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "rate", "waiting")} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing disturbed, and the seconds it took."""
    run = tmp_path_factory.mktemp("whole") / "run"
    start(tmp_path_factory.mktemp("first") / "run").join()  # the first process of all starts the server of processes
    begin = time.perf_counter()
    process = start(run)
    process.join()
    assert process.exitcode == 0
    return run, time.perf_counter() - begin


def steps_done(run: Path) -> int:
    """Steps whose line reached the log; a half line is what a kill leaves."""
    text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
    return text.count("\n")


def kill_until_it_ends(run: Path, choose: random.Random, longest: float, **options: Any) -> int:
    """Kills the run at random times, up to three times, then lets it end; returns how often it was hit."""
    hits = 0
    for _ in range(3):
        process = start(run, **options)
        process.join(timeout=choose.uniform(0, longest))
        process.kill()
        process.join()
        if process.exitcode == 0:
            return hits
        assert process.exitcode == -signal.SIGKILL
        hits += 1
        saved = newest(run / "checkpoints", on_damage=lambda path, error: pytest.fail(f"{path}: {error}"))
        interval = options.get("checkpoint_every", OPTIONS["checkpoint_every"])
        assert steps_done(run) - (saved.step if saved else 0) <= interval, "no more than one interval is lost"
    process = start(run, **options)
    process.join()
    assert process.exitcode == 0
    return hits


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_random_times(whole: tuple[Path, float], tmp_path: Path, seed: int) -> None:
    run, seconds = whole
    hits = kill_until_it_ends(tmp_path / "run", random.Random(seed), seconds)
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(run), f"after {hits} kills"
    assert log(tmp_path / "run") == log(run)


@pytest.mark.parametrize("name", ["byol", "dino"])
def test_killed_with_a_teacher(tmp_path: Path, name: str) -> None:
    """Its weights, and the centre of DINO, go on as everything else does."""
    begin = time.perf_counter()
    process = start(tmp_path / "whole", objective=tiny.with_teacher(name))
    process.join()
    assert process.exitcode == 0
    seconds = time.perf_counter() - begin
    hits = kill_until_it_ends(tmp_path / "run", random.Random(3), seconds, objective=tiny.with_teacher(name))
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(tmp_path / "whole"), f"after {hits} kills"


@pytest.mark.parametrize("seed", range(2))
def test_killed_while_saving(whole: tuple[Path, float], tmp_path: Path, seed: int) -> None:
    """With a checkpoint after every step most of the time goes into saving, and a save is waited for before the kill."""
    run, choose = whole[0], random.Random(seed)
    for _ in range(3):
        process = start(tmp_path / "run", checkpoint_every=1)
        until = time.perf_counter() + choose.uniform(0.1, 1.0)
        while process.is_alive():
            if time.perf_counter() > until and list((tmp_path / "run").glob("checkpoints/*.tmp-*")):
                process.kill()
                break
        process.join()
    process = start(tmp_path / "run", checkpoint_every=1)
    process.join()
    assert process.exitcode == 0
    assert tiny.weights_hash(tmp_path / "run") == tiny.weights_hash(run)


def test_a_half_written_line_is_cut_off(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny.train(run, steps=20, checkpoint_every=10)
    whole = (run / "metrics.jsonl").read_bytes()
    for path in listed(run / "checkpoints")[1:]:
        path.rename(path.with_name(path.name + ".tmp-gone"))
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 21, "lo')
    with RunDirectory(run, resume=True) as directory:
        assert directory.unfinished == ["step-20.tmp-gone"]
        tiny.train(directory, steps=20, checkpoint_every=10)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 21))
    assert len(whole.splitlines()) == 20
