"""Checkpoints: written beside, forced to the disk, sealed by a manifest of hashes, renamed; found again by verifying, not by trust.

A checkpoint is a folder ``step-N`` with weights and state (safetensors, JSON) and ``manifest.json``, which is written last. Of a run
whose encoders are sharded each process writes what it holds into files of its own, ``weights-1.safetensors`` say, before the first one
seals them all. Hashes prove that a checkpoint is whole, not who made it; nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from accord.errors import ArtifactError, UsageError
from accord.model.joint_embedding import JointEmbedding
from accord.objective.loss import Objective
from accord.storage import (
    TEMPORARY,
    disk_faults,
    remove_tree,
    sha256_of,
    sync,
    temporary_name,
    write_file,
)
from accord.train.tensors import (
    DAMAGED,
    check_header,
    copy_into,
    damaged,
    read_whole,
    require_finite,
    strict_json,
)

FORMAT = 2
"""1: one process has written all of it; 2: several have."""
KIND = "accord checkpoint"
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
STATE_TENSORS = "state.safetensors"
STATE = "state.json"
FILES = (WEIGHTS, STATE_TENSORS, STATE)
FOLDER = "checkpoints"
MAX_JSON = 10_000_000
MAX_PARTS = 10_000
STEP = re.compile(r"step-(\d{1,15})")
FOREIGN = {b"PK\x03\x04": "a zip archive, as torch.save writes it", b"\x80": "a pickle", b"\x1f\x8b": "a gzip file"}


class Checkpoint(NamedTuple):
    """A verified checkpoint: where it is, after how many steps it was taken, and what its manifest says."""

    path: Path
    step: int
    about: Mapping[str, Any]

    def files(self, name: str) -> list[Path]:
        """`WEIGHTS` or `STATE_TENSORS`, of every process that has written some of it."""
        return [self.path / file for file in (part_name(name, k) for k in range(int(self.about["parts"])))]


def part_name(name: str, rank: int) -> str:
    """What a process calls its part of a file."""
    stem, dot, ending = name.partition(".")
    return f"{stem}-{rank}{dot}{ending}" if rank else name


def names(parts: int) -> set[str]:
    """The files of a checkpoint that so many processes have written."""
    return {STATE, *(part_name(name, k) for name in (WEIGHTS, STATE_TENSORS) for k in range(parts))}


def save_checkpoint(
    folder: Path, step: int, files: Mapping[str, bytes], about: Mapping[str, Any], *, keep: int = 2
) -> Checkpoint:
    """Writes ``step-N``, verifies it by reading it back, then removes all but the newest `keep` verified ones.

    At every instant, a crash or a power cut included, `folder` holds the checkpoints from before or those and the new one.

    Args:
        folder: where the checkpoints of the run are; must exist.
        step: steps taken.
        files: content by name, exactly `FILES`.
        about: further entries of the manifest, JSON values.
        keep: how many verified checkpoints stay.

    Raises:
        EnvironmentFault: if the disk is full or failing; what was there is intact, nothing of the new one is left.
    """
    assert set(files) == set(FILES)
    final = folder / f"step-{step}"
    if final.exists():
        try:
            return verify(final)
        except ArtifactError:
            quarantine(final)
    _write(final, {**files, MANIFEST: manifest(step, entries(files), about)})
    checkpoint = verify(final)
    purge(folder, keep=keep)
    return checkpoint


def entries(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What a manifest says of files."""
    return {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}


def manifest(step: int, files: Mapping[str, Any], about: Mapping[str, Any], *, parts: int = 1) -> bytes:
    """The sealed manifest of a checkpoint whose files have these `entries`, and were written by so many processes."""
    kind = {"kind": KIND, "format": 1 if parts == 1 else FORMAT} | ({"parts": parts} if parts > 1 else {})
    return seal({**about, **kind, "step": step, "files": dict(files), "complete": True})


def _write(final: Path, files: Mapping[str, bytes]) -> None:
    temporary = temporary_name(final)
    with disk_faults(final, needed=sum(map(len, files.values()))):
        temporary.mkdir()
        try:
            for name, data in files.items():
                write_file(temporary / name, data, called=final / name)
            sync(temporary)
            temporary.rename(final)
        except BaseException:
            remove_tree(temporary)
            raise
        sync(final.parent)


