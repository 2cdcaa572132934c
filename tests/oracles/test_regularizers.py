"""Every regularizer against a formula written with loops in float64, a closed form, or the published figure of another library."""

from __future__ import annotations

import cmath
import copy
import math
from collections.abc import Callable
from statistics import NormalDist
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from accord.errors import UsageError
from accord.objective.loss import Inference
from accord.objective.principles import barlow_twins, sigreg, vicreg, visreg
from accord.objective.regularizers import (
    BarlowOffDiagonal,
    BarlowOnDiagonal,
    Center,
    Covariance,
    Scale,
    SIGReg,
    SlicedShape,
    Variance,
    barlow_off_diagonal,
    barlow_on_diagonal,
    center,
    covariance,
    scale,
    sliced_epps_pulley,
    sliced_shape,
    variance,
)
from accord.objective.slices import directions, epps_pulley, normal_quantiles, sliced_mean

Rows = list[list[float]]


# --- formulas with loops ---


def columns(z: Tensor) -> Rows:
    return [list(column) for column in z.T.tolist()]


def mean(v: list[float]) -> float:
    return math.fsum(v) / len(v)


def moment(u: list[float], v: list[float], ddof: int) -> float:
    return math.fsum((a - mean(u)) * (b - mean(v)) for a, b in zip(u, v, strict=True)) / (len(u) - ddof)


def loop_variance(z: Tensor, target: float = 1.0, eps: float = 1e-4) -> float:
    return mean([max(0.0, target - math.sqrt(moment(c, c, 1) + eps)) for c in columns(z)])


def loop_covariance(z: Tensor) -> float:
    c = columns(z)
    return math.fsum(moment(c[i], c[j], 1) ** 2 for i in range(len(c)) for j in range(len(c)) if i != j) / len(c)


def loop_barlow(x: Tensor, y: Tensor, eps: float = 1e-5) -> tuple[float, float]:
    cx, cy = columns(x), columns(y)
    on, off = [], []
    for i, u in enumerate(cx):
        for j, v in enumerate(cy):
            c = moment(u, v, 0) / math.sqrt((moment(u, u, 0) + eps) * (moment(v, v, 0) + eps))
            if i == j:
                on.append((1 - c) ** 2)
            else:
                off.append(c**2)
    return math.fsum(on), math.fsum(off)


def loop_epps_pulley(z: Tensor, a: Tensor, knots: int, t_max: float) -> float:
    """Complex, on the full line, without symmetry."""
    values = []
    step = t_max / (knots - 1)
    for k in range(a.shape[1]):
        u = (z @ a[:, k]).tolist()
        total = 0.0
        for m in range(-knots + 1, knots):
            t = m * step
            phi = sum(cmath.exp(1j * t * v) for v in u) / len(u)
            edge = 0.5 if abs(m) == knots - 1 else 1.0
            total += edge * step * abs(phi - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)
        values.append(len(u) * total)
    return mean(values)


def exact_epps_pulley(u: list[float]) -> float:
    pairs = mean([math.exp(-((v - w) ** 2) / 2) for v in u for w in u])
    return len(u) * (
        math.sqrt(2 * math.pi) * pairs
        - 2 * math.sqrt(math.pi) * mean([math.exp(-v * v / 4) for v in u])
        + math.sqrt(2 * math.pi / 3)
    )


def loop_center(z: Tensor) -> float:
    return mean([mean(c) ** 2 for c in columns(z)])


def loop_scale(z: Tensor) -> float:
    return mean([(1 - math.sqrt(moment(c, c, 0))) ** 2 for c in columns(z)])


def loop_shape(z: Tensor, a: Tensor) -> float:
    standard = [[(v - mean(c)) / (math.sqrt(moment(c, c, 0)) + 1e-4) for v in c] for c in columns(z)]
    n, values = len(z), []
    for k in range(a.shape[1]):
        u = sorted(math.fsum(float(a[j, k]) * standard[j][i] for j in range(len(standard))) for i in range(n))
        values += [(u[i] - NormalDist().inv_cdf((i + 1) / (n + 1))) ** 2 for i in range(n)]
    return mean(values)


