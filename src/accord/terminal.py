"""What a person at a terminal sees: progress, tables, errors; plain lines when nobody is watching."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from accord.errors import AccordError, EnvironmentFault, printable
from accord.storage import replace_file


class Terminal:
    """One place that prints. With `as_json`, standard output carries exactly one JSON object and all else goes to standard error.

    Of several processes one speaks; in the others `silent` is set, and only an error is printed.
    """

    def __init__(self, *, as_json: bool = False):
        self.as_json = as_json
        self.silent = False
        self.live = sys.stderr.isatty() and not as_json

    def say(self, text: str) -> None:
        """A line for the reader."""
        if self.silent:
            return
        print(printable_lines(text), file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def progress(self, text: str) -> None:
        """What is being done now; not shown with ``--json``."""
        if not (self.as_json or self.silent):
            print(printable_lines(f"... {text}"), file=sys.stderr, flush=True)

    def result(self, values: Mapping[str, Any]) -> None:
        """The outcome: printed only with ``--json``, as strict JSON."""
        if self.as_json and not self.silent:
            print(json.dumps(values, allow_nan=False, default=str), flush=True)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table in plain text: first column to the left, the others to the right."""
        columns = list(zip(header, *rows, strict=True))
        widths = [max(len(cell) for cell in column) for column in columns]
        self.say("")
        self.say(title)
        for row in [header, *rows]:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            self.say("  " + "  ".join(cells))

    def error(self, error: AccordError) -> None:
        """At most three lines on standard error, and the same fields as JSON on standard output if asked for."""
        if self.as_json:
            print(json.dumps(error.as_dict()), flush=True)
        print("\n".join(error.lines()), file=sys.stderr, flush=True)


class TrainingProgress:
    """Shows a training run: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, terminal: Terminal, *, every: float = 10.0):
        self.terminal = terminal
        self.every = every
        self.last = -float("inf")
        self.bar: Any = None
        self.task: Any = None

    def started(self, *, step: int, total: int, samples: int, batch_size: int) -> None:
        """Training begins, or goes on, at `step` of `total`."""
        self.terminal.say(f"training on {samples:,} samples, {batch_size} a batch, step {step:,} of {total:,}")
        if self.terminal.live:
            self._open_bar(step, total)

    def _open_bar(self, step: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self.bar.start()
        self.task = self.bar.add_task("", total=total, completed=step)

    def advanced(self, *, step: int, total: int, line: Mapping[str, Any]) -> None:
        """`line` is the newest line of metrics.jsonl."""
        if self.bar is not None:
            self.bar.update(self.task, completed=step, total=total, description=describe(line))
        elif time.monotonic() - self.last >= self.every or step == total:
            self.last = time.monotonic()
            left = time_left(step, total, line)
            self.terminal.say(f"step {step:,}/{total:,}  {describe(line)}  {left}".rstrip())

    def said(self, text: str) -> None:
        """Something the user should know."""
        if self.bar is not None:
            self.bar.console.print(printable(text), markup=False, highlight=False)
        else:
            self.terminal.say(text)

    def finished(self) -> None:
        """Training is over, for whatever reason."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def describe(line: Mapping[str, Any]) -> str:
    """One line of metrics in words: loss, its terms, effective rank, rate."""
    parts = [f"loss {line['loss']:.4g}"] if line.get("loss") is not None else []
    parts += [f"{name} {value:.3g}" for name, value in (line.get("terms") or {}).items()]
    if line.get("effective_rank") is not None:
        parts.append(f"rank {line['effective_rank']:.1f}")
    if line.get("rate"):
        parts.append(f"{line['rate']:,.0f} samples/s")
    return "  ".join(parts)


def time_left(step: int, total: int, line: Mapping[str, Any]) -> str:
    """Time to go at the average rate so far; nothing at the first step, which takes much longer than the others."""
    if step < 2 or line.get("seconds") is None:
        return ""
    left = float(line["seconds"]) / step * (total - step)
    return f"{left / 60:.1f} min left" if left >= 60 else f"{left:.0f} s left"


def printable_lines(text: str) -> str:
    """`printable`, line by line: what a file name brings along cannot steer the terminal."""
    return "\n".join(printable(line) for line in text.split("\n"))


def crash_report(error: BaseException, directory: Path) -> Path:
    """Writes crash.json: what is needed to report a bug in accord.

    Raises:
        EnvironmentFault: if it cannot be written.
    """
    import platform
    import traceback

    path = directory / "crash.json"
    about = {
        "error": type(error).__name__,
        "message": str(error),
        "traceback": traceback.format_exception(error),
        "python": platform.python_version(),
        "arguments": sys.argv[1:],
    }
    replace_file(path, json.dumps(about, indent=1).encode())
    return path


def crashed(error: Exception, terminal: Terminal) -> int:
    """A bug in accord: says where the details are."""
    try:
        place = f"details in {crash_report(error, Path.cwd())}"
    except EnvironmentFault:
        place = "crash.json could not be written; run again with --debug to see the details"
    text = f"{type(error).__name__}: {error}"
    terminal.error(AccordError(f"this is a bug in accord: {text}", help=f"please report it; {place}"))
    return 1


def flush() -> None:
    """Everything that was printed is on its way."""
    sys.stdout.flush()
    sys.stderr.flush()


def leave(code: int) -> NoReturn:
    """Exit without a second error when the reader of our output has gone."""
    try:
        flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
