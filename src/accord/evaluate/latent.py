r"""What z is worth: how much it tells, whether it cheats, how well it is found, and the name of what is wrong with it.

The tests for cheating (LeCun 2022, section 4.5; Garrido et al. 2026, arXiv:2601.05230): put another x in the place of x and infer z
again, and F must rise, or z says everything; keep z and put another x in its place, and E must rise, or the predictor ignores x; draw z
from the prior, and E must rise, or z says nothing.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from accord.diagnostics import auroc
from accord.evaluate.energy import pair_energies, random_other
from accord.evaluate.features import Embedded, Stop, evaluating, never
from accord.evaluate.gaps import gaps
from accord.model.codebook import Codebook, ConditionalPrior
from accord.model.continuous import Gaussian
from accord.model.energy import Energy
from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import Deterministic
from accord.model.minimize import Enumerate
from accord.model.variational import Variational

PAIRS = 1000
"""Pairs that are looked at, at most."""
DRAWS = 8
"""Draws from the prior for each pair."""
POINTS = 61
BEYOND = 0.25
"""Points on the segment between two hypotheses, and how far it is prolonged at both ends."""
SAME = 0.6
"""Two sets of energies whose AUROC is below cannot be told apart for a user's purposes."""
LITTLE = 0.05
"""A rise of energy below this share of what it could be is none."""
USED, ALIVE = 0.1, 0.5
"""A code is in use from a tenth of an equal share on; a codebook is alive while half of its codes are."""


class Found(NamedTuple):
    """Mean energies of matched pairs, and the z of each pair."""

    inferred: Tensor
    prior: Tensor
    permuted_x: Tensor
    transplanted: Tensor
    z: Tensor


def summary(
    model: JointEmbedding, embedded: Embedded, content: Shaped[np.ndarray, "n"], *, seed: int = 0, stop: Stop = never
) -> dict[str, object] | None:
    """Everything about the latent of a model, from at most 1,000 pairs; None for a deterministic one.

    Args:
        model: left in the mode it had.
        embedded: of pairs that were not trained on.
        content: of the samples, so that another x is truly another.
        seed: of permutation and draws.
        stop: called between the parts.

    Returns:
        name, dim, capacity (nats, None where it is not bounded), minimizer;
        free_energy: means of F, of E with z from the prior, of F with x permuted and z inferred again, and of E with z kept on another x;
        information: price (nats), kl (nats, of a variational posterior), perplexity and usage of each block of codes, codes,
        mutual (nats: I(z; s_y | s_x)); gaps: amortisation and optimisation, in units of energy; capacity_curve; wells; verdicts.
    """
    if isinstance(model.latent, Deterministic):
        return None
    pairs = _first(embedded, PAIRS)
    some = content[: len(pairs.s_x)]
    found = _energies(model, pairs, random_other(some, seed), seed)
    stop()
    told = _information(model, pairs, found.z)
    stop()
    mismatched = pairs._replace(s_y=pairs.s_y[random_other(some, seed + 1)])
    curve = _capacity_curve(model, pairs, mismatched)
    stop()
    means = {key: float(value.mean()) for key, value in found._asdict().items() if key != "z"}
    return {
        "name": type(model.latent).__name__,
        "dim": model.latent.dim,
        "capacity": model.latent.capacity if math.isfinite(model.latent.capacity) else None,
        "minimizer": type(model.minimizer).__name__,
        "free_energy": means,
        "information": told,
        "gaps": gaps(model, _first(pairs, 256)),
        "capacity_curve": curve,
        "wells": _wells(model, pairs),
        "verdicts": verdicts(found, told),
    }


def _first(embedded: Embedded, count: int) -> Embedded:
    action = None if embedded.action is None else embedded.action[:count]
    return Embedded(embedded.s_x[:count], embedded.s_y[:count], embedded.s_y_damaged[:count], action)


def _energy(model: JointEmbedding, pairs: Embedded, device: torch.device) -> Energy:
    action = None if pairs.action is None else pairs.action.to(device)
    return model.energy(pairs.s_x.to(device), pairs.s_y.to(device), action)


