"""Parts and pieces of an energy, and the matrix product for all against all."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.model.codebook import Codebook
from accord.model.continuous import Gaussian, GaussianWalk
from accord.model.energy import Cost, Energy, cosine, smooth_l1, squared_error
from accord.model.predictor import MLPPredictor

DIM = 4


def make(*x: int, y: tuple[int, ...] | None = None, cost: Cost = squared_error, action: int = 0) -> Energy:
    torch.manual_seed(0)
    s_x, s_y = (torch.randn(*shape, DIM, dtype=torch.float64) for shape in (x, x if y is None else y))
    a = torch.randn(*x, action, dtype=torch.float64) if action else None
    predictor = MLPPredictor(DIM, 2, action_dim=action).double()
    return Energy(s_x, s_y, predictor=predictor, cost=cost, latent=Codebook(3, 2).double(), action=a)


@pytest.mark.parametrize(("x", "y"), [((5,), (5,)), ((5, 2), (5, 2)), ((5,), (3, 5)), ((2,), (3, 2))])
@pytest.mark.parametrize("action", [0, 2])
def test_parts_make_the_whole(x: tuple[int, ...], y: tuple[int, ...], action: int) -> None:
    energy = make(*x, y=y, action=action)
    z = torch.randn(*energy.batch_shape, 2, dtype=torch.float64)
    rows = len(energy.s_y)
    halves = [energy.part(slice(0, 2))(z[:2]), energy.part(slice(2, rows))(z[2:])]
    torch.testing.assert_close(torch.cat(halves), energy(z))


def test_parts_of_a_cross_energy_are_rows_of_x() -> None:
    energy = make(5, action=2).cross()
    z = torch.randn(3, 1, 1, 2, dtype=torch.float64)
    torch.testing.assert_close(energy.part(slice(1, 3))(z), energy(z)[:, 1:3])
    one = make(1).cross()  # one x is not cut
    assert one.part(slice(0, 1)).batch_shape == (1, 1)


@pytest.mark.parametrize("chunk", [1, 7, 40, 10**6])
@pytest.mark.parametrize("copies", [1, 3])
def test_pieces_cover_every_row_once_and_respect_the_chunk(chunk: int, copies: int) -> None:
    energy = make(11, 2)
    rows = [r for piece in energy.pieces(chunk, copies=copies) for r in range(11)[piece]]
    assert rows == list(range(11))
    for piece in energy.pieces(chunk, copies=copies):
        length = len(range(11)[piece])
        assert length == 1 or length * copies * 2 * DIM <= chunk


def test_what_cannot_be_cut() -> None:
    assert list(make().pieces(1)) == [slice(None)]
    walk = make(6)
    walk.latent = GaussianWalk(2)  # one sequence
    assert list(walk.pieces(1)) == [slice(None)]
    walk = make(3, 6)
    walk.latent = GaussianWalk(2)
    assert len(list(walk.pieces(1))) == 3
    assert len(list(make(0).pieces(1))) == 1  # an empty batch still has a value


def test_size_counts_what_one_z_makes() -> None:
    assert make(10).size(shared=True) == 10 * DIM
    assert make(10, 3).size(shared=True) == 10 * 3 * DIM  # two batch axes are not every x with every y
    assert make(10).cross().size(shared=True) == 100  # one prediction for each x, one number for each pair
    assert make(10).cross().size(shared=False) == 100 * DIM
    assert make(10, cost=smooth_l1).cross().size(shared=True) == 100 * DIM  # differences are made one by one


# --- all against all ---


@pytest.mark.parametrize("cost", [squared_error, cosine])
@pytest.mark.parametrize("samples", [(), (3,), (2, 3)])
def test_all_against_all_is_the_broadcast(cost: Cost, samples: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(*samples, 5, 1, DIM, dtype=torch.float64, generator=g, requires_grad=True)
    b = torch.randn(1, 6, DIM, dtype=torch.float64, generator=g, requires_grad=True)
    product, loop = cost(a, b), cost(a.expand(*samples, 5, 6, DIM), b.expand(5, 6, DIM))
    torch.testing.assert_close(product, loop, rtol=1e-12, atol=1e-12)
    weight = torch.randn(loop.shape, dtype=torch.float64, generator=g)
    for one, two in zip(*(torch.autograd.grad((weight * t).sum(), (a, b)) for t in (product, loop)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.sampled_from([0.0, 1.0, 1e4]),
    st.sampled_from([1e-4, 1.0]),
)
def test_cancellation_is_bounded_by_the_spread_not_by_the_offset(
    seed: int, scale: float, offset: float, near: float
) -> None:
    """Float32: the error is some eps times the squared lengths from the mean of y, wherever the cloud lies."""
    g = torch.Generator().manual_seed(seed)
    b = (scale * torch.randn(1, 9, 16, generator=g) + offset * scale).float()
    a = (b.movedim(0, 1)[:5] + near * scale * torch.randn(5, 1, 16, generator=g)).float()
    exact = (a.double() - b.double()).square().mean(-1)
    centre = b.double().mean((0, 1))
    size = (a.double() - centre).square().mean(-1) + (b.double() - centre).square().mean(-1)
    rounded = (offset * scale) ** 2 * torch.finfo(torch.float32).eps ** 2 * 16  # of the inputs' own last digit
    error = (squared_error(a, b).double() - exact).abs()
    slack = 2 * (exact * rounded).sqrt() + 2 * rounded + 2 * (size * rounded).sqrt()
    assert (error <= 8 * torch.finfo(torch.float32).eps * size + slack).all()


@pytest.mark.parametrize("cost", [squared_error, cosine, smooth_l1])
def test_costs_compute_in_float32_under_autocast(cost: Cost) -> None:
    """Bfloat16 would leave nothing of a small difference of large numbers."""
    g = torch.Generator().manual_seed(0)
    b = torch.randn(1, 64, 32, generator=g)
    a = b.movedim(0, 1) + 0.01 * torch.randn(64, 1, 32, generator=g)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cost(a, b)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, cost(a, b))
    assert cost(a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_equal_embeddings_have_no_energy_and_a_finite_gradient() -> None:
    s = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = squared_error(s[:, None], s[None])
    assert (value.diagonal() <= 1e-6).all()
    assert (value >= 0).all()
    value.sum().backward()
    assert s.grad is not None
    assert s.grad.isfinite().all()


def test_detach_keeps_everything_but_the_gradient() -> None:
    energy = make(5, action=2)
    energy.s_x.requires_grad_()
    held = energy.detach()
    assert not held.s_x.requires_grad
    assert held.s_x.data_ptr() == energy.s_x.data_ptr()
    z = torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(held(z), energy(z))


def test_price_is_part_of_the_energy() -> None:
    energy = make(5)
    energy.latent = Gaussian(2, weight=0.3).double()
    z = torch.randn(7, 5, 2, dtype=torch.float64)
    expected = energy.divergence(z) + 0.3 * 0.5 * (z**2).sum(-1)
    torch.testing.assert_close(energy(z), expected)
    loop = torch.tensor(
        [
            [
                sum((float(u.detach()) - float(v)) ** 2 for u, v in zip(hat, y, strict=True)) / DIM
                for hat, y in zip(row, energy.s_y, strict=True)
            ]
            for row in energy.predict(z)
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(energy.divergence(z), loop)
    assert math.isclose(
        float(energy.latent.penalty(z, energy.s_x).mean().detach()), float(0.15 * (z**2).sum(-1).mean())
    )
