"""One run directory, one process: of two that start at once exactly one wins, and the other changes nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from accord.errors import EnvironmentFault, Locked, UsageError
from accord.train import run_directory
from accord.train.run_directory import ENVIRONMENT, LOCK, MetricsLog, RunDirectory, acquire_lock

# Forked children do nothing but take locks and end.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
RACES = 50


def child(work: Callable[[], int]) -> int:
    """Forks a process that ends with what `work` returns; gives its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def race(path: Path) -> list[int]:
    """Two processes open a run directory at the same moment and hold it until both have tried; returns how they ended."""
    go, tried, leave = os.pipe(), os.pipe(), os.pipe()  # one pipe each: neither may take what is meant for the other

    def contend() -> int:
        os.read(go[0], 1)
        said = False
        try:
            with RunDirectory(path, resume=True):
                said = os.write(tried[1], b"x") == 1
                os.read(leave[0], 1)
                return 0
        except Locked as error:
            return error.exit_code
        finally:
            if not said:
                os.write(tried[1], b"x")

    pids = [child(contend) for _ in range(2)]
    os.write(go[1], b"gg")
    for _ in range(2):
        os.read(tried[0], 1)
    os.write(leave[1], b"ee")
    codes = sorted(exit_code(pid) for pid in pids)
    for end in (*go, *tried, *leave):
        os.close(end)
    return codes


def test_of_two_exactly_one_wins_every_time(tmp_path: Path) -> None:
    for number in range(RACES):
        path = tmp_path / "run" if number % 2 else tmp_path / f"new-{number}"
        assert race(path) == [0, 7]


def test_without_the_lock_nobody_would_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: both open it, and may stumble over each other's files."""
    monkeypatch.setattr(run_directory.fcntl, "flock", lambda descriptor, operation: None)
    assert [0, 7] not in [race(tmp_path / "run") for _ in range(20)]


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns) for p in [path, *path.rglob("*")]}


def test_the_loser_is_told_who_and_changes_no_byte(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as run:
        run.write_once({"a": 1}, {"b": 2})
        before = contents(tmp_path)
        with pytest.raises(Locked) as caught, RunDirectory(tmp_path / "run", resume=True):
            pytest.fail("it is locked")
        assert contents(tmp_path) == before
    text = str(caught.value)
    assert caught.value.exit_code == 7
    assert f"process {os.getpid()} on {socket.gethostname()} since 20" in text
    assert str(tmp_path / "run") in text


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    ready = os.pipe()

    def hold() -> int:
        with RunDirectory(tmp_path / "run"):
            os.write(ready[1], b"x")
            signal.pause()
        return 0

    pid = child(hold)
    os.read(ready[0], 1)
    with pytest.raises(Locked), RunDirectory(tmp_path / "run"):
        pytest.fail("it is locked")
    os.kill(pid, signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL
    assert json.loads((tmp_path / "run" / LOCK).read_bytes())["pid"] == pid, "a stale text is left, and does not matter"
    with RunDirectory(tmp_path / "run") as run:
        assert run.is_open


def test_a_lock_on_a_removed_file_does_not_count(tmp_path: Path) -> None:
    """The owner removes the file between the opening and the locking of another process."""
    original, opened = run_directory.fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not opened:
            opened.append(descriptor)
            (tmp_path / LOCK).unlink()
        original(descriptor, operation)

    run_directory.fcntl.flock = late  # type: ignore[assignment]
    try:
        descriptor = acquire_lock(tmp_path / LOCK)
    finally:
        run_directory.fcntl.flock = original  # type: ignore[assignment]
    assert os.fstat(descriptor).st_ino == (tmp_path / LOCK).stat().st_ino
    os.close(descriptor)


def test_a_run_that_came_to_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    with RunDirectory(tmp_path / "mine"):
        pass
    assert list((tmp_path / "mine").iterdir()) == [], "what was there stays"


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "treasure").write_text("gold")
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "treasure")
    with pytest.raises(EnvironmentFault), RunDirectory(tmp_path / "run"):
        pytest.fail("it followed the link")
    (tmp_path / "run" / LOCK).unlink()
    (tmp_path / "run" / ENVIRONMENT).write_text("{}")
    (tmp_path / "run" / "metrics.jsonl").symlink_to(tmp_path / "treasure")
    with pytest.raises(EnvironmentFault):
        MetricsLog(tmp_path / "run" / "metrics.jsonl", keep=0)
    assert (tmp_path / "treasure").read_text() == "gold"


def test_a_folder_that_cannot_be_written_is_found_out_at_once(tmp_path: Path) -> None:
    """As a user who is not root: root passes every check of rights."""
    (tmp_path / "locked").mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents[:3]):  # a folder of this test session: let others look into it
        folder.chmod(folder.stat().st_mode | 0o055)

    def as_nobody() -> int:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            with RunDirectory(tmp_path / "locked" / "run"):
                return 0
        except EnvironmentFault as fault:
            named = str(tmp_path / "locked") in str(fault) and str(os.geteuid()) in str(fault)
            return fault.exit_code if named else 1

    assert exit_code(child(as_nobody)) == 5


def test_a_file_in_the_way_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(UsageError, match="not a folder"), RunDirectory(tmp_path / "run"):
        pytest.fail("a file is no folder")


# --- the log ---


def test_the_log_ends_with_a_whole_line_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path / "log", keep=0)
    log.write({"step": 1})
    original = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 8:
            raise OSError(28, "No space left on device")
        return original(descriptor, bytes(data[:8]))

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(EnvironmentFault, match="bytes needed"):
        log.write({"step": 2})
    monkeypatch.undo()
    log.write({"step": 3})
    assert log.sync() == (tmp_path / "log").stat().st_size
    log.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "log").read_text().splitlines()] == [1, 3]


def test_a_disk_without_room_for_the_lock_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / ENVIRONMENT).write_text("{}")

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_directory, "write_all", full)
    for path, resume in ((tmp_path / "new", False), (old, True)):
        with pytest.raises(EnvironmentFault, match="No space left"), RunDirectory(path, resume=resume):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["old"] and [p.name for p in old.iterdir()] == [ENVIRONMENT]
    monkeypatch.undo()
    with RunDirectory(old, resume=True) as run:
        assert run.is_open
