"""Rivals as models: what makes y has the energy interface of everything else, from a constructor or a recipe."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import accord
from accord import build, build_encoder, recipe_toml
from accord.baselines.flow_matching import FlowMatchingDensity
from accord.baselines.generative import UpsamplingDecoder, Values, generative, likelihood
from accord.baselines.probabilistic import CommonWidthGaussian, FlowDensity, GaussianDensity, MixtureDensity
from accord.build_baselines import trained_on
from accord.data.pair import Pair
from accord.data.pairing_restored import restoring
from accord.data.random import Draws
from accord.errors import UsageError
from accord.model.amortize import Recognition
from accord.model.codebook import Codebook
from accord.model.continuous import Gaussian
from accord.model.density import Density
from accord.model.encoder import Encoder
from accord.model.energy import between, cosine, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.minimize import BestOf
from accord.model.normalize import Standardize
from accord.model.predictor import DictionaryPredictor, MLPPredictor
from accord.model.variational import Variational
from accord.objective.loss import Objective
from accord.resolve import resolve

NAMES = (
    "pixel_predictor",
    "autoencoder",
    "masked_autoencoder",
    "gaussian",
    "mixture",
    "cvae",
    "flow",
    "flow_matching",
)
DIM, GIVEN = 6, 5


def model(name: str, seed: int = 0) -> JointEmbedding:
    """x of 4 numbers, y of 6."""
    if name == "flow":
        pytest.importorskip("zuko")
    torch.manual_seed(seed)
    cost = {
        "gaussian": lambda: GaussianDensity(DIM),
        "mixture": lambda: MixtureDensity(DIM, components=4),
        "cvae": lambda: CommonWidthGaussian(DIM),
        "flow": lambda: FlowDensity(DIM, GIVEN, transforms=2, hidden=(16,)),
        "flow_matching": lambda: FlowMatchingDensity(DIM, GIVEN, hidden=(16,)),
    }.get(name, lambda: squared_error)()
    encoder = Encoder(nn.Sequential(nn.Linear(4, 8), nn.GELU()), nn.Linear(8, GIVEN), sample_ndim=1)
    if name == "cvae":
        latent, network = Gaussian(2, weight=1.0), Recognition(GIVEN, 4, dim_y=DIM)
        made = generative(encoder, GIVEN, (DIM,), cost=cost, latent=latent, minimizer=Variational(network))
    else:
        made = generative(encoder, GIVEN, (DIM,), cost=cost)
    return made.double()


def batch(n: int = 9) -> Pair:
    generator = torch.Generator().manual_seed(3)
    return Pair(*(torch.randn(n, w, dtype=torch.float64, generator=generator) for w in (4, DIM)))


KINDS = [name for name in NAMES if "autoencoder" not in name]


@pytest.mark.parametrize("name", KINDS)
def test_contracts(name: str, tmp_path: Path) -> None:
    """F is the diagonal of the cross energy; saved and loaded it is the same; every parameter is taught; y has no weights."""
    made, pair = model(name), batch()
    assert made.takes_y_as_it_is and not [n for n, _ in made.named_parameters() if n.startswith("encoder_y")]
    objective = Objective(made, likelihood(DIM if isinstance(made.cost, Density) else 1))
    loss = objective(pair)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(
        loss.terms["free_energy"].item() / (1 if name == "pixel_predictor" else DIM)
    )
    for key, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
    made.eval()
    energy = made(pair.x, pair.y)
    with torch.no_grad():
        f = made.minimizer(energy).value
        cross = made.minimizer(energy.cross()).value
        torch.testing.assert_close(cross.diagonal(), f, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(made.minimizer(energy.cross(slice(2, 4))).value, cross[2:4], rtol=1e-8, atol=1e-8)
        made.minimizer.chunk = 64  # type: ignore[assignment]
        torch.testing.assert_close(made.minimizer(energy.cross()).value, cross, rtol=1e-8, atol=1e-8)
        one = made.free_energy(pair.x[3:4], pair.y[5:6])
    assert cross[3, 5].item() == pytest.approx(one.item(), rel=1e-8)
    assert energy.predict(made.latent.sample((9,), energy.s_x)).shape == (9, DIM)
    save_file(made.state_dict(), tmp_path / "model.safetensors")
    other = model(name, seed=5).eval()
    assert (other.free_energy(pair.x, pair.y) - f).abs().max() > 1e-3
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(other.free_energy(pair.x, pair.y), f, rtol=0, atol=0)


def test_the_pixel_predictor_is_a_gaussian_of_fixed_width() -> None:
    made, pair = model("pixel_predictor").eval(), batch()
    s_x = made.encoder_x(pair.x)
    y_hat = made.predictor(s_x, s_x[:, :0])
    law = torch.distributions.Normal(y_hat, 1.0)
    nats = -law.log_prob(pair.y).sum(-1) - DIM / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(made.free_energy(pair.x, pair.y), 2 * nats / DIM)


def test_a_z_of_codes_is_for_any_decoder() -> None:
    encoder = Encoder(nn.Linear(4, GIVEN), sample_ndim=1)
    made = generative(encoder, GIVEN, (DIM,), latent=Codebook(3, dim=2)).double()
    pair = batch()
    minimum = made.minimizer(made(pair.x, pair.y))
    codes = made.latent.candidates()
    assert codes is not None
    each = torch.stack([made(pair.x, pair.y)(code.expand(9, -1)) for code in codes])
    torch.testing.assert_close(minimum.value, each.min(0).values)


# --- the variational auto-encoder ---


def test_the_bound_is_above_the_likelihood() -> None:
    """Importance sampling from the prior, 50,000 draws of a narrow z: F >= -log p(y | x), and by little after training."""
    made, pair = model("cvae"), batch(40)
    objective = Objective(made, likelihood(DIM))
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        objective(pair).total.backward()
        optimizer.step()
    made.eval()
    assert isinstance(made.minimizer, Variational)
    made.minimizer.samples = 2000
    energy = made(pair.x[:4], pair.y[:4])
    with torch.no_grad():
        bound = made.minimizer(energy).value
        exact = BestOf(50_000, beta=1.0)(energy).value
    assert (bound > exact - 0.05).all()
    assert (bound - exact).max() < 3
    assert ((bound - exact).mean() > 0.01).all(), "a normal posterior is not the true one: the bound is not tight"


class Given(nn.Module):
    """The exact posterior of factor analysis."""

    def __init__(self, w: Tensor, scale: Tensor):
        super().__init__()
        precision = torch.eye(w.shape[1]).to(w) + (w / scale.square()[:, None]).mT @ w
        self.gain = torch.linalg.solve(precision, (w / scale.square()[:, None]).mT)
        self.log_variance = torch.linalg.inv(precision).diagonal().log()

    def forward(self, s_x: Tensor, s_y: Tensor, action: Tensor | None = None) -> Tensor:
        mean = s_y @ self.gain.mT
        return torch.cat([mean, self.log_variance.expand_as(mean)], -1)


def test_a_linear_one_is_factor_analysis() -> None:
    """y = W z + noise with a width for each column: log N(y; 0, W W' + diag). The posterior is normal, with one z without covariance."""
    torch.manual_seed(0)
    cost = CommonWidthGaussian(DIM).double()
    cost.raw.data += torch.randn(DIM)
    predictor = DictionaryPredictor(DIM, 1, given=False).double()
    w, scale = predictor.dictionary.detach(), cost.scale.detach()
    minimizer = Variational(Given(w, scale), samples=4000)
    identity = Encoder(nn.Identity(), sample_ndim=1)
    made = JointEmbedding(
        identity, identity, predictor, cost=cost, latent=Gaussian(1, weight=1.0).double(), minimizer=minimizer
    ).eval()
    y = batch().y
    law = torch.distributions.MultivariateNormal(torch.zeros(DIM).double(), w @ w.mT + scale.square().diag())
    torch.testing.assert_close(made.free_energy(y, y), -law.log_prob(y), rtol=0, atol=0.1)
    minimizer.network.log_variance += 1.0  # type: ignore[operator]
    assert (made.free_energy(y, y) + law.log_prob(y)).min() > 0.1


# --- parts ---


def test_values_are_y_in_a_row_at_the_size_of_training() -> None:
    values = Values((2, 8, 4))
    y = torch.rand(3, 2, 8, 4)
    assert torch.equal(values(y), y.flatten(1))
    smooth = torch.linspace(0, 1, 16)[:, None].expand(3, 2, 16, 8)
    assert values(smooth).shape == (3, 64)
    torch.testing.assert_close(
        values(smooth).view(3, 2, 8, 4)[:, :, 1:-1].diff(dim=2), torch.full((3, 2, 5, 4), 2 / 15)
    )


def test_the_upsampling_decoder_makes_images_of_any_size() -> None:
    for shape in ((3, 32, 32), (1, 28, 28), (2, 40, 17)):
        made = UpsamplingDecoder(5, shape, 2, action_dim=1, maps=2, extra=3, width=4)
        out = made(torch.randn(4, 5), torch.randn(6, 4, 2), torch.randn(4, 1))
        assert out.shape == (6, 4, 3 + 2 * math.prod(shape))
        (out.square().mean()).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_large_images_are_made_by_convolutions() -> None:
    encoder = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8)), sample_ndim=3)
    made = generative(encoder, 8, (3, 32, 32), cost=MixtureDensity(3072, components=2))
    assert isinstance(made.predictor, UpsamplingDecoder)
    x = torch.rand(2, 3, 32, 32)
    assert made.free_energy(x, x).shape == (2,)
    assert made.free_energy(x, torch.rand(2, 3, 48, 48)).shape == (2,)