def rows(n: int, dim: int, seed: int = 0) -> Tensor:
    """Correlated columns of various means and scales."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dim, dtype=torch.float64, generator=generator)
    mixing = torch.randn(dim, dim, dtype=torch.float64, generator=generator) / dim**0.5
    return 0.8 * z @ mixing + 0.3 * torch.randn(dim, dtype=torch.float64, generator=generator)


SIZES = [(12, 5), (5, 12), (2, 7), (6, 6), (40, 1)]


@pytest.mark.parametrize(("n", "dim"), SIZES)
def test_functions_equal_their_formulas(n: int, dim: int) -> None:
    x, y = rows(n, dim), rows(n, dim, 1) + rows(n, dim)
    a = directions(dim, 7, 5).double()
    on, off = loop_barlow(x, y)
    assert variance(x).item() == pytest.approx(loop_variance(x), rel=1e-12)
    assert variance(x, target=3.0, eps=0.1).item() == pytest.approx(loop_variance(x, 3.0, 0.1), rel=1e-12)
    assert covariance(x).item() == pytest.approx(loop_covariance(x), rel=1e-10, abs=1e-14)
    assert barlow_on_diagonal(x, y).item() == pytest.approx(on, rel=1e-10)
    assert barlow_off_diagonal(x, y).item() == pytest.approx(off, rel=1e-10, abs=1e-14)
    assert center(x).item() == pytest.approx(loop_center(x), rel=1e-12)
    assert scale(x).item() == pytest.approx(loop_scale(x), rel=1e-12)
    assert sliced_shape(x, a).item() == pytest.approx(loop_shape(x, a), rel=1e-10)
    for knots, t_max in [(17, 3.0), (2, 1.0), (30, 5.0)]:
        expected = loop_epps_pulley(x, a, knots, t_max)
        assert sliced_epps_pulley(x, a, knots=knots, t_max=t_max).item() == pytest.approx(expected, rel=1e-10)


def test_quadrature_reaches_the_exact_integral() -> None:
    x = rows(20, 4)
    a = directions(4, 3, 0).double()
    exact = mean([exact_epps_pulley((x @ a[:, k]).tolist()) for k in range(3)])
    assert sliced_epps_pulley(x, a, t_max=8.0, knots=129).item() == pytest.approx(exact, rel=1e-6)
    assert sliced_epps_pulley(x, a).item() == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(("n", "dim"), [(9, 4), (4, 9)])
@pytest.mark.parametrize("views", [0, 2])
def test_gradients(n: int, dim: int, views: int) -> None:
    x = torch.stack([rows(n, dim, s) for s in range(views)]) if views else rows(n, dim)
    y = rows(n, dim, 7)
    a = directions(dim, 6, 5).double()
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "variance": lambda s: variance(s, target=4.0),
        "covariance": covariance,
        "on": lambda s: barlow_on_diagonal(s, y),
        "off": lambda s: barlow_off_diagonal(s, y),
        "off, other side": lambda s: barlow_off_diagonal(y, s) if views == 0 else barlow_off_diagonal(s, s * 2),
        "epps_pulley": lambda s: sliced_epps_pulley(s, a),
        "center": center,
        "scale": scale,
    }
    for name, function in functions.items():
        assert torch.autograd.gradcheck(function, x.clone().requires_grad_()), name


def test_shape_gradient_holds_the_scale_fixed() -> None:
    """The standard deviation is a constant of the gradient: compare with finite differences at frozen sigma."""
    x, a = rows(8, 3), directions(3, 6, 5).double()
    sigma = x.std(0, correction=0) + 1e-4

    def frozen(s: Tensor) -> Tensor:
        u = ((s - s.mean(0)) / sigma) @ a
        return (u.sort(dim=0).values - normal_scores(len(s))[:, None]).square().mean()

    leaf = x.clone().requires_grad_()
    (actual,) = torch.autograd.grad(sliced_shape(leaf, a), leaf)
    (expected,) = torch.autograd.grad(frozen(leaf), leaf)
    assert torch.autograd.gradcheck(frozen, x.clone().requires_grad_())
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def normal_scores(n: int) -> Tensor:
    return torch.tensor([NormalDist().inv_cdf((i + 1) / (n + 1)) for i in range(n)], dtype=torch.float64)


def test_second_derivatives_are_refused_not_wrong() -> None:
    x = rows(5, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(sliced_epps_pulley(x, directions(3, 4, 0)), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize(("n", "dim"), [(12, 4), (4, 12)])
def test_views_are_averaged(n: int, dim: int) -> None:
    views = [rows(n, dim, s) * (s + 1) for s in range(6)]
    stacked = torch.stack(views).view(2, 3, n, dim)
    y = rows(n, dim, 9)
    a = directions(dim, 6, 5)
    functions: list[Callable[[Tensor], Tensor]] = [
        variance,
        covariance,
        center,
        scale,
        lambda s: barlow_on_diagonal(s, y),
        lambda s: barlow_off_diagonal(s, y),
        lambda s: barlow_off_diagonal(y, s),
        lambda s: sliced_epps_pulley(s, a),
        lambda s: sliced_shape(s, a),
    ]
    for function in functions:
        assert function(stacked).item() == pytest.approx(mean([function(v).item() for v in views]), rel=1e-12)


# --- published values; recipes of the torch CPU generator, checked by their first numbers ---


def recipe(numbers: list[float], *tensors: Tensor) -> tuple[Tensor, ...]:
    first = [t.flatten()[0].item() for t in tensors]
    assert first == pytest.approx(numbers, abs=1e-4), "the generator of torch changed: these golden values do not apply"
    return tensors


def r1() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    a = torch.randn(64, 32)
    return recipe([-1.1258, -0.9261], a, a + 0.3 * torch.randn(64, 32))


def r2() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    z1 = torch.randn(256, 64)
    return recipe([-1.1258, -0.5174], z1, torch.randn(256, 64) * 1.3 + 0.2)


def r3() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    a = torch.randn(16, 8)
    return recipe([-1.1258, -1.3909], a, a + 0.3 * torch.randn(16, 8))


def inference(s_x: Tensor, s_y: Tensor) -> Inference:
    """Of the identity predictor with squared error, as far as the terms look at it."""
    energy = SimpleNamespace(s_x=s_x, s_y=s_y)
    minimum = SimpleNamespace(value=(s_x * 1.0 - s_y).square().mean(-1) if s_x.shape == s_y.shape else None)
    return cast(Inference, SimpleNamespace(energy=energy, minimum=minimum, minimizer=None))


def total(terms: object, s_x: Tensor, s_y: Tensor) -> Tensor:
    pairs = cast(dict[str, tuple[float, Callable[[Inference], Tensor]]], terms).values()
    return sum((weight * term(inference(s_x, s_y)) for weight, term in pairs), start=torch.zeros((), dtype=s_x.dtype))


def test_golden_r1() -> None:
    a, b = r1()
    assert total(vicreg(), 0.3 * a, 0.3 * b).item() == pytest.approx(17.40, abs=1e-2)
    halved = vicreg()
    unhalved = {**halved, "variance": (25.0, Variance(halved=False))}
    assert total(unhalved, 0.3 * a, 0.3 * b).item() == pytest.approx(34.61, abs=1e-2)
    assert total(barlow_twins(), a, b).item() == pytest.approx(0.12509, abs=1e-5)


def test_golden_r2() -> None:
    z1, z2 = r2()
    assert total(vicreg(), z1, z2).item() == pytest.approx(69.45640, rel=1e-6)
    assert total(vicreg(), z1.double(), z2.double()).item() == pytest.approx(69.45639, rel=1e-6)
    x, one = (z1 @ directions(64, 256, 0))[:, :1], torch.ones(1, 1)
    assert exact_epps_pulley(x[:, 0].tolist()) == pytest.approx(0.391313, abs=1e-6)
    assert sliced_epps_pulley(x, one, t_max=8.0, knots=129).item() == pytest.approx(0.391313, abs=1e-6)
    assert sliced_epps_pulley(x, one).item() == pytest.approx(0.388011, abs=1e-6)


def test_golden_r3() -> None:
    a, b = r3()
    assert total(vicreg(), a, b).item() == pytest.approx(3.5901, abs=1e-4)
    assert total(barlow_twins(), a, b).item() == pytest.approx(0.0210, abs=1e-4)
    assert sliced_epps_pulley(a, directions(8, 64, 0)).item() == pytest.approx(0.8223, abs=1e-4)


def test_golden_constant_codes() -> None:
    for terms, value in [(vicreg(), 24.75), (barlow_twins(), 32.0)]:
        ones = torch.ones(64, 32, requires_grad=True)
        loss = total(terms, ones, ones)
        loss.backward()
        assert loss.item() == pytest.approx(value, rel=1e-6)
        assert ones.grad is not None
        assert ones.grad.abs().max() == 0


# --- the principles: weights and what they are applied to ---


def test_vicreg_conventions() -> None:
    x, y = rows(10, 4), rows(10, 4, 1)
    hinges, redundancy = loop_variance(x) + loop_variance(y), loop_covariance(x) + loop_covariance(y)
    squared = (x - y).square()
    official = 2.0 * squared.mean().item() + 3.0 * hinges / 2 + 5.0 * redundancy
    paper = 2.0 * squared.sum(1).mean().item() + 3.0 * hinges + 5.0 * redundancy
    weights = {"invariance": 2.0, "variance": 3.0, "covariance": 5.0}
    assert total(vicreg(**weights), x, y).item() == pytest.approx(official, rel=1e-10)
    assert total(vicreg(**weights, convention="paper"), x, y).item() == pytest.approx(paper, rel=1e-10)


def test_barlow_twins() -> None:
    x, y = rows(10, 4), rows(10, 4, 1)
    on, off = loop_barlow(x, y)
    assert total(barlow_twins(off_diagonal=0.3), x, y).item() == pytest.approx(on + 0.3 * off, rel=1e-10)


def test_sigreg_is_the_paper_for_two_views() -> None:
    x, y = rows(10, 4), rows(10, 4, 1)
    middle = (x + y) / 2
    invariance = torch.stack([(x - middle).square(), (y - middle).square()]).mean().item()
    a = directions(4, 8, 3).double()
    gaussian = (loop_epps_pulley(x, a, 17, 3.0) + loop_epps_pulley(y, a, 17, 3.0)) / 2
    terms = sigreg(weight=0.2, slices=8, seed=3)
    assert total(terms, x, y).item() == pytest.approx(0.8 * invariance + 0.2 * gaussian, rel=1e-10)


def test_visreg_is_the_paper_for_two_views() -> None:
    x, y = rows(10, 4), rows(10, 4, 1)
    invariance = (x - y).square().mean().item() / 4
    a = directions(4, 8, 3).double()
    parts = [(loop_center(s) + loop_scale(s) + loop_shape(s, a)) / 2 for s in (x, y)]
    terms = visreg(weight=0.6, slices=8, seed=3)
    assert total(terms, x, y).item() == pytest.approx(0.4 * invariance + 0.6 * sum(parts), rel=1e-10)


# --- properties ---


def test_barlow_properties() -> None:
    torch.manual_seed(1)
    x, y = torch.randn(64, 32), torch.randn(64, 32)
    assert barlow_on_diagonal(x, x).item() == pytest.approx(0, abs=1e-8)  # biased: (N-1)/N would give D / N^2
    a, b = torch.rand(32, dtype=torch.float64) + 0.5, torch.randn(32, dtype=torch.float64)
    u, v = x.double() * 100, y.double() * 100  # far above eps
    moved = (-(u * a + b), v * a.flip(0) - b)
    assert barlow_off_diagonal(*moved).item() == pytest.approx(barlow_off_diagonal(u, v).item(), rel=1e-6)
    assert barlow_on_diagonal(u * a + b, v).item() == pytest.approx(barlow_on_diagonal(u, v).item(), rel=1e-6)


def test_barlow_energy_follows_the_loss_behind_a_final_norm() -> None:
    """Mean squared error of standardised embeddings is 2 (1 - mean_i C_ii)."""
    norm = torch.nn.BatchNorm1d(5, affine=False, eps=1e-12).double()
    x, y = norm(rows(20, 5)), norm(rows(20, 5) + 0.5 * rows(20, 5, 1))
    diagonal = torch.tensor([moment(u, v, 0) for u, v in zip(columns(x), columns(y), strict=True)])
    assert (x - y).square().mean().item() == pytest.approx(2 * (1 - diagonal.mean().item()), rel=1e-6)


def test_sigreg_at_total_collapse_moves_all_rows_alike() -> None:
    a = directions(32, 256, 0)
    ones = torch.ones(64, 32, requires_grad=True)
    sliced_epps_pulley(ones, a).backward()
    assert ones.grad is not None
    assert ones.grad.norm() > 0.5
    assert (ones.grad - ones.grad[0]).abs().max() == 0
    origin = torch.zeros(64, 32, requires_grad=True)
    sliced_epps_pulley(origin, a).backward()
    assert origin.grad is not None
    assert origin.grad.abs().max() == 0


def test_gradient_near_collapse() -> None:
    """Per-sample gradient at spread 0, 1e-3, 0.1: it vanishes for the hinge and SIGReg, and does not for VISReg's scale."""
    a = directions(32, 1024, 0)

    def norms(function: Callable[[Tensor], Tensor]) -> list[float]:
        found = []
        for spread in (0.0, 1e-3, 0.1):
            s = (spread * torch.randn(256, 32, generator=torch.Generator().manual_seed(0))).requires_grad_()
            function(s).backward()
            assert s.grad is not None
            found.append(s.grad.norm(dim=1).mean().item())
        return found

    gaussian, hinge, visual = norms(lambda s: sliced_epps_pulley(s, a)), norms(variance), norms(scale)
    assert gaussian[0] == hinge[0] == visual[0] == 0
    assert 5.7e-4 / 2 < gaussian[1] < 5.7e-4 * 2
    assert 5.5e-2 / 2 < gaussian[2] < 5.5e-2 * 2
    assert 6.8e-5 / 2 < hinge[1] < 6.8e-5 * 2
    assert 6.8e-4 / 2 < hinge[2] < 6.8e-4 * 2
    assert visual[1] == pytest.approx(visual[2], rel=0.15)


