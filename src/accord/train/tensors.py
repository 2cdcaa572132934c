"""Named tensors in safetensors files: shared ones stored once, headers checked before anything is read, nothing loaded in part."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from accord.errors import ArtifactError
from accord.train.sharded import Part, is_sharded, write

MAX_HEADER = 10_000_000
MAX_TENSORS = 100_000
NAME = re.compile(r"[A-Za-z0-9_.\-]{1,256}")
ITEM_SIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
PLACES = "DCP_SHARDING_INFO"
"""The entry of a header that says where in the whole tensors the parts begin, as torch.distributed.checkpoint names it."""
DAMAGED = "E401"
DOES_NOT_FIT = "E403"


def damaged(what: str, path: Path) -> ArtifactError:
    """The error for a file whose content is not what was written."""
    return ArtifactError(
        f"damaged checkpoint: {what}",
        where=str(path),
        help="use another checkpoint of the run; --resume takes the newest valid one",
        code=DAMAGED,
    )


def distinct(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor under the first of its names: a shared encoder is one set of tensors under two.

    Of sharded ones the objects are compared, for a process may hold nothing of them: give those of ``state_dict(keep_vars=True)``.
    """
    seen: dict[object, str] = {}
    for name, tensor in tensors.items():
        place: object = name
        if is_sharded(tensor):
            place = id(tensor)
        elif tensor.numel():
            place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        seen.setdefault(place, name)
    return {name: tensors[name] for name in seen.values()}


