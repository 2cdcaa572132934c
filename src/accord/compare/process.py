"""Jobs in processes of their own: started, listened to, stopped, and what came of them if they died."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accord
from accord.compare.job import Job
from accord.errors import (
    AccordError,
    ArtifactError,
    DataError,
    EnvironmentFault,
    Interrupted,
    Locked,
    TrainingError,
    UsageError,
)
from accord.train.signals import Stop

Perform = Callable[[Job, Stop, Callable[[str], None]], dict[str, Any]]
"""Does a job and returns its outcome; raises what ends the comparison."""
KINDS: tuple[type[AccordError], ...] = (UsageError, DataError, ArtifactError, EnvironmentFault, TrainingError)
PATIENCE = 60.0
"""Seconds to wait for the process of an earlier command that still saves its work."""


def in_process(job: Job, stop: Stop, said: Callable[[str], None]) -> dict[str, Any]:
    """Does a job in a process of its own.

    A process that dies, killed or by a bug, is the outcome "died", with its last words.

    Raises:
        AccordError: what the job raised.
    """
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return _once(job, stop, said)
        except Locked:
            if time.monotonic() > give_up or stop:
                raise
            time.sleep(0.5)


def _once(job: Job, stop: Stop, said: Callable[[str], None]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "accord.compare.job"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": _path()},
            process_group=0,  # Ctrl-C reaches this process alone, which passes it on once
        )
        try:
            told = _listen(process, job, stop, said)
        except BaseException:
            process.kill()
            raise
        finally:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            code = process.wait()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4000))
        return _outcome(told, code, errors.read().decode(errors="replace").strip(), stop)


def _path() -> str:
    """Where a child finds the same accord as this process."""
    root, known = str(Path(accord.__file__).parent.parent), os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{known}" if known else root


def _listen(process: subprocess.Popen[bytes], job: Job, stop: Stop, said: Callable[[str], None]) -> dict[str, Any]:
    """Gives the job, passes signals on, and reads until the end: the last thing that was told."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return {}
    told: dict[str, Any] = {}
    passed_on, rest = False, b""
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while True:
            if stop and not passed_on:
                passed_on = True
                process.send_signal(signal.SIGTERM)
            if not ready.select(0.2):
                continue
            data = os.read(process.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "said" in message:
                    said(message["said"])
                else:
                    told = message
            if not data:
                return told


def _outcome(told: dict[str, Any], code: int, last_words: str, stop: Stop) -> dict[str, Any]:
    """What a process that has ended leaves.

    Raises:
        AccordError: what it told; an interruption, if it was to stop.
    """
    if "done" in told:
        found: dict[str, Any] = told["done"]
        return found
    if stop:
        assert stop.signal is not None
        raise Interrupted(
            stop.signal,
            f"stopped by {stop.name}; what is finished stays, what was begun is saved",
            help="the same command goes on from there",
        )
    if "error" in told:
        raise _as_error(told["error"])
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    words = last_words.splitlines()[-1] if last_words else ""
    return {"status": "died", "message": f"its process ended with {cause}" + (f": {words}" if words else "")}


def _as_error(told: dict[str, Any]) -> AccordError:
    """The error of a job, raised again here."""
    code, fields = str(told["error"]), {"where": told["where"], "help": told["help"]}
    if told["exit_code"] == Locked.exit_code:
        return Locked(told["message"], **fields)
    kind = next((k for k in KINDS if k.exit_code == told["exit_code"]), AccordError)
    return kind(
        told["message"], where=fields["where"], help=fields["help"], code=code if kind is not AccordError else None
    )