def test_a_standard_normal_is_the_target() -> None:
    """Of N normal samples the expectation is the same at any N; of others it grows with N (within 4 standard errors)."""
    for n in (16, 64):
        u = torch.randn(n, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        root = math.sqrt(2 * math.pi)
        distance = root * (1 / 3 - 2 / math.sqrt(6) + 1 / math.sqrt(3))  # of N(0, 4) to N(0, 1)
        normal, wide = (epps_pulley(v, knots=65, t_max=8.0)[0] for v in (u, 2 * u))
        expected = [(normal, root * (1 - 1 / math.sqrt(3))), (wide, n * distance + root * (1 - 1 / 3))]
        for values, expectation in expected:
            error = values.std().item() / math.sqrt(len(values))
            assert abs(values.mean().item() - expectation) < 4 * error
            assert error < 0.05 * expectation


# --- precision ---


@pytest.mark.parametrize("n", [256, 2048])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs(n: int, dtype: torch.dtype) -> None:
    """Correlated features of standard deviation 6, where half-precision sums overflow or drown."""
    generator = torch.Generator().manual_seed(0)
    x = 6 * torch.randn(n, 1, generator=generator) + 0.1 * torch.randn(n, 64, generator=generator)
    y = x + 0.1 * torch.randn(n, 64, generator=generator)
    a = directions(64, 64, 0)
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda s, t: variance(s, target=20.0),
        lambda s, t: covariance(s),
        barlow_off_diagonal,
        lambda s, t: sliced_epps_pulley(s, a),
        lambda s, t: scale(s),
        lambda s, t: sliced_shape(s, a),
    ]
    for function in functions:
        value = function(x.to(dtype), y.to(dtype))
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(function(x.double(), y.double()).item(), rel=1e-2)


