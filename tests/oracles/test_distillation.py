"""Distilled principles against loops in float64, written from the papers: values, gradients, and the centre of DINO."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.centred import CentredDivergence
from accord.model.encoder import Branch, Encoder
from accord.model.energy import Cost, cosine, smooth_l1
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor, MLPPredictor, Predictor
from accord.model.teacher import MovingAverage, StopGradient
from accord.objective.distillation import byol, dino, distilled, jepa, simsiam
from accord.objective.loss import Objective, Terms

WIDTH, DIM, ROWS, ACTION = 4, 3, 5, 2
Row = list[Tensor]


def dot(a: Row, b: Row) -> Tensor:
    return torch.stack([u * v for u, v in zip(a, b, strict=True)]).sum()


def angle(a: Row, b: Row) -> Tensor:
    return dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())


def softmax(values: Row, temperature: float) -> Row:
    powers = [(v / temperature).exp() for v in values]
    return [p / torch.stack(powers).sum() for p in powers]


def loop_byol(predicted: Row, target: Row) -> Tensor:
    """2 - 2 <q, z> / (|q| |z|), equation 2 of BYOL."""
    return 2 - 2 * angle(predicted, target)


def loop_simsiam(predicted: Row, target: Row) -> Tensor:
    """Equation 1 of SimSiam, and 1 so that it is 0 where they agree."""
    return 1 - angle(predicted, target)


def loop_dino(predicted: Row, target: Row, centre: Row) -> Tensor:
    """Algorithm 1 of DINO: - sum p log q; the entropy of p has no gradient in the student and is taken off."""
    q = softmax(predicted, 0.1)
    p = softmax([t - c for t, c in zip(target, centre, strict=True)], 0.04)
    return dot(p, [(a / b).log() for a, b in zip(p, q, strict=True)])


def loop_jepa(predicted: Row, target: Row) -> Tensor:
    """The smooth L1 loss of the published code of I-JEPA, mean over dimensions."""
    differences = [a - b for a, b in zip(predicted, target, strict=True)]
    return torch.stack([0.5 * d * d if abs(d.item()) < 1 else d.abs() - 0.5 for d in differences]).mean()


def make(
    terms: Terms, teacher: Callable[[Branch], Branch], predictor: Predictor, cost: Cost, *, symmetric: bool
) -> Objective:
    torch.manual_seed(0)
    student = Encoder(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, DIM), sample_ndim=1)
    made = distilled(
        JointEmbedding(student, teacher(student), predictor, cost=cost), terms, symmetric=symmetric
    ).double()
    if isinstance(made.model.encoder_y, MovingAverage):
        with torch.no_grad():  # a teacher that has been left behind
            for p in made.model.encoder_y.parameters():
                p.mul_(0.7)
    return made.train()


def views(*, action: bool = False) -> Pair:
    g = torch.Generator().manual_seed(5)
    x, y = (2 * torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=g) for _ in range(2))
    return Pair(x, y, torch.randn(ROWS, ACTION, dtype=torch.float64, generator=g) if action else None)


def rows_of(made: Objective, given: Tensor, asked: Tensor, action: Tensor | None) -> list[tuple[Row, Row]]:
    """(prediction, target without gradient) of each pair, as lists of numbers."""
    z = torch.zeros(len(given), 0, dtype=torch.float64)
    predicted = made.model.predictor(made.model.encoder_x(given), z, action)
    target = made.model.encoder_y(asked).detach()
    return [(list(p.unbind()), list(t.unbind())) for p, t in zip(predicted, target, strict=True)]


CENTRE = [0.3, -0.1, 0.2]


def dino_cost() -> CentredDivergence:
    cost = CentredDivergence(DIM)
    cost.centre.copy_(torch.tensor(CENTRE))
    return cost


CASES: dict[str, tuple[Callable[[], Objective], Callable[[Row, Row], Tensor]]] = {
    "byol": (lambda: make(byol(), MovingAverage, MLPPredictor(DIM), cosine, symmetric=True), loop_byol),
    "simsiam": (lambda: make(simsiam(), StopGradient, MLPPredictor(DIM), cosine, symmetric=True), loop_simsiam),
    "dino": (
        lambda: make(dino(), MovingAverage, IdentityPredictor(), dino_cost(), symmetric=True),
        lambda a, b: loop_dino(a, b, list(torch.tensor(CENTRE).double().unbind())),
    ),
    "jepa": (
        lambda: make(jepa(), MovingAverage, MLPPredictor(DIM, action_dim=ACTION), smooth_l1, symmetric=False),
        loop_jepa,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_loops(name: str) -> None:
    build, loop = CASES[name]
    made = build()
    pair = views(action=name == "jepa")
    trained = [p for p in made.parameters() if p.requires_grad]
    loss = made(pair).total
    gradients = torch.autograd.grad(loss, trained)
    pairs = rows_of(made, pair.x, pair.y, pair.action)
    if name != "jepa":
        pairs += rows_of(made, pair.y, pair.x, None)
    expected = torch.stack([loop(*rows) for rows in pairs]).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
        assert mine.abs().sum() > 0


def test_the_gradient_of_dino_is_that_of_the_cross_entropy() -> None:
    cost = dino_cost().double()
    g = torch.Generator().manual_seed(0)
    predicted, target = (torch.randn(ROWS, DIM, dtype=torch.float64, generator=g) for _ in range(2))
    predicted.requires_grad_()
    (mine,) = torch.autograd.grad(cost(predicted, target).sum(), predicted)
    p = torch.softmax((target - cost.centre) / 0.04, -1)
    entropy = -(p * torch.log_softmax(predicted / 0.1, -1)).sum()
    (theirs,) = torch.autograd.grad(entropy, predicted)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_the_energy_of_dino_is_zero_where_the_prediction_is_perfect_and_only_there() -> None:
    cost = CentredDivergence(DIM).double()
    s_y = 0.1 * torch.randn(ROWS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    perfect = s_y * cost.student / cost.teacher
    torch.testing.assert_close(cost(perfect, s_y), torch.zeros(ROWS, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (cost(perfect + torch.tensor([0.1, 0.0, 0.0]), s_y) > 1e-5).all()


@pytest.mark.parametrize("samples", [(), (2,)])
def test_all_against_all_is_the_broadcast(samples: tuple[int, ...]) -> None:
    cost = dino_cost().double()
    a, b = torch.randn(*samples, 4, DIM, dtype=torch.float64), torch.randn(6, DIM, dtype=torch.float64)
    expected = torch.stack([cost(a, b[j]) for j in range(6)], dim=-1)
    torch.testing.assert_close(cost(a.unsqueeze(-2), b[None]), expected, rtol=1e-10, atol=1e-12)


def test_half_precision_is_computed_in_single() -> None:
    cost = CentredDivergence(DIM)
    a, b = torch.randn(ROWS, DIM), torch.randn(ROWS, DIM)
    value = cost(a.bfloat16(), b.bfloat16())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, cost(a.bfloat16().float(), b.bfloat16().float()), rtol=0, atol=0)


def test_the_centre_is_a_running_mean_of_what_the_teacher_made() -> None:
    made = make(dino(), MovingAverage, IdentityPredictor(), CentredDivergence(DIM, momentum=0.8), symmetric=True)
    cost = made.model.cost
    assert isinstance(cost, CentredDivergence)
    expected = [0.0] * DIM
    for seed in range(3):
        x, y = torch.randn(2, ROWS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).unbind()
        before = cost.centre.clone()
        made(Pair(x, y))
        assert torch.equal(cost.centre, before), "the loss of a step is that of the centre before it"
        seen = [made.model.encoder_y(row[None])[0].tolist() for view in (x, y) for row in view]
        expected = [0.8 * c + 0.2 * sum(s[j] for s in seen) / len(seen) for j, c in enumerate(expected)]
        made.after_step()
        assert cost.centre.tolist() == pytest.approx(expected, rel=1e-9)


def test_evaluation_and_further_calls_of_the_cost_leave_the_centre_alone() -> None:
    made = make(dino(), MovingAverage, IdentityPredictor(), CentredDivergence(DIM), symmetric=True)
    cost = made.model.cost
    assert isinstance(cost, CentredDivergence)
    pair = views()
    made.eval()(pair)
    made.model.free_energy(pair.x, pair.y)
    made.after_step()
    assert cost.centre.tolist() == [0.0] * DIM
    made.train()(pair)
    made.after_step()
    once = cost.centre.clone()
    assert once.abs().sum() > 0
    made.after_step()
    assert torch.equal(cost.centre, once), "one batch, one move"


@pytest.mark.parametrize("options", [{"student": 0.0}, {"teacher": -1.0}, {"momentum": 1.5}, {"momentum": math.nan}])
def test_numbers_out_of_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        CentredDivergence(DIM, **options)
