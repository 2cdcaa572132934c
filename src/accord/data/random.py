r"""Random numbers that are a pure function of (seed, epoch, sample index, slot): $u = h(h(i, \text{key}) + \text{slot} + j\gamma)$.

Nothing is drawn from a stream, so batch size, order, worker and rank counts and resuming never change what a sample sees.
h is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"), in 64-bit
integer arithmetic that is the same on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15
"""2^64 / golden ratio, odd: the increment of SplitMix64."""
FIRST = 0xBF58476D1CE4E5B9
SECOND = 0x94D049BB133111EB
"""Multipliers of the finaliser ("Mix13", Stafford 2011)."""


class Draws:
    """Random numbers for a batch; every value depends on (seed, epoch, view, index of its own sample, slot) alone.

    Args:
        seed: any integer.
        epoch: any integer; a sample gets fresh numbers in every epoch.
        index: which samples, (batch,) int64. The numbers live on its device.

    Raises:
        ValueError: if `index` is not a vector of int64.

    Example:
        >>> draws = Draws(seed=0, epoch=3, index=torch.tensor([7, 8]))
        >>> draws.uniform("crop", 4).shape
        torch.Size([2, 4])
    """

    def __init__(self, seed: int, epoch: int, index: Int64[Tensor, " batch"]):
        if index.dtype != torch.int64 or index.ndim != 1:
            raise ValueError(
                f"index: expected int64 of shape (batch,), got {index.dtype} of shape {tuple(index.shape)}"
            )
        self.index = index
        self._start = _mix(index * signed(GAMMA) + key_of("start", int(seed), int(epoch)))

    @classmethod
    def join(cls, parts: Sequence[Draws]) -> Draws:
        """One batch of several: row by row the same numbers as the parts give."""
        joined = cls.__new__(cls)
        joined.index = torch.cat([part.index for part in parts])
        joined._start = torch.cat([part._start for part in parts])
        return joined

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, rows: slice) -> Draws:
        """The same numbers for some of the samples."""
        part = Draws.__new__(Draws)
        part.index = self.index[rows]
        part._start = self._start[rows]
        return part

    def fork(self, view: int) -> Draws:
        """The same samples with other numbers, independent of these and of every other fork."""
        other = Draws.__new__(Draws)
        other.index = self.index
        other._start = _mix(self._start + key_of("fork", int(view)))
        return other

    def bits(self, slot: str, *shape: int) -> Int64[Tensor, "batch ..."]:
        """64 random bits each, (batch, *shape)."""
        counter = torch.arange(math.prod(shape), device=self._start.device) * signed(GAMMA) + key_of("slot", slot)
        return _mix(self._start[:, None] + counter).view(len(self), *shape)

    def uniform(self, slot: str, *shape: int) -> Float[Tensor, "batch ..."]:
        """Uniform in [0, 1), (batch, *shape) float32: multiples of 2^-24, equal bit for bit on every device."""
        return (_shift(self.bits(slot, *shape), 40)).float() * 2.0**-24

    def normal(self, slot: str, *shape: int) -> Float[Tensor, "batch ..."]:
        """Standard normal, (batch, *shape) float32, by Box and Muller 1958 in float64; devices may differ by one rounding."""
        count = math.prod(shape)
        bits = self.bits(slot, (count + 1) // 2)
        radius = (_shift(bits, 32).double() + 0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
        angle = (bits & 0xFFFFFFFF).double().mul_(2 * math.pi * 2.0**-32)
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return both[:, :count].float().view(len(self), *shape)


def permutation(seed: int, epoch: int, n: int) -> Int[np.ndarray, " n"]:
    """The order of the epoch: a permutation of 0..n-1, int64, the same with every version of NumPy."""
    key = key_of("permutation", int(seed), int(epoch))
    return np.argsort(hash_array(np.arange(n, dtype=np.uint64), key), kind="stable")


def choose(seed: int, epoch: int, index: int, attempt: int, n: int) -> int:
    """One of 0..n-1, at random, for a sample and an attempt."""
    return int(hash_array(np.array([index], dtype=np.uint64), key_of("choose", seed, epoch, attempt))[0] % np.uint64(n))


def hash_array(values: Int[np.ndarray, " n"], key: int) -> Int[np.ndarray, " n"]:
    """The same hash for NumPy: uint64 -> uint64, a bijection for each key."""
    x = values * np.uint64(GAMMA) + np.uint64(key % 2**64)
    for _ in range(2):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(FIRST)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(SECOND)
        x ^= x >> np.uint64(31)
    return x


def signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


@lru_cache(maxsize=4096)
def key_of(*parts: str | int) -> int:
    """For `hash_array`: 64 bits of a cryptographic hash of the parts, as int64: what tells seeds, epochs, views and slots apart."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right: torch's own copies the sign."""
    return (x >> by).bitwise_and_((1 << (64 - by)) - 1)


def _mix(x: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """The finaliser of SplitMix64; overwrites its argument."""
    x.bitwise_xor_(_shift(x, 30)).mul_(signed(FIRST))
    x.bitwise_xor_(_shift(x, 27)).mul_(signed(SECOND))
    return x.bitwise_xor_(_shift(x, 31))