def _energies(model: JointEmbedding, pairs: Embedded, other: Int64[Tensor, "n"], seed: int) -> Found:
    """Energies of the tests for cheating, (n,) each, float64 on the CPU."""
    moved = pairs._replace(s_x=pairs.s_x[other], action=None if pairs.action is None else pairs.action[other])
    with evaluating(model) as device:
        energy = _energy(model, pairs, device)
        minimum = model.minimizer(energy)
        generator = torch.Generator().manual_seed(seed)
        drawn = [energy(model.latent.sample((len(pairs.s_x),), energy.s_x, generator)) for _ in range(DRAWS)]
        kept = _energy(model, moved, device)(minimum.argmin)
    return Found(
        inferred=minimum.value.double().cpu(),
        prior=torch.stack(drawn).mean(0).double().cpu(),
        permuted_x=pair_energies(model, moved.s_x, moved.s_y, moved.action),
        transplanted=kept.double().cpu(),
        z=minimum.argmin.cpu(),
    )


# --- information ---


def codebook(model: JointEmbedding) -> Codebook | None:
    """The codes of a latent that is a choice, None for others."""
    latent = model.latent
    return latent.codebook if isinstance(latent, ConditionalPrior) else latent if isinstance(latent, Codebook) else None


def _information(model: JointEmbedding, pairs: Embedded, z: Tensor) -> dict[str, object]:
    told: dict[str, object] = dict.fromkeys(("kl", "perplexity", "usage", "codes", "mutual"))
    with evaluating(model) as device:
        energy = _energy(model, pairs, device)
        told["price"] = float(model.latent.price(z.to(device), energy.s_x).double().mean())
        if isinstance(model.minimizer, Variational) and isinstance(model.latent, Gaussian):
            mean, log_variance = model.minimizer.posterior(energy).chunk(2, -1)
            told["kl"] = told["mutual"] = float(model.latent.divergence(mean, log_variance).double().mean())
        book = codebook(model)
        if book is not None:
            index = book.index(z.to(device)).cpu()
            usage = [torch.bincount(column, minlength=book.table.shape[1]) / len(column) for column in index.T]
            told["codes"] = book.table.shape[1]
            told["usage"] = [share.tolist() for share in usage]
            told["perplexity"] = [math.exp(_entropy(share)) for share in usage]
            told["mutual"] = sum(_entropy_given(pairs.s_x, column) for column in index.T)
    return told


def _entropy(p: Float[Tensor, "codes"]) -> float:
    return -float(torch.special.xlogy(p, p).sum())


def _entropy_given(s_x: Float[Tensor, "n dim"], code: Int64[Tensor, "n"]) -> float:
    r"""H(z | s_x) in nats, from above: held-out cross-entropy of a logistic classifier in five folds, at most H(z).

    At zero temperature z is a function of the pair, so that I(z; s_y | s_x) = H(z | s_x). The strength of the classifier's penalty
    is the best of four.
    """
    marginal = _entropy(torch.bincount(code) / len(code))
    x, c = s_x.double().numpy(), code.numpy()
    if len(c) < 50 or len(np.unique(c)) < 2:
        return marginal
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    return min(marginal, *(_cross_entropy(x, c, strength) for strength in (0.01, 0.1, 1.0, 10.0)))


