"""Time and peak memory of every loss, forward and backward, against batch size, dimensions, views and processes.

    python benchmarks/cost.py [--repeats 3] [--out build/cost.json] [--picture docs/assets/cost.png]

Seconds are those of the processor, of one thread: on a shared machine they are steadier than those of the clock. Slopes are fitted to
the last points of a sweep, log against log, and stand beside what the mathematics says. The global batch is the same for any number of
processes (gloo on one machine), and figures are of the process that took most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from accord import presets
from accord.build_objective import COSTS, PRINCIPLES
from accord.model.centred import CentredDivergence
from accord.model.energy import Cost, Energy, squared_error
from accord.model.latent import Deterministic
from accord.model.matching import LocalMatching
from accord.model.minimize import Enumerate
from accord.model.predictor import IdentityPredictor
from accord.objective.contrastive import info_nce
from accord.objective.loss import Inference, Terms
from accord.objective.negatives import Mined, Sampled
from accord.objective.principles import visreg
from losses import Peak

N, D = 512, 64
"""Where n or d stand still."""
SWEEPS: dict[str, tuple[int, ...]] = {
    "n": (128, 256, 512, 1024, 2048),
    "d": (64, 128, 256, 512, 1024),
    "views": (1, 2, 4, 8),
    "ranks": (1, 2, 4),
}
WIDE_N = 128
"""The batch where d grows: most losses then work on the side of the rows, whose cost is linear in d."""
LAST = 3
"""Points a slope is fitted to."""


class Slopes(NamedTuple):
    """What the mathematics says: the exponents of time in n (n > d), d (d > n), views and processes, and of memory in n."""

    n: float = 1
    d: float = 1
    views: float = 1
    ranks: float = -1
    memory: float = 1


CONTRASTIVE = Slopes(n=2, memory=2)
SORTED = Slopes(ranks=0)
"""Every process sorts the projections of all rows."""
EXPECTED: dict[str, Slopes] = {
    "visreg": SORTED,
    "rdmreg": SORTED,
    "mmcr": Slopes(ranks=0, views=1),
    "align_uniform": CONTRASTIVE,
    **dict.fromkeys(("info_nce", "dcl", "siglip", "triplet", "siamese", "square_square"), CONTRASTIVE),
    **dict.fromkeys(("logistic", "spectral", "info_nce, hardest 16"), CONTRASTIVE),
}
FAMILIES = {
    "regularised": ("vicreg", "vicregl", "barlow_twins", "sigreg", "visreg", "rdmreg", "mmcr", "coding_rate"),
    "contrastive": (
        "info_nce",
        "dcl",
        "siglip",
        "triplet",
        "siamese",
        "square_square",
        "logistic",
        "spectral",
        "align_uniform",
        "info_nce, hardest 16",
        "info_nce, 16 at random",
    ),
    "given y": ("contrastive_divergence", "score_matching"),
    "distilled": ("byol", "dino"),
}
"""simsiam and jepa are, like byol, the energy alone. Rivals that make y pay for a decoder, not for a loss."""
COLOURS = {"regularised": "#1f5fa8", "contrastive": "#b4452c", "given y": "#6b7a1e", "distilled": "#5b4a8a"}


def terms_of(name: str) -> Terms:
    match name:
        case "info_nce, hardest 16":
            return info_nce(negatives=Mined(16, mode="hardest"))
        case "info_nce, 16 at random":
            return info_nce(negatives=Sampled(16))
        case "visreg":
            return visreg(slices=1024)  # as many as SIGReg has; the default is 4,096
        case _:
            return PRINCIPLES[name]()


def cost_of(name: str, dim: int) -> Cost:
    if name == "dino":
        return CentredDivergence(dim)
    if name == "vicregl":
        return LocalMatching(dim // 2, positions=16, matches=6)
    principle = name.partition(",")[0]
    known: str = presets.GOES_WITH.get(principle, {}).get("cost", "squared_error")
    return COSTS.get(known, squared_error)


def loss_of(name: str, dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The weighted terms of a principle of two embeddings, as training evaluates them."""
    terms, cost, minimizer = terms_of(name), cost_of(name, dim), Enumerate()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        energy = Energy(x, y, predictor=IdentityPredictor(), cost=cost, latent=Deterministic())
        inference = Inference(energy, minimizer(energy), minimizer)
        return torch.stack([weight * term(inference) for weight, term in terms.values()]).sum()

    return loss


