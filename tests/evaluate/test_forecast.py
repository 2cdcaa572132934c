"""Measures of hypotheses against loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from accord.errors import UsageError
from accord.evaluate.forecast import accuracy, crps, energy_score, fit_readout


def example(seed: int = 0, n: int = 3, k: int = 5, steps: int = 4, channels: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hypotheses = torch.randn(n, k, steps, channels, generator=generator, dtype=torch.float64)
    y = torch.randn(n, steps, channels, generator=generator, dtype=torch.float64)
    y[0, 1, 0] = y[0, 3, 0] = math.nan
    y[1, 3] = math.nan
    p = torch.rand(n, k, generator=generator, dtype=torch.float64)
    return hypotheses, y, p / p.sum(1, keepdim=True)


def by_loops(hypotheses: Tensor, y: Tensor, p: list[float], fair: bool) -> dict[str, float]:
    """Of one series."""
    k, steps, channels = hypotheses.shape
    cells = [(t, c) for t in range(steps) for c in range(channels) if not math.isnan(y[t, c])]
    seen = sorted({t for t, _ in cells})
    h = hypotheses.tolist()

    def far(a: list, b: list, at: list[tuple[int, int]]) -> float:  # type: ignore[type-arg]
        return math.sqrt(sum((a[t][c] - b[t][c]) ** 2 for t, c in at))

    def at(t: int) -> list[tuple[int, int]]:
        return [cell for cell in cells if cell[0] == t]

    true = y.tolist()
    twice = k / (k - 1) if fair else 1.0
    mean = [[sum(p[i] * h[i][t][c] for i in range(k)) for c in range(channels)] for t in range(steps)]
    pairs = [(i, j) for i in range(k) for j in range(k)]
    return {
        "min_ade": min(sum(far(h[i], true, at(t)) for t in seen) / len(seen) for i in range(k)),
        "min_fde": min(far(h[i], true, at(seen[-1])) for i in range(k)),
        "mse_best": min(far(h[i], true, cells) ** 2 / len(cells) for i in range(k)),
        "mse_mean": far(mean, true, cells) ** 2 / len(cells),
        "crps": sum(
            sum(p[i] * abs(h[i][t][c] - true[t][c]) for i in range(k))
            - twice * sum(p[i] * p[j] * abs(h[i][t][c] - h[j][t][c]) for i, j in pairs) / 2
            for t, c in cells
        )
        / len(cells),
        "energy_score": sum(p[i] * far(h[i], true, cells) for i in range(k))
        - twice * sum(p[i] * p[j] * far(h[i], h[j], cells) for i, j in pairs) / 2,
    }


@pytest.mark.parametrize(("weighted", "fair"), [(False, False), (True, False), (False, True)])
def test_measures_are_those_of_the_formulas(weighted: bool, fair: bool) -> None:
    hypotheses, y, p = example()
    p = p if weighted else torch.full_like(p, 1 / p.shape[1])
    found = accuracy(hypotheses, y, p if weighted else None, fair=fair)
    for i in range(len(y)):
        expected = by_loops(hypotheses[i], y[i], p[i].tolist(), fair)
        assert {name: float(value[i]) for name, value in found._asdict().items()} == pytest.approx(expected, rel=1e-10)


def test_one_hypothesis_has_the_absolute_error_as_crps_and_the_distance_as_energy_score() -> None:
    hypotheses, y, _ = example(k=1)
    found = accuracy(hypotheses, y)
    error = (hypotheses[:, 0] - y).nan_to_num()
    assert torch.allclose(found.crps, error.abs().sum((1, 2)) / y.isfinite().sum((1, 2)))
    assert torch.allclose(found.energy_score, error.flatten(1).norm(dim=1))
    assert torch.allclose(found.mse_best, found.mse_mean)


def test_crps_of_many_normal_draws_is_the_closed_form() -> None:
    draws = torch.randn(1, 4000, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for y in (-1.0, 0.0, 2.0):
        phi, cdf = math.exp(-y * y / 2) / math.sqrt(2 * math.pi), (1 + math.erf(y / math.sqrt(2))) / 2
        closed = y * (2 * cdf - 1) + 2 * phi - 1 / math.sqrt(math.pi)
        assert float(crps(draws, torch.full((1, 1, 1), y, dtype=torch.float64))) == pytest.approx(closed, abs=0.02)


def test_fair_scores_do_not_depend_on_how_many_are_drawn_and_the_others_do() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(4000, 1, 1, generator=generator, dtype=torch.float64)
    few, many = (torch.randn(4000, k, 1, 1, generator=generator, dtype=torch.float64) for k in (2, 16))
    expected = 1 / math.sqrt(math.pi)
    for measure in (crps, energy_score):
        assert float(measure(few, y, fair=True).mean()) == pytest.approx(expected, abs=0.03)
        assert float(measure(many, y, fair=True).mean()) == pytest.approx(expected, abs=0.03)
        assert float(measure(few, y).mean()) > float(measure(many, y).mean()) + 0.1


def test_a_series_of_which_nothing_was_observed_has_no_numbers() -> None:
    hypotheses, y, _ = example()
    y[2] = math.nan
    for value in accuracy(hypotheses, y):
        assert value[:2].isfinite().all()
        assert value[2].isnan()


def test_what_does_not_fit_is_refused() -> None:
    hypotheses, y, p = example()
    with pytest.raises(UsageError):
        accuracy(hypotheses, y[:, :2])
    with pytest.raises(UsageError):
        accuracy(hypotheses, y, 2 * p)
    with pytest.raises(UsageError):
        accuracy(hypotheses, y, p, fair=True)
    with pytest.raises(UsageError):
        accuracy(hypotheses[:, :1], y, fair=True)


def test_a_readout_gives_back_values_that_are_a_linear_map_of_the_embedding() -> None:
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(200, 8, generator=generator)
    y = (s @ torch.randn(8, 6, generator=generator) + 3).view(200, 3, 2)
    y[5, 0, 0] = math.nan
    readout = fit_readout(s, y)
    assert readout.score == pytest.approx(1, abs=1e-6)
    fresh = torch.randn(4, 5, 8, generator=generator)
    values = readout(fresh)
    assert values.shape == (4, 5, 3, 2)
    assert torch.allclose(readout(s[:5]), y[:5].double(), atol=1e-4)


def test_a_readout_of_noise_says_that_it_is_worth_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    s, y = torch.randn(100, 30, generator=generator), torch.randn(100, 4, 1, generator=generator)
    readout = fit_readout(s, y)
    assert readout.score < 0.1
    assert float((readout(s) - y.double().mean(0)).square().mean()) < 0.2  # shrunk to the mean
    with pytest.raises(UsageError):
        fit_readout(s[:9], y[:9])
