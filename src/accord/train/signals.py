"""Signals set a flag and nothing else; whoever works in steps reads it between two of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from accord.errors import Interrupted

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stop:
    """The wish to stop. Training, evaluation and export read it after each step or batch.

    Example:
        >>> with stop_on_signals() as stop:
        ...     fit(objective, samples, pairing, out="runs/mine", epochs=10, stop=stop)
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        """Name of the signal, "SIGTERM" say."""
        assert self.signal is not None
        return signal.Signals(self.signal).name

    def check(self, doing: str) -> None:
        """For work that has nothing to save.

        Raises:
            Interrupted: if a signal has come.
        """
        if self.signal is not None:
            raise Interrupted(self.signal, f"stopped by {self.name} while {doing}", help="run the command again")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the body SIGINT, SIGTERM and SIGHUP set the flag that is given; the second one raises at once.

    The second signal puts the former handlers back before it raises `Interrupted`, so that a third one ends the process. A signal
    the process was started to ignore (``nohup``) stays ignored. Outside the main thread no handler can be set, and none is.
    """
    stop = Stop()
    former: dict[int, Any] = {}

    def restore() -> None:
        while former:
            signal.signal(*former.popitem())

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal is None:
            stop.signal = number
            return
        restore()
        raise Interrupted(
            number,
            f"stopped at once by a second signal ({signal.Signals(number).name}); nothing new was saved",
            help="--resume goes on from the last checkpoint, which is intact",
        )

    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                former[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
