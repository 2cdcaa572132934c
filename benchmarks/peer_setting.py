"""What is the same for every peer's loop of benchmarks/peers.py: a run's length and clock, the pictures, encoder, optimiser and loader."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from accord.data.augment import Augmentation
from accord.model.encoder import Encoder

PHOTO = Augmentation.photo()


@dataclass(frozen=True)
class Task:
    """One run of one peer; its length is given in seconds or in samples."""

    loop: str
    size: int
    workers: int
    seed: int
    data: str
    out: str
    seconds: float | None = None
    samples: int | None = None


class Course:
    """Where a run is: its clock starts at the first batch, and the rate is accord's warm-up and cosine."""

    def __init__(self, task: Task, batch: int, warmup: float):
        self.total = math.inf if task.samples is None else max(1, task.samples // batch)
        self.seconds = math.inf if task.seconds is None else task.seconds
        self.warmup = warmup
        self.times: list[float] = []
        self.start()

    def start(self) -> None:
        self.begin = time.perf_counter()

    def share(self, _step: int = 0) -> float:
        """Of the peak, for the next step."""
        t = min(1.0, max((len(self.times) + 0.5) / self.total, (time.perf_counter() - self.begin) / self.seconds))
        return (
            t / self.warmup
            if t < self.warmup
            else 0.5 * (1 + math.cos(math.pi * (t - self.warmup) / (1 - self.warmup)))
        )

    def stepped(self) -> bool:
        """Notes the end of a step and says whether it was the last."""
        self.times.append(time.perf_counter() - self.begin)
        return len(self.times) >= self.total or self.times[-1] >= self.seconds


class Pictures(Dataset[Any]):
    """What torchvision's CIFAR10 is: an array in memory, each item of which becomes a picture and is transformed."""

    def __init__(self, data: Path, transform: Callable[[Image.Image], Any] | None):
        self.pictures = np.load(data / "pictures.npy")
        self.labels = np.load(data / "train.npz")["label"]
        self.rows = np.load(data / "rows.npz")["train"]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        row = self.rows[i]
        picture = Image.fromarray(self.pictures[row])
        return picture if self.transform is None else self.transform(picture), int(self.labels[row])


@dataclass(frozen=True)
class Setting:
    """What is the same for all sides."""

    encoder: Encoder
    batch: int
    rate: float
    weight_decay: float
    betas: tuple[float, float]
    course: Course

    @property
    def network(self) -> nn.Module:
        """The backbone behind the standardisation, which is part of a peer's transforms."""
        assert isinstance(self.encoder.backbone, nn.Sequential)
        return self.encoder.backbone[1]

    @property
    def moments(self) -> dict[str, list[float]]:
        assert isinstance(self.encoder.backbone, nn.Sequential)
        first = self.encoder.backbone[0]
        return {"mean": first.mean.tolist(), "std": first.std.tolist()}


def loader_of(dataset: Dataset[Any], task: Task, common: Setting) -> DataLoader[Any]:
    """As in the examples of all."""
    return DataLoader(dataset, batch_size=common.batch, shuffle=True, drop_last=True, num_workers=task.workers)


def declare_operators() -> None:
    """Lets torchvision be imported beside a torch it was not compiled for: its Python registers two of its C++ operators at import.

    They are declared and stay without code. The transforms used here call none; they are Pillow's and torch's.
    """
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARIES.append(library)


LIBRARIES: list[Any] = []
"""A library of operators lives as long as its object."""
