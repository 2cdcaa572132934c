"""Cases that must give on two ranks what they give in one process, and the script that runs them on one rank of two."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from accord.collective import all_reduce_sum, all_rows, gather_rows
from accord.data.pair import Pair
from accord.model.batch_norm import BatchNorm1d, BatchNorm2d
from accord.model.centred import CentredDivergence
from accord.model.codebook import Codebook
from accord.model.encoder import Encoder
from accord.model.energy import cosine, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.matching import LocalMatching
from accord.model.mlp import MLP
from accord.model.predictor import IdentityPredictor, MLPPredictor
from accord.model.projector import LocalProjector, Projector
from accord.model.teacher import MovingAverage
from accord.objective import (
    chains,
    contrast,
    contrastive,
    distillation,
    negatives,
    principles,
    rectified,
    regularizers,
    temporal,
    uniformity,
    volume,
)
from accord.objective.loss import Inference, Terms
from accord.objective.slices import directions

UNEVEN = (slice(0, 5), slice(5, 14))
EVEN = (slice(0, 7), slice(7, 14))
Result = dict[str, Tensor]


def rows(seed: int, *shape: int) -> Tensor:
    """14 rows that differ in mean and scale from one end to the other, so that local statistics are far from global ones."""
    data = torch.randn(14, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ramp = torch.linspace(0.5, 3.0, 14, dtype=torch.float64).view(-1, *[1] * len(shape))
    return data * ramp + ramp**2


def batch_norm(part: slice, *, spatial: bool) -> Result:
    """Three training steps of a batch norm, then one in evaluation; the loss is a sum over rows."""
    shape = (3, 4, 5) if spatial else (3,)
    layer = (BatchNorm2d(3) if spatial else BatchNorm1d(3)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        layer.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    result: Result = {}
    for step in range(3):
        x = rows(step, *shape)[part].requires_grad_()
        y = layer(x)
        (y * rows(10 + step, *shape)[part]).sum().backward()
        assert x.grad is not None
        result |= {f"rows:y{step}": y.detach(), f"rows:dx{step}": x.grad}
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    result |= {"sum:dweight": layer.weight.grad, "sum:dbias": layer.bias.grad}
    result |= {f"same:{k}": v.double() for k, v in layer.state_dict().items()}
    return result | {"rows:eval": layer.eval()(rows(9, *shape)[part]).detach()}


def cumulative_batch_norm(part: slice) -> Result:
    """momentum None averages the statistics of all steps; without running statistics evaluation uses the batch."""
    layer = BatchNorm1d(3, momentum=None).double()
    for step in range(3):
        layer(rows(step, 3)[part])
    stateless = BatchNorm1d(3, track_running_stats=False, affine=False).double().eval()
    state = {f"same:{k}": v.double() for k, v in layer.state_dict().items()}
    return state | {"rows:stateless": stateless(rows(5, 3)[part])}


def statistic(function: Callable[[Tensor, Tensor], Tensor], dim: int, views: int = 0) -> Callable[[slice], Result]:
    """A scalar of the global batch, and its gradient in the rows."""

    def case(part: slice) -> Result:
        x, y = (rows(seed, dim)[part] for seed in (1, 2))
        if views:
            x = torch.stack([rows(20 + v, dim)[part] for v in range(views)])
        x.requires_grad_()
        value = function(x, y)
        (gradient,) = torch.autograd.grad(value, x)
        return {"same:value": value.detach(), "mean:dx": gradient.movedim(-2, 0)}

    return case


def objective(
    terms: Callable[[], Terms], *, dim: int = 6, final_norm: bool = False, parts: bool = False
) -> Callable[[slice], Result]:
    """Parameter gradients of an objective; on two ranks, as DistributedDataParallel makes them."""

    def case(part: slice) -> Result:
        torch.manual_seed(0)
        projector: nn.Module = Projector(8, dim, hidden=(16,), final_norm=final_norm)
        if parts:  # two features, and a map of three positions and two channels
            projector = LocalProjector(Projector(2, 3, hidden=(5,)), Projector(2, 1, hidden=(5,)), positions=3)
        encoder = Encoder(MLP(4, (8, 8)), projector, feature_dim=2 if parts else None)
        predictor = IdentityPredictor() if final_norm or parts else MLPPredictor(dim)
        cost = LocalMatching(3, positions=3, matches=2) if parts else squared_error
        module: nn.Module = principles.regularized(
            JointEmbedding(encoder, encoder, predictor, cost=cost), terms()
        ).double()
        names = [name for name, _ in module.named_parameters()]
        if dist.is_initialized():
            module = DistributedDataParallel(module)
        result: Result = {}
        for step in range(2):  # the second one shows that all ranks draw the same fresh slices
            module.zero_grad()
            module(Pair(rows(step, 4)[part], rows(step + 7, 4)[part])).total.backward()
            for name, parameter in zip(names, module.parameters(), strict=True):
                if parameter.grad is not None:
                    result[f"same:{step}:{name}"] = parameter.grad.clone()
        return result

    return case


def compared(
    make: Callable[[], nn.Module], *, codes: int = 0, action_dim: int = 0, views: int = 0, fixed_y: bool = False
) -> Callable[[slice], Result]:
    """A term that compares every x with every y of all ranks, three times: fresh negatives are the same on any number of ranks."""

    def case(part: slice) -> Result:
        torch.manual_seed(0)
        predictor = (
            MLPPredictor(4, 3 if codes else 0, action_dim=action_dim) if codes or action_dim else IdentityPredictor()
        )
        model = JointEmbedding(
            nn.Identity(), nn.Identity(), predictor, cost=cosine, latent=Codebook(codes, 3) if codes else None
        ).double()
        x, y, action = (rows(seed, 4)[part] - 9 for seed in (1, 2, 3))
        if views:
            x = torch.stack([rows(20 + v, 4)[part] - 9 for v in range(views)])
        x.requires_grad_()
        y.requires_grad_()
        term = make().double()
        result: Result = {}
        for step in range(3):
            energy = model.energy(x, y, action[:, :action_dim] if action_dim else None)
            value = term(Inference(energy, model.minimizer(energy), model.minimizer))
            dx, dy = torch.autograd.grad(value, (x, y), allow_unused=fixed_y)
            result |= {f"same:value{step}": value.detach(), f"mean:dx{step}": dx.movedim(-2, 0)}
            result |= {} if fixed_y else {f"mean:dy{step}": dy}
        return result

    return case


def distilled(name: str) -> Callable[[slice], Result]:
    """Two steps of gradient descent with a teacher: gradients, the teacher, and the centre of DINO."""

    def case(part: slice) -> Result:
        torch.manual_seed(0)
        encoder = Encoder(MLP(4, (8, 8)), Projector(8, 6, hidden=(16,)))
        parts = {
            "byol": (MLPPredictor(6), cosine, distillation.byol()),
            "dino": (IdentityPredictor(), CentredDivergence(6, teacher=0.5, student=1.0), distillation.dino()),
        }
        predictor, cost, terms = parts[name]
        model = JointEmbedding(encoder, MovingAverage(encoder, momentum=(0.5, 1.0)), predictor, cost=cost)
        made = distillation.distilled(model, terms).double()
        module = DistributedDataParallel(made) if dist.is_initialized() else made
        trained = [(n, p) for n, p in made.named_parameters() if p.requires_grad]
        result: Result = {}
        for step in range(2):
            module.zero_grad()
            module(Pair(rows(step, 4)[part], rows(step + 7, 4)[part])).total.backward()
            for key, parameter in trained:
                assert parameter.grad is not None
                result[f"same:{step}:{key}"] = parameter.grad.clone()
                with torch.no_grad():
                    parameter.sub_(0.1 * parameter.grad)
            made.after_step()
        return result | {f"same:{key}": value.double() for key, value in made.state_dict().items()}

    return case


def gathered_with_gradient(part: slice) -> Result:
    """f = sum of the cubes of the rows' sums, which both ranks see: each rank's gradient is that of the sum of both."""
    x = rows(5, 2)[part].requires_grad_()
    everything, own = all_rows(x)
    assert torch.equal(everything[own], x)
    (everything.sum(1) ** 3).sum().backward()
    assert x.grad is not None
    return {"mean:dx": x.grad, "same:all": everything.detach()}


def gathered(part: slice) -> Result:
    """Rows of all ranks in order, and the slice that is one's own."""
    everything, own = gather_rows(rows(3, 2, 4).movedim(1, 0)[:, part])
    return {"same:all": everything, "rows:own": everything[:, own].movedim(1, 0)}