def test_widths_that_do_not_fit_are_refused() -> None:
    made, pair = model("gaussian"), batch()
    made.predictor = MLPPredictor(GIVEN, out_dim=DIM).double()
    with pytest.raises(UsageError, match="takes 12 numbers for 6 dimensions, the predictor makes 6"):
        made.free_energy(pair.x, pair.y)
    with pytest.raises(UsageError, match="is of 5 numbers"):
        generative(nn.Identity(), 4, (6,), cost=GaussianDensity(5))
    with pytest.raises(UsageError, match="no place for z"):
        generative(nn.Identity(), 4, (6,), cost=FlowMatchingDensity(6, 4), latent=Gaussian(2))


def test_between_points() -> None:
    common = CommonWidthGaussian(3)
    assert between(cosine) is cosine and between(common) is common
    assert between(GaussianDensity(3)) is squared_error


# --- pairs of auto-encoders ---


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)])
def test_hidden_patches_have_the_mean_colour(shape: tuple[int, ...]) -> None:
    images = torch.randint(256, (5, *shape), dtype=torch.uint8)
    draws = Draws(0, 0, torch.arange(5))
    pairing = restoring(accord.two_views(accord.Augmentation.light()), hide=0.75)
    pair, plain = pairing(images, draws), accord.two_views(accord.Augmentation.light())(images, draws)
    assert torch.equal(pair.y, plain.x)
    hidden = (pair.x != pair.y).any(1)
    side = shape[-1] // 4
    blocks = hidden.unfold(1, side, side).unfold(2, side, side).flatten(3).all(-1)
    assert (blocks.flatten(1).sum(1) == 12).all() and int(hidden.sum()) == 12 * side**2 * 5
    means = pair.y.mean((2, 3), keepdim=True).expand_as(pair.x)
    torch.testing.assert_close(pair.x[hidden[:, None].expand_as(pair.x)], means[hidden[:, None].expand_as(pair.x)])
    again = pairing(images[2:4], Draws(0, 0, torch.arange(2, 4)))
    torch.testing.assert_close(again.x, pair.x[2:4])
    assert torch.equal(restoring(accord.two_views(), hide=0.0)(images, draws).x, accord.two_views()(images, draws).x)


