r"""Split-conformal calibration: $p(x, y) = (1 + \#\{i : F_i \ge F(x, y)\}) / (n + 1)$ against n held-out compatible pairs.

Valid without any normaliser, if the new pair is exchangeable with the held-out ones: a matched pair has p <= alpha with probability
at most alpha. Marginal over x, not for each x. Vovk, Gammerman, Shafer 2005; coverage law: Vovk 2012, arXiv:1209.2673.

By groups (Mondrian; the same book, section 4.5) a pair is held against those of its own group only: valid within each group.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import nn

from accord.diagnostics import Verdict
from accord.errors import ArtifactError, Collapsed, DataError, UsageError
from accord.storage import replace_file, write_json

FORMAT = 1
CONTENT = "calibration.content.npy"
LIMIT = 64 << 20
"""Larger calibration files are not read."""


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of some pairs: the column that says them, their names, and the place of each pair's in these, int64 (n,), -1 for none."""

    column: str
    names: tuple[str, ...]
    of: np.ndarray

    def part(self, rows: np.ndarray) -> Groups:
        """Those of some pairs."""
        return Groups(self.column, self.names, self.of[rows])


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sorted energies of n held-out compatible pairs, and what they are bound to.

    energies: float64 (n,), ascending, finite, not all equal. content: uint64, sorted: hashes of all samples that were trained or
    calibrated on. model: `model_hash` of the weights. preprocess: hash of everything between a sample and the model.
    groups: to which group each energy belongs, None where nobody asked.
    """

    energies: np.ndarray
    content: np.ndarray
    model: str
    preprocess: str
    groups: Groups | None = None

    def p_values(self, energies: np.ndarray) -> np.ndarray:
        """The p of each energy, float64 of the same shape, in [1/(n+1), 1]; small means not in accord.

        NaN and minus infinity are no energies: their p is NaN, which no comparison takes for "in accord".
        """
        energies = np.asarray(energies, np.float64)
        n = len(self.energies)
        at_least = n - np.searchsorted(self.energies, energies, side="left")
        return np.where(np.isnan(energies) | np.isneginf(energies), np.nan, (1 + at_least) / (n + 1))

    def threshold(self, alpha: float, *, unbounded: bool = False) -> float:
        r"""The $\lceil (n + 1)(1 - \alpha) \rceil$-th smallest energy: F(x, y) <= threshold exactly where p(x, y) > alpha.

        `unbounded` allows infinity (everything is in accord) where n is too small for the level.

        Raises:
            UsageError: unless 0 < alpha < 1.
            DataError: if n + 1 < 1 / alpha; says how many pairs are needed.
        """
        place = conformal_rank(len(self.energies), alpha)
        if place <= len(self.energies):
            return float(self.energies[place - 1])
        if unbounded:
            return math.inf
        raise DataError(
            f"a false-alarm rate of {alpha:g} needs at least {needed(alpha):,} calibration pairs, there are {len(self.energies):,}",
            help=f"use a rate of at least {1 / (len(self.energies) + 1):.2g}, or hold out more data for calibration",
            code="E361",
        )

    def in_accord(self, energies: np.ndarray, alpha: float, *, unbounded: bool = False) -> np.ndarray:
        """Whether each energy is at most `threshold(alpha)`; never where it is NaN or minus infinity."""
        energies = np.asarray(energies, np.float64)
        with np.errstate(invalid="ignore"):
            return (energies <= self.threshold(alpha, unbounded=unbounded)) & ~np.isneginf(energies)

    def overlap(self, content: np.ndarray) -> np.ndarray:
        """Which items, bool (m,), were trained or calibrated on: their p-values would not be valid."""
        return np.isin(content, self.content)

    def refuse_overlap(self, content: np.ndarray, *, where: str | None = None) -> None:
        """Refuses items that were trained or calibrated on.

        Raises:
            DataError: with their number.
        """
        count = int(self.overlap(content).sum())
        if count:
            raise DataError(
                f"{count:,} of {len(content):,} items were used in training or calibration: their p-values would mean nothing",
                where=where,
                help="score other data, or allow it with --allow-overlap",
                code="E362",
            )


def exact(alpha: float) -> Fraction:
    """The decimal number that was written, not its binary neighbour: (n + 1)(1 - 0.1) must not be a hair above a whole number.

    Raises:
        UsageError: unless 0 < alpha < 1.
    """
    if not (isinstance(alpha, int | float) and 0 < alpha < 1):
        raise UsageError(
            f"alpha: expected a rate between 0 and 1, got {alpha!r}", where="alpha", help="try 0.05", code="E260"
        )
    return Fraction(repr(float(alpha)))


def conformal_rank(n: int, alpha: float) -> int:
    r"""$\lceil (n + 1)(1 - \alpha) \rceil$, in exact arithmetic; n + 1 stands for infinity."""
    return math.ceil((n + 1) * (1 - exact(alpha)))


def needed(alpha: float) -> int:
    r"""The fewest calibration pairs that support a level, $\lceil 1 / \alpha \rceil - 1$."""
    return math.ceil(1 / exact(alpha)) - 1


def calibrate(
    energies: np.ndarray,
    *,
    content: np.ndarray,
    model: str,
    preprocess: str,
    collapse: Verdict | None = None,
    groups: Groups | None = None,
    where: str | None = None,
) -> Calibration:
    """A calibration from the energies of held-out compatible pairs.

    Args:
        energies: (n,), of pairs that were not trained on.
        content: uint64, hashes of everything trained or calibrated on, for `Calibration.overlap`.
        model: `model_hash` of the model that gave the energies.
        preprocess: `text_hash` of the pairing, the seed of the draws and the like.
        collapse: the verdict on the model; a collapsed model is refused.
        groups: those of the pairs, to calibrate each by itself as well.
        where: source of the pairs, for messages.

    Raises:
        Collapsed: if the model has collapsed.
        DataError: with fewer than 2 pairs, with energies that are not finite, or if all are equal.
    """
    if collapse is not None:
        message = f"a collapsed model cannot be calibrated: {collapse.explanation}"
        raise Collapsed(collapse.kind, message, where=where, help=collapse.remedy)
    energies = np.asarray(energies, np.float64)
    order = np.argsort(energies, kind="stable") if energies.ndim == 1 else np.zeros(0, np.int64)
    energies = energies[order] if energies.ndim == 1 else energies
    if energies.ndim != 1 or len(energies) < 2:
        raise DataError(
            f"calibration needs at least 2 held-out pairs, got shape {energies.shape}",
            where=where,
            help="hold out more data",
            code="E363",
        )
    if not np.isfinite(energies).all():
        bad = int((~np.isfinite(energies)).sum())
        raise DataError(
            f"{bad:,} of {len(energies):,} calibration energies are not finite",
            where=where,
            help="leave these items out: accord check names damaged ones",
            code="E364",
        )
    if energies[-1] - energies[0] <= 1e-9 * max(abs(energies[0]), abs(energies[-1])):
        raise DataError(
            f"all {len(energies):,} calibration energies are equal ({energies[0]:.6g}): they cannot rank anything",
            where=where,
            help="train longer, or hold out other pairs: all of these are alike, or the energy is flat",
            code="E365",
        )
    content = np.unique(np.asarray(content, np.uint64))
    return Calibration(energies, content, model, preprocess, None if groups is None else groups.part(order))


def model_hash(model: nn.Module) -> str:
    """sha256 over names, types, shapes and values of all parameters and buffers of `model`, wherever they lie."""
    digest = hashlib.sha256(b"accord weights 1\0")
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def text_hash(*parts: object) -> str:
    """sha256 over the texts of `parts`: a fingerprint of settings."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Writes `path` (calibration.json), and before it calibration.content.npy beside it; each whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, calibration.content, allow_pickle=False)
    replace_file(path.with_name(CONTENT), buffer.getvalue())
    groups = calibration.groups
    write_json(
        path,
        {
            "format": FORMAT,
            "model": calibration.model,
            "preprocess": calibration.preprocess,
            "content_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "n": len(calibration.energies),
            "energies": calibration.energies.tolist(),
            "groups": groups and {"column": groups.column, "names": list(groups.names), "of": groups.of.tolist()},
        },
    )


