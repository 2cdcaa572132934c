"""Encoded images -> samples: one pass decodes, hashes and judges every image; the pixels stay in memory, in a mapped file, or encoded."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accord.data import cache as cache_folder
from accord.data.images import MAX_PIXELS, Canvas, Header, Misfit, count_constant, decode, pillow_hushed, read_header
from accord.data.samples import LISTED, ArrayStore, BadItem, BadItems, Refused, Store, hash_bytes
from accord.errors import EnvironmentFault

IN_MEMORY = 64 << 20
"""Decoded images of up to this many bytes are kept in memory and decoded anew each time."""

CACHED = 4 << 30
"""Decoded images of up to this many bytes are kept in a mapped file; more are decoded whenever they are needed."""

SHUFFLED = 16_384
"""Images that are shuffled together where they are decoded whenever they are needed, and read block by block."""

SIDES = (32, 48, 64, 96, 128)
"""Standard sides of a model's input; images of many sizes are stored 1.25 times as large, so that crops have room."""

KEPT = 96
"""Images of one size up to this many pixels a side are stored as they are."""

FORMAT = 1
_PEEK = 64
_CHUNK = 64

Chunk = tuple[int, Callable[[], Sequence[bytes | Refused]]]
Progress = Callable[[int, int], None]


class Encoded(ABC):
    """Encoded images in order: the files of a folder, or the rows of tables."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def stamp(self) -> bytes:
        """What changes whenever the content may have changed: paths, sizes, times."""

    @abstractmethod
    def peek(self, count: int) -> Sequence[bytes | Refused]:
        """Up to `count` images, spread over all."""

    @abstractmethod
    def chunks(self, size: int) -> Iterator[Chunk]:
        """(place of the first, what loads them) of runs of up to `size` images, in order; the loading happens in a worker thread."""

    @abstractmethod
    def fetcher(self, entry: cache_folder.Entry | None) -> Callable[[int], bytes]:
        """What reads one image, from any thread; it raises `Refused`. `entry` is where `keep` kept them."""

    @property
    def blocks(self) -> np.ndarray | None:
        """The first of each run of images that are best read together, int64, ascending; None if any order will do."""
        return None

    @property
    def shuffle_buffer(self) -> int:
        """How many to shuffle together where they are read block by block."""
        return SHUFFLED

    @abstractmethod
    def keep(self, folder: Path, progress: Progress | None) -> None:
        """Write into `folder` whatever `fetcher` will need."""


class OneByOne(Encoded):
    """Encoded images that are read where they lie, each by itself."""

    @abstractmethod
    def read(self, i: int) -> bytes:
        """Image number `i`. Raises `Refused`, `EnvironmentFault`."""

    def _load(self, run: Sequence[int]) -> list[bytes | Refused]:
        loaded: list[bytes | Refused] = []
        for i in run:
            try:
                loaded.append(self.read(i))
            except Refused as refused:
                loaded.append(refused)
        return loaded

    def peek(self, count: int) -> list[bytes | Refused]:
        return self._load(np.unique(np.linspace(0, len(self) - 1, count).astype(int)).tolist())

    def chunks(self, size: int) -> Iterator[Chunk]:
        for start in range(0, len(self), size):
            run = range(start, min(start + size, len(self)))
            yield start, lambda run=run: self._load(run)  # type: ignore[misc]

    def keep(self, folder: Path, progress: Progress | None) -> None:
        """Nothing: they stay where they are."""

    def fetcher(self, entry: cache_folder.Entry | None) -> Callable[[int], bytes]:
        return self.read


@dataclass(frozen=True)
class Options:
    """How images are to be stored; None means: by what they are."""

    size: int | None = None
    channels: int | None = None
    max_pixels: int = MAX_PIXELS
    cache: Path | None = None
    in_memory: int = IN_MEMORY
    cached: int = CACHED

    def words(self) -> str:
        """What the stored pixels depend on."""
        return f"{FORMAT} {self.size} {self.channels} {self.max_pixels} {self.cached}"


@dataclass
class Scan:
    """What one pass found: per image, and in total."""

    canvas: Canvas
    content: np.ndarray
    ok: np.ndarray
    aspect: np.ndarray
    refused: dict[int, Refused] = field(default_factory=dict)
    conversions: Counter[str] = field(default_factory=Counter)
    constant: int = 0
    headers: list[Header] = field(default_factory=list)

    @classmethod
    def empty(cls, canvas: Canvas, n: int) -> Scan:
        return cls(canvas, np.zeros(n, np.uint64), np.zeros(n, np.bool_), np.ones(n, np.float32))


@dataclass
class Found:
    """One image's part of a scan, or its header alone."""

    content: int = 0
    aspect: float = 1.0
    conversions: tuple[str, ...] = ()
    header: Header | None = None
    refused: Refused | None = None


def workers() -> int:
    """Threads that decode: as many as there are processors for this process, at most 16."""
    return max(1, min(16, len(os.sched_getaffinity(0))))