def encode(tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> bytes:
    """The content of a safetensors file, `about` in its header. Tensors must be `distinct`.

    Raises:
        ValueError: for a name a file may not contain, or a data type that is not among those read back.
    """
    for name in tensors:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be saved: names are 1 to 256 of letters, digits, '_', '-' and '.'")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data: bytes = safetensors.torch.save(plain, about)
    return data


def encode_parts(parts: Mapping[str, Part]) -> bytes:
    """As `encode`, with the place of each part in the header: what `HuggingFaceStorageReader` of torch reads as well."""
    places = {
        n: {"saved_offsets": [part.first, *[0] * (part.rows.ndim - 1)][: part.rows.ndim]} for n, part in parts.items()
    }
    about = {PLACES: json.dumps(places, sort_keys=True), "DCP_VERSION": "1.0"}
    return encode({name: part.rows for name, part in parts.items()}, about)


def read_whole(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of some files, on the CPU, whole: parts that lie in several files are put together.

    Raises:
        ArtifactError: as `read_tensors`, and for parts that overlap or leave a gap.
    """
    if len(paths) == 1:
        return read_tensors(paths[0])
    found: dict[str, list[Part]] = {}
    for path in paths:
        places = _places(path)
        for name, rows in read_tensors(path).items():
            found.setdefault(name, []).append(Part(rows, places.get(name, 0)))
    return {name: _joined(name, sorted(parts, key=lambda p: p.first), paths[0]) for name, parts in found.items()}


def _joined(name: str, parts: list[Part], path: Path) -> Tensor:
    ends = [0, *(part.first + (len(part.rows) if part.rows.ndim else 1) for part in parts)]
    if [part.first for part in parts] != ends[:-1]:
        raise damaged(f"the parts of tensor {name} overlap or leave a gap", path)
    if len({(part.rows.shape[1:], part.rows.dtype) for part in parts}) > 1:
        raise damaged(f"the parts of tensor {name} do not fit each other", path)
    return parts[0].rows if len(parts) == 1 else torch.cat([part.rows for part in parts])


def _places(path: Path) -> dict[str, int]:
    """The first row of each part of a file."""
    try:
        places = strict_json(check_header(path)[PLACES].encode())
        return {name: _counts(place["saved_offsets"] or [0])[0] for name, place in places.items()}  # type: ignore[index]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise damaged(
            f"it is not said where the parts of its tensors begin: {type(error).__name__}: {error}", path
        ) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        ArtifactError: if the header is not sound, or a floating-point value is NaN.
    """
    check_header(path)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise damaged(str(error), path) from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise damaged(f"tensor {name} contains NaN", path)
    return tensors


def check_header(path: Path) -> dict[str, str]:
    """Everything in the header is within limits and adds up to the size of the file; no tensor is read. Returns what is said of them.

    Raises:
        ArtifactError: with what is wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER or 8 + length > size:
            raise damaged(f"a header of {length:,} bytes in a file of {size:,}", path)
        raw = file.read(length)
    try:
        header = strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise damaged(f"unreadable header: {error}", path) from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise damaged("the header is no table of tensors", path)
    about = header.pop("__metadata__", {})
    end = 0
    for start, stop in sorted(_extent(name, entry, path) for name, entry in header.items()):
        if start != end:
            raise damaged("tensors overlap or leave a gap", path)
        end = stop
    if 8 + length + end != size:
        raise damaged(f"{size:,} bytes, the header describes {8 + length + end:,}", path)
    return about if isinstance(about, dict) else {}


def _extent(name: str, entry: Any, path: Path) -> tuple[int, int]:
    """First and last byte of a tensor, if its name, type, shape and size are sound."""
    sound = NAME.fullmatch(name) and isinstance(entry, dict) and entry.get("dtype") in ITEM_SIZE
    shape, offsets = (_counts(entry.get(key)) if sound else None for key in ("shape", "data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or len(shape) > 16:
        raise damaged(f"tensor {name[:256]!r} has no sound name, type, shape or place", path)
    start, stop = offsets
    if stop - start != math.prod(shape) * ITEM_SIZE[entry["dtype"]]:
        raise damaged(f"tensor {name} of shape {tuple(shape)} does not take {stop - start:,} bytes", path)
    return start, stop


def _counts(values: Any) -> list[int] | None:
    """`values` if they are a list of whole numbers of a sane size."""
    sane = isinstance(values, list) and all(type(v) is int and 0 <= v < 2**48 for v in values)
    return values if sane else None


def strict_json(data: bytes) -> Any:
    """JSON without duplicate keys and without NaN and infinities.

    Raises:
        ValueError: for those and for what is no JSON.
    """

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key appears twice")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not allowed")

    return json.loads(data.decode("utf-8"), object_pairs_hook=table, parse_constant=refuse)


@torch.no_grad()
def copy_into(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copies `tensors` into `targets` (a module's `state_dict()`), in place, if they fit exactly; otherwise copies nothing.

    Raises:
        ArtifactError: as `require_match`.
    """
    require_match(targets, tensors, where=where)
    for name, target in distinct(targets).items():
        write(target, tensors[name])


def require_match(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, where: str) -> None:
    """`tensors` have the names, shapes and data types of the distinct ones among `targets`.

    Raises:
        ArtifactError: if names, shapes or data types differ, with up to 10 of them.
    """
    ours = distinct(targets)
    lines = [
        f"{name}: {_shape(tensors.get(name))} in the checkpoint, {_shape(ours.get(name))} in the model"
        for name in sorted({*ours, *tensors})
        if _shape(tensors.get(name)) != _shape(ours.get(name))
    ]
    if lines:
        more = f"; and {len(lines) - 10} more" if len(lines) > 10 else ""
        raise ArtifactError(
            f"the checkpoint is of another model: {len(lines)} tensors differ: {'; '.join(lines[:10])}{more}",
            where=where,
            help="build the model with the settings of the run (its recipe.toml)",
            code=DOES_NOT_FIT,
        )


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def require_finite(names: Iterable[str], tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """No parameter of a checkpoint is NaN or infinite.

    Raises:
        ArtifactError: with the name of the first one that is.
    """
    for name in names:
        if name in tensors and not bool(tensors[name].isfinite().all()):
            raise damaged(f"parameter {name} is not finite", where)
