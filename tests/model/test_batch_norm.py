"""In one process the layers are torch's own, bit for bit. Two ranks: tests/oracles/test_two_ranks.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from accord.model.batch_norm import BatchNorm1d, BatchNorm2d, local_norms


def run(layer: nn.Module, shape: tuple[int, ...]) -> list[Tensor]:
    """Three steps of training with gradients, then evaluation; everything that came out."""
    found = []
    for step in range(3):
        x = (torch.randn(*shape, generator=torch.Generator().manual_seed(step)) * (step + 1) + step).requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        assert x.grad is not None
        found += [y.detach(), x.grad]
    found += [p.grad for p in layer.parameters() if p.grad is not None]
    found.append(layer.eval()(torch.ones(shape)).detach())
    return found + [t.clone() for t in layer.state_dict().values()]


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (lambda: BatchNorm1d(5), lambda: nn.BatchNorm1d(5), (7, 5)),
        (lambda: BatchNorm1d(5), lambda: nn.BatchNorm1d(5), (7, 5, 3)),
        (lambda: BatchNorm1d(5, affine=False), lambda: nn.BatchNorm1d(5, affine=False), (7, 5)),
        (lambda: BatchNorm1d(5, momentum=None, eps=0.1), lambda: nn.BatchNorm1d(5, momentum=None, eps=0.1), (7, 5)),
        (lambda: BatchNorm2d(5), lambda: nn.BatchNorm2d(5), (4, 5, 3, 2)),
        (
            lambda: BatchNorm2d(5, track_running_stats=False),
            lambda: nn.BatchNorm2d(5, track_running_stats=False),
            (4, 5, 3, 2),
        ),
    ],
)
def test_one_process_is_torch_bit_for_bit(ours: type, theirs: type, shape: tuple[int, ...]) -> None:
    a, b = ours(), theirs()
    assert list(a.state_dict()) == list(b.state_dict())
    b.load_state_dict(a.state_dict())
    results = zip(run(a, shape), run(b, shape), strict=True)
    assert all(torch.equal(u, v) for u, v in results)


def test_wrong_shapes_are_refused_as_torch_does() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        BatchNorm2d(3)(torch.ones(2, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm1d(3)(torch.ones(1, 3))


def test_layers_that_would_take_one_rank_for_the_batch_are_found() -> None:
    module = nn.Sequential(
        nn.BatchNorm1d(3), BatchNorm1d(3), nn.Sequential(BatchNorm2d(2), nn.BatchNorm2d(2)), nn.LayerNorm(3)
    )
    assert local_norms(module) == ["0", "2.1"]