def scan(
    encoded: Encoded, canvas: Canvas, out: np.ndarray | None, options: Options, progress: Progress | None = None
) -> Scan:
    """Decode everything into `out`, (N, C, S, S) uint8, or with None only read headers. Raises `Misfit` if `canvas` was a wrong guess."""
    result = Scan.empty(canvas, len(encoded))
    for start, found in _in_order(encoded, lambda i, data: _look(data, canvas, out, i, options.max_pixels), progress):
        part = slice(start, start + len(found))
        result.content[part] = [item.content for item in found]
        result.aspect[part] = [item.aspect for item in found]
        result.ok[part] = [item.refused is None for item in found]
        result.refused.update((i, item.refused) for i, item in enumerate(found, start) if item.refused is not None)
        result.conversions.update(name for item in found for name in item.conversions)
        result.headers += [item.header for item in found if item.header is not None]
        if out is not None:
            result.constant += count_constant(out[part][result.ok[part]])
    return result


def _look(data: bytes | Refused, canvas: Canvas | None, out: np.ndarray | None, i: int, max_pixels: int) -> Found:
    if isinstance(data, Refused):
        return Found(refused=data)
    content = hash_bytes(data)
    try:
        if out is None or canvas is None:
            header = read_header(data, max_pixels)
            return Found(content, header.width / header.height, header=header)
        decoded = decode(data, canvas, max_pixels)
    except Refused as refused:
        return Found(content, refused=refused)
    out[i] = decoded.pixels
    return Found(content, decoded.aspect, decoded.conversions)


def _in_order(
    encoded: Encoded, look: Callable[[int, bytes | Refused], Found], progress: Progress | None
) -> Iterator[tuple[int, list[Found]]]:
    """Results of `look` for every image, chunk by chunk in order, computed by threads that are never far ahead."""

    def work(start: int, load: Callable[[], Sequence[bytes | Refused]]) -> list[Found]:
        return [look(i, data) for i, data in enumerate(load(), start)]

    waiting: deque[tuple[int, Future[list[Found]]]] = deque()
    with pillow_hushed(), ThreadPoolExecutor(workers()) as pool:
        try:
            for start, load in encoded.chunks(_CHUNK):
                waiting.append((start, pool.submit(work, start, load)))
                if len(waiting) > 3 * workers():
                    yield _next(waiting, progress, len(encoded))
            while waiting:
                yield _next(waiting, progress, len(encoded))
        finally:
            pool.shutdown(cancel_futures=True)


def _next(
    waiting: deque[tuple[int, Future[list[Found]]]], progress: Progress | None, total: int
) -> tuple[int, list[Found]]:
    start, future = waiting.popleft()
    found = future.result()
    if progress is not None:
        progress(start + len(found), total)
    return start, found


