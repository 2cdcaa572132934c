"""The folder of a comparison: one owner at a time, and only the comparison it began as, which may grow by seeds and principles."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accord.data.synthetic import kind_of
from accord.errors import ArtifactError, Locked, UsageError
from accord.report.compare_read import STATE
from accord.storage import TEMPORARY, disk_faults, try_writing
from accord.train.run_directory import LOCK, acquire_lock
from accord.train.settings import flat

FORMAT = 1


def state_of(out: Path) -> dict[str, Any]:
    """compare.json of a folder; empty where there is none.

    Raises:
        ArtifactError: if it is damaged or of another format.
    """
    path = out / STATE
    try:
        state = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"damaged file of the comparison: {error}",
            where=str(path),
            help="restore it from a copy, or give another --out",
            code="E470",
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("settings"), dict):
        raise ArtifactError(
            f"not a comparison of format {FORMAT}",
            where=str(path),
            help="use the version of accord that wrote it, or give another --out",
            code="E470",
        )
    return state


def folder_for(out: Path | None, source: str, settings: Mapping[str, Any]) -> Path:
    """The folder that was named, or the first of runs/compare-NAME, -2, ... that is free or holds this comparison or a part of it."""
    if out is not None:
        return out
    stem = f"compare-{kind_of(source) or Path(source.rstrip('/')).stem.strip('*') or 'run'}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
    return next(p for p in (Path("runs") / n for n in names) if not p.exists() or _same(p, settings))


def _same(path: Path, settings: Mapping[str, Any]) -> bool:
    try:
        then = state_of(path).get("settings")
    except ArtifactError:
        return False
    return then is not None and bool(then == narrowed(_as_json(settings), then))


def narrowed(now: Mapping[str, Any], then: Mapping[str, Any]) -> Mapping[str, Any]:
    """`now` without the seeds and principles that were added since `then`; `now` itself if some were taken away, or another comes first.

    The first principle is what the others are held against.
    """
    names, seeds = then.get("principles"), then.get("seeds")
    if not isinstance(names, list) or not isinstance(seeds, int) or seeds > now["seeds"]:
        return now
    if names[:1] != now["principles"][:1] or not set(names) <= set(now["principles"]):
        return now
    return {**now, "principles": names, "seeds": seeds, "recipes": {name: now["recipes"][name] for name in names}}


def begun(out: Path) -> dict[str, int | None]:
    """The principles a folder was begun with, in their order, and the steps of their runs where these were settled."""
    principles = state_of(out).get("principles", []) if out.is_dir() else []
    return {one["name"]: one["steps"] for one in principles if isinstance(one, dict) and {"name", "steps"} <= set(one)}


@contextmanager
def opened(out: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Within the body the folder is locked, writable, and holds nothing or this comparison.

    Raises:
        UsageError: if it holds something else.
        ArtifactError: if it holds a comparison with other settings; what differs is named.
        Locked: if another process compares in it.
        EnvironmentFault: if it cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("not a folder", where=str(out), help="give a new folder with --out", code="E252")
    _require_ours(out, settings)
    with disk_faults(out):
        out.mkdir(parents=True, exist_ok=True)
        try:
            lock = acquire_lock(out / LOCK)
        except Locked as error:
            raise Locked(
                error.message.replace("run directory", "folder of the comparison"), where=str(out), help=error.help
            ) from None
    try:
        _require_ours(out, settings)
        try_writing(out)
        yield
    finally:
        os.ftruncate(lock, 0)
        os.close(lock)


def _require_ours(out: Path, settings: Mapping[str, Any]) -> None:
    state = state_of(out)
    if state:
        _require_same(state["settings"], _as_json(settings), out)
        return
    others = sorted(p.name for p in out.iterdir() if p.name != LOCK and TEMPORARY not in p.name) if out.is_dir() else []
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UsageError(
            f"the folder is not empty and holds no comparison: {', '.join(others[:3])}{more}",
            where=str(out),
            help="give a new folder with --out; nothing is overwritten",
            code="E252",
        )


def _require_same(then: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    old, new = flat(then), flat(narrowed(now, then))
    keys = [key for key in [*old, *(k for k in new if k not in old)] if old.get(key) != new.get(key)]
    if keys:
        lines = "; ".join(f"{k}: {_word(old.get(k))} then, {_word(new.get(k))} now" for k in keys[:6])
        more = f"; and {len(keys) - 6} more" if len(keys) > 6 else ""
        raise ArtifactError(
            f"this comparison began with other settings: {lines}{more}",
            where=str(out),
            help="go on with the settings it began with, seeds and principles may be added, or give another --out",
            code="E480",
        )


def _word(value: Any) -> str:
    return "unset" if value is None else str(value)[:80]


def _as_json(settings: Mapping[str, Any]) -> Any:
    """As it reads when it comes back from a file."""
    return json.loads(json.dumps(settings))