def reduced(part: slice) -> Result:
    """f = (sum over ranks of s)^3: each rank's gradient is that of the sum of all ranks' losses."""
    x = rows(4, 2)[part].requires_grad_()
    (all_reduce_sum(x.sum(0)) ** 3).sum().backward()
    assert x.grad is not None
    return {"mean:dx": x.grad}


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """With the same weights on each rank."""
    torch.manual_seed(0)
    return make()


TARGET = rectified.rectified_gaussian(14, 6)
A6, A20 = directions(6, 32, 3), directions(20, 32, 3)
CASES: dict[str, tuple[tuple[slice, slice], Callable[[slice], Result]]] = {
    "all_reduce_sum": (UNEVEN, reduced),
    "gather_rows": (UNEVEN, gathered),
    "all_rows": (UNEVEN, gathered_with_gradient),
    "BatchNorm1d": (UNEVEN, lambda part: batch_norm(part, spatial=False)),
    "BatchNorm2d": (UNEVEN, lambda part: batch_norm(part, spatial=True)),
    "BatchNorm1d cumulative": (UNEVEN, cumulative_batch_norm),
    "variance": (UNEVEN, statistic(lambda x, y: regularizers.variance(x, target=5.0), 6)),
    "variance of views": (UNEVEN, statistic(lambda x, y: regularizers.variance(x, target=5.0), 6, views=3)),
    "covariance": (UNEVEN, statistic(lambda x, y: regularizers.covariance(x), 6)),
    "covariance, n < d": (UNEVEN, statistic(lambda x, y: regularizers.covariance(x), 20)),
    "barlow on diagonal": (UNEVEN, statistic(regularizers.barlow_on_diagonal, 6, views=2)),
    "barlow off diagonal": (UNEVEN, statistic(regularizers.barlow_off_diagonal, 6)),
    "barlow off diagonal, n < d": (UNEVEN, statistic(regularizers.barlow_off_diagonal, 20, views=2)),
    "sigreg": (UNEVEN, statistic(lambda x, y: regularizers.sliced_epps_pulley(x / 9, A6), 6, views=2)),
    "center": (UNEVEN, statistic(lambda x, y: regularizers.center(x), 6)),
    "scale": (UNEVEN, statistic(lambda x, y: regularizers.scale(x), 6)),
    "shape": (UNEVEN, statistic(lambda x, y: regularizers.sliced_shape(x, A20), 20, views=2)),
    "uniformity": (UNEVEN, statistic(lambda x, y: uniformity.uniformity(x - 9), 6, views=2)),
    "contrast: info_nce": (UNEVEN, compared(lambda: contrast.Contrast(contrast.InfoNCE()))),
    "contrast: info_nce within": (UNEVEN, compared(lambda: contrast.Contrast(contrast.InfoNCE(), within=True))),
    "contrast: views and codes": (UNEVEN, compared(lambda: contrast.Contrast(contrast.Decoupled()), codes=3, views=2)),
    "contrast: margin by distance, actions": (
        UNEVEN,
        compared(lambda: contrast.Contrast(contrast.Hinge(0.1, 0.1)), action_dim=2),
    ),
    "contrast: siglip": (UNEVEN, compared(lambda: contrast.Contrast(contrast.PairwiseSigmoid(), symmetric=False))),
    "contrast: in blocks": (UNEVEN, compared(lambda: contrast.Contrast(contrast.Siamese(), chunk=1), codes=3)),
    "contrast: mined": (UNEVEN, compared(lambda: contrast.Contrast(contrast.Hinge(), negatives.Mined(2)), codes=3)),
    "contrast: uniform": (UNEVEN, compared(lambda: contrast.Contrast(contrast.Hinge(), negatives.Sampled(3)))),
    "contrast: uniform within": (
        UNEVEN,
        compared(lambda: contrast.Contrast(contrast.InfoNCE(), negatives.Sampled(3), within=True, chunk=1)),
    ),
    "contrastive divergence": (UNEVEN, compared(lambda: chains.ContrastiveDivergence(steps=2), codes=3, fixed_y=True)),
    "contrastive divergence, persistent": (
        UNEVEN,
        compared(lambda: chains.ContrastiveDivergence(steps=2, buffer=20, dim=4, restart=0.5), fixed_y=True),
    ),
    "score matching": (UNEVEN, compared(chains.ScoreMatching, codes=3, fixed_y=True)),
    "inverse dynamics": (UNEVEN, compared(lambda: seeded(lambda: temporal.InverseDynamics(4, 2)), action_dim=2)),
    "slowness": (UNEVEN, statistic(lambda x, y: temporal.slowness(torch.stack([x, y], -2)), 6)),
    "straightening": (UNEVEN, statistic(lambda x, y: temporal.straightening(torch.stack([x, y, x * y], -2)), 6)),
    "centroid norm": (UNEVEN, statistic(lambda x, y: volume.centroid_norm(x - 9), 6, views=2)),
    "centroid norm, n < d": (UNEVEN, statistic(lambda x, y: volume.centroid_norm(x - 9), 20, views=2)),
    "local norm": (UNEVEN, statistic(lambda x, y: volume.local_norm(x - 9), 6, views=2)),
    "coding rate": (UNEVEN, statistic(lambda x, y: volume.coding_rate(x - 9), 6, views=2)),
    "coding rate, n < d": (UNEVEN, statistic(lambda x, y: volume.coding_rate(x - 9), 20)),
    "sliced wasserstein": (UNEVEN, statistic(lambda x, y: rectified.sliced_wasserstein(x, TARGET, A6), 6, views=2)),
    "mmcr objective": (UNEVEN, objective(principles.mmcr)),
    "coding_rate objective": (UNEVEN, objective(principles.coding_rate)),
    "rdmreg objective": (UNEVEN, objective(lambda: principles.rdmreg(slices=64))),
    "info_nce objective": (UNEVEN, objective(contrastive.info_nce)),
    "siglip objective": (UNEVEN, objective(contrastive.siglip)),
    "triplet objective": (UNEVEN, objective(contrastive.triplet)),
    "align_uniform objective": (EVEN, objective(contrastive.align_uniform)),
    "vicreg objective": (EVEN, objective(principles.vicreg)),
    "vicregl objective": (EVEN, objective(principles.vicregl, parts=True)),
    "vicreg objective, n < d": (EVEN, objective(principles.vicreg, dim=20)),
    "barlow_twins objective": (EVEN, objective(principles.barlow_twins, final_norm=True)),
    "sigreg objective": (EVEN, objective(lambda: principles.sigreg(weight=0.5, slices=64))),
    "byol objective": (EVEN, distilled("byol")),
    "dino objective": (EVEN, distilled("dino")),
    "visreg objective": (EVEN, objective(lambda: principles.visreg(weight=0.5, slices=64))),
}


def main(rank: int, folder: Path) -> None:
    """Run every case on this rank and save what it gives."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {
        f"{name}|{key}": value.numpy()
        for name, (parts, case) in CASES.items()
        for key, value in case(parts[rank]).items()
    }
    np.savez(folder / f"rank-{rank}.npz", **results)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
