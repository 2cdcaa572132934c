"""A batch in parts has the gradient of the whole batch, whatever its loss; parts that are added up have not."""

from __future__ import annotations

import importlib
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor
from accord.objective import principles
from accord.objective.loss import Objective
from accord.train.accumulate import Accumulated, has_batch_norm
from accord.train.device import choose_device
from accord.train.step import whole_batch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the helpers are no package
many, tiny = (importlib.import_module(name) for name in ("many", "tiny"))

CPU = choose_device("cpu")
PRINCIPLES = ["vicreg", "sigreg", "visreg", "info_nce", "siglip", "byol", "jepa"]


def batch(n: int = 24, *axes: int) -> Pair:
    generator = torch.Generator().manual_seed(5)
    x, y = (torch.randn(*axes, n, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    return Pair(x * torch.linspace(0.3, 3, n, dtype=torch.float64)[:, None], y + 0.5)


def gradients(objective: Objective, pair: Pair, parts: int | None) -> tuple[float, dict[str, Tensor]]:
    objective = deepcopy(objective)  # a step moves slices, statistics and the use of codes on
    torch.manual_seed(3)
    loss = (whole_batch(objective, CPU) if parts is None else Accumulated(objective, parts, CPU))(pair)
    return float(loss.total.detach()), {
        n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None
    }


def difference(objective: Objective, pair: Pair, parts: int) -> float:
    loss, whole = gradients(objective, pair, None)
    again, found = gradients(objective, pair, parts)
    assert found.keys() == whole.keys()
    scale = max(float(g.abs().max()) for g in whole.values())
    return max([abs(again / loss - 1), *(float((found[k] - whole[k]).abs().max()) / scale for k in whole)])


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("principle", PRINCIPLES)
def test_the_gradient_is_that_of_the_whole_batch(principle: str, parts: int) -> None:
    assert difference(many.objective(principle, norm=False), batch(), parts) < 1e-12


def test_codes_and_several_views_of_x() -> None:
    objective = many.objective(norm=False, codes=3)
    several = batch(24, 3)
    assert difference(objective, several._replace(y=several.y[:1].mean(0, keepdim=True)), 4) < 1e-12


def test_parts_that_are_added_up_are_something_else() -> None:
    """Negative control: the mean of the gradients of the parts."""
    objective, pair = many.objective(norm=False), batch()
    _, whole = gradients(objective, pair, None)
    objective.zero_grad()
    for k in range(3):
        part = Pair(pair.x[8 * k : 8 * k + 8], pair.y[8 * k : 8 * k + 8])
        (objective(part).total / 3).backward()
    found = {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}
    assert max(float((found[k] - whole[k]).abs().max() / whole[k].abs().max()) for k in whole) > 1e-2


class Noted(nn.Module):
    """Dropout, and what came out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 12), nn.Dropout(0.5))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        s: Tensor = self.layers(x)
        self.seen.append(s.detach())
        return s


def test_both_passes_draw_the_same_numbers_and_the_generator_goes_on() -> None:
    network = Noted()
    encoder = Encoder(network, sample_ndim=1)
    objective = principles.regularized(JointEmbedding(encoder, encoder, IdentityPredictor())).double()
    torch.manual_seed(0)
    Accumulated(objective, 3, CPU)(batch())
    after = torch.rand(1)
    assert len(network.seen) == 12
    for first, second in zip(network.seen[:6], network.seen[6:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(network.seen[0] == 0, network.seen[1] == 0)
    torch.manual_seed(0)
    for _ in range(6):
        nn.functional.dropout(torch.ones(8, 12, dtype=torch.float64))
    assert torch.equal(after, torch.rand(1)), "the next step must not draw what this one drew"


def test_batch_norm_sees_parts_and_counts_each_once() -> None:
    objective = many.objective()
    assert has_batch_norm(objective) and not has_batch_norm(many.objective(norm=False))
    assert difference(many.objective(), batch(), 3) > 1e-3
    assert difference(many.objective(), batch(), 1) < 1e-12
    Accumulated(objective, 3, CPU)(batch())
    norm = objective.model.encoder_x.backbone[2]
    assert int(norm.num_batches_tracked) == 6, "three parts of x and of y"


def test_fit_takes_the_whole_batch_or_its_parts(tmp_path: Path) -> None:
    said: list[str] = []

    class Heard(tiny.Silent):  # type: ignore[misc, name-defined]
        def said(self, text: str) -> None:
            said.append(text)

    for parts in (1, 4):
        many.train(str(tmp_path / str(parts)), objective={"norm": False}, accumulate=parts, progress=Heard())
    one, four = (load_file(tmp_path / name / "checkpoints/step-12/weights.safetensors") for name in ("1", "4"))
    assert max(float((one[k] - four[k]).abs().max()) for k in one) < 1e-9
    assert "each batch in 4 parts: the gradient is that of the whole batch" in said
    with pytest.raises(UsageError, match="accumulate: 32 samples in 17 parts"):
        tiny.train(tmp_path / "few", accumulate=17)
    with pytest.raises(UsageError, match="accumulate = 0"):
        tiny.train(tmp_path / "none", accumulate=0)
