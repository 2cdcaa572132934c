"""A matrix of numbers as samples: every value that is not a finite float32 is named, labels are told apart from features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from accord.data.policy import Policy, judge, place
from accord.data.samples import LISTED, ArrayStore, BadItem, Refused, RowKeys, Samples, hash_rows
from accord.errors import DataError

LABEL_NAMES = ("label", "class", "target")
_MAX_EXACT = 2**53
_ROWS = 5
_COUNTED = 12
_LEAK_ROWS = 20_000


class Labels(NamedTuple):
    """Labels int64 (N,), -1 = missing, and the names of the classes."""

    labels: np.ndarray
    classes: tuple[str, ...]


def encode_labels(values: Sequence[Any], n: int, where: str) -> Labels:
    """Integers, booleans, texts or whole numbers as labels of `n` samples; None, NaN and "" are missing. Raises `DataError`."""
    if len(values) != n:
        raise DataError(
            f"{n} samples but {len(values)} labels", where=where, help="give one label for each sample", code="E336"
        )
    known = np.array([not (v is None or v == "" or v != v) for v in values], np.bool_)  # noqa: PLR0124  (NaN alone differs from itself)
    kept = [_label(value, where) for value, use in zip(values, known.tolist(), strict=True) if use]
    if len({type(value) for value in kept}) > 1:
        raise _no_label(kept[0], where)
    classes = sorted(set(kept))
    place = {value: i for i, value in enumerate(classes)}
    labels = np.full(n, -1, np.int64)
    labels[known] = [place[value] for value in kept]
    return Labels(labels, tuple(str(value) for value in classes))


def _label(value: Any, where: str) -> int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise _no_label(value, where)


def _no_label(value: Any, where: str) -> DataError:
    return DataError(
        f"a label of {str(value)[:40]!r}: expected integers or texts, all of one kind",
        where=where,
        help="name a column of classes with label=, not of measurements",
        code="E333",
    )


def vector_samples(
    name: str,
    matrix: np.ndarray,
    policy: Policy,
    *,
    keys: Sequence[str] | None = None,
    features: Sequence[str] = (),
    labels: Labels | None = None,
    notes: Sequence[str] = (),
    impute: float | None = None,
    refused: Mapping[int, Refused] = MappingProxyType({}),
    masked: bool = False,
    categories: tuple[tuple[str, ...], ...] = (),
) -> Samples:
    """(N, F) real numbers as samples of float32.

    float64 and integers are rounded to float32 (relative error 6e-8); integers beyond 2^53 are refused, they are names, not
    amounts. NaN, infinity and what exceeds float32 stop a training with the columns and first rows (unless `impute` is a
    number to put for NaN); without a limit on bad items they mark their rows. Rows that were `refused` before are bad items.
    If `masked`, NaN is a value that was not observed, and stays: a row is bad only if it has no other. `categories`: see `Samples`.
    """
    names = tuple(features) or unnamed_features(matrix.shape[1])
    keys = RowKeys([len(matrix)]) if keys is None else keys
    if 0 in matrix.shape:
        raise DataError(f"an empty table: shape {matrix.shape}", where=name, help="check how it was made", code="E338")
    _refuse_large_integers(name, matrix, names, keys)
    values = _float32(matrix)
    if impute is not None:
        values[np.isnan(values)] = impute
    finite = np.isfinite(values)
    absent = np.isnan(values) if masked else np.zeros_like(finite)
    absent &= ~absent.all(1, keepdims=True)
    finite |= absent
    ok = finite.all(1)
    remedy = "correct it, or drop the row" if masked else "fill it (--set data.impute=0.0) or drop the row"
    bad = _bad_rows(matrix, finite, names, keys, remedy)
    if not ok.all() and policy.limit:
        raise _not_finite(name, finite, names, keys, bad, _remedy(values[~ok], masked))
    values[~ok] = 0.0
    ok[list(refused)] = False
    bad += [fault.item(keys[row]) for row, fault in sorted(refused.items())[:LISTED]]
    samples = Samples(
        name=name,
        kind="vector",
        store=ArrayStore(values),
        keys=keys,
        content=hash_rows(matrix),
        ok=ok,
        bad=bad,
        labels=None if labels is None else labels.labels,
        classes=() if labels is None else labels.classes,
        notes=[*notes, *_absent_notes(absent, names), *_column_notes(name, values[ok], names, labels, policy)],
        features=names,
        categories=categories,
    )
    return judge(samples, policy, 0)


def unnamed_features(count: int) -> tuple[str, ...]:
    """What columns without names are called."""
    return tuple(f"column {i}" for i in range(count))


def _float32(matrix: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(matrix, np.float32, order="C")


def _refuse_large_integers(name: str, matrix: np.ndarray, names: Sequence[str], keys: Sequence[str]) -> None:
    if matrix.dtype.kind not in "iu" or matrix.dtype.itemsize < 8:
        return
    large = (matrix > _MAX_EXACT) | (matrix < -_MAX_EXACT) if matrix.dtype.kind == "i" else matrix > _MAX_EXACT
    if large.any():
        row, column = np.argwhere(large)[0]
        raise too_large(int(matrix[row, column]), names[int(column)], place(name, keys[int(row)]))


def too_large(value: int, column: str, where: str) -> DataError:
    """The error for an integer that a float cannot hold."""
    return DataError(
        f'column "{column}" holds {value}, beyond 2^53: as a number it would lose its last digits',
        where=where,
        help="leave the column out if it is an identifier, or convert it to float64 if rounding is right",
        code="E339",
    )


def _bad_rows(
    matrix: np.ndarray, finite: np.ndarray, names: Sequence[str], keys: Sequence[str], remedy: str
) -> list[BadItem]:
    bad = []
    for row in np.flatnonzero(~finite.all(1))[:LISTED].tolist():
        column = int(np.argmin(finite[row]))
        what = _what(matrix[row, column])
        bad.append(
            BadItem(
                keys[row],
                "E331",
                f'column "{names[column]}" is {what}',
                remedy if what == "nan" else "correct it, or drop the row",
            )
        )
    return bad


def _what(value: Any) -> str:
    number = float(value)
    return f"{number:g}, too large for float32" if math.isfinite(number) else f"{number:g}"


def _remedy(rows: np.ndarray, masked: bool) -> str:
    """What can be done about rows with numbers that are not finite; infinity cannot be filled, and is not missing."""
    if masked:
        return "drop these rows, or leave the cells empty that are infinite"
    if not np.isnan(rows).any():
        return "drop these rows"
    return (
        "drop these rows, fill NaN with a number: --set data.impute=0.0 (impute=0.0 in Python), "
        "or take it as missing: --set pairing.name=masked"
    )


def _not_finite(
    name: str, finite: np.ndarray, names: Sequence[str], keys: Sequence[str], bad: list[BadItem], help: str
) -> DataError:
    columns = np.flatnonzero(~finite.all(0))
    counts = ", ".join(f'"{names[c]}" ({int((~finite[:, c]).sum())})' for c in columns[:_ROWS].tolist())
    more = f" and {len(columns) - _ROWS} more columns" if len(columns) > _ROWS else ""
    rows = ", ".join(item.key for item in bad[:_ROWS])
    total = int((~finite.all(1)).sum())
    empty = [names[c] for c in columns.tolist() if not finite[:, c].any()]
    remedy = f"leave out the empty columns ({', '.join(empty[:_ROWS])}), " if empty else ""
    return DataError(
        f"{total} of {len(finite)} rows have values that are not finite numbers: in {counts}{more}; first: {rows} ({bad[0].reason})",
        where=place(name, bad[0].key),
        help=remedy + help,
        code="E332" if empty else "E331",
    )


def _absent_notes(absent: np.ndarray, names: Sequence[str]) -> list[str]:
    """What is missing, by column: nothing is put in its place."""
    counts = absent.sum(0)
    columns = np.flatnonzero(counts)
    if not len(columns):
        return []
    listed = ", ".join(f'"{names[c]}" {int(counts[c]):,}' for c in columns[:_COUNTED].tolist())
    more = f" and {len(columns) - _COUNTED} more columns" if len(columns) > _COUNTED else ""
    return [f"missing values are masked, not filled, of {len(absent):,} rows: {listed}{more}"]


def _column_notes(
    name: str, values: np.ndarray, names: Sequence[str], labels: Labels | None, policy: Policy
) -> list[str]:
    notes: list[str] = []
    if len(values) == 0:
        return notes
    if np.isnan(values).any():
        mean = np.nan_to_num(np.nanmean(np.where(np.isnan(values).all(0), 0, values), 0))
        values = np.where(np.isnan(values), mean, values)
    constant = values.min(0) == values.max(0)
    if constant.all() and policy.limit and len(values) > 1:
        raise DataError(
            f"all {len(names)} columns are constant: there is nothing to learn from them",
            where=name,
            help="check the table",
            code="E332",
        )
    if constant.any() and len(values) > 1:
        listed = ", ".join(f'"{names[c]}"' for c in np.flatnonzero(constant)[:_ROWS].tolist())
        notes.append(f"{int(constant.sum())} constant columns, kept although they carry nothing: {listed}")
    return notes + _leaks(values, names, labels)


def _leaks(values: np.ndarray, names: Sequence[str], labels: Labels | None) -> list[str]:
    """Columns that may give the label away: by their name, or a correlation beyond 0.999 with it or with one class of it."""
    suspects = [n for n in names if n.lower().split("_")[0] in LABEL_NAMES]
    if labels is not None and 1 < len(labels.classes) <= 100 and len(labels.labels) == len(values):
        known = np.flatnonzero(labels.labels >= 0)
        known = known[:: max(1, len(known) // _LEAK_ROWS)]
        codes = labels.labels[known]
        one_hot = [codes] if len(labels.classes) == 2 else [codes, *(codes == c for c in range(len(labels.classes)))]
        x = values[known] - values[known].mean(0, dtype=np.float64)
        scale = np.sqrt((x * x).sum(0, dtype=np.float64))
        for target in one_hot:
            t = target - target.mean()
            with np.errstate(divide="ignore", invalid="ignore"):
                correlation = np.abs(t @ x) / (scale * np.sqrt((t * t).sum()))
            suspects += [names[c] for c in np.flatnonzero(correlation > 0.999).tolist()]
    return [f'column "{n}" may give the label away: leave it out if it does' for n in dict.fromkeys(suspects)]
