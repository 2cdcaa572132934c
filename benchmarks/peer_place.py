"""Where benchmarks/peers.py runs its children: an environment of its own with the peers, a process for each run, and what it uses."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BASE = ["torchvision==0.28.0"]
"""What all peers need; it fixes the release of torch as well. Its wheel is for CUDA: see `peer_setting.declare_operators`."""
PEERS = {
    "lightly": ["lightly==1.6.0"],
    "spt": ["stable-pretraining==0.1.8"],
    "eb-jepa": ["fire==0.7.1", "omegaconf==2.3.1", "tqdm==4.70.1", "wandb==0.31.0"],
}
"""Releases; of EB-JEPA, which has none, what its example imports."""
CLONE = ("eb_jepa/losses.py", *(f"examples/image_jepa/{name}.py" for name in ("main", "dataset", "eval")))
"""Files that are used of a clone of EB-JEPA; what these import must be there too."""


class Place(NamedTuple):
    """Where children run and what they may use."""

    python: Path
    data: Path
    threads: int
    clone: Path | None

    def environment(self) -> dict[str, str]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.threads))
        path = os.pathsep.join(str(p) for p in (ROOT / "src", self.clone) if p is not None)
        return {**os.environ, **threads, "PYTHONPATH": path, "SPT_CACHE_DIR": str(self.data / "spt")}

    def child(self, script: str, job: dict[str, Any]) -> tuple[Any, float]:
        """What a job found, and the largest memory its processes had together, bytes."""
        result = self.data / "result.json"
        result.unlink(missing_ok=True)
        described = json.dumps({**job, "threads": self.threads, "result": str(result)})
        peak = self.watched([str(self.python), str(ROOT / "benchmarks" / script), described])
        return json.loads(result.read_text()), peak

    def watched(self, command: list[str]) -> float:
        """Runs a command to its end and returns the largest memory seen.

        Raises:
            RuntimeError: with the last line it wrote, if it failed.
        """
        log = self.data / "log.txt"
        with log.open("w") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, env=self.environment(), cwd=self.data, start_new_session=True
            )
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, memory_of_session(process.pid))
                time.sleep(1)
        if process.returncode:
            lines = log.read_text().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"exit {process.returncode}")
        return peak


def memory_of_session(leader: int) -> float:
    """Proportional set size of all processes of a session, bytes: what is shared counts once."""
    total = 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == leader:
                lines = (entry / "smaps_rollup").read_text().splitlines()
                total += sum(1024 * float(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, ValueError):
            continue
    return total


def install(venv: Path, peers: list[str]) -> dict[str, str]:
    """Makes the environment if there is none, and says of each peer which version it has, or why there is none."""
    python = venv / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        subprocess.run([*pip, "--editable", str(ROOT), *BASE], check=True)
    found = {}
    for loop in peers:
        wanted = PEERS[loop]
        if any(version_of(python, name) != version for name, version in (it.split("==") for it in wanted)):
            done = subprocess.run([*pip, *wanted, *BASE], check=False, capture_output=True, text=True)
            if done.returncode:
                found[loop] = f"could not be installed: {(done.stderr.strip() or '?').splitlines()[-1]}"
                continue
        found[loop] = " ".join(wanted).replace("==", " ")
    return found


def version_of(python: Path, name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([str(python), "-c", code], check=False, capture_output=True, text=True).stdout.strip()


def digest(clone: Path) -> str:
    """Of the files of EB-JEPA that are used: which version this is.

    Raises:
        FileNotFoundError: naming those that are missing.
    """
    missing = [name for name in CLONE if not (clone / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{clone} is no clone of facebookresearch/eb_jepa: it has no {', '.join(missing)}")
    return hashlib.sha256(b"".join((clone / name).read_bytes() for name in CLONE)).hexdigest()[:12]
