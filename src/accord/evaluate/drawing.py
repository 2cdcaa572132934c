"""A decoder that draws embeddings of y, trained by itself after the model: it is never part of the loss, and the model never sees it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.evaluate.features import Stop, never

LARGEST = 3 * 64 * 64
"""Numbers in a picture, at most: what a perceptron can draw."""
STEPS, BATCH, HIDDEN, RATE = 800, 256, 512, 2e-3


class Drawer(nn.Module):
    """A multi-layer perceptron from standardised embeddings to pictures with values in [0, 1].

    Args:
        s_y: embeddings of real y's, from which mean and spread are taken.
        shape: of a picture (channel, height, width).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, s_y: Float[Tensor, "m dim"], shape: torch.Size):
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", s_y.mean(0))
        self.register_buffer("scale", s_y.std(0, unbiased=False).clamp_min(1e-6))
        self.layers = nn.Sequential(
            nn.Linear(s_y.shape[1], HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, shape.numel()),
        )

    def logits(self, s_y: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch channel height width"]:
        """Pictures before the sigmoid."""
        flat: Tensor = self.layers((s_y - self.mean) / self.scale)
        return flat.reshape(*flat.shape[:-1], *self.shape)

    @torch.no_grad()
    def forward(self, s_y: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch channel height width"]:
        """Pictures, without gradient. What the embedding leaves out is drawn as the mean of all it could be: blurred."""
        return torch.sigmoid(self.logits(s_y))


def train_drawer(
    s_y: Float[Tensor, "m dim"],
    y: Float[Tensor, "m channel height width"],
    *,
    steps: int = STEPS,
    seed: int = 0,
    stop: Stop = never,
) -> Drawer:
    """Learns to draw real y's from their embeddings, by the cross-entropy of each pixel; a few seconds for small pictures.

    The same seed gives the same decoder. Torch's own generator is left as it was.

    Args:
        s_y: embeddings, detached from the model.
        y: pictures with values in [0, 1].
        steps: of AdamW with batches of 256, the rate falling to 0.
        seed: of weights and batches.
        stop: called before each step.
    """
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    drawer = Drawer(s_y, y.shape[1:])
    torch.set_rng_state(state)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(drawer.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        stop()
        some = torch.randint(len(s_y), (min(BATCH, len(s_y)),), generator=generator)
        with torch.enable_grad():
            loss = F.binary_cross_entropy_with_logits(drawer.logits(s_y[some]), y[some])
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        schedule.step()
    return drawer.eval()
