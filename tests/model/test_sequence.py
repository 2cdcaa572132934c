"""Means, maxima and attention over the steps that are seen, against loops."""

from __future__ import annotations

import math

import pytest
import torch

from accord.errors import UsageError
from accord.model.sequence import Transformer, masked_max, masked_mean, observed, sincos


def test_pooling_equals_loops_over_the_seen_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(6, 9, 4, generator=generator, dtype=torch.float64)
    seen = torch.rand(6, 9, generator=generator) < 0.5
    seen[2], seen[3] = False, True
    for i in range(6):
        steps = [h[i, t] for t in range(9) if seen[i, t]] or [torch.zeros(4, dtype=torch.float64)]
        torch.testing.assert_close(masked_mean(h, seen)[i], sum(steps) / len(steps))
        assert masked_max(h, seen)[i].tolist() == [max(float(s[c]) for s in steps) for c in range(4)]


def test_observed_says_what_is_known() -> None:
    nan = math.nan
    values, seen = observed(torch.tensor([[[1.0, nan], [nan, nan], [nan, -2.0]]]))
    assert values.tolist() == [[[1, 0, 1, 0], [0, 0, 0, 0], [0, -2, 0, 1]]]
    assert seen.tolist() == [[True, False, True]]


def test_positions_are_sines_and_cosines() -> None:
    table = sincos(7, 6)
    for t in range(7):
        angles = [t / 10000 ** (2 * k / 6) for k in range(3)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert table[t].tolist() == pytest.approx(expected, abs=1e-6)


def test_tokens_that_are_not_seen_have_no_effect() -> None:
    torch.manual_seed(0)
    transformer = Transformer(8, width=8, depth=2, heads=2)
    tokens, seen = torch.randn(3, 6, 8), torch.ones(3, 6, dtype=torch.bool)
    seen[0, 4:], seen[1, 2], seen[2] = False, False, False
    other = torch.where(seen[..., None], tokens, torch.randn(3, 6, 8))
    torch.testing.assert_close(transformer(other, seen), transformer(tokens, seen))
    torch.testing.assert_close(transformer(tokens[:1, :4], seen[:1, :4]), transformer(tokens, seen)[:1])
    assert transformer(tokens, seen)[2].abs().max() == 0
    swapped = tokens[:, [1, 0, 2, 3, 4, 5]]
    assert (transformer(swapped, seen) - transformer(tokens, seen))[0].abs().max() > 1e-4, "positions are told apart"


def test_refusals() -> None:
    with pytest.raises(UsageError, match="multiple of heads"):
        Transformer(8, width=10, depth=1, heads=4)
    with pytest.raises(UsageError, match="at most 8 tokens, got 9"):
        Transformer(8, width=8, depth=1, heads=2)(torch.zeros(1, 9, 8), torch.ones(1, 9, dtype=torch.bool))
