"""Microseconds per pair of F for each minimiser, against K bare calls of the predictor in one batch; memory of n x n energies.

    python benchmarks/inference.py [--repeats 9] [--threads 1] [--out inference.json] [--device cpu]

n = 256 pairs, dim 128, z of width 8, K = 64. The yardstick is the predictor alone on the same K values of z for all pairs, one batch:
forward without gradient, or forward and backward of the mean of what it predicts. Runs of a variant alternate with runs of the
yardstick, so that a busy machine slows both alike: read the ratio (median over pairs of runs).
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.model.amortize import Amortize, Recognition
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian, Sparse
from accord.model.coordinate import Coordinate
from accord.model.descend import Descend
from accord.model.energy import Energy, squared_error
from accord.model.langevin import Langevin
from accord.model.latent import Latent
from accord.model.minimize import BestOf, Enumerate, Minimizer
from accord.model.predictor import DictionaryPredictor, MLPPredictor, Predictor
from accord.model.sparse_coding import Ista, Lista
from accord.model.variational import Variational

N, DIM, K, WIDTH, TARGET = 256, 128, 64, 8, 1.3
CROSS, CODES = 4096, (1, 64, 4096)
ADAM = functools.partial(torch.optim.Adam, lr=0.1)


def energy_of(latent: Latent, predictor: Predictor, device: torch.device, n: int = N) -> Energy:
    g = torch.Generator().manual_seed(0)
    s_x, s_y = (torch.randn(n, DIM, generator=g).to(device).requires_grad_() for _ in range(2))
    return Energy(s_x, s_y, predictor=predictor.to(device), cost=squared_error, latent=latent.to(device))


def variants() -> dict[str, tuple[Latent, Minimizer]]:
    codes, rows = Codebook(K, WIDTH), Codebook(8, WIDTH // 2, blocks=2)
    sparse = Sparse(WIDTH)
    return {
        "Enumerate": (codes, Enumerate()),
        "Enumerate, beta 10": (codes, Enumerate(10.0)),
        "Enumerate, conditional prior": (ConditionalPrior(Codebook(K, WIDTH), DIM), Enumerate()),
        "Coordinate, 8 x 8, 4 starts": (rows, Coordinate().eval()),
        "BestOf, 64 draws": (Gaussian(WIDTH), BestOf(K).eval()),
        "Descend, 12 Gauss-Newton, 4 starts": (Gaussian(WIDTH), Descend().eval()),
        "Descend, 50 Adam, 4 starts": (Gaussian(WIDTH), Descend(50, optimizer=ADAM).eval()),
        "Amortize": (Gaussian(WIDTH), Amortize(Recognition(DIM, WIDTH))),
        "Amortize, 1 Gauss-Newton": (
            Gaussian(WIDTH),
            Amortize(Recognition(DIM, WIDTH), refine=Descend(1, restarts=0)),
        ),
        "Variational, 2 draws": (Gaussian(WIDTH), Variational(Recognition(DIM, 2 * WIDTH))),
        "Ista, 100 (linear)": (sparse, Ista()),
        "Fista, 100 (linear)": (sparse, Ista(accelerated=True)),
        "Lista, 4 (linear)": (sparse, Lista(DictionaryPredictor(DIM, WIDTH), sparse)),
        "Langevin, 64 x 32 x 2": (Gaussian(WIDTH), Langevin(10.0).eval()),
    }


def bare(energy: Energy, z: Tensor, *, backward: bool) -> Callable[[], None]:
    def run() -> None:
        if not backward:
            with torch.no_grad():
                energy.predictor(energy.s_x, z)
            return
        energy.predictor(energy.s_x, z).mean().backward()

    return run


def free_energy(minimizer: Minimizer, energy: Energy, *, backward: bool) -> Callable[[], None]:
    def run() -> None:
        if not backward:
            with torch.no_grad():
                minimizer(energy)
            return
        minimizer(energy).value.mean().backward()

    return run


def seconds(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def timed(
    one: Callable[[], None], other: Callable[[], None], repeats: int, device: torch.device
) -> tuple[float, float, float]:
    """Median seconds of both and median of the ratio of neighbouring runs."""
    one(), other()
    pairs = [(seconds(one, device), seconds(other, device)) for _ in range(repeats)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


def speed(repeats: int, device: torch.device) -> list[dict[str, Any]]:
    results = []
    yardstick = energy_of(Codebook(K, WIDTH), MLPPredictor(DIM, WIDTH), device)
    z = torch.randn(K, 1, WIDTH, generator=torch.Generator().manual_seed(1)).to(device)
    for name, (latent, minimizer) in variants().items():
        linear = isinstance(minimizer, Ista | Lista)
        predictor: Predictor = (DictionaryPredictor if linear else MLPPredictor)(DIM, WIDTH)
        energy = energy_of(latent, predictor, device)
        minimizer.to(device)
        row: dict[str, Any] = {"minimizer": name}
        for backward in (False, True):
            a, b, ratio = timed(
                free_energy(minimizer, energy, backward=backward),
                bare(yardstick, z, backward=backward),
                repeats,
                device,
            )
            key = "forward_backward" if backward else "forward"
            row[key] = {"us_per_pair": 1e6 * a / N, "bare_us_per_pair": 1e6 * b / N, "ratio": ratio}
        results.append(row)
        print(
            f"{name:36}"
            + "".join(
                f"{row[k]['us_per_pair']:11.1f} {row[k]['ratio']:8.2f}x" for k in ("forward", "forward_backward")
            ),
            flush=True,
        )
    return results


def cross(codes: int, beta: float, n: int, backward: bool) -> dict[str, float]:
    """Seconds and growth of the peak of this process for n x n energies; run in a process of its own."""
    torch.set_num_threads(1)
    energy = energy_of(Codebook(codes, WIDTH), MLPPredictor(DIM, WIDTH), torch.device("cpu"), n).cross()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = free_energy(Enumerate(beta), energy, backward=backward)
    taken = seconds(run, torch.device("cpu"))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": taken, "peak_mb": (after - before) / 1024, "us_per_pair": 1e6 * taken / n**2}


def memory(n: int) -> list[dict[str, Any]]:
    """Beside the results: n^2 numbers of F, as many places (int64), and the z of each pair."""
    results_mb = n * n * (4 + 8 + 4 * WIDTH) / 2**20
    print(
        f"\nn x n energies, n = {n}: the results alone are {results_mb:.0f} MB; all K at once would be K x {n * n * 4 / 2**20:.0f} MB"
    )
    found = []
    for codes in CODES:
        for beta, backward in ((math.inf, False), (10.0, False), (math.inf, True)):
            if codes == max(CODES) and (backward or beta != math.inf):
                continue  # an hour of arithmetic
            command = [sys.executable, __file__, "--cross", str(codes), str(beta), str(n), str(int(backward))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = {"codes": codes, "beta": beta, "backward": backward, "n": n, **json.loads(done.stdout)}
            found.append(row)
            kind = "forward + backward" if backward else "forward"
            print(
                f"K = {codes:5}, beta {beta:4}, {kind:18} {row['seconds']:8.1f} s {row['us_per_pair']:9.2f} us per pair"
                f" {row['peak_mb']:8.0f} MB",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=CROSS, help="n of the n x n energies; 0 leaves them out")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cross", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cross:
        codes, beta, n, backward = arguments.cross
        print(json.dumps(cross(int(codes), float(beta), int(n), backward == "1")))
        return
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    print(f"n = {N}, dim = {DIM}, K = {K}: us per pair, and the ratio to {K} bare predictor calls in one batch")
    print(f"{'':36}{'forward':>11} {'':>9}{'and backward':>12}")
    rows = speed(arguments.repeats, device)
    enumerate_ratio = rows[0]["forward"]["ratio"]
    print(
        f"Enumerate, forward: {enumerate_ratio:.2f}x, target {TARGET}x: {'met' if enumerate_ratio <= TARGET else 'MISSED'}"
    )
    crossed = memory(arguments.pairs) if arguments.pairs and device.type == "cpu" else []
    if arguments.out:
        name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
        about = {"torch": torch.__version__, "device": name, "threads": arguments.threads, "repeats": arguments.repeats}
        arguments.out.write_text(json.dumps({**about, "speed": rows, "cross": crossed}, indent=2) + "\n")


if __name__ == "__main__":
    main()
