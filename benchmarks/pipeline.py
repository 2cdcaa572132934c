"""Views per second against per-sample augmentation, training speed against the bare model, and whether both kinds train as well.

    python benchmarks/pipeline.py [--sizes 32 64 96 224] [--encoder NAME] [--repeats 9] [--threads 1] [--quality] [--out pipeline.json]

What is compared takes turns, so that a busy machine slows all alike: read the ratios (medians over turns). The per-sample side is
the recipe of torchvision's transforms written with Pillow, once operation by operation as torchvision does it, once tuned (resize
with a box, all colour operations in one 3 x 4 matrix): torchvision itself cannot be imported beside a CPU build of torch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor, nn

from accord import build, build_encoder, presets, recipe_toml
from accord.data.augment import Augmentation, augment
from accord.data.colour import hue_basis
from accord.data.loader import Loader
from accord.data.pair import Pair
from accord.data.pairing import Pairing, TwoViews, two_views
from accord.data.random import Draws
from accord.data.samples import ArrayStore, Samples, split
from accord.data.sources import open_source
from accord.evaluate.features import extract
from accord.evaluate.probe import Labelled, linear_probe
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.multiscale import MultiScale
from accord.model.predictor import IdentityPredictor
from accord.model.projector import Projector
from accord.objective.loss import Objective
from accord.objective.principles import regularized
from accord.train.device import choose_device
from accord.train.optim import parameter_groups
from accord.train.step import Guard, train_step

CROP_COLOUR = Augmentation.photo()
ALL = replace(CROP_COLOUR, blur=0.5, blur_sigma=(0.1, 2.0), solarise=0.1)
BASIS = np.array(hue_basis())
CANVAS = {224: 280}
"""Side of the stored image where it is not that of the view."""


# --- one sample at a time ---


def box(rng: random.Random, side: int, a: Augmentation) -> tuple[int, int, int, int]:
    """RandomResizedCrop.get_params of torchvision for a square image."""
    for _ in range(10):
        area = side * side * rng.uniform(*a.scale)
        ratio = math.exp(rng.uniform(math.log(a.ratio[0]), math.log(a.ratio[1])))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= side and 0 < height <= side:
            left, top = rng.randint(0, side - width), rng.randint(0, side - height)
            return left, top, left + width, top + height
    return 0, 0, side, side


def crop(image: Image.Image, rng: random.Random, a: Augmentation, size: int) -> Image.Image:
    image = image.resize((size, size), Image.Resampling.BILINEAR, box(rng, image.width, a))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < a.flip else image


def shift_hue(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    shifted = np.asarray(hue) + np.uint8(int(turn * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


def jitter(image: Image.Image, rng: random.Random, a: Augmentation) -> Image.Image:
    """Operation by operation, in random order, then greyscale."""
    if rng.random() < a.jitter:
        operations: list[Callable[[Image.Image], Image.Image]] = [
            lambda i: ImageEnhance.Brightness(i).enhance(rng.uniform(1 - a.brightness, 1 + a.brightness)),
            lambda i: ImageEnhance.Contrast(i).enhance(rng.uniform(1 - a.contrast, 1 + a.contrast)),
            lambda i: ImageEnhance.Color(i).enhance(rng.uniform(1 - a.saturation, 1 + a.saturation)),
        ]
        if a.hue:
            operations.append(lambda i: shift_hue(i, rng.uniform(-a.hue, a.hue)))
        rng.shuffle(operations)
        for operation in operations:
            image = operation(image)
    return image.convert("L").convert(image.mode) if rng.random() < a.grey else image


def jitter_at_once(image: Image.Image, rng: random.Random, a: Augmentation) -> Image.Image:
    """The composed matrix, applied by Pillow."""
    on = rng.random() < a.jitter
    b, c, s, h = (on * rng.uniform(-bound, bound) for bound in (a.brightness, a.contrast, a.saturation, a.hue))
    keep = 0.0 if rng.random() < a.grey else 1 + s
    luma, even, odd = BASIS
    turn = 2 * math.pi * h
    linear = (1 + b) * (1 + c) * (luma + keep * math.cos(turn) * even + keep * math.sin(turn) * odd)
    shift = -(1 + b) * c * float(np.asarray(image.convert("L")).mean())
    return image.convert("RGB", tuple(np.c_[linear, [shift] * 3].ravel().tolist()))


def view(picture: Image.Image, rng: random.Random, a: Augmentation, size: int, *, tuned: bool) -> np.ndarray:
    """One view of one image, (C, H, W) float32 in [0, 1]."""
    picture = crop(picture, rng, a, size)
    picture = (jitter_at_once if tuned else jitter)(picture, rng, a)
    if a.blur and rng.random() < a.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(*a.blur_sigma)))
    if a.solarise and rng.random() < a.solarise:
        picture = ImageOps.solarize(picture, 128)
    planes = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)
    return np.multiply(planes, np.float32(1 / 255), dtype=np.float32)


def picture_of(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


class PerSample(Pairing):
    """Two views of each sample, one sample at a time."""

    def __init__(self, augmentation: Augmentation, size: int, *, tuned: bool = True):
        self.augmentation, self.size, self.tuned = augmentation, size, tuned

    def __call__(self, batch: Tensor, draws: Draws, aspect: Tensor | None = None) -> Pair:
        seeds = draws.bits("seed", 2).tolist()
        views = [
            [view(picture_of(i), random.Random(s[k]), self.augmentation, self.size, tuned=self.tuned) for k in (0, 1)]
            for i, s in zip(batch.numpy(), seeds, strict=True)
        ]
        stacked = torch.from_numpy(np.array(views))
        return Pair(stacked[:, 0].contiguous(), stacked[:, 1].contiguous())

    def plain(self, batch: Tensor, aspect: Tensor | None = None) -> Tensor:
        return two_views(self.augmentation).plain(batch, aspect)


# --- speed ---


def seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def take_turns(
    runs: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each run in each turn, after one that is not counted."""
    turns = [{name: seconds(run, clock) for name, run in runs.items()} for _ in range(repeats + 1)][1:]
    return {name: [turn[name] for turn in turns] for name in runs}


