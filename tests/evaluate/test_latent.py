"""What is said of a latent, on models whose answer is known: perfect ones, and one for each thing that can go wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accord.baselines.probabilistic import CommonWidthGaussian
from accord.evaluate.evaluation import most_pairs
from accord.evaluate.features import Embedded
from accord.evaluate.gaps import gaps
from accord.evaluate.latent import summary
from accord.model.amortize import Amortize
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian, LowDimensional
from accord.model.coordinate import Coordinate
from accord.model.descend import Descend
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.langevin import Langevin
from accord.model.latent import Deterministic, Latent
from accord.model.minimize import BestOf, Enumerate, Minimizer
from accord.model.predictor import Predictor
from accord.model.variational import Variational

N, DIM = 400, 4


class Sum(Predictor):
    """Predicts a * s_x + z: with a = 0 x plays no part, with b = 0 z plays none."""

    def __init__(self, a: float = 1.0, b: float = 1.0):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
        z = z if z.shape[-1] else torch.zeros(*z.shape[:-1], s_x.shape[-1])
        return self.a * s_x + self.b * z

    def linear_in_z(self) -> Tensor:
        return self.b * torch.eye(DIM)


def model(latent: Latent, minimizer: Minimizer | None = None, *, a: float = 1.0, b: float = 1.0) -> JointEmbedding:
    encoder = Encoder(nn.Identity(), sample_ndim=1)
    return JointEmbedding(encoder, encoder, Sum(a, b), latent=latent, minimizer=minimizer).eval()


def book(codes: int, scale: float = 1.0) -> Codebook:
    torch.manual_seed(0)
    made = Codebook(codes, DIM)
    with torch.no_grad():
        made.table.mul_(scale)
    return made


def pairs(codes: Codebook, *, shares: list[float] | None = None, noise: float = 0.05) -> tuple[Embedded, Tensor]:
    """s_y = s_x + a code + noise, and which code it was."""
    torch.manual_seed(1)
    s_x = torch.randn(N, DIM)
    p = torch.tensor(shares) if shares else torch.ones(codes.table.shape[1])
    which = torch.multinomial(p, N, replacement=True)
    s_y = s_x + codes.table[0, which].detach() + noise * torch.randn(N, DIM)
    return Embedded(s_x, s_y, s_y, None), which


CONTENT = np.arange(N, dtype=np.uint64)


def kinds(found: dict[str, object] | None) -> list[str]:
    assert found is not None
    verdicts = found["verdicts"]
    assert isinstance(verdicts, list)
    return [v["kind"] for v in verdicts]


def test_no_latent_has_nothing_to_say() -> None:
    embedded, _ = pairs(book(4))
    assert summary(model(Deterministic()), embedded, CONTENT) is None


def test_a_perfect_model_of_equally_frequent_codes() -> None:
    codes = book(4)
    embedded, which = pairs(codes)
    found = summary(model(codes), embedded, CONTENT)
    assert found is not None
    assert kinds(found) == []
    energies, told = found["free_energy"], found["information"]
    assert isinstance(energies, dict)
    assert isinstance(told, dict)
    assert energies["inferred"] == pytest.approx(0.05**2, rel=0.1)
    apart = torch.cdist(codes.table[0], codes.table[0]).square().mean().item() / DIM
    assert energies["prior"] == pytest.approx(0.05**2 + apart, rel=0.1)
    assert energies["permuted_x"] > 0.3
    assert energies["transplanted"] == pytest.approx(2.0, rel=0.15)  # two independent x, variance 1 each
    assert told["codes"] == 4
    share = torch.bincount(which, minlength=4) / N
    assert told["usage"] == [pytest.approx(share.tolist())]
    assert told["perplexity"] == [pytest.approx(math.exp(-(share * share.log()).sum().item()))]
    assert told["mutual"] == pytest.approx(math.log(4), abs=0.02)  # codes do not depend on x
    assert told["price"] == 0
    assert found["capacity"] == pytest.approx(math.log(4))
    assert found["gaps"] == {"amortisation": None, "optimisation": 0.0}


def test_codes_that_x_tells_carry_no_information() -> None:
    """z is the sign of the first coordinate of x: I(z; s_y | s_x) is about 0, though its entropy is log 2."""
    codes = book(2)
    torch.manual_seed(1)
    s_x = torch.randn(N, DIM)
    s_y = s_x + codes.table[0, (s_x[:, 0] > 0).long()].detach()
    found = summary(model(codes), Embedded(s_x, s_y, s_y, None), CONTENT)
    assert found is not None
    told = found["information"]
    assert isinstance(told, dict)
    assert told["perplexity"][0] == pytest.approx(2, abs=0.05)
    assert told["mutual"] < 0.25 * math.log(2)


def test_a_latent_that_takes_all() -> None:
    """The predictor ignores x, and z can be any y."""
    embedded, _ = pairs(book(4))
    found = summary(model(LowDimensional(DIM), Descend(5), a=0.0), embedded, CONTENT)
    assert kinds(found) == ["latent-takes-all"]


def test_a_dead_latent() -> None:
    embedded, _ = pairs(book(2, scale=0.0))
    found = summary(model(book(2), b=1e-3), embedded, CONTENT)
    assert "dead latent" in kinds(found)


def test_a_flat_energy() -> None:
    """Neither x nor z says anything of y."""
    torch.manual_seed(0)
    s = torch.randn(N, DIM)
    found = summary(model(book(2), a=0.0, b=1e-3), Embedded(torch.randn(N, DIM), s, s, None), CONTENT)
    assert "flat energy" in kinds(found)
    assert "latent-takes-all" not in kinds(found)


def test_the_death_of_codes() -> None:
    codes = book(16)
    embedded, _ = pairs(codes, shares=[1.0, 1.0, 1.0] + [0.0] * 13)
    assert kinds(summary(model(codes), embedded, CONTENT)) == ["codebook death"]
    alive, _ = pairs(codes)
    assert kinds(summary(model(codes), alive, CONTENT)) == []


def test_conditional_prior_has_a_price() -> None:
    codes = book(4)
    embedded, _ = pairs(codes)
    prior = ConditionalPrior(codes, DIM, weight=0.01)
    found = summary(model(prior), embedded, CONTENT)
    assert found is not None
    told = found["information"]
    assert isinstance(told, dict)
    assert told["price"] == pytest.approx(math.log(4), rel=1e-3)  # untrained: uniform


def test_capacity_curve_against_a_loop() -> None:
    codes = book(5)
    embedded, which = pairs(codes, shares=[5.0, 4.0, 3.0, 2.0, 1.0])
    found = summary(model(codes), embedded, CONTENT)
    assert found is not None
    curve = found["capacity_curve"]
    assert isinstance(curve, list)
    assert [point["codes"] for point in curve] == [1, 2, 4, 5]
    order = torch.bincount(which, minlength=5).argsort(descending=True)
    for point in curve:
        allowed = codes.table[0, order[: point["codes"]]]
        rest = embedded.s_y - embedded.s_x
        best = torch.stack([(rest - code).square().mean(-1) for code in allowed]).min(0).values
        assert point["free_energy"] == pytest.approx(best.mean().item(), rel=1e-4)
        assert point["nats"] == pytest.approx(math.log(point["codes"]))
    energies = [point["free_energy"] for point in curve]
    assert energies == sorted(energies, reverse=True)


def test_wells() -> None:
    """Between two predictions at distance L (mean over D) the energy is L^2 min(t^2, (1 - t)^2), its barrier L^2 / 4."""
    codes = book(2)
    embedded, _ = pairs(codes)
    found = summary(model(codes), embedded, CONTENT)
    assert found is not None
    wells = found["wells"]
    assert isinstance(wells, dict)
    length = (codes.table[0, 0] - codes.table[0, 1]).square().mean().item()
    t = torch.tensor(wells["t"])
    torch.testing.assert_close(
        torch.tensor(wells["energy"]), length * torch.minimum(t**2, (1 - t) ** 2), rtol=1e-3, atol=1e-5
    )
    assert wells["barrier"] == pytest.approx(length / 4, rel=1e-5)
    middle = len(t) // 2
    assert wells["energy"][middle] == pytest.approx(wells["barrier"], rel=1e-3)
    assert wells["soft"][middle] == pytest.approx(wells["barrier"], rel=1e-3)  # at every temperature


# --- gaps ---


class Zero(nn.Module):
    """A network that always guesses 0."""

    def __init__(self, width: int = DIM):
        super().__init__()
        self.width = width

    def forward(self, s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Tensor:
        return torch.zeros(*torch.broadcast_shapes(s_x.shape[:-1], s_y.shape[:-1]), self.width)


def test_amortisation_gap_is_the_energy_a_better_guess_would_save() -> None:
    embedded, _ = pairs(book(4))
    free = LowDimensional(DIM)
    found = gaps(model(free, Amortize(Zero())), embedded)
    assert found["optimisation"] is None
    assert found["amortisation"] == pytest.approx((embedded.s_y - embedded.s_x).square().mean().item(), rel=1e-4)
    refined = gaps(model(free, Amortize(Zero(), refine=Descend(3, restarts=0))), embedded)
    assert refined["amortisation"] == pytest.approx(found["amortisation"], rel=1e-4)
    assert refined["optimisation"] == pytest.approx(0, abs=1e-6)


def test_optimisation_gap_of_draws() -> None:
    codes = book(16)
    embedded, _ = pairs(codes)
    lazy = model(codes, BestOf(2))
    exact = Enumerate()(lazy.energy(embedded.s_x, embedded.s_y)).value.mean()
    expected = (lazy.minimizer(lazy.energy(embedded.s_x, embedded.s_y)).value.mean() - exact).item()
    assert expected > 0.1
    assert gaps(lazy, embedded)["optimisation"] == pytest.approx(expected, rel=1e-4)
    assert gaps(model(Codebook(2, DIM, blocks=1), Coordinate()), embedded)["optimisation"] == pytest.approx(0, abs=1e-6)


def test_gap_of_a_variational_bound() -> None:
    """y - x is N(0, 1 + noise) and D = |y - x - z|^2 / DIM: the exact posterior has no gap, a wrong one its divergence."""
    torch.manual_seed(0)
    s_x = torch.randn(200, DIM)
    s_y = s_x + torch.randn(200, DIM)
    embedded = Embedded(s_x, s_y, s_y, None)
    weight = 0.5
    precision = 1 + 2 / (DIM * weight)  # of exp(-|z|^2 / 2 - |r - z|^2 / (DIM * weight))

    class Posterior(nn.Module):
        def __init__(self, shift: float):
            super().__init__()
            self.shift = shift

        def forward(self, s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Tensor:
            mean = (s_y - s_x) * (2 / (DIM * weight)) / precision + self.shift
            return torch.cat([mean, torch.full_like(mean, -math.log(precision))], dim=-1)

    exact = gaps(model(Gaussian(DIM, weight=weight), Variational(Posterior(0.0), samples=256)), embedded)
    assert exact["amortisation"] == pytest.approx(0, abs=0.03)
    wrong = gaps(model(Gaussian(DIM, weight=weight), Variational(Posterior(0.5), samples=256)), embedded)
    divergence = 0.5 * precision * 0.25 * DIM * weight
    assert wrong["amortisation"] == pytest.approx(divergence, abs=0.06)


def test_what_has_to_be_searched_for_is_asked_about_fewer_pairs() -> None:
    small, large = (most_pairs(Variational(Zero(), samples=4), CommonWidthGaussian(dim)) for dim in (64, 768))
    assert (small, large) == (500, 180), (
        "100 million numbers: 500 x 500 x 4 x 64 are fewer, 180 x 180 x 4 x 768 as many"
    )
    most = [most_pairs(m) for m in (Enumerate(), Amortize(Zero()), Amortize(Zero(), refine=Descend(1)), Langevin(1.0))]
    assert most[0] == most[1] > most[2] > most[3] > 0
