"""Where a model runs and in what precision: chosen, and said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from accord.data.pair import Pair
from accord.errors import EnvironmentFault, UsageError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """A device and how it is used: `precision` is that of the forward pass (autocast); weights are always float32."""

    device: torch.device
    precision: str

    @property
    def is_cpu(self) -> bool:
        """Whether results are read without waiting for a queue."""
        return self.device.type == "cpu"

    @property
    def cuda_devices(self) -> list[torch.device]:
        """The device, if it is one of CUDA: what has a generator of random numbers beside the CPU's."""
        return [self.device] if self.device.type == "cuda" else []

    @property
    def channels_last(self) -> bool:
        """Whether images lie with their channels innermost: what tensor cores read."""
        return self.device.type == "cuda"

    def __str__(self) -> str:
        if self.is_cpu:
            threads = torch.get_num_threads()
            return f"CPU, {threads} thread{'s' if threads > 1 else ''}, {self.precision}"
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        layout = ", channels last" if self.channels_last else ""
        return f"{name} ({self.device}), {self.precision}{layout}"

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)

    def place(self, module: nn.Module) -> None:
        """Moves a module here, in place."""
        module.to(self.device)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def lay_out(self, pair: Pair) -> Pair:
        """The pair with images laid out as this device likes them."""
        if not self.channels_last:
            return pair
        x, y = (t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in (pair.x, pair.y))
        return pair._replace(x=x, y=y)


def choose_device(device: str | torch.device = "auto", precision: str = "auto") -> Device:
    """The device and precision of a run.

    Args:
        device: "cpu", "cuda", "cuda:1", ...; "auto" is CUDA where there is one, else the CPU.
        precision: "float32" or "bfloat16"; "auto" is bfloat16 on CUDA and float32 elsewhere.

    Raises:
        UsageError: for a name that means nothing.
        EnvironmentFault: if the device is not there, or has no bfloat16; lists what exists.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(
            f"unknown precision {precision!r}", help=f"use one of auto, {', '.join(PRECISIONS)}", code="E253"
        )
    chosen = _device(device)
    if precision == "auto":
        precision = "bfloat16" if chosen.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if precision == "bfloat16" and chosen.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise EnvironmentFault(f"{chosen} has no bfloat16", help="use precision float32", code="E511")
    return Device(chosen, precision)


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        named = torch.device(device)
    except RuntimeError:
        raise UsageError(
            f"{str(device)!r} is no device", help=f"here there is: {', '.join(devices())}", code="E254"
        ) from None
    there = {torch.device(name) for name in devices()}
    if named.type == "cuda" and named.index is None and there - {torch.device("cpu")}:
        named = torch.device("cuda", torch.cuda.current_device())
    if named not in there and named.type != "cpu":
        raise EnvironmentFault(
            f"device {str(device)!r} is not there", help=f"here there is: {', '.join(devices())}", code="E510"
        )
    return named


def devices() -> list[str]:
    """What exists: "cpu", "cuda:0", ..."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *mps]


@contextmanager
def reproducible(device: Device, seed: int) -> Iterator[None]:
    """Within the body torch's generators start from `seed` and, on a CPU, algorithms are deterministic: the same steps, the same bits.

    On a GPU algorithms are not changed: several of its kernels have no deterministic form, and the others are slower. Afterwards
    generators and options are as before.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    options: Any = torch.utils.deterministic
    fill = options.fill_uninitialized_memory
    if device.is_cpu:
        torch.use_deterministic_algorithms(True)
        options.fill_uninitialized_memory = False  # costs time and finds bugs of another kind
    try:
        with torch.random.fork_rng(device.cuda_devices):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        options.fill_uninitialized_memory = fill


@contextmanager
def memory_faults(batch_size: int) -> Iterator[None]:
    """Turns an out-of-memory error, of whichever kind, into an `EnvironmentFault` with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        words = ("out of memory", "can't allocate memory", "not enough memory")
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in text for word in words):
            raise EnvironmentFault(
                f"out of memory with {batch_size} samples in a batch: {text.splitlines()[0] if text else 'no details'}",
                help=f"use a batch_size of {max(2, batch_size // 2)} or smaller views; the last checkpoint is intact",
                code="E505",
            ) from error
        raise
