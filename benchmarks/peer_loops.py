"""What benchmarks/peers.py runs in processes of its own: data for all sides, one peer's training loop, probes.

A peer's loop is that of its own example: its transforms, per sample, in a torch DataLoader, its loss, its trainer. Encoder, projector,
initial weights, batch, optimiser and schedule are accord's.
"""

# ruff: noqa: PLC0415 (a peer is imported by its own side only)
from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from accord import build, build_encoder, recipe_toml
from accord.division import divided
from accord.evaluate.probe import Labelled, linear_probe
from accord.model.encoder import Encoder
from accord.resolve import resolve
from accord.run import new_objective, open_like, open_run
from accord.train.optim import parameter_groups
from peer_eb_jepa import eb_jepa_loop
from peer_setting import PHOTO, Course, Pictures, Setting, Task, declare_operators, loader_of

# --- the same data, split and weights for all ---


def prepare(train: str, test: str, seeds: list[int], out: str) -> dict[str, Any]:
    """Decoded images, rows and labels, and the initial weights of each seed: those that accord itself starts from."""
    folder = Path(out)
    recipe, samples = resolve(train, {"data": {"split_seed": 0}}, None)
    images = samples.batch(np.arange(len(samples))).numpy()
    rows, held = divided(recipe, samples)
    np.savez(folder / "train.npz", images=images, label=samples.labels)
    np.save(folder / "pictures.npy", np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    np.savez(folder / "rows.npz", train=rows, held_out=held)
    tested = open_like(recipe, test)
    np.savez(folder / "test.npz", images=tested.batch(np.arange(len(tested))).numpy(), label=tested.labels)
    pairing = build.pairing(recipe)
    for seed in seeds:
        training = recipe.training.model_copy(update={"seed": seed})
        objective = new_objective(recipe.model_copy(update={"training": training}), samples, rows, pairing)
        save(objective.model.encoder_x, folder / f"initial-{seed}.safetensors")
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    return {"rows": len(rows), "held_out": len(held), "test": len(tested)}


def save(encoder: Encoder, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, path)


def encoder_of(data: Path, weights: Path) -> Encoder:
    """accord's encoder and projector with these weights."""
    recipe = recipe_toml.parse(json.loads((data / "recipe.json").read_text()))
    assert recipe.data.shape is not None
    encoder = build.objective(recipe, build_encoder.placeholder(recipe.data.shape)).model.encoder_x
    encoder.load_state_dict(load_file(weights))
    return encoder


# --- a peer's training ---


def lightly_loop(task: Task, common: Setting) -> None:
    """As in lightly's example for VICReg in plain PyTorch; transforms as `Augmentation.photo`, which have no blur and no solarisation."""
    from lightly.loss import VICRegLoss
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(
        input_size=task.size,
        cj_prob=PHOTO.jitter,
        cj_bright=PHOTO.brightness,
        cj_contrast=PHOTO.contrast,
        cj_sat=PHOTO.saturation,
        cj_hue=PHOTO.hue,
        min_scale=PHOTO.scale[0],
        random_gray_scale=PHOTO.grey,
        gaussian_blur=0.0,
        hf_prob=PHOTO.flip,
        normalize=common.moments,
    )
    loader = loader_of(Pictures(Path(task.data), transform), task, common)
    model = nn.Sequential(common.network, common.encoder.projector)
    criterion = VICRegLoss()
    groups = parameter_groups(model, common.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=common.rate, betas=common.betas, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, common.course.share)
    common.course.start()
    while True:
        for batch in loader:
            x0, x1 = batch[0]
            loss = criterion(model(x0), model(x1))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if common.course.stepped():
                return


def spt_loop(task: Task, common: Setting) -> None:
    """As in the README of stable-pretraining: Module, its forward function for VICReg, DataModule, Lightning's Trainer, Manager."""
    import lightning
    import stable_pretraining as spt
    from stable_pretraining import forward
    from stable_pretraining.data import transforms as t

    views = [
        t.Compose(
            t.RGB(),
            t.RandomResizedCrop((task.size, task.size), scale=PHOTO.scale),
            t.RandomHorizontalFlip(p=PHOTO.flip),
            t.ColorJitter(PHOTO.brightness, PHOTO.contrast, PHOTO.saturation, PHOTO.hue, p=PHOTO.jitter),
            t.RandomGrayscale(p=PHOTO.grey),
            t.ToImage(**common.moments),
        )
        for _ in range(2)
    ]
    pictures = Pictures(Path(task.data), None)
    dataset = spt.data.FromTorchDataset(pictures, names=["image", "label"], transform=t.MultiViewTransform(views))
    optimizer = {"type": "AdamW", "lr": common.rate, "betas": common.betas, "weight_decay": common.weight_decay}
    module = spt.Module(
        backbone=common.network,
        projector=common.encoder.projector,
        forward=forward.vicreg,
        vicreg_loss=spt.losses.VICRegLoss(),
        optim={
            "optimizer": {**optimizer, "exclude_bias_norm": True, "fused": True},
            "scheduler": partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=common.course.share),
            "interval": "step",
        },
    )

    class Clock(lightning.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            if not common.course.times:
                common.course.start()

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = common.course.stepped()

    trainer = lightning.Trainer(
        max_epochs=10**6,
        accelerator="cpu",
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    data = spt.data.DataModule(train=loader_of(dataset, task, common))
    spt.Manager(trainer=trainer, module=module, data=data, seed=task.seed)()


LOOPS = {"lightly": lightly_loop, "spt": spt_loop, "eb-jepa": eb_jepa_loop}


def train(task: Task) -> dict[str, Any]:
    declare_operators()
    torch.manual_seed(task.seed)
    data = Path(task.data)
    table = json.loads((data / "recipe.json").read_text())
    o, batch = table["optimizer"], table["training"]["batch_size"]
    course = Course(task, batch, o["warmup"])
    encoder = encoder_of(data, data / f"initial-{task.seed}.safetensors").train()
    common = Setting(encoder, batch, o["learning_rate"], o["weight_decay"], (0.9, o["beta2"]), course)
    LOOPS[task.loop](task, common)
    save(encoder, Path(task.out))
    return {"batch_size": batch, "times": course.times}


# --- what was learned ---


@torch.no_grad()
def features(encoder: Encoder, images: np.ndarray) -> Tensor:
    """Of plain images at full size, as accord's own evaluation takes them."""
    encoder.eval()
    parts = [
        encoder.features(torch.from_numpy(part).float() / 255) for part in np.array_split(images, len(images) // 500)
    ]
    return torch.cat(parts)


def probe(
    data: str, weights: dict[str, str], tested: list[str], labels: int, limit: int
) -> dict[str, dict[str, float]]:
    """Linear probe of each of the weights, learned from the same labelled rows, on rows held out; some on the test file as well."""
    folder = Path(data)
    stored, rows, test = (np.load(folder / f"{name}.npz") for name in ("train", "rows", "test"))
    images, label = stored["images"], torch.from_numpy(stored["label"])
    few, held = np.random.default_rng(0).permutation(rows["train"])[:labels], rows["held_out"][:limit]
    found: dict[str, dict[str, float]] = {}
    for name, path in weights.items():
        where = Path(path)
        encoder = open_run(where).model.encoder_x if where.is_dir() else encoder_of(folder, where)
        known = Labelled(features(encoder, images[few]), label[few])
        found[name] = {
            "held_out": linear_probe(known, Labelled(features(encoder, images[held]), label[held]), 10, seed=0)
        }
        if name in tested:
            unseen = Labelled(features(encoder, test["images"][:limit]), torch.from_numpy(test["label"][:limit]))
            found[name]["test"] = linear_probe(known, unseen, 10, seed=0)
    return found


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job.pop("threads"))
    result, kind = Path(job.pop("result")), job.pop("job")
    if kind == "prepare":
        found: Any = prepare(**job)
    elif kind == "train":
        found = train(Task(**job))
    else:
        found = probe(**job)
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
