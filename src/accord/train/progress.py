"""What a caller hears of a run while it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from accord.errors import printable


class Progress(Protocol):
    """Receives what happens; `fit` calls these from the thread it was called in."""

    def started(self, *, step: int, total: int, samples: int, batch_size: int) -> None:
        """Training begins, or goes on, at `step` of `total`."""

    def advanced(self, *, step: int, total: int, line: Mapping[str, Any]) -> None:
        """`line` is the newest line of metrics.jsonl."""

    def said(self, text: str) -> None:
        """Something the user should know."""

    def finished(self) -> None:
        """Training is over, for whatever reason."""


class Lines:
    """Plain lines on standard error, one in `every` seconds: what a script shows by default."""

    def __init__(self, *, every: float = 10.0):
        self.every = every
        self._next = 0.0

    def started(self, *, step: int, total: int, samples: int, batch_size: int) -> None:
        """Says so."""
        self.said(f"training on {samples:,} samples, {batch_size} a batch, step {step:,} of {total:,}")

    def advanced(self, *, step: int, total: int, line: Mapping[str, Any]) -> None:
        """Says so now and then, and at the end."""
        now = time.monotonic()
        if now >= self._next or step == total:
            self._next = now + self.every
            self.said(f"step {step:,}/{total:,}  loss {line['loss']:.4g}  {line['rate']:,.0f} samples/s")

    def said(self, text: str) -> None:
        """Prints it."""
        print(printable(text), file=sys.stderr, flush=True)

    def finished(self) -> None:
        """Nothing to close."""


class Silent:
    """Says nothing."""

    def started(self, *, step: int, total: int, samples: int, batch_size: int) -> None:
        """Nothing."""

    def advanced(self, *, step: int, total: int, line: Mapping[str, Any]) -> None:
        """Nothing."""

    def said(self, text: str) -> None:
        """Nothing."""

    def finished(self) -> None:
        """Nothing."""
