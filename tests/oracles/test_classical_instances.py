"""Principal components, k-means, mixtures, sparse coding and probabilistic PCA are instances of the one energy, exactly.

Unconditional: no x. D is a mean over the n dimensions of y, so sums of squares are n times as much and 1/beta = 2 sigma^2 / n.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, sparse_encode
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from accord.model.amortize import Recognition
from accord.model.codebook import Codebook
from accord.model.continuous import Gaussian, LowDimensional, Sparse
from accord.model.coordinate import Coordinate
from accord.model.descend import Descend
from accord.model.encoder import Encoder
from accord.model.energy import Energy, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.langevin import Langevin
from accord.model.latent import Latent
from accord.model.minimize import BestOf, Enumerate, Minimizer
from accord.model.newton import gauss_newton
from accord.model.predictor import DictionaryPredictor, Predictor
from accord.model.sparse_coding import Ista
from accord.model.variational import Variational

N = 5


class Decode(Predictor):
    """The prediction is z itself."""

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
        return z


def data(count: int = 400, seed: int = 0) -> Tensor:
    """Correlated, three clouds, centred."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(N, N, dtype=torch.float64, generator=g)
    centres = 3 * torch.randn(3, N, dtype=torch.float64, generator=g)
    y = torch.randn(count, N, dtype=torch.float64, generator=g) @ mix + centres[torch.arange(count) % 3]
    return y - y.mean(0)


def model(latent: Latent, predictor: Predictor, minimizer: Minimizer) -> JointEmbedding:
    identity = Encoder(nn.Identity())
    return JointEmbedding(identity, identity, predictor, latent=latent, minimizer=minimizer.eval()).double()


def dictionary(w: Tensor) -> DictionaryPredictor:
    predictor = DictionaryPredictor(len(w), w.shape[1], given=False).double()
    with torch.no_grad():
        predictor.directions.copy_(w)
    return predictor


def codebook(codes: Tensor) -> Codebook:
    book = Codebook(*codes.shape).double()
    with torch.no_grad():
        book.table.copy_(codes[None])
    return book


# --- principal components ---


