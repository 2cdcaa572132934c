"""Every contrastive loss against a formula written with loops in float64, with and without a latent, in value and gradient."""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.codebook import Codebook
from accord.model.continuous import GaussianWalk
from accord.model.energy import Cost, cosine, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Deterministic
from accord.model.minimize import Enumerate, Minimum
from accord.model.predictor import IdentityPredictor, MLPPredictor, Predictor
from accord.objective.candidates import sides
from accord.objective.contrast import Contrast, Decoupled, Hinge, InfoNCE, PairLoss
from accord.objective.contrastive import (
    align_uniform,
    contrastive,
    dcl,
    info_nce,
    logistic,
    siamese,
    siglip,
    spectral,
    square_square,
    triplet,
)
from accord.objective.loss import Inference, Terms
from accord.objective.negatives import InBatch, Mined, Negatives, Sampled
from accord.objective.uniformity import Uniformity, uniformity

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
losses = importlib.import_module("losses")

N, DIM = 6, 4
Energies = list[list[Tensor]]


def rows(seed: int, n: int = N, dim: int = DIM) -> Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(cost: Cost = cosine, *, codes: int = 0, action_dim: int = 0, beta: float = math.inf) -> JointEmbedding:
    """An energy of embeddings that are given: the identity as encoders, and a predictor unless there is nothing to predict with."""
    torch.manual_seed(0)
    latent = Codebook(codes, 3) if codes else Deterministic()
    predictor: Predictor = IdentityPredictor()
    if codes or action_dim:
        predictor = MLPPredictor(DIM, latent.dim, action_dim=action_dim, hidden=(7,))
    model = JointEmbedding(nn.Identity(), nn.Identity(), predictor, cost=cost, latent=latent, minimizer=Enumerate(beta))
    return model.double()


