"""Checkpoints: killed, torn, tampered with or without room, the newest verified one loads and nothing damaged ever does."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import nn

from accord import storage
from accord.errors import AccordError, ArtifactError, EnvironmentFault, UsageError
from accord.train import checkpoint as ckpt
from accord.train.checkpoint import Checkpoint, load_weights, newest, save_checkpoint, verify
from accord.train.optim import AdamW, parameter_groups
from accord.train.state import pack, unpack
from accord.train.tensors import read_tensors

# Forked children do nothing but write files and die.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def load(name: str) -> ModuleType:
    """A helper module from the folder of the tests, which is no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tiny = load("tiny")
CALLS = ("open", "write", "fsync", "close", "rename", "replace", "mkdir", "unlink", "rmdir")
"""What a save asks of the system, by the names Python's own library looks up when it is called."""


def content(value: float) -> dict[str, bytes]:
    tensors = {"a": torch.full((4, 3), value), "b": torch.arange(5)}
    data = safetensors.torch.save(tensors)
    return {ckpt.WEIGHTS: data, ckpt.STATE_TENSORS: data, ckpt.STATE: json.dumps({"value": value}).encode()}


def save(folder: Path, step: int) -> Checkpoint:
    return save_checkpoint(folder, step, content(float(step)), {"accord": "test"})


def value_of(found: Checkpoint) -> float:
    return float(json.loads((found.path / ckpt.STATE).read_text())["value"])


def find(folder: Path) -> Checkpoint | None:
    return newest(folder, on_damage=lambda path, error: None)


@contextmanager
def at_call(k: int, action: Callable[[], None], names: tuple[str, ...] = CALLS) -> Iterator[list[int]]:
    """Runs `action` before the k-th of these calls; yields their count."""
    count = [0]
    originals = {name: getattr(os, name) for name in names}

    def wrap(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            count[0] += 1
            if count[0] == k:
                action()
            return original(*arguments, **options)

        return call

    try:
        for name, original in originals.items():
            setattr(os, name, wrap(original))
        yield count
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked process and returns its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def kill_at_every_call(folder: Path, write: Callable[[Path, int], object]) -> list[float]:
    """Kills the third save before each call it makes; returns the value of what was then found, -1 where nothing was."""

    def third(k: int) -> None:
        with at_call(k, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            write(folder, 3)

    found = []
    for k in range(1, 1000):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write(folder, 1)
        write(folder, 2)
        status = in_child(lambda k=k: third(k))
        try:
            checkpoint = find(folder)
            found.append(-1.0 if checkpoint is None else value_of(checkpoint))
        except ArtifactError:
            found.append(-1.0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            assert found.pop() == 3.0
            break
    return found


# --- killed ---


def test_killed_at_every_call_of_a_save_the_old_or_the_new_one_is_there(tmp_path: Path) -> None:
    found = kill_at_every_call(tmp_path / "run", save)
    assert len(found) > 20, "four files are opened, written, synchronised and closed, folders made and renamed"
    assert set(found) == {2.0, 3.0}, "some kills are before the rename and some after it"
    assert found == sorted(found), "once the new one is there it stays"


def test_the_same_kills_find_the_fault_of_a_save_in_place(tmp_path: Path) -> None:
    """Negative control: a writer that overwrites its files loses both."""

    def overwrite(folder: Path, step: int) -> None:
        path = folder / "step-1"
        path.mkdir(exist_ok=True)
        files = content(float(step))
        entries = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}
        body = {"kind": ckpt.KIND, "format": ckpt.FORMAT, "step": 1, "complete": True, "files": entries}
        for name, data in {**files, ckpt.MANIFEST: ckpt.seal(body)}.items():
            descriptor = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            storage.write_all(descriptor, data)
            os.fsync(descriptor)
            os.close(descriptor)

    assert -1.0 in kill_at_every_call(tmp_path / "run", overwrite)


def test_leftovers_of_kills_are_removed_and_named(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-2.tmp-abc").mkdir()
    (tmp_path / "step-2.tmp-abc" / ckpt.WEIGHTS).write_bytes(b"half")
    assert ckpt.remove_unfinished(tmp_path) == ["step-2.tmp-abc"]
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


# --- no room, failing disks ---


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fail(number: int) -> Callable[[], None]:
    def action() -> None:
        raise OSError(number, os.strerror(number))

    return action


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "E501"), (errno.EDQUOT, "E501"), (errno.EIO, "E503"), (errno.EROFS, "E502")]
)
@pytest.mark.parametrize("name", ["open", "write", "fsync", "mkdir", "rename"])
def test_an_error_at_any_write_leaves_what_was_there(tmp_path: Path, number: int, code: str, name: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    before = snapshot(tmp_path)
    for k in range(1, 100):
        with at_call(k, fail(number), names=(name,)) as count:
            try:
                save(tmp_path, 3)
            except EnvironmentFault as fault:
                raised: EnvironmentFault | None = fault
            else:
                raised = None
        if count[0] < k:
            assert raised is None
            break
        if (tmp_path / "step-3").exists():  # it failed after the rename: the new one is whole, nothing is lost
            assert verify(tmp_path / "step-3").step == 3
            assert {"step-2", "step-3"} <= {p.name for p in tmp_path.iterdir()}
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
            save(tmp_path, 1)
            save(tmp_path, 2)
            before = snapshot(tmp_path)
            continue
        assert raised is not None
        assert (raised.exit_code, raised.code) == (5, code)
        assert str(raised.where).startswith(str(tmp_path / "step-3")) and ".tmp-" not in str(raised.where)
        assert snapshot(tmp_path) == before
    assert k > 1


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: original(descriptor, bytes(data[:7])))
    assert value_of(save(tmp_path, 5)) == 5.0


