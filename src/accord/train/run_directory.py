"""A run directory: one owner at a time, a log that grows by whole lines, and nothing of another's overwritten."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from accord.data.samples import BadItem
from accord.errors import EnvironmentFault, Locked, UsageError
from accord.storage import TEMPORARY, disk_faults, free_space, replace_file, try_writing, write_all
from accord.train.checkpoint import FOLDER, listed, remove_unfinished
from accord.train.distributed import ALONE, Ranks, joined

LOCK = ".lock"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RECIPE = "recipe.toml"
SHARED_WITHIN = 10.0
"""Seconds a file may take to be seen by other machines."""
BAD_SAMPLES = "bad_samples.jsonl"


class RunDirectory:
    """A run directory that is locked while this object is open; use it in a ``with`` statement.

    Opening it is the pre-flight of a run: before any data is read it is known that the folder is ours, free and writable. Of several
    processes of a run the first one owns the folder; the others must see the same one.

    Args:
        path: the folder; made if it is not there.
        resume: whether a run that is there goes on. Without one, training starts anew in either case.

    Raises:
        UsageError: if the folder holds a run and `resume` is false, or holds anything else, or another machine does not see it.
        Locked: if another process has it open.
        EnvironmentFault: if it cannot be written to.

    Example:
        >>> with RunDirectory("runs/mine") as run:
        ...     samples = open_source("photos")
        ...     fit(objective, samples, pairing, out=run, budget="10m")
    """

    def __init__(self, path: str | Path, *, resume: bool = False):
        self.path = Path(path)
        self.resume = resume
        self.checkpoints = self.path / FOLDER
        self.unfinished: list[str] = []
        self.ranks = ALONE
        self._made = False
        self._lock: int | None = None
        self._joined = ExitStack()

    def __enter__(self) -> RunDirectory:
        with ExitStack() as stack:
            self.ranks = stack.enter_context(joined())
            if self.ranks.first:
                self._own()
                stack.callback(self._release)
            self._require_shared()
            self._joined = stack.pop_all()
        return self

    def _own(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UsageError("not a folder", where=str(self.path), help="give a new folder with --out", code="E252")
        if self.path.exists() and not (self.path / LOCK).exists():
            self._require_ours()  # before anything is written into a folder of somebody else's
        with disk_faults(self.path):
            self._lock = self._enter()
        try:
            self._require_ours()
            self._clean()
            try_writing(self.path)
        except BaseException:
            self._release()
            raise

    def _require_shared(self) -> None:
        """Every process sees the lock that the first one has written."""
        file = self.path / LOCK
        written = self.ranks.of_first(_text(file) if self.ranks.first else None)
        until = time.monotonic() + SHARED_WITHIN
        while _text(file) != written:
            if time.monotonic() > until:
                raise UsageError(
                    f"process {self.ranks.rank} on {socket.gethostname()} does not see the run directory of the first process",
                    where=str(self.path.absolute()),
                    help="give an --out that is the same folder on all machines",
                    code="E273",
                )
            time.sleep(0.1)
        self.ranks.meet()

    def _enter(self) -> int:
        """Makes the folder and locks it; again, if another process removes its unused folder in between."""
        for _ in range(10):
            self._made = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                return acquire_lock(self.path / LOCK)
            except FileNotFoundError:
                continue
            except OSError:
                if self._made:
                    with suppress(OSError):  # not empty: another process is at work in it
                        self.path.rmdir()
                raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._joined.__exit__(kind, error, trace)
        finally:
            self.ranks = ALONE

    @property
    def is_open(self) -> bool:
        """Whether this process, or the first one of the run, holds the lock."""
        return self._lock is not None or not self.ranks.first

    @property
    def holds_run(self) -> bool:
        """Whether training was begun here."""
        return (self.path / ENVIRONMENT).is_file()

    def _require_ours(self) -> None:
        others = sorted(p.name for p in self.path.iterdir() if p.name != LOCK and TEMPORARY not in p.name)
        if self.holds_run and not self.resume:
            done = [int(p.name.removeprefix("step-")) for p in listed(self.checkpoints)]
            raise UsageError(
                f"there is a run here already{f', saved at step {max(done):,}' if done else ''}",
                where=str(self.path),
                help="go on with --resume, or give another --out; nothing is overwritten",
                code="E251",
            )
        if others and not self.holds_run:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            raise UsageError(
                f"the folder is not empty and holds no run: {', '.join(others[:3])}{more}",
                where=str(self.path),
                help="give a new folder with --out; nothing is overwritten",
                code="E252",
            )

    def _clean(self) -> None:
        """Removes what killed processes left half-written."""
        with disk_faults(self.path):
            for path in self.path.glob(f"*{TEMPORARY}*"):
                if path.is_file():
                    path.unlink()
            self.unfinished = remove_unfinished(self.checkpoints)

    def _release(self) -> None:
        if self._lock is None:
            return
        names = [p.name for p in self.path.iterdir()] if self.path.is_dir() else []
        if names == [LOCK]:  # nothing came of it
            (self.path / LOCK).unlink()
            if self._made:
                self.path.rmdir()
        else:
            os.ftruncate(self._lock, 0)
        os.close(self._lock)
        self._lock = None

    def write_once(self, environment: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
        """What the run is and where it runs; the environment file also marks the folder as a run."""
        import tomli_w

        replace_file(self.path / RECIPE, tomli_w.dumps(recipe).encode())
        replace_file(self.path / ENVIRONMENT, json.dumps(environment, indent=1, allow_nan=False).encode())
        with disk_faults(self.checkpoints):
            self.checkpoints.mkdir(exist_ok=True)

    def write_bad_samples(self, bad: Sequence[BadItem]) -> None:
        """One line per bad item, those an earlier part of the run met included."""
        path = self.path / BAD_SAMPLES
        items = [item._asdict() for item in bad]
        known = {item["key"] for item in items}
        lines = path.read_text().splitlines() if path.is_file() else []
        items = [item for item in map(json.loads, lines) if item["key"] not in known] + items
        replace_file(path, "".join(json.dumps(item) + "\n" for item in items).encode())

    def require_space(self, needed: int) -> None:
        """Room for two checkpoints and the log.

        Raises:
            EnvironmentFault: with bytes needed and free.
        """
        free, files = free_space(self.path)
        if free < needed or files < 32:
            raise EnvironmentFault(
                f"the disk is too full for this run: {needed:,} bytes needed, {free:,} bytes and {files:,} files free",
                where=str(self.path),
                help="free some space or write to another disk with --out",
                code="E501",
            )


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None


class Owner(NamedTuple):
    """Who holds a lock."""

    pid: int
    host: str
    since: str


def acquire_lock(path: Path) -> int:
    """Locks a file (flock) and writes this process into it; returns the descriptor that holds the lock.

    The system drops the lock when the process ends, however it ends: a stale one does not exist. A process that loses changes nothing.

    Raises:
        Locked: with process, host and time of the owner.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 4096)
            os.close(descriptor)
            raise _locked(path, owner) from None
        try:
            current = os.fstat(descriptor).st_ino == path.stat().st_ino
        except FileNotFoundError:
            current = False
        if current:
            break
        os.close(descriptor)  # its owner removed the file between our two calls
    me = Owner(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))
    try:
        os.ftruncate(descriptor, 0)
        write_all(descriptor, json.dumps(me._asdict()).encode())
    except OSError:  # a disk without room for a line
        path.unlink()
        os.close(descriptor)
        raise
    return descriptor


