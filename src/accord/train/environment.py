"""Which of several processes this one is, as torchrun or SLURM says it in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from accord.errors import UsageError

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PORTS, FIRST_PORT = 20_000, 20_000
"""Without MASTER_PORT the jobs of SLURM meet at a port of these that is a function of the number of the job."""


class Seat(NamedTuple):
    """Number `rank` of `size` processes, number `local` on this machine; they meet at `address` (of PyTorch's rendezvous)."""

    rank: int
    size: int
    local: int
    address: str


def seat(environment: Mapping[str, str]) -> Seat | None:
    """The place of this process, or None where it is the only one.

    torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. In a step of SLURM (srun) SLURM_PROCID, SLURM_NTASKS and
    SLURM_LOCALID say the same, and the processes meet on the first machine of the step, unless MASTER_ADDR names another.

    Raises:
        UsageError: if only some of these are set, or are no sensible numbers.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        missing = [name for name in TORCHRUN if not environment.get(name)]
        if missing:
            raise _unusable(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set")
        return _seat(environment, "RANK", "WORLD_SIZE", "LOCAL_RANK", "env://")
    size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    if "SLURM_STEP_ID" not in environment or size not in environment:  # the batch script itself is no step of srun
        return None
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
    host = environment.get("MASTER_ADDR") or first_host(nodes)
    job = int("".join(re.findall(r"\d", environment.get("SLURM_JOB_ID", ""))) or 0)
    port = environment.get("MASTER_PORT") or str(FIRST_PORT + job % PORTS)
    return _seat(environment, "SLURM_PROCID", size, "SLURM_LOCALID", f"tcp://{host}:{port}")


def first_host(nodes: str) -> str:
    """The first machine of a list as SLURM writes it: "gpu[007-012,020],cpu1" is gpu007."""
    match = re.match(r"([^\[\],]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if match is None:
        return "127.0.0.1"
    return "".join(part or "" for part in match.groups())


def _seat(environment: Mapping[str, str], rank: str, size: str, local: str, address: str) -> Seat | None:
    numbers = [environment.get(name, "0") for name in (rank, size, local)]
    if not all(number.isdecimal() for number in numbers) or not int(numbers[0]) < int(numbers[1]):
        raise _unusable(f"{rank} is {numbers[0]!r}, {size} is {numbers[1]!r}, {local} is {numbers[2]!r}")
    found = Seat(int(numbers[0]), int(numbers[1]), int(numbers[2]), address)
    return None if found.size == 1 else found


def _unusable(what: str) -> UsageError:
    return UsageError(
        f"the environment says that there are several processes, but {what}",
        where="environment",
        help="start with torchrun or srun; for one process unset RANK and WORLD_SIZE",
        code="E270",
    )
