"""Visible and hidden parts of rows and series: together they are the whole, in the right shares, drawn for each sample alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from accord.data.pairing import Originals
from accord.data.pairing_future import future
from accord.data.pairing_hidden import masked
from accord.data.random import Draws
from accord.errors import UsageError


def draws(n: int, seed: int = 0) -> Draws:
    return Draws(seed, 0, torch.arange(n))


def whole(x: Tensor, y: Tensor) -> Tensor:
    assert not (~x.isnan() & ~y.isnan()).any(), "nothing is in both"
    return torch.where(x.isnan(), y, x)


def equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def rows(n: int, columns: int, missing: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(n, columns, generator=generator)
    return found.masked_fill(torch.rand(n, columns, generator=generator) < missing, math.nan)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_columns(missing: float) -> None:
    batch = rows(400, 6, missing)
    pair = masked(share=0.3)(batch, draws(400))
    assert equal(whole(pair.x, pair.y), batch)
    for x, y, row in zip(pair.x, pair.y, batch, strict=True):
        observed = int((~row.isnan()).sum())
        expected = min(max(1, round(0.3 * observed)), max(1, observed - 1)) if observed else 0
        assert int((~y.isnan()).sum()) == expected and int((~x.isnan()).sum()) == observed - expected


def test_every_column_is_hidden_equally_often() -> None:
    hidden = masked(share=0.5).hide(rows(12_000, 4), draws(12_000))
    counts = hidden.sum(0).float()
    assert ((counts - 6000).square() / 3000).sum() < 16.3


def test_runs_of_steps() -> None:
    batch = rows(200, 40 * 3).view(200, 40, 3)
    pair = masked(share=0.4, block=5)(batch, draws(200))
    assert equal(whole(pair.x, pair.y), batch)
    hidden = pair.x.isnan()
    assert torch.equal(hidden.any(2), hidden.all(2)), "all channels at once"
    share = hidden[:, :, 0].float().mean()
    assert abs(float(share) - 4 / 9) < 0.02, "4 of 9 runs, of which the outermost are cut"
    inside = hidden[:, 5:-5, 0].int().diff(dim=1)
    first, last = (inside == 1).nonzero(), (inside == -1).nonzero()
    for sample, place in first.tolist():
        ends = [e for s, e in last.tolist() if s == sample and e > place]
        assert not ends or (ends[0] - place) % 5 == 0, "whole runs"
    assert len(set(((first[:, 1] + 6) % 5).tolist())) == 5, "runs begin anywhere"


def test_what_was_not_observed_is_not_hidden_for_nothing() -> None:
    batch = torch.zeros(300, 40, 1)
    batch[:, 10:] = math.nan
    pair = masked(share=0.5, block=5)(batch, draws(300))
    assert (~pair.y.isnan()).flatten(1).any(1).all() and (~pair.x.isnan()).flatten(1).any(1).all()
    empty = masked()(torch.full((2, 4), math.nan), draws(2))
    assert empty.x.isnan().all() and empty.y.isnan().all()


@pytest.mark.parametrize("shape", [(7,), (30, 2)])
def test_a_pair_is_a_function_of_the_sample_alone(shape: tuple[int, ...]) -> None:
    pairing, batch = masked(block=4), torch.randn(40, *shape)
    part, pair = torch.tensor([31, 2, 17]), masked(block=4)(batch, draws(40))
    again = pairing(batch[part], Draws(0, 0, part))
    assert equal(again.x, pair.x[part]) and equal(again.y, pair.y[part])
    assert not equal(pairing(batch, draws(40, seed=1)).x, pair.x)
    assert pairing.alike and pairing.random and pairing.action_dim == 0


def test_without_anything_random() -> None:
    pairing, batch, others = masked(), rows(5, 6), rows(5, 6) + 1
    assert equal(pairing.plain(batch), batch)
    joined = pairing.join(Originals(batch), Originals(others))
    assert torch.equal(joined.x.isnan(), ~joined.y.isnan()) and torch.equal(joined.x.isnan()[0], joined.x.isnan()[3])
    assert equal(joined.y, others.where(joined.x.isnan(), math.nan)) and equal(pairing.plain_y(others), others)


def test_what_masked_refuses() -> None:
    for options in ({"share": 0.0}, {"share": 1.0}, {"share": True}, {"block": 0}):
        with pytest.raises(UsageError):
            masked(**options)  # type: ignore[arg-type]
    for batch in (torch.zeros(2, 1, 4, 4), torch.zeros(2, 5, dtype=torch.uint8), torch.zeros(2, 1)):
        with pytest.raises(UsageError, match="masked does not apply"):
            masked()(batch, draws(2))


def test_past_and_future() -> None:
    batch = torch.arange(24.0).view(2, 6, 2)
    pairing = future(context=4, horizon=2)
    pair = pairing(batch, draws(2))
    assert torch.equal(pair.x, batch[:, :4]) and torch.equal(pair.y, batch[:, 4:])
    assert torch.equal(pairing.plain(batch), pair.x) and torch.equal(pairing.plain_y(batch), pair.y)
    joined = pairing.join(Originals(batch), Originals(batch + 100))
    assert torch.equal(joined.x, pair.x) and torch.equal(joined.y, pair.y + 100)
    assert not pairing.alike and not pairing.random


def test_what_future_refuses() -> None:
    for options in ({"context": 0, "horizon": 1}, {"context": 3, "horizon": 1.5}):
        with pytest.raises(UsageError):
            future(**options)  # type: ignore[arg-type]
    for shape in ((2, 5, 2), (2, 6)):
        with pytest.raises(UsageError, match="windows of 6 steps"):
            future(context=4, horizon=2)(torch.zeros(shape), draws(2))
