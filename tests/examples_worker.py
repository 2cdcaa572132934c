"""One of several processes that run an example: the loss and the gradient of its first step, the loss of the next, and weights that follow.

python examples_worker.py EXAMPLE FOLDER, started by torchrun, or alone.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

import accord

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Double(nn.Module):
    """Views are float32; what is compared is computed in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double().flatten(1)


def objective(kind: str) -> accord.Objective:
    """In float64: a principle of the batch, or one with a teacher that follows."""
    torch.manual_seed(0)
    backbone = nn.Sequential(Double(), nn.Linear(64, 32), accord.BatchNorm1d(32), nn.ReLU())
    encoder = accord.Encoder(backbone, accord.Projector(32, 16, hidden=(32,)), sample_ndim=3)
    if kind == "teacher":
        teacher = accord.MovingAverage(encoder)
        model = accord.JointEmbedding(encoder, teacher, accord.MLPPredictor(dim=16), cost=accord.cosine)
        return accord.distilled(model).double()
    return accord.regularized(accord.JointEmbedding(encoder, encoder, accord.IdentityPredictor())).double()


def main(example: str, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    module, several = load(example), "RANK" in os.environ
    if example == "own_loop" and several:
        dist.init_process_group("gloo")
    for kind in ("batch", "teacher"):
        trained, found = objective(kind), {}
        found["losses"] = np.array(module.train(trained, 1))
        found |= {f"gradient {n}": p.grad.numpy() for n, p in trained.named_parameters() if p.grad is not None}
        found |= {f"value {n}": v.numpy() for n, v in trained.state_dict().items()}
        np.savez(Path(folder) / f"{kind}-{os.environ.get('RANK', 'one')}.npz", **found)
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()
    waiting = [path for path in Path("/proc/self/task").glob("*/comm") if path.read_text().startswith("pt_gloo")]
    assert not waiting, "a thread of gloo that lets go of a tensor while the interpreter ends aborts the process"


if __name__ == "__main__":
    main(*sys.argv[1:])
