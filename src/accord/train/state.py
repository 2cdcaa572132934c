"""What a checkpoint holds beside the weights: optimiser, random numbers, and where training stood; as tensors and JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from accord.collective import rank
from accord.errors import ArtifactError
from accord.train.checkpoint import STATE, STATE_TENSORS, WEIGHTS, Checkpoint, part_name
from accord.train.sharded import is_sharded, own_parts, write
from accord.train.tensors import (
    copy_into,
    damaged,
    distinct,
    encode,
    encode_parts,
    read_whole,
    require_finite,
    require_match,
    strict_json,
)


def pack(objective: nn.Module, optimizer: Optimizer, training: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a checkpoint that this process writes: the first one all of it, others only parts of what is sharded.

    Args:
        objective: its whole `state_dict()` is stored, shared tensors once.
        optimizer: built from `parameter_groups`.
        training: where training stands, JSON values.
    """
    weights = distinct(objective.state_dict(keep_vars=True))
    tensors = {f"{key}.{name}": t for name, key, t, _ in _optimizer_state(optimizer)}
    in_parts = any(map(is_sharded, weights.values()))
    if rank() > 0 and not in_parts:
        return {}
    tensors["rng.torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors |= {f"rng.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    if in_parts:
        files = {WEIGHTS: weights, STATE_TENSORS: tensors}
        parts = {part_name(name, rank()): encode_parts(own_parts(values)) for name, values in files.items()}
    else:
        parts = {WEIGHTS: encode(weights), STATE_TENSORS: encode(tensors)}
    if rank() > 0:
        return parts
    state = {"training": training, "rng": {"python": random.getstate(), "numpy": _numpy_state()}}
    return {**parts, STATE: json.dumps(state, allow_nan=False).encode()}


def unpack(checkpoint: Checkpoint, objective: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Restores everything `pack` stored and returns `training`. Nothing is changed unless all of it fits.

    Raises:
        ArtifactError: if a file is damaged or of another model or optimiser.
    """
    weights_file, tensors_file = checkpoint.path / WEIGHTS, checkpoint.path / STATE_TENSORS
    weights, tensors = (read_whole(checkpoint.files(name)) for name in (WEIGHTS, STATE_TENSORS))
    require_finite([name for name, _ in objective.named_parameters()], weights, where=weights_file)
    targets = objective.state_dict(keep_vars=True)
    require_match(targets, weights, where=str(weights_file))
    optimizer_state = _matched(tensors, optimizer, str(tensors_file))
    try:
        state = strict_json((checkpoint.path / STATE).read_bytes())
        training = dict(state["training"])
        copy_into(targets, weights, where=str(weights_file))
        for p, key, value in optimizer_state:
            optimizer.state[p][key] = value
        _restore_random(state["rng"], tensors)
    except (ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
        raise damaged(f"{type(error).__name__}: {error}", checkpoint.path / STATE) from None
    return training


def space_needed(objective: nn.Module) -> int:
    """Bytes of three checkpoints, with an optimiser that keeps two numbers per weight, and of the log."""
    tensors = distinct(objective.state_dict(keep_vars=True)).values()
    return 9 * sum(t.numel() * t.element_size() for t in tensors) + 2**22


def read_training(checkpoint: Checkpoint) -> dict[str, Any]:
    """Where training stood, without restoring anything.

    Raises:
        ArtifactError: if it cannot be read.
    """
    try:
        return dict(strict_json((checkpoint.path / STATE).read_bytes())["training"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(f"{type(error).__name__}: {error}", checkpoint.path / STATE) from None


def _named_parameters(optimizer: Optimizer) -> dict[str, Tensor]:
    return {n: p for group in optimizer.param_groups for n, p in zip(group["names"], group["params"], strict=True)}


def _optimizer_state(optimizer: Optimizer) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """(name of the parameter, key, value, parameter) of every tensor an optimiser remembers."""
    for name, p in _named_parameters(optimizer).items():
        for key, value in optimizer.state.get(p, {}).items():
            if isinstance(value, Tensor):
                yield name, key, value, p


def _matched(tensors: Mapping[str, Tensor], optimizer: Optimizer, where: str) -> list[tuple[Tensor, str, Tensor]]:
    """Each stored value with its parameter: a scalar, or laid out in memory as the parameter is."""
    parameters = _named_parameters(optimizer)
    found = []
    for full_name, value in tensors.items():
        key, _, name = full_name.partition(".")
        if key == "rng":
            continue
        p = parameters.get(name)
        if p is None or value.shape not in (p.shape, ()):
            raise ArtifactError(
                f"the state of the optimiser does not fit: {full_name} {tuple(value.shape)}",
                where=where,
                help="resume with the settings of the run (its recipe.toml)",
                code="E403",
            )
        like = torch.zeros_like(p, dtype=value.dtype) if value.shape == p.shape else value.to(p.device)
        write(like, value)
        found.append((p, key, like.detach()))
    return found


def _numpy_state() -> list[Any]:
    """NumPy's global generator (Mersenne twister) as JSON values."""
    name, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return [name, np.asarray(words).tolist(), position, has_gauss, gauss]


def _restore_random(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, words, *rest = state["numpy"]
    np.random.set_state((name, np.array(words, dtype=np.uint32), *rest))
    torch.set_rng_state(tensors["rng.torch"])
    for i in range(torch.cuda.device_count()):
        if f"rng.cuda.{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"rng.cuda.{i}"], i)
