"""Draws: exact values against big-integer arithmetic, statistical quality, and independence of the batch around a sample."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from accord.data.random import Draws, choose, permutation

N = 65_536
MASK = 2**64 - 1


def draws(n: int = N, *, seed: int = 0, epoch: int = 0, start: int = 0) -> Draws:
    return Draws(seed, epoch, torch.arange(start, start + n))


def key(*parts: str | int) -> int:
    text = "\0".join(str(p) for p in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def mix(x: int) -> int:
    """The finaliser of SplitMix64, from the paper, in unbounded integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_bits_equal_big_integer_arithmetic():
    gamma = 0x9E3779B97F4A7C15
    index = [0, 1, 5, 2**40 + 3, 2**62]
    got = Draws(7, 2, torch.tensor(index)).fork(3).bits("colour", 4)
    for row, i in zip(got, index, strict=True):
        start = mix((mix((i * gamma + key("start", 7, 2)) & MASK) + key("fork", 3)) & MASK)
        for j, value in enumerate(row.tolist()):
            assert value & MASK == mix((start + j * gamma + key("slot", "colour")) & MASK)


def test_uniform_is_the_top_24_bits():
    d = draws(100)
    bits = [b & MASK for b in d.bits("a", 3).flatten().tolist()]
    assert d.uniform("a", 3).flatten().tolist() == [(b >> 40) / 2**24 for b in bits]


def test_uniform_is_uniform_in_the_half_open_interval():
    u = draws().uniform("a", 4)
    assert u.dtype == torch.float32 and u.shape == (N, 4)
    assert 0 <= u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1
    for column in u.T:
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-4


