"""Energies of parts against loops in float64; their properties; maps of backbones and the embeddings made of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from accord.data.pair import Pair
from accord.errors import UsageError
from accord.model import matching
from accord.model.encoder import Encoder
from accord.model.energy import squared_error
from accord.model.feature_map import Mapped, WithMap, pooled
from accord.model.joint_embedding import JointEmbedding
from accord.model.matching import LocalMatching
from accord.model.multiscale import MultiScale
from accord.model.predictor import IdentityPredictor
from accord.model.projector import LocalProjector, Projector
from accord.model.resnet import resnet18
from accord.model.vit import ViT
from accord.objective.local import OfParts
from accord.objective.principles import regularized, vicregl
from accord.objective.regularizers import covariance, variance

GLOBAL, POSITIONS, LOCAL = 3, 5, 2
WIDTH = GLOBAL + POSITIONS * LOCAL


def rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(a: list[float], b: list[float], matches: int, alpha: float) -> float:
    """The formula, in loops."""

    def part(s: list[float], p: int) -> list[float]:
        return s[GLOBAL + p * LOCAL : GLOBAL + (p + 1) * LOCAL]

    def apart(u: list[float], v: list[float]) -> float:
        return math.fsum((x - y) ** 2 for x, y in zip(u, v, strict=True)) / len(u)

    def one_way(s: list[float], t: list[float]) -> float:
        nearest = [min(apart(part(s, p), part(t, q)) for q in range(POSITIONS)) for p in range(POSITIONS)]
        return math.fsum(sorted(nearest)[:matches]) / matches

    local = (one_way(a, b) + one_way(b, a)) / 2
    return alpha * apart(a[:GLOBAL], b[:GLOBAL]) + (1 - alpha) * local


# --- the cost ---


@pytest.mark.parametrize(("matches", "alpha"), [(1, 0.75), (2, 0.3), (5, 0.0), (3, 1.0)])
def test_the_cost_is_the_formula(matches: int, alpha: float) -> None:
    cost = LocalMatching(GLOBAL, positions=POSITIONS, matches=matches, alpha=alpha)
    a, b = rows(0, 3, 1), rows(1, 4)
    values = cost(a, b)
    assert values.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert values[i, j].item() == pytest.approx(
                by_hand(a[i, 0].tolist(), b[j].tolist(), matches, alpha), rel=1e-12
            )


def test_all_with_all_is_the_same_in_blocks_and_for_several_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = LocalMatching(GLOBAL, positions=POSITIONS, matches=2)
    a, b = rows(0, 2, 7), rows(1, 4)
    expected = torch.stack([torch.stack([torch.stack([cost(u, v) for v in b]) for u in one]) for one in a])
    for numbers in (1 << 22, 1, 2 * 2 * 4 * POSITIONS**2):
        monkeypatch.setattr(matching, "NUMBERS", numbers)
        torch.testing.assert_close(cost(a[:, :, None], b[None]), expected, rtol=1e-12, atol=1e-14)
    assert cost(a[:, :0, None], b[None]).shape == (2, 0, 4)
    assert cost(a[:, :, None], b[None, :0]).shape == (2, 7, 0)


def test_properties() -> None:
    cost = LocalMatching(GLOBAL, positions=POSITIONS, matches=3)
    a, b = rows(0, 8), rows(1, 8)
    values = cost(a, b)
    assert (values >= 0).all()
    torch.testing.assert_close(cost(b, a), values, rtol=1e-12, atol=0)
    torch.testing.assert_close(cost(a, a), torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-14)
    for _ in range(3):
        order, other = torch.randperm(POSITIONS), torch.randperm(POSITIONS)
        moved = [
            torch.cat([s[:, :GLOBAL], s[:, GLOBAL:].unflatten(1, (POSITIONS, LOCAL))[:, index].flatten(1)], 1)
            for s, index in ((a, order), (b, other))
        ]
        torch.testing.assert_close(cost(*moved), values, rtol=1e-12, atol=0)
        torch.testing.assert_close(cost(moved[0], a), torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-14)
    whole = LocalMatching(GLOBAL, positions=POSITIONS, matches=3, alpha=1.0)
    torch.testing.assert_close(whole(a, b), squared_error(a[:, :GLOBAL], b[:, :GLOBAL]))
    one = LocalMatching(GLOBAL, positions=1, matches=1, alpha=0.0)
    torch.testing.assert_close(one(a, b), squared_error(a[:, GLOBAL:], b[:, GLOBAL:]))


def test_gradients_are_those_of_the_matches_that_were_chosen() -> None:
    cost = LocalMatching(GLOBAL, positions=POSITIONS, matches=2)
    a, b = rows(0, 4).requires_grad_(), rows(1, 4).requires_grad_()
    assert torch.autograd.gradcheck(cost, (a, b))
    assert torch.autograd.gradcheck(lambda s, t: cost(s[:, None], t[None]), (a, b))
    local = LocalMatching(GLOBAL, positions=POSITIONS, matches=1, alpha=0.0)
    (gradient,) = torch.autograd.grad(local(a, b).sum(), a)
    moved = gradient[:, GLOBAL:].unflatten(1, (POSITIONS, LOCAL)).abs().sum(-1) > 0
    assert (moved.sum(1) <= 2).all() and (moved.sum(1) >= 1).all(), "at most one position of each direction"
    assert not gradient[:, :GLOBAL].any()


def test_half_precision_is_compared_in_single() -> None:
    cost = LocalMatching(GLOBAL, positions=POSITIONS, matches=2)
    a, b = rows(0, 4).bfloat16(), rows(1, 4).bfloat16()
    for pair in ((a, b), (a[:, None], b[None])):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = cost(*pair)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), cost(*(s.double() for s in pair)), rtol=1e-5, atol=1e-6)


def test_the_free_energy_of_a_pair_is_on_the_diagonal_of_all_with_all() -> None:
    identity = Encoder(nn.Identity())
    model = JointEmbedding(
        identity, identity, IdentityPredictor(), cost=LocalMatching(GLOBAL, positions=POSITIONS, matches=2)
    )
    energy = model(rows(0, 6), rows(1, 6))
    cross = model.minimizer(energy.cross()).value
    torch.testing.assert_close(cross.diagonal(), model.minimizer(energy).value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": 0}, "positions: expected a whole number of 1 or more"),
        ({"matches": 6}, "6 matches were asked for of 5 positions"),
        ({"alpha": 1.5}, r"a number in \[0, 1\], got 1.5"),
        ({"alpha": math.nan}, r"a number in \[0, 1\]"),
    ],
)
def test_costs_out_of_bounds_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LocalMatching(**{"dim": 3, "positions": 5, "matches": 2, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [3, 7, 14])
def test_embeddings_of_another_width_are_refused(width: int) -> None:
    s = torch.zeros(2, width)
    with pytest.raises(UsageError, match=f"embeddings of {width} numbers are not 3 and a part for each of 5 positions"):
        LocalMatching(3, positions=5, matches=2)(s, s)


# --- maps and embeddings of parts ---

BACKBONES = {
    "multiscale": lambda: MultiScale(2, stem_width=4, widths=(6, 8), blocks=(0, 0), pool_grids=(0, 2, 1)),
    "resnet18": lambda: resnet18(channels=2, stem="small"),
    "vit": lambda: ViT(image_size=16, patch=4, dim=12, depth=1, heads=2, channels=2),
    "vit cls": lambda: ViT(image_size=16, patch=4, dim=12, depth=1, heads=2, channels=2, pool="cls"),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_features_beside_a_map_are_the_features(name: str) -> None:
    torch.manual_seed(0)
    backbone: Mapped = BACKBONES[name]().eval()
    x = torch.rand(3, 2, 16, 16)
    features, cells = backbone.maps(x, 4)
    assert torch.equal(features, backbone(x))
    assert cells.shape == (3, 16, backbone.map_dim)
    if name != "vit cls":  # the last map_dim features are the means over all positions
        last = features if name != "multiscale" else features[:, -8:]
        torch.testing.assert_close(cells.mean(1)[:, -last.shape[1] :], last, rtol=1e-4, atol=1e-5)
    both = WithMap(backbone, 4)(x)
    torch.testing.assert_close(both, torch.cat([features, cells.flatten(1)], 1))


def test_a_map_keeps_its_places() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4).repeat(1, 2, 1, 1)
    assert pooled(image, 4)[0, :, 1].tolist() == list(range(16))
    assert pooled(image, 2)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooled(image[..., :2, :2], 4)[0, :, 0].tolist() == [0, 0, 1, 1] * 2 + [4, 4, 5, 5] * 2, "coarser: repeated"
    assert pooled(image, 3).shape == (1, 9, 2)


def test_a_map_of_a_transformer_that_hides_patches_is_refused() -> None:
    hiding = ViT(image_size=16, patch=4, dim=12, depth=1, heads=2, masked=True)
    with pytest.raises(UsageError, match="has no map"):
        hiding.maps(torch.zeros(1, 4, 16, 16), 2)


def local_encoder() -> Encoder:
    backbone = BACKBONES["multiscale"]()
    projector = LocalProjector(
        Projector(backbone.feature_dim, GLOBAL, hidden=(7,)),
        Projector(backbone.map_dim, LOCAL, hidden=(7,)),
        positions=4,
    )
    return Encoder(WithMap(backbone, 2), projector, sample_ndim=3, feature_dim=backbone.feature_dim)


def test_an_encoder_of_parts() -> None:
    """Features are those of the backbone; each part of the embedding is what a projector makes of features or of one position."""
    torch.manual_seed(0)
    encoder = local_encoder().eval()
    x = torch.rand(5, 3, 2, 16, 16)
    features, embeddings = encoder.represent(x)
    assert features.shape == (5, 3, encoder.feature_dim) and embeddings.shape == (5, 3, GLOBAL + 4 * LOCAL)
    assert torch.equal(features, encoder.features(x)) and torch.equal(embeddings, encoder(x))
    whole, cells = encoder.backbone.backbone.maps(x[1], 2)
    torch.testing.assert_close(features[1], whole)
    torch.testing.assert_close(embeddings[1, :, :GLOBAL], encoder.projector.pooled(whole))
    parts = LocalMatching(GLOBAL, positions=4, matches=1).parts(embeddings[1])
    for p in range(4):
        torch.testing.assert_close(parts.local[:, p], encoder.projector.local(cells[:, p]))
    assert encoder.projector.dim == embeddings.shape[-1]


def test_the_objective_is_that_of_images_and_of_positions() -> None:
    torch.manual_seed(0)
    encoder = local_encoder().double()
    cost = LocalMatching(GLOBAL, positions=4, matches=2, alpha=0.6)
    objective = regularized(JointEmbedding(encoder, encoder, IdentityPredictor(), cost=cost), vicregl(variance=20.0))
    x, y = torch.rand(2, 6, 2, 16, 16, dtype=torch.float64)
    loss = objective(Pair(x, y))
    both = [cost.parts(encoder(t)) for t in (x, y)]
    expected = 25 * cost(encoder(x), encoder(y)).mean()
    for s in both:
        expected = expected + 0.6 * (20 * variance(s.whole) / 2 + covariance(s.whole))
        for p in range(4):
            expected = expected + 0.4 / 4 * (20 * variance(s.local[:, p]) / 2 + covariance(s.local[:, p]))
    torch.testing.assert_close(loss.total, expected, rtol=1e-10, atol=1e-12)
    loss.total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    crops = regularized(objective.model, vicregl())(Pair(torch.stack([x, y]), y))
    assert crops.total.isfinite()


def test_terms_of_parts_need_a_cost_of_parts() -> None:
    encoder = local_encoder()
    model = JointEmbedding(encoder, encoder, IdentityPredictor())
    x = torch.rand(4, 2, 16, 16)
    with pytest.raises(UsageError, match="vicregl needs the cost LocalMatching"):
        regularized(model, vicregl())(Pair(x, x))
    assert isinstance(vicregl()["variance"][1], OfParts)
    with pytest.raises(UsageError, match="covariance is a weight"):
        vicregl(covariance=-1.0)
