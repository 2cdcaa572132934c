"""Probes on data whose answer is known: separable, noise, a known Bayes rate; and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from accord.evaluate import probe
from accord.evaluate.probe import Labelled, Moments, few_label_probe, knn_probe, linear_probe


def blobs(n: int, classes: int, dim: int, spread: float, seed: int) -> tuple[Labelled, Labelled]:
    """Gaussian blobs of unit noise whose centres are `spread` apart or more; half training, half held out."""
    g = torch.Generator().manual_seed(seed)
    centre = spread * torch.nn.functional.normalize(torch.randn(classes, dim, generator=g))
    label = torch.arange(2 * n) % classes
    x = centre[label] + torch.randn(2 * n, dim, generator=g)
    return Labelled(x[:n], label[:n]), Labelled(x[n:], label[n:])


def three(train: Labelled, held_out: Labelled, classes: int) -> list[float]:
    return [
        linear_probe(train, held_out, classes, seed=0),
        knn_probe(train, held_out, classes),
        few_label_probe(train, held_out, classes, seed=0, draws=3).mean,
    ]


def test_separable_classes_are_learned_and_noise_is_chance() -> None:
    for score in three(*blobs(300, 4, 20, 12.0, seed=0), classes=4):
        assert score > 0.99
    noise = blobs(1000, 4, 10, 0.0, seed=1)
    for score in three(*noise, classes=4):
        assert abs(score - 0.25) < 4 * (0.25 * 0.75 / 1000) ** 0.5


def test_labels_of_the_held_out_part_are_not_used_in_fitting() -> None:
    train, held_out = blobs(200, 3, 10, 5.0, seed=2)
    wrong = Labelled(held_out.x, (held_out.label + 1) % 3)
    for right, shifted in zip(three(train, held_out, 3), three(train, wrong, 3), strict=True):
        assert right > 0.9 and shifted < 0.1


def test_linear_probe_reaches_the_best_strength_of_scikit_learn() -> None:
    train, held_out = blobs(400, 5, 60, 3.0, seed=3)
    mean, std = train.x.mean(0), train.x.std(0)
    scores = []
    for strength in (1, 0.1, 0.01, 1e-3):
        rows = ((train.x - mean) / std).numpy()
        model = LogisticRegression(C=1 / (400 * strength), max_iter=5000).fit(rows, train.label.numpy())
        scores.append(model.score(((held_out.x - mean) / std).numpy(), held_out.label.numpy()))
    assert linear_probe(train, held_out, 5, seed=0) >= max(scores) - 0.02
    assert max(scores) - min(scores) > 0.02  # so that choosing well matters


def test_linear_probe_does_not_care_about_scale_offset_or_dead_columns() -> None:
    train, held_out = blobs(300, 3, 8, 2.5, seed=4)
    expected = linear_probe(train, held_out, 3, seed=0)

    def other(x: torch.Tensor) -> torch.Tensor:
        scaled = 100 * x * torch.logspace(-2, 2, 8) + 30
        return torch.cat([scaled, torch.zeros(len(x), 1), torch.full((len(x), 1), 0.1)], 1)

    moved = linear_probe(Labelled(other(train.x), train.label), Labelled(other(held_out.x), held_out.label), 3, seed=0)
    assert moved == pytest.approx(expected, abs=0.01)


def test_a_column_that_varies_only_in_the_held_out_part_cannot_hurt() -> None:
    train, held_out = blobs(300, 3, 8, 4.0, seed=5)
    surprise = Labelled(torch.cat([held_out.x, 1e6 * torch.randn(300, 1)], 1), held_out.label)
    padded = Labelled(torch.cat([train.x, torch.zeros(300, 1)], 1), train.label)
    assert three(padded, surprise, 3)[::2] == pytest.approx(three(train, held_out, 3)[::2], abs=0.02)


def test_moments_in_chunks_are_those_of_all_rows() -> None:
    x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 10, 0.1, 1, 0]) + 50
    whole, parts = Moments.of(x, chunk=2000), Moments.of(x, chunk=64)
    assert np.allclose(whole.covariance, np.cov(x.double().numpy().T, bias=True), rtol=1e-3, atol=1e-5)
    assert torch.allclose(whole.mean, parts.mean) and torch.allclose(whole.covariance, parts.covariance, rtol=1e-3)
    assert whole.scale(each=True)[4] == torch.inf == whole.scale(each=False)[4]
    assert whole.scale(each=False)[0] == whole.scale(each=False)[1]


def test_knn_agrees_with_scikit_learn_on_centred_directions() -> None:
    train, held_out = blobs(250, 4, 6, 2.0, seed=6)
    mean = train.x.mean(0)
    a, b = (torch.nn.functional.normalize(part.x - mean).numpy() for part in (train, held_out))
    weights = lambda distance: np.exp((1 - distance**2 / 2) / 0.07)  # noqa: E731  of unit vectors: |a-b|^2 = 2 - 2 cos
    reference = KNeighborsClassifier(20, weights=weights).fit(a, train.label.numpy())
    assert knn_probe(train, held_out, 4, chunk=37) == pytest.approx(reference.score(b, held_out.label.numpy()))


def test_knn_with_fewer_rows_than_neighbours_and_with_an_offset() -> None:
    train, held_out = blobs(12, 2, 5, 9.0, seed=7)
    assert knn_probe(train, held_out, 2) > 0.9
    train, held_out = blobs(300, 3, 10, 4.0, seed=8)
    shifted = knn_probe(Labelled(train.x + 1000, train.label), Labelled(held_out.x + 1000, held_out.label), 3)
    assert shifted == pytest.approx(knn_probe(train, held_out, 3), abs=0.02)  # uncentred cosine would see nothing


def test_few_label_draws_are_seeded_balanced_and_spread_over_folds() -> None:
    label = torch.tensor([0] * 50 + [1] * 30 + [2] * 4)
    rows, fold = probe._draw(label, 3, 10, 6, seed=3)
    assert rows.shape == (6, 24) and fold.shape == (24,)
    for draw in rows:
        assert torch.bincount(label[draw]).tolist() == [10, 10, 4] and len(draw.unique()) == 24
        assert all(len(fold[label[draw] == c].unique()) == min(5, n) for c, n in enumerate((10, 10, 4)))
    assert torch.equal(rows, probe._draw(label, 3, 10, 6, seed=3)[0])
    assert not torch.equal(rows, probe._draw(label, 3, 10, 6, seed=4)[0])
    assert not torch.equal(rows[0].sort().values, rows[1].sort().values)


def test_few_label_fits_in_the_span_are_fits_in_full() -> None:
    train, held_out = blobs(120, 3, 40, 3.0, seed=9)
    few = Labelled(train.x[:30], train.label[:30])  # ten of each class: every draw is all of it
    found = few_label_probe(few, held_out, 3, seed=0, draws=3)
    assert found.std == pytest.approx(0, abs=0.02)
    mean, std = few.x.mean(0), few.x.std(0, unbiased=False)
    scores = []
    for scale in (std, std.square().mean().sqrt()):
        rows, others = (few.x - mean) / scale, (held_out.x - mean) / scale
        for strength in (3, 1, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4):
            model = LogisticRegression(C=1 / (30 * strength), max_iter=5000).fit(rows.numpy(), few.label.numpy())
            scores.append(model.score(others.numpy(), held_out.label.numpy()))
    assert min(scores) - 0.01 <= found.mean <= max(scores) + 0.01


def test_few_labels_are_worth_less_than_all() -> None:
    train, held_out = blobs(600, 5, 60, 3.0, seed=10)
    few = few_label_probe(train, held_out, 5, seed=0)  # with the defaults
    assert few.per_class == 10 and few.draws == 20 and 0 < few.std < 0.1
    assert 0.3 < few.mean < linear_probe(train, held_out, 5, seed=0) - 0.03


def test_tiny_parts() -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.1, 1.0], [1.0, 0.1]])
    train, held_out = Labelled(x[:2], torch.tensor([0, 1])), Labelled(x[2:], torch.tensor([0, 1]))
    assert three(train, held_out, 2) == [1.0, 1.0, 1.0]
    same = Labelled(torch.ones(6, 3), torch.tensor([0, 1] * 3))
    assert all(score == 0.5 for score in three(same, same, 2))


def test_features_of_a_huge_range_stay_finite() -> None:
    train, held_out = blobs(200, 3, 8, 6.0, seed=11)
    big = [Labelled(part.x * 1e15, part.label) for part in (train, held_out)]
    assert three(*big, classes=3) == pytest.approx(three(train, held_out, 3), abs=0.02)