def test_normal_is_normal():
    z = draws(N // 4).normal("a", 5)
    assert z.dtype == torch.float32 and z.shape == (N // 4, 5) and bool(z.isfinite().all())
    for column in z.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(z.numpy().T) - np.eye(5)).max() < 4.5 / np.sqrt(N // 4)
    squares = np.corrcoef(z.square().numpy().T)
    assert np.abs(squares - np.eye(5)).max() < 4.5 / np.sqrt(N // 4), (
        "cosine and sine of one radius must be independent"
    )


PAIRS = {
    "neighbouring indices": lambda: (draws().uniform("a"), draws(start=1).uniform("a")),
    "indices 2^20 apart": lambda: (draws().uniform("a"), draws(start=2**20).uniform("a")),
    "indices 2^32 apart": lambda: (draws().uniform("a"), draws(start=2**32).uniform("a")),
    "slots": lambda: (draws().uniform("a"), draws().uniform("b")),
    "elements of a slot": lambda: tuple(draws().uniform("a", 2).T),
    "epochs": lambda: (draws().uniform("a"), draws(epoch=1).uniform("a")),
    "seeds": lambda: (draws().uniform("a"), draws(seed=1).uniform("a")),
    "seed and epoch swapped": lambda: (draws(epoch=3).uniform("a"), draws(seed=3).uniform("a")),
    "views": lambda: (draws().fork(0).uniform("a"), draws().fork(1).uniform("a")),
    "view and parent": lambda: (draws().uniform("a"), draws().fork(0).uniform("a")),
    "view of a view": lambda: (draws().fork(1).uniform("a"), draws().fork(1).fork(1).uniform("a")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_independent(name: str):
    """Uniform on the square (chi-square over 16 x 16 cells), uncorrelated, and no value in common."""
    a, b = (t.numpy() for t in PAIRS[name]())
    cells = np.histogram2d(a, b, bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-4
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))
    assert np.mean(a == b) < 1e-3


def test_the_test_of_independence_can_fail():
    """Negative control: Weyl numbers without the hash are uniform but far from independent of their neighbours."""
    a = (np.arange(N) * 0.6180339887) % 1
    cells = np.histogram2d(a[:-1], a[1:], bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(cells.ravel()).pvalue < 1e-10


def test_every_bit_of_the_index_moves_half_the_bits_of_the_result():
    base = torch.arange(2000)
    before = Draws(0, 0, base).bits("a", 1)
    for bit in (0, 1, 7, 20, 40, 61):
        after = Draws(0, 0, base ^ (1 << bit)).bits("a", 1)
        changed = np.unpackbits((before ^ after).numpy().view(np.uint8)).mean()
        assert abs(changed - 0.5) < 0.01


def test_no_two_samples_share_their_bits():
    bits = draws(200_000).bits("a", 1).flatten()
    assert len(bits.unique()) == 200_000


def test_batch_order_and_composition_do_not_matter():
    whole = draws(257, seed=3, epoch=5)
    order = torch.from_numpy(np.random.default_rng(0).permutation(257))
    for take in (lambda d: d.uniform("a", 2, 3), lambda d: d.normal("b", 7), lambda d: d.fork(4).uniform("a")):
        expected = take(whole)
        assert torch.equal(take(Draws(3, 5, order)), expected[order])
        assert torch.equal(take(Draws(3, 5, order[:1])), expected[order[:1]])
        assert torch.equal(take(whole.rows(slice(10, 20))), expected[10:20])
        joined = Draws.join([whole.rows(slice(0, 100)), whole.rows(slice(100, 257))])
        assert len(joined) == 257 and torch.equal(take(joined), expected)


def test_more_elements_keep_the_first_ones():
    """A parameter added at the end of a slot changes none of the earlier ones."""
    assert torch.equal(draws(9).uniform("a", 3), draws(9).uniform("a", 5)[:, :3])


@pytest.mark.parametrize("seed", [-1, 2**63, 2**200])
def test_any_integer_is_a_seed(seed: int):
    assert stats.kstest(draws(2000, seed=seed, epoch=-3).uniform("a").numpy(), "uniform").pvalue > 1e-4


def test_the_index_is_left_alone():
    index = torch.arange(5)
    Draws(0, 0, index).fork(1).uniform("a")
    assert torch.equal(index, torch.arange(5))


@pytest.mark.parametrize("index", [torch.arange(4).int(), torch.zeros(2, 2, dtype=torch.int64), torch.rand(3)])
def test_wrong_index(index: torch.Tensor):
    with pytest.raises(ValueError, match="index: expected int64"):
        Draws(0, 0, index)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_a_gpu():
    cpu, gpu = draws(1000), Draws(0, 0, torch.arange(1000, device="cuda"))
    assert torch.equal(gpu.fork(1).uniform("a", 3).cpu(), cpu.fork(1).uniform("a", 3))
    torch.testing.assert_close(gpu.normal("a", 3).cpu(), cpu.normal("a", 3), rtol=1e-6, atol=1e-6)


def test_permutation_is_a_permutation():
    for n in (0, 1, 2, 1000):
        assert np.array_equal(np.sort(permutation(1, 2, n)), np.arange(n))
    assert permutation(0, 0, 5).dtype == np.int64


def test_permutation_is_pinned():
    """A resumed run needs the order that it began with, whatever version of NumPy is there by then."""
    assert permutation(0, 0, 10).tolist() == [7, 8, 1, 9, 6, 2, 5, 4, 0, 3]
    assert permutation(0, 1, 10).tolist() == [1, 7, 4, 9, 2, 8, 5, 6, 3, 0]


def test_permutations_are_all_equally_likely():
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(4800):
        order = tuple(permutation(0, epoch, 4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_choose_is_uniform_and_depends_on_everything():
    chosen = [choose(0, 0, index, 0, 7) for index in range(3500)]
    assert stats.chisquare(np.bincount(chosen, minlength=7)).pvalue > 1e-4
    for other in ([choose(0, 0, i, 1, 7) for i in range(3500)], [choose(0, 1, i, 0, 7) for i in range(3500)]):
        assert abs(np.mean(np.array(chosen) == other) - 1 / 7) < 0.03
