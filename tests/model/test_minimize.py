"""Enumerate and BestOf: exact against loops, whatever the chunk; memory; gradients; annealing; randomness."""

from __future__ import annotations

import math
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from accord.errors import UsageError
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian, GaussianWalk, LowDimensional, Sparse
from accord.model.energy import Cost, Energy, smooth_l1, squared_error
from accord.model.latent import Latent
from accord.model.markov import Markov
from accord.model.minimize import BestOf, Enumerate, Minimizer, draws
from accord.model.predictor import MLPPredictor

DIM = 4


def make(
    latent: Latent, *x: int, y: tuple[int, ...] | None = None, cost: Cost = squared_error, seed: int = 0
) -> Energy:
    torch.manual_seed(seed)
    s_x, s_y = (
        torch.randn(*shape, DIM, dtype=torch.float64, requires_grad=True) for shape in (x, x if y is None else y)
    )
    return Energy(s_x, s_y, predictor=MLPPredictor(DIM, latent.dim).double(), cost=cost, latent=latent.double())


def conditional() -> ConditionalPrior:
    prior = ConditionalPrior(Codebook(3, 2, blocks=2), DIM, weight=0.5, hidden=8)
    nn.init.normal_(prior.net[2].weight)  # type: ignore[arg-type]
    return prior


LATENTS = {"codes": lambda: Codebook(7, 2), "rows": lambda: Codebook(3, 2, blocks=2), "conditional": conditional}
SHAPES: dict[str, Any] = {"pairs": (5,), "sequences": (3, 2), "none": (), "empty": (0,), "crops": (5,), "cross": (5,)}


def shaped(name: str, latent: Latent, cost: Cost = squared_error) -> Energy:
    energy = make(latent, *SHAPES[name], y=(3, 5) if name == "crops" else None, cost=cost)
    return energy.cross() if name == "cross" else energy


def by_loop(energy: Energy) -> Tensor:
    """E of each candidate for each pair, one at a time."""
    candidates = energy.latent.candidates()
    assert candidates is not None
    return torch.stack([energy(z.expand(*energy.batch_shape, -1)) for z in candidates])


