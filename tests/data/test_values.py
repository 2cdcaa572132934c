"""Batches of one and of two sides, and samples that are pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accord.data.augment import VectorAugmentation
from accord.data.augment_series import SeriesAugmentation
from accord.data.augment_text import TextAugmentation
from accord.data.loader import Loader
from accord.data.pairing import two_views
from accord.data.pairing_masked import masked_blocks
from accord.data.pairing_parts import columns, halves
from accord.data.random import Draws
from accord.data.samples import (
    ArrayStore,
    BadItem,
    BadItems,
    RowKeys,
    Samples,
    Store,
    hash_rows,
    pair_samples,
    split,
)
from accord.data.values import Sides, blank, form, rows_of
from accord.errors import UsageError

N = 12


class Spoilt(Store):
    """Rows of which one turns out to be bad when it is read."""

    shape = (3,)

    def __init__(self, bad: int):
        self.bad = bad

    def read(self, index: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(index[:, None].repeat(3, 1)).float()
        places = np.flatnonzero(index == self.bad)
        if len(places):
            items = [BadItem(f"row {self.bad}", "E301", "torn", "mend it")] * len(places)
            raise BadItems(places, items, values)
        return values


def images(*, bad: tuple[int, ...] = ()) -> Samples:
    pixels = np.arange(N * 16, dtype=np.uint8).reshape(N, 1, 4, 4)
    ok = ~np.isin(np.arange(N), bad)
    items = [BadItem(f"row {i}", "E301", "no image", "drop it") for i in bad]
    aspect = np.linspace(0.5, 2, N, dtype=np.float32)
    return Samples("picture", "image", ArrayStore(pixels), RowKeys([N]), hash_rows(pixels), ok, items, aspect=aspect)


def numbers(store: Store | None = None, *, bad: tuple[int, ...] = ()) -> Samples:
    values = np.arange(N, dtype=np.float32)[:, None].repeat(3, 1)
    ok = ~np.isin(np.arange(N), bad)
    items = [BadItem(f"row {i}", "E331", "no number", "fill it") for i in bad]
    return Samples("a, b", "vector", store or ArrayStore(values), RowKeys([N]), hash_rows(values), ok, items)


def test_forms_are_told_by_axes_and_type() -> None:
    shapes = {"image": (3, 8, 8), "series": (20, 2), "audio": (20, 1), "text": (9,), "vector": (4,)}
    for kind, shape in shapes.items():
        values = blank(kind, shape, 2)  # type: ignore[arg-type]
        assert values.shape == (2, *shape)
        assert form(values) == ("series" if kind == "audio" else kind)
        assert (values.dtype == torch.uint8) == (kind in ("image", "text"))
    with pytest.raises(UsageError, match="shape"):
        form(torch.zeros(3))


def test_rows_of_two_sides_stay_together() -> None:
    sides = Sides(torch.arange(6)[:, None], torch.arange(6)[:, None] * 10, aspect_x=torch.arange(6) / 2)
    some = rows_of(sides, [4, 1])
    assert isinstance(some, Sides)
    assert some.x[:, 0].tolist() == [4, 1] and some.y[:, 0].tolist() == [40, 10]
    assert some.aspect_x is not None and some.aspect_x.tolist() == [2.0, 0.5] and some.aspect_y is None
    assert sides.to("cpu").aspect_y is None and torch.equal(sides.to("cpu").y, sides.y)
    assert torch.equal(rows_of(sides.x, slice(2)), sides.x[:2])


def test_a_pair_reads_both_sides_with_the_shapes_of_images() -> None:
    pairs = pair_samples("table", images(), numbers())
    index = np.array([3, 7])
    for samples in (pairs, pairs.kept()):
        for _ in range(2):  # the second time from what was kept
            batch = samples.batch(index)
            assert isinstance(batch, Sides)
            assert torch.equal(batch.x, images().batch(index)) and torch.equal(batch.y, numbers().batch(index))
            assert batch.aspect_x is not None and batch.aspect_y is None
            np.testing.assert_array_equal(batch.aspect_x.numpy(), images().aspect[index])
    assert pairs.shape == () and pairs.aspects(index) is None


def test_a_pair_is_bad_where_either_side_is_and_says_which() -> None:
    pairs = pair_samples("table", images(bad=(8, 2)), numbers(bad=(5, 2)))
    assert np.flatnonzero(~pairs.ok).tolist() == [2, 5, 8]
    said = [(item.key, item.reason) for item in pairs.bad]
    assert said == [("row 2", "picture: no image"), ("row 5", "a, b: no number"), ("row 8", "picture: no image")]


def test_content_of_a_pair_depends_on_both_sides_and_their_roles() -> None:
    x, y = images(), numbers()
    content = pair_samples("t", x, y).content
    assert len(set(content.tolist())) == N
    assert not (content == pair_samples("t", y, x).content).any()
    train, held_out = split(pair_samples("t", x, y), 0.4, 0)
    assert len(train) + len(held_out) == N and len(held_out)


def test_what_turns_out_bad_is_named_by_its_side_and_replaced() -> None:
    pairs = pair_samples("table", images(), numbers(Spoilt(4)))
    with pytest.raises(BadItems) as caught:
        pairs.batch(np.array([1, 4, 6]))
    assert caught.value.positions.tolist() == [1] and caught.value.items[0].reason == "a, b: torn"
    assert isinstance(caught.value.batch, Sides) and torch.equal(
        caught.value.batch.x, images().batch(np.array([1, 4, 6]))
    )
    loader = Loader(pairs, np.arange(N), batch_size=N, seed=0)
    batch = loader.read(0)
    assert isinstance(batch.data, Sides) and batch.aspect is None
    assert 4 not in batch.index.tolist() and list(loader.bad) == [4]
    assert torch.equal(batch.data.y[:, 0], batch.index.float())
    assert torch.equal(batch.data.x, images().batch(batch.index.numpy()))


@pytest.mark.parametrize("pairing", [two_views(), halves(), columns([0], [1], features=("a", "b")), masked_blocks()])
def test_pairings_of_one_thing_refuse_two(pairing: object) -> None:
    sides = Sides(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(UsageError, match="pairs already"):
        pairing(sides, Draws(0, 0, torch.arange(2)))  # type: ignore[operator]
    with pytest.raises(UsageError, match="pairs already"):
        pairing.plain(sides)  # type: ignore[attr-defined]


def test_two_views_take_what_suits_the_form() -> None:
    draws = Draws(0, 0, torch.arange(4))
    series, text = torch.randn(4, 20, 2), torch.full((4, 12), 97, dtype=torch.uint8)
    pair = two_views()(series, draws)
    assert pair.x.shape == pair.y.shape == series.shape and not torch.equal(pair.x.isnan(), pair.y.isnan())
    assert two_views()(text, draws).x.dtype == torch.uint8
    assert torch.equal(two_views(SeriesAugmentation())(series, draws).y, series)
    for augmentation, batch in (
        (SeriesAugmentation(), text),
        (TextAugmentation(), series),
        (VectorAugmentation(), series),
    ):
        with pytest.raises(UsageError, match=type(augmentation).__name__):
            two_views(augmentation)(batch, draws)
