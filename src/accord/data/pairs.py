"""Tables as pairs: some columns are one side, some the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from accord.data.column_kinds import ColumnKind, require_columns, tell
from accord.data.encoded import Options, Progress
from accord.data.frames import Frame
from accord.data.policy import Policy, judge
from accord.data.samples import Samples, pair_samples
from accord.data.sides import Side, open_side
from accord.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns are x and which y, None for none, and what columns are where that is said."""

    x: Side | None = None
    y: Side | None = None
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.x is not None or self.y is not None or bool(self.kinds)

    @property
    def sides(self) -> dict[str, Side]:
        """Those that there are, by name."""
        return {name: side for name, side in (("x", self.x), ("y", self.y)) if side is not None}


def columns_of(
    x: Sequence[str] | Side | None, y: Sequence[str] | Side | None, kinds: Mapping[str, ColumnKind] | None
) -> Columns:
    """What a caller says about columns; one name alone may be a string."""
    return Columns(x=_side(x), y=_side(y), kinds=kinds or {})


def _side(columns: Sequence[str] | Side | None) -> Side | None:
    if columns is None or isinstance(columns, Side):
        return columns
    return Side(columns=(columns,) if isinstance(columns, str) else tuple(columns))


def open_pairs(
    frame: Frame,
    columns: Columns,
    policy: Policy,
    options: Options,
    *,
    name: str,
    label: str | None = None,
    progress: Progress | None = None,
    inspect: bool = False,
) -> Samples:
    """Pairs of two sides of a table, row by row, or one side alone.

    Raises:
        UsageError: for columns that are not there, on both sides, or do not go together.
        DataError: for values that are not what their column is, a side that is the same in all rows, or too many bad rows.
    """
    sides = columns.sides
    for which, side in sides.items():
        require_columns(frame, side.columns, which, again=side.known)
    taken = [column for side in sides.values() for column in side.columns]
    _check(taken, columns.kinds, name)
    found = []
    for which, side in sides.items():
        given = dict(zip(side.columns, side.kinds, strict=True)) if side.kinds else columns.kinds
        for column in side.columns:
            if given.get(column) in ("category", "text"):
                frame.keep_text(column)
        told = tell(frame, side.columns, given)
        found.append(open_side(frame, side, told, which, options, progress=progress, inspect=inspect))
        if policy.limit:
            _refuse_constant(found[-1], which, name)
    chosen = frame.label(label, taken)
    numbers, classes = (None, ()) if chosen is None else frame.labels(chosen)
    if len(found) == 1:
        samples = replace(found[0], name=name, labels=numbers, classes=classes, fingerprint="")
    else:
        samples = pair_samples(name, *found, labels=numbers, classes=classes)
        samples.notes += _repeated(samples)
    samples.notes += frame.notes
    unused = [column for column in frame.names if column not in (*taken, chosen)]
    if unused:
        samples.notes.append(f"columns not used: {', '.join(unused)}")
    return judge(samples, policy, 0)


def _check(taken: Sequence[str], kinds: Mapping[str, ColumnKind], where: str) -> None:
    """Refuses a column on both sides, and kinds of columns that are on neither."""
    both = next((column for column in taken if taken.count(column) > 1), None)
    wrong = next((column for column in kinds if column not in taken), None)
    if both is not None:
        raise UsageError(
            f"column {both!r} is on both sides", where=where, help="a column is either x or y", code="E234"
        )
    if wrong is not None:
        what = f"x and y are {', '.join(taken)}" if taken else "say which columns are x and y as well"
        raise UsageError(f"{wrong!r}, whose kind is given, is on neither side", where=where, help=what, code="E234")


def _repeated(samples: Samples) -> list[str]:
    """A note on x that come several times with different y: pairs are held out, so that such an x may be in both parts."""
    assert samples.sides is not None
    _, different = np.unique(samples.content[samples.ok], return_index=True)
    _, counts = np.unique(samples.sides[0].content[samples.ok][different], return_counts=True)
    repeated = int(counts[counts > 1].sum())
    if not repeated:
        return []
    return [
        f"{repeated:,} pairs have an x that others have with another y: held-out pairs may share their x with trained ones, "
        "unless --set data.hold_out_by=x keeps them apart"
    ]


def _refuse_constant(samples: Samples, side: str, where: str) -> None:
    content = samples.content[samples.ok]
    if len(content) > 1 and (content == content[0]).all():
        raise DataError(
            f"{side} ({samples.name}) is the same in all {len(content):,} rows: there is nothing to learn from it",
            where=where,
            help="choose other columns",
            code="E332",
        )