def load_calibration(path: Path, *, model: str, preprocess: str) -> Calibration:
    """Reads what `save_calibration` wrote, for the model and settings it was made for.

    Raises:
        ArtifactError: if a file is missing, damaged, too large or of a newer format, or was made for another model or other settings.
    """
    values = _read_json(path)
    if values.get("format") != FORMAT:
        raise _damaged(path, f"format {values.get('format')!r}: this version reads format {FORMAT}")
    for key, expected, name in (("model", model, "weights"), ("preprocess", preprocess, "pairing or preprocessing")):
        if values.get(key) != expected:
            raise ArtifactError(
                f"this calibration was made with other {name}",
                where=f"{path}:{key}",
                help="calibrate again: accord evaluate RUN",
                code="E462",
            )
    energies = values.get("energies")
    if not isinstance(energies, list) or not all(isinstance(e, float) for e in energies) or len(energies) < 2:
        raise _damaged(path, "energies: expected a list of at least two numbers")
    array = np.array(energies)
    if not np.isfinite(array).all() or (np.diff(array) < 0).any() or array[0] == array[-1]:
        raise _damaged(path, "energies: expected finite numbers in ascending order, not all equal")
    content = _read_content(path.with_name(CONTENT), values.get("content_sha256"))
    return Calibration(array, content, model, preprocess, _groups(path, values.get("groups"), len(array)))


