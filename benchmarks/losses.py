"""Time and peak memory, forward and backward, of the regularizers against the textbook forms they replace.

    python benchmarks/losses.py [--repeats 7] [--threads 1] [--out losses.json]

Runs of both forms alternate, so that a busy machine slows both alike: read the ratio (median over pairs of runs).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from accord.model.energy import Energy, squared_error
from accord.model.latent import Deterministic
from accord.model.minimize import Enumerate
from accord.model.predictor import IdentityPredictor
from accord.objective.loss import Inference, Terms
from accord.objective.principles import barlow_twins, sigreg, vicreg
from accord.objective.slices import directions

Loss = Callable[[Tensor, Tensor], Tensor]


def shipped(terms: Terms) -> Loss:
    """The terms of a principle on two embeddings, as training evaluates them."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        energy = Energy(x, y, predictor=IdentityPredictor(), cost=squared_error, latent=Deterministic())
        minimizer = Enumerate()
        inference = Inference(energy, minimizer(energy), minimizer)
        return torch.stack([weight * term(inference) for weight, term in terms.values()]).sum()

    return loss


def vicreg_textbook(x: Tensor, y: Tensor) -> Tensor:
    """25/25/1 through the D x D covariance, as in the paper's listing."""

    def off_diagonal(s: Tensor) -> Tensor:
        centred = s - s.mean(0)
        c = centred.T @ centred / (len(s) - 1)
        return (c - torch.diag(c.diagonal())).square().sum() / s.shape[1]

    def hinge(s: Tensor) -> Tensor:
        return torch.relu(1 - (s.var(0) + 1e-4).sqrt()).mean()

    return 25 * (x - y).square().mean() + 12.5 * (hinge(x) + hinge(y)) + off_diagonal(x) + off_diagonal(y)


def barlow_textbook(x: Tensor, y: Tensor) -> Tensor:
    """Lambda 0.005 through the D x D cross-correlation, as in the paper's listing."""
    u, v = ((s - s.mean(0)) / (s.var(0, correction=0) + 1e-5).sqrt() for s in (x, y))
    c = u.T @ v / len(x)
    difference = (c - torch.eye(len(c))).square()
    diagonal = difference.diagonal().sum()
    return diagonal + 0.005 * (difference.sum() - diagonal)


def sigreg_textbook(x: Tensor, y: Tensor) -> Tensor:
    """Lambda 0.05; the same quadrature with complex exponentials on the full line, 33 knots on [-3, 3]; fresh slices."""
    a = directions(x.shape[1], 1024, 0)
    t = torch.linspace(-3, 3, 33)
    gauss = torch.exp(-(t**2) / 2)

    def statistic(s: Tensor) -> Tensor:
        phi = torch.exp(1j * (s @ a)[..., None] * t).mean(0)
        return len(s) * torch.trapezoid((phi - gauss).abs().square() * gauss, t).mean()

    return 0.95 / 4 * (x - y).square().mean() + 0.05 * (statistic(x) + statistic(y)) / 2


def frozen_sigreg() -> Terms:
    """SIGReg whose slices stay those of step 0, drawn anew at each call, to compare values."""
    terms = sigreg()
    for _, term in terms.values():
        if isinstance(term, torch.nn.Module):
            term.eval()
    return terms


CASES: dict[str, tuple[Loss, Loss, int, int]] = {
    "VICReg, n=256, d=4096": (shipped(vicreg()), vicreg_textbook, 256, 4096),
    "Barlow Twins, n=256, d=4096": (shipped(barlow_twins()), barlow_textbook, 256, 4096),
    "SIGReg, n=256, d=64": (shipped(frozen_sigreg()), sigreg_textbook, 256, 64),
    "VICReg, n=256, d=128": (shipped(vicreg()), vicreg_textbook, 256, 128),
}


class Peak(TorchDispatchMode):
    """Largest number of bytes in tensors alive at one time, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {t.untyped_storage()._cdata for t in _tensors(args)}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in known | self.alive:
                self.alive.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [t for item in tree for t in _tensors(item)] if isinstance(tree, list | tuple) else []


def forward_backward(loss: Loss, n: int, d: int) -> tuple[float, Tensor]:
    """Seconds and the value."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator)
    y = x + 0.3 * torch.randn(n, d, generator=generator)
    x.requires_grad_()
    y.requires_grad_()
    start = time.perf_counter()
    value = loss(x, y)
    value.backward()
    return time.perf_counter() - start, value.detach()


def peak_bytes(loss: Loss, n: int, d: int) -> int:
    with Peak() as peak:
        forward_backward(loss, n, d)
    return peak.most - 4 * 4 * n * d  # not the inputs and their gradients


def compare(name: str, repeats: int) -> dict[str, Any]:
    ours, textbook, n, d = CASES[name]
    values = [forward_backward(loss, n, d)[1].item() for loss in (ours, textbook)]
    pairs = [(forward_backward(ours, n, d)[0], forward_backward(textbook, n, d)[0]) for _ in range(repeats)]
    memory = [peak_bytes(loss, n, d) for loss in (ours, textbook)]
    return {
        "case": name,
        "milliseconds": 1e3 * statistics.median(a for a, _ in pairs),
        "textbook_milliseconds": 1e3 * statistics.median(b for _, b in pairs),
        "times_faster": statistics.median(b / a for a, b in pairs),
        "megabytes": memory[0] / 1e6,
        "textbook_megabytes": memory[1] / 1e6,
        "times_smaller": memory[1] / memory[0],
        "relative_difference": abs(values[0] - values[1]) / abs(values[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for name in CASES:
        results.append(compare(name, options.repeats))
        r = results[-1]
        print(
            f"{name:28s} {r['milliseconds']:8.1f} ms, textbook {r['textbook_milliseconds']:8.1f} ms: "
            f"{r['times_faster']:5.1f} x faster | {r['megabytes']:7.1f} MB, textbook {r['textbook_megabytes']:7.1f} MB: "
            f"{r['times_smaller']:5.1f} x smaller | values differ by {r['relative_difference']:.1e}"
        )
    if options.out is not None:
        machine = {"torch": torch.__version__, "threads": options.threads, "machine": platform.machine()}
        options.out.write_text(json.dumps({"format": 1, **machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
