"""Pairs of views: which numbers each view gets, the plain view, crops, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accord.data.augment import Augmentation, VectorAugmentation, augment, full_view
from accord.data.pairing import Pairing, TwoViews, two_views
from accord.data.random import Draws
from accord.errors import UsageError


def images(n: int, side: int = 16, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator)


def draws(n: int) -> Draws:
    return Draws(0, 0, torch.arange(n))


def test_views_are_two_augmentations_with_numbers_of_their_own():
    batch, recipe = images(30), Augmentation.photo()
    pairing = two_views(recipe, size=12)
    assert isinstance(pairing, Pairing) and isinstance(pairing, TwoViews)
    pair = pairing(batch, draws(30))
    assert torch.equal(pair.x, augment(batch, draws(30).fork(0), recipe, 12))
    assert torch.equal(pair.y, augment(batch, draws(30).fork(1), recipe, 12))
    assert pair.x.shape == pair.y.shape == (30, 3, 12, 12)
    assert (pair.x - pair.y).abs().flatten(1).mean(1).min() > 1e-3
    assert pair.action is None and pair.label is None


def test_views_do_not_depend_on_the_batch_around_them():
    batch, aspect = images(40), torch.linspace(0.5, 2, 40)
    part = torch.tensor([31, 2, 17])
    for pairing in (two_views(), two_views(local=2)):
        whole = pairing(batch, draws(40), aspect)
        again = pairing(batch[part], Draws(0, 0, part), aspect[part])
        assert torch.equal(again.x, whole.x[..., part, :, :, :]) and torch.equal(again.y, whole.y[part])


def test_plain_is_the_image_itself():
    batch = images(5)
    assert (two_views().plain(batch) - batch / 255).abs().max() <= 1e-6
    small = two_views(size=8)
    assert small.plain(batch).shape == (5, 3, 8, 8)
    assert torch.equal(small.plain(batch), small.plain(batch)), "nothing random"
    aspect = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    assert torch.equal(small.plain(batch, aspect), full_view(batch, 8, aspect))
    assert not torch.equal(small.plain(batch, aspect)[1], small.plain(batch)[1])


def test_plain_at_a_size_of_its_own():
    pairing = two_views(size=8, plain_size=16)
    assert pairing(images(3), draws(3)).x.shape[-1] == 8
    assert (pairing.plain(images(3)) - images(3) / 255).abs().max() <= 1e-6


def test_crops():
    batch = images(20, 32)
    pair = two_views(local=3)(batch, draws(20))
    assert pair.x.shape == (3, 20, 3, 16, 16) and pair.y.shape == (20, 3, 32, 32)
    assert torch.equal(pair.y, two_views()(batch, draws(20)).y), "crops come on top, the full view stays the same"
    more = two_views(local=4)(batch, draws(20))
    assert torch.equal(more.x[:3], pair.x), "another crop changes none of the others"
    means = pair.x.flatten(2).mean(2)
    assert (means[0] - means[1]).abs().mean() > 1e-3
    own = two_views(local=1, local_size=10, local_augmentation=Augmentation())(batch, draws(20))
    torch.testing.assert_close(own.x[0], augment(batch, draws(20), Augmentation(), 10))


def test_small_crops_show_a_small_part():
    """A ramp from 0 to 1: a view of a share a of the area, without colour changes, spans about sqrt(a) of it."""
    ramp = torch.arange(64).mul(4).to(torch.uint8).expand(50, 3, 64, 64)
    pair = two_views(Augmentation(scale=(0.8, 1.0)), local=2)(ramp, draws(50))
    span = [v.amax((-1, -2, -3)) - v.amin((-1, -2, -3)) for v in (pair.x, pair.y)]
    assert span[0].max() < 0.68 and span[1].min() > 0.8


def test_the_default_suits_the_samples():
    grey, colour, vectors = images(20, channels=1), images(20), torch.randn(20, 5)
    pairing = two_views()
    assert torch.equal(pairing(colour, draws(20)).x, two_views(Augmentation.photo())(colour, draws(20)).x)
    assert torch.equal(pairing(grey, draws(20)).x, two_views(Augmentation.grey_photo())(grey, draws(20)).x)
    assert torch.equal(pairing(vectors, draws(20)).x, two_views(VectorAugmentation())(vectors, draws(20)).x)


def test_vectors():
    vectors = torch.randn(20, 5)
    pair = two_views()(vectors, draws(20))
    assert pair.x.shape == pair.y.shape == (20, 5) and not torch.equal(pair.x, pair.y)
    assert torch.equal(two_views().plain(vectors), vectors)


@pytest.mark.parametrize(
    "options", [{"size": 3}, {"size": 0}, {"local": -1}, {"local_size": 2}, {"size": 8.5}, {"plain_size": -4}]
)
def test_a_number_out_of_bounds_is_named(options: dict[str, int]):
    (name,) = options
    with pytest.raises(UsageError, match=f"{name}: expected a whole number of at least") as caught:
        two_views(**options)
    assert caught.value.where == name and caught.value.help


def test_what_does_not_fit():
    with pytest.raises(UsageError, match="VectorAugmentation does not apply to samples of shape"):
        two_views(VectorAugmentation())(images(3), draws(3))
    with pytest.raises(UsageError, match="Augmentation does not apply to samples of shape"):
        two_views(Augmentation.photo())(torch.randn(3, 5), draws(3))
    with pytest.raises(UsageError, match="a vector has no crops"):
        two_views(local=2)(torch.randn(3, 5), draws(3))