def test_hidden_columns_have_their_mean() -> None:
    rows = torch.randn(50, 8) * 3 + 10
    units = accord.Standardize.fit(rows)
    quiet = accord.VectorAugmentation(noise=0.0, mask=0.0)
    pair = restoring(accord.two_views(quiet, units=units), hide=0.5)(rows, Draws(0, 0, torch.arange(50)))
    hidden = pair.x != pair.y
    assert torch.equal(pair.y, rows) and (hidden.sum(1) == 4).all()
    torch.testing.assert_close(pair.x[hidden], units.mean.expand_as(rows)[hidden])


def test_hidden_runs_of_steps_have_the_mean_of_their_channel() -> None:
    series = torch.randn(6, 14, 2) + 5
    quiet = accord.two_views(accord.SeriesAugmentation())
    pair = restoring(quiet, hide=0.5)(series, Draws(0, 0, torch.arange(6)))
    hidden = (pair.x != pair.y).all(2)
    assert torch.equal(pair.y, series) and pair.x.shape == series.shape
    runs = torch.nn.functional.pad(hidden, (0, 1)).unflatten(1, (5, 3))  # a quarter of 14 steps is 3
    assert torch.equal(runs.any(2).sum(1), torch.full((6,), 2)) and bool(
        runs[:, :4].float().mean(2).round().eq(runs[:, :4].any(2)).all()
    )
    torch.testing.assert_close(pair.x[hidden], series.mean(1, keepdim=True).expand_as(series)[hidden])