def photographs(n: int, side: int) -> np.ndarray:
    """Smooth random images, (n, 3, side, side) uint8: the speed does not depend on what they show."""
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (smooth * 255).to(torch.uint8).numpy()


def compare_views(size: int, repeats: int) -> list[dict[str, Any]]:
    """Views per second of processor time (of all threads together), batched and one by one; both end as float32 batches."""
    n = max(16, min(512, 2**19 // size**2))
    few = max(8, n // 8)
    images = photographs(n, CANVAS.get(size, size))
    batch, draws = torch.from_numpy(images), Draws(0, 0, torch.arange(n))
    pictures = [picture_of(image) for image in images[:few]]
    results = []
    for name, a in (("crop, flip, colour", CROP_COLOUR), ("and blur, solarise", ALL)):
        rng = random.Random(0)
        runs: dict[str, Callable[[], object]] = {
            "batched": lambda a=a: augment(batch, draws, a, size),
            "tuned": lambda a=a, rng=rng: np.stack([view(i, rng, a, size, tuned=True) for i in pictures]),
            "torchvision": lambda a=a, rng=rng: np.stack([view(i, rng, a, size, tuned=False) for i in pictures]),
        }
        times = take_turns(runs, repeats, time.process_time)
        rates = {key: [(n if key == "batched" else few) / t for t in times[key]] for key in times}
        result: dict[str, Any] = {"size": size, "canvas": images.shape[-1], "recipe": name}
        result |= {f"{key}_views_per_second": statistics.median(rates[key]) for key in rates}
        for other in ("tuned", "torchvision"):
            ratios = [a / b for a, b in zip(rates["batched"], rates[other], strict=True)]
            result[f"times_{other}"] = statistics.median(ratios)
        results.append(result)
    return results


def built(encoder: str | None, side: int) -> tuple[Objective, TwoViews, Any, int]:
    """Objective, pairing, optimiser settings and batch size of the recipe for photographs, with another encoder if one is named."""
    data = {"source": "benchmark", "kind": "image", "shape": [3, side, side], "canvas": side}
    table = recipe_toml.merge(presets.PRESETS["photo"], {"data": data})
    if encoder is not None:
        table["encoder"] = {"name": encoder}
    recipe = recipe_toml.parse(table)
    objective = build.objective(recipe, build_encoder.placeholder([3, side, side]))
    return objective, build.pairing(recipe), build.optimizer(recipe), recipe.training.batch_size


def in_memory(images: np.ndarray) -> Samples:
    n = len(images)
    content = np.arange(n, dtype=np.uint64)
    keys = [str(i) for i in range(n)]
    return Samples(
        name="random", kind="image", store=ArrayStore(images), keys=keys, content=content, ok=np.ones(n, bool)
    )


def compare_training(encoder: str | None, repeats: int, size: int | None, side: int = 32) -> dict[str, Any]:
    """Steps of training, data included, against forward and backward of the same model on views that are at hand."""
    objective, pairing, settings, batch_size = built(encoder, side)
    pairing = replace(pairing, size=size) if size else pairing
    loader = Loader(in_memory(photographs(4096, side)), np.arange(4096), batch_size=batch_size, seed=0)
    batches = loader.batches(0, 10**9)
    optimizer = settings.build(parameter_groups(objective, 1e-4))
    guard, device = Guard(objective, optimizer), choose_device("cpu")
    ready = pairing(next(batches).data, Draws(0, 0, torch.arange(batch_size)))
    backbone = objective.model.encoder_x.backbone

    def views() -> Pair:
        batch = next(batches)
        return pairing(batch.data, Draws(0, batch.epoch, batch.index), batch.aspect)

    def bare_encoder() -> None:
        sum(backbone(v).sum() for v in (ready.x, ready.y)).backward()

    def bare_objective() -> None:
        objective(ready).total.backward()

    runs: dict[str, Callable[[], object]] = {
        "data": views,
        "encoder": bare_encoder,
        "objective": bare_objective,
        "step": lambda: train_step(objective, optimizer, ready, guard, device),
        "training": lambda: train_step(objective, optimizer, views(), guard, device),
    }
    waited = loader.waited
    times = take_turns(runs, repeats)
    waited = loader.waited - waited
    batches.close()
    medians = {name: statistics.median(each) for name, each in times.items()}
    share = {
        f"share_of_{name}": statistics.median(b / t for b, t in zip(times[name], times["training"], strict=True))
        for name in ("encoder", "objective", "step")
    }
    return {
        "encoder": encoder or "default",
        "size": ready.x.shape[-1],
        "batch_size": batch_size,
        "milliseconds": {name: 1e3 * t for name, t in medians.items()},
        "samples_per_second": batch_size / medians["training"],
        **share,
        "data_share": medians["data"] / medians["training"],
        "waiting": waited / sum(times["training"] + times["data"]),
    }


# --- quality ---


def subset() -> tuple[Samples, Augmentation, str]:
    """CIFAR-10's test file if real data are at hand, else the digits."""
    folder = os.environ.get("ACCORD_DATA")
    if folder and (Path(folder) / "cifar10" / "test.parquet").is_file():
        return open_source(Path(folder) / "cifar10" / "test.parquet"), CROP_COLOUR, "CIFAR-10, 10,000 images"
    writing = Augmentation(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), brightness=0.3, contrast=0.3)
    return open_source("digits"), writing, "digits"


def small_model(channels: int) -> Objective:
    backbone = MultiScale(channels, stem_width=32, stem_kernel=4, stem_stride=2, widths=(64, 128), pool_grids=(2, 2, 1))
    encoder = Encoder(backbone, Projector(backbone.feature_dim, 256, hidden=(256,)), sample_ndim=3)
    return regularized(JointEmbedding(encoder, encoder, IdentityPredictor()))


def probe_after(samples: Samples, pairing: Pairing, seed: int, steps: int) -> float:
    """Linear probe of a small model trained for some steps."""
    train, held_out = split(samples, 0.3, 0)
    torch.manual_seed(seed)
    objective = small_model(samples.shape[0])
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(1, steps), pct_start=0.1)
    for batch in Loader(samples, train, batch_size=128, seed=seed).batches(0, steps):
        optimizer.zero_grad()
        objective(pairing(batch.data, Draws(seed, batch.epoch, batch.index), batch.aspect)).total.backward()
        optimizer.step()
        schedule.step()
    assert samples.labels is not None
    parts = [
        Labelled(extract(objective.model.encoder_x, samples, i, pairing).features, torch.from_numpy(samples.labels[i]))
        for i in (train, held_out)
    ]
    return linear_probe(*parts, len(samples.classes), seed=0)


def compare_quality(seeds: int, steps: int) -> dict[str, Any]:
    """The same model, data, order and number of steps; only the augmentation differs."""
    samples, a, name = subset()
    side = samples.shape[-1]
    size = side if side < 20 else 20
    kinds = {"batched": two_views(a, size=size, plain_size=side), "per_sample": PerSample(a, size, tuned=False)}
    found = {kind: [probe_after(samples, p, s, steps) for s in range(seeds)] for kind, p in kinds.items()}
    untrained = probe_after(samples, kinds["batched"], 0, 0)
    differences = [b - p for b, p in zip(found["batched"], found["per_sample"], strict=True)]
    spread = statistics.stdev(differences) / math.sqrt(seeds) if seeds > 1 else math.nan
    return {
        "data": name,
        "steps": steps,
        **found,
        "untrained": untrained,
        "difference": statistics.mean(differences),
        "standard_error": None if math.isnan(spread) else spread,
    }


# --- the table ---


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 64, 96, 224])
    parser.add_argument("--encoder", help="an encoder's name in recipes; by default that of the recipe for photographs")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quality", action="store_true", help="train by both kinds of augmentation, 1 to 3 minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    report: dict[str, Any] = {"format": 1, "torch": torch.__version__, "threads": options.threads}
    report |= {"machine": platform.machine(), "views": [], "training": []}
    if options.sizes:
        print("views per second of one core" + " " * 11 + "batched | per sample: tuned, torchvision-style")
    for size in options.sizes:
        for r in compare_views(size, options.repeats):
            report["views"].append(r)
            print(
                f"{size:4d} px  {r['recipe']:20s} {r['batched_views_per_second']:13,.0f} | {r['tuned_views_per_second']:10,.0f} "
                f"({r['times_tuned']:.1f} x faster) {r['torchvision_views_per_second']:8,.0f} ({r['times_torchvision']:.1f} x)"
            )
    sizes = [None, 32] if built(options.encoder, 32)[1].size not in (None, 32) else [None]
    for view_size in sizes if options.sizes else []:
        t = compare_training(options.encoder, options.repeats, view_size)
        report["training"].append(t)
        print(
            f"training, encoder {t['encoder']}, {t['size']} px: {t['samples_per_second']:,.0f} samples/s = "
            f"{t['share_of_objective']:.1%} of the bare objective, {t['share_of_encoder']:.1%} of the bare encoder "
            f"(forward + backward), {t['share_of_step']:.1%} of steps on ready views; data {t['data_share']:.1%} of the time, "
            f"waiting {t['waiting']:.2%}"
        )
    if options.quality:
        q = report["quality"] = compare_quality(options.seeds, options.steps)
        print(
            f"linear probe after {q['steps']} steps, {q['data']}: batched {statistics.mean(q['batched']):.1%}, "
            f"per sample {statistics.mean(q['per_sample']):.1%}, untrained {q['untrained']:.1%}; "
            f"difference {q['difference']:+.2%} ± {q['standard_error'] or 0:.2%} (standard error, {options.seeds} seeds)"
        )
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
