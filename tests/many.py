"""Processes that train together, as torchrun or srun would start them, but forked from one that has imported everything."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accord import collective
from accord.data.augment import VectorAugmentation
from accord.data.pair import Pair
from accord.data.pairing import Pairing, two_views
from accord.data.random import Draws
from accord.errors import AccordError, DataError
from accord.model.batch_norm import BatchNorm1d
from accord.model.codebook import Codebook
from accord.model.encoder import Encoder
from accord.model.energy import cosine, smooth_l1
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor, MLPPredictor, Predictor
from accord.model.projector import Projector
from accord.model.teacher import MovingAverage
from accord.objective import contrastive, distillation, principles
from accord.objective.latent_terms import UsageEntropy
from accord.objective.loss import Objective
from accord.train.progress import Silent

DISTILLED = {"byol": cosine, "jepa": smooth_l1}
SINGLE = {"single": True}
SHARE = 16
"""Samples of each of two processes in a batch of 32."""


class Double(nn.Module):
    """Samples are float32; what is compared is computed in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


class Residual(nn.Module):
    """A block, as residual networks and transformers have them."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, 7), nn.Linear(7, width)
        self.second.weight.data = (
            self.second.weight.data.T.contiguous().T
        )  # as convolutions with their channels innermost

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).tanh())


class DoublePredictor(Predictor):
    """Looking for collapse rounds embeddings to float32."""

    def __init__(self, dim: int, latent_dim: int = 0):
        super().__init__()
        self.mlp = MLPPredictor(dim, latent_dim)

    def forward(self, s_x: Tensor, z: Tensor, action: Tensor | None = None) -> Tensor:
        return self.mlp(s_x.double(), z.double(), action)


def objective(principle: str = "vicreg", *, norm: bool = True, codes: int = 0, dropout: float = 0.0) -> Objective:
    """In float64, by default without dropout: with what several processes do, only rounding differs."""
    torch.manual_seed(0)
    layer: nn.Module = BatchNorm1d(24) if norm else nn.LayerNorm(24)
    backbone = nn.Sequential(
        Double(), nn.Linear(16, 24), layer, nn.GELU(), nn.Dropout(dropout), Residual(24), Residual(24)
    )
    barlow = principle == "barlow_twins"
    options: dict[str, Any] = {"final_norm": True} if barlow else {} if norm else {"norm": nn.LayerNorm}
    encoder = Encoder(backbone, Projector(24, 12, hidden=(32,), **options), sample_ndim=1)
    latent = Codebook(codes, dim=4) if codes else None
    if principle in DISTILLED:
        model = JointEmbedding(encoder, MovingAverage(encoder), DoublePredictor(12), cost=DISTILLED[principle])
        return distillation.distilled(model, getattr(distillation, principle)()).double()
    model = JointEmbedding(encoder, encoder, DoublePredictor(12, latent.dim if latent else 0), latent=latent)
    if principle in ("info_nce", "siglip"):
        return contrastive.contrastive(model, getattr(contrastive, principle)()).double()
    terms = principles.sigreg(slices=32) if principle == "sigreg" else getattr(principles, principle)()
    usage = {"usage": (1.0, UsageEntropy())} if codes else {}
    return principles.regularized(model, {**terms, **usage}).double()


def single() -> Objective:
    """In float32, for what has fewer bits."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(16, 24), BatchNorm1d(24), nn.GELU(), Residual(24), Residual(24))
    encoder = Encoder(backbone, Projector(24, 12, hidden=(32,)), sample_ndim=1)
    return principles.regularized(JointEmbedding(encoder, encoder, IdentityPredictor()))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in names.items()}


