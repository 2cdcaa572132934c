"""Hidden blocks: where they lie, that as many are hidden in every sample, and that nothing of them can be seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from accord.data.augment import Augmentation, augment, full_view
from accord.data.pairing import Originals
from accord.data.pairing_masked import masked_blocks
from accord.data.random import Draws
from accord.errors import UsageError
from accord.model.vit import ViT


def images(n: int, side: int = 16, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator)


def draws(n: int, seed: int = 0) -> Draws:
    return Draws(seed, 0, torch.arange(n))


@pytest.mark.parametrize("augmentation", [None, Augmentation(shift=0.1, noise=0.05)])
def test_one_block_against_a_loop(augmentation: Augmentation | None) -> None:
    pairing, batch = masked_blocks(patch=2, block=3, augmentation=augmentation), images(30)
    pair = pairing(batch, draws(30))
    whole = full_view(batch) if augmentation is None else augment(batch, draws(30), augmentation)
    corner = pairing.hide(draws(30), 8, 8).corner
    assert pair.x.shape == (30, 4, 16, 16) and pair.y.shape == (30, 3, 6, 6) and pair.action is not None
    for i in range(30):
        top, left = (2 * int(c) for c in corner[i, 0])
        inside = torch.zeros(16, 16, dtype=torch.bool)
        inside[top : top + 6, left : left + 6] = True
        assert torch.equal(pair.x[i, 3], inside.float())
        assert torch.equal(pair.x[i, :3], torch.where(inside, 0, whole[i]))
        assert torch.equal(pair.y[i], whole[i, :, top : top + 6, left : left + 6])
        expected = [(left + 3) / 8 - 1, (top + 3) / 8 - 1, 6 / 16, 6 / 16]
        torch.testing.assert_close(pair.action[i], torch.tensor(expected))


def test_blocks_lie_everywhere_equally_often() -> None:
    pairing = masked_blocks(patch=2, block=2)
    corner = pairing.hide(draws(18_000), 4, 3).corner[:, 0]
    counts = torch.bincount(corner[:, 0] * 2 + corner[:, 1], minlength=6)
    assert ((counts - 3000).square() / 3000).sum() < 20.5, "chi-square of 5 degrees of freedom, p = 0.001"


def test_several_blocks_hide_equally_many_patches() -> None:
    pairing, batch = masked_blocks(patch=2, block=2, blocks=4), images(200)
    pair, hiding = pairing(batch, draws(200)), pairing.hide(draws(200), 8, 8)
    assert pair.x.shape == (200, 4, 16, 16) and pair.y.shape == (4, 200, 3, 4, 4)
    assert pair.action is not None and pair.action.shape == (4, 200, 4)
    assert (hiding.hidden.flatten(1).sum(1) == 16).all()
    union = torch.zeros(200, 8, 8, dtype=torch.bool)
    for i in range(200):
        for k in range(4):
            row, column = hiding.corner[i, k].tolist()
            union[i, row : row + 2, column : column + 2] = True
            part = full_view(batch)[i, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
            assert torch.equal(pair.y[k, i], part)
    assert (union <= hiding.hidden).all(), "every block is hidden"
    assert (union.flatten(1).sum(1) < 16).any(), "blocks do overlap"
    first = pair.first(3, 3)
    assert torch.equal(first.y, pair.y[0]) and torch.equal(first.x, pair.x)
    assert first.action is not None and torch.equal(first.action, pair.action[0])


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_pair_is_a_function_of_the_sample_alone(blocks: int) -> None:
    pairing, batch = masked_blocks(patch=2, block=2, blocks=blocks), images(40)
    part, whole = torch.tensor([31, 2, 17]), pairing(batch, draws(40))
    again = pairing(batch[part], Draws(0, 0, part))
    assert torch.equal(again.x, whole.x[part]) and torch.equal(again.y, whole.y[..., part, :, :, :])
    assert not torch.equal(pairing(batch, draws(40, seed=1)).x, whole.x) and pairing.random


def test_plain_shows_all_and_joined_pairs_hide_the_middle() -> None:
    pairing, batch = masked_blocks(patch=2, block=2, blocks=3), images(5)
    plain = pairing.plain(batch)
    assert torch.equal(plain[:, :3], full_view(batch)) and not plain[:, 3].any()
    pair = pairing.join(Originals(batch), Originals(batch.flip(0)))
    assert torch.equal(pair.y, full_view(batch.flip(0))[:, :, 6:10, 6:10]) and pair.y.is_contiguous()
    assert torch.equal(pair.y.flip(0), pairing.plain_y(batch))
    assert pair.action is not None and torch.equal(pair.action, torch.tensor([0, 0, 0.25, 0.25]).expand(5, 4))
    assert pair.x[0, 3].sum() == 16 and not pair.x[:, :3, 6:10, 6:10].any()
    assert not pairing.alike and pairing.action_dim == 4


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("blocks", [1, 4])
def test_visible_tokens_carry_nothing_of_the_hidden_block(pool: Any, blocks: int) -> None:
    torch.manual_seed(0)
    pairing, batch = masked_blocks(patch=2, block=2, blocks=blocks), images(6)
    vit = ViT(image_size=16, patch=2, dim=16, depth=2, heads=4, channels=3, pool=pool, masked=True).eval()
    x = pairing(batch, draws(6)).x
    hidden = x[:, 3:].bool()
    with torch.no_grad():
        features = vit(x)
        for other in (torch.rand(6, 3, 16, 16), torch.full((6, 3, 16, 16), 1e30)):
            changed = torch.cat([torch.where(hidden, other, x[:, :3]), x[:, 3:]], 1)
            assert not torch.equal(changed, x) and torch.equal(vit(changed), features), "bit for bit"
        seen = torch.where(hidden, x[:, :3], 1 - x[:, :3])
        assert not torch.equal(vit(torch.cat([seen, x[:, 3:]], 1)), features), "the visible part does matter"


def test_hidden_pixels_are_gone_for_every_other_encoder_too() -> None:
    pairing, batch = masked_blocks(patch=2, block=3), images(6)
    pair = pairing(batch, draws(6))
    hidden = pair.x[:, 3:].bool().expand(-1, 3, -1, -1)
    changed = torch.where(hidden, 255 - batch, batch)
    again = pairing(changed, draws(6))
    assert torch.equal(again.x, pair.x) and not torch.equal(again.y, pair.y)


@pytest.mark.parametrize("options", [{"patch": 0}, {"block": 1.5}, {"blocks": True}, {"size": 2}])
def test_wrong_numbers(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=f"{name}: expected a whole number") as caught:
        masked_blocks(**options)
    assert caught.value.where == name and caught.value.help


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 3}, "do not divide images of 16 x 16"),
        ({"patch": 4, "block": 4}, "hide all of 4 x 4 patches"),
        ({"patch": 4, "block": 5}, "hide all of 4 x 4 patches"),
        ({"patch": 4, "block": 2, "blocks": 4}, "hide all of 4 x 4 patches"),
    ],
)
def test_blocks_that_do_not_fit(options: dict[str, int], message: str) -> None:
    pairing = masked_blocks(**options)
    for call in (lambda: pairing(images(3), draws(3)), lambda: pairing.plain(images(3))):
        with pytest.raises(UsageError, match=message) as caught:
            call()
        assert caught.value.help


def test_masked_blocks_are_for_images() -> None:
    with pytest.raises(UsageError, match="masked_blocks does not apply"):
        masked_blocks()(torch.randn(3, 5), draws(3))
