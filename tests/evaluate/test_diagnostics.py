"""Each diagnostic against a closed form, a loop, or an implementation by others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from accord import diagnostics as d


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def with_singular_values(values: torch.Tensor, rows: int, seed: int = 0) -> torch.Tensor:
    """A matrix (rows, len(values)) with exactly these singular values and columns of mean 0."""
    n = len(values)
    u = torch.linalg.qr(randn(rows, n, seed=seed).double() - randn(rows, n, seed=seed).double().mean(0)).Q
    u = torch.linalg.qr(u - u.mean(0)).Q
    v = torch.linalg.qr(randn(n, n, seed=seed + 1).double()).Q
    return u * values.double() @ v.T


def rankme_loop(values: list[float]) -> float:
    total = sum(values)
    return math.exp(-sum((v / total + 1e-7) * math.log(v / total + 1e-7) for v in values))


def test_spectrum_is_that_of_the_svd_on_either_side() -> None:
    for shape in ((40, 7), (7, 40)):
        s = randn(*shape).double()
        assert torch.allclose(d.spectrum(s), torch.linalg.svdvals(s), rtol=1e-9)
        centred = torch.linalg.svdvals(s - s.mean(0))
        assert torch.allclose(d.spectrum(s, centre=True), centred, rtol=1e-6, atol=1e-7)


def test_rankme_of_rank_one_features_is_the_golden_value() -> None:
    """1.003 for at least 2,048 dimensions; an epsilon of 1e-5 would read 1.27."""
    assert d.effective_rank_of(torch.eye(2048)[0].double()) == pytest.approx(1.003, abs=1e-3)
    rank_one = randn(400, 1) @ randn(1, 256, seed=1)  # rounding of float32 adds nothing to that
    assert d.effective_rank(rank_one) == pytest.approx(rankme_loop([1.0] + [0.0] * 255), abs=2e-4)


def test_rankme_is_the_entropy_of_the_singular_values() -> None:
    values = torch.tensor([5.0, 3.0, 1.0, 0.5])
    s = with_singular_values(values, 50)
    assert d.effective_rank(s) == pytest.approx(rankme_loop(values.tolist()), rel=1e-9)
    assert d.effective_rank(with_singular_values(torch.ones(16), 64)) == pytest.approx(16, rel=1e-5)
    assert d.effective_rank(1000 * s) == pytest.approx(d.effective_rank(s), rel=1e-9)


def test_rankme_of_constants_and_zeros_is_one() -> None:
    assert d.effective_rank(torch.full((64, 32), 3.0)) == pytest.approx(1, abs=1e-4)
    assert d.effective_rank(torch.zeros(64, 32)) == 1.0


def test_std_statistics_count_dimensions() -> None:
    s = torch.stack([torch.linspace(-1, 1, 101), torch.linspace(-0.01, 0.01, 101), torch.full((101,), 7.0)], 1)
    least, mean, below = d.std_statistics(s)
    expected = s.double().numpy().std(0, ddof=1)
    assert least == 0 and mean == pytest.approx(expected.mean(), rel=1e-6) and below == pytest.approx(2 / 3)


def test_std_of_unit_length_gaussians_is_one_over_root_dim() -> None:
    s = torch.nn.functional.normalize(randn(4000, 64))
    assert d.std_statistics(s).mean == pytest.approx(0.125, abs=1e-2)


def test_relative_spread_is_one_when_centred_and_scale_free() -> None:
    s = randn(500, 8)
    s = s - s.mean(0)
    assert d.relative_spread(s) == pytest.approx(1, abs=1e-6)
    assert d.relative_spread(s + 100) == pytest.approx(d.relative_spread(7 * s + 700), rel=1e-6)
    assert d.relative_spread(s + 100) < 0.011
    assert d.relative_spread(torch.ones(9, 3)) == 0 == d.relative_spread(torch.zeros(9, 3))


def test_off_diagonal_correlation_against_numpy() -> None:
    s = randn(300, 6) @ randn(6, 6, seed=1)
    corr = np.abs(np.corrcoef(s.double().numpy().T))
    expected = (corr.sum() - 6) / 30
    assert d.off_diagonal_correlation(s) == pytest.approx(expected, rel=1e-9)
    assert d.off_diagonal_correlation(s * torch.arange(1, 7) + 5) == pytest.approx(expected, rel=1e-5)


def test_off_diagonal_correlation_at_its_bounds() -> None:
    one = randn(100, 1)
    assert d.off_diagonal_correlation(one * torch.tensor([1.0, -2.0, 0.5])) == pytest.approx(1, abs=1e-6)
    columns = torch.cat([one, randn(100, 1, seed=3), torch.full((100, 2), 0.3)], 1)
    alone = d.off_diagonal_correlation(columns[:, :2])
    assert d.off_diagonal_correlation(columns) == pytest.approx(alone, rel=1e-9)  # constants do not dilute
    assert d.off_diagonal_correlation(columns[:, 1:]) == 0.0
    n = 20_000
    assert d.off_diagonal_correlation(randn(n, 10)) == pytest.approx(math.sqrt(2 / (math.pi * n)), rel=0.3)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.3])
def test_alpha_req_recovers_an_exact_power_law(alpha: float) -> None:
    eigenvalues = torch.arange(1, 201).double() ** -alpha
    assert d.alpha_req_of(eigenvalues) == pytest.approx(alpha, rel=1e-9)
    s = with_singular_values(eigenvalues[:64].sqrt(), 300)
    found = d.alpha_req(s)
    assert found == pytest.approx(alpha, rel=1e-6)
    shifted = d.alpha_req(s + 50)
    assert shifted == pytest.approx(alpha, rel=1e-4)  # of the covariance: an offset does not matter


def test_alpha_req_reads_ranks_11_to_500_only() -> None:
    rank = torch.arange(1, 1001).double()
    eigenvalues = torch.where(rank <= 10, 1e6, torch.where(rank <= 500, rank**-1.5, 1e-9 / rank))
    assert d.alpha_req_of(eigenvalues) == pytest.approx(1.5, rel=1e-9)
    short = torch.arange(1, 13).double() ** -1.5  # too short for that range: all of it
    assert d.alpha_req_of(short) == pytest.approx(1.5, rel=1e-9)
    assert d.alpha_req_of(torch.tensor([1.0, 0.5])) is None
    assert d.alpha_req(torch.ones(20, 8)) is None


def lidar_by_definition(views: np.ndarray, delta: float = 1e-4) -> float:
    n, q, dim = views.shape
    centre = views.mean(1)
    between = np.zeros((dim, dim))
    within = np.zeros((dim, dim))
    for i in range(n):
        between += np.outer(centre[i] - centre.mean(0), centre[i] - centre.mean(0)) / n
        for j in range(q):
            within += np.outer(views[i, j] - centre[i], views[i, j] - centre[i]) / (n * q)
    values, vectors = np.linalg.eigh(within + delta * np.eye(dim))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return rankme_loop(np.linalg.eigvalsh(root @ between @ root).clip(0).tolist())


def test_lidar_is_its_definition() -> None:
    views = randn(30, 1, 6) @ torch.diag(torch.tensor([3.0, 2, 1, 1, 0.1, 0])) + 0.3 * randn(30, 5, 6, seed=1)
    assert d.lidar(views) == pytest.approx(lidar_by_definition(views.double().numpy()), rel=1e-8)


def test_lidar_counts_directions_between_samples_that_views_do_not_blur() -> None:
    centre, noise = randn(400, 1, 12), randn(400, 8, 12, seed=1)
    useful = torch.tensor([1.0] * 4 + [0.0] * 8)
    views = centre * useful + noise * (0.01 * useful + 1.0 * (1 - useful))
    assert d.lidar(views) == pytest.approx(4, abs=0.3)
    assert d.effective_rank(views.flatten(0, 1)) > 10  # which RankMe cannot see
    shuffled = views.flatten(0, 1)[torch.randperm(3200, generator=generator())].view(400, 8, 12)
    assert d.lidar(shuffled) > 9  # groups that are not views: a wrong answer, not a crash


def test_lidar_needs_groups() -> None:
    with pytest.raises(ValueError, match="samples >= 2, views >= 2"):
        d.lidar(randn(10, 1, 4))
    with pytest.raises(ValueError, match="views"):
        d.lidar(randn(10, 4))


@pytest.mark.parametrize("step", [1e-9, 0.5])
def test_auroc_is_that_of_scikit_learn_with_and_without_ties(step: float) -> None:
    low, high = randn(200), 0.7 + randn(133, seed=1)
    low, high = ((v / step).round() * step for v in (low.double(), high.double()))
    truth = np.r_[np.zeros(200), np.ones(133)]
    assert d.auroc(low, high) == pytest.approx(roc_auc_score(truth, torch.cat([low, high]).numpy()), abs=1e-12)


def test_auroc_at_its_bounds() -> None:
    low = torch.arange(5).float()
    assert d.auroc(low, low + 10) == 1.0 and d.auroc(low + 10, low) == 0.0
    assert d.auroc(torch.zeros(4), torch.zeros(3)) == 0.5
    assert d.auroc(low.view(1, 5), low + 10) == 1.0
    assert d.auroc(torch.tensor([-math.pi]), torch.tensor([-math.pi, 0.0])) == 0.75


def test_d_prime_of_gaussians_and_of_constants() -> None:
    assert d.d_prime(randn(200_000), 1.5 + 2 * randn(200_000, seed=1)) == pytest.approx(1.5 / math.sqrt(2.5), abs=0.02)
    low, high = torch.tensor([0.0, 1.0]), torch.tensor([3.0, 5.0])
    assert d.d_prime(low, high) == pytest.approx(3.5 / math.sqrt((0.5 + 2.0) / 2))
    one = torch.ones(5)
    assert d.d_prime(one, one) == 0.0 and d.d_prime(one, 2 * one) == math.inf and d.d_prime(2 * one, one) == -math.inf


def test_flatness_is_the_variance_over_y_relative_to_the_mean() -> None:
    energies = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    assert d.flatness(energies) == pytest.approx(0.5 / 3.5)
    assert d.flatness(torch.arange(4.0)[:, None].expand(4, 7)) == 0.0  # depends on x alone: flat in y
    assert d.flatness(torch.zeros(3, 3)) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_by_all(bad: float) -> None:
    s = randn(20, 4)
    s[3, 1] = bad
    for function in (
        d.spectrum,
        d.effective_rank,
        d.std_statistics,
        d.relative_spread,
        d.off_diagonal_correlation,
        d.alpha_req,
        d.flatness,
        d.verdict,
    ):
        with pytest.raises(ValueError, match="1 of 80 values are not finite"):
            function(s)
    with pytest.raises(ValueError, match="not finite"):
        d.lidar(s.view(5, 4, 4))
    for function in (d.auroc, d.d_prime):
        with pytest.raises(ValueError, match="not finite"):
            function(s[:, 1], torch.zeros(3))
        with pytest.raises(ValueError, match="at least one energy"):
            function(torch.zeros(3), torch.zeros(0))


def test_wrong_shapes_are_refused() -> None:
    for bad in (torch.zeros(3), torch.zeros(0, 3), torch.zeros(2, 2, 2)):
        with pytest.raises(ValueError, match="expected a matrix"):
            d.effective_rank(bad)
    with pytest.raises(ValueError, match="batch >= 2"):
        d.std_statistics(torch.zeros(1, 3))


def test_verdict_names_what_happened() -> None:
    healthy = randn(500, 64)
    assert d.verdict(healthy, energy_auroc=0.99) is None
    constant = d.verdict(torch.ones(500, 64) + 0.01 * healthy)
    assert constant is not None and constant.kind == "constant"
    low_rank = d.verdict(healthy[:, :3] @ randn(3, 64, seed=1))
    assert low_rank is not None and low_rank.kind == "dimensional" and "3" in low_rank.explanation
    flat = d.verdict(healthy, energy_auroc=0.52)
    assert flat is not None and flat.kind == "flat energy" and "0.52" in flat.explanation
    assert all(v.remedy for v in (constant, low_rank, flat))


def test_verdict_asks_no_more_dimensions_than_there_can_be() -> None:
    narrow = randn(500, 2) @ randn(2, 256, seed=1)
    found = d.verdict(narrow)
    assert found is not None and found.kind == "dimensional"
    assert d.verdict(narrow, values=2) is None  # samples of two numbers
    assert d.verdict(randn(50, 1)) is None
    assert d.rank_limit(10_000, 2048) == 8 and d.rank_limit(10_000, 40) == 4 and d.rank_limit(10_000, 2) == 1.1


def test_a_flat_energy_of_few_pairs_has_to_be_certain() -> None:
    """Two standard errors of chance below .6: .236 for 12 pairs, .041 for 400."""
    assert d.flat(0.576, "train longer") is not None, "a figure that is exact"
    assert d.flat(0.576, "train longer", pairs=12) is None
    assert d.flat(0.576, "train longer", pairs=400) is None
    assert d.flat(0.556, "train longer", pairs=400) is not None
    assert d.flat(0.35, "train longer", pairs=12) is not None
    rows = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    assert d.verdict(rows, energy_auroc=0.5, pairs=8) is None
    assert d.verdict(rows, energy_auroc=0.5, pairs=100) is not None