def inputs(n: int, d: int, views: int, rank: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    y = torch.randn(n, d, generator=generator)
    x = y + 0.3 * torch.randn(views, n, d, generator=generator)
    return (x[0] if views == 1 else x).requires_grad_(), y.requires_grad_()


def measured(name: str, n: int, d: int, views: int, repeats: int, rank: int = 0) -> tuple[float, int]:
    """Seconds of the processor, the least of some runs, and bytes beside the inputs and their gradients."""
    loss = loss_of(name, d)

    def once() -> float:
        x, y = inputs(n, d, views, rank)
        start = time.process_time()
        loss(x, y).backward()
        return time.process_time() - start

    once()
    seconds = min(once() for _ in range(repeats))
    with Peak() as peak:
        once()
    return seconds, peak.most - 2 * 4 * n * d * (1 + views)


def sweep(axis: str, name: str, repeats: int) -> list[tuple[float, float]]:
    found = []
    for value in SWEEPS[axis]:
        size = {"n": N, "d": D, "views": 1, axis: value}
        n = WIDE_N if axis == "d" else 256 if axis == "views" else size["n"]
        found.append(measured(name, n, size["d"], size["views"], repeats))
    return found


def process(rank: int, size: int, port: int, names: list[str], repeats: int, out: Any) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, size, rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    for name in names:
        most = torch.tensor(measured(name, N // size, D, 1, repeats, rank), dtype=torch.float64)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        if rank == 0:
            out.put((name, tuple(most.tolist())))
    dist.destroy_process_group()


def by_processes(size: int, names: list[str], repeats: int) -> dict[str, tuple[float, float]]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["losses", "accord.build_objective"])
    out = context.SimpleQueue()
    started = [context.Process(target=process, args=(r, size, port, names, repeats, out)) for r in range(size)]
    for one in started:
        one.start()
    found = dict(out.get() for _ in names)
    for one in started:
        one.join()
    return found


def slope(at: tuple[int, ...], values: list[float]) -> float:
    """Of a straight line through the last points, log against log."""
    return float(np.polyfit(np.log(at[-LAST:]), np.log(np.maximum(values[-LAST:], 1)), 1)[0])


def slopes(results: dict[str, dict[str, list[tuple[float, float]]]]) -> dict[str, dict[str, float]]:
    """By principle and axis, and of memory in n."""
    table = {}
    for name, axes in results.items():
        table[name] = {axis: slope(SWEEPS[axis], [1e9 * s for s, _ in points]) for axis, points in axes.items()}
        table[name]["memory"] = slope(SWEEPS["n"], [m for _, m in axes["n"]])
    return table


def table_of(found: dict[str, dict[str, float]]) -> str:
    """Markdown: the measured slope and, in brackets, what the mathematics says."""
    keys = {"n": "time in n", "d": "in d", "views": "in views", "ranks": "in processes", "memory": "memory in n"}
    rows = ["| | " + " | ".join(keys.values()) + " |", "|---" * (len(keys) + 1) + "|"]
    for name, values in found.items():
        expected = EXPECTED.get(name, Slopes())._asdict()
        rows.append(f"| {name} | " + " | ".join(f"{values[k]:.2f} ({expected[k]:g})" for k in keys) + " |")
    return "\n".join(rows)


def draw(results: dict[str, dict[str, list[tuple[float, float]]]], found: dict[str, Any], path: Path) -> None:
    titles = {
        "n": f"batch n, d = {D}",
        "d": f"dimensions d, n = {WIDE_N}",
        "views": f"views of x, n = 256, d = {D}",
        "ranks": f"processes, n = {N} in all",
    }
    figure, panels = plt.subplots(2, 4, figsize=(15, 8.5), sharey="row", constrained_layout=True)
    styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))]
    marks = "os^vDP"
    for family, names in FAMILIES.items():
        for k, name in enumerate(names):
            style = {"color": COLOURS[family], "linestyle": styles[k % 6], "marker": marks[k % 6], "markersize": 3.5}
            expected, slopes_of = EXPECTED.get(name, Slopes()), found[name]
            label = f"{name}: n {slopes_of['n']:.1f} ({expected.n:g}), d {slopes_of['d']:.1f} ({expected.d:g})"
            for column, axis in enumerate(SWEEPS):
                seconds, memory = zip(*results[name][axis], strict=True)
                panels[0][column].plot(SWEEPS[axis], 1e3 * np.array(seconds), linewidth=1.1, label=label, **style)
                panels[1][column].plot(SWEEPS[axis], np.maximum(memory, 1e3) / 1e6, linewidth=1.1, **style)
    for column, axis in enumerate(SWEEPS):
        for row, unit in enumerate(("milliseconds of the processor", "megabytes, peak")):
            panel = panels[row][column]
            panel.set(xscale="log", yscale="log", xlabel=titles[axis])
            panel.set_xticks(SWEEPS[axis], [str(v) for v in SWEEPS[axis]])
            panel.minorticks_off()
            panel.grid(alpha=0.25)
            if not column:
                panel.set_ylabel(unit)
    lines, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        lines,
        labels,
        loc="outside lower center",
        ncols=3,
        fontsize=8.5,
        title="slope of time, measured (and by the formula)",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    with Image.open(path) as image:
        image.convert("RGB").quantize(64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/cost.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/assets/cost.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for members in FAMILIES.values() for name in members]
    results: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name in names:
        results[name] = {axis: sweep(axis, name, options.repeats) for axis in ("n", "d", "views")}
        print(name, *(f"{1e3 * s:.1f} ms" for s, _ in results[name]["n"]), flush=True)
    together = [by_processes(size, names, options.repeats) for size in SWEEPS["ranks"]]
    for name in names:
        results[name]["ranks"] = [one[name] for one in together]
    found = slopes(results)
    print(table_of(found))
    machine = {"torch": torch.__version__, "threads": 1, "machine": platform.machine()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    expected = {name: EXPECTED.get(name, Slopes())._asdict() for name in names}
    body = {"format": 1, **machine, "sweeps": SWEEPS, "results": results, "slopes": found, "expected": expected}
    options.out.write_text(json.dumps(body, indent=1) + "\n")
    draw(results, found, options.picture)


if __name__ == "__main__":
    main()
