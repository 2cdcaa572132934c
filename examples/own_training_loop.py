"""Train an energy on the digits in a loop of your own: an objective is a plain module."""

from __future__ import annotations

import torch
from torch import nn

import accord


def main(epochs: int = 3) -> float:
    """Trains for a few epochs and returns the mean energy of matched pairs over that of mismatched ones."""
    torch.manual_seed(0)
    samples = accord.open_source("digits")
    train, held_out = accord.split(samples, fraction=0.2, seed=0)
    pairing = accord.two_views(accord.Augmentation.digits())

    backbone = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
    )
    encoder = accord.Encoder(backbone, accord.Projector(256, 64, hidden=(256,)), sample_ndim=3)
    model = accord.JointEmbedding(encoder, encoder, accord.IdentityPredictor())
    objective = accord.regularized(model, accord.vicreg())
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3)

    loader = accord.Loader(samples, train, batch_size=128, seed=0)
    for batch in loader.batches(0, epochs * loader.steps_per_epoch):
        loss = objective(pairing(batch.data, accord.Draws(0, batch.epoch, batch.index)))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()

    model.eval()
    pair = pairing(samples.batch(held_out), accord.Draws(1, 0, torch.from_numpy(held_out)))
    with torch.no_grad():
        energies = model.minimizer(model(pair.x, pair.y).cross()).value  # every x with every y
    matched = energies.diagonal().mean()
    mismatched = (energies.sum() - energies.diagonal().sum()) / (energies.numel() - len(energies))
    return float(matched / mismatched)


if __name__ == "__main__":
    print(f"matched pairs have {main():.1%} of the energy of mismatched ones")