def test_an_ignored_short_write_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with a writer that does not look at what was written, reading back finds it."""
    monkeypatch.setattr(storage, "write_all", lambda descriptor, data: os.write(descriptor, data[: len(data) // 2]))
    with pytest.raises(ArtifactError, match=r"instead of|unreadable|not the one"):
        save(tmp_path, 5)


def test_the_message_says_how_much_is_needed_and_free(tmp_path: Path) -> None:
    with at_call(1, fail(errno.ENOSPC), names=("write",)), pytest.raises(EnvironmentFault) as caught:
        save(tmp_path, 1)
    text = str(caught.value)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert "bytes needed" in text
    assert any(f"{free // 10**k:,}"[:3] in text for k in (0, 3, 6))
    assert "--resume" in text


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(EnvironmentFault, match="limit on the size of files"):
            save(tmp_path, 2)

    assert in_child(limited) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and os.system(f"mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null") == 0
    if not mounted:
        pytest.skip("this user may not mount a small disk")
    try:
        save(disk, 1)
        save(disk, 2)
        (disk / "filler").write_bytes(b"0" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 8192))
        before = snapshot(disk)
        with pytest.raises(EnvironmentFault, match=r"bytes needed, \d"):
            save(disk, 3)
        assert snapshot(disk) == before
        (disk / "filler").unlink()
        assert save(disk, 3).step == 3
    finally:
        assert os.system(f"umount {disk}") == 0


# --- torn and lost writes ---


def mutations(generator: random.Random, path: Path, other: Path) -> Iterator[str]:
    """Damages one file of a checkpoint, in the ways of a power cut and of bad memory."""
    file = path / generator.choice([*ckpt.FILES, ckpt.MANIFEST])
    data = bytearray(file.read_bytes())
    kind = generator.choice(["truncated", "zeroed", "flipped", "grown", "mixed", "gone"])
    start = generator.randrange(len(data))
    match kind:
        case "truncated":
            data = data[:start]
        case "zeroed":
            block = data[start : start + 512]
            if not any(block):
                return
            data[start : start + 512] = bytes(len(block))
        case "flipped":
            data[start] ^= 1 << generator.randrange(8)
        case "grown":
            data += bytes(generator.randrange(1, 600))
        case "mixed":
            data = bytearray((other / file.name).read_bytes())
        case "gone":
            file.unlink()
            yield kind
            return
    file.write_bytes(data)
    yield kind


def test_every_damage_is_found(tmp_path: Path) -> None:
    older, newer = save(tmp_path / ".", 1), save(tmp_path / ".", 2)
    clean = {p: p.read_bytes() for p in newer.path.iterdir()}
    generator, counts = random.Random(0), dict.fromkeys(["truncated", "zeroed", "flipped", "grown", "mixed", "gone"], 0)
    for _ in range(500):
        for kind in mutations(generator, newer.path, older.path):
            counts[kind] += 1
            found = find(tmp_path)
            assert found is not None and found.step == 1, f"{kind} was not found"
        for path, data in clean.items():
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
    assert min(counts.values()) > 30
    assert verify(newer.path).step == 2


def test_without_the_hashes_damage_would_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    path = save(tmp_path, 1).path / ckpt.STATE
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1.0", b"7.0"))
    with pytest.raises(ArtifactError, match="sha256"):
        verify(path.parent)
    expected = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(
        ckpt,
        "sha256_of",
        lambda path: hashlib.sha256(path.read_bytes()).hexdigest() if path.name != ckpt.STATE else expected,
    )
    assert value_of(verify(path.parent)) == 7.0


def test_a_renamed_checkpoint_is_not_another_step(tmp_path: Path) -> None:
    save(tmp_path, 1).path.rename(tmp_path / "step-9")
    with pytest.raises(ArtifactError, match="another checkpoint"):
        verify(tmp_path / "step-9")


def test_all_damaged_is_an_error_and_never_a_new_beginning(tmp_path: Path) -> None:
    assert find(tmp_path / "absent") is None
    assert find(tmp_path) is None, "nothing was ever saved"
    for step in (1, 2):
        (save(tmp_path, step).path / ckpt.WEIGHTS).write_bytes(b"")
    passed: list[str] = []
    with pytest.raises(ArtifactError, match="every checkpoint of the run is damaged") as caught:
        newest(tmp_path, on_damage=lambda path, error: passed.append(ckpt.quarantine(path).name))
    assert caught.value.exit_code == 4
    assert passed == ["step-2.corrupt", "step-1.corrupt"]
    with pytest.raises(ArtifactError, match="every checkpoint"):
        find(tmp_path)


def test_keeping_counts_verified_checkpoints_only(tmp_path: Path) -> None:
    for step in range(1, 4):
        save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-2", "step-3"]
    (tmp_path / "step-3" / ckpt.WEIGHTS).write_bytes(b"")
    save(tmp_path, 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-10", "step-2", "step-3"], "a torn one does not count"
    save(tmp_path, 11)
    assert {"step-10", "step-11"} <= {p.name for p in tmp_path.iterdir()}


def test_saving_the_same_step_again_keeps_a_good_one_and_replaces_a_torn_one(tmp_path: Path) -> None:
    before = snapshot(save(tmp_path, 4).path)
    assert save(tmp_path, 4).step == 4
    assert snapshot(tmp_path / "step-4") == before
    (tmp_path / "step-4" / ckpt.STATE).write_bytes(b"{}")
    assert verify(save(tmp_path, 4).path).step == 4
    assert (tmp_path / "step-4.corrupt").is_dir()


# --- other versions, other makers ---


def rewrite(path: Path, **changes: object) -> None:
    """A manifest that is sealed correctly but says something else."""
    body = {**verify(path).about, **changes}
    (path / ckpt.MANIFEST).write_bytes(ckpt.seal(body))


def test_a_newer_format_is_refused_and_not_set_aside(tmp_path: Path) -> None:
    save(tmp_path, 1)
    rewrite(save(tmp_path, 2).path, format=ckpt.FORMAT + 1, accord="7.0")
    with pytest.raises(ArtifactError, match="newer than") as caught:
        find(tmp_path)
    assert "accord 7.0" in str(caught.value)
    assert (caught.value.exit_code, caught.value.code) == (4, "E402")


class Payload:
    """A pickle that leaves a canary when it is loaded."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


