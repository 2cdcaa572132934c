"""Train an energy on the digits in a loop of your own: an objective is a plain module.

By one process, or by several that share each batch: torchrun --nproc-per-node 2 examples/own_loop.py
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # here, as an optimiser that imports it later makes it keep the process group for ever
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import accord

SAMPLES = accord.open_source("digits")
TRAIN, HELD_OUT = accord.split(SAMPLES, fraction=0.2, seed=0)
PAIRING = accord.two_views(accord.Augmentation.digits())


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
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    loader = accord.Loader(SAMPLES, TRAIN, batch_size=128, seed=0, rank=rank, world_size=world)
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=2e-3)
    engine = DistributedDataParallel(objective) if world > 1 else objective  # averages gradients over processes
    losses = []
    for batch in loader.batches(0, steps):
        objective.before_step(batch.step / steps)  # what changes with training: a temperature, say
        loss = engine(PAIRING(batch.data, accord.Draws(0, batch.epoch, batch.index)))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        objective.after_step()  # what follows training: a teacher that is a moving average, say
        losses.append(float(loss.total.detach()))
    return losses


def main(steps: int = 33) -> float:
    """Trains for three epochs and returns the mean energy of matched pairs over that of mismatched ones."""
    objective = make_objective()
    train(objective, steps)
    model = objective.model.eval()
    pair = PAIRING(SAMPLES.batch(HELD_OUT), accord.Draws(1, 0, torch.from_numpy(HELD_OUT)))
    with torch.no_grad():
        energies = model.minimizer(model(pair.x, pair.y).cross()).value  # every x with every y
    matched = energies.diagonal().mean()
    mismatched = (energies.sum() - energies.diagonal().sum()) / (energies.numel() - len(energies))
    return float(matched / mismatched)


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    print(f"matched pairs have {main():.1%} of the energy of mismatched ones")
    if dist.is_initialized():
        dist.destroy_process_group()