def gradients(value: Tensor, energy: Energy) -> list[Tensor]:
    modules = [energy.predictor, energy.latent]
    leaves = [p for m in modules for p in m.parameters()]
    sources = [s if s.is_leaf else s._base for s in (energy.s_x, energy.s_y)]
    found = torch.autograd.grad(value, [*leaves, *[s for s in sources if s is not None]], allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


@pytest.mark.parametrize("beta", [math.inf, 2.0])
@pytest.mark.parametrize("cost", [squared_error, smooth_l1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("latent", LATENTS)
def test_enumerate_is_the_loop_for_every_chunk(latent: str, shape: str, cost: Cost, beta: float) -> None:
    energy = shaped(shape, LATENTS[latent](), cost)
    every = by_loop(energy)
    k = len(every)
    exact = every.min(0).values if math.isinf(beta) else -(torch.logsumexp(-beta * every, 0) - math.log(k)) / beta
    weight = torch.linspace(0.5, 2, max(1, exact.numel()), dtype=torch.float64)[: exact.numel()].view(exact.shape)
    expected = gradients((weight * exact).sum(), energy)
    candidates = energy.latent.candidates()
    assert candidates is not None
    for chunk in (1, 13, 60, 1 << 22):
        minimum = Enumerate(beta, chunk=chunk)(energy)
        assert minimum.value.shape == energy.batch_shape
        torch.testing.assert_close(minimum.value, exact, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(minimum.argmin, candidates.detach()[every.argmin(0)])
        for one, two in zip(gradients((weight * minimum.value).sum(), energy), expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(Enumerate(beta, chunk=chunk)(energy).value, exact, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(Enumerate(chunk=chunk).energies(energy), every, rtol=1e-11, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.01, 50), st.integers(1, 400))
def test_free_energies_are_ordered(seed: int, codes: int, beta: float, chunk: int) -> None:
    """F_inf <= F_beta <= min(mean, F_inf + log K / beta), for random models."""
    torch.manual_seed(seed)
    energy = make(Codebook(codes, 3, spread=2.0), 4, seed=seed)
    every = by_loop(energy)
    hard, soft = (Enumerate(b, chunk=chunk)(energy).value for b in (math.inf, beta))
    torch.testing.assert_close(hard, every.min(0).values)
    assert (soft >= hard - 1e-9).all()
    assert (soft <= torch.minimum(every.mean(0), hard + math.log(codes) / beta) + 1e-9).all()
    assert (Enumerate(beta * 1.5)(energy).value <= soft + 1e-9).all()
    drawn = energy.latent.sample((20, 4), energy.s_x)
    assert (energy(drawn) >= hard - 1e-9).all()


class Peak(TorchDispatchMode):
    """The most bytes of tensors made inside that lived at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, Tensor):
                self._watch(t.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.seen:
            return
        self.seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)

        def gone() -> None:
            self.now -= size
            self.seen.discard(key)

        weakref.finalize(storage, gone)


def peak(minimizer: Minimizer, energy: Energy, *, backward: bool) -> int:
    with Peak() as memory:
        if backward:
            minimizer(energy).value.sum().backward()
        else:
            with torch.no_grad():
                minimizer(energy)
    return memory.most


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("beta", [math.inf, 2.0])
def test_memory_does_not_grow_with_the_codes(beta: float, backward: bool) -> None:
    """Every x with every y: beside the results (n m values, numbers and z) a few chunks, for 6 codes as for 60."""
    peaks = {}
    for codes in (6, 60):
        energy = make(Codebook(codes, 1), 64).cross()
        peaks[codes] = peak(Enumerate(beta, chunk=64 * 64), energy, backward=backward)
    assert peaks[60] <= 1.5 * peaks[6]
    without_chunks = peak(Enumerate(beta, chunk=1 << 30), make(Codebook(60, 1), 64).cross(), backward=backward)
    assert without_chunks > 3 * peaks[60], "the measure must be able to fail"


def test_memory_of_the_winner_is_bounded_too() -> None:
    """More codes than y: the winners have one prediction for each pair, made in pieces."""
    energy = make(Codebook(80, 1), 64).cross()
    small, large = (peak(Enumerate(chunk=chunk), energy, backward=True) for chunk in (4096, 1 << 30))
    assert small < large / 3


# --- duplicates, temperature ---


@pytest.mark.parametrize("beta", [math.inf, 0.7])
@pytest.mark.parametrize("shape", ["pairs", "cross"])
def test_duplicate_codes_change_nothing(beta: float, shape: str) -> None:
    book = Codebook(5, 2)
    energy = shaped(shape, book)
    before = Enumerate(beta)(energy).value
    book.table = nn.Parameter(book.table.detach().repeat(1, 3, 1))
    for chunk in (20, 1 << 22):
        torch.testing.assert_close(Enumerate(beta, chunk=chunk)(energy).value, before)


def test_limits_of_temperature() -> None:
    energy = make(Codebook(6, 2), 5)
    every = by_loop(energy)
    torch.testing.assert_close(Enumerate(1e-8)(energy).value, every.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(Enumerate(1e7)(energy).value, every.min(0).values, rtol=1e-5, atol=1e-6)


def test_annealing_rises_while_training_only() -> None:
    minimizer = Enumerate(50.0, anneal=(0.5, 0.8))
    seen = []
    for progress in (0.0, 0.2, 0.4, 0.6, 0.79, 0.8, 0.95):
        minimizer.before_step(progress)
        seen.append(minimizer.beta_now)
    assert seen == sorted(seen)
    assert seen[0] == 0.5
    assert seen[2] == pytest.approx(5.0)  # geometric: half way is the geometric mean
    assert seen[-2:] == [50.0, 50.0]
    minimizer.before_step(0.0)
    assert minimizer.eval().beta_now == 50.0
    hard = Enumerate(anneal=(0.5, 0.8))
    hard.before_step(0.7999999)
    assert hard.beta_now == pytest.approx(500, rel=1e-3)
    hard.before_step(0.8)
    assert math.isinf(hard.beta_now)
    for wrong in ((0.0, 0.5), (1.0, 0.0), (1.0, 1.5), (math.inf, 0.5)):
        with pytest.raises(UsageError, match=r"anneal|beta"):
            Enumerate(anneal=wrong)


# --- best of draws ---


def test_best_of_is_the_lowest_of_its_draws_in_every_shape() -> None:
    for shape in SHAPES:
        energy = shaped(shape, Gaussian(2, weight=0.2))
        minimizer = BestOf(9, seed=4).eval()
        z = draws(energy, 9, 4)
        every = torch.stack([energy(one.expand(*energy.batch_shape, 2)) for one in z])
        for chunk in (1, 50, 1 << 22):
            minimizer.chunk = chunk
            minimum = minimizer(energy)
            torch.testing.assert_close(minimum.value, every.min(0).values)
            torch.testing.assert_close(energy(minimum.argmin), minimum.value)


def test_draws_of_a_pair_do_not_depend_on_the_batch() -> None:
    for latent in (Gaussian(2), Codebook(4, 2), conditional()):
        energy = make(latent, 6)
        for minimizer in (BestOf(5).eval(), BestOf(5, beta=2.0).eval()):
            whole = minimizer(energy).value
            part = minimizer(energy.part(slice(2, 3))).value
            torch.testing.assert_close(whole[2:3], part)
            torch.testing.assert_close(minimizer(energy.cross()).value.diagonal(), whole)


def test_draws_are_fresh_in_training_and_follow_torch_seed() -> None:
    energy = make(Gaussian(2), 6)
    minimizer = BestOf(5)
    first, second = minimizer(energy).value, minimizer(energy).value
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    third = minimizer(energy).value
    torch.manual_seed(3)
    assert torch.equal(minimizer(energy).value, third)
    minimizer.eval()
    state = torch.get_rng_state()
    assert torch.equal(minimizer(energy).value, minimizer(energy).value)
    assert torch.equal(torch.get_rng_state(), state), "evaluation leaves torch's generator alone"


def test_best_of_all_codes_is_enumerate() -> None:
    energy = make(Codebook(3, 2), 6)
    torch.testing.assert_close(BestOf(200).eval()(energy).value, Enumerate()(energy).value)


def test_best_of_approaches_the_average_over_the_prior() -> None:
    """F with prior over a learned, conditional prior: -log sum_k p_k exp(-beta D_k) / beta, value and gradient."""
    latent, beta = conditional(), 3.0
    energy = make(latent, 4)
    codes = energy.latent.candidates()
    assert codes is not None
    z = codes[:, None].expand(-1, 4, -1)
    exact = -torch.logsumexp(-beta * energy.divergence(z) - latent.price(z, energy.s_x), 0) / beta
    found = BestOf(40_000, beta=beta).eval()(energy).value
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.003)
    parameters = [latent.net[2].bias, latent.codebook.table]
    for one, two in zip(
        *(torch.autograd.grad(v.sum(), parameters, retain_graph=True) for v in (found, exact)),  # type: ignore[arg-type]
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=0.05, atol=0.01)


def test_a_warm_start_is_one_more_candidate() -> None:
    energy = make(Gaussian(2, weight=0.0), 6)
    minimizer = BestOf(4).eval()
    plain = minimizer(energy)
    best = BestOf(3000).eval()(energy).argmin
    warm = minimizer(energy, start=best)
    assert (warm.value <= plain.value + 1e-12).all()
    torch.testing.assert_close(warm.value, torch.minimum(plain.value, energy(best)))


def test_a_sequence_is_one_draw() -> None:
    energy = make(GaussianWalk(2), 3, 7)
    minimum = BestOf(11, seed=2).eval()(energy)
    z = draws(energy, 11, 2)
    assert z.shape == (11, 1, 7, 2)
    totals = energy(z.expand(11, 3, 7, 2)).sum(-1)
    torch.testing.assert_close(minimum.value.sum(-1), totals.min(0).values)
    beta = 0.8
    soft = BestOf(11, beta=beta, seed=2).eval()(energy).value
    costs = energy.divergence(z.expand(11, 3, 7, 2)).sum(-1)
    torch.testing.assert_close(soft.sum(-1), -(torch.logsumexp(-beta * costs, 0) - math.log(11)) / beta)
    markov = make(Markov(3, 2), 3, 7)
    assert (BestOf(5)(markov).value.sum(-1) >= 0).all()


def test_refusals() -> None:
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(UsageError, match="whole number"):
            BestOf(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="number > 0"):
        BestOf(3, beta=0.0)
    with pytest.raises(UsageError, match="no prior"):
        BestOf(3, beta=1.0)(make(LowDimensional(2), 3))
    with pytest.raises(UsageError, match="spread"):
        BestOf(3, beta=1.0)(make(Sparse(2, spread=1.0), 3))
    for free in (LowDimensional(2), Sparse(2, spread=1.0)):
        BestOf(3)(make(free, 3))  # a minimum needs no prior
    with pytest.raises(UsageError, match="not countable"):
        Enumerate()(make(Gaussian(2), 3))
    with pytest.raises(UsageError, match="Coordinate"):
        Enumerate()(make(Codebook(20, 1, blocks=4), 3))
