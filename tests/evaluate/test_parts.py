"""Evaluation of pairs whose x and y differ in form, against loops: which encoder reads what, one target of several, no views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from accord.data.augment import Augmentation
from accord.data.pairing import Pairing
from accord.data.pairing_masked import masked_blocks
from accord.data.pairing_parts import columns, halves
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.data.sources import open_source
from accord.evaluate.collapse import summary
from accord.evaluate.energy import scores
from accord.evaluate.evaluation import evaluate
from accord.evaluate.features import embed_pairs, embed_views, extract, numbers
from accord.evaluate.probes import pixels
from accord.model.encoder import Encoder
from accord.model.joint_embedding import JointEmbedding
from accord.model.predictor import MLPPredictor
from accord.train.device import choose_device
from accord.train.monitor import Probe

PAIRINGS: dict[str, Pairing] = {
    "halves": halves("top_bottom"),
    "light halves": halves(augmentation=Augmentation(shift=0.1, noise=0.05)),
    "masked": masked_blocks(patch=2, block=2, blocks=3),
    "columns": columns(features=("x0", "y0", "y1")),
}
INDEX = np.arange(40, 100)


def source(name: str) -> Samples:
    return open_source("ellipse:n=200" if name == "columns" else "digits")


def model(pairing: Pairing, samples: Samples) -> JointEmbedding:
    """Two different linear encoders."""
    torch.manual_seed(0)
    x, y = numbers(samples, INDEX, pairing)
    ndim = len(samples.shape)
    encoders = [
        Encoder(nn.Sequential(nn.Flatten(), nn.Linear(n, 12)), nn.Linear(12, 6), sample_ndim=ndim) for n in (x, y)
    ]
    return JointEmbedding(*encoders, MLPPredictor(6, action_dim=pairing.action_dim)).eval()


@pytest.fixture(params=sorted(PAIRINGS))
def case(request: pytest.FixtureRequest) -> tuple[Pairing, Samples, JointEmbedding]:
    pairing, samples = PAIRINGS[request.param], source(request.param)
    return pairing, samples, model(pairing, samples)


Case = tuple[Pairing, Samples, JointEmbedding]


@torch.no_grad()
def test_each_side_has_its_plain_view(case: Case) -> None:
    pairing, samples, energy = case
    for batch_size in (7, 60):
        x = extract(energy.encoder_x, samples, INDEX, pairing, batch_size=batch_size)
        y = extract(energy.encoder_y, samples, INDEX, pairing, side="y", batch_size=batch_size)
        batch = samples.batch(INDEX)
        torch.testing.assert_close(x.embeddings, energy.encoder_x(pairing.plain(batch)))
        torch.testing.assert_close(y.features, energy.encoder_y.features(pairing.plain_y(batch)))


@torch.no_grad()
def test_one_pair_of_each_sample(case: Case) -> None:
    pairing, samples, energy = case
    found = embed_pairs(energy, samples, INDEX, pairing, seed=3, batch_size=11)
    for i in (0, 17, 59):
        place = INDEX[i : i + 1]
        pair = pairing(samples.batch(place), Draws(3, 0, torch.from_numpy(place)))
        y = pair.y if pair.y.ndim == 1 + len(samples.shape) else pair.y[0]
        torch.testing.assert_close(found.s_x[i], energy.encoder_x(pair.x)[0])
        torch.testing.assert_close(found.s_y[i], energy.encoder_y(y)[0])
        assert (found.action is None) == (pair.action is None)
        if found.action is not None and pair.action is not None:
            assert torch.equal(found.action[i], pair.action[0, 0])
    assert not torch.equal(found.s_y, found.s_y_damaged)
    assert scores(energy, samples, INDEX, pairing, seed=0, draws=2).shape == (60,)


@torch.no_grad()
def test_views_differ_only_where_a_pairing_is_random(case: Case) -> None:
    pairing, samples, energy = case
    views = embed_views(energy, samples, INDEX, pairing, views=3, seed=0)
    assert views.shape == (60, 3, 6)
    assert torch.equal(views[:, 0], views[:, 1]) == (not pairing.random)


def test_without_views_there_is_no_lidar() -> None:
    views = torch.randn(50, 1, 6, generator=torch.Generator().manual_seed(0))
    table = summary(views, views[:, 0], torch.rand(50, 50), energy_auroc=0.9, pairs=50, values=6)
    assert table["lidar"] is None and table["verdict"] is None and float(table["rankme"]) > 5  # type: ignore[arg-type]


def test_one_number_cannot_make_many_dimensions() -> None:
    """x of the ellipse is a number: its embedding lies on a curve, which is no collapse; of 64 numbers it would be one."""
    generator = torch.Generator().manual_seed(0)
    curve = torch.rand(300, 1, generator=generator) @ torch.randn(1, 40, generator=generator)
    s_x = curve + 0.02 * torch.randn(300, 40, generator=generator)
    y = torch.randn(300, 1, 40, generator=generator)
    verdicts = [
        summary(y, y[:, 0], torch.rand(9, 9), energy_auroc=0.9, pairs=9, values=40, s_x=s_x, x_values=n)["verdict"]
        for n in (1, 64)
    ]
    assert verdicts == [None, "dimensional"]


@torch.no_grad()
def test_the_collapse_watch_measures_the_same(case: Case) -> None:
    pairing, samples, energy = case
    whole, parts = (Probe(samples, INDEX, pairing, seed=0, batch_size=size) for size in (60, 7))
    assert whole.values == min(numbers(samples, INDEX, pairing))
    device = choose_device("cpu")
    one, other = whole.examine(energy, device), parts.examine(energy, device)
    torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-4, atol=1e-5)


def test_the_rivals_of_a_probe_see_what_the_encoder_sees() -> None:
    samples, pairing = source("halves"), PAIRINGS["halves"]
    seen = pixels(samples, INDEX, pairing.plain)
    torch.testing.assert_close(seen, pixels(samples, INDEX).view(-1, 8, 8)[:, :4].reshape(60, 32))


def test_evaluation_is_whole(case: Case) -> None:
    pairing, samples, energy = case
    train, rest = np.arange(100, 200), INDEX
    found = evaluate(energy, samples, pairing, train_index=train, held_out_index=rest, seed=0)
    collapse, retrieval = found["collapse"], found["retrieval"]
    assert isinstance(collapse, dict) and (collapse["lidar"] is None) == (not pairing.random)
    assert isinstance(retrieval, dict) and retrieval["candidates"] == 60
    assert found == {**evaluate(energy, samples, pairing, train_index=train, held_out_index=rest, seed=0)} | {
        "seconds": found["seconds"]
    }
    pairs = found["pairs"]
    assert isinstance(pairs, dict)
    for one in pairs["lowest"]:
        assert (one["x"] >= 0) == (one["y"] >= 0) == (samples.kind == "image")
