"""What happens when some samples are bad: skipped up to a fraction, each one named; beyond that, stop before anything is trained."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from accord.data.samples import BadItem, Samples, duplicates
from accord.errors import DataError, UsageError

NAMED = 3
"""So many bad items are named in the message of an error."""


@dataclass(frozen=True)
class Policy:
    """`on_bad`: "skip" up to `max_bad_fraction` of the items, or "stop" at the first. `limit` False: bad items never stop.

    `part`: what is judged is one side of pairs, which are judged as a whole later.
    """

    on_bad: Literal["skip", "stop"] = "skip"
    max_bad_fraction: float = 0.01
    limit: bool = True
    part: bool = False

    def __post_init__(self) -> None:
        if self.on_bad not in ("skip", "stop"):
            raise UsageError(f'on_bad="{self.on_bad}": expected "skip" or "stop"', help='use on_bad="skip"')
        if not 0.0 <= self.max_bad_fraction <= 1.0:  # also refuses NaN
            raise UsageError(f"max_bad_fraction={self.max_bad_fraction}: expected 0..1", help="try 0.01, which is 1 %")

    def enforce(self, bad: int, total: int, first: Sequence[BadItem], name: str = "") -> None:
        """Raise `DataError` if `bad` of `total` items (of source `name`) are more than allowed; `first` are the first of them."""
        if not self.limit or bad == 0:
            return
        if self.on_bad == "skip" and bad <= self.max_bad_fraction * total and bad < total:
            return
        raise too_many(
            name, bad, total, first, "" if self.on_bad == "stop" else f", limit {100 * self.max_bad_fraction:g} %"
        )


def too_many(name: str, bad: int, total: int, first: Sequence[BadItem], limit: str) -> DataError:
    """The error that names the first few bad items and counts the others."""
    named = "; ".join(f"{item.key}: {item.reason}" for item in first[:NAMED])
    more = f"; and {bad - NAMED} more" if bad > NAMED else ""
    share = math.floor(1000 * bad / total) / 10
    help = first[0].help + '; "accord check" lists all of them'
    if limit and bad < total:
        help += f", --set data.max_bad_fraction={math.ceil(1000 * bad / total) / 1000:g} would skip them"
    return DataError(
        f"{bad} of {total} items cannot be used ({share:g} %{limit}): {named}{more}",
        where=place(name, first[0].key),
        help=help,
        code=first[0].code,
    )


def place(name: str, key: str) -> str:
    """Where an item of source `name` is: the file's path with the row, or the path in the folder."""
    source, file = Path(name), key.rsplit(":", 1)[0]
    if key.startswith("row "):
        return f"{name}:{key}" if name else key
    if source.name == file or key.startswith(f"{source.name}:") or glob.has_magic(name):
        return str(source.parent / key)
    return str(source / key)


def judge(samples: Samples, policy: Policy, constant: int) -> Samples:
    """`samples` with notes on duplicates and on `constant` items. Raises `DataError` as `policy` says, or if all are constant."""
    if policy.part:
        return samples
    policy.enforce(samples.skipped, len(samples), samples.bad, samples.name)
    usable = int(samples.ok.sum())
    if samples.skipped:
        samples.notes.append(f"{samples.skipped} of {len(samples)} items cannot be used, first {samples.bad[0].key}")
    if constant and constant == usable and policy.limit:
        raise DataError(
            f"all {usable} items are constant: there is nothing to learn from them",
            where=samples.name,
            help="check that these are the right files and that they were not lost in a conversion",
            code="E316",
        )
    if constant:
        samples.notes.append(f"zero-variance samples: {constant}")
    repeated = duplicates(samples.content[np.flatnonzero(samples.ok)])
    if repeated:
        samples.notes.append(f"{repeated} items repeat an earlier one exactly (equal content hash)")
    return samples