def _groups(path: Path, values: object, n: int) -> Groups | None:
    """Those of the n energies; a file of an earlier version has none."""
    if values is None:
        return None
    column, names, of = (
        (values.get(key) for key in ("column", "names", "of")) if isinstance(values, dict) else [None] * 3
    )
    if not (isinstance(column, str) and isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise _damaged(path, "groups: expected a column and names")
    if not (isinstance(of, list) and len(of) == n and all(type(i) is int and -1 <= i < len(names) for i in of)):
        raise _damaged(path, f"groups: expected the group of each of {n:,} energies")
    return Groups(column, tuple(names), np.array(of, np.int64))


def _read_json(path: Path) -> dict[str, object]:
    data = _read(path)
    try:
        values = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise _damaged(path, "expected an object")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _read_content(path: Path, sha256: object) -> np.ndarray:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damaged(path, "its sha256 is not the one that calibration.json names")
    try:
        content: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if content.dtype != np.uint64 or content.ndim != 1:
        raise _damaged(path, f"expected a vector of uint64, got {content.dtype} of shape {content.shape}")
    return content


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LIMIT:
            raise _damaged(path, f"larger than {LIMIT >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.name != CONTENT:
            raise _missing(path) from error
        raise ArtifactError(
            f"cannot read the calibration: {error.strerror}",
            where=str(path),
            help=f"give read permission, or make it again: accord evaluate {path.parent}",
            code="E461",
        ) from error


def _missing(path: Path) -> ArtifactError:
    """The error for a run that is not calibrated: not evaluated yet, collapsed, or without pairs to calibrate on."""
    what, help = "this run is not calibrated yet", f"accord evaluate {path.parent} calibrates it"
    try:
        collapse = json.loads((path.parent / "evaluation.json").read_bytes())["collapse"]
        what, help = "this run was evaluated, but not calibrated", f"accord evaluate {path.parent} says why"
        if collapse["verdict"] is not None:
            what += f", for it has collapsed ({collapse['verdict']}): {collapse['explanation']}"
            help = f"train another run: {collapse['remedy']}"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return ArtifactError(what, where=str(path), help=help, code="E461")


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"damaged calibration: {what}", where=str(path), help="calibrate again: accord evaluate RUN", code="E463"
    )
