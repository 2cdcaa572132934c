"""The command line under torchrun: one voice, one exit, nobody left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from accord.train.checkpoint import listed, verify

TRAIN = ["-m", "accord", "train", "digits", "--set", "training.batch_size=256"]


def torchrun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    options = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, *options, *TRAIN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(word) for word in children.read_text().split()] if children.exists() else []
    return [pid, *(grandchild for child in found for grandchild in family(child))]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_one_process_speaks_and_writes(tmp_path: Path) -> None:
    process = torchrun(tmp_path, "--epochs", "2", "--out", str(tmp_path / "run"), "--json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["run"] == str(tmp_path / "run")
    assert err.count("training on") == err.count("next: accord evaluate") == 1
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (environment["world_size"], environment["backend"]) == (2, "gloo")


@pytest.mark.slow
def test_an_error_is_told_once(tmp_path: Path) -> None:
    process = torchrun(tmp_path, "--set", "training.batch_sise=2", "--out", str(tmp_path / "run"))
    _, err = process.communicate(timeout=240)
    assert process.returncode != 0
    assert err.count("error[E") == 1, err
    assert "batch_sise" in err


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM to torchrun", "SIGKILL to a rank"])
def test_all_end(tmp_path: Path, how: str) -> None:
    run = tmp_path / "run"
    process = torchrun(tmp_path, "--epochs", "1000", "--out", str(run))
    until = time.monotonic() + 200
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    everyone = family(process.pid)
    assert len(everyone) >= 3
    if how.startswith("SIGTERM"):
        process.send_signal(signal.SIGTERM)
    else:
        os.kill(everyone[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert not [pid for pid in everyone if alive(pid)]
    last = verify(listed(run / "checkpoints")[-1])
    if how.startswith("SIGTERM"):
        assert last.step > 0
        assert err.count("error[E900]: stopped by SIGTERM") == 1, err
