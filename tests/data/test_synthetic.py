"""Sources whose outcomes are known: formulas against loops, every outcome equally often, nothing but a function of the name."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from accord.data.digits import digits
from accord.data.samples import split
from accord.data.sources import check_source, open_source
from accord.data.synthetic import NEAR, Ellipse, Forks, Jump, Torus, parse
from accord.errors import UsageError

SOURCES = [
    "forks",
    "forks:m=2,n=300,d=1,noise=0.1,p=0.3,seed=5",
    "ellipse",
    "torus",
    "torus:m=3,n=100",
    "jump",
    "jump:both=0",
]


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_a_function_of_its_name(name: str) -> None:
    one, two = open_source(name), open_source(name)
    everything = np.arange(len(one))
    assert torch.equal(one.batch(everything), two.batch(everything)) and one.fingerprint == two.fingerprint
    assert bool(one.ok.all()) and one.name == name and not one.bad
    assert check_source(name).fingerprint == one.fingerprint
    head, _, rest = name.partition(":")
    other = open_source(f"{head}:{rest + ',' if rest and 'seed' not in rest else ''}seed=6")
    changes = head != "jump" or "both=0" in name
    assert (other.fingerprint != one.fingerprint) == changes, "another seed is other data"


def test_more_samples_and_other_noise_keep_functions() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    assert np.array_equal(Forks(n=10).modes(x), Forks(n=999, noise=0.2, p=0.9).modes(x))
    assert Forks(m=6).modes(x).shape == (50, 6, 2, 2)


def test_columns_are_named() -> None:
    assert open_source("forks:m=2").features == ("x0", "x1", "y0", "y1", "y2", "y3")
    assert open_source("ellipse").features == ("x0", "y0", "y1")
    assert open_source("torus:m=1").features == ("x0", "y0", "y1")
    assert open_source("forks:d=3,m=1").shape == (5,)


def test_forks_modes_against_a_loop() -> None:
    forks = Forks(m=3, d=2, seed=4)
    rng = np.random.default_rng([4, *b"forks functions"])
    weights, phase = rng.normal(0, 1.5, (3, 2, 2)), rng.uniform(0, 2 * math.pi, (3, 2))
    turn, start = rng.normal(0, 1.0, (3, 2)), rng.uniform(0, 2 * math.pi, 3)
    x = np.random.default_rng(1).uniform(-1, 1, (7, 2))
    modes = forks.modes(x)
    for i in range(7):
        for j in range(3):
            angle = sum(turn[j, k] * x[i, k] for k in range(2)) + start[j]
            middle = [0.5 * math.sin(sum(weights[j, c, k] * x[i, k] for k in range(2)) + phase[j, c]) for c in range(2)]
            for b in (0, 1):
                end = [m + (2 * b - 1) * u for m, u in zip(middle, (math.cos(angle), math.sin(angle)), strict=True)]
                np.testing.assert_allclose(modes[i, j, b], end, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(modes[:, :, 0] - modes[:, :, 1], axis=-1), 2, atol=1e-12)
    np.testing.assert_allclose(forks.average(x), modes.mean(2).reshape(7, 6), atol=1e-12)


def test_forks_functions_are_smooth() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    step = np.linalg.norm(Forks(m=10).modes(x + 1e-3) - Forks(m=10).modes(x), axis=-1)
    assert step.max() < 0.02


def test_forks_outcomes_are_all_of_them_and_equally_frequent() -> None:
    forks = Forks(m=4, n=16_000)
    x, y, b = forks.sample()
    outcomes = forks.outcomes(x[:3])
    assert outcomes.shape == (3, 16, 8)
    for k in range(16):
        for j in range(4):
            np.testing.assert_array_equal(outcomes[1, k, 2 * j : 2 * j + 2], forks.modes(x[:3])[1, j, (k >> j) & 1])
    counts = np.bincount((b << np.arange(4)).sum(1), minlength=16)
    assert ((counts - 1000) ** 2 / 1000).sum() < 37.7, "chi-square of 15 degrees of freedom, p = 0.001"
    true = np.take_along_axis(forks.modes(x), b[:, :, None, None], 2)[:, :, 0].reshape(y.shape)
    assert abs((y - true).std() - 0.05) < 1e-3 and np.abs(y - true).max() < NEAR
    assert abs(Forks(p=0.2, n=20_000).sample()[2].mean() - 0.2) < 0.01
    assert abs(np.corrcoef(b.T)[np.triu_indices(4, 1)]).max() < 0.04, "branches are independent"


def test_the_source_holds_the_sample() -> None:
    for name, source in (("forks", Forks()), ("ellipse", Ellipse()), ("torus", Torus())):
        x, y, _ = source.sample()
        samples = open_source(name)
        both = np.concatenate([x, y], 1).astype(np.float32)
        assert np.array_equal(samples.batch(np.arange(len(samples))).numpy(), both)


def test_score_of_forks_counts_outcomes() -> None:
    forks = Forks(m=3, n=20)
    x, y, b = forks.sample()
    outcomes = forks.outcomes(x)
    coverage, precision = forks.score(x, outcomes)
    assert (coverage == 1).all() and (precision == 1).all()
    coverage, precision = forks.score(x, np.concatenate([outcomes[:, :2], outcomes[:, :2], outcomes[:, :1] + 9], 1))
    np.testing.assert_allclose(coverage, 2 / 8)
    np.testing.assert_allclose(precision, 4 / 5)
    coverage, precision = forks.score(x, y[:, None])
    assert np.allclose(coverage, 1 / 8) and (precision == 1).all()
    for wrong in (forks.average(x), forks.impossible(x, b, kind="half"), forks.impossible(x, b, kind="other")):
        coverage, precision = forks.score(x, wrong[:, None])
        assert (coverage == 0).all() and (precision == 0).all()


def test_score_of_forks_against_a_loop_over_all_outcomes() -> None:
    forks, rng = Forks(m=3, n=12, seed=2), np.random.default_rng(0)
    x, _, _ = forks.sample()
    outcomes = forks.outcomes(x)
    predictions = outcomes[:, rng.integers(8, size=30)] + rng.normal(0, 0.15, (12, 30, 6))
    coverage, precision = forks.score(x, predictions, delta=0.3)
    for i in range(12):
        near = np.zeros((30, 8), bool)
        for k in range(30):
            for mode in range(8):
                branch = (predictions[i, k] - outcomes[i, mode]).reshape(3, 2)
                near[k, mode] = all(np.linalg.norm(branch[j]) <= 0.3 for j in range(3))
        assert coverage[i] == near.any(0).mean() and precision[i] == near.any(1).mean()
    assert 0 < precision.mean() < 1


def test_score_of_forks_scales() -> None:
    forks = Forks(m=10, n=4)
    x, _, _ = forks.sample()
    coverage, precision = forks.score(x, forks.outcomes(x))
    assert (coverage == 1).all() and (precision == 1).all()


def test_impossible_outcomes_differ_in_one_branch_only() -> None:
    forks = Forks(m=5, n=500)
    x, _, b = forks.sample()
    true = np.take_along_axis(forks.modes(x), b[:, :, None, None], 2)[:, :, 0]
    for kind in ("other", "half"):
        wrong = forks.impossible(x, b, kind=kind, seed=3)
        assert np.array_equal(wrong, forks.impossible(x, b, kind=kind, seed=3))
        changed = (wrong.reshape(true.shape) != true).any(-1)
        assert (changed.sum(1) == 1).all() and (changed.sum(0) > 60).all()
    ends = forks.modes(x)
    half = forks.impossible(x, b, kind="half").reshape(true.shape)
    distance = np.linalg.norm(half[:, :, None] - ends, axis=-1).min(-1).max(1)
    np.testing.assert_allclose(distance, 1, atol=1e-12)
    with pytest.raises(UsageError, match="kind"):
        forks.impossible(x, b, kind="nonsense")


def test_ellipse_is_its_formula() -> None:
    ellipse = Ellipse()
    for x in (0.0, 0.3, 1.0):
        for theta in (0.0, 1.1, 4.0):
            first = (1.5 * x + 2 * (1 - x)) * math.exp(2 * x) * math.cos(theta)
            second = (2 * x + 1.5 * (1 - x)) * math.exp(2 * x) * math.sin(theta)
            np.testing.assert_allclose(ellipse.points(np.array([x]), np.array([theta]))[0], [first, second], rtol=1e-12)
    np.testing.assert_allclose(ellipse.radii(np.array([0.0]))[0], [2.0, 1.5])  # the course's own figures
    x, y, theta = Ellipse(n=20_000).sample()
    residual = y - ellipse.points(x[:, 0], theta)
    assert abs(residual.std() - 0.05) < 1e-3 and abs(residual.mean()) < 2e-3
    for u in (x[:, 0], theta / (2 * math.pi)):
        counts = np.histogram(u, 20, (0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8, "uniform: chi-square of 19 degrees of freedom, p = 0.001"


def test_torus_has_circles_of_the_radii_x_tells() -> None:
    x, y, theta = Torus(m=3, n=5000, noise=0.0).sample()
    radius = np.linalg.norm(y.reshape(-1, 3, 2), axis=-1)
    np.testing.assert_allclose(radius, 1 + 0.5 * x, atol=1e-12)
    assert (np.abs(np.corrcoef(np.concatenate([x, np.cos(theta), np.sin(theta)], 1).T) - np.eye(9)) < 0.06).all()
    _, y, _ = Torus(spread=0.0, noise=0.0).sample()
    np.testing.assert_allclose(np.linalg.norm(y.reshape(-1, 2, 2), axis=-1), 1, atol=1e-12)


def test_jump_moves_the_digit_to_either_end() -> None:
    pixels, labels = digits()
    samples = open_source("jump")
    assert samples.shape == (1, 16, 16) and len(samples) == 2 * 1797 and samples.classes == tuple("0123456789")
    images = samples.batch(np.arange(len(samples))).numpy()[:, 0]
    for i in (0, 1, 2, 3, 700, 3593):
        digit = pixels[i // 2, 0]
        assert np.array_equal(images[i, :8, 4:12], digit)
        start = 8 * (i % 2)
        assert np.array_equal(images[i, 8:, start : start + 8], digit)
        assert images[i].sum() == 2 * int(digit.sum()), "nothing else is there"
        assert samples.labels is not None and samples.labels[i] == labels.labels[i // 2]


def test_both_outcomes_of_a_digit_are_on_one_side_of_the_split() -> None:
    samples = open_source("jump")
    assert np.array_equal(samples.content[::2], samples.content[1::2])
    train, held_out = split(samples, 0.2, 0)
    assert not set(samples.content[train]) & set(samples.content[held_out])
    one = open_source("jump:both=0")
    assert len(one) == 1797 and set(one.content) == set(samples.content)
    assert 800 < Jump(both=0).sample()[2].sum() < 1000


@pytest.mark.parametrize(
    ("name", "message", "help"),
    [
        ("forks:sed=1", "forks has no parameter 'sed'", "did you mean 'seed'"),
        ("forks:k=1", "no parameter 'k'", "known: m, n, d, noise, p, seed"),
        ("forks:", "no parameter ''", "known"),
        ("forks:m", "m is given no value", "m=VALUE"),
        ("forks:m=1,m=2", "m is given twice", "once"),
        ("forks:m=two", "expected a whole number", "for example"),
        ("forks:m=1.5", "expected a whole number", "for example"),
        ("forks:m=0", "m = 0 is out of bounds", "from 1 to 20"),
        ("forks:n=1", "out of bounds", "from 2"),
        ("forks:noise=nan", "out of bounds", "a number from 0 to 1"),
        ("forks:noise=-1", "out of bounds", "a number from 0 to 1"),
        ("forks:p=2", "out of bounds", "from 0 to 1"),
        ("ellipse:m=2", "ellipse has no parameter 'm'", "known: n, alpha"),
        ("ellipse:alpha=0", "out of bounds", "from 0.01"),
        ("torus:spread=1", "out of bounds", "from 0 to 0.9"),
        ("jump:both=2", "out of bounds", "from 0 to 1"),
        ("fork", "no such source", 'did you mean "forks"?'),
        ("elipse:n=3", "no such source", 'did you mean "ellipse"?'),
    ],
)
def test_what_a_name_cannot_say(name: str, message: str, help: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(name)
    assert caught.value.exit_code == 2
    assert message in caught.value.message and help in (caught.value.help or "")
    assert (caught.value.where or "").split(":", maxsplit=1)[0] == name.split(":", maxsplit=1)[0]


def test_python_is_bounded_as_well() -> None:
    with pytest.raises(UsageError, match=r"m = 2\.0 is out of bounds"):
        Forks(m=2.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="delta"):
        Forks(m=1, n=2).score(np.zeros((2, 2)), np.zeros((2, 1, 2)), delta=1.0)
    with pytest.raises(UsageError, match="too many"):
        Forks(m=17).outcomes(np.zeros((1, 2)))
    assert parse("forks:m= 3 , n=9") == Forks(m=3, n=9)


def test_a_folder_of_that_name_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "forks", np.zeros((2, 2)))
    (tmp_path / "torus").mkdir()
    assert open_source("torus").kind == "vector"
    with pytest.raises(ValueError, match=r"no image|empty|nothing"):
        open_source("./torus")