def run(rank: int, size: int, port: int, log: str, arguments: dict[str, Any]) -> None:
    """In a process of its own: calls a function of this module or of `tiny` and ends with the exit code of the command line."""
    import tiny
    from accord.train import distributed, run_directory

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    os.environ.update(environment(rank, size, port) if size > 1 else {})
    torch.set_num_threads(1)
    tiny.heed_signals()
    distributed.TIMEOUT = float(arguments.pop("timeout", distributed.TIMEOUT))
    distributed.SILENCE = float(arguments.pop("silence", distributed.SILENCE))
    run_directory.SHARED_WITHIN = float(arguments.pop("shared_within", run_directory.SHARED_WITHIN))
    try:
        train(**arguments)
    except AccordError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


def gloo_threads() -> int:
    """How many threads of this process wait for collectives, where the system tells."""
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum(name.startswith("pt_gloo") for name in names)


class Views(Pairing):
    """Two views, slower than they need be, and broken on one rank from one step on if they are told so."""

    def __init__(self, slow: float, breaks: dict[str, Any]):
        self.views, self.slow, self.breaks, self.step = two_views(VectorAugmentation()), slow, breaks, -1

    def __call__(self, batch: Tensor, draws: Draws, aspect: Tensor | None = None) -> Pair:
        time.sleep(self.slow)
        self.step += len(batch) == SHARE  # not when looking for collapse
        pair = self.views(batch, draws, aspect)
        if self.breaks and collective.rank() == self.breaks["rank"] and self.step == self.breaks["step"]:
            if "error" in self.breaks:
                raise DataError(self.breaks["error"])
            pair = pair._replace(y=pair.y * float("nan"))
        return pair

    def plain(self, batch: Tensor, aspect: Tensor | None = None) -> Tensor:
        return self.views.plain(batch, aspect)


class Leaves(Silent):
    """Tells this process to end after some step; heard on the first rank only."""

    def __init__(self, step: int):
        self.step = step

    def advanced(self, *, step: int, total: int, line: Mapping[str, Any]) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def train(
    out: str,
    objective: dict[str, Any] | None = None,
    slow: float = 0.0,
    breaks: dict[str, Any] | None = None,
    leave: int = 0,
    **options: Any,
) -> None:
    """A run of 12 steps of `objective` by `fit`, which a signal ends after step `leave`."""
    import many
    import tiny

    made = many.single() if objective == SINGLE else many.objective(**(objective or {}))
    pairs = Views(slow, breaks or {})
    given = {"progress": Leaves(leave)} if leave else {}
    tiny.train(Path(out), **{"steps": 12, "log_every": 1, **given, "objective": made, "pairing": pairs, **options})
    encoder = list(made.model.encoder_x.parameters())
    held = sum(getattr(p, "_local_tensor", p).numel() for p in encoder)
    sharded = options.get("parallel") == "fsdp"  # torch keeps their group in a cache
    assert sharded or not gloo_threads(), "one that lets go of a tensor while the interpreter ends aborts the process"
    print(f"holds {held} of {sum(p.numel() for p in encoder)} numbers", flush=True)


@contextmanager
def started(size: int, folder: Path, *, each: list[dict[str, Any]] | None = None, **arguments: Any) -> Any:
    """`size` processes at work, with some arguments `each`; those that are left at the end of the body are killed."""
    import tiny

    port = free_port()
    context = tiny.processes()
    logs = [folder / f"rank-{rank}.log" for rank in range(size)]
    processes: list[ForkServerProcess] = [
        context.Process(target=run, args=(r, size, port, str(logs[r]), {**arguments, **((each or [{}] * size)[r])}))
        for r in range(size)
    ]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def outputs(size: int, folder: Path) -> list[str]:
    """What each process has printed."""
    files = [folder / f"rank-{rank}.log" for rank in range(size)]
    return [file.read_text() if file.exists() else "" for file in files]


def together(size: int, folder: Path, *, code: int = 0, **arguments: Any) -> None:
    """A run of `size` processes that ends with this exit code, well by default."""
    folder.mkdir(exist_ok=True)
    with started(size, folder, **arguments) as processes:
        for process in processes:
            process.join(timeout=60)
    codes = [process.exitcode for process in processes]
    assert codes == [code] * size, f"{codes}\n" + "\n".join(outputs(size, folder))