def test_refused_pairs() -> None:
    with pytest.raises(UsageError, match="makes x of x"):
        restoring(accord.halves())
    with pytest.raises(UsageError, match="makes x of x"):
        restoring(accord.two_views(local=2))
    for wrong in ({"hide": 1.0}, {"hide": math.nan}, {"patch": 0}):
        with pytest.raises(UsageError):
            restoring(accord.two_views(), **wrong)  # type: ignore[arg-type]


# --- from a recipe ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["digits", "forks:n=64"])
def test_a_recipe_of_a_rival_is_resolved_and_built(name: str, source: str) -> None:
    if name == "flow":
        pytest.importorskip("zuko")
    given = {"objective": {"name": name}}
    if "autoencoder" in name and source != "digits":
        recipe, _ = resolve(source, given, None)
        with pytest.raises(UsageError, match="makes x of x"):
            trained_on(recipe, build.pairing(recipe))
        return
    recipe, samples = resolve(source, given, None)
    assert recipe.encoder_y is not None and recipe.encoder_y.name == "identity"
    assert recipe.latent.name == ("gaussian" if name == "cvae" else "deterministic")
    assert recipe_toml.parse(recipe.to_dict()) == recipe
    pairing = trained_on(recipe, build.pairing(recipe))
    rows = samples.batch(torch.arange(16).numpy())
    x, y = pairing.plain(rows), pairing.plain_y(rows)
    objective = build.objective(recipe, Standardize.fit(x), Standardize.fit(y))
    objective(pairing(rows, Draws(0, 0, torch.arange(16)))).total.backward()
    objective.eval()
    assert objective.model.free_energy(x, y).isfinite().all()


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"objective": {"name": "gaussian"}, "cost": "cosine"}, "cost"),
        ({"objective": {"name": "gaussian"}, "encoder_y": {"name": "mlp"}}, "encoder_y.name"),
        ({"objective": {"name": "cvae"}, "latent": {"name": "codebook"}}, "latent.name"),
        ({"objective": {"name": "mixture"}, "latent": {"name": "sparse"}}, "predictor.name"),
        ({"objective": {"name": "flow_matching"}, "latent": {"name": "codebook"}}, "latent.name"),
    ],
)
def test_what_a_rival_has_no_place_for_is_refused_before_training(given: dict[str, object], key: str) -> None:
    recipe, _ = resolve("forks:n=64", given, None)
    with pytest.raises(UsageError) as error:
        build.model(recipe, build_encoder.placeholder((2,)), build_encoder.placeholder((12,)))
    assert error.value.code == "E216" and error.value.where == key
