"""Views of texts: whole words and whole characters of any script go, and something stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accord.data.augment_text import TextAugmentation, augment_text
from accord.data.random import Draws
from accord.errors import UsageError

TEXTS = [
    "a small red house",
    "grüne Äpfel und Öl",
    "日本語 の テキスト",
    "x",
    "",
    "  two  spaces ",
    "👩‍🚀 astronaut\ttab\nline",
]


def packed(texts: list[str], length: int = 48) -> Tensor:
    rows = [text.encode() for text in texts]
    return torch.tensor([list(row) + [0] * (length - len(row)) for row in rows], dtype=torch.uint8)


def unpacked(batch: Tensor) -> list[str]:
    """Raises if a row is no UTF-8 or has bytes after its end."""
    rows = [bytes(row.tolist()) for row in batch]
    assert all(b"\0" not in row.rstrip(b"\0") for row in rows)
    return [row.rstrip(b"\0").decode() for row in rows]


def views(augmentation: TextAugmentation, times: int = 200) -> list[tuple[str, str]]:
    texts = TEXTS * times
    draws = Draws(0, 0, torch.arange(len(texts)))
    return list(zip(texts, unpacked(augment_text(packed(texts), draws, augmentation)), strict=True))


def is_part(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def test_nothing_changes_without_dropping() -> None:
    assert all(a == b for a, b in views(TextAugmentation(drop_words=0.0, drop_characters=0.0), 1))


def test_words_go_and_the_others_stay_in_order() -> None:
    found = views(TextAugmentation(drop_words=0.4, drop_characters=0.0))
    assert all(is_part(b.split(), a.split()) for a, b in found)
    assert all(bool(b.split()) == bool(a.split()) for a, b in found), "something stays"
    kept = [len(b.split()) for a, b in found if a == TEXTS[0]]
    assert set(kept) == {1, 2, 3, 4} and abs(sum(kept) / len(kept) - 4 * 0.6) < 0.15


def test_characters_go_whole_whatever_their_script() -> None:
    found = views(TextAugmentation(drop_words=0.0, drop_characters=0.5))
    assert all(is_part(list(b), list(a)) and bool(a) == bool(b) for a, b in found)
    lengths = [len(b) for a, b in found if a == TEXTS[1]]
    assert abs(sum(lengths) / len(lengths) - len(TEXTS[1]) / 2) < 0.6


def test_both_leave_something() -> None:
    found = views(TextAugmentation(drop_words=0.9, drop_characters=0.9))
    assert all(bool(a.strip()) == bool(b.strip()) for a, b in found)


def test_a_view_is_a_function_of_the_sample_alone() -> None:
    batch, part = packed(TEXTS), torch.tensor([6, 1])
    whole = augment_text(batch, Draws(0, 0, torch.arange(7)), TextAugmentation())
    assert torch.equal(augment_text(batch[part], Draws(0, 0, part), TextAugmentation()), whole[part])


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="drop_words"):
        TextAugmentation(drop_words=1.0)
    with pytest.raises(ValueError, match="uint8"):
        augment_text(torch.zeros(2, 3), Draws(0, 0, torch.arange(2)), TextAugmentation())
