"""What a run depends on, checked before any file is made, and compared when it goes on."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accord.data.loader import Loader
from accord.data.samples import Samples, split
from accord.errors import ArtifactError, UsageError
from accord.train.optim import AdamW, OptimizerSettings
from accord.train.schedule import Plan, seconds_of

MAY_CHANGE = {
    "data.source",
    "data.column",
    "data.max_bad_fraction",
    "training.device",
    "training.parallel",
    "training.on_collapse",
    "training.checkpoint_every",
}
"""Keys of a recipe that change no weight: a run may go on with others. (The data themselves are compared by their content.)"""


ONE_LENGTH = "give exactly one of epochs=100, steps=10000 and budget='10m'"


HeldOut = float | np.ndarray | tuple[np.ndarray, np.ndarray]
"""A share, the indices of what is held out, or (training, held-out) indices."""


@dataclass(frozen=True)
class Length:
    """How long a run is; at most one of the four is given, and none only to go on as before.

    Raises:
        UsageError: for more than one, or a value that is out of bounds.
    """

    epochs: float | None = None
    steps: int | None = None
    budget: str | float | None = None
    plan: Sequence[tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        if len(self.given) > 1:
            raise UsageError(f"how long? {' and '.join(self.given)} are given", help=ONE_LENGTH, code="E258")
        _bound("epochs", self.epochs, lambda v: 0 < v < math.inf, "more than 0")
        _bound("steps", self.steps, lambda v: v >= 1 and v == int(v), "a whole number, 1 or more")
        if self.budget is not None:
            seconds_of(self.budget)
        if self.plan is not None:
            Plan.of(self.plan)

    @property
    def given(self) -> dict[str, Any]:
        """What is given, by name."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def __str__(self) -> str:
        return " ".join(f"{key} {value}" for key, value in self.given.items())


@dataclass(frozen=True)
class Descent:
    """How weights move.

    Raises:
        UsageError: for a value that is out of bounds.
    """

    optimizer: OptimizerSettings
    lr: float | None = None
    weight_decay: float = 0.05
    warmup: float = 0.05

    def __post_init__(self) -> None:
        _bound("lr", self.lr, lambda v: 0 < v < math.inf, "more than 0")
        _bound("weight_decay", self.weight_decay, lambda v: 0 <= v < math.inf, "0 or more")
        _bound("warmup", self.warmup, lambda v: 0 <= v < 1, "a share of the run, in [0, 1)")

    def rate(self, batch_size: int) -> float:
        """The learning rate after warm-up."""
        return self.lr if self.lr is not None else self.optimizer.default_rate(batch_size)


@dataclass(frozen=True)
class Habits:
    """What changes no weight: when to log, save and give up.

    Raises:
        UsageError: for a value that is out of bounds.
    """

    on_collapse: str = "stop"
    checkpoint_every: int | str | None = None
    log_every: int | None = None
    max_bad_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.on_collapse not in ("stop", "warn"):
            raise UsageError(f"on_collapse = {self.on_collapse!r}", help="give 'stop' or 'warn'", code="E259")
        if isinstance(self.checkpoint_every, str):
            seconds_of(self.checkpoint_every, where="checkpoint_every")
        else:
            _bound("checkpoint_every", self.checkpoint_every, lambda v: v >= 1, "1 or more steps, or a time: '5m'")
        _bound("log_every", self.log_every, lambda v: v >= 1, "1 or more steps")
        _bound("max_bad_fraction", self.max_bad_fraction, lambda v: 0 <= v <= 1, "a share, in [0, 1]")


