r"""What y could be when only x is known: the predictions of lowest energy, and the real y's that are nearest to them.

A prediction is its own y, so its divergence is 0 and its energy is the price of its z: $E(x, \mathrm{Pred}(s_x, z), z) = R(z \mid s_x)$.
The hypotheses of an x are the predictions of K cheap z: all z in order of their price where they are codes, and draws from the prior
that differ most where they are vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from accord.errors import UsageError
from accord.evaluate.features import evaluating
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.energy import Energy, between, cosine, squared_error
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Latent, counts
from accord.model.minimize import draws as drawn

ELEMENTS = 1 << 22
"""Numbers in the predictions, or in the distances, that are made at a time (16 MB)."""
DRAWS = 256
"""Draws from the prior among which hypotheses are chosen where z is a vector."""
ROUNDS = 10
"""Rounds in which the chosen draws move into the middle of those that are nearest to them."""
UNUSED = 1e-12
"""Usage of a code that was never used, for the order of codes of equal price."""


class Hypotheses(NamedTuple):
    """The K predictions of each x, cheapest first, on the CPU.

    z: (n, k, latent). code: which code of each block, (n, k, blocks), None where z is no choice of codes.
    energy: R(z | s_x), (n, k). probability: under the prior, (n, k): of this z among all values of a z that is countable; for
    vectors the share of the draws whose predictions are nearest to this one. usage: how often training inferred this z (for several
    blocks the product of their shares), (n, k), None without codes. s_y_hat: predicted embeddings, (n, k, dim).
    """

    z: Tensor
    code: Tensor | None
    energy: Tensor
    probability: Tensor
    usage: Tensor | None
    s_y_hat: Tensor


class Chosen(NamedTuple):
    """The z of some x: as in `Hypotheses`."""

    z: Tensor
    code: Tensor | None
    energy: Tensor
    probability: Tensor
    usage: Tensor | None


class Neighbours(NamedTuple):
    """Real y's near predictions, nearest first: places in the corpus (n, k, count), -1 for none, and D (n, k, count), inf for none."""

    place: Tensor
    distance: Tensor


class Truth(NamedTuple):
    """What the model says of the y that came true: F (n,), its z (n, latent), the E it has with each hypothesis, and which has least.

    `energy` is (n, k), `nearest` (n,).
    """

    free_energy: Tensor
    z: Tensor
    energy: Tensor
    nearest: Tensor


