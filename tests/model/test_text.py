"""Texts as bytes: n-grams against a loop, every script, framing and the empty text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accord.errors import UsageError
from accord.model.text import ByteNGrams, ByteTransformer, hashed

TEXTS = ["grinning face", "été", "日本語", "مرحبا", "нет", "🙂👍🏽", "a", ""]


def encoded(texts: list[str], length: int = 24) -> Tensor:
    return torch.tensor([list(t.encode().ljust(length, b"\0")) for t in texts], dtype=torch.uint8)


def grams(text: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    return [text[i : i + n] for n in sizes for i in range(len(text) - n + 1)]


def fnv1a(gram: bytes) -> int:
    value = 2166136261
    for byte in gram:
        value = (value ^ byte) * 16777619 % 2**32
    return value


def test_the_hash_is_fnv_1a() -> None:
    """Published values of the 32-bit variant for "a" and "foobar"."""
    assert fnv1a(b"a") == 0xE40C292C and fnv1a(b"foobar") == 0xBF9CF968
    found, whole = hashed(torch.tensor([list(b"foobar")]), (1, 6))
    assert found[0, -1] == 0xBF9CF968 and bool(whole.all())


@pytest.mark.parametrize("sizes", [(1,), (2, 4), (5, 3, 1), (1, 2, 3, 4, 5, 6)])
def test_the_mean_of_the_embeddings_of_all_n_grams(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = ByteNGrams(sizes=sizes, buckets=97, width=5).double()
    means = encoder.mean(encoded(TEXTS))
    for text, mean in zip(TEXTS, means, strict=True):
        found = grams(b" " + text.encode() + b" ", sizes)
        rows = [encoder.embedding[fnv1a(gram) % 97] for gram in found] or [torch.zeros(5)]
        torch.testing.assert_close(mean, (sum(rows) / len(rows)).double())


def test_a_text_as_long_as_the_store_is_framed_too() -> None:
    encoder = ByteNGrams(sizes=(2,), buckets=97, width=5)
    torch.testing.assert_close(encoder.mean(encoded(["abcd"], 4)), encoder.mean(encoded(["abcd"], 9)))


def test_words_share_n_grams_wherever_they_stand() -> None:
    torch.manual_seed(0)
    encoder = ByteNGrams(sizes=(4, 5), buckets=4096, width=64)
    cat, same, other = torch.nn.functional.normalize(encoder.mean(encoded(["black cat", "cat black", "polar owls"])))
    assert cat @ same > 0.5 > cat @ other + 0.2


@pytest.mark.parametrize("encoder", [ByteNGrams(), ByteTransformer(24)])
def test_texts_that_differ_in_one_byte_differ(encoder: torch.nn.Module) -> None:
    first, second = encoder.eval()(encoded(["日本語", "日本誟"]))
    assert (first - second).abs().max() > 1e-4


def test_refusals() -> None:
    with pytest.raises(UsageError, match="sizes, buckets and width"):
        ByteNGrams(sizes=())
    with pytest.raises(UsageError, match="sizes, buckets and width"):
        ByteNGrams(sizes=(0, 1))
    for encoder in (ByteNGrams(), ByteTransformer(24)):
        with pytest.raises(UsageError, match=r"uint8, got torch\.float32"):
            encoder(torch.zeros(2, 24))
    with pytest.raises(UsageError, match="at most 24 tokens, got 25"):
        ByteTransformer(24)(encoded(["a"], 25))
