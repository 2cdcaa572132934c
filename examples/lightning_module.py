"""Train an energy on the digits with Lightning, which is no part of accord: pip install lightning

By one process, or by several that share each batch: torchrun --nproc-per-node 2 examples/lightning_module.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

import accord


def make_objective() -> accord.Objective:
    """A small encoder and VICReg; batch norm is that of accord, which is of the batch of all processes."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), accord.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
    )
    encoder = accord.Encoder(backbone, accord.Projector(256, 64, hidden=(256,)), sample_ndim=3)
    return accord.regularized(accord.JointEmbedding(encoder, encoder, accord.IdentityPredictor()), accord.vicreg())


class Steps:
    """The share of this process in the batches of a run, as what Lightning moves to the device: values, index and epoch."""

    def __init__(self, loader: accord.Loader, steps: int):
        self.loader, self.steps = loader, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        return ((batch.data, batch.index, batch.epoch) for batch in self.loader.batches(0, self.steps))


class Training(lightning.LightningModule):
    """An objective, its data and its optimiser; the loader shares the batches among processes, so Lightning needs no sampler."""

    def __init__(self, objective: accord.Objective, steps: int):
        super().__init__()
        self.objective, self.steps = objective, steps
        self.samples = accord.open_source("digits")
        self.index, _ = accord.split(self.samples, fraction=0.2, seed=0)
        self.pairing = accord.two_views(accord.Augmentation.digits())
        self.losses: list[float] = []

    def train_dataloader(self) -> Steps:
        """Called in each process, once it knows its rank."""
        ranks = {"rank": self.global_rank, "world_size": self.trainer.world_size}
        return Steps(accord.Loader(self.samples, self.index, batch_size=128, seed=0, **ranks), self.steps)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of what is trained: a teacher is not."""
        return torch.optim.AdamW([p for p in self.objective.parameters() if p.requires_grad], lr=2e-3)

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """What changes with training: a temperature, say."""
        self.objective.before_step(batch_idx / self.steps)

    def training_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> Tensor:
        """The loss, of the batch of all processes: nothing of it is to be averaged over them."""
        data, index, epoch = batch
        loss = self.objective(self.pairing(data, accord.Draws(0, epoch, index)))
        self.losses.append(float(loss.total.detach()))
        return loss.total

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """What follows training: a teacher that is a moving average, say."""
        self.objective.after_step()


def train(objective: accord.Objective, steps: int) -> list[float]:
    """Trains in place; returns the loss of every step."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    training = Training(objective, steps)
    lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=world,
        strategy=DDPStrategy(process_group_backend="gloo") if world > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(training)
    return training.losses


if __name__ == "__main__":
    losses = train(make_objective(), 66)
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} at last")
