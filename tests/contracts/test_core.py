"""What holds for every energy, latent and minimiser: shapes, identities of free energies, gradients, saving.

A latent of non-zero width is defined here from the public interface alone: models with one must need nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.encoder import Encoder
from accord.model.energy import Energy, cosine, smooth_l1, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Deterministic, Latent
from accord.model.matching import LocalMatching
from accord.model.minimize import Enumerate, soft_minimum
from accord.model.mlp import MLP
from accord.model.predictor import IdentityPredictor, MLPPredictor, Predictor
from accord.model.projector import Projector
from accord.objective.contrastive import (
    align_uniform,
    dcl,
    info_nce,
    logistic,
    siamese,
    siglip,
    spectral,
    square_square,
    triplet,
)
from accord.objective.loss import Inference, Objective, free_energy
from accord.objective.negatives import Mined, Sampled
from accord.objective.principles import (
    barlow_twins,
    coding_rate,
    mmcr,
    rdmreg,
    regularized,
    sigreg,
    vicreg,
    vicregl,
    visreg,
)

DIM, BATCH, LATENT = 5, 6, 3


class Codes(Latent):
    """K learned codes; the price of one depends on it and on x."""

    def __init__(self, k: int, dim: int):
        super().__init__()
        self.dim = dim
        self.codes = nn.Parameter(torch.randn(k, dim))
        self.rate = nn.Parameter(torch.tensor(0.2))

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        return self.rate.square() * z.square().sum(-1) * (1 + s_x.square().mean(-1))

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.codes[torch.randint(len(self.codes), shape, generator=generator)]

    def candidates(self) -> Tensor:
        return self.codes


class Continuous(Latent):
    """Not countable."""

    dim = LATENT

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        return z.square().sum(-1)

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, self.dim, generator=generator)


class Decode(Predictor):
    """The prediction is z itself: energies in closed form."""

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
        return z


def summed(s_y_hat: Tensor, s_y: Tensor) -> Tensor:
    return (s_y_hat - s_y).square().sum(-1)


def make(
    k: int = 4, *, beta: float = math.inf, action_dim: int = 0, shared: bool = True, seed: int = 0
) -> JointEmbedding:
    torch.manual_seed(seed)
    first = Encoder(MLP(7, (8,), norm=nn.LayerNorm), Projector(8, DIM, hidden=(), norm=None))
    second = first if shared else Encoder(MLP(9, (11,), norm=nn.LayerNorm), Projector(11, DIM, hidden=(4,), norm=None))
    latent = Codes(k, LATENT) if k else Deterministic()
    predictor = MLPPredictor(DIM, latent.dim, action_dim=action_dim)
    return JointEmbedding(first, second, predictor, latent=latent, minimizer=Enumerate(beta)).double()


def batch(shared: bool = True, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    widths = (7, 7 if shared else 9, 2)
    x, y, action = (torch.randn(BATCH, w, dtype=torch.float64, generator=g) for w in widths)
    return x, y, action


MODELS = [
    pytest.param(k, beta, action_dim, id=f"{k} codes, beta {beta}, action {action_dim}")
    for k, beta, action_dim in [(0, math.inf, 0), (4, math.inf, 0), (4, 2.0, 0), (0, math.inf, 2), (4, 0.5, 2)]
]


# --- F and its energy ---


@pytest.mark.parametrize(("k", "beta", "action_dim"), MODELS)
def test_free_energy_is_the_diagonal_of_the_cross_energy(k: int, beta: float, action_dim: int) -> None:
    model = make(k, beta=beta, action_dim=action_dim)
    x, y, action = batch()
    a = action if action_dim else None
    energy = model(x, y, a)
    cross = model.minimizer(energy.cross())
    assert cross.value.shape == (BATCH, BATCH)
    assert cross.argmin.shape == (BATCH, BATCH, model.latent.dim)
    minimum = model.minimizer(energy)
    torch.testing.assert_close(cross.value.diagonal(), minimum.value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cross.argmin.diagonal().mT, minimum.argmin)
    for i, j in [(0, 1), (4, 2)]:  # rows x (and its action), columns y
        one = model.free_energy(x[i : i + 1], y[j : j + 1], None if a is None else a[i : i + 1])
        assert cross.value[i, j].item() == pytest.approx(one.item(), rel=1e-12)
    some = model.minimizer(energy.cross(slice(1, 3))).value
    torch.testing.assert_close(some, cross.value[1:3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("k", "beta", "action_dim"), MODELS)
def test_minimum_is_attained_and_below_every_energy(k: int, beta: float, action_dim: int) -> None:
    model = make(k, action_dim=action_dim)
    x, y, action = batch()
    energy = model(x, y, action if action_dim else None)
    minimum = model.minimizer(energy)
    assert minimum.value.shape == (BATCH,)
    assert minimum.argmin.shape == (BATCH, model.latent.dim)
    assert not minimum.argmin.requires_grad
    torch.testing.assert_close(energy(minimum.argmin), minimum.value, rtol=1e-12, atol=1e-12)
    z = model.latent.sample((20, BATCH), energy.s_x, torch.Generator().manual_seed(0))
    assert (energy(z) >= minimum.value - 1e-12).all()
    soft = Enumerate(beta)(energy)
    assert (soft.value >= minimum.value - 1e-12).all()
    torch.testing.assert_close(soft.argmin, minimum.argmin)


def test_shapes_with_sample_axes() -> None:
    model = make()
    x, y, _ = batch()
    energy = model(x, y)
    z = model.latent.sample((2, 3, BATCH), energy.s_x)
    values = energy(z)
    assert values.shape == (2, 3, BATCH)
    assert energy.predict(z).shape == (2, 3, BATCH, DIM)
    torch.testing.assert_close(values[1, 2], energy(z[1, 2]))
    shared_z = z[:, :, :1]  # the same z for every pair
    torch.testing.assert_close(energy(shared_z), energy(shared_z.expand(2, 3, BATCH, LATENT)))
    assert energy.cross()(z[0, :, :1, None]).shape == (3, BATCH, BATCH)


def energies(seed: int = 0) -> Tensor:
    return torch.randn(7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 2


def test_soft_minimum_limits_and_bounds() -> None:
    e = energies()
    torch.testing.assert_close(soft_minimum(e, 1e-7), e.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(soft_minimum(e, 1e6), e.min(0).values, rtol=1e-5, atol=1e-5)
    ladder = torch.stack([soft_minimum(e, beta) for beta in (0.01, 0.1, 1.0, 3.0, 10.0, 100.0)])
    assert (ladder.diff(dim=0) <= 1e-12).all()  # falls as beta grows
    upper = torch.minimum(e.mean(0), e.min(0).values + math.log(7) / 3.0)
    assert (soft_minimum(e, 3.0) <= upper + 1e-12).all()
    assert (soft_minimum(e, 3.0) >= e.min(0).values).all()


def test_soft_minimum_identities() -> None:
    e, beta = energies(), 1.7
    f = soft_minimum(e, beta)
    torch.testing.assert_close(soft_minimum(e.repeat(3, 1), beta), f)  # duplicated codes: an average, not a sum
    torch.testing.assert_close(soft_minimum(2.5 * e, beta / 2.5), 2.5 * f)
    offset = torch.arange(10.0, dtype=torch.float64)
    torch.testing.assert_close(soft_minimum(e + offset, beta), f + offset)
    q = torch.softmax(-beta * e, dim=0)
    kl = (q * (q * 7).log()).sum(0)
    torch.testing.assert_close((q * e).sum(0) + kl / beta, f)
    assert soft_minimum(torch.full((3, 2), 1e4), 100.0).tolist() == [1e4, 1e4]  # no overflow


@pytest.mark.parametrize("beta", [math.inf, 2.0])
def test_duplicate_codes_change_nothing(beta: float) -> None:
    model = make(4, beta=beta)
    x, y, _ = batch()
    before = model.free_energy(x, y)
    assert isinstance(model.latent, Codes)
    model.latent.codes = nn.Parameter(model.latent.codes.detach().repeat(2, 1))
    torch.testing.assert_close(model.free_energy(x, y), before)


# --- closed forms ---


def decoder(codes: Tensor, beta: float = math.inf) -> JointEmbedding:
    latent = Codes(len(codes), codes.shape[1])
    with torch.no_grad():
        latent.codes.copy_(codes)
        latent.rate.zero_()
    identity = Encoder(nn.Identity())
    return JointEmbedding(identity, identity, Decode(), cost=summed, latent=latent, minimizer=Enumerate(beta)).double()


def test_k_means_and_spherical_mixture() -> None:
    """F is the distance to the nearest code; at finite beta it is a mixture of Gaussians of variance 1 / (2 beta)."""
    codes = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    distances = torch.cdist(y, codes).square()
    torch.testing.assert_close(decoder(codes).free_energy(y, y), distances.min(1).values)
    minimum = decoder(codes).minimizer(decoder(codes)(y, y))
    torch.testing.assert_close(minimum.argmin, codes[distances.argmin(1)])
    beta = 0.8
    gaussian = torch.distributions.MultivariateNormal(codes, torch.eye(3, dtype=torch.float64) / (2 * beta))
    negative_log_p = -(gaussian.log_prob(y[:, None]).logsumexp(1) - math.log(4))
    f = decoder(codes, beta).free_energy(y, y)
    torch.testing.assert_close(beta * f + 1.5 * math.log(math.pi / beta), negative_log_p)


def test_energy_wells() -> None:
    """Between two codes at distance L: F = L^2 min(t^2, (1-t)^2), barrier L^2/4 at every beta, two wells iff beta L^2 > 2."""
    length = 1.5
    codes = torch.tensor([[0.0, 0.0], [length, 0.0]], dtype=torch.float64)
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    y = torch.stack([length * t, 0 * t], dim=1)
    f = decoder(codes).free_energy(y, y)
    torch.testing.assert_close(f, length**2 * torch.minimum(t**2, (1 - t) ** 2))
    for factor, wells in [(0.8, 1), (1.0, 1), (1.3, 2), (4.0, 2)]:
        f = decoder(codes, factor * 2 / length**2).free_energy(y, y)
        assert f[200].item() == pytest.approx(length**2 / 4, rel=1e-12)
        slope = f.diff().sign()
        assert int(((slope[:-1] < 0) & (slope[1:] > 0)).sum() + (slope[0] > 0) + (slope[-1] < 0)) == wells


# --- gradients ---


def gradients(value: Tensor, model: nn.Module) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(model.parameters()), retain_graph=True, allow_unused=True)
    return {n: g for (n, _), g in zip(model.named_parameters(), found, strict=True) if g is not None}


@pytest.mark.parametrize(("k", "beta", "action_dim"), MODELS)
def test_envelope_theorem(k: int, beta: float, action_dim: int) -> None:
    """dF is dE at the minimiser; at finite beta, the average of dE under the Gibbs distribution."""
    model = make(k, beta=beta, action_dim=action_dim)
    x, y, action = batch()
    energy = model(x, y, action if action_dim else None)
    candidates = model.latent.candidates()
    assert candidates is not None
    every = energy(candidates[:, None].expand(-1, BATCH, -1))
    q = torch.softmax(-1e6 * every.detach() if math.isinf(beta) else -beta * every.detach(), dim=0)
    expected = gradients((q * every).sum(), model)
    actual = gradients(model.minimizer(energy).value.sum(), model)
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    model = make(4, beta=1.3)
    x, y, _ = batch()
    (parameter,) = (p for n, p in model.named_parameters() if n == "latent.codes")
    (gradient,) = torch.autograd.grad(model.minimizer(model(x, y)).value.sum(), parameter)
    step = 1e-6
    for i, j in [(0, 0), (3, 2)]:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[i, j] += sign * step
                values.append(model.free_energy(x, y).sum().item())
                parameter[i, j] -= sign * step
        assert gradient[i, j].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8)


PRINCIPLES = {
    "vicreg": vicreg,
    "paper": lambda: vicreg(convention="paper"),
    "vicregl": vicregl,
    "barlow_twins": barlow_twins,
    "sigreg": lambda: sigreg(slices=16),
    "visreg": lambda: visreg(slices=16),
    "mmcr": mmcr,
    "coding_rate": coding_rate,
    "rdmreg": lambda: rdmreg(slices=16),
    "info_nce": info_nce,
    "info_nce within": lambda: info_nce(within=True),
    "info_nce, sampled": lambda: info_nce(negatives=Sampled(3)),
    "dcl": dcl,
    "siglip": siglip,
    "triplet": lambda: triplet(margin=9.0, by_distance=1.0),
    "triplet, mined": lambda: triplet(margin=9.0, negatives=Mined(2)),
    "siamese": lambda: siamese(margin=9.0),
    "square_square": square_square,
    "logistic": logistic,
    "spectral": spectral,
    "align_uniform": align_uniform,
}


COSTS = {"vicregl": LocalMatching(1, positions=2, matches=1)}
"""Of principles that are made for another than the squared error."""


@pytest.mark.parametrize("principle", PRINCIPLES)
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_reach_every_parameter_and_no_frozen_one(principle: str, shared: bool) -> None:
    """Of an encoder and, where the principle uses F, of a predictor and a latent (with finite beta all codes take part)."""
    model = make(4, beta=1.0, shared=shared)
    model.cost = COSTS.get(principle, squared_error)
    terms = PRINCIPLES[principle]()
    frozen = model.encoder_y.projector
    if not shared:
        frozen.requires_grad_(False)
    x, y, _ = batch(shared)
    loss = regularized(model, terms)(Pair(x, y))
    loss.total.backward()
    assert set(loss.terms) == set(terms)
    assert loss.total.item() == pytest.approx(sum(w * loss.terms[n].item() for n, (w, _) in terms.items()), rel=1e-10)
    assert not any(value.requires_grad for value in loss.terms.values())
    unused = {"barlow_twins": ("predictor", "latent"), "mmcr": ("latent",)}.get(principle, ())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif not name.startswith(unused or "-"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


# --- encoders ---


def test_shared_encoder_is_one_set_of_parameters() -> None:
    one, two = make(shared=True), make(shared=False)
    assert one.encoder_x is one.encoder_y
    assert not [name for name, _ in one.named_parameters() if name.startswith("encoder_y")]
    assert [name for name, _ in two.named_parameters() if name.startswith("encoder_y")]
    x, y, _ = batch()
    value = one.minimizer(one(x, y)).value.sum()
    through_both = gradients(value, one)["encoder_x.backbone.net.0.weight"]
    s_x, s_y = one.encoder_x(x), one.encoder_y(y)
    halves = [one.minimizer(one.energy(*pair)).value.sum() for pair in ((s_x, s_y.detach()), (s_x.detach(), s_y))]
    parts = [gradients(half, one)["encoder_x.backbone.net.0.weight"] for half in halves]
    torch.testing.assert_close(through_both, parts[0] + parts[1])


def test_plain_modules_are_wrapped_once() -> None:
    backbone = nn.Linear(7, DIM).double()
    model = JointEmbedding(backbone, backbone, IdentityPredictor())
    assert model.encoder_x is model.encoder_y
    x, y, _ = batch()
    torch.testing.assert_close(model.free_energy(x, y), (backbone(x) - backbone(y)).square().mean(-1))


def test_crops_are_a_leading_axis() -> None:
    """Several crops of x against one y: F has the axes of both, each as if alone."""
    torch.manual_seed(0)
    encoder = Encoder(nn.Sequential(nn.Flatten(), nn.LazyLinear(8)), nn.Linear(8, DIM), sample_ndim=3)
    encoder(torch.zeros(1, 2, 4, 4))
    model = JointEmbedding(encoder, encoder, MLPPredictor(DIM, LATENT), latent=Codes(3, LATENT))
    crops, y = torch.randn(4, BATCH, 2, 4, 4), torch.randn(BATCH, 2, 4, 4)
    assert encoder.features(crops).shape == (4, BATCH, 8)
    value = model.free_energy(crops, y)
    assert value.shape == (4, BATCH)
    for crop in range(4):
        torch.testing.assert_close(value[crop], model.free_energy(crops[crop], y), rtol=1e-5, atol=1e-6)
    for terms in (vicreg(), sigreg(slices=8), visreg(slices=8), barlow_twins(), info_nce(within=True), align_uniform()):
        many = regularized(model, terms)(Pair(crops, y))
        assert many.total.ndim == 0
        assert torch.isfinite(many.total)
    assert encoder(crops[0, 0]).shape == (DIM,)  # no batch axis at all
    assert encoder(crops[:, :0]).shape == (4, 0, DIM)  # an empty batch


def test_a_backbone_that_does_not_pool_is_named() -> None:
    with pytest.raises(UsageError, match=r"Conv2d must return \(batch, feature\), it made \(2, 3, 8, 8\)"):
        Encoder(nn.Conv2d(1, 3, 1))(torch.zeros(2, 1, 8, 8))
    with pytest.raises(UsageError, match="sample_ndim"):
        Encoder(nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, -1))))(torch.zeros(2, 5))


# --- saving ---


@pytest.mark.parametrize(("k", "beta", "action_dim"), MODELS)
def test_saved_and_loaded_gives_the_same_free_energy(k: int, beta: float, action_dim: int, tmp_path: Path) -> None:
    x, y, action = batch()
    a = action if action_dim else None
    model, other = (make(k, beta=beta, action_dim=action_dim, seed=seed) for seed in (0, 1))
    expected = model.free_energy(x, y, a)
    assert not torch.allclose(other.free_energy(x, y, a), expected)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder_y.")}
    save_file(state, tmp_path / "model.safetensors")
    loaded = load_file(tmp_path / "model.safetensors")
    other.load_state_dict(
        loaded | {n: loaded[n.replace("encoder_y", "encoder_x")] for n in other.state_dict() if n not in loaded}
    )
    assert torch.equal(other.free_energy(x, y, a), expected)


def test_an_objective_saves_the_state_of_its_terms() -> None:
    x, y, _ = batch()
    first, second = regularized(make(), sigreg(slices=8)), regularized(make(), sigreg(slices=8))
    for _ in range(3):
        first(Pair(x, y))
    assert {n for n in first.state_dict() if not n.startswith("model")} == {"stateful_terms.sigreg.slices.step"}
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(Pair(x, y)).total, second(Pair(x, y)).total)


# --- objective ---


def test_objective_is_the_weighted_sum_and_never_sees_labels() -> None:
    model = make()
    x, y, _ = batch()
    seen: list[Inference] = []

    def spread(inference: Inference) -> Tensor:
        seen.append(inference)
        return inference.energy.s_x.var()

    objective = Objective(model, {"free_energy": (2.0, free_energy), "spread": (-3.0, spread)})
    loss = objective(Pair(x, y, label=torch.zeros(BATCH)))
    value, s = model.minimizer(model(x, y)).value.mean(), model.encoder_x(x)
    assert loss.total.item() == pytest.approx(2 * value.item() - 3 * s.var().item(), rel=1e-10)
    assert len(seen) == 1
    assert not torch.equal(loss.total, objective(Pair(y, x)).total)
    assert torch.equal(loss.total, objective(Pair(x, y, label=torch.ones(BATCH))).total)
    assert regularized(model).terms.keys() == {"free_energy", "variance", "covariance"}


# --- costs ---


@pytest.mark.parametrize(
    ("cost", "formula"),
    [
        (squared_error, lambda a, b: sum((u - v) ** 2 for u, v in zip(a, b, strict=True)) / len(a)),
        (
            smooth_l1,
            lambda a, b: (
                sum(0.5 * (u - v) ** 2 if abs(u - v) < 1 else abs(u - v) - 0.5 for u, v in zip(a, b, strict=True))
                / len(a)
            ),
        ),
        (
            cosine,
            lambda a, b: 1 - sum(u * v for u, v in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b),
        ),
    ],
)
def test_costs(cost: Callable[[Tensor, Tensor], Tensor], formula: Callable[[list[float], list[float]], float]) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (2 * torch.randn(n, 1, 5, dtype=torch.float64, generator=g) for n in (3, 4))
    values = cost(a, b[:, 0])  # (3, 1, 5) and (4, 5)
    assert values.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert values[i, j].item() == pytest.approx(formula(a[i, 0].tolist(), b[j, 0].tolist()), rel=1e-12)
    torch.testing.assert_close(cost(a, a), torch.zeros(3, 1, dtype=torch.float64))
    half = cost(a.half(), b[:, 0].half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), values, rtol=1e-2, atol=1e-2)


def test_cosine_of_a_zero_vector() -> None:
    zero = torch.zeros(1, 3, requires_grad=True)
    value = cosine(zero, torch.ones(1, 3))
    value.sum().backward()
    assert value.item() == 1
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()


# --- refusals ---


def test_refusals() -> None:
    x, y, _ = batch()
    model = make()
    with pytest.raises(UsageError, match="Continuous is not countable"):
        Enumerate()(Energy(x, y, predictor=IdentityPredictor(), cost=squared_error, latent=Continuous()))
    for beta in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="number > 0"):
            Enumerate(beta)
    with pytest.raises(UsageError, match="at least one term"):
        Objective(model, {})
    with pytest.raises(UsageError, match=r"one batch axis, got s_x \(2, 6, 5\)"):
        model.energy(torch.zeros(2, 6, 5), torch.zeros(6, 5)).cross()
    lopsided = Energy(torch.zeros(6, 1), y, predictor=IdentityPredictor(), cost=squared_error, latent=Deterministic())
    with pytest.raises(UsageError, match="makes 1 dimensions, the embedding of y has 7"):
        Enumerate()(lopsided)
