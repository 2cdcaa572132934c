"""Features come in order, whatever the batch; the model is left as it was; what is not finite has a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from accord.data.augment import Augmentation
from accord.data.pairing import Pairing, two_views
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.errors import ArtifactError, DataError
from accord.evaluate import features as f
from accord.model.joint_embedding import JointEmbedding

Build = Callable[..., JointEmbedding]


def test_features_are_those_of_the_plain_view_in_order(
    digits: Samples, views: Pairing, digit_model: JointEmbedding
) -> None:
    index = np.array([5, 3, 3, 1000, 17])
    found = f.extract(digit_model.encoder_x, digits, index, views, batch_size=2)
    digit_model.eval()
    with torch.no_grad():
        for row, i in enumerate(index):
            x = views.plain(digits.batch(index[row : row + 1]))
            assert torch.allclose(found.features[row], digit_model.encoder_x.features(x)[0], atol=1e-6), i
            assert torch.allclose(found.embeddings[row], digit_model.encoder_x(x)[0], atol=1e-6)
    digit_model.train()
    assert found.features.shape == (5, 256) and found.embeddings.shape == (5, 24)
    assert torch.equal(found.features[1], found.features[2])


def test_result_does_not_depend_on_the_batch(digits: Samples, views: Pairing, digit_model: JointEmbedding) -> None:
    index = np.arange(50)
    for one, other in zip(
        f.embed_pairs(digit_model, digits, index, views, seed=3, batch_size=50)[:3],
        f.embed_pairs(digit_model, digits, index, views, seed=3, batch_size=7)[:3],
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-5)
    whole = f.embed_views(digit_model, digits, index, views, views=3, seed=3, batch_size=50)
    parts = f.embed_views(digit_model, digits, index, views, views=3, seed=3, batch_size=9)
    assert whole.shape == (50, 3, 24) and torch.allclose(whole, parts, atol=1e-5)


def test_views_of_one_sample_are_grouped_and_differ(
    digits: Samples, views: Pairing, digit_model: JointEmbedding
) -> None:
    found = f.embed_views(digit_model, digits, np.arange(60), views, views=4, seed=0)
    within = (found - found.mean(1, keepdim=True)).square().mean()
    between = (found.mean(1) - found.mean((0, 1))).square().mean()
    assert 0 < within < between
    assert not torch.allclose(found, f.embed_views(digit_model, digits, np.arange(60), views, views=4, seed=1))


def test_the_model_is_left_as_it_was(digits: Samples, views: Pairing, digit_model: JointEmbedding) -> None:
    digit_model.train()
    digit_model.encoder_x.projector.eval()
    modes = {name: module.training for name, module in digit_model.named_modules()}
    state = {name: value.clone() for name, value in digit_model.state_dict().items()}
    found = f.extract(digit_model.encoder_x, digits, np.arange(64), views)
    f.embed_pairs(digit_model, digits, np.arange(64), views, seed=0)
    assert {name: module.training for name, module in digit_model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in digit_model.state_dict().items())
    assert not found.features.requires_grad and torch.is_grad_enabled()
    again = f.extract(digit_model.encoder_x, digits, np.arange(64), views)
    assert torch.equal(found.features, again.features)  # dropout was off
    digit_model.train()


def test_stop_ends_the_work_between_batches(digits: Samples, views: Pairing, digit_model: JointEmbedding) -> None:
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    digit_model.train()
    with pytest.raises(KeyboardInterrupt):
        f.extract(digit_model.encoder_x, digits, np.arange(100), views, batch_size=10, stop=stop)
    assert len(calls) == 3 and all(module.training for module in digit_model.modules())


def test_no_samples_give_no_features(digits: Samples, views: Pairing, digit_model: JointEmbedding) -> None:
    assert len(f.extract(digit_model.encoder_x, digits, np.arange(0), views).features) == 0


class BreaksOn(nn.Module):
    """NaN for rows whose first value is above a limit."""

    def __init__(self, limit: float):
        super().__init__()
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :1] > self.limit, torch.nan, x)


def test_a_sample_whose_embedding_is_not_finite_is_named(vectors: Samples, noisy: type[Pairing], build: Build) -> None:
    first = vectors.batch(np.arange(len(vectors)))[:, 0]
    worst = int(first.argmax())
    limit = float(first.sort().values[-2])
    for model, run in ((build(BreaksOn(limit)), f.extract), (build(BreaksOn(limit)), None)):
        with pytest.raises(DataError, match="1 of 120 samples is not finite") as refused:
            if run is not None:
                run(model.encoder_x, vectors, np.arange(120), noisy())
            else:
                f.embed_pairs(model, vectors, np.arange(120), noisy(0.0), seed=0)
        assert vectors.keys[worst] in (refused.value.where or "") and refused.value.exit_code == 3
    marked = f.extract(build(BreaksOn(limit)).encoder_x, vectors, np.arange(120), noisy(), finite=False).features
    assert marked.isnan().any(1).nonzero().tolist() == [[worst]]
    with pytest.raises(ArtifactError, match="no finite embedding") as broken:
        f.extract(build(BreaksOn(-1e9)).encoder_x, vectors, np.arange(120), noisy())
    assert broken.value.exit_code == 4


def test_damage_covers_a_ninth_of_an_image_at_random_places() -> None:
    draws = Draws(0, 0, torch.arange(200))
    y = torch.rand(200, 3, 12, 18, generator=torch.Generator().manual_seed(0))
    damaged = f.damage(y, draws)
    changed = (damaged != y).all(1)
    assert changed.flatten(1).sum(1).tolist() == [16] * 200  # a square of a third of 12
    rows, columns = changed.any(2), changed.any(1)
    assert rows.sum(1).tolist() == [4] * 200 and columns.sum(1).tolist() == [4] * 200
    assert len(rows.float().argmax(1).unique()) == 9 and len(columns.float().argmax(1).unique()) == 15
    assert torch.allclose(damaged[changed[:, None].expand_as(y)].view(200, 3, 16)[0, :, 0], y[0].mean((1, 2)))
    assert torch.equal(damaged, f.damage(y, draws))


def test_damage_of_vectors_is_noise_of_half_a_standard_deviation() -> None:
    scale = torch.tensor([1.0, 100.0, 0.0])
    y = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) * scale
    noise = f.damage(y, Draws(0, 0, torch.arange(5000))) - y
    assert torch.allclose(noise.std(0), 0.5 * scale, rtol=0.05)


def test_of_several_crops_the_first_stands_for_x(digits: Samples, digit_model: JointEmbedding) -> None:
    crops = two_views(Augmentation.digits(), local=3, local_size=8)
    found = f.embed_pairs(digit_model, digits, np.arange(20), crops, seed=0)
    assert found.s_x.shape == (20, 24)
    pair = crops(digits.batch(np.arange(20)), Draws(0, 0, torch.arange(20)))
    with f.evaluating(digit_model):
        assert torch.allclose(found.s_x, digit_model.encoder_x(pair.x[0]), atol=1e-5)


def test_images_carry_their_aspect(digits: Samples, digit_model: JointEmbedding, views: Pairing) -> None:
    wide = dataclasses.replace(digits, aspect=np.full(len(digits), 2.0, np.float32))
    a = f.extract(digit_model.encoder_x, digits, np.arange(8), views).features
    b = f.extract(digit_model.encoder_x, wide, np.arange(8), views).features
    assert not torch.allclose(a, b)
