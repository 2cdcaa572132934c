"""A signal ends a run after the step, with everything saved; a second one ends it at once, with what was saved before."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from accord.errors import Interrupted
from accord.train.checkpoint import listed, verify
from accord.train.progress import Silent
from accord.train.signals import STOPPING, Stop, stop_on_signals


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

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As in a terminal, also where the tests run in the background or under nohup; nothing a test does to the handlers stays."""
    found = {number: signal.getsignal(number) for number in STOPPING}
    tiny.heed_signals()
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is handler, "the handler was not put back"
        signal.signal(number, found[number])


class SendsAt(Silent):
    """Sends this process a signal when a step has been taken."""

    def __init__(self, step: int, *names: str):
        self.step, self.names = step, names

    def advanced(self, *, step: int, total: int, line: Any) -> None:
        if step == self.step:
            for name in self.names:
                os.kill(os.getpid(), getattr(signal, name))
                time.sleep(0.01)


@pytest.mark.parametrize("name", CODES)
def test_one_signal_saves_the_very_step_and_tells_its_code(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"stopped by {name} after step 13 of 40") as caught:
        tiny.train(run, progress=SendsAt(13, name))
    assert caught.value.exit_code == CODES[name]
    assert caught.value.where == str(run / "checkpoints" / "step-13")
    assert verify(run / "checkpoints" / "step-13").step == 13
    assert "--resume" in str(caught.value)
    tiny.train(tmp_path / "whole")
    tiny.train(run, resume=True)
    assert tiny.weights_hash(run) == tiny.weights_hash(tmp_path / "whole")


def test_without_reading_the_flag_the_run_would_go_on(tmp_path: Path) -> None:
    """Negative control: a flag that nobody reads."""
    with stop_on_signals() as other:
        assert tiny.train(tmp_path / "run", stop=Stop(), progress=SendsAt(13, "SIGTERM")).steps == 40
    assert other.signal == signal.SIGTERM


def test_a_signal_at_the_last_step_leaves_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        tiny.train(tmp_path / "run", progress=SendsAt(40, "SIGTERM"))
    assert tiny.train(tmp_path / "run", resume=True).steps == 40


def test_two_signals_stop_at_once_and_save_nothing_new(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="at once") as caught:
        tiny.train(tmp_path / "run", progress=SendsAt(13, "SIGTERM", "SIGINT"))
    assert caught.value.exit_code == 130
    assert [p.name for p in listed(tmp_path / "run" / "checkpoints")] == ["step-0", "step-10"]
    assert all(verify(p) for p in listed(tmp_path / "run" / "checkpoints"))
    assert tiny.train(tmp_path / "run", resume=True).steps == 40


@pytest.mark.parametrize("seed", range(3))
def test_a_process_told_to_end_ends_well(tmp_path: Path, seed: int) -> None:
    run, choose = tmp_path / "run", random.Random(seed)
    process = tiny.processes().Process(
        target=tiny.train_here, args=(str(run), {"steps": 10_000, "log_every": 1}, 0.005)
    )
    process.start()
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text().count("\n"):
        time.sleep(0.01)
    time.sleep(choose.uniform(0, 0.5))
    begin = time.perf_counter()
    os.kill(process.pid, signal.SIGTERM)
    process.join(timeout=10)
    assert process.exitcode == 143
    assert time.perf_counter() - begin < 10
    last = listed(run / "checkpoints")[-1]
    assert verify(last).step == (run / "metrics.jsonl").read_text().count("\n"), "no step is lost"


@pytest.mark.parametrize("pause", [0.0, 0.1, 0.5])
def test_a_process_in_a_long_step_ends_at_the_second_signal(tmp_path: Path, pause: float) -> None:
    run = tmp_path / "run"
    process = tiny.processes().Process(target=tiny.train_here, args=(str(run), {"steps": 100}, 3.0))
    process.start()
    while not listed(run / "checkpoints"):
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(pause)
    begin = time.perf_counter()
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=10)
    assert time.perf_counter() - begin < 2.0
    assert process.exitcode in (130, 143)
    assert [p.name for p in listed(run / "checkpoints")] == ["step-0"]
    assert verify(run / "checkpoints" / "step-0").step == 0


# --- the flag ---


def test_the_flag_is_set_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        assert stop.name == "SIGTERM"
        with pytest.raises(Interrupted, match="stopped by SIGTERM while evaluating") as caught:
            stop.check("evaluating")
        assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    Stop().check("anything")


def test_what_was_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_after_a_second_signal_the_former_handlers_are_back() -> None:
    with pytest.raises(Interrupted), stop_on_signals():
        before = signal.getsignal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            assert signal.getsignal(signal.SIGTERM) is not before


def test_in_another_thread_there_is_a_flag_but_no_handler() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_on_signals() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
