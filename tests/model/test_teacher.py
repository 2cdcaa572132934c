"""A teacher is an encoder without gradient: the exact weighted average of its student, or the student itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.centred import CentredDivergence
from accord.model.encoder import Branch, Encoder
from accord.model.energy import cosine
from accord.model.joint_embedding import JointEmbedding
from accord.model.mlp import MLP
from accord.model.normalize import Standardize
from accord.model.predictor import IdentityPredictor, MLPPredictor
from accord.model.projector import Projector, Prototypes
from accord.model.teacher import MovingAverage, StopGradient
from accord.objective.distillation import byol, dino, distilled
from accord.objective.loss import Objective
from accord.objective.principles import regularized
from accord.train.device import choose_device
from accord.train.optim import AdamW, parameter_groups, set_rate
from accord.train.step import Guard, train_step

WIDTH, DIM = 7, 5
TEACHERS: list[Callable[[Branch], Branch]] = [MovingAverage, StopGradient]


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    standardize = Standardize(torch.zeros(WIDTH), torch.ones(WIDTH))
    backbone = nn.Sequential(standardize, MLP(WIDTH, (8, 8)))
    return Encoder(backbone, Projector(8, DIM, hidden=(6,)), sample_ndim=1)


def objective(momentum: tuple[float, float] = (0.9, 1.0), principle: str = "byol") -> Objective:
    student = encoder()
    teacher = MovingAverage(student, momentum=momentum)
    if principle == "dino":
        model = JointEmbedding(student, teacher, IdentityPredictor(), cost=CentredDivergence(DIM))
        return distilled(model.double(), dino())
    return distilled(JointEmbedding(student, teacher, MLPPredictor(DIM), cost=cosine).double(), byol())


def batch(seed: int = 1, rows: int = 6) -> Pair:
    g = torch.Generator().manual_seed(seed)
    return Pair(*(torch.randn(rows, WIDTH, dtype=torch.float64, generator=g) for _ in range(2)))


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


# --- encoders ---


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_teacher_is_an_encoder_without_gradient(teacher: Callable[[Branch], Branch]) -> None:
    student = encoder().eval()
    made = teacher(student).eval()
    assert isinstance(made, Branch)
    assert made.sample_ndim == 1
    x = torch.randn(2, 3, WIDTH)
    for value, expected in [(made(x), student(x)), (made.features(x), student.features(x))]:
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
        assert not value.requires_grad
    assert student.features(x).requires_grad, "a control"
    for value, expected in zip(made.represent(x), student.represent(x), strict=True):
        assert torch.equal(value, expected)
        assert not value.requires_grad


def test_a_moving_average_owns_its_copy_and_not_its_student() -> None:
    student = encoder()
    teacher = MovingAverage(student)
    assert {name.split(".")[0] for name in teacher.state_dict()} == {"average"}
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    assert not {p.data_ptr() for p in teacher.parameters()} & {p.data_ptr() for p in student.parameters()}
    assert {p.data_ptr() for p in StopGradient(student).parameters()} == {p.data_ptr() for p in student.parameters()}


@pytest.mark.parametrize("teacher", TEACHERS)
def test_what_is_no_encoder_is_refused(teacher: Callable[[nn.Module], Branch]) -> None:
    with pytest.raises(UsageError, match="Linear"):
        teacher(nn.Linear(3, 3))


@pytest.mark.parametrize("momentum", [(0.9,), (0.9, 1.1), (-0.1, 1.0), (math.nan, 1.0)])
def test_a_momentum_out_of_bounds_is_refused(momentum: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="momentum"):
        MovingAverage(encoder(), momentum=momentum)


# --- how it moves ---


def test_momentum_is_half_a_cosine_from_the_first_to_the_last() -> None:
    teacher = MovingAverage(encoder(), momentum=(0.9, 0.98))
    assert teacher.momentum_now == pytest.approx(0.9, abs=1e-15)
    for progress, expected in [(0.0, 0.9), (0.25, 0.94 - 0.04 / math.sqrt(2)), (0.5, 0.94), (1.0, 0.98)]:
        teacher.before_step(progress)
        assert teacher.momentum_now == pytest.approx(expected, abs=1e-12)


def test_weights_are_the_weighted_average_of_all_the_student_had() -> None:
    made = objective(momentum=(0.9, 1.0))
    teacher = made.model.encoder_y
    assert isinstance(teacher, MovingAverage)
    expected, g = weights(teacher), torch.Generator().manual_seed(3)
    for step in range(5):
        made.before_step(step / 5)
        with torch.no_grad():
            for p in made.model.encoder_x.parameters():
                p.add_(torch.randn(p.shape, dtype=p.dtype, generator=g))
        made.after_step()
        m = 1 - 0.1 * (math.cos(math.pi * step / 5) + 1) / 2
        for mean, p in zip(expected, made.model.encoder_x.parameters(), strict=True):
            for i in range(mean.numel()):
                mean.view(-1)[i] = m * mean.view(-1)[i].item() + (1 - m) * p.detach().reshape(-1)[i].item()
    for mean, p in zip(expected, teacher.parameters(), strict=True):
        torch.testing.assert_close(p, mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("taken", [False, torch.tensor(False)])
@pytest.mark.parametrize("principle", ["byol", "dino"])
def test_nothing_moves_after_a_step_that_was_not_made(principle: str, taken: Tensor | bool) -> None:
    made = objective(principle=principle).train()
    made(batch())
    with torch.no_grad():
        for p in made.model.encoder_x.parameters():
            p.add_(1.0)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    made.after_step(taken)
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())
    made(batch())
    made.after_step(True)
    moved = {k.rsplit(".", 1)[-1] for k, v in made.state_dict().items() if not torch.equal(v, before[k])}
    assert "weight" in moved, "a control: the step that was made moves it"
    assert ("centre" in moved) is (principle == "dino")


def test_statistics_of_a_batch_norm_are_those_of_its_own_passes() -> None:
    made = objective().train()
    student, teacher = made.model.encoder_x, made.model.encoder_y
    with torch.no_grad():
        for p in teacher.parameters():
            p.mul_(2.0)
    copy = deepcopy(teacher)
    pair = batch()
    made(pair)
    made.after_step()
    copy(torch.cat([pair.y, pair.x]))
    for (name, buffer), expected in zip(teacher.named_buffers(), copy.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=0, atol=0, msg=name)
    ours, theirs = ([b for n, b in m.named_buffers() if "running" in n] for m in (teacher, student))
    assert not any(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), (
        "a control: they are not the student's"
    )


def test_a_copy_of_the_objective_follows_its_own_student() -> None:
    """What the trial steps of a budget rely on."""
    made = objective()
    other = deepcopy(made)
    before = weights(made)
    with torch.no_grad():
        for p in other.model.encoder_x.parameters():
            p.add_(1.0)
    other.after_step()
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    assert isinstance(other.model.encoder_y, MovingAverage)
    assert other.model.encoder_y.student is other.model.encoder_x
    assert not torch.equal(weights(other.model.encoder_y)[0], weights(made.model.encoder_y)[0])


def test_restart_makes_it_equal_to_the_student_buffers_too() -> None:
    student = encoder()
    teacher = MovingAverage(student)
    with torch.no_grad():
        for tensor in (*student.parameters(), *student.buffers()):
            tensor.add_(1)
    teacher.restart()
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, teacher.average.state_dict()[name]), name
    assert not any(p.requires_grad for p in teacher.parameters())


# --- in training ---


@pytest.mark.parametrize("principle", ["byol", "dino"])
def test_gradients_reach_the_student_only(principle: str) -> None:
    made = objective(principle=principle).train()
    made(batch()).total.backward()
    for name, p in made.named_parameters():
        if name.startswith("model.encoder_y"):
            assert p.grad is None, name
        else:
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0 or "bias" in name, name


def test_the_optimiser_does_not_know_the_teacher() -> None:
    made = objective()
    names = [name for group in parameter_groups(made, 0.1) for name in group["names"]]
    assert names
    assert not any(name.startswith("model.encoder_y") for name in names)


@pytest.mark.parametrize("principle", ["byol", "dino"])
def test_a_step_that_is_not_finite_moves_neither_teacher_nor_centre(principle: str) -> None:
    made = objective(principle=principle).float().train()
    optimizer = AdamW().build(parameter_groups(made, 0.1))
    set_rate(optimizer, 1e-2)
    guard, device = Guard(made, optimizer), choose_device("cpu")
    good = Pair(batch().x.float(), batch().y.float())
    state = {k: v.clone() for k, v in made.state_dict().items()}
    train_step(made, optimizer, good, guard, device)
    after = {k: v.clone() for k, v in made.state_dict().items()}
    moved = [k for k in after if k.startswith("model.encoder_y") and not torch.equal(after[k], state[k])]
    assert any(k.endswith("weight") for k in moved), "a control"
    for spoilt in (good._replace(x=good.x * math.nan), good):  # and all that follow, until somebody looks
        train_step(made, optimizer, spoilt, guard, device)
        for key, value in made.state_dict().items():
            if value.is_floating_point():
                assert torch.equal(value, after[key]), key


def test_without_a_teacher_nothing_follows() -> None:
    student = encoder()
    made = regularized(JointEmbedding(student, student, IdentityPredictor()))
    before = weights(made)
    made.after_step()
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))


def test_a_model_without_a_teacher_of_its_own_student_is_refused() -> None:
    first, second = encoder(), encoder(1)
    for encoder_y in (first, second, MovingAverage(second)):
        with pytest.raises(UsageError, match="teacher") as caught:
            distilled(JointEmbedding(first, encoder_y, MLPPredictor(DIM)))
        assert caught.value.code == "E217"


# --- both ways ---


def test_pairs_count_both_ways() -> None:
    made = objective().train()
    pair = batch()
    both = pair.both_ways()
    torch.testing.assert_close(both.x, torch.cat([pair.x, pair.y]))
    torch.testing.assert_close(both.y, torch.cat([pair.y, pair.x]))
    one_way = Objective(made.model, byol())
    assert torch.equal(made(pair).total, one_way(both).total)


@pytest.mark.parametrize(
    "pair",
    [Pair(torch.zeros(4, 3), torch.zeros(4, 2)), Pair(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4, 1))],
    ids=["shapes", "action"],
)
def test_what_cannot_be_exchanged_is_refused(pair: Pair) -> None:
    with pytest.raises(UsageError, match="exchanged"):
        pair.both_ways()


def test_prototypes_are_cosines() -> None:
    layer = Prototypes(3, 4).double()
    v = torch.randn(5, 3, dtype=torch.float64)
    expected = [[float(a @ w / (a.norm() * w.norm())) for w in layer.weight.detach()] for a in v]
    torch.testing.assert_close(layer(v), torch.tensor(expected, dtype=torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        found = layer.float()(v.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, layer(v.bfloat16().float()), rtol=0, atol=0)
