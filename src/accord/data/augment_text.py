"""Random views of a whole batch of texts at once: words and characters are left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from accord.data.random import Draws
from accord.errors import UsageError

SPACES = (9, 10, 13, 32)
"""Tab, line feed, carriage return and blank: the bytes that set words apart."""


@dataclass(frozen=True, kw_only=True)
class TextAugmentation:
    """What may happen to a text. Something of it stays in any case.

    Args:
        drop_words: probability that a word is left out, each on its own; words are what blanks set apart.
        drop_characters: the same for each character.

    Raises:
        UsageError: (a ValueError) if a value is out of bounds.
    """

    drop_words: float = 0.2
    drop_characters: float = 0.05

    def __post_init__(self) -> None:
        for name in ("drop_words", "drop_characters"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 <= value < 1.0:
                raise UsageError(
                    f"{name}: expected a number in [0, 1), got {value!r}",
                    where=name,
                    help=f"set {name} within [0, 1)",
                )


def augment_text(
    text: UInt8[Tensor, "batch byte"], draws: Draws, augmentation: TextAugmentation
) -> UInt8[Tensor, "batch byte"]:
    """One random view of each text of UTF-8 bytes, 0 past the end; never half a character.

    A word goes with the blanks that follow it. Of a text whose words would all go, that with the largest random number stays.

    Raises:
        ValueError: if there are not as many draws as texts, or these are no batch of texts.
    """
    if text.ndim != 2 or text.dtype != torch.uint8 or len(draws) != len(text):
        raise ValueError(f"text: expected uint8 (batch={len(draws)}, byte), got {text.dtype} {tuple(text.shape)}")
    kept, blank = text != 0, _blank(text)
    if augmentation.drop_words:
        kept = kept & _kept(draws, "word", _words(blank), kept & ~blank, augmentation.drop_words)
    if augmentation.drop_characters:
        kept = kept & _kept(draws, "character", _characters(text), kept & ~blank, augmentation.drop_characters)
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    return text.gather(1, order).masked_fill_(~kept.gather(1, order), 0)


def _blank(text: Tensor) -> Bool[Tensor, "batch byte"]:
    return torch.isin(text, torch.tensor(SPACES, dtype=torch.uint8, device=text.device))


def _words(blank: Tensor) -> Int64[Tensor, "batch byte"]:
    """The number of the word each byte is in; a word begins where a byte that is no blank follows a blank."""
    begins = ~blank & torch.cat([torch.zeros_like(blank[:, :1]), blank[:, :-1]], dim=1)
    return begins.cumsum(1)


def _characters(text: Tensor) -> Int64[Tensor, "batch byte"]:
    """The number of the character each byte is in: continuation bytes are 10xxxxxx (UTF-8, RFC 3629)."""
    return ((text & 0xC0) != 0x80).cumsum(1) - 1


def _kept(draws: Draws, slot: str, unit: Tensor, there: Tensor, share: float) -> Bool[Tensor, "batch byte"]:
    """Which bytes are in a unit that stays; the best of those that are `there` stays in any case."""
    u = draws.uniform(slot, unit.shape[1]).gather(1, unit.clamp_min(0))
    best = u.masked_fill(~there, -1.0).amax(1, keepdim=True)
    return (u >= share) | (u >= best)