def hypotheses(
    model: JointEmbedding,
    s_x: Float[Tensor, "n dim"],
    k: int,
    action: Tensor | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    chunk: int = ELEMENTS,
) -> Hypotheses:
    """The k predictions of lowest energy for each x whose y is unknown; fewer where z has fewer values, one if it has none.

    Codes (`Codebook`, `ConditionalPrior`, however many their products are): the k cheapest, exactly; of equal price the one that
    training used more often comes first. Any other countable z: the k cheapest. Vectors: `draws` from the prior, the same for every
    x; of the cheaper half k that represent all of them best in the space of predictions (k-medoids, begun with the points farthest
    from one another), cheapest first.

    Args:
        model: left in the mode it had.
        s_x: embeddings of x.
        k: how many.
        action: known causes, (n, action).
        draws: from the prior, for vectors; at least `k`.
        seed: of the draws; the same seed gives the same hypotheses.
        chunk: numbers made at a time; it bounds memory and changes nothing else.

    Raises:
        UsageError: for a latent whose z belongs to a whole sequence, or numbers out of bounds.
    """
    counts(k=k, draws=draws, chunk=chunk)
    how_many(model.latent, k)
    choose = _chooser(model, k, max(draws, k), seed)
    step, parts = max(1, chunk // _numbers(model, s_x.shape[1], k, max(draws, k))), []
    with evaluating(model) as device:
        for start in range(0, max(1, len(s_x)), step):
            rows = slice(start, start + step)
            given, known = s_x[rows].to(device), None if action is None else action[rows].to(device)
            energy = model.energy(given, given, known)
            chosen = choose(energy)
            found = energy.predict(chosen.z.transpose(0, 1)).transpose(0, 1)
            parts.append((*chosen, found.expand(*chosen.z.shape[:2], found.shape[-1])))
    return Hypotheses(*(_joined(column) for column in zip(*parts, strict=True)))


def how_many(latent: Latent, k: int) -> int:
    """How many hypotheses each x has if k are asked for.

    Raises:
        UsageError: for a latent whose z belongs to a whole sequence.
    """
    if latent.coupled:
        raise UsageError(
            f"{type(latent).__name__} has one z for a whole sequence: single pairs have no hypotheses",
            where="latent.name",
            help="use a latent without memory, for example codebook",
            code="E235",
        )
    if isinstance(latent, Codebook | ConditionalPrior):
        blocks, codes, _ = latent.blocks().shape
        return int(min(k, int(codes) ** int(blocks)))
    candidates = latent.candidates()
    return k if candidates is None else min(k, len(candidates))


def _joined(parts: tuple[Any, ...]) -> Any:
    """One column of several blocks of rows, None where they have none."""
    return None if parts[0] is None else torch.cat([part.cpu() for part in parts])


def _numbers(model: JointEmbedding, dim: int, k: int, draws: int) -> int:
    """How many numbers one x makes."""
    latent, candidates = model.latent, model.latent.candidates()
    if isinstance(latent, Codebook | ConditionalPrior):
        blocks, codes = latent.blocks().shape[:2]
        return max(k * dim, k * int(codes), int(blocks * codes))
    return draws * max(dim, k) if candidates is None else max(k * dim, len(candidates))


def _chooser(model: JointEmbedding, k: int, draws: int, seed: int) -> Callable[[Energy], Chosen]:
    """The way of choosing that suits the latent."""
    latent = model.latent
    if isinstance(latent, Codebook | ConditionalPrior):
        return lambda energy: _codes(latent, energy.s_x, k)
    values = latent.candidates()
    if values is not None:
        return lambda energy: _values(latent, values, energy.s_x, k)
    return lambda energy: _drawn(energy, k, draws, seed, spherical=model.cost is cosine)


def _codes(latent: Codebook | ConditionalPrior, s_x: Tensor, k: int) -> Chosen:
    """Of codes and rows of codes."""
    book = latent.codebook if isinstance(latent, ConditionalPrior) else latent
    if isinstance(latent, ConditionalPrior):
        log_p = latent.log_probability(s_x).double()
    else:
        log_p = book.usage.new_zeros(len(s_x), *book.usage.shape, dtype=torch.float64) - math.log(book.usage.shape[1])
    price = -log_p if isinstance(latent, ConditionalPrior) else torch.zeros_like(log_p)
    code, total, rarity = cheapest(price, -book.usage.double().clamp_min(UNUSED).log(), k)
    blocks = torch.arange(log_p.shape[1], device=code.device)
    probability = log_p.transpose(1, 2)[torch.arange(len(code), device=code.device)[:, None, None], code, blocks]
    return Chosen(book.of(code), code, latent.weight * total, probability.sum(-1).exp(), (-rarity).exp())


def cheapest(
    price: Float[Tensor, "n blocks codes"], rarity: Float[Tensor, "blocks codes"], k: int
) -> tuple[Int64[Tensor, "n k blocks"], Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The k rows of codes whose prices have the least sums, those sums, and the sums of their rarities, which decide between equals.

    Exact however many rows there are: the best k of the first b blocks are among the best k of the first b - 1, each with any code.
    """
    n, _, size = price.shape
    code = torch.zeros(n, 1, 0, dtype=torch.int64, device=price.device)
    total = second = price.new_zeros(n, 1)
    for block in range(price.shape[1]):
        total = (total[:, :, None] + price[:, block, None, :]).flatten(1)
        second = (second[:, :, None] + rarity[block]).flatten(1)
        order = second.argsort(dim=1, stable=True)
        order = order.gather(1, total.gather(1, order).argsort(dim=1, stable=True))[:, :k]
        total, second = total.gather(1, order), second.gather(1, order)
        before = code.gather(1, (order // size)[..., None].expand(-1, -1, block))
        code = torch.cat([before, (order % size)[..., None]], dim=-1)
    return code, total, second


def _values(latent: Latent, values: Float[Tensor, "all latent"], s_x: Tensor, k: int) -> Chosen:
    """Of the values of a z that is countable and has no codes."""
    price = latent.price(values[:, None], s_x).expand(len(values), len(s_x)).T.double()
    place = price.argsort(dim=1, stable=True)[:, :k]
    probability = (-price).softmax(1).gather(1, place)
    return Chosen(values[place], None, latent.weight * price.gather(1, place), probability, None)


def _drawn(energy: Energy, k: int, count: int, seed: int, *, spherical: bool) -> Chosen:
    """Of draws from the prior."""
    latent, n = energy.latent, len(energy.s_x)
    z = drawn(energy, count, seed)
    points = energy.predict(z).expand(count, n, -1).transpose(0, 1).double()
    if spherical:
        points = torch.nn.functional.normalize(points, dim=-1)
    price = latent.price(z, energy.s_x).expand(count, n).T.double()
    place, share = representatives(points, price, k)
    z = z.expand(count, n, -1).transpose(0, 1)
    best = z.gather(1, place[..., None].expand(-1, -1, z.shape[-1]))
    cost = latent.weight * price.gather(1, place)
    order = share.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, cost.gather(1, order).argsort(dim=1, stable=True))
    best = best.gather(1, order[..., None].expand_as(best))
    return Chosen(best, None, cost.gather(1, order), share.gather(1, order), None)


def representatives(
    points: Float[Tensor, "n draws dim"], price: Float[Tensor, "n draws"], k: int
) -> tuple[Int64[Tensor, "n k"], Float[Tensor, "n k"]]:
    """K different draws of the cheaper half that lie in the middle of groups of draws, and the share of each group.

    The first is the cheapest; each further one is farthest from those before; then each moves, a few times, to the draw nearest to
    the mean of its group, which is all draws nearest to it. A group whose draws all coincide with another's may be empty.
    """
    n, count = price.shape
    kept = price.sort(dim=1).values[:, max(k, -(-count // 2)) - 1, None]
    rows, cheap = torch.arange(n, device=price.device)[:, None], price <= kept
    place = price.argmin(1, keepdim=True)
    far = (points - points[rows, place]).square().sum(-1)
    for _ in range(1, k):
        open_ = far.masked_fill(~cheap, -1).scatter(1, place, -2)
        place = torch.cat([place, open_.argmax(1, keepdim=True)], dim=1)
        far = torch.minimum(far, (points - points[rows, place[:, -1:]]).square().sum(-1))
    for _ in range(ROUNDS):
        member = _member(points, points[rows, place])
        size = member.sum(1)
        middle = torch.einsum("nsk,nsd->nkd", member, points) / size.clamp_min(1)[..., None]
        taken = torch.zeros_like(cheap).scatter(1, place, True)[..., None]  # by another group that it coincides with
        own = torch.zeros_like(member, dtype=torch.bool).scatter(1, place[:, None, :], True)
        allowed = (member > 0) & cheap[..., None] & (own | ~taken)
        away = _squares(points, middle).masked_fill(~allowed, math.inf)
        moved = away.argmin(1)
        place_new = torch.where(allowed.any(1), moved, place)
        if torch.equal(place_new, place):
            break
        place = place_new
    return place, _member(points, points[rows, place]).mean(1)


def _member(points: Float[Tensor, "n draws dim"], centre: Float[Tensor, "n k dim"]) -> Float[Tensor, "n draws k"]:
    """1 where a centre is the nearest of all to a draw, the first of equals, else 0."""
    nearest = _squares(points, centre).argmin(-1)
    return torch.nn.functional.one_hot(nearest, centre.shape[1]).to(points)


def _squares(a: Float[Tensor, "n s dim"], b: Float[Tensor, "n k dim"]) -> Float[Tensor, "n s k"]:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def neighbours(
    model: JointEmbedding,
    s_y_hat: Float[Tensor, "n k dim"],
    s_y: Float[Tensor, "m dim"],
    count: int,
    *,
    contents: tuple[Shaped[np.ndarray, "n"], Shaped[np.ndarray, "m"]] | None = None,
    chunk: int = ELEMENTS,
) -> Neighbours:
    """The real y's nearest to each prediction, by the model's own divergence D; E with one of them is D + R(z).

    Where D is a distribution that takes more than a point, predictions are points of it and near is the squared error.

    Args:
        model: whose cost is asked.
        s_y_hat: predictions.
        s_y: embeddings of the real y's.
        count: how many.
        contents: of the x and of the corpus: a y that belongs to the same content as the x is left out, for it would tell the truth.
        chunk: distances made at a time.

    Returns:
        Of `count` places, or as many as the corpus has.
    """
    n, k, dim = s_y_hat.shape
    count = min(count, len(s_y))
    same = None if contents is None else [torch.from_numpy(part.view(np.int64)) for part in contents]
    copies = 1 if between(model.cost) in (squared_error, cosine) else dim  # others make all differences
    width = max(1, min(len(s_y), chunk // (dim * k)))
    rows = max(1, chunk // max(1, k * width * copies))
    place, distance = [], []
    for start in range(0, n, rows):
        some = slice(start, start + rows)
        flat = s_y_hat[some].reshape(-1, 1, dim)
        found = torch.zeros(len(flat), 0, dtype=torch.int64)
        for first in range(0, len(s_y), width):
            far = between(model.cost)(flat, s_y[None, first : first + width])
            if same is not None:
                equal = same[0][some, None] == same[1][None, first : first + width]
                far = far.masked_fill(equal.repeat_interleave(k, 0), math.inf)
            few = min(count, far.shape[1])
            near = far.topk(few, dim=1, largest=False)
            mine = torch.where(near.values.isinf(), -1, near.indices + first)
            found = _best(model, flat, s_y, torch.cat([found, mine], dim=1), count)
        place.append(found.view(-1, k, count))
        distance.append(_exact(model, flat, s_y, found).view(-1, k, count))
    return Neighbours(torch.cat(place), torch.cat(distance)) if place else _none(k, count)


def _none(k: int, count: int) -> Neighbours:
    return Neighbours(torch.zeros(0, k, count, dtype=torch.int64), torch.zeros(0, k, count, dtype=torch.float64))


def _exact(
    model: JointEmbedding, flat: Float[Tensor, "q 1 dim"], s_y: Float[Tensor, "m dim"], place: Int64[Tensor, "q c"]
) -> Float[Tensor, "q c"]:
    """D without the rounding of a matrix product."""
    if not len(s_y):
        return torch.full(place.shape, math.inf, dtype=torch.float64)
    far = between(model.cost)(flat.double(), s_y[place.clamp_min(0)].double())
    return far.masked_fill(place < 0, math.inf)


def _best(model: JointEmbedding, flat: Tensor, s_y: Tensor, place: Int64[Tensor, "q c"], count: int) -> Tensor:
    """The nearest of some places, the lowest of equals."""
    order = place.sort(dim=1).values
    near = order.gather(1, _exact(model, flat, s_y, order).argsort(dim=1, stable=True))
    return near[:, :count]


def truth(
    model: JointEmbedding,
    found: Hypotheses,
    s_x: Float[Tensor, "n dim"],
    s_y: Float[Tensor, "n dim"],
    action: Tensor | None = None,
    *,
    chunk: int = ELEMENTS,
) -> Truth:
    """What a y that is known says of the hypotheses of its x."""
    if not len(s_x):
        nothing = torch.zeros(0, dtype=torch.float64)
        return Truth(nothing, torch.zeros(0, model.latent.dim), found.energy, nothing.long())
    step, parts = max(1, chunk // max(1, s_y.shape[1] * 64)), []
    with evaluating(model) as device:
        for start in range(0, len(s_x), step):
            rows = slice(start, start + step)
            known = None if action is None else action[rows].to(device)
            value, z = model.minimizer(model.energy(s_x[rows].to(device), s_y[rows].to(device), known))
            parts.append((value.double().cpu(), z.cpu()))
        value, z = (torch.cat(column) for column in zip(*parts, strict=True))
        energy = between(model.cost)(found.s_y_hat.double(), s_y[:, None].double()) + found.energy
    return Truth(value, z, energy, energy.argmin(1))
