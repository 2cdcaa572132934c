"""A comparison whose processes are really killed, or told to stop: what is finished stays, what was begun goes on, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from accord.compare.folder import opened
from accord.compare.job import outcome_of
from accord.errors import Locked

STEPS = 120
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After a failed test no process goes on."""
    yield
    for process in Running.all:
        process.kill()
        process.communicate()
    Running.all.clear()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "table.npz"
    np.savez(path, x=rng.normal(size=(200, 8)).astype(np.float32), label=rng.integers(0, 2, 200))
    return path


class Running:
    """`accord compare` in a process of its own: two principles, one seed, some seconds each."""

    all: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, table: Path, out: Path):
        self.out = out
        small = ("encoder.hidden=[32]", "projector.hidden=[32]", "projector.dim=16", "training.batch_size=64")
        command = [sys.executable, "-m", "accord", "compare", str(table), "--principles", "vicreg,barlow_twins"]
        command += ["--equal", "steps", "--budget", str(STEPS), "--seeds", "1", "--out", str(out), "--json"]
        for setting in (*small, "training.checkpoint_every=1s"):
            command += ["--set", setting]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.all.append(self.process)

    def folder(self, name: str) -> Path:
        return self.out / "runs" / name / "seed-0"

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 400
        while not what():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def in_the_second_run(self) -> None:
        """Waits until the first run is done and the second has learned for a while."""
        log = self.folder("barlow_twins") / "metrics.jsonl"
        self.wait_for(lambda: log.is_file() and len(log.read_bytes().splitlines()) > 15)

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=400)
        return self.process.returncode, out


def steps_of(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def nobody_is_at_work(out: Path) -> bool:
    settings = json.loads((out / "compare.json").read_text())["settings"]
    try:
        with opened(out, settings):
            return True
    except Locked:
        return False


def goes_on(table: Path, out: Path) -> dict[str, Any]:
    """The same command again: what it says, after checking that the first run was not touched and no step is repeated."""
    first = out / "runs" / "vicreg" / "seed-0"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    again = Running(table, out)
    code, said = again.end()
    assert code == 0, again.process.stderr
    assert before == {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    steps = steps_of(out / "runs" / "barlow_twins" / "seed-0")
    assert steps == sorted(set(steps)) and steps[-1] == STEPS
    found: dict[str, Any] = json.loads(said)
    assert [run["status"] for run in found["runs"]] == ["done", "done"]
    assert (out / "compare.html").is_file()
    return found


def test_killed_and_gone_on(table: Path, tmp_path: Path) -> None:
    running = Running(table, tmp_path / "c")
    running.in_the_second_run()
    reached = steps_of(running.folder("barlow_twins"))[-5]
    running.process.kill()
    running.process.wait()
    json.loads((tmp_path / "c" / "compare.json").read_text())
    assert nobody_is_at_work(tmp_path / "c")
    begun = running.folder("barlow_twins") / "environment.json"
    when = begun.stat().st_mtime_ns
    found = goes_on(table, tmp_path / "c")
    assert begun.stat().st_mtime_ns == when, "it went on, and did not begin again"
    assert found["runs"][1]["steps"] == STEPS > reached


def test_the_orphan_of_a_killed_comparison_saves_and_ends(table: Path, tmp_path: Path) -> None:
    running = Running(table, tmp_path / "c")
    running.in_the_second_run()
    folder = running.folder("barlow_twins")
    owner = json.loads((folder / ".lock").read_text())["pid"]
    running.process.kill()
    running.process.wait()
    deadline = time.monotonic() + 100
    while Path(f"/proc/{owner}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{owner}").exists()
    saved = max(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))
    assert saved >= steps_of(folder)[-1] > 0
    assert outcome_of(folder)["status"] == "interrupted"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop_and_gone_on(number: int, code: int, table: Path, tmp_path: Path) -> None:
    running = Running(table, tmp_path / "c")
    running.in_the_second_run()
    os.kill(running.process.pid, number)
    ended, said = running.end()
    assert ended == code
    assert json.loads(said)["exit_code"] == code
    state = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert [run["status"] for run in state["runs"]] == ["done", "interrupted"]
    found = goes_on(table, tmp_path / "c")
    assert found["runs"][1]["cpu_seconds"] > 0


def test_a_run_whose_process_is_killed_ends_nothing_else(table: Path, tmp_path: Path) -> None:
    running = Running(table, tmp_path / "c")
    log = running.folder("vicreg") / "metrics.jsonl"
    running.wait_for(lambda: log.is_file() and len(log.read_bytes().splitlines()) > 15)
    os.kill(json.loads((running.folder("vicreg") / ".lock").read_text())["pid"], signal.SIGKILL)
    code, said = running.end()
    assert code == 0
    runs = json.loads(said)["runs"]
    assert [run["status"] for run in runs] == ["died", "done"] and "SIGKILL" in runs[0]["message"]
    other = running.folder("barlow_twins")
    before = (other / "evaluation.json").stat().st_mtime_ns
    again = Running(table, tmp_path / "c")
    code, said = again.end()
    assert code == 0 and [run["status"] for run in json.loads(said)["runs"]] == ["done", "done"]
    assert (other / "evaluation.json").stat().st_mtime_ns == before
