"""The processes of a run: how they meet, agree and wait for each other, and how one that fails ends them all.

Numbers are summed by collectives (`accord.collective`). What is here goes through the store by which the processes found each other,
as JSON: one may wait there for another that works for minutes, and still notices within `SILENCE` seconds that it is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # see accord.collective
from torch.distributed.rendezvous import rendezvous

from accord.errors import AccordError, EnvironmentFault, UsageError
from accord.train.environment import Seat, seat

T = TypeVar("T")

TIMEOUT = 45.0
"""Seconds after which a collective is given up."""
SILENCE = 20.0
"""Seconds without a sign of life after which a process that is waited for counts as gone."""
START = 600.0
"""Seconds the processes may differ in starting."""
BEAT = 1.0
"""Seconds between two signs of life."""
GRACE = 8.0
"""Seconds in which a process ends by itself after another has failed; then it is ended."""
WORDS = ("gloo", "nccl", "connection closed by peer", "connection reset", "timed out waiting", "broken pipe")


class Ranks:
    """The processes of a run, seen from one of them; in one process everything here is trivial.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        backend: of the collectives, "gloo" say; None in one process.
    """

    def __init__(self, store: torch._C._distributed_c10d.Store | None = None):
        self.rank = 0 if store is None else dist.get_rank()
        self.size = 1 if store is None else dist.get_world_size()
        self.backend: str | None = None if store is None else dist.get_backend()
        self._store = store
        self._words = None if store is None else dist.new_group(backend="gloo", timeout=timedelta(seconds=TIMEOUT))
        self._talks = 0
        self._over = threading.Event()
        self._told = False

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    # --- waiting and exchanging ---

    def everyone(self, value: Any) -> list[Any]:
        """The values of all processes in the order of ranks, as JSON brings them; waits for the slowest.

        Raises:
            EnvironmentFault: if a process is gone.
        """
        if self._store is None:
            return [value]
        self._talks += 1
        self._store.set(f"talk/{self._talks}/{self.rank}", json.dumps(value))
        return [self._awaited(f"talk/{self._talks}/{rank}", rank) for rank in range(self.size)]

    def of_first(self, value: T) -> T:
        """The value of the first process, as JSON brings it; waits for it.

        Raises:
            EnvironmentFault: if it is gone.
        """
        if self._store is None:
            return value
        self._talks += 1
        if self.first:
            self._store.set(f"talk/{self._talks}/0", json.dumps(value))
        found: T = self._awaited(f"talk/{self._talks}/0", 0)
        return found

    def meet(self) -> None:
        """Returns when all have come here.

        Raises:
            EnvironmentFault: if a process is gone.
        """
        self.everyone(None)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first process does the body, then all others do."""
        if self.first:
            yield
        self.meet()
        if not self.first:
            yield

    def agree(self, *numbers: int) -> list[int]:
        """The largest of each number among all processes: a collective, for what is settled after each step."""
        if self._words is None:
            return list(numbers)
        word = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(word, op=dist.ReduceOp.MAX, group=self._words)
        agreed: list[int] = word.tolist()
        return agreed

    def _awaited(self, key: str, rank: int) -> Any:
        """What another process says, once it does; its signs of life are counted by our own clock."""
        assert self._store is not None
        beats, since, pause = -1, time.monotonic(), 0.001
        while not self._store.check([key]):
            if self._store.check(["failure"]) and not self._store.check([key]):  # it may have spoken, then failed
                raise _gone("another process of this run has failed")
            seen = self._store.add(f"beat/{rank}", 0)
            if seen != beats:
                beats, since = seen, time.monotonic()
            elif time.monotonic() - since > SILENCE:
                raise _gone(
                    f"another process of this run ended: number {rank} gave no sign of life for {SILENCE:.0f} s"
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return json.loads(self._store.get(key))

    def require_alike(self, run: Mapping[str, Any]) -> None:
        """All processes train the same: data, settings, versions.

        Raises:
            UsageError: with what differs.
        """
        first, *others = self.everyone(dict(run))
        for rank, other in enumerate(others, start=1):
            keys = [key for key in {**first, **other} if first.get(key) != other.get(key)]
            if keys:
                what = "; ".join(f"{k}: {str(first.get(k))[:60]} and {str(other.get(k))[:60]}" for k in keys[:10])
                raise UsageError(
                    f"processes 0 and {rank} would not train the same: {what}",
                    help="give all processes the same command, files and versions",
                    code="E272",
                )

    # --- failing ---

    def explained(self, error: BaseException) -> BaseException:
        """The error itself, or what it means if it is that of a collective whose other side is gone."""
        if self._store is None or isinstance(error, AccordError) or not _is_of_transport(error):
            return error
        return _gone("another process of this run ended, or cannot be reached")

    def tell(self, error: BaseException) -> int | None:
        """Lets all others know that this process has failed; returns the exit code of the one that failed before it, if any."""
        if self._store is None or self._told:
            return None
        self._told = True
        try:
            if _is_gone(error):
                self._wait_for_cause()
            if self._store.add("told", 1) == 1:
                self._store.set("failure", json.dumps(exit_code(error)))
                return None
            return int(self._awaited("failure", 0))
        except (RuntimeError, AccordError):
            return None  # the store went down with its host: every process says what it knows

    def _wait_for_cause(self) -> None:
        """One that has lost another lets it speak first, if it still can."""
        assert self._store is not None
        until = time.monotonic() + min(3.0, GRACE / 2)
        while time.monotonic() < until and not self._store.check(["failure"]):
            time.sleep(0.05)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the body this process gives signs of life, and is ended if it hangs after another has failed."""
        if self._store is None:
            yield
            return
        thread = threading.Thread(target=self._watch, name="accord-ranks", daemon=True)
        thread.start()
        try:
            yield
            self.meet()
            self._part(GRACE)
        except BaseException:
            self._part(GRACE / 2)
            raise
        finally:
            self._over.set()
            thread.join(timeout=GRACE)

    def _watch(self) -> None:
        assert self._store is not None
        code: int | None = None
        while code is None and not self._over.is_set():
            try:
                self._store.add(f"beat/{self.rank}", 1)
                if self._store.check(["failure"]):
                    code = json.loads(self._store.get("failure"))
            except RuntimeError:
                code = EnvironmentFault.exit_code
            self._over.wait(BEAT)
        if code is not None and not self._over.wait(GRACE):
            os._exit(code)  # the main thread waits in a collective for one that will not come

    def _part(self, seconds: float) -> None:
        """Leaves; the first one, who may be the host of the store that others still read, last, but within that time."""
        assert self._store is not None
        self._over.set()
        until = time.monotonic() + seconds
        with suppress(RuntimeError):  # the answer may be lost: the host leaves as soon as it has heard of the last one
            left = self._store.add("left", 1)
            while self.first and left < self.size and time.monotonic() < until:
                time.sleep(0.005)
                left = self._store.add("left", 0)


ALONE = Ranks()
"""What one process is."""
_CURRENT: list[Ranks] = []


@contextmanager
def joined() -> Iterator[Ranks]:
    """Within the body this process is one of those the environment speaks of; inside another `joined` it is the same one.

    A process group that is there already is used and left alone. Afterwards, or if the body fails on any process, it is over for all.

    Raises:
        UsageError: for an environment that contradicts itself.
        EnvironmentFault: if others do not come, or are gone.
    """
    place = None if _CURRENT or _initialised() else seat(os.environ)
    if _CURRENT or (place is None and not _initialised()):
        yield _CURRENT[-1] if _CURRENT else ALONE
        return
    if place is not None:
        _begin(place)
    ranks = Ranks(dist.distributed_c10d._get_default_store())
    _CURRENT.append(ranks)
    try:
        with ranks.watched(), _telling(ranks):
            yield ranks
    finally:
        _CURRENT.remove(ranks)
        if place is not None and (
            not ranks._told or ranks.backend == "gloo"
        ):  # NCCL would wait for those that are gone
            with suppress(RuntimeError):
                dist.destroy_process_group()


@contextmanager
def one_voice(ranks: Ranks) -> Iterator[None]:
    """For a program: of the errors of all processes one is raised, where it came first; the others end with its exit code."""
    try:
        yield
    except Exception as error:
        meant = ranks.explained(error)
        code = ranks.tell(meant)
        if code is not None:
            sys.exit(code)
        raise meant from (None if meant is error else error)


@contextmanager
def _telling(ranks: Ranks) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        meant = ranks.explained(error)
        ranks.tell(meant)
        if meant is error:
            raise
        raise meant from error


def _begin(place: Seat) -> None:
    """Meets the others and forms the process group: gloo for the CPU, NCCL for CUDA where there is one."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(place.local % torch.cuda.device_count())
    address = place.address
    if address.startswith("tcp"):
        address = f"{address}?rank={place.rank}&world_size={place.size}"
    try:
        meeting = rendezvous(address, place.rank, place.size, timeout=timedelta(seconds=START))
        store, rank, size = next(iter(meeting))
        store.set_timeout(timedelta(seconds=TIMEOUT))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=TIMEOUT),
        )
    except (RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            f"process {place.rank} of {place.size} cannot reach the others: {str(error).splitlines()[0]}",
            where=place.address
            if place.address != "env://"
            else f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
            help="check that all processes were started, MASTER_ADDR and MASTER_PORT, and the network between the machines",
            code="E515",
        ) from error


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def exit_code(error: BaseException) -> int:
    """That of the command line for an error."""
    return error.exit_code if isinstance(error, AccordError) else 130 if isinstance(error, KeyboardInterrupt) else 1


def _is_of_transport(error: BaseException) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)


def _is_gone(error: BaseException) -> bool:
    return isinstance(error, EnvironmentFault) and error.code == "E516"


def _gone(message: str) -> EnvironmentFault:
    return EnvironmentFault(
        message, help="what was saved is intact: start all processes again with --resume", code="E516"
    )