def plan(headers: Sequence[Header], options: Options, guess: bool) -> Canvas:
    """The canvas for images with these headers; with `guess` there are others, and the canvas says what it takes for granted."""
    all_grey = bool(headers) and all(header.grey for header in headers)
    channels = options.channels or (1 if all_grey else 3)
    guess_grey = guess and all_grey and options.channels is None
    if options.size is not None:
        return Canvas(channels, options.size, None, guess_grey)
    sizes = {(header.width, header.height) for header in headers}
    if len(sizes) == 1 and max(size := next(iter(sizes))) <= KEPT:
        return Canvas(channels, max(size), size if guess else None, guess_grey)
    short = float(np.median([min(header.width, header.height) for header in headers])) if headers else 0.0
    side = max([side for side in SIDES if side <= short], default=SIDES[0])
    return Canvas(channels, side * 5 // 4, None, guess_grey)


def _guess(encoded: Encoded, options: Options) -> Canvas:
    with pillow_hushed():
        found = [_look(data, None, None, 0, options.max_pixels) for data in encoded.peek(_PEEK)]
    return plan([item.header for item in found if item.header is not None], options, True)


def open_images(
    encoded: Encoded, keys: Sequence[str], options: Options, progress: Progress | None = None
) -> tuple[Store, Scan, list[str]]:
    """Where the pixels are, what the scan found, and notes. Decodes at most once for each state of the data and set of options."""
    folder = (options.cache or cache_folder.default_folder()) / f"samples-{FORMAT}"
    key = hashlib.sha256(options.words().encode() + b"\0" + encoded.stamp()).hexdigest()[:40]
    entry = cache_folder.find(folder, key) if folder.is_dir() else None
    if entry is not None:
        return _from_cache(entry, encoded, keys, options)
    canvas = _guess(encoded, options)
    try:
        return _build(encoded, keys, options, canvas, folder, key, progress)
    except Misfit:
        canvas = plan(scan(encoded, canvas, None, options).headers, options, False)
        return _build(encoded, keys, options, canvas, folder, key, progress)


def _build(
    encoded: Encoded,
    keys: Sequence[str],
    options: Options,
    canvas: Canvas,
    folder: Path,
    key: str,
    progress: Progress | None,
) -> tuple[Store, Scan, list[str]]:
    shape = (len(encoded), canvas.channels, canvas.side, canvas.side)
    size = int(np.prod(shape, dtype=np.int64))
    if size <= options.in_memory:
        return _in_memory(encoded, canvas, shape, options, progress)
    room = cache_folder.room(folder)
    fits = size <= options.cached and size < room // 2
    try:
        if fits or room > 0:
            entry = cache_folder.build(
                folder, key, lambda place: _fill(place, encoded, canvas, shape if fits else None, options, progress)
            )
            return _from_cache(entry, encoded, keys, options)
    except OSError as error:
        reason = f"{error.strerror or error}"
    else:
        reason = "nothing can be written there"
    if size <= memory_free() // 4:
        store, result, notes = _in_memory(encoded, canvas, shape, options, progress)
        return store, result, [*notes, f"decoded images are not kept in {folder}: {reason}"]
    raise EnvironmentFault(
        f"no room to keep {size / 1e9:.1f} GB of decoded images: {reason}",
        where=str(folder),
        help="free some space, or pass cache= a folder on a larger disk",
        code="E529",
    )


def _in_memory(
    encoded: Encoded, canvas: Canvas, shape: tuple[int, ...], options: Options, progress: Progress | None
) -> tuple[Store, Scan, list[str]]:
    pixels = np.zeros(shape, np.uint8)
    result = scan(encoded, canvas, pixels, options, progress)
    return ArrayStore(pixels), result, []


def memory_free() -> int:
    """Bytes of memory the system could give now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _fill(
    place: Path,
    encoded: Encoded,
    canvas: Canvas,
    shape: tuple[int, ...] | None,
    options: Options,
    progress: Progress | None,
) -> dict[str, Any]:
    """Write the pixels (or with no shape the encoded images) and the scan into `place`."""
    if shape is None:
        encoded.keep(place, progress)
        result = scan(encoded, canvas, None, options, progress)
        if canvas.expected or canvas.all_grey:
            canvas = plan(result.headers, options, False)
    else:
        pixels = cache_folder.new_array(place / "pixels.npy", shape)
        result = scan(encoded, canvas, pixels, options, progress)
        pixels.flush()  # type: ignore[attr-defined]
    np.save(place / "content.npy", result.content, allow_pickle=False)
    np.save(place / "ok.npy", result.ok, allow_pickle=False)
    np.save(place / "aspect.npy", result.aspect, allow_pickle=False)
    return {
        "canvas": [canvas.channels, canvas.side],
        "refused": [[i, r.code, r.reason, r.help] for i, r in sorted(result.refused.items())[:LISTED]],
        "conversions": dict(result.conversions),
        "constant": result.constant,
        "decoded": shape is not None,
    }


def _from_cache(
    entry: cache_folder.Entry, encoded: Encoded, keys: Sequence[str], options: Options
) -> tuple[Store, Scan, list[str]]:
    about = entry.meta
    canvas = Canvas(*about["canvas"])
    content, ok, aspect = (np.array(entry.array(name)) for name in ("content", "ok", "aspect"))
    refused = {int(i): Refused(code, reason, help) for i, code, reason, help in about["refused"]}
    result = Scan(canvas, content, ok, aspect, refused, Counter(about["conversions"]), about["constant"])
    if about["decoded"]:
        return ArrayStore(entry.array("pixels")), result, [f"decoded images are kept in {entry.folder}"]
    store = StreamStore(encoded.fetcher(entry), keys, canvas, options.max_pixels)
    return store, result, ["too many images to keep decoded: each is decoded when it is needed"]


class StreamStore(Store):
    """Images that are decoded whenever they are asked for, by a pool of threads (Pillow's decoders run in parallel)."""

    def __init__(self, fetch: Callable[[int], bytes], keys: Sequence[str], canvas: Canvas, max_pixels: int):
        self.fetch, self.keys, self.canvas, self.max_pixels = (
            fetch,
            keys,
            canvas._replace(expected=None, all_grey=False),
            max_pixels,
        )
        self.pool = ThreadPoolExecutor(workers(), "decode")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.canvas.channels, self.canvas.side, self.canvas.side)

    def read(self, index: np.ndarray) -> Tensor:
        pixels = np.zeros((len(index), *self.shape), np.uint8)
        step = max(1, len(index) // (4 * workers()))
        with pillow_hushed():
            runs = [range(i, min(i + step, len(index))) for i in range(0, len(index), step)]
            bad = [item for run in self.pool.map(lambda run: self._decode(run, index, pixels), runs) for item in run]
        batch = torch.from_numpy(pixels)
        if bad:
            raise BadItems(np.array([i for i, _ in bad], np.int64), [item for _, item in bad], batch)
        return batch

    def _decode(self, run: range, index: np.ndarray, pixels: np.ndarray) -> list[tuple[int, BadItem]]:
        bad = []
        for i in run:
            try:
                pixels[i] = decode(self.fetch(int(index[i])), self.canvas, self.max_pixels).pixels
            except Refused as refused:
                bad.append((i, refused.item(self.keys[int(index[i])])))
        return bad
