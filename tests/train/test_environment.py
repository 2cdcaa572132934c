"""What torchrun and SLURM set is read; what contradicts itself is refused."""

from __future__ import annotations

import pytest

from accord.errors import UsageError
from accord.train.environment import Seat, first_host, seat

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "20123",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
}


def test_torchrun() -> None:
    assert seat(TORCHRUN) == Seat(3, 4, 1, "env://")
    assert seat({**SLURM, **TORCHRUN}) == Seat(3, 4, 1, "env://"), "torchrun started by srun"


def test_slurm() -> None:
    assert seat(SLURM) == Seat(5, 8, 1, "tcp://gpu007:20123")
    assert seat({**SLURM, "MASTER_ADDR": "b", "MASTER_PORT": "7"}) == Seat(5, 8, 1, "tcp://b:7")
    ports = {seat({**SLURM, "SLURM_JOB_ID": str(job)}).address for job in range(10**6, 10**6 + 50)}  # type: ignore[union-attr]
    assert len(ports) == 50, "jobs on one machine do not meet"


def test_one_process() -> None:
    assert seat({}) is None
    assert seat({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None
    batch_script = {k: v for k, v in SLURM.items() if "STEP" not in k} | {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    assert seat(batch_script) is None, "no step of srun: the other tasks are not there"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"RANK": "0"}, "WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not set"),
        ({k: v for k, v in TORCHRUN.items() if k != "MASTER_ADDR"}, "MASTER_ADDR is not set"),
        ({**TORCHRUN, "RANK": "4"}, "RANK is '4', WORLD_SIZE is '4'"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK is '-1'"),
    ],
)
def test_what_contradicts_itself(given: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        seat(given)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[007-012,020],cpu1", "gpu007"),
        ("a-b[3,5-7]-ib,c", "a-b3-ib"),
        ("", "127.0.0.1"),
    ],
)
def test_the_first_machine_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host