@pytest.mark.parametrize(("n", "dim"), [(48, 16), (16, 48)])
def test_autocast_changes_nothing(n: int, dim: int) -> None:
    x, y = rows(n, dim).float(), rows(n, dim, 1).float()
    principles = [vicreg(), barlow_twins(), sigreg(slices=32), visreg(slices=32)]
    for terms in principles:
        for term in (t for _, t in terms.values()):
            if isinstance(term, torch.nn.Module):
                term.eval()
        plain = total(terms, x, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(total(terms, x, y), plain)


@pytest.mark.parametrize(("n", "dim"), [(256, 64), (64, 256), (256, 257)])
def test_float32_is_close_to_float64(n: int, dim: int) -> None:
    x, y = rows(n, dim), rows(n, dim) + rows(n, dim, 1)
    a = directions(dim, 64, 0)
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda s, t: variance(s),
        lambda s, t: covariance(s),
        barlow_on_diagonal,
        barlow_off_diagonal,
        lambda s, t: sliced_epps_pulley(s, a),
        lambda s, t: center(s),
        lambda s, t: scale(s),
        lambda s, t: sliced_shape(s, a),
    ]
    for function in functions:
        double = function(x, y)
        assert double.dtype == torch.float64
        assert function(x.float(), y.float()).item() == pytest.approx(double.item(), rel=5e-6)


