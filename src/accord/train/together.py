"""Saving by all processes of a run: each writes what it holds, the first one seals it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accord.errors import ArtifactError
from accord.storage import disk_faults, remove_tree, sync, temporary_name, write_file
from accord.train.checkpoint import MANIFEST, entries, manifest, purge, quarantine, save_checkpoint, verify
from accord.train.distributed import Ranks


def save_together(
    folder: Path, step: int, files: Mapping[str, bytes], about: Mapping[str, Any], ranks: Ranks, *, keep: int = 2
) -> None:
    """`save_checkpoint` of the files that all processes have: each writes its own at the same time as the others.

    Where only the first one has any it saves while the others wait. What processes say to each other of it is JSON.

    Raises:
        EnvironmentFault: if a disk is full or failing, or a process is gone; what was there is intact.
    """
    if not any(ranks.everyone(bool(files))[1:]):
        if ranks.first:
            save_checkpoint(folder, step, files, about, keep=keep)
        ranks.meet()
        return
    final = folder / f"step-{step}"
    if ranks.of_first(_is_there(final) if ranks.first else None):
        return
    temporary = folder / ranks.of_first(temporary_name(final).name)
    try:
        if ranks.first:
            with disk_faults(final):
                temporary.mkdir()
        ranks.meet()
        for name, data in files.items():
            write_file(temporary / name, data, called=final / name)
        found = ranks.everyone(entries(files))
        if ranks.first:
            _seal(
                final,
                temporary,
                manifest(step, {k: v for one in found for k, v in one.items()}, about, parts=ranks.size),
            )
    except BaseException:
        if ranks.first and temporary.exists():
            remove_tree(temporary)
        raise
    if ranks.first:
        verify(final)
        purge(folder, keep=keep)
    ranks.meet()


def _is_there(final: Path) -> bool:
    """Whether the checkpoint was saved before; a damaged one is set aside."""
    if not final.exists():
        return False
    try:
        verify(final)
    except ArtifactError:
        quarantine(final)
        return False
    return True


def _seal(final: Path, temporary: Path, data: bytes) -> None:
    write_file(temporary / MANIFEST, data, called=final / MANIFEST)
    with disk_faults(final):
        sync(temporary)
        temporary.rename(final)
        sync(final.parent)
