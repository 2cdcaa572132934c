"""A decoder of embeddings: it learns what can be learned, blurs what cannot, and leaves everything else alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accord.evaluate.drawing import train_drawer


def bars(n: int) -> tuple[Tensor, Tensor]:
    """Pictures of an upright bar and embeddings that tell its column."""
    column = torch.randint(6, (n,), generator=torch.Generator().manual_seed(1))
    y = torch.zeros(n, 1, 4, 6)
    y[torch.arange(n), 0, :, column] = 1
    return torch.nn.functional.one_hot(column, 6).float() @ torch.randn(
        6, 5, generator=torch.Generator().manual_seed(2)
    ), y


def test_it_draws_what_the_embedding_tells() -> None:
    s_y, y = bars(300)
    drawer = train_drawer(s_y, y, steps=200)
    drawn = drawer(s_y)
    assert drawn.shape == y.shape and drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn - y).abs().max() < 0.2
    assert drawer(s_y.view(3, 100, 5)).shape == (3, 100, 1, 4, 6)


def test_it_blurs_what_the_embedding_leaves_out() -> None:
    _, y = bars(300)
    drawn = train_drawer(torch.randn(300, 1).mul(0) + 1.0, y, steps=200)(torch.ones(1, 1))
    torch.testing.assert_close(drawn[0], y.mean(0), atol=0.1, rtol=0)


def test_the_same_seed_draws_the_same_and_chance_is_left_alone() -> None:
    s_y, y = bars(50)
    state = torch.get_rng_state()
    one, two, other = (train_drawer(s_y, y, steps=5, seed=seed)(s_y) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_can_be_stopped_and_gives_no_gradient_to_anyone() -> None:
    s_y, y = bars(50)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_drawer(s_y, y, stop=stop)
    with torch.no_grad():
        drawer = train_drawer(s_y, y, steps=2)
    assert not drawer(s_y.requires_grad_()).requires_grad
    assert s_y.grad is None