def _locked(path: Path, content: bytes) -> Locked:
    try:
        owner = Owner(**json.loads(content))
        who = f"process {owner.pid} on {owner.host} since {owner.since}"
    except (ValueError, TypeError):
        who = "another process, which has just started"
    return Locked(
        f"the run directory is in use by {who}",
        where=str(path.parent),
        help="wait for it to end, or give another --out",
    )


class MetricsLog:
    """metrics.jsonl: one JSON object per line, cut back to what a checkpoint knew of when a run goes on.

    Raises:
        EnvironmentFault: if the disk is full or failing; the log then ends with its last whole line.
    """

    def __init__(self, path: Path, *, keep: int):
        self.path = path
        with disk_faults(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            self.size = min(keep, os.fstat(self._file).st_size)
            os.ftruncate(self._file, self.size)

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends a line."""
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        with disk_faults(self.path, needed=len(data)):
            try:
                write_all(self._file, data)
            except BaseException:
                os.ftruncate(self._file, self.size)
                raise
        self.size += len(data)

    def sync(self) -> int:
        """Forces the log to the disk and returns its size in bytes."""
        with disk_faults(self.path):
            os.fsync(self._file)
        return self.size

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def describe_environment(device: str, command: str | None, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Versions, machine and command: what is needed to run it again. No user, host or environment, and no path to the program."""
    import numpy
    import torch

    words = shlex.split(command or "")

    return {
        "format": 1,
        "accord": version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "world_size": ranks.size,
        "backend": ranks.backend,
        "command": shlex.join([Path(words[0]).name, *words[1:]]) if words else None,
        "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def version() -> str:
    """Version of the installed package."""
    try:
        return metadata.version("accord")
    except metadata.PackageNotFoundError:
        return "unknown"


@cache
def code_hash() -> str:
    """sha256 over the source of the package: tells whether a run goes on with the code it began with."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