def seal(body: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest: its body and the hash of it. The same body always gives the same bytes."""
    text = json.dumps(body, sort_keys=True, allow_nan=False)
    return json.dumps({"manifest": body, "sha256": hashlib.sha256(text.encode()).hexdigest()}, sort_keys=True).encode()


def verify(path: Path) -> Checkpoint:
    """Checks every byte of a checkpoint against its manifest.

    Raises:
        ArtifactError: if it is damaged (file, expected and actual hash), of a newer format, or none of ours.
    """
    try:
        body = _manifest(path)
        for name, entry in body["files"].items():
            _verify_file(path / name, entry)
    except (OSError, KeyError, TypeError) as error:
        raise damaged(f"{type(error).__name__}: {error}", path) from None
    return Checkpoint(path, body["step"], {"parts": 1, **body})


def _manifest(path: Path) -> dict[str, Any]:
    match, file = STEP.fullmatch(path.name), path / MANIFEST
    if path.is_symlink() or match is None:
        raise damaged("not a folder named step-N", path)
    data = _regular(file, MAX_JSON).read_bytes()
    try:
        body = strict_json(data)["manifest"]
        sound = seal(body) == data and body["kind"] == KIND
    except (ValueError, RecursionError) as error:
        raise damaged(f"unreadable manifest: {error}", file) from None
    if not sound:
        raise damaged("the manifest is not the one that was written", file)
    if body["format"] > FORMAT:
        raise ArtifactError(
            f"checkpoint format {body['format']} is newer than {FORMAT}, which this version reads",
            where=str(file),
            help=f"use accord {body.get('accord', 'of a newer version')} or later",
            code="E402",
        )
    parts = body.get("parts", 1)
    known = type(parts) is int and 1 <= parts <= MAX_PARTS and set(body["files"]) == names(parts)
    if body["step"] != int(match[1]) or not known or body["complete"] is not True:
        raise damaged(f"the manifest is that of another checkpoint (step {body['step']})", file)
    return dict(body)


def _verify_file(path: Path, entry: Mapping[str, Any]) -> None:
    size = _regular(path, entry["bytes"]).stat().st_size
    if size != entry["bytes"]:
        raise damaged(f"{size:,} bytes instead of {entry['bytes']:,}", path)
    if path.suffix == ".safetensors":
        check_header(path)
    actual = sha256_of(path)
    if actual != entry["sha256"]:
        raise damaged(f"sha256 {actual} instead of {entry['sha256']}", path)


def _regular(path: Path, limit: int) -> Path:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        raise damaged(f"not a plain file of at most {limit:,} bytes", path)
    return path


def listed(folder: Path) -> list[Path]:
    """Every ``step-N`` there is, by N, oldest first; not verified. Order is by step, never by time."""
    found = [p for p in folder.iterdir() if STEP.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def newest(folder: Path, *, on_damage: Callable[[Path, ArtifactError], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies; None where none was ever finished.

    Args:
        folder: where the checkpoints of the run are.
        on_damage: called with each damaged one that was passed over, and why.

    Raises:
        ArtifactError: if there are checkpoints and all are damaged, or if the newest is of a newer format.
    """
    candidates = listed(folder)
    for path in reversed(candidates):
        try:
            return verify(path)
        except ArtifactError as error:
            if error.code != DAMAGED:
                raise
            on_damage(path, error)
    if candidates or any(folder.glob("*.corrupt*")):
        raise ArtifactError(
            "every checkpoint of the run is damaged; training does not start again from step 0 by itself",
            where=str(folder),
            help="restore one from a copy, or train anew with another --out",
            code="E405",
        )
    return None


def quarantine(path: Path) -> Path:
    """Renames a damaged checkpoint to ``step-N.corrupt``, so that it is never looked at again, and returns its new name."""
    names = (f"{path.name}.corrupt{suffix}" for suffix in ["", *(f"-{i}" for i in range(2, 1000))])
    target = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    with disk_faults(path):
        path.rename(target)
        sync(path.parent)
    return target


def purge(folder: Path, *, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints that verify; damaged ones neither count nor go."""
    verified = 0
    for path in reversed(listed(folder)):
        if verified >= keep:
            remove_tree(path)
            continue
        try:
            verify(path)
            verified += 1
        except ArtifactError:
            continue


def remove_unfinished(folder: Path) -> list[str]:
    """Removes what a killed process left half-written or half-removed; returns the names. Only for the holder of the lock."""
    names = [path.name for path in folder.glob(f"*{TEMPORARY}*")] if folder.is_dir() else []
    for name in names:
        remove_tree(folder / name)
    return names


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, or the newest valid one of the run at `path`. Changes nothing.

    Raises:
        UsageError: if there is nothing at `path`.
        ArtifactError: if what is there is damaged, or not one of ours.
    """
    if not path.exists():
        raise UsageError(
            "there is nothing here", where=str(path), help="name a run directory or a checkpoint", code="E250"
        )
    if path.is_file():
        raise _foreign(path)
    if (path / MANIFEST).exists() or STEP.fullmatch(path.name):
        return verify(path)
    found = newest(path / FOLDER, on_damage=lambda damaged_path, error: None)
    if found is None:
        raise ArtifactError(
            "no checkpoint here", where=str(path), help="name a run directory that accord train wrote", code="E404"
        )
    return found


def _foreign(path: Path) -> ArtifactError:
    with path.open("rb") as file:
        start = file.read(4)
    kind = next((what for magic, what in FOREIGN.items() if start.startswith(magic)), "a file")
    return ArtifactError(
        f"this is {kind}, not a checkpoint of accord; files that can contain code are never loaded",
        where=str(path),
        help="name a run directory or a step-N folder in it",
        code="E404",
    )


def load_weights(path: str | Path, module: Objective | JointEmbedding) -> Checkpoint:
    """Copies the weights of a run (its newest valid checkpoint) or of one checkpoint into a model of the same architecture.

    Args:
        path: a run directory or a ``step-N`` folder.
        module: what was trained, or its model alone. Changed in place, and not at all after an error.

    Raises:
        UsageError: if there is nothing at `path`.
        ArtifactError: if the checkpoint is damaged, foreign, of a newer format, or of another architecture.
    """
    checkpoint = find_checkpoint(Path(path))
    file = checkpoint.path / WEIGHTS
    tensors = read_whole(checkpoint.files(WEIGHTS))
    if isinstance(module, JointEmbedding):
        tensors = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    require_finite([name for name, _ in module.named_parameters()], tensors, where=file)
    copy_into(module.state_dict(), tensors, where=str(file))
    return checkpoint