@pytest.mark.parametrize("d", [1, 2, 4])
def test_pca(d: int) -> None:
    """z narrow and free, W orthonormal: z = W'y, F = (|y|^2 - |W'y|^2) / n; at the principal axes the discarded eigenvalues."""
    y = data()
    values, axes = torch.linalg.eigh(y.T @ y / len(y))
    w = axes[:, -d:]
    found = model(LowDimensional(d), dictionary(w), Descend(1, direction=gauss_newton(0.0)))
    f, z = found.minimizer(found(y, y))
    torch.testing.assert_close(z, y @ w, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(f * N, y.square().sum(1) - (y @ w).square().sum(1), rtol=1e-8, atol=1e-9)
    assert f.mean().item() * N == pytest.approx(values[:-d].sum().item(), rel=1e-9)
    reference = PCA(d).fit(y.numpy())
    rebuilt = torch.from_numpy(reference.inverse_transform(reference.transform(y.numpy())))
    torch.testing.assert_close(f * N, (y - rebuilt).square().sum(1))


def test_learning_by_the_energy_finds_the_principal_axes() -> None:
    """Gradient of F in W alone, any W: the optimum is the principal subspace."""
    y = data()
    values = torch.linalg.eigvalsh(y.T @ y / len(y))
    torch.manual_seed(0)
    found = model(
        LowDimensional(2), DictionaryPredictor(N, 2, given=False), Descend(1, direction=gauss_newton(0.0), restarts=0)
    )
    optimizer = torch.optim.Adam(found.predictor.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = found.minimizer(found(y, y)).value.mean()
        loss.backward()
        optimizer.step()
    assert loss.item() * N == pytest.approx(values[:-2].sum().item(), rel=1e-3)


# --- k-means, mixtures ---


def test_k_means() -> None:
    """Alternating z and the mean of each code's y is Lloyd's algorithm: monotone, and it ends where scikit-learn's does."""
    y = data()
    start = y[[1, 5, 9, 20]].clone()
    book = codebook(start)
    found = model(book, Decode(), Enumerate())
    values = []
    for _ in range(100):
        energy = found(y, y)
        minimum = found.minimizer(energy)
        values.append(minimum.value.mean().item())
        index = book.index(minimum.argmin)[:, 0]
        assert torch.equal(index, torch.cdist(y, book.table[0]).argmin(1))
        with torch.no_grad():
            for k in range(4):
                book.table[0, k] = y[index == k].mean(0)
    for before, after in itertools.pairwise(values):
        assert after <= before + 1e-12
    reference = KMeans(4, init=start.numpy(), n_init=1, max_iter=100, tol=0, algorithm="lloyd").fit(y.numpy())
    assert values[-1] * N * len(y) == pytest.approx(reference.inertia_, rel=1e-9)
    np.testing.assert_allclose(book.table[0].detach().numpy(), reference.cluster_centers_, rtol=1e-9)


def test_gradient_descent_on_f_is_k_means_too() -> None:
    """dF/dw_k is 2/n times the sum of w_k - y over its cluster: 0 exactly at Lloyd's fixed points."""
    y = data()
    book = codebook(y[:4])
    found = model(book, Decode(), Enumerate())
    minimum = found.minimizer(found(y, y))
    (gradient,) = torch.autograd.grad(minimum.value.sum(), book.table)
    index = torch.cdist(y, book.table[0]).argmin(1)
    for k in range(4):
        torch.testing.assert_close(gradient[0, k], 2 / N * (book.table[0, k] - y[index == k]).sum(0).detach())


@pytest.mark.parametrize("beta", [0.3, 2.0, 20.0])
def test_spherical_mixture(beta: float) -> None:
    """-log p(y) = beta F + (n/2) log(pi n / beta) of equally likely Gaussians of variance n / (2 beta): only with 1/|Z|."""
    y = data(60)
    codes = y[:4].clone()
    f = model(codebook(codes), Decode(), Enumerate(beta)).free_energy(y, y)
    mixture = GaussianMixture(4, covariance_type="spherical")
    mixture.weights_, mixture.means_ = np.full(4, 0.25), codes.numpy()
    mixture.covariances_ = np.full(4, N / (2 * beta))
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    expected = torch.from_numpy(-mixture.score_samples(y.numpy()))
    torch.testing.assert_close(beta * f + N / 2 * math.log(math.pi * N / beta), expected)


# --- sparse coding ---


def test_sparse_coding() -> None:
    """The lasso of scikit-learn, |y - Wz|^2 / 2 + alpha |z|_1, with alpha = lambda n / 2."""
    y = data(30)
    w = torch.nn.functional.normalize(
        torch.randn(N, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=0
    )
    weight = 0.2
    found = model(Sparse(9, weight=weight), dictionary(w), Ista(6000, accelerated=True))
    f, z = found.minimizer(found(y, y))
    reference = torch.from_numpy(
        sparse_encode(y.numpy(), w.T.numpy(), algorithm="lasso_cd", alpha=weight * N / 2, max_iter=20_000)
    )
    torch.testing.assert_close(f, found(y, y)(reference), rtol=1e-4, atol=1e-6)
    assert ((z == 0) == (reference == 0)).double().mean() > 0.95
    slope = 2 / N * (z @ w.T - y) @ w
    on = z != 0
    torch.testing.assert_close(slope[on], -weight * z[on].sign(), rtol=1e-3, atol=1e-4)
    assert (slope[~on].abs() <= weight + 1e-4).all()


def test_soft_threshold_and_where_nothing_is_left() -> None:
    y = data(30)
    w = torch.linalg.qr(torch.randn(N, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    for weight in (0.05, 0.5):
        z = (
            model(Sparse(3, weight=weight), dictionary(w), Ista(2))
            .minimizer(model(Sparse(3, weight=weight), dictionary(w), Ista())(y, y))
            .argmin
        )
        correlation = y @ w
        torch.testing.assert_close(z, correlation.sign() * (correlation.abs() - weight * N / 2).clamp_min(0))
        assert torch.equal((z == 0).all(1), weight * N / 2 >= correlation.abs().amax(1))


# --- probabilistic PCA, the linear variational auto-encoder ---


def ppca(y: Tensor, w: Tensor, beta: float) -> Tensor:
    covariance = w @ w.T + N / (2 * beta) * torch.eye(N, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(N, dtype=torch.float64), covariance)
    return -(law.log_prob(y) + N / 2 * math.log(math.pi * N / beta)) / beta


def test_every_finite_temperature_method_agrees_on_ppca() -> None:
    """Annealed importance sampling, a trained variational bound (from above) and many plain draws."""
    beta = 4.0
    y = data(40) / 2
    w = 0.9 * torch.linalg.qr(torch.randn(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    expected = ppca(y, w, beta)
    latent, predictor = Gaussian(2, weight=1 / beta), dictionary(w)
    annealed = model(latent, predictor, Langevin(beta, particles=200, temperatures=60)).free_energy(y, y)
    drawn = model(latent, predictor, BestOf(60_000, beta=beta)).free_energy(y, y)
    torch.testing.assert_close(annealed, expected, rtol=0.02, atol=0.03)
    torch.testing.assert_close(drawn, expected, rtol=0.05, atol=0.05)
    torch.manual_seed(0)
    bound = Variational(Recognition(N, 4), samples=8)
    learner = model(latent, predictor, bound).train()
    optimizer = torch.optim.Adam(bound.parameters(), lr=0.01)
    for _ in range(500):
        optimizer.zero_grad()
        learner.minimizer(learner(y, y)).value.mean().backward()
        optimizer.step()
    bound.samples = 4000
    gap = bound.eval()(learner(y, y)).value.detach() - expected
    assert -0.01 < gap.min() < gap.max() < 0.1


def test_map_and_free_energy_of_a_linear_gaussian_model() -> None:
    """min_z is y'(I + W W'/mu)^-1 y / n with mu = n lambda / 2, and the soft minimum adds a constant log-determinant."""
    y = data(40)
    w = 0.8 * torch.nn.functional.normalize(
        torch.randn(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=0
    )
    weight = 0.3
    beta = 1 / weight
    found = model(Gaussian(2, weight=weight), dictionary(w), Descend(1, direction=gauss_newton(0.0)))
    mu = N * weight / 2
    inverse = torch.linalg.inv(torch.eye(N, dtype=torch.float64) + w @ w.T / mu)
    lowest = (y @ inverse * y).sum(1) / N
    torch.testing.assert_close(found.free_energy(y, y), lowest)
    hessian = beta * (2 / N * w.T @ w + weight * torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(ppca(y, w, beta), lowest + torch.logdet(hessian) / (2 * beta))


# --- wells ---


@pytest.mark.parametrize("factor", [0.5, 0.95, 1.05, 3.0])
def test_wells(factor: float) -> None:
    """Two codes at distance L (D summed): two wells iff beta L^2 > 2; the barrier at the middle is L^2 / 4 at every beta."""
    length = 1.7
    p = torch.zeros(2, N, dtype=torch.float64)
    p[1, 0] = length
    t = torch.linspace(-0.2, 1.2, 2801, dtype=torch.float64)[:, None]
    s = (1 - t) * p[0] + t * p[1]
    beta = factor * 2 / length**2
    hard, soft = (N * model(codebook(p), Decode(), Enumerate(b)).free_energy(s, s) for b in (math.inf, N * beta))
    torch.testing.assert_close(hard, length**2 * torch.minimum(t**2, (1 - t) ** 2)[:, 0])
    middle = (t[:, 0] - 0.5).abs().argmin()
    assert hard[middle].item() == pytest.approx(length**2 / 4)
    assert soft[middle].item() == pytest.approx(length**2 / 4)
    slope = soft.diff()
    wells = int(((slope[:-1] < 0) & (slope[1:] > 0)).sum())
    assert wells == (2 if factor > 1 else 1)


# --- all ways to the same minimum ---


class Grid(Latent):
    """All points of a grid in the plane, as draws and as candidates of the same energy as `LowDimensional`."""

    def __init__(self, ticks: int, reach: float):
        super().__init__()
        self.dim = 2
        axis = torch.linspace(-reach, reach, ticks, dtype=torch.float64)
        self.register_buffer("points", torch.cartesian_prod(axis, axis))

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        return torch.zeros_like(z[..., 0])

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        points: Tensor = self.points  # type: ignore[assignment]
        return points[torch.randint(len(points), shape, generator=generator)]

    def candidates(self) -> Tensor:
        return self.points  # type: ignore[return-value]


def test_every_minimiser_agrees_on_a_known_minimum() -> None:
    """min over a square of |y - W z|^2 / n, whose solution lies inside."""
    y = data(20) / 20
    w = torch.linalg.qr(torch.randn(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    exact = (y.square().sum(1) - (y @ w).square().sum(1)) / N
    assert (y @ w).abs().max() < 0.9
    ways: dict[str, tuple[Latent, Minimizer, float]] = {
        "grid": (Grid(61, 1.0), Enumerate(), 4e-4),
        "draws": (LowDimensional(2, bound=1.0), BestOf(20_000), 4e-4),
        "gauss_newton": (LowDimensional(2, bound=1.0), Descend(), 1e-9),
        "adam": (LowDimensional(2, bound=1.0), Descend(400, optimizer=lambda z: torch.optim.Adam(z, lr=0.02)), 1e-6),
        "ista": (Sparse(2, weight=0.0), Ista(5), 1e-9),
    }
    for name, (latent, minimizer, close) in ways.items():
        f = model(latent, dictionary(w), minimizer).free_energy(y, y)
        assert (f >= exact - 1e-9).all(), name
        assert (f - exact).max() < close, name


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_minimisers_of_choices_agree(blocks: int) -> None:
    """Codes on the axes of an orthonormal W: the minimum of each block alone, known in closed form."""
    y = data(30)
    w = torch.linalg.qr(torch.randn(N, blocks, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    book = Codebook(6, 1, blocks=blocks, spread=3.0).double()
    nearest = (y @ w)[..., None] - book.table[:, :, 0]
    exact = (y.square().sum(1) - (y @ w).square().sum(1) + nearest.square().amin(-1).sum(1)) / N
    ways: list[Callable[[], Minimizer]] = [Enumerate, lambda: Coordinate(restarts=1, sweeps=1), lambda: BestOf(6000)]
    for make in ways:
        torch.testing.assert_close(model(book, dictionary(w), make()).free_energy(y, y), exact.detach())


def test_unused_codes_change_f_by_their_share_of_the_average_only() -> None:
    """K codes far from all data leave F_inf alone and raise F_beta by log(2)/beta when they double K: an average, not a sum."""
    y = data(20)
    codes = y[:4].clone()
    far = torch.cat([codes, codes + 1e4])
    hard = [model(codebook(c), Decode(), Enumerate()).free_energy(y, y) for c in (codes, far)]
    torch.testing.assert_close(*hard)
    soft = [model(codebook(c), Decode(), Enumerate(3.0)).free_energy(y, y) for c in (codes, far)]
    torch.testing.assert_close(soft[1], soft[0] + math.log(2) / 3)


def test_energy_is_what_it_says() -> None:
    """E of a few points by hand: D is a mean over dimensions, R is lambda times nats."""
    y = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    energy = Energy(
        y,
        y,
        predictor=dictionary(torch.eye(2, dtype=torch.float64)),
        cost=squared_error,
        latent=Gaussian(2, weight=0.5).double(),
    )
    z = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    assert energy(z).item() == ((1 - 3) ** 2 + 2**2) / 2 + 0.5 * (3**2 / 2)
