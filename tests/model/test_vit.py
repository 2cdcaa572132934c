"""ViTs have the published sizes, the field's parameter names, and compute what torch's own transformer layer does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.vit import Block, ViT, sincos_2d, vit_base, vit_small, vit_tiny


def tiny(**options: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(**{"image_size": 16, "patch": 4, "dim": 16, "depth": 2, "heads": 4, **options})


@pytest.mark.parametrize(
    ("make", "published", "dim"),
    [(vit_tiny, 5_717_416, 192), (vit_small, 22_050_664, 384), (vit_base, 86_567_656, 768)],
)
def test_published_parameter_counts(make: Callable[..., ViT], published: int, dim: int) -> None:
    """Published counts are with learned positions, an extra token and a classifier of 1000 classes."""
    with torch.device("meta"):
        model, plain = make(positions="learned", pool="cls"), make()
    ours = sum(p.numel() for p in model.parameters())
    assert ours == published - 1000 * (dim + 1)
    assert sum(p.numel() for p in plain.parameters()) == ours - dim - 197 * dim
    assert model.feature_dim == dim


def test_state_dict_names() -> None:
    block = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    names = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    names += [f"blocks.{i}.{part}.{kind}" for i in range(2) for part in block for kind in ("weight", "bias")]
    assert list(tiny(positions="learned", pool="cls").state_dict()) == [*names, "norm.weight", "norm.bias"]
    assert list(tiny().state_dict()) == [*names[2:], "norm.weight", "norm.bias"]


def test_a_block_is_torchs_transformer_layer() -> None:
    torch.manual_seed(0)
    ours = Block(16, 4, 3.0)
    theirs = nn.TransformerEncoderLayer(
        16, 4, 48, dropout=0.0, activation="gelu", norm_first=True, batch_first=True, layer_norm_eps=1e-6
    )
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(0.1 * torch.randn_like(p))
        pairs = [
            (theirs.self_attn.in_proj_weight, ours.attn.qkv.weight),
            (theirs.self_attn.in_proj_bias, ours.attn.qkv.bias),
            (theirs.self_attn.out_proj.weight, ours.attn.proj.weight),
            (theirs.self_attn.out_proj.bias, ours.attn.proj.bias),
            (theirs.linear1.weight, ours.mlp.fc1.weight),
            (theirs.linear1.bias, ours.mlp.fc1.bias),
            (theirs.linear2.weight, ours.mlp.fc2.weight),
            (theirs.linear2.bias, ours.mlp.fc2.bias),
            *zip(theirs.norm1.parameters(), ours.norm1.parameters(), strict=True),
            *zip(theirs.norm2.parameters(), ours.norm2.parameters(), strict=True),
        ]
        for target, source in pairs:
            target.copy_(source)
    x = torch.randn(3, 7, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def loop_sincos(rows: int, columns: int, dim: int) -> list[list[float]]:
    table = []
    for row in range(rows):
        for column in range(columns):
            entry: list[float] = []
            for position in (column, row):
                for f in (math.sin, math.cos):
                    entry += [f(position * 10000 ** (-k / (dim // 4))) for k in range(dim // 4)]
            table.append(entry)
    return table


def test_sincos_positions() -> None:
    torch.testing.assert_close(sincos_2d((3, 5), 16), torch.tensor(loop_sincos(3, 5, 16)), rtol=1e-6, atol=1e-6)
    p = sincos_2d((6, 6), 32).view(6, 6, 32)
    assert (p[1, 2] @ p[3, 4]).item() == pytest.approx((p[3, 1] @ p[5, 3]).item(), rel=1e-5)  # depends on the distance


def test_patches_enter_in_row_major_order_with_their_position() -> None:
    model = tiny(depth=0)
    x = torch.randn(1, 3, 16, 16)
    tokens = model._tokens(x)
    weight, bias = model.patch_embed.proj.weight, model.patch_embed.proj.bias
    assert bias is not None
    for row, column in [(0, 0), (1, 3), (2, 1)]:
        patch = x[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        expected = (weight * patch).sum((1, 2, 3)) + bias + torch.tensor(loop_sincos(4, 4, 16)[4 * row + column])
        torch.testing.assert_close(tokens[0, 4 * row + column], expected, rtol=1e-4, atol=1e-5)


def test_pooling() -> None:
    x = torch.randn(2, 3, 16, 16)
    mean, extra = tiny(), tiny(pool="cls", positions="learned")
    tokens = mean.norm(mean.blocks(mean._tokens(x)))
    torch.testing.assert_close(mean(x), tokens.mean(1))
    tokens = extra.norm(extra.blocks(extra._tokens(x)))
    assert tokens.shape[1] == 17
    torch.testing.assert_close(extra(x), tokens[:, 0])


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_other_sizes_and_gradients(positions: str, pool: str) -> None:
    model = tiny(positions=positions, pool=pool, channels=2)
    y = model(torch.randn(3, 2, 8, 24))
    assert y.shape == (3, 16)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_learned_positions_are_interpolated() -> None:
    model = tiny(positions="learned", pool="cls")
    assert model.pos_embed is not None
    ramp = torch.arange(4.0).view(1, 4, 1).expand(4, 4, 16)  # the column
    with torch.no_grad():
        model.pos_embed[0, 1:] = ramp.reshape(16, 16)
    assert torch.equal(model._learned((4, 4))[0], ramp.reshape(16, 16))
    wide = model._learned((4, 8))[0].view(4, 8, 16)
    assert (wide[:, 1:] > wide[:, :-1]).all()  # still grows from left to right
    torch.testing.assert_close(wide, wide[:1, :, :1].expand_as(wide))  # and nowhere else
    assert wide[0, 4, 0].item() == pytest.approx(1.75, abs=0.1)


def test_saved_weights_do_not_hold_fixed_positions() -> None:
    """A model made for another size of image takes them."""
    small, large = tiny(), tiny(image_size=32)
    large.load_state_dict(small.state_dict())
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(small(x), large(x))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="patches of 5 pixels do not divide an image of 32 x 32"):
        vit_tiny(image_size=32, patch=5)
    with pytest.raises(ValueError, match="patches of 16 pixels do not divide an image of 8 x 8"):
        vit_tiny(image_size=8)
    with pytest.raises(UsageError, match="do not divide an image of 16 x 18"):
        tiny()(torch.zeros(1, 3, 16, 18))
    with pytest.raises(UsageError, match="multiple of heads"):
        tiny(heads=3)
    with pytest.raises(UsageError, match="'sincos' or 'learned', got 'rope'"):
        tiny(positions="rope")
    with pytest.raises(UsageError, match="'mean' or 'cls', got 'max'"):
        tiny(pool="max")


def test_autocast_keeps_the_dtype_of_tokens() -> None:
    def features(**options: Any) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result: Tensor = tiny(**options)(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
        return result

    for options in ({}, {"positions": "learned", "pool": "cls"}):
        plain = tiny(**options)(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
        torch.testing.assert_close(features(**options).float(), plain, atol=0.15, rtol=0.1)


def test_masked_without_anything_hidden_is_the_plain_network() -> None:
    x = torch.rand(3, 3, 16, 16)
    for pool in ("mean", "cls"):
        plain, masked = tiny(pool=pool), tiny(pool=pool, masked=True)
        masked.load_state_dict(plain.state_dict())
        with torch.no_grad():
            assert torch.equal(masked(torch.cat([x, torch.zeros(3, 1, 16, 16)], 1)), plain(x))


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_hidden_tokens_are_dropped_before_the_blocks(pool: str) -> None:
    model = tiny(pool=pool, masked=True)
    x, mask = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    mask[0, :, 5, 6] = mask[1, :, 15, 0] = 1  # one pixel hides its patch: patch 5 of the first, 12 of the second
    with torch.no_grad():
        tokens = model._tokens(x)
        extra = int(pool == "cls")
        kept = [[t for t in range(16) if t != gone] for gone in (5, 12)]
        chosen = [torch.cat([tokens[i, :extra], tokens[i, [t + extra for t in kept[i]]]]) for i in range(2)]
        after = model.norm(model.blocks(torch.stack(chosen)))
        expected = after[:, 0] if extra else after.mean(1)
        torch.testing.assert_close(model(torch.cat([x, mask], 1)), expected)


def test_unequal_hiding_is_refused() -> None:
    x, mask = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    mask[0, :, 0, 0] = 1
    with pytest.raises(UsageError, match="from 0 to 1 of 16 patches are hidden"):
        tiny(masked=True)(torch.cat([x, mask], 1))
    with pytest.raises(UsageError, match="from 16 to 16 of 16"):
        tiny(masked=True)(torch.cat([x, torch.ones(2, 1, 16, 16)], 1))


def test_an_image_size_may_be_a_rectangle() -> None:
    model = tiny(image_size=(8, 16), positions="learned")
    assert model.grid == (2, 4) and model.pos_embed is not None and model.pos_embed.shape == (1, 8, 16)
    assert torch.equal(tiny(image_size=(8, 16)).positions, sincos_2d((2, 4), 16))
    assert model(torch.rand(2, 3, 8, 16)).shape == (2, 16)


def test_marked_patches_are_seen_and_not_described() -> None:
    """The feature is the mean of the tokens of the other patches, within the whole image."""
    model, plain = tiny(masked=True), tiny()
    plain.load_state_dict(model.state_dict())
    x, mask = torch.randn(2, 3, 16, 16), torch.full((2, 1, 16, 16), -1.0)
    mask[0, :, 4:12, 8:16] = 0
    mask[1, :, :4, :8] = 0
    tokens = plain.norm(plain.blocks(plain._tokens(x)))
    found = model(torch.cat([x, mask], 1))
    torch.testing.assert_close(found[0], tokens[0, [6, 7, 10, 11]].mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], tokens[1, [0, 1]].mean(0), rtol=1e-5, atol=1e-6)
    hidden = mask.clone()
    hidden[:, :, 12:, :4] = 1
    without = model(torch.cat([x, hidden], 1))
    assert not torch.allclose(without, found), "what is hidden is missing from the rest"
    x[:, :, 12:, :4] += 100
    assert torch.equal(model(torch.cat([x, hidden], 1)), without), "and nothing of it reaches the feature"


def test_something_must_be_left_to_describe() -> None:
    x, mask = torch.randn(2, 3, 16, 16), torch.full((2, 1, 16, 16), -1.0)
    with pytest.raises(UsageError, match="no patch to describe"):
        tiny(masked=True)(torch.cat([x, mask], 1))
    mask[:, :, :4] = 0
    with pytest.raises(UsageError, match="extra token"):
        tiny(masked=True, pool="cls")(torch.cat([x, mask], 1))