@dataclass(frozen=True)
class Settings:
    """The numbers of a run; see `fit` for each.

    Raises:
        UsageError: for a value that is out of bounds, with the bound.
    """

    length: Length
    descent: Descent
    habits: Habits
    batch_size: int = 256
    seed: int = 0
    held_out: HeldOut = 0.2
    accumulate: int = 1
    parallel: str = "ddp"
    shuffle_buffer: int | None = None

    def __post_init__(self) -> None:
        few = self.accumulate if isinstance(self.accumulate, int) else 1
        _bound("accumulate", self.accumulate, lambda v: v >= 1 and v == int(v), "a whole number of parts, 1 or more")
        if few > 1 and self.batch_size < 2 * few:
            raise UsageError(
                f"accumulate: {self.batch_size} samples in {few} parts are fewer than 2 in a part",
                where="accumulate",
                help="raise batch_size: it counts the samples of a step, of all parts together",
                code="E259",
            )
        if self.parallel not in ("ddp", "fsdp"):
            raise UsageError(
                f"parallel = {self.parallel!r}", where="parallel", help="give 'ddp' or 'fsdp'", code="E259"
            )
        fine = "2 or more: one sample has no statistics"
        _bound("batch_size", self.batch_size, lambda v: v >= 2 and v == int(v), fine)
        _bound("seed", self.seed, lambda v: v == int(v), "a whole number")
        if not isinstance(self.held_out, np.ndarray | tuple):
            _bound("held_out", self.held_out, lambda v: 0 <= v < 1, "a share, in [0, 1), or indices")
        _bound("shuffle_buffer", self.shuffle_buffer, lambda v: v >= 0 and v == int(v), "a whole number, 0 or more")

    def as_recipe(self, samples: Samples) -> dict[str, Any]:
        """What a recipe can say of a run from Python: everything but the model and the pairs."""
        optimizer, share = self.descent.optimizer, self.held_out
        length = {key: str(v) if key == "budget" else v for key, v in self.length.given.items() if key != "plan"}
        return {
            "format": 1,
            "data": {
                "source": samples.name,
                **({"held_out": share} if isinstance(share, float) and share else {}),
                **self._buffer(samples),
            },
            "optimizer": {
                "name": type(optimizer).__name__.lower(),
                "learning_rate": self.descent.rate(self.batch_size),
                "weight_decay": self.descent.weight_decay,
                "warmup": self.descent.warmup,
                **({} if isinstance(optimizer, AdamW) else {"momentum": optimizer.momentum}),
            },
            "training": {**length, "batch_size": self.batch_size, "seed": self.seed, **self._parts},
        }

    @property
    def _parts(self) -> dict[str, int]:
        return {} if self.accumulate == 1 else {"accumulate": self.accumulate}

    def _buffer(self, samples: Samples) -> dict[str, int]:
        """The shuffle buffer, if there is one."""
        buffer = samples.shuffle_buffer if self.shuffle_buffer is None else self.shuffle_buffer
        return {"shuffle_buffer": buffer} if buffer else {}

    def loader(self, samples: Samples, index: np.ndarray, rank: int, world_size: int) -> Loader:
        """The batches of `samples[index]`, of one rank."""
        return Loader(
            samples,
            index,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            shuffle_buffer=self.shuffle_buffer,
        )

    def divide(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """(train, held-out) indices.

        Raises:
            UsageError: for indices that are not those of usable samples.
        """
        if not isinstance(self.held_out, np.ndarray | tuple):
            return split(samples, self.held_out, self.seed)
        train, held = self.held_out if isinstance(self.held_out, tuple) else (samples.ok.nonzero()[0], self.held_out)
        usable = np.flatnonzero(samples.ok)
        train, held = (np.intersect1d(usable, _places(index, len(samples))) for index in (train, held))
        return np.setdiff1d(train, held), held

    def table(self, samples: Samples, record: Mapping[str, Any] | None) -> dict[str, Any]:
        """What must be the same when a run goes on: the record where there is one, else these settings; and the data."""
        data = {"data (sha256 of its content)": samples.fingerprint}
        if record is not None:
            return {**{k: v for k, v in flat(record).items() if k not in MAY_CHANGE}, **data}
        held = self.held_out
        indices = held if isinstance(held, tuple) else (held,) if isinstance(held, np.ndarray) else None
        return {
            "length": str(self.length),
            "batch_size": self.batch_size,
            **self._parts,
            "seed": self.seed,
            "held_out": held
            if indices is None
            else " ".join(f"{len(i)} indices {_digest(i.tolist())}" for i in indices),
            "optimizer": type(self.descent.optimizer).__name__,
            **{f"optimizer.{k}": v for k, v in vars(self.descent.optimizer).items()},
            "lr": self.descent.rate(self.batch_size),
            "weight_decay": self.descent.weight_decay,
            "warmup": self.descent.warmup,
            **self._buffer(samples),
            **data,
        }


def _places(index: np.ndarray, n: int) -> np.ndarray:
    """Different indices of n samples, in order."""
    places = np.unique(index)
    if len(places) and (places.dtype.kind not in "iu" or not 0 <= places[0] <= places[-1] < n):
        raise UsageError(f"held_out: expected whole numbers from 0 to {n - 1}", help="give sample indices", code="E259")
    return places


def _bound(name: str, value: Any, inside: Callable[[Any], bool], expected: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not inside(value):
        raise UsageError(f"{name} = {value!r} is out of bounds", where=name, help=f"give {expected}", code="E259")


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def require_same(then: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> None:
    """A run goes on only as it began.

    Raises:
        ArtifactError: with a table of what differs.
    """
    now = json.loads(json.dumps(dict(now)))  # tuples become lists, as in the file
    keys = [k for k in [*then, *(k for k in now if k not in then)] if then.get(k) != now.get(k)]
    keys = [k for k in keys if k != "length" or now[k]]
    if keys:
        lines = "; ".join(f"{k}: {_word(then, k)} then, {_word(now, k)} now" for k in keys[:20])
        raise ArtifactError(
            f"the run began with other settings: {lines}",
            where=where,
            help="go on with the settings of its recipe.toml, or start a new run with another --out",
            code="E406",
        )


def _word(table: Mapping[str, Any], key: str) -> str:
    return str(table[key])[:60] if key in table else "unset"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