# --- slices ---


def test_slices_are_fresh_at_each_training_step_and_resume() -> None:
    x, y = rows(10, 4), rows(10, 4, 1)
    term = SIGReg(slices=8)
    first, second = (term(inference(x, y)).item() for _ in range(2))
    assert first != second
    assert term.slices.step == 2
    term.eval()
    third = term(inference(x, y)).item()
    assert third == term(inference(x, y)).item()  # evaluation does not move it on
    assert third not in (first, second)
    resumed = SIGReg(slices=8)
    resumed(inference(x, y))
    resumed.load_state_dict(term.state_dict())
    assert resumed(inference(x, y)).item() == third
    resumed.slices.step.zero_()  # anything that writes the buffer counts
    assert resumed(inference(x, y)).item() == first
    with torch.no_grad():
        resumed.state_dict()["slices.step"].copy_(torch.tensor(2))
    assert copy.deepcopy(resumed)(inference(x, y)).item() == third
    assert resumed(inference(x, y)).item() == third
    assert SIGReg(slices=8, seed=1)(inference(x, y)).item() == second  # step t of seed s is seed s + t


def test_directions_are_unit_and_a_function_of_the_seed() -> None:
    torch.manual_seed(0)
    a = directions(16, 100, 4)
    torch.testing.assert_close(a.norm(dim=0), torch.ones(100))
    torch.manual_seed(1)
    assert torch.equal(a, directions(16, 100, 4))
    assert not torch.equal(a, directions(16, 100, 5))
    second_moment = directions(4, 100_000, 0) @ directions(4, 100_000, 0).T / 100_000
    torch.testing.assert_close(second_moment, torch.eye(4) / 4, atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", ["epps_pulley", "normal_quantiles"])
def test_memory_is_bounded_by_blocks_of_slices(name: str) -> None:
    """No block holds more than it may, and neither value nor gradient depends on the size of a block."""
    z, a = rows(50, 6), directions(6, 40, 0).double()
    seen: list[int] = []

    def statistic(u: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(u.numel())
        return epps_pulley(u, knots=17, t_max=3.0) if name == "epps_pulley" else normal_quantiles(u)

    results = []
    for elements in (50 * 40, 50 * 7, 1):
        leaf = z.clone().requires_grad_()
        value = sliced_mean(leaf, a, statistic, elements=elements)
        results.append((value, *torch.autograd.grad(value, leaf)))
        assert max(seen) <= max(elements, 50)
        assert sum(seen) == 50 * 40
        seen.clear()
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-15)


# --- refusals ---


def test_refusals() -> None:
    a = directions(4, 8, 0)
    singles: list[Callable[[Tensor], Tensor]] = [
        variance,
        covariance,
        center,
        scale,
        lambda s: sliced_epps_pulley(s, a),
        lambda s: sliced_shape(s, a),
        lambda s: barlow_on_diagonal(s, s),
        lambda s: barlow_off_diagonal(s, s),
    ]
    terms = [Variance(), Covariance(), BarlowOnDiagonal(), BarlowOffDiagonal(), SIGReg(slices=4), Center(), Scale()]
    for function in [*singles, *(lambda s, t=t: t(inference(s, s)) for t in [*terms, SlicedShape(slices=4)])]:
        with pytest.raises(UsageError, match=r"at least two rows, got 1 in \(1, 4\)[\s\S]*batch size"):
            function(torch.ones(1, 4))
        with pytest.raises(UsageError, match=r"\(\*views, batch, dim\).*got \(4,\)"):
            function(torch.ones(4))
        with pytest.raises(UsageError, match="int64"):
            function(torch.ones(3, 4, dtype=torch.int64))
    for function in singles:
        for poison in (math.nan, math.inf):
            with pytest.raises(UsageError, match="1 numbers that are not finite"):
                function(torch.ones(3, 4).index_put_((torch.tensor(1), torch.tensor(2)), torch.tensor(poison)))
    with pytest.raises(UsageError, match=r"got \(3, 4\) and \(3, 5\)"):
        barlow_on_diagonal(torch.ones(3, 4), torch.ones(3, 5))
    with pytest.raises(UsageError, match=r"got \(3, 4\) and \(2, 4\)"):
        BarlowOffDiagonal()(inference(torch.ones(3, 4), torch.ones(2, 4)))


def test_terms_leave_non_finite_numbers_to_the_trainer() -> None:
    """The trainer names the step and the batch: a term must give it the number, not an error of its own."""
    s = torch.full((6, 4), math.nan)
    for terms in (vicreg(), barlow_twins(), sigreg(slices=8), visreg(slices=8)):
        assert math.isnan(total(terms, s, s).item())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vicreg(variance=-1.0), "variance is a weight"),
        (lambda: vicreg(invariance=math.nan), "invariance is a weight"),
        (lambda: vicreg(convention="solo"), "'official' or 'paper', got 'solo'"),  # type: ignore[arg-type]
        (lambda: barlow_twins(off_diagonal=-0.1), "off_diagonal is a weight"),
        (lambda: sigreg(weight=1.5), r"in \[0, 1\], got 1.5"),
        (lambda: sigreg(slices=0), "at least one slice"),
        (lambda: sigreg(knots=1), "at least two knots"),
        (lambda: sigreg(t_max=0.0), "t_max > 0"),
        (lambda: visreg(weight=-0.5), r"in \[0, 1\]"),
        (lambda: visreg(slices=0), "at least one slice"),
    ],
)
def test_constructors_refuse(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_the_gram_side_is_used() -> None:
    """With fewer rows than dimensions nothing of size D x D is made."""
    shapes: list[tuple[int, ...]] = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                shapes.append(tuple(result.shape))
            return result

    s = torch.randn(4, 300, requires_grad=True)
    with Spy():
        (covariance(s) + barlow_off_diagonal(s, s.flip(0))).backward()
    assert (4, 4) in shapes
    assert max(int(np.prod(shape)) for shape in shapes) <= 4 * 300
