"""Pairs of two parts of one sample: nothing is lost, nothing shared, nothing depends on the batch around it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from accord.data.augment import Augmentation, augment, full_view
from accord.data.pairing import Originals, Pairing, two_views
from accord.data.pairing_parts import Split, columns, halves
from accord.data.random import Draws
from accord.errors import UsageError

LIGHT = Augmentation(shift=0.1, brightness=0.3, noise=0.05)


def images(n: int, side: int = 8, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator)


def draws(n: int, seed: int = 0) -> Draws:
    return Draws(seed, 0, torch.arange(n))


@pytest.mark.parametrize(
    ("split", "axis", "swapped"),
    [("left_right", -1, False), ("right_left", -1, True), ("top_bottom", -2, False), ("bottom_top", -2, True)],
)
@pytest.mark.parametrize("augmentation", [None, LIGHT])
@pytest.mark.parametrize("side", [8, 9])
def test_halves_reassemble_to_the_image(
    split: Split, axis: int, swapped: bool, augmentation: Augmentation | None, side: int
) -> None:
    batch, pairing = images(20, side, 3), halves(split, augmentation=augmentation)
    pair = pairing(batch, draws(20))
    whole = full_view(batch) if augmentation is None else augment(batch, draws(20), augmentation)
    assert torch.equal(torch.cat([pair.y, pair.x] if swapped else [pair.x, pair.y], dim=axis), whole)
    assert pair.x.dtype == pair.y.dtype == torch.float32 and pair.x.is_contiguous() and pair.y.is_contiguous()
    assert pair.x.min() >= 0 and pair.x.max() <= 1
    assert pair.action is None and pair.label is None
    first, second = (pair.y, pair.x) if swapped else (pair.x, pair.y)
    assert (first.shape[axis], second.shape[axis]) == (side // 2, side - side // 2)


@pytest.mark.parametrize("augmentation", [None, LIGHT])
def test_halves_are_a_function_of_the_sample_alone(augmentation: Augmentation | None) -> None:
    batch, pairing = images(40), halves(augmentation=augmentation)
    part, whole = torch.tensor([31, 2, 17]), pairing(batch, draws(40))
    again = pairing(batch[part], Draws(0, 0, part))
    assert torch.equal(again.x, whole.x[part]) and torch.equal(again.y, whole.y[part])
    other = pairing(batch, draws(40, seed=1))
    assert torch.equal(other.x, whole.x) == (not pairing.random), "random only where it says so"


def test_an_augmentation_that_changes_nothing_is_none() -> None:
    batch, idle = images(5), halves(augmentation=Augmentation())
    assert not idle.random
    torch.testing.assert_close(idle(batch, draws(5)).x, halves()(batch, draws(5)).x)


def test_plain_halves() -> None:
    batch, aspect = images(6, 12), torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
    pairing = halves("top_bottom", augmentation=LIGHT, size=8)
    x, y = pairing.plain(batch, aspect), pairing.plain_y(batch, aspect)
    assert x.shape == y.shape == (6, 1, 4, 8)
    assert torch.equal(torch.cat([x, y], -2), full_view(batch, 8, aspect))
    joined = pairing.join(Originals(batch, aspect), Originals(batch.flip(0), aspect.flip(0)))
    assert torch.equal(joined.x, x) and torch.equal(joined.y, y.flip(0))
    assert not pairing.alike and pairing.action_dim == 0
    bare = halves()
    assert torch.equal(bare(batch, draws(6)).x, bare.plain(batch)) and not bare.random


def test_what_two_views_say_of_themselves() -> None:
    pairing, batch = two_views(), images(3)
    assert isinstance(pairing, Pairing) and pairing.alike and pairing.random and pairing.action_dim == 0
    assert torch.equal(pairing.plain_y(batch), pairing.plain(batch))
    pair = pairing.join(Originals(batch), Originals(batch.flip(0)))
    assert torch.equal(pair.x, pairing.plain(batch)) and torch.equal(pair.y, pairing.plain(batch.flip(0)))


@pytest.mark.parametrize("options", [{"split": "left_rigth"}, {"split": "diagonal"}, {"size": 3}, {"size": 8.5}])
def test_wrong_halves(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        halves(**options)
    assert caught.value.help and caught.value.exit_code == 2 and caught.value.where in options
    if options.get("split") == "left_rigth":
        assert "did you mean 'left_right'?" in caught.value.help


def test_halves_are_for_images() -> None:
    for call in (lambda: halves()(torch.randn(3, 5), draws(3)), lambda: halves().plain(torch.randn(3, 5))):
        with pytest.raises(UsageError, match="halves does not apply to samples of shape"):
            call()


FEATURES = ("x0", "x1", "y0", "a", "y1")


def test_columns_by_name_place_and_default() -> None:
    batch = torch.arange(15.0).view(3, 5)
    for pairing in (
        columns(["x1", "a"], ["y1"], features=FEATURES),
        columns([1, 3], ["y1"], features=FEATURES),
        columns([1, 3], [4]),
    ):
        pair = pairing(batch, draws(3))
        assert torch.equal(pair.x, batch[:, [1, 3]]) and torch.equal(pair.y, batch[:, [4]])
        assert torch.equal(pairing.plain(batch), pair.x) and torch.equal(pairing.plain_y(batch), pair.y)
        assert not pairing.alike and not pairing.random
    assert columns(["a"], features=FEATURES) == columns([3], [0, 1, 2, 4])
    assert columns(y=["a"], features=FEATURES) == columns([0, 1, 2, 4], [3])
    assert columns(["y0", "x1"], features=FEATURES).x == (2, 1), "in the order in which they are named"


@pytest.mark.parametrize(
    ("features", "x", "y"),
    [
        (("x0", "y0", "y1"), (0,), (1, 2)),
        (("y", "x"), (1,), (0,)),
        (("X_speed", "y_speed", "Y2"), (0,), (1, 2)),
    ],
)
def test_names_tell_x_from_y(features: tuple[str, ...], x: tuple[int, ...], y: tuple[int, ...]) -> None:
    assert (columns(features=features).x, columns(features=features).y) == (x, y)


@pytest.mark.parametrize(
    ("arguments", "message", "help"),
    [
        ({"features": ("a", "b")}, "which columns are x", "pairing.x"),
        ({"features": ("x0", "x1")}, "which columns are x", "pairing.x"),
        ({"features": ("x0", "y0", "year")}, "which columns are x", "pairing.x"),
        ({}, "which columns are x", "pairing.x"),
        (
            {"x": ["sped"], "features": ("x", "speed")},
            "there is no column 'sped'",
            "did you mean 'speed'? known: x, speed",
        ),
        ({"x": ["speed"], "features": FEATURES}, "there is no column 'speed'", "known: x0, x1, y0"),
        ({"x": ["x0"], "y": [1]}, "there is no column 'x0'", "features="),
        ({"x": [5], "features": FEATURES}, "there is no column 5", "below 5"),
        ({"x": [-1], "y": [0]}, "there is no column -1", "from 0"),
        ({"x": [True], "y": [0]}, "there is no column True", "from 0"),
        ({"x": ["a", 3], "features": FEATURES}, "twice", "once"),
        ({"x": ["a"], "y": [3], "features": FEATURES}, "column 3 is in both", "either"),
        ({"x": [], "features": FEATURES}, "expected a list of columns", "for example"),
        ({"x": "a", "features": FEATURES}, "expected a list of columns", "for example"),
        ({"x": list(FEATURES), "features": FEATURES}, "no column is left for y", "leave one out"),
        ({"x": [0]}, "no column is left for y", "features="),
    ],
)
def test_wrong_columns(arguments: dict[str, Any], message: str, help: str) -> None:
    with pytest.raises(UsageError) as caught:
        columns(**arguments)
    assert message in caught.value.message and help in (caught.value.help or "") and caught.value.exit_code == 2


def test_columns_that_are_not_there() -> None:
    for batch in (torch.zeros(3, 2), torch.zeros(3, 1, 8, 8)):
        with pytest.raises(UsageError, match="do not fit samples of shape"):
            columns([0], [2])(batch, draws(3))
