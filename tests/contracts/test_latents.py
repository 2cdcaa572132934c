"""What holds for every latent with every minimiser that fits it, under every training principle."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.model.amortize import Amortize, Recognition
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian, GaussianWalk, LowDimensional, Noisy, Sparse
from accord.model.coordinate import Coordinate
from accord.model.descend import Descend
from accord.model.encoder import Encoder
from accord.model.energy import Energy
from accord.model.joint_embedding import JointEmbedding
from accord.model.langevin import Langevin
from accord.model.latent import Latent
from accord.model.markov import Markov, Viterbi
from accord.model.minimize import BestOf, Enumerate, Minimizer
from accord.model.mlp import MLP
from accord.model.newton import steepest
from accord.model.predictor import DictionaryPredictor, MLPPredictor, Predictor
from accord.model.projector import Projector
from accord.model.sparse_coding import Ista, Lista
from accord.model.variational import Variational
from accord.objective.contrastive import info_nce
from accord.objective.principles import barlow_twins, regularized, sigreg, vicreg

DIM, BATCH, FEATURES, ACTION = 5, 6, 7, 2
ADAM = functools.partial(torch.optim.Adam, lr=0.1)


def rows() -> Codebook:
    return Codebook(3, 2, blocks=2)


def conditional() -> ConditionalPrior:
    latent = ConditionalPrior(rows(), DIM, hidden=8)
    nn.init.normal_(latent.net[2].weight, std=0.3)  # type: ignore[arg-type]
    return latent


def net(width: int) -> Recognition:
    return Recognition(DIM, width, action_dim=ACTION)


def variational() -> Minimizer:
    return Variational(net(6))


def lista() -> Minimizer:
    torch.manual_seed(0)
    return Lista(DictionaryPredictor(DIM, 3, action_dim=ACTION), Sparse(3, weight=0.02), 3)


class Case(NamedTuple):
    """What fits together. `attained`: F is E at the argmin. `exact`: no z has a lower E."""

    latent: Callable[[], Latent]
    minimizer: Callable[[], Minimizer]
    attained: bool = True
    exact: bool = False


CODES: dict[str, Callable[[], Latent]] = {"codes": lambda: Codebook(4, 3), "rows": rows, "conditional": conditional}
CASES: dict[str, Case] = {}
for name, latent in CODES.items():
    width = latent().dim
    CASES |= {
        f"{name}, Enumerate": Case(latent, Enumerate, exact=True),
        f"{name}, Enumerate beta": Case(latent, lambda: Enumerate(2.0), attained=False),
        f"{name}, Enumerate chunk": Case(latent, lambda: Enumerate(chunk=50), exact=True),
        f"{name}, Coordinate": Case(latent, Coordinate),
        f"{name}, BestOf": Case(latent, lambda: BestOf(7)),
        f"{name}, BestOf beta": Case(latent, lambda: BestOf(7, beta=2.0), attained=False),
        f"{name}, Amortize": Case(latent, lambda width=width: Amortize(net(width))),
        f"{name}, Amortize refined": Case(
            latent, lambda width=width: Amortize(net(width), refine=Coordinate(restarts=1))
        ),
    }
VECTORS: dict[str, Callable[[], Latent]] = {
    "gaussian": lambda: Gaussian(3),
    "noisy": lambda: Noisy(3, noise=0.1),
    "low": lambda: LowDimensional(3, bound=2.0),
    "sparse": lambda: Sparse(3, weight=0.02),
    "spread": lambda: Sparse(3, weight=0.02, spread=0.5),
}
for name, latent in VECTORS.items():
    CASES |= {
        f"{name}, BestOf": Case(latent, lambda: BestOf(7)),
        f"{name}, Descend": Case(latent, lambda: Descend(4)),
        f"{name}, Descend steepest": Case(latent, lambda: Descend(4, direction=steepest, rate=5.0, chunk=60)),
        f"{name}, Descend Adam": Case(latent, lambda: Descend(4, optimizer=ADAM)),
        f"{name}, Descend unrolled": Case(latent, lambda: Descend(2, direction=steepest, rate=5.0, unroll=True)),
        f"{name}, Amortize": Case(latent, lambda: Amortize(net(3))),
        f"{name}, Amortize refined": Case(latent, lambda: Amortize(net(3), refine=Descend(2, restarts=0))),
    }
    if name != "spread":
        CASES |= {
            f"{name}, BestOf beta": Case(latent, lambda: BestOf(7, beta=2.0), attained=False),
            f"{name}, Langevin": Case(
                latent, lambda: Langevin(2.0, particles=8, temperatures=3, moves=1), attained=False
            ),
        }
CASES |= {
    "gaussian, Variational": Case(VECTORS["gaussian"], variational, attained=False),
    "sparse, Ista": Case(VECTORS["sparse"], lambda: Ista(10)),
    "spread, Ista": Case(VECTORS["spread"], lambda: Ista(10)),
}
LINEAR = {
    "sparse, Fista": Case(VECTORS["sparse"], lambda: Ista(60, accelerated=True)),
    "sparse, Lista": Case(VECTORS["sparse"], lista),
}
SEQUENCES = {
    "markov, Viterbi": Case(lambda: Markov(3, 2), Viterbi, exact=True),
    "markov, Viterbi beta": Case(lambda: Markov(3, 2), lambda: Viterbi(2.0), attained=False),
    "markov, BestOf": Case(lambda: Markov(3, 2), lambda: BestOf(7)),
    "markov, Amortize": Case(lambda: Markov(3, 2), lambda: Amortize(net(2))),
    "walk, Descend": Case(lambda: GaussianWalk(3), lambda: Descend(4)),
    "walk, Descend Adam": Case(lambda: GaussianWalk(3), lambda: Descend(4, optimizer=ADAM)),
    "walk, BestOf beta": Case(lambda: GaussianWalk(3), lambda: BestOf(7, beta=2.0), attained=False),
    "walk, Langevin": Case(lambda: GaussianWalk(3), lambda: Langevin(2.0, particles=8, temperatures=3), attained=False),
}
EVERY = [pytest.param(name, id=name) for name in {**CASES, **LINEAR, **SEQUENCES}]
PAIRS = [pytest.param(name, id=name) for name in {**CASES, **LINEAR}]


def case_of(name: str) -> Case:
    return {**CASES, **LINEAR, **SEQUENCES}[name]


def make(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> JointEmbedding:
    torch.manual_seed(seed)
    encoder = Encoder(MLP(FEATURES, (8,), norm=nn.LayerNorm), Projector(8, DIM, hidden=(), norm=None), sample_ndim=1)
    case = case_of(name)
    latent = case.latent()
    kind = DictionaryPredictor if name in LINEAR else MLPPredictor
    predictor: Predictor = kind(DIM, latent.dim, action_dim=ACTION)
    return JointEmbedding(encoder, encoder, predictor, latent=latent, minimizer=case.minimizer()).to(dtype)


def batch(name: str, dtype: torch.dtype = torch.float64, seed: int = 1) -> Pair:
    axes = (BATCH, 4) if name in SEQUENCES else (BATCH,)
    g = torch.Generator().manual_seed(seed)
    x, y, a = (torch.randn(*axes, w, dtype=torch.float64, generator=g).to(dtype) for w in (FEATURES, FEATURES, ACTION))
    return Pair(x, y, a)


def total(values: Tensor, name: str) -> Tensor:
    """What is minimised: of a sequence the sum over time."""
    return values.sum(-1) if name in SEQUENCES else values


@pytest.mark.parametrize("name", EVERY)
def test_shapes_and_what_has_a_gradient(name: str) -> None:
    model, pair = make(name), batch(name)
    for training in (True, False):
        model.train(training)
        energy = model(*pair[:3])
        value, z = model.minimizer(energy)
        assert value.shape == energy.batch_shape == pair.x.shape[:-1]
        assert z.shape == (*pair.x.shape[:-1], model.latent.dim)
        assert value.isfinite().all()
        assert value.requires_grad
        assert not z.requires_grad
        assert value.dtype == z.dtype == torch.float64
        with torch.no_grad():
            silent = model.minimizer(model(*pair[:3]))
        assert not silent.value.requires_grad
        if not training:
            torch.testing.assert_close(silent.value, value)
        with torch.inference_mode():
            model.minimizer(model(*pair[:3]))


@pytest.mark.parametrize("name", EVERY)
def test_value_is_attained_allowed_and_below_the_energy_of_draws(name: str) -> None:
    model, pair = make(name).eval(), batch(name)
    case, energy = case_of(name), model(*pair[:3])
    value, z = model.minimizer(energy)
    torch.testing.assert_close(model.latent.project(z), z, rtol=1e-9, atol=1e-9)
    if case.attained:
        torch.testing.assert_close(energy(z), value)
    drawn = model.latent.sample((50, *energy.batch_shape), energy.s_x, torch.Generator().manual_seed(0))
    energies = total(energy(drawn), name)
    if case.exact:
        assert (energies >= total(value, name) - 1e-9).all()
    if not isinstance(model.minimizer, BestOf | Amortize | Langevin | Lista) and case.attained:
        assert (energies >= total(value, name) - 1e-9).double().mean() > 0.9
    warm = model.minimizer(energy, start=z)
    if case.attained and not isinstance(model.minimizer, Ista):
        assert (total(warm.value, name) <= total(value, name) + 1e-6).all()


@pytest.mark.parametrize("name", EVERY)
def test_evaluation_repeats_itself_and_leaves_the_generator_alone(name: str) -> None:
    model, pair = make(name).eval(), batch(name)
    state = torch.get_rng_state()
    one, two = (model.free_energy(*pair[:3]) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", PAIRS)
def test_free_energy_is_the_diagonal_of_the_cross_energy_and_independent_of_the_batch(name: str) -> None:
    model, pair = make(name).eval(), batch(name)
    energy = model(*pair[:3])
    whole = model.minimizer(energy)
    cross = model.minimizer(energy.cross())
    assert cross.value.shape == (BATCH, BATCH)
    assert cross.argmin.shape == (BATCH, BATCH, model.latent.dim)
    torch.testing.assert_close(cross.value.diagonal(), whole.value, rtol=1e-6, atol=1e-9)
    assert pair.action is not None
    for i, j in ((0, 1), (4, 2)):
        one = model.free_energy(pair.x[i : i + 1], pair.y[j : j + 1], pair.action[i : i + 1])
        torch.testing.assert_close(cross.value[i, j : j + 1], one, rtol=1e-6, atol=1e-9)
    cross.value.logsumexp(1).sum().backward()  # what a contrastive objective needs


@pytest.mark.parametrize("name", PAIRS)
def test_several_crops_are_a_leading_axis(name: str) -> None:
    model, pair = make(name).eval(), batch(name)
    assert pair.action is not None
    crops = torch.stack([pair.x, 2 * pair.x, -pair.x])
    energy = model(crops, pair.y, pair.action.expand(3, -1, -1))
    value, z = model.minimizer(energy)
    assert value.shape == (3, BATCH)
    assert z.shape == (3, BATCH, model.latent.dim)
    for crop, alone in zip(crops, value, strict=True):
        torch.testing.assert_close(alone, model.minimizer(model(crop, pair.y, pair.action)).value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_single_precision_agrees_with_double(name: str) -> None:
    pair = batch(name)
    values = []
    for dtype in (torch.float64, torch.float32):
        model = make(name).to(dtype).eval()
        energy = model(*batch(name, dtype)[:3])
        value, z = model.minimizer(energy)
        assert value.dtype == z.dtype == dtype
        values.append(value.detach().double())
    assert pair.x.dtype == torch.float64
    loose = isinstance(make(name).minimizer, Langevin | Descend | Ista)
    torch.testing.assert_close(values[1], values[0], rtol=0.2 if loose else 1e-4, atol=0.05 if loose else 1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_saved_and_loaded_gives_the_same_free_energy(name: str, tmp_path: Path) -> None:
    model, other, pair = make(name).eval(), make(name, seed=1).eval(), batch(name)
    expected = model.free_energy(*pair[:3])
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("encoder_y.")}
    save_file(state, tmp_path / "model.safetensors")
    loaded = load_file(tmp_path / "model.safetensors")
    other.load_state_dict(
        loaded | {n: loaded[n.replace("encoder_y", "encoder_x")] for n in other.state_dict() if n not in loaded}
    )
    assert torch.equal(other.free_energy(*pair[:3]), expected)


PRINCIPLES = {"vicreg": vicreg, "sigreg": lambda: sigreg(slices=16), "barlow_twins": barlow_twins, "info_nce": info_nce}
ONE_BATCH_AXIS = ("barlow_twins", "info_nce")


@pytest.mark.parametrize("principle", PRINCIPLES)
@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_every_trainable_parameter_and_no_frozen_one(name: str, principle: str) -> None:
    model, pair = make(name), batch(name)
    frozen = next(model.encoder_x.backbone.parameters())
    frozen.requires_grad_(False)
    if principle in ONE_BATCH_AXIS and name in SEQUENCES:
        pytest.skip("needs one batch axis")
    loss = regularized(model, PRINCIPLES[principle]())(pair)
    assert all(p.grad is None for p in model.parameters()), "inference leaves no gradient behind"
    loss.total.backward()
    assert frozen.grad is None
    uses_f = principle != "barlow_twins"
    for parameter_name, parameter in model.named_parameters():
        if parameter is frozen:
            continue
        if parameter_name.startswith(("predictor", "latent", "minimizer")) and not uses_f:
            continue
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", EVERY)
def test_training_lowers_the_free_energy_it_reports(name: str) -> None:
    """Twenty steps on fixed embeddings: the gradient points the right way for model, latent and network together."""
    model, pair = make(name), batch(name)
    with torch.no_grad():
        s_x, s_y = model.encoder_x(pair.x), 2 * model.encoder_y(pair.y)
    parameters = [p for n, p in model.named_parameters() if not n.startswith("encoder")]
    optimizer = torch.optim.Adam(parameters, lr=0.01)

    def evaluated() -> float:
        with torch.no_grad():
            return float(model.eval().minimizer(model.energy(s_x, s_y, pair.action)).value.mean())

    before = evaluated()
    for _ in range(20):
        model.train()
        optimizer.zero_grad()
        model.minimizer(model.energy(s_x, s_y, pair.action)).value.mean().backward()
        optimizer.step()
    assert evaluated() < before


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(CASES)), st.integers(0, 10**6), st.integers(1, 5), st.floats(0.1, 10))
def test_random_models(name: str, seed: int, count: int, scale: float) -> None:
    """Finite, attained and never below the exact minimum, whatever the weights and the scale of the embeddings."""
    model, case = make(name, seed).eval(), case_of(name)
    g = torch.Generator().manual_seed(seed)
    s_x, s_y, a = (scale * torch.randn(count, w, dtype=torch.float64, generator=g) for w in (DIM, DIM, ACTION))
    energy: Energy = model.energy(s_x, s_y, a)
    value, z = model.minimizer(energy)
    assert value.isfinite().all()
    if case.attained:
        torch.testing.assert_close(energy(z), value)
    if energy.latent.candidates() is not None:
        lowest = Enumerate()(energy).value
        if not math.isinf(getattr(model.minimizer, "beta", math.inf)) and isinstance(model.minimizer, BestOf):
            return  # leaves the price to the prior
        assert (value >= lowest - 1e-9 * scale**2).all()
