"""Checkpoints: killed, torn, tampered with or without room, the newest verified one loads and nothing damaged ever does."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from accord.errors import AccordError, ArtifactError, EnvironmentFault, UsageError
from accord.train import checkpoint as ckpt
from accord.train import storage
from accord.train.checkpoint import Checkpoint, load_weights, newest, save_checkpoint, verify
from accord.train.optim import AdamW, parameter_groups
from accord.train.state import pack, unpack

# Forked children do nothing but write files and die.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tiny = load("tiny")
CALLS = ("open", "write", "fsync", "close", "rename", "replace", "mkdir", "unlink", "rmdir")
"""What a save asks of the system, by the names Python's own library looks up when it is called."""


def content(value: float) -> dict[str, bytes]:
    tensors = {"a": torch.full((4, 3), value), "b": torch.arange(5)}
    data = safetensors.torch.save(tensors)
    return {ckpt.WEIGHTS: data, ckpt.STATE_TENSORS: data, ckpt.STATE: json.dumps({"value": value}).encode()}


def save(folder: Path, step: int) -> Checkpoint:
    return save_checkpoint(folder, step, content(float(step)), {"accord": "test"})


def value_of(found: Checkpoint) -> float:
    return float(json.loads((found.path / ckpt.STATE).read_text())["value"])


def find(folder: Path) -> Checkpoint | None:
    return newest(folder, on_damage=lambda path, error: None)


@contextmanager
def at_call(k: int, action: Callable[[], None], *, after: bool = False, names: tuple[str, ...] = CALLS) -> Iterator[list[int]]:
    """Runs `action` before (or after) the k-th of these calls; yields their count."""
    count = [0]
    originals = {name: getattr(os, name) for name in names}

    def wrap(name: str) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            count[0] += 1
            due = count[0] == k
            if due and not after:
                action()
            result = originals[name](*arguments, **options)
            if due and after:
                action()
            return result

        return call

    try:
        for name in names:
            setattr(os, name, wrap(name))
        yield count
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked process and returns its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def kill_at_every_call(folder: Path, write: Callable[[Path, int], object]) -> list[float]:
    """Kills the third save at each call it makes; returns the value of what was then found, -1 where nothing was."""

    def third(k: int, after: bool) -> None:
        with at_call(k, lambda: os.kill(os.getpid(), signal.SIGKILL), after=after):
            write(folder, 3)

    found = []
    for after in (False, True):
        for k in range(1, 1000):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write(folder, 1)
            write(folder, 2)
            status = in_child(lambda k=k, after=after: third(k, after))
            if not os.WIFSIGNALED(status):
                assert os.WEXITSTATUS(status) == 0
                assert k > 15, "the calls of a save were not met"
                break
            try:
                checkpoint = find(folder)
                found.append(-1.0 if checkpoint is None else value_of(checkpoint))
            except ArtifactError:
                found.append(-1.0)
    return found


# --- killed ---


def test_killed_at_every_call_of_a_save_the_old_or_the_new_one_is_there(tmp_path: Path) -> None:
    found = kill_at_every_call(tmp_path / "run", save)
    assert set(found) == {2.0, 3.0}, "some kills are before the rename and some after it"
    half = len(found) // 2
    for part in (found[:half], found[half:]):
        assert part == sorted(part), "once the new one is there it stays"


def test_the_same_kills_find_the_fault_of_a_save_in_place(tmp_path: Path) -> None:
    """Negative control: a writer that overwrites its files loses both."""

    def overwrite(folder: Path, step: int) -> None:
        path = folder / "step-1"
        path.mkdir(exist_ok=True)
        body = {"kind": ckpt.KIND, "format": 1, "step": 1, "complete": True, "files": {}}
        for name, data in content(float(step)).items():
            descriptor = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            storage.write_all(descriptor, data)
            os.fsync(descriptor)
            os.close(descriptor)
            entry = {"bytes": len(data), "sha256": __import__("hashlib").sha256(data).hexdigest()}
            body["files"][name] = entry  # type: ignore[index]
        descriptor = os.open(path / ckpt.MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        storage.write_all(descriptor, ckpt.seal(body))
        os.close(descriptor)
        for _ in range(5):
            os.fsync(0) if False else os.close(os.open(path, os.O_RDONLY))

    assert -1.0 in kill_at_every_call(tmp_path / "run", overwrite)


def test_leftovers_of_kills_are_removed_and_named(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-2.tmp-abc").mkdir()
    (tmp_path / "step-2.tmp-abc" / ckpt.WEIGHTS).write_bytes(b"half")
    assert ckpt.remove_unfinished(tmp_path) == ["step-2.tmp-abc"]
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_by_the_system_at_writes_and_renames(tmp_path: Path) -> None:
    """The same with strace, at system calls instead of Python's: a few of them, for it is slow."""
    script = tmp_path / "save.py"
    script.write_text(
        "import sys, types\n"
        "for name in ('accord.model.joint_embedding', 'accord.objective.loss', 'accord.train.tensors'):\n"
        "    sys.modules[name] = types.SimpleNamespace(\n"  # what a save does not need, and takes seconds to import
        "        JointEmbedding=object, Objective=object, DAMAGED='E401', check_header=lambda path: None, copy_into=None,\n"
        "        damaged=None, read_tensors=None, require_finite=None, strict_json=__import__('json').loads)\n"
        "from pathlib import Path\n"
        "from accord.train.checkpoint import save_checkpoint, FILES\n"
        "folder = Path(sys.argv[1])\n"
        "for step in map(int, sys.argv[2:]):\n"
        "    save_checkpoint(folder, step, {n: b'%d' % step * 99 for n in FILES}, {})\n"
    )
    run = tmp_path / "run"
    run.mkdir()
    subprocess.run([sys.executable, str(script), str(run), "1", "2"], check=True)
    steps = set()
    for call, k in [("write", 1), ("write", 4), ("fsync", 2), ("fsync", 5), ("rename", 1), ("fsync", 6)]:
        inject = ["strace", "-f", "-P", str(run), "-o", "/dev/null", "-e", f"trace={call}"]
        inject[3:3] = []
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=SIGKILL:when={k}", "-e", f"trace={call}"]
            + ["-P", str(run), sys.executable, str(script), str(run), "3"],
            check=False,
        )
        shutil.rmtree(run / "step-3", ignore_errors=True) if done.returncode == 0 else None
        files = {p.name for p in run.glob("step-?")}
        assert {"step-1", "step-2"} <= files
        steps.add(done.returncode)
    assert steps
