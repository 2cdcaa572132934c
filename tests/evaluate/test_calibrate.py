"""Conformal p-values: the exact law of their coverage, brute force on all small cases, and everything that must be refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from accord.diagnostics import Verdict
from accord.errors import ArtifactError, Collapsed, DataError, UsageError
from accord.evaluate import calibrate as c

NONE = np.zeros(0, np.uint64)
ALPHAS = (0.01, 0.05, 0.1, 0.2, 1 / 3, 0.5)


def made(energies: object, content: np.ndarray = NONE) -> c.Calibration:
    return c.calibrate(np.asarray(energies, float), content=content, model="m", preprocess="p")


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_and_thresholds_are_brute_force_for_all_small_n(ties: bool) -> None:
    rng = np.random.default_rng(0)
    for n in range(2, 201):
        energies = rng.integers(0, max(2, n // 3), n).astype(float) if ties else rng.normal(size=n)
        energies[:2] = [-1, 99]  # never constant
        calibration = made(energies)
        asked = np.unique(np.r_[energies, energies + 1e-9, energies - 1e-9, -1e9, 1e9])
        at_least = 1 + (energies[:, None] >= asked).sum(0)
        assert np.array_equal(calibration.p_values(asked), at_least / (n + 1))
        for alpha in ALPHAS:
            over, under = Fraction(repr(alpha)).as_integer_ratio()
            rank = next((k for k in range(1, n + 1) if k * under >= (n + 1) * (under - over)), n + 1)
            assert c.conformal_rank(n, alpha) == rank
            if rank == n + 1:
                with pytest.raises(DataError) as refused:
                    calibration.threshold(alpha)
                need = int(refused.value.message.split("at least ")[1].split(" ")[0])
                assert refused.value.exit_code == 3 and n < need
                assert c.conformal_rank(need, alpha) <= need and c.conformal_rank(need - 1, alpha) == need
                continue
            assert calibration.threshold(alpha) == sorted(energies)[rank - 1]
            assert np.array_equal(calibration.in_accord(asked, alpha), at_least * under > over * (n + 1))


@pytest.mark.parametrize("n", [19, 99, 200, 1000])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_coverage_follows_its_exact_beta_law(n: int, alpha: float) -> None:
    """Energies uniform in [0, 1]: the coverage of a threshold is the threshold itself, and Beta(n + 1 - l, l), l = floor((n+1) alpha)."""
    rng, draws = np.random.default_rng(20_240 + n), 2000
    left = math.floor((n + 1) * Fraction(repr(alpha)))
    if left == 0:
        with pytest.raises(DataError, match="at least 99 calibration pairs"):
            made(rng.random(n)).threshold(alpha)
        return
    samples = np.sort(rng.random((draws, n)), axis=1)
    coverage = np.array([c.Calibration(energies, NONE, "", "").threshold(alpha) for energies in samples])
    law = scipy.stats.beta(n + 1 - left, left)
    assert abs(coverage.mean() - law.mean()) < 4 * law.std() / math.sqrt(draws)
    assert 1 - alpha - 4 * law.std() / math.sqrt(draws) <= coverage.mean()
    assert coverage.mean() <= 1 - alpha + 1 / (n + 1) + 4 * law.std() / math.sqrt(draws)
    assert scipy.stats.kstest(coverage, law.cdf).pvalue > 1e-3
    wrong = scipy.stats.beta(n + 2 - left, left - 1) if left > 1 else scipy.stats.beta(n - left, left + 1)
    assert scipy.stats.kstest(coverage, wrong.cdf).pvalue < 1e-3  # one order statistic off would be seen


def test_p_values_of_exchangeable_pairs_are_valid() -> None:
    rng = np.random.default_rng(1)
    known, new = np.sort(rng.gamma(2, size=(4000, 50)), axis=1), rng.gamma(2, size=(4000, 1))
    p = np.concatenate([c.Calibration(k, NONE, "", "").p_values(f) for k, f in zip(known, new, strict=True)])
    for alpha in (0.05, 0.1, 0.5):
        assert (p <= alpha).mean() <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / 4000)
        assert (p <= alpha).mean() >= alpha - 1 / 51 - 4 * math.sqrt(alpha * (1 - alpha) / 4000)


def test_decimal_rates_are_taken_as_written() -> None:
    assert c.conformal_rank(9, 0.1) == 9 and c.conformal_rank(99, 0.01) == 99 and c.conformal_rank(999, 0.001) == 999
    assert c.conformal_rank(9, 0.7) == 3  # in floating point 10 * (1 - 0.7) is 3.0000000000000004
    for bad in (0.0, 1.0, -0.1, 1.5, math.nan):
        with pytest.raises(UsageError, match="alpha"):
            c.exact(bad)


def test_an_impossible_level_is_refused_or_infinite_on_request() -> None:
    calibration = made(np.arange(19))
    assert calibration.threshold(0.05) == 18
    with pytest.raises(DataError, match="needs at least 99 calibration pairs, there are 19") as refused:
        calibration.threshold(0.01)
    assert refused.value.exit_code == 3 and "0.05" in (refused.value.help or "")
    assert calibration.threshold(0.01, unbounded=True) == math.inf
    assert calibration.in_accord(np.array([1e300, math.inf]), 0.01, unbounded=True).tolist() == [True, True]


def test_nan_is_never_in_accord() -> None:
    calibration = made(np.arange(19))
    p = calibration.p_values(np.array([math.nan, -math.inf, math.inf, 0.0]))
    assert np.isnan(p[:2]).all() and p[2] == 1 / 20 and p[3] == 1.0
    for unbounded in (False, True):
        found = calibration.in_accord(np.array([math.nan, -math.inf, 0.0]), 0.1, unbounded=unbounded)
        assert found.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("energies", "message"),
    [
        ([1.0, math.nan, 2.0], "1 of 3 calibration energies are not finite"),
        ([1.0, math.inf], "not finite"),
        ([2.5] * 10, "all 10 calibration energies are equal"),
        ([0.0] * 10, "equal"),
        ([1e6, 1e6 + 1e-6], "equal"),
        ([1.0], "at least 2"),
        ([], "at least 2"),
    ],
)
def test_energies_that_cannot_calibrate_are_refused(energies: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        c.calibrate(np.array(energies), content=NONE, model="m", preprocess="p", where="digits")
    assert refused.value.exit_code == 3 and refused.value.where == "digits" and refused.value.help


def test_a_collapsed_model_is_refused_with_the_remedy() -> None:
    collapse = Verdict("constant", "all alike", "raise the weight")
    with pytest.raises(Collapsed, match="all alike") as refused:
        c.calibrate(np.arange(9.0), content=NONE, model="m", preprocess="p", collapse=collapse)
    assert (
        refused.value.kind == "constant" and refused.value.help == "raise the weight" and refused.value.exit_code == 6
    )


def test_overlap_is_found_and_refused() -> None:
    calibration = made([1, 2, 3], np.array([7, 5, 7, 2**64 - 1], np.uint64))
    asked = np.array([1, 7, 2**64 - 1, 8], np.uint64)
    assert calibration.overlap(asked).tolist() == [False, True, True, False]
    with pytest.raises(DataError, match="2 of 4 items") as refused:
        calibration.refuse_overlap(asked, where="new/")
    assert "--allow-overlap" in (refused.value.help or "") and refused.value.exit_code == 3
    calibration.refuse_overlap(asked[[0, 3]])


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, c.Calibration]:
    path = tmp_path / "calibration.json"
    calibration = made(np.random.default_rng(0).normal(size=30), np.array([3, 2**63 + 5, 1], np.uint64))
    c.save_calibration(calibration, path)
    return path, calibration


def test_saved_and_loaded_is_the_same(saved: tuple[Path, c.Calibration]) -> None:
    path, calibration = saved
    loaded = c.load_calibration(path, model="m", preprocess="p")
    assert np.array_equal(loaded.energies, calibration.energies)
    assert loaded.content.tolist() == [1, 3, 2**63 + 5]
    assert sorted(p.name for p in path.parent.iterdir()) == ["calibration.content.npy", "calibration.json"]
    c.save_calibration(calibration, path)  # replacing is fine
    assert c.load_calibration(path, model="m", preprocess="p").threshold(0.1) == calibration.threshold(0.1)


def test_a_calibration_is_bound_to_its_model_and_settings(saved: tuple[Path, c.Calibration]) -> None:
    path, _ = saved
    for model, preprocess, key in (("other", "p", "model"), ("m", "other", "preprocess")):
        with pytest.raises(ArtifactError, match="made with other") as refused:
            c.load_calibration(path, model=model, preprocess=preprocess)
        assert refused.value.exit_code == 4 and (refused.value.where or "").endswith(f"calibration.json:{key}")


def damage(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"energies": [1.0]},
        {"energies": [2.0, 1.0]},
        {"energies": [1.0, 1.0]},
        {"energies": ["1", "2"]},
        {"energies": [1.0, float("nan")]},
        {"energies": None},
        {"content_sha256": "0" * 64},
    ],
)
def test_damaged_values_are_refused(saved: tuple[Path, c.Calibration], changes: dict[str, object]) -> None:
    path, _ = saved
    damage(path, **changes)
    with pytest.raises(ArtifactError, match="damaged calibration") as refused:
        c.load_calibration(path, model="m", preprocess="p")
    assert refused.value.exit_code == 4 and refused.value.help


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"format": 1e999}', "\xff"])
def test_files_that_are_not_ours_are_refused(saved: tuple[Path, c.Calibration], text: str) -> None:
    path, _ = saved
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match="calibration"):
        c.load_calibration(path, model="m", preprocess="p")


def test_a_missing_calibration_says_whether_evaluating_can_help(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(ArtifactError) as caught:
            c.load_calibration(tmp_path / "calibration.json", model="m", preprocess="p")
        assert caught.value.code == "E461" and caught.value.where == str(tmp_path / "calibration.json")
        return str(caught.value)

    assert "not calibrated yet" in said() and f"accord evaluate {tmp_path}" in said()
    verdict = {"verdict": "constant", "explanation": "all alike", "remedy": "raise the variance"}
    (tmp_path / "evaluation.json").write_text(json.dumps({"collapse": verdict}))
    assert "it has collapsed (constant): all alike" in said() and "train another run: raise the variance" in said()
    (tmp_path / "evaluation.json").write_text(json.dumps({"collapse": verdict | {"verdict": None}}))
    assert "was evaluated, but not calibrated" in said() and "says why" in said()
    for damaged in ("[]", "{", '{"collapse": {"verdict": "x"}}'):
        (tmp_path / "evaluation.json").write_text(damaged)
        assert "accord evaluate" in said()


def test_a_missing_or_pickled_content_file_is_refused(saved: tuple[Path, c.Calibration]) -> None:
    path, _ = saved
    content = path.with_name("calibration.content.npy")
    np.save(content, np.array([object()]), allow_pickle=True)
    damage(path, content_sha256=hashlib.sha256(content.read_bytes()).hexdigest())
    with pytest.raises(ArtifactError, match="damaged"):
        c.load_calibration(path, model="m", preprocess="p")
    content.unlink()
    with pytest.raises(ArtifactError, match="cannot read"):
        c.load_calibration(path, model="m", preprocess="p")


def test_a_save_that_fails_leaves_the_old_one(
    saved: tuple[Path, c.Calibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calibration = saved
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="No space left") as refused:
        c.save_calibration(dataclasses.replace(calibration, energies=calibration.energies + 1), path)
    assert refused.value.exit_code == 5  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 2
    c.load_calibration(path, model="m", preprocess="p")


def test_model_hash_sees_every_weight_buffer_name_and_type() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    same = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    same.load_state_dict(model.state_dict())
    first = c.model_hash(model)
    assert c.model_hash(same) == first == c.model_hash(model.eval())
    with torch.no_grad():
        same[0].weight[1, 2] += 1e-7
    assert c.model_hash(same) != first
    same.load_state_dict(model.state_dict())
    same[1].running_mean[0] += 1
    assert c.model_hash(same) != first
    assert c.model_hash(model.double()) != first
    assert c.model_hash(torch.nn.Sequential(*model, torch.nn.ReLU())) == c.model_hash(model)
    assert c.text_hash("a", "bc") != c.text_hash("ab", "c")


def test_model_hash_tells_equal_bytes_apart() -> None:
    def holding(name: str, value: torch.Tensor) -> torch.nn.Module:
        module = torch.nn.Module()
        module.register_buffer(name, value)
        return module

    kinds = [("a", torch.zeros(4)), ("b", torch.zeros(4)), ("a", torch.zeros(4).int()), ("a", torch.zeros(2, 2))]
    assert len({c.model_hash(holding(*kind)) for kind in kinds}) == 4
