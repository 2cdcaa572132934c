"""Descent: closed forms, monotone, the best of everything visited; nothing leaks into the model; unrolled gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.codebook import Codebook
from accord.model.continuous import Gaussian, LowDimensional, Noisy, Sparse
from accord.model.descend import Descend
from accord.model.energy import Cost, Energy, cosine, smooth_l1, squared_error
from accord.model.latent import Latent
from accord.model.newton import gauss_newton, steepest
from accord.model.predictor import DictionaryPredictor, MLPPredictor, Predictor

DIM = 6
ADAM = functools.partial(torch.optim.Adam, lr=0.1)


def make(
    latent: Latent, *batch: int, linear: bool = False, cost: Cost = squared_error, seed: int = 0, action: int = 0
) -> Energy:
    torch.manual_seed(seed)
    predictor: Predictor = (DictionaryPredictor if linear else MLPPredictor)(DIM, latent.dim, action_dim=action)
    if isinstance(predictor, DictionaryPredictor):
        with torch.no_grad():
            predictor.directions.mul_(0.8)  # away from the bound, where there is no derivative
    batch = batch or (5,)
    s_x, s_y = (torch.randn(*batch, DIM, dtype=torch.float64, requires_grad=True) for _ in range(2))
    a = torch.randn(*batch, action, dtype=torch.float64) if action else None
    return Energy(s_x, s_y, predictor=predictor.double(), cost=cost, latent=latent.double(), action=a)


def leaves(energy: Energy) -> list[Tensor]:
    return [*energy.predictor.parameters(), energy.s_x, energy.s_y]


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("batch", [(5,), (), (2, 3)])
def test_one_gauss_newton_step_solves_a_quadratic(weight: float, batch: tuple[int, ...]) -> None:
    """z = (2/D W'W + lambda)^-1 2/D W'(y - b)."""
    energy = make(Gaussian(3, weight=weight), *batch, linear=True)
    if not batch:
        energy = energy.of(energy.s_x[0], energy.s_y[0], None)
    w = energy.predictor.linear_in_z()
    assert w is not None
    gap = energy.s_y - energy.predict(torch.zeros(*energy.batch_shape, 3, dtype=torch.float64))
    system = 2 / DIM * w.T @ w + weight * torch.eye(3, dtype=torch.float64)
    exact = torch.linalg.solve(system, 2 / DIM * (gap @ w)[..., None])[..., 0].detach()
    found = Descend(1, direction=gauss_newton(0.0)).eval()(energy)
    torch.testing.assert_close(found.argmin, exact, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.value, energy(exact), rtol=1e-10, atol=1e-12)


def grid_minimum(energy: Energy, reach: float = 10.0) -> Tensor:
    """By a dense grid over a two-dimensional z, refined twice around the best point."""
    centre, width = torch.zeros(*energy.batch_shape, 2, dtype=torch.float64), reach
    value = centre.sum(-1)
    for _ in range(5):
        ticks = torch.linspace(-width, width, 81, dtype=torch.float64)
        offsets = torch.cartesian_prod(ticks, ticks)
        points = energy.latent.project(centre + offsets.view(-1, *[1] * len(energy.batch_shape), 2))
        value, which = energy(points).detach().min(0)
        centre = points.gather(0, which[None, ..., None].expand(1, *centre.shape))[0]
        width /= 15
    return value


@pytest.mark.parametrize("cost", [squared_error, smooth_l1, cosine])
@pytest.mark.parametrize(
    "latent",
    [
        lambda: Gaussian(2, weight=0.02),
        lambda: Noisy(2).eval(),
        lambda: LowDimensional(2, bound=1.0),
        lambda: Sparse(2, weight=0.02, spread=0.5),
    ],
)
def test_descent_finds_what_a_dense_grid_finds(latent: Callable[[], Latent], cost: Cost) -> None:
    energy = make(latent(), 12, cost=cost)
    exact = grid_minimum(energy)
    plain = Descend(30, restarts=8).eval()(energy).value
    adam = Descend(200, optimizer=ADAM, restarts=4).eval()(energy).value
    for name, value in {"gauss_newton": plain, "adam": adam}.items():
        gap = (value - exact) / exact.abs().clamp_min(1e-3)
        assert (gap > -5e-3).all(), name  # the grid is fine
        assert gap.median() < 2e-3, name
        assert (gap < 0.02).double().mean() >= 0.75, name


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["gaussian", "noisy", "cube", "sparse"]),
    st.sampled_from([squared_error, smooth_l1, cosine]),
    st.booleans(),
)
def test_more_steps_are_never_worse(seed: int, name: str, cost: Cost, newton: bool) -> None:
    latents = {
        "gaussian": Gaussian(3),
        "noisy": Noisy(3).eval(),
        "cube": LowDimensional(3, bound=0.5),
        "sparse": Sparse(3),
    }
    energy = make(latents[name], cost=cost, seed=seed)
    direction = gauss_newton() if newton else steepest
    values = [
        Descend(steps, direction=direction, rate=1.0 if newton else 6.0).eval()(energy).value for steps in (1, 2, 4, 9)
    ]
    origin = energy(energy.latent.project(torch.zeros(5, 3, dtype=torch.float64)))
    for before, after in zip([origin, *values], values, strict=False):
        assert (after <= before + 1e-12).all()


@pytest.mark.parametrize(
    "optimizer",
    [
        ADAM,
        functools.partial(torch.optim.SGD, lr=2.0, momentum=0.9),
        functools.partial(torch.optim.Adam, lr=30.0),  # jumps about: the best iterate counts
        functools.partial(torch.optim.LBFGS, lr=0.5, max_iter=4),
    ],
)
def test_any_optimizer_the_best_iterate_counts(optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]) -> None:
    energy = make(Gaussian(3))
    minimum = Descend(15, optimizer=optimizer).eval()(energy)
    torch.testing.assert_close(energy(minimum.argmin), minimum.value)
    assert (minimum.value <= energy(torch.zeros(5, 3, dtype=torch.float64)) + 1e-12).all()
    better = Descend(200, optimizer=optimizer).eval()(energy)
    assert (better.value <= minimum.value + 1e-12).all() or optimizer.func is torch.optim.LBFGS  # type: ignore[attr-defined]


def test_projected_onto_what_is_allowed() -> None:
    for latent, bound in ((LowDimensional(3, bound=0.1), 0.1), (Noisy(3).eval(), math.sqrt(3))):
        energy = make(latent)
        for minimizer in (Descend(10), Descend(10, optimizer=ADAM), Descend(10, direction=steepest, rate=50.0)):
            z = minimizer.eval()(energy).argmin
            size = z.abs().amax(-1) if isinstance(latent, LowDimensional) else z.norm(dim=-1)
            assert (size <= bound + 1e-9).all()
    tight = make(LowDimensional(3, bound=1e-3))
    z = Descend(20, direction=steepest, rate=6.0).eval()(tight).argmin
    assert (z.abs() > 0.999e-3).double().mean() > 0.9  # the gradient pushes against the walls


# --- the model ---


@pytest.mark.parametrize("minimizer", [Descend(), Descend(optimizer=ADAM), Descend(direction=steepest, rate=6.0)])
def test_envelope_theorem_and_no_trace_in_the_parameters(minimizer: Descend) -> None:
    energy = make(Gaussian(3))
    minimum = minimizer.eval()(energy)
    assert all(p.grad is None for p in leaves(energy))
    assert not minimum.argmin.requires_grad
    found = torch.autograd.grad(minimum.value.sum(), leaves(energy))
    for one, two in zip(found, torch.autograd.grad(energy(minimum.argmin).sum(), leaves(energy)), strict=True):
        assert torch.equal(one, two)
    with torch.no_grad():
        silent = minimizer(energy)
    assert torch.equal(silent.value, minimum.value)
    assert not silent.value.requires_grad
    with torch.inference_mode():
        made = energy.of(energy.s_x.detach().clone(), energy.s_y.detach().clone(), None)
        assert made.s_x.is_inference()
        torch.testing.assert_close(minimizer(made).value, minimum.value)


def test_gradient_of_the_minimum_equals_finite_differences() -> None:
    """With the exact minimiser: also where z moves with the model."""
    energy = make(Gaussian(3, weight=0.2), linear=True)
    minimizer = Descend(3, direction=gauss_newton(0.0), restarts=0).eval()
    weight = energy.predictor.directions
    assert isinstance(weight, nn.Parameter)
    (gradient,) = torch.autograd.grad(minimizer(energy).value.sum(), weight)
    check(lambda: float(minimizer(energy).value.detach().sum()), weight, gradient, 1e-5)


def check(value: Callable[[], float], parameter: Tensor, gradient: Tensor, close: float) -> None:
    step = 1e-5
    for i, j in [(0, 0), (3, 2), (5, 1)]:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[i, j] += sign * step
            values.append(value())
            with torch.no_grad():
                parameter[i, j] -= sign * step
        difference = (values[0] - values[1]) / (2 * step)
        assert gradient[i, j].item() == pytest.approx(difference, rel=close, abs=close * 0.1)


@pytest.mark.parametrize("direction", [steepest, gauss_newton(0.01)])
@pytest.mark.parametrize("linear", [False, True])
def test_unrolled_gradient_includes_the_path_of_z(direction: Callable[..., Tensor], linear: bool) -> None:
    """Far from the minimum the envelope gradient is wrong, the unrolled one is not."""
    energy = make(Gaussian(3, weight=0.2), linear=linear)
    rate = 2.0 if direction is steepest else 0.3
    unrolled = Descend(2, direction=direction, rate=rate, restarts=1, unroll=True).eval()
    minimum = unrolled(energy)
    parameter = next(p for p in energy.predictor.parameters() if p.shape[-1] >= 3 and p.ndim == 2 and len(p) >= 6)
    if linear:
        parameter = energy.predictor.directions  # type: ignore[assignment]
    (gradient,) = torch.autograd.grad(minimum.value.sum(), parameter, retain_graph=True)
    plain = Descend(2, direction=direction, rate=rate, restarts=1).eval()(energy)
    torch.testing.assert_close(plain.value, minimum.value)
    torch.testing.assert_close(plain.argmin, minimum.argmin)
    (envelope,) = torch.autograd.grad(plain.value.sum(), parameter)
    assert not torch.allclose(envelope, gradient, rtol=1e-3)
    (back,) = torch.autograd.grad(minimum.value.sum(), energy.s_y)
    assert back.abs().sum() > 0
    assert not minimum.argmin.requires_grad
    assert all(p.grad is None for p in leaves(energy))
    with torch.no_grad():
        torch.testing.assert_close(unrolled(energy).value, plain.value)
    check(lambda: float(unrolled(energy).value.detach().sum()), parameter, gradient, 1e-4)


# --- randomness, starts, pieces ---


def test_a_pair_does_not_depend_on_its_batch_and_cross_has_it_on_the_diagonal() -> None:
    energy = make(Gaussian(3), action=2)
    for minimizer in (Descend(5), Descend(5, optimizer=ADAM)):
        whole = minimizer.eval()(energy)
        torch.testing.assert_close(minimizer(energy.part(slice(2, 3))).value, whole.value[2:3])
        cross = minimizer(energy.cross())
        assert cross.argmin.shape == (5, 5, 3)
        torch.testing.assert_close(cross.value.diagonal(), whole.value)
        minimizer.chunk = 100
        torch.testing.assert_close(minimizer(energy.cross()).value, cross.value)
        torch.testing.assert_close(minimizer(energy).value, whole.value)


def test_warm_start_and_restarts() -> None:
    energy = make(Gaussian(3, weight=0.01), 30)
    best = Descend(40, restarts=6).eval()(energy)
    warm = Descend(1, restarts=0).eval()(energy, start=best.argmin)
    assert (warm.value <= best.value + 1e-12).all()
    single = Descend(40, restarts=0).eval()(energy).value
    many = Descend(40, restarts=6).eval()(energy).value
    assert (many <= single + 1e-12).all()
    state = torch.get_rng_state()
    Descend(1).eval()(energy)
    assert torch.equal(torch.get_rng_state(), state)
    Descend(1).train()(energy)
    assert not torch.equal(torch.get_rng_state(), state)


def test_a_predictor_that_ignores_z_and_a_free_z() -> None:
    class Ignores(MLPPredictor):
        def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
            return super().forward(s_x, z[..., :0], action).expand(*z.shape[:-1], DIM)

    for weight in (0.0, 0.5):
        energy = make(Gaussian(3, weight=weight))
        energy.predictor = Ignores(DIM).double()
        for minimizer in (Descend(3), Descend(3, optimizer=ADAM), Descend(3, direction=steepest)):
            minimum = minimizer.eval()(energy)
            torch.testing.assert_close(minimum.value, energy(torch.zeros(5, 3, dtype=torch.float64)))


def test_float32_and_half_embeddings() -> None:
    energy = make(Gaussian(3))
    for dtype in (torch.float32, torch.bfloat16):
        kind = Energy(
            energy.s_x.detach().to(dtype),
            energy.s_y.detach().to(dtype),
            predictor=make(Gaussian(3)).predictor.to(torch.float32),
            cost=squared_error,
            latent=Gaussian(3),
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            minimum = Descend().eval()(kind)
        assert minimum.argmin.dtype == torch.float32
        torch.testing.assert_close(
            minimum.value.double(),
            Descend().eval()(energy).value,
            rtol=0.05 if dtype == torch.bfloat16 else 1e-3,
            atol=0.02,
        )


def test_refusals() -> None:
    with pytest.raises(UsageError, match="Codebook is a choice"):
        Descend()(make(Codebook(3, 2)))
    with pytest.raises(UsageError, match="optimiser of torch"):
        Descend(optimizer=ADAM, unroll=True)
    with pytest.raises(UsageError, match="optimiser of torch"):
        Descend(optimizer=ADAM, direction=steepest)
    for arguments in ({"steps": 0}, {"restarts": -1}, {"rate": 0.0}, {"chunk": 0}):
        with pytest.raises(UsageError):
            Descend(**arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="damping"):
        gauss_newton(-1.0)
