"""Of several processes that train together one is killed, hangs, fails or is told to stop: all end, with everything saved intact."""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from accord.errors import EnvironmentFault
from accord.train.checkpoint import listed, verify
from accord.train.distributed import Ranks

sys.path.insert(0, str(Path(__file__).parents[1]))  # the helpers are no package, and processes look for them by name
many, tiny = (importlib.import_module(name) for name in ("many", "tiny"))

LOST = "another process of this run"


def wait_for_steps(run: Path, steps: int) -> None:
    """Until the log has so many lines."""
    until = time.monotonic() + 30
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count("\n") < steps:
        assert time.monotonic() < until, "the run does not come on"
        time.sleep(0.01)


def ended(processes: list[Any], seconds: float) -> list[int | None]:
    """Exit codes of the processes that end within that time."""
    until = time.monotonic() + seconds
    for process in processes:
        process.join(timeout=max(0.0, until - time.monotonic()))
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    many.together(2, folder, out=str(folder / "run"), steps=24, checkpoint_every=8)
    return folder / "run"


@pytest.mark.parametrize("killed", [0, 1])
def test_one_is_killed_and_all_end_and_the_run_goes_on(whole: Path, tmp_path: Path, killed: int) -> None:
    run, choose = tmp_path / "run", random.Random(killed)
    options = {"out": str(run), "steps": 24, "checkpoint_every": 8}
    with many.started(2, tmp_path, slow=0.02, silence=4, **options) as processes:
        wait_for_steps(run, choose.randint(6, 18))
        os.kill(processes[killed].pid, signal.SIGKILL)
        codes = ended(processes, 40)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 5
    assert LOST in many.outputs(2, tmp_path)[1 - killed]
    assert "--resume" in many.outputs(2, tmp_path)[1 - killed]
    many.together(2, tmp_path, resume=True, **options)
    assert tiny.weights_hash(run) == tiny.weights_hash(whole), "bit for bit"


def hang(folder: Path, timeout: float) -> tuple[float, int | None]:
    """Stops one of two processes as a broken network would; returns how long the other waits, 12 seconds at most, and its code."""
    with many.started(2, folder, out=str(folder / "run"), steps=1000, slow=0.02, timeout=timeout) as processes:
        wait_for_steps(folder / "run", 3)
        os.kill(processes[1].pid, signal.SIGSTOP)
        begin = time.monotonic()
        processes[0].join(timeout=12)
        code, waited = processes[0].exitcode, time.monotonic() - begin
        os.kill(processes[1].pid, signal.SIGCONT)
    return waited, code


def test_one_hangs_and_the_other_ends_after_the_timeout(tmp_path: Path) -> None:
    waited, code = hang(tmp_path, timeout=2)
    assert code == 5
    assert waited < 10
    assert LOST in many.outputs(2, tmp_path)[0]


@pytest.mark.slow
def test_without_a_timeout_it_would_wait(tmp_path: Path) -> None:
    """Negative control."""
    waited, code = hang(tmp_path, timeout=600)
    assert code is None
    assert waited >= 12


@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_saves_the_same_step_on_all(whole: Path, tmp_path: Path, told: int) -> None:
    run = tmp_path / "run"
    options = {"out": str(run), "steps": 24, "checkpoint_every": 100}
    with many.started(2, tmp_path, slow=0.02, **options) as processes:
        wait_for_steps(run, 8)
        os.kill(processes[told].pid, signal.SIGTERM)
        assert ended(processes, 40) == [143, 143]
    last = listed(run / "checkpoints")[-1]
    assert verify(last).step == (run / "metrics.jsonl").read_text().count("\n") >= 8
    assert all(f"after step {verify(last).step} of 24" in text for text in many.outputs(2, tmp_path))
    many.together(2, tmp_path, resume=True, **options)
    assert tiny.weights_hash(run) == tiny.weights_hash(whole)


class SpeaksThenFails:
    """A store in which another process answers and ends with an error between two looks at it."""

    def __init__(self, answer: str | None) -> None:
        self.answer, self.looks = answer, 0

    def check(self, keys: list[str]) -> bool:
        self.looks += 1
        return self.looks > 1 and (keys == ["failure"] or self.answer is not None)

    def get(self, key: str) -> str:
        assert self.answer is not None
        return self.answer

    def add(self, key: str, amount: int) -> int:
        return 0


def test_what_another_has_said_before_it_ended_counts() -> None:
    ranks = Ranks()
    ranks._store = SpeaksThenFails('"saved"')  # type: ignore[assignment]
    assert ranks._awaited("talk/1/1", 1) == "saved"
    ranks._store = SpeaksThenFails(None)  # type: ignore[assignment]
    with pytest.raises(EnvironmentFault, match=LOST):
        ranks._awaited("talk/1/1", 1)


def test_what_is_not_finite_on_one_stops_all_with_nothing_updated(tmp_path: Path) -> None:
    with many.started(2, tmp_path, out=str(tmp_path / "run"), steps=40, breaks={"rank": 1, "step": 7}) as processes:
        assert ended(processes, 30) == [6, 6]
    assert all("is not finite at step 8" in text for text in many.outputs(2, tmp_path))
    assert verify(listed(tmp_path / "run" / "checkpoints")[-1]).step < 8


def test_an_error_on_one_ends_all_with_its_code(tmp_path: Path) -> None:
    breaks = {"rank": 1, "step": 7, "error": "row 3 cannot be read"}
    with many.started(2, tmp_path, out=str(tmp_path / "run"), steps=40, breaks=breaks) as processes:
        assert ended(processes, 30) == [5, 3]
    first, second = many.outputs(2, tmp_path)
    assert "error[E300]: row 3 cannot be read" in second
    assert LOST in first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"batch_size": 32}, {"batch_size": 64}], "would not train the same: batch_size: 32 and 64"),
        ([{"out": "here"}, {"out": "there"}], "does not see the run directory of the first process"),
        ([{"batch_size": 2}] * 2, None),
        ([{"lr": 1e-3}, {"lr": 2e-3}], "would not train the same: lr: 0.001 and 0.002"),
    ],
)
def test_processes_that_do_not_fit_together(tmp_path: Path, given: list[dict[str, Any]], message: str | None) -> None:
    each = [{**one, "out": str(tmp_path / one.get("out", "run"))} for one in given]
    with many.started(2, tmp_path, each=each, shared_within=0.2) as processes:
        codes = ended(processes, 30)
    text = "".join(many.outputs(2, tmp_path))
    if message is None:
        assert codes == [0, 0], text
    else:
        assert 2 in codes
        assert 0 not in codes
        assert message in text


def test_too_few_samples_for_every_process(tmp_path: Path) -> None:
    with many.started(3, tmp_path, out=str(tmp_path / "run"), batch_size=2) as processes:
        assert set(ended(processes, 30)) <= {2, 5}
    assert "a batch of 2 samples for 3 processes" in "".join(many.outputs(3, tmp_path))
