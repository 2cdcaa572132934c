"""Checkpoints of sharded runs: each process writes its part, any number reads them, nothing is ever unpickled, damage is found."""

from __future__ import annotations

import importlib
import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

from accord.errors import ArtifactError, EnvironmentFault
from accord.train.checkpoint import MANIFEST, WEIGHTS, entries, listed, load_weights, manifest, verify
from accord.train.distributed import ALONE
from accord.train.sharded import Part
from accord.train.tensors import encode_parts, read_whole
from accord.train.together import save_together

sys.path.insert(0, str(Path(__file__).parents[1]))  # the helpers are no package, and processes look for them by name
many, tiny = (importlib.import_module(name) for name in ("many", "tiny"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three processes with sharded encoders."""
    folder = tmp_path_factory.mktemp("sharded")
    many.together(3, folder / "logs", out=str(folder / "run"), parallel="fsdp", batch_size=33)
    return folder / "run"


@pytest.fixture
def copy(sharded: Path, tmp_path: Path) -> Path:
    """Its last checkpoint, to be damaged."""
    path = tmp_path / "step-12"
    shutil.copytree(listed(sharded / "checkpoints")[-1], path)
    return path


@contextmanager
def nothing_unpickled() -> Iterator[list[str]]:
    """Within the body whatever reads a pickle fails, and is listed."""
    seen: list[str] = []

    def refused(*arguments: Any, **options: Any) -> Any:
        seen.append("a pickle is read")
        raise AssertionError(seen[-1])

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load", "loads", "Unpickler"):
            patch.setattr(pickle, name, refused)
        patch.setattr(torch, "load", refused)
        yield seen


def test_each_process_writes_what_it_holds(sharded: Path) -> None:
    found = verify(listed(sharded / "checkpoints")[-1])
    assert found.about["parts"] == 3 and found.about["format"] == 2
    sizes = [sum(t.numel() for t in load_file(path).values()) for path in found.files(WEIGHTS)]
    assert len(sizes) == 3 and max(sizes[1:]) < 0.4 * sum(sizes)
    assert sizes[0] > sizes[1], "what is not sharded is written once, by the first"


def test_parts_are_the_weights_of_one_process(sharded: Path, tmp_path: Path) -> None:
    many.train(str(tmp_path / "one"), batch_size=33)
    whole = load_file(listed(tmp_path / "one" / "checkpoints")[-1] / WEIGHTS)
    parts = read_whole(verify(listed(sharded / "checkpoints")[-1]).files(WEIGHTS))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-8, atol=1e-10)


def test_any_number_of_processes_goes_on(tmp_path: Path) -> None:
    """Three sharded, two sharded, one: the weights of one process that was never stopped."""
    many.train(str(tmp_path / "one"), batch_size=33)
    for turn, (size, leave, parallel) in enumerate([(3, 4, "fsdp"), (2, 8, "fsdp"), (1, 0, "ddp")]):
        given = {
            "out": str(tmp_path / "run"),
            "leave": leave,
            "resume": turn > 0,
            "parallel": parallel,
            "batch_size": 33,
        }
        many.together(size, tmp_path / f"logs-{turn}", code=143 if leave else 0, **given)
        parts = verify(tmp_path / "run" / "checkpoints" / f"step-{leave or 12}").about["parts"]
        assert parts == size
    one, other = (load_file(listed(tmp_path / n / "checkpoints")[-1] / WEIGHTS) for n in ("one", "run"))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-8, atol=1e-10)


def test_nothing_is_unpickled_on_loading(sharded: Path) -> None:
    with nothing_unpickled() as seen:
        checkpoint = load_weights(sharded, many.objective())
    assert checkpoint.step == 12 and seen == []


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_check_sees_a_pickle(tmp_path: Path) -> None:
    """Negative control: the checkpoints of torch itself are read through one."""
    state = {"a": torch.zeros(2)}
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    with nothing_unpickled() as seen, pytest.raises(dcp.CheckpointException, match="pickle"):
        dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    assert seen


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_reads_the_same_files(sharded: Path, tmp_path: Path) -> None:
    found = verify(listed(sharded / "checkpoints")[-1])
    for path in found.files(WEIGHTS):
        shutil.copy(path, tmp_path)
    ours = read_whole(found.files(WEIGHTS))
    theirs = {name: torch.zeros_like(tensor) for name, tensor in ours.items()}
    with nothing_unpickled():
        dcp.load(theirs, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


@pytest.mark.parametrize("name", ["weights-1.safetensors", "state-2.safetensors", "weights.safetensors"])
def test_a_damaged_or_missing_part_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[-3] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ArtifactError, match="sha256"):
        verify(copy)
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match="No such file"):
        verify(copy)


def reseal(path: Path, parts: int) -> None:
    """A manifest whose hashes are right, whatever the files hold."""
    about = json.loads((path / MANIFEST).read_text())["manifest"]
    files = {name: (path / name).read_bytes() for name in about["files"] if (path / name).exists()}
    (path / MANIFEST).write_bytes(manifest(about["step"], entries(files), about, parts=parts))


def test_a_manifest_must_name_every_part(copy: Path) -> None:
    (copy / "weights-2.safetensors").unlink()
    reseal(copy, 3)
    with pytest.raises(ArtifactError, match="another checkpoint"):
        verify(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [(1, "overlap or leave a gap"), (-1, "overlap or leave a gap"), (None, "not said where")],
    ids=["gap", "overlap", "no places"],
)
def test_parts_that_do_not_fit_together_are_refused(copy: Path, change: int | None, says: str) -> None:
    """Hashes are right, but the second process's part says that it begins elsewhere."""
    path = copy / "weights-1.safetensors"
    tensors = load_file(path)
    if change is None:
        save_file(tensors, path)
    else:
        starts = json.loads(_about(path)["DCP_SHARDING_INFO"])
        parts = {n: Part(t, starts[n]["saved_offsets"][0] + change) for n, t in tensors.items()}
        path.write_bytes(encode_parts(parts))
    reseal(copy, 3)
    with pytest.raises(ArtifactError, match=says):
        load_weights(copy, many.objective())


def _about(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, str] = header["__metadata__"]
    return found


@pytest.mark.parametrize("rows", [[7], [3, 4], [1, 0, 6]])
def test_parts_of_any_sizes_come_back(tmp_path: Path, rows: list[int]) -> None:
    t = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 3)))
    paths = [tmp_path / f"{k}.safetensors" for k in range(len(rows))]
    first = 0
    for path, count in zip(paths, rows, strict=True):
        scalar = {"one": Part(torch.tensor(2.0), 0)} if path is paths[0] else {}
        path.write_bytes(encode_parts({"t": Part(t[first : first + count].clone(), first), **scalar}))
        first += count
    found = read_whole(paths)
    assert torch.equal(found["t"], t) and found["one"] == 2


def test_alone_it_is_the_checkpoint_of_one_process(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {"a": torch.ones(3)}
    save_file(tensors, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    files = {WEIGHTS: data, "state.safetensors": data, "state.json": b"{}"}
    save_together(tmp_path, 3, files, {}, ALONE)
    assert verify(tmp_path / "step-3").about["format"] == 1


def test_a_full_disk_of_one_process_leaves_what_was_there(tmp_path: Path) -> None:
    class Two:
        """The first of two processes, whose other one fails before it has written."""

        first, size, rank = True, 2, 0

        def everyone(self, value: Any) -> list[Any]:
            if isinstance(value, dict):
                raise EnvironmentFault("another process of this run has failed", code="E516")
            return [value, value]

        def of_first(self, value: Any) -> Any:
            return value

        def meet(self) -> None:
            pass

    with pytest.raises(EnvironmentFault):
        save_together(tmp_path, 3, {"weights.safetensors": b"1"}, {}, Two())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