def hostile_files(canary: Path) -> dict[str, bytes]:
    pickled = pickle.dumps(Payload(canary))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickled)
    saved = io.BytesIO()
    torch.save({"weights": torch.ones(3)}, saved)
    array = io.BytesIO()
    np.save(array, np.array([Payload(canary)], dtype=object), allow_pickle=True)
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    return {
        "pickle": pickled,
        "protocol 0": pickle.dumps(Payload(canary), protocol=0),
        "zip of a pickle": archive.getvalue(),
        "torch.save": saved.getvalue(),
        "object array": array.getvalue(),
        "polyglot": safetensors.torch.save({"a": torch.ones(2)}) + pickled,
        "header of 100 MB and 1": (10**8 + 1).to_bytes(8, "little") + b"{}",
        "header longer than the file": (5000).to_bytes(8, "little") + b"{}",
        "deep JSON": len(deep).to_bytes(8, "little") + deep,
        "empty": b"",
    }


def header(entries: str, size: int = 8) -> bytes:
    return len(entries).to_bytes(8, "little") + entries.encode() + bytes(size)


BAD_HEADERS = {
    "overlap": header(
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    ),
    "gap": header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'),
    "name twice": header(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    ),
    "name": header('{"../../a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "type": header('{"a":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}}'),
    "shape": header('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'),
    "negative": header('{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,-8]}}'),
    "huge": header('{"a":{"dtype":"F32","shape":[1000000000000000000],"data_offsets":[0,8]}}'),
    "bool": header('{"a":{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}}'),
    "nan": header('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
    "list": header("[1, 2]"),
    "too long": header('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', size=9),
}


@pytest.mark.parametrize("name", [*hostile_files(Path("x")), *BAD_HEADERS])
def test_hostile_weights_with_a_correct_manifest_are_refused_unread(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    data = {**hostile_files(canary), **BAD_HEADERS}[name]
    path = save(tmp_path, 1).path
    (path / ckpt.WEIGHTS).write_bytes(data)
    files = {**verify_files(path), ckpt.WEIGHTS: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    (path / ckpt.MANIFEST).write_bytes(ckpt.seal({**content_body(1), "files": files}))
    with pytest.raises(ArtifactError) as caught:
        load_weights(path, tiny.objective())
    assert caught.value.exit_code == 4
    assert ckpt.WEIGHTS in str(caught.value)
    assert not canary.exists()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 40),
)
def test_mutated_headers_give_our_error_or_the_tensors(tmp_path: Path, places: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(content(1.0)[ckpt.WEIGHTS])
    length = 8 + int.from_bytes(data[:8], "little")
    for place, value in places:
        data[place % length] = value
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(data[: len(data) - cut])
    try:
        tensors = read_tensors(path)
    except ArtifactError as error:
        assert error.exit_code == 4
    else:
        assert sum(t.numel() * t.element_size() for t in tensors.values()) == len(data) - length


def content_body(step: int) -> dict[str, object]:
    return {"accord": "test", "kind": ckpt.KIND, "format": ckpt.FORMAT, "step": step, "complete": True}


def verify_files(path: Path) -> dict[str, object]:
    names = (ckpt.STATE, ckpt.STATE_TENSORS)
    return {n: {"bytes": (path / n).stat().st_size, "sha256": storage.sha256_of(path / n)} for n in names}


@pytest.mark.parametrize("name", ["pickle", "zip of a pickle", "torch.save"])
def test_files_that_can_contain_code_are_refused_by_content(tmp_path: Path, name: str) -> None:
    for suffix in ("model.pt", "weights.safetensors", "noname"):
        path = tmp_path / suffix
        path.write_bytes(hostile_files(tmp_path / "canary")[name])
        with pytest.raises(ArtifactError, match="never loaded") as caught:
            load_weights(path, tiny.objective())
        assert caught.value.where == str(path)
    assert not (tmp_path / "canary").exists()


def test_a_manifest_that_is_no_manifest(tmp_path: Path) -> None:
    path = save(tmp_path, 1).path
    for data in (
        b"",
        b"[]",
        b"null",
        b'{"manifest": {}}',
        b'{"manifest": 1, "manifest": 2}',
        b"{" * 10**5,
        b"\xff\xfe",
        b'{"manifest": {"step": NaN}}',
    ):
        (path / ckpt.MANIFEST).write_bytes(data)
        with pytest.raises(ArtifactError):
            verify(path)
    (path / ckpt.MANIFEST).unlink()
    (path / ckpt.MANIFEST).symlink_to("/dev/zero")
    with pytest.raises(ArtifactError, match="plain file"):
        verify(path)


def test_nothing_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing here"):
        load_weights(tmp_path / "absent", tiny.objective())
    with pytest.raises(AccordError, match="no checkpoint"):
        load_weights(tmp_path, tiny.objective())


# --- into a model ---


def packed(objective: nn.Module, folder: Path, step: int = 1) -> Checkpoint:
    optimizer = AdamW().build(parameter_groups(objective, 0.1))
    for p in objective.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return save_checkpoint(folder, step, pack(objective, optimizer, {"seconds": 1.5}), {})


def test_weights_come_back_and_a_shared_encoder_is_stored_once(tmp_path: Path) -> None:
    trained = tiny.objective(seed=1)
    checkpoint = packed(trained, tmp_path)
    names = set(safetensors.torch.load_file(checkpoint.path / ckpt.WEIGHTS))
    assert len(trained.state_dict()) > len(names), "the model has names for the shared encoder twice"
    assert not any("encoder_y" in name for name in names)
    for module in (tiny.objective(seed=2), tiny.objective(seed=2).model):
        source = trained if isinstance(module, type(trained)) else trained.model
        assert load_weights(tmp_path / "step-1", module).step == 1
        for now, then in zip(module.state_dict().values(), source.state_dict().values(), strict=True):
            assert torch.equal(now, then)


def test_another_architecture_is_refused_by_name_and_nothing_is_loaded(tmp_path: Path) -> None:
    packed(tiny.objective(dim=16), tmp_path)
    other = tiny.objective(dim=24)
    before = {name: t.clone() for name, t in other.state_dict().items()}
    with pytest.raises(ArtifactError, match="another model") as caught:
        load_weights(tmp_path / "step-1", other)
    text = str(caught.value)
    assert "(16, 32) float32 in the checkpoint, (24, 32) float32 in the model" in text
    assert caught.value.code == "E403"
    assert all(torch.equal(t, before[name]) for name, t in other.state_dict().items())
    deep = nn.Sequential(*[nn.Linear(2, 2) for _ in range(30)])
    with pytest.raises(ArtifactError) as caught:
        unpack(verify(tmp_path / "step-1"), deep, AdamW().build(parameter_groups(tiny.objective(), 0.1)))
    assert str(caught.value).count("in the checkpoint") == 10
    assert "more" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    objective = tiny.objective()
    with torch.no_grad():
        next(objective.parameters())[0, 0] = value
    packed(objective, tmp_path)
    with pytest.raises(ArtifactError, match=r"NaN|not finite"):
        load_weights(tmp_path / "step-1", tiny.objective())


def test_everything_comes_back_random_numbers_included(tmp_path: Path) -> None:
    objective = tiny.objective()
    optimizer = AdamW().build(parameter_groups(objective, 0.1))
    for p in objective.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    random.gauss(0, 1)
    checkpoint = save_checkpoint(tmp_path, 3, pack(objective, optimizer, {"seconds": 1.5, "plan": [[0, 9]]}), {})
    drawn = random.random(), np.random.rand(), torch.rand(3), random.gauss(0, 1)
    other = tiny.objective(seed=9)
    second = AdamW().build(parameter_groups(other, 0.1))
    assert unpack(checkpoint, other, second) == {"seconds": 1.5, "plan": [[0, 9]]}
    again = random.random(), np.random.rand(), torch.rand(3), random.gauss(0, 1)
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    for a, b in zip(objective.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, second.state[b][key])
            assert value.stride() == second.state[b][key].stride()


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    checkpoint = packed(tiny.objective(), tmp_path)
    assert {p.name for p in checkpoint.path.iterdir()} == {*ckpt.FILES, ckpt.MANIFEST}
    json.loads((checkpoint.path / ckpt.STATE).read_text(), parse_constant=lambda c: pytest.fail(f"{c} in JSON"))
    for name in (ckpt.WEIGHTS, ckpt.STATE_TENSORS):
        assert safetensors.torch.load_file(checkpoint.path / name)


# --- any order of events ---


class Folder(RuleBasedStateMachine):
    """Saves, damage, crashes and restarts in any order; the newest undamaged checkpoint of the two kept is always found."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp())
        self.step = 0
        self.whole: list[int] = []
        self.damaged = False

    @rule(by=st.integers(1, 3))
    def save(self, by: int) -> None:
        self.step += by
        save(self.path, self.step)
        self.whole = sorted({*self.whole, self.step})[-2:]

    @rule(k=st.integers(1, 60))
    def crash_in_a_save(self, k: int) -> None:
        status = in_child(lambda: self._doomed(k))
        if (self.path / f"step-{self.step + 1}").exists():  # it got as far as the rename, perhaps into the purge
            self.step += 1
            self.whole = sorted({*self.whole, self.step})
            self.whole = [n for n in self.whole if (self.path / f"step-{n}").exists()][-2:]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0

    def _doomed(self, k: int) -> None:
        with at_call(k, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            save(self.path, self.step + 1)

    @precondition(lambda self: self.whole)
    @rule(name=st.sampled_from([*ckpt.FILES, ckpt.MANIFEST]), place=st.integers(0, 10**6))
    def damage_the_newest(self, name: str, place: int) -> None:
        path = self.path / f"step-{self.whole.pop()}" / name
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= 1
        path.write_bytes(data)
        self.damaged = True

    @rule()
    def start_again(self) -> None:
        ckpt.remove_unfinished(self.path)
        try:
            found = newest(self.path, on_damage=lambda path, error: ckpt.quarantine(path) and None)
        except ArtifactError:
            assert self.damaged and not self.whole
        else:
            assert (found.step if found else None) == (self.whole[-1] if self.whole else None)

    @invariant()
    def the_newest_whole_one_is_found(self) -> None:
        if self.whole:
            found = find(self.path)
            assert found is not None
            assert found.step == self.whole[-1]
            assert value_of(found) == float(found.step)

    def teardown(self) -> None:
        shutil.rmtree(self.path)


TestFolder = Folder.TestCase
TestFolder.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
