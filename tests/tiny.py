"""A run small enough for tests: 256 vectors of 16 numbers, an encoder of 2,000 weights, a step of a few milliseconds."""

from __future__ import annotations

import hashlib
import multiprocessing.context
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accord.data.augment import VectorAugmentation
from accord.data.pair import Pair
from accord.data.pairing import Pairing, TwoViews, two_views
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.errors import AccordError
from accord.model.centred import CentredDivergence
from accord.model.encoder import Encoder
from accord.model.energy import Cost, cosine, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import IdentityPredictor, MLPPredictor
from accord.model.projector import Projector
from accord.model.teacher import MovingAverage, StopGradient
from accord.objective.distillation import byol, dino, distilled, simsiam
from accord.objective.loss import Objective, Terms
from accord.objective.principles import regularized
from accord.train.checkpoint import FOLDER, WEIGHTS, listed
from accord.train.fit import Fit, fit
from accord.train.progress import Silent


def samples(n: int = 256, features: int = 16) -> Samples:
    """Vectors with eight independent causes."""
    generator = np.random.default_rng(0)
    causes = generator.normal(size=(n, 8))
    values = np.tanh(causes @ generator.normal(size=(8, features)))
    return open_source(values.astype(np.float32))


def objective(
    principle: Terms | None = None, *, seed: int = 0, dim: int = 16, features: int = 16, cost: Cost = squared_error
) -> Objective:
    """A shared encoder with dropout (which draws from the global generator) and batch norm (which has running statistics)."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Dropout(0.1))
    encoder = Encoder(backbone, Projector(32, dim, hidden=(32,)), sample_ndim=1)
    return regularized(JointEmbedding(encoder, encoder, IdentityPredictor(), cost=cost), principle)


def with_teacher(
    name: str,
    *,
    seed: int = 0,
    dim: int = 16,
    features: int = 16,
    momentum: tuple[float, float] = (0.95, 1.0),
    predictor: bool = True,
    stop: bool = True,
) -> Objective:
    """BYOL, SimSiam or DINO with the encoder of `objective`; without predictor or without a teacher that stops the gradient."""
    encoder = objective(seed=seed, dim=dim, features=features).model.encoder_x
    teacher = StopGradient(encoder) if name == "simsiam" else MovingAverage(encoder, momentum=momentum)
    if name == "dino":
        cost = CentredDivergence(dim)
        return distilled(JointEmbedding(encoder, teacher, IdentityPredictor(), cost=cost), dino())
    found = MLPPredictor(dim) if predictor else IdentityPredictor()
    model = JointEmbedding(encoder, teacher if stop else encoder, found, cost=cosine)
    return Objective(model, byol() if name == "byol" else simsiam(), symmetric=True)


def pairing() -> TwoViews:
    return two_views(VectorAugmentation())


def train(out: Path, **options: Any) -> Fit:
    """A run of 40 steps with a checkpoint after every 10, unless told otherwise."""
    given = {"steps": 40, "batch_size": 32, "checkpoint_every": 10, "device": "cpu", "progress": Silent(), "lr": 1e-3}
    chosen = {**given, **options}
    trained, data, pairs = (chosen.pop(key, None) for key in ("objective", "samples", "pairing"))
    return fit(trained or objective(), samples() if data is None else data, pairs or pairing(), out=out, **chosen)


def weights_hash(run: Path) -> str:
    """sha256 of the weights in the newest checkpoint of a run."""
    newest = listed(run / FOLDER)[-1]
    return hashlib.sha256((newest / WEIGHTS).read_bytes()).hexdigest()


def heed_signals() -> None:
    """Handlers as a process started in a terminal has them: one started in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def train_here(out: str, options: dict[str, Any], slow: float = 0.0) -> None:
    """For a process of its own: ends with the exit code of the command line; each step takes `slow` seconds longer."""
    torch.set_num_threads(1)
    heed_signals()
    views = pairing()

    class Slow(Pairing):
        def __call__(self, batch: Tensor, draws: Draws, aspect: Tensor | None = None) -> Pair:
            for _ in range(
                round(slow / 0.005)
            ):  # a step is many short calls, and signals are handled between two of them
                time.sleep(0.005)
            return views(batch, draws, aspect)

        def plain(self, batch: Tensor, aspect: Tensor | None = None) -> Tensor:
            return views.plain(batch, aspect)

    try:
        train(Path(out), pairing=Slow(), **options)
    except AccordError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def processes() -> multiprocessing.context.ForkServerContext:
    """Processes that start in milliseconds: they are forked from one that has imported everything and done nothing."""
    here = str(Path(__file__).parent)
    if here not in sys.path:
        sys.path.insert(0, here)  # where a process looks for this module
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accord.train.fit", "accord.objective.principles", "torch._dynamo"])
    return context
