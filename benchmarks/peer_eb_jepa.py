"""EB-JEPA's side of benchmarks/peers.py: its image example run from a clone, and its weights in accord's units.

Its VICReg is inv + std * sum of two hinges + cov * sum of two means of off-diagonal squares, its SIGReg inv + lambda * SIGReg without
the factor n (see benchmarks/sensitivity.py).
"""

# ruff: noqa: PLC0415 (a peer is imported by its own side only)
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from accord.train.optim import parameter_groups
from peer_setting import PHOTO, Course, Pictures, Setting, Task, loader_of

KNOTS = 10
"""Of its quadrature, which has no setting."""


def official_vicreg(loss: Callable[..., Any], dim: int) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """25 * its VICReg with std 0.5 and cov (dim - 1) / 25: the official one with weights 25, 25 and 1."""
    own = loss(std_coeff=25 / (2 * 25), cov_coeff=(dim - 1) / 25)

    def scaled(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {name: 25 * value for name, value in own(x, y).items()}

    return scaled


def lambda_of(weight: float, n: int) -> float:
    """Of its SIGReg, for (1 - weight) * inv / 4 + weight * n * SIGReg: accord's inv is to the mean of two views, a quarter of its own."""
    return 4 * weight * n / (1 - weight)


class Clocked:
    """A loader that ends with the run; when the next batch is asked for, the step is done."""

    def __init__(self, loader: Any, course: Course, schedule: Any):
        self.loader, self.course, self.schedule = loader, course, schedule
        self.over = False

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield batch
            self.schedule.step()
            self.over = self.course.stepped()
            if self.over:
                return


def eb_jepa_loop(task: Task, common: Setting) -> None:
    """Its example's own `train_epoch`, model, dataset and transforms (all but solarisation), with the probe that it trains beside.

    In float32, as all sides; without progress bar, and without the validation and the checkpoint that follow each of its epochs.
    """
    import torchvision.transforms as t
    from eb_jepa.losses import VICRegLoss
    from examples.image_jepa import dataset as own
    from examples.image_jepa.eval import LinearProbe
    from examples.image_jepa.main import ImageSSL, train_epoch

    views = [
        own.RandomResizedCrop(task.size, scale=PHOTO.scale),
        own.ColorJitter(PHOTO.brightness, PHOTO.contrast, PHOTO.saturation, PHOTO.hue, prob=PHOTO.jitter),
        own.Grayscale(prob=PHOTO.grey),
        own.HorizontalFlip(prob=PHOTO.flip),
        t.ToTensor(),
        t.Normalize(**common.moments),
    ]
    dataset = own.ImageDataset(Pictures(Path(task.data), None), t.Compose(views), num_crops=2)
    projector: Any = common.encoder.projector
    model = ImageSSL(common.network, projector.feature_dim, proj_hidden_dim=1, proj_output_dim=1)
    model.projector = projector
    probe = LinearProbe(projector.feature_dim, 10)
    groups = parameter_groups(nn.ModuleList([model, probe]), common.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=common.rate, betas=common.betas, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, common.course.share)
    batches = Clocked(loader_of(dataset, task, common), common.course, schedule)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    by_epoch = SimpleNamespace(step=lambda _epoch: None)  # the rate is set by the step
    loss = official_vicreg(VICRegLoss, projector.dim)
    common.course.start()
    for epoch in itertools.count():
        if batches.over:
            return
        train_epoch(
            model,
            batches,
            optimizer,
            by_epoch,
            probe,
            scaler,
            torch.device("cpu"),
            epoch,
            loss,
            use_amp=False,
            tqdm_silent=True,
        )