def infer(model: JointEmbedding, s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Inference:
    energy = model.energy(s_x, s_y, action)
    return Inference(energy, model.minimizer(energy), model.minimizer)


def matrix(model: JointEmbedding, s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Energies:
    """F of every x with every y, one pair at a time."""

    def one(i: int, j: int) -> Tensor:
        a = None if action is None else action[i : i + 1]
        value: Tensor = model.minimizer(model.energy(s_x[i : i + 1], s_y[j : j + 1], a)).value
        return value[0]

    return [[one(i, j) for j in range(len(s_y))] for i in range(len(s_x))]


# --- losses with loops: F+ and a list of F- to a number ---

Loop = Callable[[Tensor, list[Tensor]], Tensor]


def total(numbers: list[Tensor]) -> Tensor:
    return sum(numbers[1:], start=numbers[0])


def average(numbers: list[Tensor]) -> Tensor:
    return total(numbers) / len(numbers)


def hinge(t: Tensor) -> Tensor:
    return t if t > 0 else 0 * t


def loop_info_nce(tau: float) -> Loop:
    return lambda f, others: -torch.log(torch.exp(-f / tau) / total([torch.exp(-g / tau) for g in (f, *others)]))


def loop_dcl(tau: float) -> Loop:
    return lambda f, others: -torch.log(torch.exp(-f / tau) / total([torch.exp(-g / tau) for g in others]))


def loop_siglip(t: float, b: float) -> Loop:
    def log_sigmoid(u: Tensor) -> Tensor:
        return torch.log(1 / (1 + torch.exp(-u)))

    return lambda f, others: -total([log_sigmoid(t * (1 - f) + b), *(log_sigmoid(-(t * (1 - g) + b)) for g in others)])


def loop_triplet(margin: float) -> Loop:
    return lambda f, others: average([hinge(f - g + margin) for g in others])


def loop_siamese(margin: float) -> Loop:
    return lambda f, others: f / 2 + average([hinge(margin - g**0.5) ** 2 / 2 for g in others])


def loop_square_square(margin: float) -> Loop:
    return lambda f, others: f**2 + average([hinge(margin - g) ** 2 for g in others])


def loop_logistic(tau: float) -> Loop:
    return lambda f, others: average([torch.log(1 + torch.exp((f - g) / tau)) for g in others])


def loop_spectral(mu: float) -> Loop:
    return lambda f, others: -2 * mu * (1 - f) + mu**2 * average([(1 - g) ** 2 for g in others])


def over_rows(loss: Loop, f: Energies) -> Tensor:
    n = len(f)
    return average([loss(f[i][i], [f[i][j] for j in range(n) if j != i]) for i in range(n)])


def transposed(f: Energies) -> Energies:
    return [list(column) for column in zip(*f, strict=True)]


def both(loss: Loop, f: Energies) -> Tensor:
    return (over_rows(loss, f) + over_rows(loss, transposed(f))) / 2


CASES: dict[str, tuple[Callable[[], Terms], Callable[[Energies], Tensor]]] = {
    "info_nce": (lambda: info_nce(temperature=0.3), lambda f: both(loop_info_nce(0.3), f)),
    "dcl": (lambda: dcl(temperature=0.3), lambda f: both(loop_dcl(0.3), f)),
    "siglip": (lambda: siglip(scale=math.e, bias=-1.0), lambda f: over_rows(loop_siglip(math.e, -1.0), f)),
    "triplet": (lambda: triplet(margin=0.3), lambda f: both(loop_triplet(0.3), f)),
    "siamese": (lambda: siamese(margin=1.1), lambda f: over_rows(loop_siamese(1.1), f)),
    "square_square": (lambda: square_square(margin=1.2), lambda f: over_rows(loop_square_square(1.2), f)),
    "logistic": (lambda: logistic(temperature=0.7), lambda f: both(loop_logistic(0.7), f)),
    "spectral": (lambda: spectral(mu=2.0), lambda f: over_rows(loop_spectral(2.0), f)),
}
MODELS = {
    "cosine": (cosine, 0, 0, math.inf),
    "squared error": (squared_error, 0, 0, math.inf),
    "codes": (squared_error, 3, 0, math.inf),
    "codes, finite temperature, actions": (cosine, 3, 2, 2.0),
}


def leaves(model: JointEmbedding, *tensors: Tensor) -> list[Tensor]:
    return [*(t.requires_grad_() for t in tensors), *model.parameters()]


def check(value: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """Value and gradient are those of the formula."""
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True),
        torch.autograd.grad(expected, inputs, retain_graph=True, allow_unused=True),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("energy", MODELS)
@pytest.mark.parametrize("name", CASES)
def test_losses_equal_their_formulas(name: str, energy: str) -> None:
    cost, codes, action_dim, beta = MODELS[energy]
    model = make(cost, codes=codes, action_dim=action_dim, beta=beta)
    s_x, s_y = rows(1), rows(2)
    action = rows(3, dim=2) if action_dim else None
    inputs = leaves(model, s_x, s_y)
    terms, formula = CASES[name]
    ((weight, term),) = terms().values()
    assert weight == 1
    expected = formula(matrix(model, s_x, s_y, action))
    inference = infer(model, s_x, s_y, action)
    check(term.double()(inference) if isinstance(term, nn.Module) else term(inference), expected, inputs)
    assert isinstance(term, Contrast)
    for chunk in (1, 2 * N * DIM):  # one row at a time, and two
        small = copy.deepcopy(term)
        small.chunk = chunk
        check(small(infer(model, s_x, s_y, action)), expected, inputs)


def test_a_case_by_hand() -> None:
    """Two pairs with energies 0 and 1: F = [[0, 1], [1, 0]]."""
    x = torch.eye(2, dtype=torch.float64)
    inference = infer(make(cosine), x, x)
    e = math.e
    for terms, value in [
        (info_nce(temperature=1.0), math.log(1 + 1 / e)),
        (dcl(temperature=1.0), -1.0),
        (siglip(scale=1.0, bias=0.0), math.log(1 + 1 / e) + math.log(2)),
        (triplet(margin=1.5), 0.5),
        (triplet(margin=0.5), 0.0),
        (siamese(margin=2.0), 0.5),
        (square_square(margin=3.0), 4.0),
        (logistic(temperature=1.0), math.log(1 + 1 / e)),
        (spectral(), -2.0),
        (info_nce(temperature=1.0, within=True), math.log(1 + 2 / e)),
    ]:
        ((_, term),) = terms.values()
        assert term(inference).item() == pytest.approx(value, rel=1e-6, abs=1e-12)
    assert sum((w * t(inference)).item() for w, t in align_uniform().values()) == pytest.approx(-4.0)


# --- InfoNCE on cosines is CLIP's, and NT-Xent with negatives of the same side ---


def unit(t: Tensor) -> Tensor:
    return t / t.norm(dim=1, keepdim=True)


def test_the_exponent_of_info_nce_is_the_cosine() -> None:
    """exp(-F / tau) is exp(cos / tau) up to a factor that cancels."""
    s_x, s_y = rows(1), rows(2)
    logits = unit(s_x) @ unit(s_y).T / 0.07
    label = torch.arange(N)
    clip = (nn.functional.cross_entropy(logits, label) + nn.functional.cross_entropy(logits.T, label)) / 2
    ((_, term),) = info_nce(temperature=0.07).values()
    torch.testing.assert_close(term(infer(make(), s_x, s_y)), clip, rtol=1e-12, atol=1e-12)


def loop_nt_xent(s_x: Tensor, s_y: Tensor, tau: float, *, with_pair: bool) -> Tensor:
    """Over all 2N rows; the sum runs over every other row, for DCL but the partner."""
    z, n = unit(torch.cat([s_x, s_y])), len(s_x)
    values = []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [k for k in range(2 * n) if k != i and (with_pair or k != partner)]
        values.append(torch.log(total([torch.exp(z[i] @ z[k] / tau) for k in others])) - z[i] @ z[partner] / tau)
    return average(values)


@pytest.mark.parametrize("chunk", [1, 10**6])
def test_nt_xent(chunk: int) -> None:
    s_x, s_y = rows(1).requires_grad_(), rows(2).requires_grad_()
    for terms, with_pair in [(info_nce, True), (dcl, False)]:
        ((_, term),) = terms(temperature=0.2, within=True).values()
        assert isinstance(term, Contrast)
        term.chunk = chunk
        value = term(infer(make(), s_x, s_y))
        check(value, loop_nt_xent(s_x, s_y, 0.2, with_pair=with_pair), [s_x, s_y])


def test_golden_nt_xent() -> None:
    """Published value of three libraries: 64 x 32 from the torch CPU generator, temperature 0.5."""
    torch.manual_seed(0)
    a = torch.randn(64, 32)
    b = a + 0.3 * torch.randn(64, 32)
    assert [a[0, 0].item(), a[0, 1].item()] == pytest.approx([-1.1258, -1.1524], abs=1e-4), "another generator"
    ((_, term),) = info_nce(temperature=0.5, within=True).values()
    assert float(term(infer(make().float(), a, b))) == pytest.approx(3.0173110962, rel=1e-6)


# --- margins by distance, uniformity ---


def test_a_margin_that_grows_with_the_distance() -> None:
    model = make(squared_error, codes=3)
    s_x, s_y = rows(1), rows(2)
    f = matrix(model, s_x, s_y)

    def side(f: Energies, s: Tensor) -> Tensor:
        def row(i: int) -> Tensor:
            apart = [(s[i] - s[j]).square().mean().detach() for j in range(N)]
            return average([hinge(f[i][i] - f[i][j] + 0.1 + 0.7 * apart[j]) for j in range(N) if j != i])

        return average([row(i) for i in range(N)])

    inputs = leaves(model, s_x, s_y)
    f = matrix(model, s_x, s_y)
    expected = (side(f, s_y) + side(transposed(f), s_x)) / 2
    for chunk in (1, 10**6):
        check(Contrast(Hinge(0.1, 0.7), chunk=chunk)(infer(model, s_x, s_y)), expected, inputs)


@pytest.mark.parametrize("chunk", [1, 13, 10**6])
def test_uniformity(chunk: int) -> None:
    s, other = rows(1).requires_grad_(), rows(2).requires_grad_()

    def loop(s: Tensor, t: float) -> Tensor:
        f = unit(s)
        pairs = [torch.exp(-t * (f[i] - f[j]).square().sum()) for i, j in itertools.permutations(range(N), 2)]
        return torch.log(average(pairs))

    check(uniformity(s, t=3.0, chunk=chunk), loop(s, 3.0), [s])
    stacked = torch.stack([s, other])
    check(uniformity(stacked, t=3.0, chunk=chunk), (loop(s, 3.0) + loop(other, 3.0)) / 2, [s, other])
    check(Uniformity(2.0, chunk)(infer(make(), s, other)), (loop(s, 2.0) + loop(other, 2.0)) / 2, [s, other])
    assert float(uniformity(torch.ones(5, 3))) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(uniformity(s * torch.rand(N, 1, dtype=s.dtype)), uniformity(s))  # lengths do not matter


def test_align_uniform_is_the_paper() -> None:
    s_x, s_y = rows(1), rows(2)
    alignment = (unit(s_x) - unit(s_y)).square().sum(1).mean()
    terms = align_uniform(alignment=3.0, uniformity=0.5, t=1.0)
    value = sum(w * t(infer(make(), s_x, s_y)) for w, t in terms.values())
    torch.testing.assert_close(
        value, 3 * alignment + 0.5 * (uniformity(s_x, t=1.0) + uniformity(s_y, t=1.0)) / 2, rtol=1e-10, atol=1e-12
    )


# --- which negatives ---


def mean_negative(pair: Tensor, others: Tensor, distance: Callable[[], Tensor]) -> Tensor:
    return others.mean(1)


def seen(inference: Inference, negatives: Negatives, loss: PairLoss = mean_negative) -> Tensor:
    return Contrast(loss, negatives)(inference)


@pytest.mark.parametrize("chunk", [1, 10**6])
@pytest.mark.parametrize("mode", ["hardest", "semi_hard"])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_mined_negatives(mode: str, count: int, chunk: int) -> None:
    model = make(squared_error, codes=3)
    s_x, s_y = rows(1), rows(2)
    inputs = leaves(model, s_x, s_y)
    f = matrix(model, s_x, s_y)

    def side(f: Energies) -> Tensor:
        values = []
        for i in range(N):
            others = sorted((f[i][j] for j in range(N) if j != i), key=Tensor.item)
            if mode == "semi_hard":
                above = [g for g in others if g > f[i][i]]
                below = [g for g in reversed(others) if g <= f[i][i]]
                others = above + below
            values.append(average(others[:count]))
        return average(values)

    assert any(f[i][j] < f[i][i] for i in range(N) for j in range(N)), "the two modes would not differ"
    expected = (side(f) + side(transposed(f))) / 2
    term = Contrast(mean_negative, Mined(count, mode=mode), chunk=chunk)  # type: ignore[arg-type]
    check(term(infer(model, s_x, s_y)), expected, inputs)


@pytest.mark.parametrize("within", [False, True])
def test_uniform_negatives_are_others_and_all_of_them_alike(within: bool) -> None:
    inference = infer(make(), rows(1), rows(2))
    x_side, y_side = sides(inference, symmetric=True, within=within)
    count = 4000
    for side in (x_side, y_side):
        chosen = Sampled(count)(side)(slice(0, N))
        everything = side.all(slice(0, N))
        which = chosen.take(torch.arange(side.columns).expand(N, -1))
        torch.testing.assert_close(chosen.energy, everything.gather(1, which))
        times = torch.stack([row.bincount(minlength=side.columns) for row in which]).double()
        own = side.is_own(slice(0, N))
        assert times[own].sum() == 0
        share = 1 / side.others
        error = math.sqrt(count * share * (1 - share))
        assert (times[~own] - count * share).abs().max() < 4.5 * error
        every = InBatch()(side)(slice(0, N)).take(torch.arange(side.columns).expand(N, -1))
        assert [sorted(r) for r in every.tolist()] == [(~row).nonzero()[:, 0].tolist() for row in own]


def test_uniform_negatives_are_fresh_each_time_and_resume() -> None:
    inference = infer(make(), rows(1), rows(2))
    term = Contrast(mean_negative, Sampled(2, seed=3))
    first, second = (term(inference).item() for _ in range(2))
    assert first != second
    assert term.state_dict() == {"negatives.fresh.turn": torch.tensor(4)}  # two sides each time
    term.eval()
    third = term(inference).item()
    assert third == term(inference).item()
    other = Contrast(mean_negative, Sampled(2, seed=3))
    other.load_state_dict(term.state_dict())
    other.eval()
    assert other(inference).item() == third
    assert float(Contrast(mean_negative, Sampled(2, seed=4))(inference)) not in (first, second, third)
    blocks = Contrast(mean_negative, Sampled(2, seed=3), chunk=1)
    assert float(blocks(inference)) == pytest.approx(first, rel=1e-12)
    small, large = rows(1, 3), rows(2, 3)
    assert float(term(infer(make(), small, large))) != third  # others than those of three rows


# --- views, memory, precision ---


def test_views_of_x_are_averaged() -> None:
    model = make(codes=3)
    views, s_y = torch.stack([rows(k) for k in range(4)]).view(2, 2, N, DIM), rows(9)
    term = Contrast(InfoNCE(0.2))
    single = [term(infer(model, view, s_y)) for view in views.view(4, N, DIM)]
    torch.testing.assert_close(term(infer(model, views, s_y)), torch.stack(single).mean(), rtol=1e-12, atol=1e-12)
    several = [term(infer(model, s_y, view)) for view in views[0]]  # several y of one x
    torch.testing.assert_close(term(infer(model, s_y, views[0])), torch.stack(several).mean(), rtol=1e-12, atol=1e-12)


class Largest(TorchDispatchMode):
    """The largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("negatives", [InBatch(), Mined(2), Sampled(2)])
def test_memory_does_not_grow_with_the_square_of_the_batch(negatives: Negatives) -> None:
    s_x, s_y = rows(1, 100).requires_grad_(), rows(2, 100)
    largest = []
    for chunk in (10**6, 500):
        with Largest() as spy:
            Contrast(InfoNCE(), negatives, chunk=chunk)(infer(make(), s_x, s_y)).backward()
        largest.append(spy.numbers)
    assert largest[1] <= 1000
    if not isinstance(negatives, Sampled):
        assert largest[0] >= 100 * 99  # a control


def test_info_nce_takes_no_more_memory_than_clip_written_plainly() -> None:
    def plain(x: Tensor, y: Tensor) -> Tensor:
        logits = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / 0.2
        own = torch.arange(len(x))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return Contrast(InfoNCE(0.2))(infer(make().float(), x, y))

    def without_the_pair(x: Tensor, y: Tensor) -> Tensor:
        return Contrast(Decoupled(0.2))(infer(make().float(), x, y))

    peaks = [losses.peak_bytes(loss, 2048, 16) for loss in (ours, plain, without_the_pair)]
    assert peaks[0] <= 1.05 * peaks[1], "the target is 1.3"
    assert peaks[2] > 1.1 * peaks[1], "a control: where the pair is taken out of the sum, copies are made"


@pytest.mark.parametrize("name", CASES)
def test_half_precision_and_autocast(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 32, generator=generator)
    y = x + 0.5 * torch.randn(64, 32, generator=generator)
    ((_, term),) = CASES[name][0]().values()
    plain = term(infer(make().float(), x, y))
    for dtype in (torch.float16, torch.bfloat16):
        value = term(infer(make().float(), x.to(dtype), y.to(dtype)))
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, plain, rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(term(infer(make().float(), x, y)), plain, rtol=1e-6, atol=1e-6)


# --- degenerate batches ---


@pytest.mark.parametrize("cost", [cosine, squared_error])
@pytest.mark.parametrize("name", [*CASES, "align_uniform"])
def test_constant_embeddings(name: str, cost: Cost) -> None:
    """Every pair costs the same: a finite value, and no gradient that is not a number."""
    s_x, s_y = (torch.ones(N, DIM, dtype=torch.float64, requires_grad=True) for _ in range(2))
    terms = align_uniform() if name == "align_uniform" else CASES[name][0]()
    value = total([w * t(infer(make(cost), s_x, s_y)) for w, t in terms.values()])
    value.backward()
    assert value.isfinite()
    for s in (s_x, s_y):
        assert s.grad is not None
        assert s.grad.isfinite().all()
    if name == "info_nce":
        assert value.item() == pytest.approx(math.log(N))  # cannot tell any pair from another


@pytest.mark.parametrize("name", [*CASES, "align_uniform"])
def test_one_pair_is_refused_and_what_is_not_a_number_is_left_to_the_trainer(name: str) -> None:
    terms = align_uniform() if name == "align_uniform" else CASES[name][0]()
    contrasts = [t for n, (_, t) in terms.items() if n != "free_energy"]
    for term in contrasts:
        with pytest.raises(UsageError, match=r"batch"):
            term(infer(make(), rows(1, 1), rows(2, 1)))
    nan = torch.full((N, DIM), math.nan, dtype=torch.float64)
    assert total([w * t(infer(make(), nan, nan)) for w, t in terms.values()]).isnan()


def test_refusals() -> None:
    with pytest.raises(UsageError, match="GaussianWalk cannot be compared"):
        walk = GaussianWalk(2)
        model = JointEmbedding(
            nn.Identity(), nn.Identity(), MLPPredictor(DIM, 2), latent=walk, minimizer=Enumerate()
        ).double()
        energy = model.energy(rows(1)[None], rows(2)[None])
        minimum = energy.s_x.new_zeros(1, N)
        Contrast(InfoNCE())(Inference(energy, Minimum(minimum, minimum), model.minimizer))
    with pytest.raises(UsageError, match="no action between"):
        model = make(action_dim=2)
        Contrast(InfoNCE(), within=True)(infer(model, rows(1), rows(2), rows(3, dim=2)))
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: info_nce(temperature=0.0), "temperature"),
        (lambda: dcl(temperature=math.inf), "temperature"),
        (lambda: siglip(scale=-1.0), "scale"),
        (lambda: triplet(margin=-1.0), "margin"),
        (lambda: triplet(by_distance=math.nan), "by_distance"),
        (lambda: siamese(margin=0.0), "margin"),
        (lambda: square_square(margin=0.0), "margin"),
        (lambda: logistic(temperature=0.0), "temperature"),
        (lambda: spectral(mu=0.0), "mu"),
        (lambda: align_uniform(uniformity=-1.0), "uniformity"),
        (lambda: align_uniform(t=0.0), "t: expected"),
        (lambda: Sampled(0), "count"),
        (lambda: Mined(0), "count"),
        (lambda: Mined(mode="soft"), "'hardest' or 'semi_hard'"),  # type: ignore[arg-type]
        (lambda: Contrast(InfoNCE(), chunk=0), "chunk"),
    ]
    for make_it, message in refused:
        with pytest.raises(UsageError, match=message):
            make_it()


# --- it learns ---


@pytest.mark.parametrize("name", [*CASES, "align_uniform"])
def test_twenty_steps_tell_pairs_apart(name: str) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))
    model = JointEmbedding(encoder, encoder, IdentityPredictor(), cost=cosine)
    terms = align_uniform() if name == "align_uniform" else CASES[name][0]()
    objective = contrastive(model, terms)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    x = torch.randn(32, 8)
    y = x + 0.3 * torch.randn(32, 8)
    losses = []
    for _ in range(20):
        loss = objective(Pair(x, y)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1e-3
    f = model.minimizer(model(x, y).cross()).value
    assert f.argmin(1).eq(torch.arange(32)).float().mean() > 0.8


def test_the_scale_and_bias_of_siglip_are_learned_and_saved() -> None:
    objective = contrastive(make().float(), siglip())
    names = {n for n, _ in objective.named_parameters() if not n.startswith("model")}
    assert names == {"stateful_terms.siglip.loss.log_scale", "stateful_terms.siglip.loss.bias"}
    objective(Pair(rows(1).float(), rows(2).float())).total.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad != 0, name
    assert set(objective.state_dict()) >= names


def test_info_nce_is_the_default() -> None:
    assert contrastive(make()).terms.keys() == {"info_nce"}
