"""x and y of different kinds, each with its own encoder: the upper and the lower half of a digit."""

from __future__ import annotations

import torch
from torch import nn

import accord


def encoder(width: int, dim: int) -> accord.Encoder:
    """A small encoder for half a digit; the two halves get different ones."""
    backbone = nn.Sequential(nn.Linear(32, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return accord.Encoder(backbone, accord.Projector(width, dim, hidden=(256,)), sample_ndim=1)


def main(steps: int = 300) -> float:
    """Trains the pair of encoders; returns how often the right lower half is among the ten of lowest energy."""
    torch.manual_seed(0)
    samples = accord.open_source("digits")
    train, held_out = accord.split(samples, fraction=0.2, seed=0)

    def halves(index: torch.Tensor) -> accord.Pair:
        images = samples.batch(index.numpy()).float() / 255
        return accord.Pair(images[:, :, :4].flatten(1), images[:, :, 4:].flatten(1))

    model = accord.JointEmbedding(encoder(128, 32), encoder(256, 32), accord.MLPPredictor(dim=32))
    objective = accord.regularized(model, accord.sigreg(slices=256))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3)
    for _ in range(steps):
        loss = objective(halves(torch.from_numpy(train)[torch.randint(len(train), (256,))]))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()

    model.eval()
    pair = halves(torch.from_numpy(held_out))
    with torch.no_grad():
        energies = model.minimizer(model(pair.x, pair.y).cross()).value
    rank = (energies < energies.diagonal()[:, None]).sum(dim=1)
    return float((rank < 10).float().mean())


if __name__ == "__main__":
    print(f"right half among the ten of lowest energy: {main():.0%}")