def _cross_entropy(x: np.ndarray, c: np.ndarray, strength: float) -> float:
    """Nats per held-out sample; classes a fold has not seen share the weight of one sample."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    losses = []
    for fit, held in KFold(5, shuffle=True, random_state=0).split(x):
        p = np.full((len(held), int(c.max()) + 1), 1.0 / len(c))
        classes = np.unique(c[fit])
        if len(classes) == 1:
            p[:, classes] += 1
        else:
            with warnings.catch_warnings():  # a fit that stops early is a bound as well
                warnings.simplefilter("ignore", ConvergenceWarning)
                classifier = LogisticRegression(C=strength, max_iter=100).fit(x[fit], c[fit])
            p[:, classes] += classifier.predict_proba(x[held])
        losses.append(-np.log((p / p.sum(1, keepdims=True))[np.arange(len(held)), c[held]]))
    return float(np.concatenate(losses).mean())


# --- pictures of the energy ---


def _capacity_curve(model: JointEmbedding, pairs: Embedded, mismatched: Embedded) -> list[dict[str, float]] | None:
    """F and AUROC against random pairs, if only the k codes are allowed that are cheapest most often; k doubles."""
    if codebook(model) is None or model.latent.candidates() is None:
        return None
    with evaluating(model) as device:
        search = Enumerate()
        matched, random = (search.energies(_energy(model, p, device)).double().cpu() for p in (pairs, mismatched))
    codes = len(matched)
    order = torch.bincount(matched.argmin(0), minlength=codes).argsort(descending=True, stable=True)
    best, other = (e[order].cummin(0).values for e in (matched, random))
    counts = sorted({min(codes, 2**i) for i in range(codes.bit_length() + 1)})
    return [
        {
            "codes": k,
            "nats": math.log(k),
            "free_energy": float(best[k - 1].mean()),
            "auroc": auroc(best[k - 1], other[k - 1]),
        }
        for k in counts
    ]


def _wells(model: JointEmbedding, pairs: Embedded) -> dict[str, object] | None:
    """F of one x along the line through the predictions of two z: the two that most pairs, or two draws, are explained by."""
    with evaluating(model) as device:
        energy = _energy(model, _first(pairs, 1), device)
        z = _two(model, pairs, energy)
        if z is None:
            return None
        first, second = energy.predict(z)[:, 0]
        t = torch.linspace(-BEYOND, 1 + BEYOND, POINTS, device=device)
        line = first + t[:, None].to(first) * (second - first)
        along = model.energy(
            energy.s_x.expand(POINTS, -1), line, None if energy.action is None else energy.action.expand(POINTS, -1)
        )
        hard = (Enumerate() if model.latent.candidates() is not None else model.minimizer)(along).value
        length = float((second - first).square().mean())
        beta, soft = 8 / max(length, 1e-12), None
        if model.latent.candidates() is not None and length > 0:
            soft = Enumerate(beta)(along).value.tolist()
    return {"t": t.tolist(), "energy": hard.tolist(), "soft": soft, "beta": beta, "barrier": length / 4}


def _two(model: JointEmbedding, pairs: Embedded, energy: Energy) -> Tensor | None:
    """Two values of z whose predictions differ, (2, 1, latent)."""
    candidates = model.latent.candidates()
    if candidates is None:
        z = model.latent.sample((64, 1), energy.s_x, torch.Generator().manual_seed(0))
    elif len(candidates) < 2:
        return None
    else:
        index = Enumerate().energies(_energy(model, pairs, energy.s_x.device)).argmin(0)
        z = candidates[torch.bincount(index, minlength=len(candidates)).argsort(descending=True)[:16], None]
    apart = (energy.predict(z) - energy.predict(z[:1])).square().mean((-2, -1))
    return torch.stack([z[0], z[int(apart.argmax())]])


# --- verdicts ---


def verdicts(found: Found, told: dict[str, object]) -> list[dict[str, str]]:
    """What is wrong with the latent, by name, with what was seen and a remedy."""
    wrong: list[dict[str, str]] = []
    inferred, prior, permuted, kept = (float(v.mean()) for v in found[:4])
    told_apart = auroc(found.inferred, found.permuted_x)
    if told_apart < SAME and (prior - inferred) > 0.5 * max(kept, prior):
        wrong.append(
            _verdict(
                "latent-takes-all",
                f"with another x in its place, z inferred again explains y as well: AUROC {told_apart:.2f}, chance is 0.50",
                "limit z: fewer codes or dimensions, a higher weight of its price, more noise",
            )
        )
    elif told_apart < SAME:
        wrong.append(
            _verdict(
                "flat energy",
                f"the energy of another x is not higher: AUROC {told_apart:.2f}, chance is 0.50, and z matters little",
                "check that x and y of a pair belong together; raise the weight of the invariance",
            )
        )
    kl = told["kl"]
    rise = prior - inferred
    if rise < LITTLE * max(permuted - inferred, 0.0) or (isinstance(kl, float) and kl < LITTLE):
        wrong.append(
            _verdict(
                "dead latent",
                f"a z from the prior is as good as the inferred one: energy {prior:.3g} against {inferred:.3g}",
                "lower the price of z, give it more room, or accept that x determines y: a deterministic model does as well",
            )
        )
    usage = told["usage"]
    for block, share in enumerate(usage if isinstance(usage, list) else []):
        used = sum(p > USED / len(share) for p in share)
        if used < max(2, ALIVE * len(share)):
            wrong.append(
                _verdict(
                    "codebook death",
                    f"{used} of {len(share)} codes of block {block} are in use",
                    "set latent.reseed or latent.usage, anneal the temperature (minimizer.anneal), or use fewer codes",
                )
            )
            break
    return wrong


def _verdict(kind: str, explanation: str, remedy: str) -> dict[str, str]:
    return {"kind": kind, "explanation": explanation, "remedy": remedy}
