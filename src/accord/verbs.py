"""What the verbs of the command line do, in the order a user meets them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accord import build, recipe_toml
from accord.data.samples import Samples, split
from accord.data.sources import check_source
from accord.errors import DataError, UsageError
from accord.evaluate.features import extract
from accord.output import require_writable, table_file
from accord.presets import PRESETS
from accord.report import write_report
from accord.run import Run, open_run, read_recipe, resolve, standardize_on
from accord.terminal import Terminal, TrainingProgress
from accord.train.fit import Fit, fit
from accord.train.signals import Stop, stop_on_signals

BATCH = 1024


def check(source: str, *, strict: bool, column: str | None, label: str | None, terminal: Terminal) -> None:
    """Names every bad item of a source.

    Raises:
        DataError: if there is any, after all have been named.
    """
    samples = check_source(source, strict=strict)
    for note in samples.notes:
        terminal.say(f"note: {note}")
    for item in samples.bad:
        terminal.say(f"{item.key}: {item.reason} [{item.code}]; {item.help}")
    skipped = samples.skipped
    terminal.say(f"{len(samples):,} items, {skipped:,} bad, {samples.kind} data of shape {tuple(samples.shape)}")
    bad = [item._asdict() for item in samples.bad]
    terminal.result({"source": source, "items": len(samples), "bad": skipped, "bad_items": bad, "notes": samples.notes})
    if skipped:
        terminal.say("training skips up to 1 % of bad items; set data.max_bad_fraction for more")
        raise SystemExit(DataError.exit_code)


def rows(samples: Samples) -> Iterator[np.ndarray]:
    """All indices in order, a batch at a time."""
    for start in range(0, len(samples), BATCH):
        yield np.arange(start, min(start + BATCH, len(samples)))


def reasons(samples: Samples) -> dict[str, str]:
    """Why an item is bad, by its key."""
    return {item.key: item.reason for item in samples.bad}
