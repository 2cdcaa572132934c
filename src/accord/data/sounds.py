"""Encoded sounds as samples: decoded once, kept in memory one after the other, padded at the end with NaN when they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from accord.data.encoded import Encoded, Progress, memory_free
from accord.data.policy import Policy, judge
from accord.data.samples import LISTED, Refused, Samples, hash_bytes
from accord.data.series import WindowStore
from accord.data.vectors import Labels
from accord.data.wav import Sound, decode_wav
from accord.errors import EnvironmentFault

_BATCH = 64
MOMENT = 0.025
"""Seconds over which it is told how loud a sound is."""


def sound_samples(
    name: str,
    encoded: Encoded,
    keys: Sequence[str],
    policy: Policy,
    *,
    labels: Labels | None = None,
    notes: Sequence[str] = (),
    rate: int | None = None,
    length: int | None = None,
    trim: float | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Samples:
    """WAV files as samples of kind audio.

    Args:
        name: the source as given.
        encoded: the bytes of the files.
        keys: of the sounds.
        policy: for those that cannot be used.
        labels: of the sounds.
        notes: said once to the user.
        rate: steps per second, by default those that most sounds have; others are bad.
        length: steps they are padded to, by default those of the longest; longer ones are bad.
        trim: decibels; what is further below the loudest moment of its own sound is cut off at both ends, see `trimmed`.
        seconds: all sounds are this long, in place of `length`: shorter ones are padded, of longer ones the loudest part is kept.
        progress: called with (done, total).

    Raises:
        DataError: as the policy says, or if all sounds are constant.
        EnvironmentFault: if there is not enough memory for all of them.
    """
    found, content, refused = _decoded(name, encoded, progress)
    rates = Counter(sound.rate for sound in found if sound is not None)
    common = rate or (rates.most_common(1)[0][0] if rates else 0)
    if trim is not None:
        found = [
            None if sound is None else sound._replace(wave=trimmed(sound.wave, sound.rate, trim)) for sound in found
        ]
    longest = length or max((len(s.wave) for s in found if s is not None and s.rate == common), default=1)
    if seconds is not None:
        longest = max(1, round(min(seconds * common, 2.0**53)))
        found = [None if sound is None else sound._replace(wave=loudest(sound.wave, longest)) for sound in found]
    for i, sound in enumerate(found):
        if sound is not None and sound.rate != common:
            refused[i] = _other_rate(sound.rate, common, trained=rate is not None)
        elif sound is not None and len(sound.wave) > longest:
            refused[i] = _too_long(len(sound.wave), longest, common)
    waves = [np.zeros(0, np.float32) if sound is None or i in refused else sound.wave for i, sound in enumerate(found)]
    count = np.array([len(wave) for wave in waves], np.int64)
    samples = Samples(
        name=name,
        kind="audio",
        store=WindowStore(np.concatenate(waves)[:, None], np.cumsum(count) - count, count, longest),
        keys=keys,
        content=content,
        ok=~np.isin(np.arange(len(keys)), list(refused)),
        bad=[fault.item(keys[i]) for i, fault in sorted(refused.items())[:LISTED]],
        labels=None if labels is None else labels.labels,
        classes=() if labels is None else labels.classes,
        notes=list(notes),
        rate=common,
    )
    return judge(samples, policy, sum(len(wave) > 0 and bool((wave == wave[0]).all()) for wave in waves))


def loudest(wave: np.ndarray, steps: int) -> np.ndarray:
    """The run of at most `steps` steps with the greatest sum of squares, the first of them; a shorter wave as it is.

    >>> loudest(np.array([0.0, 1.0, -3.0, 1.0, 0.0]), 2)
    array([ 1., -3.])
    """
    if len(wave) <= steps:
        return wave
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    start = int((energy[steps:] - energy[:-steps]).argmax())
    return wave[start : start + steps]


def trimmed(wave: np.ndarray, rate: int, decibels: float) -> np.ndarray:
    """The wave from the first to the last frame whose mean square is at most so many decibels below that of the loudest frame.

    Frames are of `MOMENT` seconds and begin at every step; a wave that is no longer than one is left as it is.
    """
    steps = max(1, round(MOMENT * rate))
    if len(wave) <= steps:
        return wave
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    frames = energy[steps:] - energy[:-steps]
    loud = np.flatnonzero(frames >= frames.max() * 10 ** (-decibels / 10))
    return wave[loud[0] : loud[-1] + steps]


def is_sound(encoded: Encoded) -> bool:
    """Whether most of what a first look finds are WAV files."""
    seen = [data for data in encoded.peek(8) if not isinstance(data, Refused)]
    return 2 * sum(data[:4] == b"RIFF" and data[8:12] == b"WAVE" for data in seen) > len(seen)


def _decoded(
    name: str, encoded: Encoded, progress: Progress | None
) -> tuple[list[Sound | None], np.ndarray, dict[int, Refused]]:
    """Every sound, None where it is refused, the hash of its bytes, and why it is."""
    found: list[Sound | None] = []
    content, refused = np.zeros(len(encoded), np.uint64), dict[int, Refused]()
    for start, load in encoded.chunks(_BATCH):
        for i, data in enumerate(load(), start):
            try:
                if isinstance(data, Refused):
                    raise data
                content[i] = hash_bytes(data)
                found.append(decode_wav(data))
            except Refused as fault:
                found.append(None)
                refused[i] = fault
        _require_memory(name, found, len(encoded))
        if progress is not None:
            progress(len(found), len(encoded))
    return found, content, refused


def _require_memory(name: str, found: Sequence[Sound | None], total: int) -> None:
    """Refuses when what is left, by the average so far, would not fit twice."""
    bytes_ = 4 * sum(len(sound.wave) for sound in found[-_BATCH:] if sound is not None) / len(found[-_BATCH:])
    needed = (2 * total - len(found)) * bytes_
    if needed > memory_free():
        raise EnvironmentFault(
            f"about {needed / 1e9:.1f} GB needed for {total} sounds, {memory_free() / 1e9:.1f} GB of memory free",
            where=name,
            help="pass fewer sounds, or sounds of a lower rate",
            code="E543",
        )


def _other_rate(rate: int, common: int, *, trained: bool) -> Refused:
    who = "the run was trained on" if trained else "the others have"
    return Refused(
        "E387",
        f"a sound of {rate} steps per second, {who} {common}",
        f"convert it, for example with: ffmpeg -i FILE -ar {common} NEW.wav",
    )


def _too_long(steps: int, longest: int, rate: int) -> Refused:
    return Refused(
        "E388",
        f"a sound of {steps / rate:.3g} s, at most {longest / rate:.3g} s are taken",
        "cut it, or train anew with data.seconds, which cuts long sounds",
    )
