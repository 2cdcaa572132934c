"""Train an energy on the digits with Accelerate, which is no part of accord: pip install accelerate

By one process, or by several that share each batch: torchrun --nproc-per-node 2 examples/accelerate_loop.py
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

import accord


def make_objective() -> accord.Objective:
    """A small encoder and VICReg; batch norm is that of accord, which is of the batch of all processes."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), accord.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
    )
    encoder = accord.Encoder(backbone, accord.Projector(256, 64, hidden=(256,)), sample_ndim=3)
    return accord.regularized(accord.JointEmbedding(encoder, encoder, accord.IdentityPredictor()), accord.vicreg())


def train(objective: accord.Objective, steps: int) -> list[float]:
    """Trains in place; returns the loss of every step, which is of the batch of all processes."""
    accelerator = Accelerator(cpu=True)
    samples = accord.open_source("digits")
    index, _ = accord.split(samples, fraction=0.2, seed=0)
    pairing = accord.two_views(accord.Augmentation.digits())
    ranks = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    loader = accord.Loader(
        samples, index, batch_size=128, seed=0, **ranks
    )  # shares the batches: it is not to be prepared
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=2e-3)
    engine, optimizer = accelerator.prepare(objective, optimizer)
    losses = []
    for batch in loader.batches(0, steps):
        objective.before_step(batch.step / steps)  # what changes with training: a temperature, say
        draws = accord.Draws(0, batch.epoch, batch.index.to(accelerator.device))
        loss = engine(pairing(batch.data.to(accelerator.device), draws))
        optimizer.zero_grad()
        accelerator.backward(loss.total)
        optimizer.step()
        objective.after_step()  # what follows training: a teacher that is a moving average, say
        losses.append(float(loss.total.detach()))
    return losses


if __name__ == "__main__":
    losses = train(make_objective(), 66)
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} at last")
