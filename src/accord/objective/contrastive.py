"""Training principles that push the energy of chosen pairs up: each is a short list of weighted terms.

They contrast the free energy, so a predictor and a latent are trained with the encoders. Which cost goes with which is said with
each: a temperature or a margin is in units of energy. `negatives` are all others of the batch (of all ranks) unless told otherwise.
"""

from __future__ import annotations

from accord.model.joint_embedding import JointEmbedding
from accord.model.latent import not_negative
from accord.objective.chains import ContrastiveDivergence, ScoreMatching
from accord.objective.contrast import (
    Contrast,
    Decoupled,
    Hinge,
    InfoNCE,
    Logistic,
    PairwiseSigmoid,
    Siamese,
    Spectral,
    SquareSquare,
)
from accord.objective.loss import Objective, Terms, free_energy
from accord.objective.negatives import Negatives
from accord.objective.uniformity import Uniformity


def info_nce(*, temperature: float = 0.2, within: bool = False, negatives: Negatives | None = None) -> Terms:
    r"""InfoNCE: each x is to find its y among those of the batch by its energy, and each y its x.

    Mean of both directions of $-\log (e^{-F^+/\tau} / \sum_j e^{-F_j/\tau})$, the pair included in the sum. With the cost `cosine` and
    no predictor this is the loss of CLIP (Radford et al. 2021, arXiv:2103.00020) at a fixed temperature; with ``within=True`` it is
    NT-Xent (Chen et al. 2020, arXiv:2002.05709), whose sum also runs over the views on the row's own side. Van den Oord, Li, Vinyals
    2018, arXiv:1807.03748.

    Args:
        temperature: $\tau$ in units of energy; with `cosine`, 0.05 to 0.5.
        within: compare x with the x of other pairs as well: for two views with one encoder.
        negatives: which pairs do not belong together.

    Raises:
        UsageError: a number that is out of bounds.

    Example:
        >>> model = JointEmbedding(encoder, encoder, IdentityPredictor(), cost=cosine)
        >>> objective = contrastive(model, info_nce(temperature=0.2))
    """
    return {"info_nce": (1.0, Contrast(InfoNCE(temperature), negatives, within=within))}


def dcl(*, temperature: float = 0.2, within: bool = False, negatives: Negatives | None = None) -> Terms:
    r"""DCL: `info_nce` without the pair in the sum, which makes small batches learn as well as large ones.

    Yeh et al. 2022, arXiv:2110.06848; theirs has ``within=True``.

    Args:
        temperature: $\tau$ in units of energy, for the cost `cosine`.
        within: compare x with the x of other pairs as well: for two views with one encoder.
        negatives: which pairs do not belong together.

    Raises:
        UsageError: a number that is out of bounds.
    """
    return {"dcl": (1.0, Contrast(Decoupled(temperature), negatives, within=within))}


def siglip(*, scale: float = 10.0, bias: float = -10.0, negatives: Negatives | None = None) -> Terms:
    r"""SigLIP: each pair by itself is one or is none, $-\frac1N \sum_{ij} \log \sigma(\ell_{ij} (t (1 - F_{ij}) + b))$.

    $\ell = 1$ for i = j, else -1; t and b are learned. Made for two encoders and the cost `cosine`. The sum over j is no mean: the loss
    grows with the batch. Zhai, Mustafa, Kolesnikov, Beyer 2023, arXiv:2303.15343.

    Args:
        scale: t at the start.
        bias: b at the start.
        negatives: which pairs do not belong together.

    Raises:
        UsageError: a number that is out of bounds.
    """
    return {"siglip": (1.0, Contrast(PairwiseSigmoid(scale, bias), negatives, symmetric=False))}


def triplet(*, margin: float = 0.5, by_distance: float = 0.0, negatives: Negatives | None = None) -> Terms:
    r"""Triplets: a wrong partner is to have an energy above that of the right one by a margin, $\max(0, F^+ - F^- + m)$.

    Mean over both directions and all negatives. With `by_distance` the margin is $m + \mu \frac1D \lVert s_y - s_{\hat y} \rVert^2$. For
    the cost `cosine`: without bounds on the embeddings a margin asks for little. Schroff, Kalenichenko, Philbin 2015, arXiv:1503.03832.

    Args:
        margin: m in units of energy.
        by_distance: $\mu$.
        negatives: which pairs do not belong together; ``Mined(1)`` for those that matter most.

    Raises:
        UsageError: a number that is out of bounds.
    """
    return {"triplet": (1.0, Contrast(Hinge(margin, by_distance), negatives))}


def siamese(*, margin: float = 1.0, negatives: Negatives | None = None) -> Terms:
    r"""DrLIM: pairs together, others at a distance of m or more, $\frac12 D_+^2 + \frac12 \max(0, m - D_-)^2$ with $D = \sqrt F$.

    Mean over all negatives of a row, then over rows. Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant
    Mapping".

    Args:
        margin: m in units of the root of the energy; with `cosine`, up to $\sqrt 2$.
        negatives: which pairs do not belong together.

    Raises:
        UsageError: a number that is out of bounds.
    """
    return {"siamese": (1.0, Contrast(Siamese(margin), negatives, symmetric=False))}


def square_square(*, margin: float = 1.0, negatives: Negatives | None = None) -> Terms:
    r"""Square-square: $(F^+)^2 + \max(0, m - F^-)^2$, the mean over all negatives of a row, then over rows.

    LeCun, Chopra, Hadsell, Ranzato, Huang 2006, "A Tutorial on Energy-Based Learning".

    Args:
        margin: m in units of energy.
        negatives: which pairs do not belong together.

    Raises:
        UsageError: a number that is out of bounds.
    """
    return {"square_square": (1.0, Contrast(SquareSquare(margin), negatives, symmetric=False))}


def logistic(*, temperature: float = 0.1, negatives: Negatives | None = None) -> Terms:
    r"""Logistic: $\log(1 + e^{(F^+ - F^-)/\tau})$, a soft margin; the mean of both directions and all negatives.

    LeCun, Chopra, Hadsell, Ranzato, Huang 2006, "A Tutorial on Energy-Based Learning", where $\tau = 1$ and energies have no
    bound; the default is for the cost `cosine`.

    Args:
        temperature: $\tau$ in units of energy.
        negatives: which pairs do not belong together.

    Raises:
        UsageError: a number that is out of bounds.
    """
    return {"logistic": (1.0, Contrast(Logistic(temperature), negatives))}


def spectral(*, mu: float = 1.0, negatives: Negatives | None = None) -> Terms:
    r"""Spectral contrastive loss, $-2\,\mathbb E[f \cdot f^+] + \mathbb E[(f \cdot f')^2]$, for the cost `cosine`.

    $f \cdot f' = \mu (1 - F)$: embeddings count as if they had length $\sqrt\mu$. HaoChen, Wei, Gaidon, Ma 2021, arXiv:2106.04156.

    Args:
        mu: squared length.
        negatives: which pairs do not belong together.

    Raises:
        UsageError: a number that is out of bounds.
    """
    return {"spectral": (1.0, Contrast(Spectral(mu), negatives, symmetric=False))}


def align_uniform(*, alignment: float = 1.0, uniformity: float = 1.0, t: float = 2.0) -> Terms:
    r"""Alignment and uniformity: $\mathbb E \lVert f - f^+ \rVert^2 + \log \mathbb E\, e^{-t \lVert f - f' \rVert^2}$ on the sphere.

    For the cost `cosine`, with which $\lVert f - f^+ \rVert^2 = 2 F$: hence the weight 2 on the free energy. Uniformity is averaged over
    the branches. Wang, Isola 2020, arXiv:2005.10242.

    Args:
        alignment: weight of the first.
        uniformity: weight of the second.
        t: sharpness of the potential.

    Raises:
        UsageError: a number that is out of bounds.
    """
    not_negative(alignment=alignment, uniformity=uniformity)
    return {"free_energy": (2 * alignment, free_energy), "uniformity": (uniformity, Uniformity(t))}


def contrastive_divergence(
    *,
    steps: int = 20,
    step_size: float = 0.5,
    noise: float = 0.1,
    alpha: float = 0.1,
    buffer: int = 0,
    dim: int = 0,
    seed: int = 0,
) -> Terms:
    r"""Contrastive divergence: $F^+ - F^- + \alpha ((F^+)^2 + (F^-)^2)$, negatives made by steps downhill from $s_y$.

    For a y whose encoder is fixed; see `ContrastiveDivergence`, also for the arguments. Hinton 2002; Du, Mordatch 2019, arXiv:1903.08689.

    Raises:
        UsageError: a number that is out of bounds.
    """
    term = ContrastiveDivergence(
        steps=steps, step_size=step_size, noise=noise, alpha=alpha, buffer=buffer, dim=dim, seed=seed
    )
    return {"contrastive_divergence": (1.0, term)}


def score_matching(*, sigma: float = 0.2, beta: float | None = None, seed: int = 0) -> Terms:
    r"""Denoising score matching, $\mathbb E \lVert \beta\, \partial F(s_y + \sigma \epsilon) / \partial s_y - \epsilon / \sigma \rVert^2$.

    For a y whose encoder is fixed; see `ScoreMatching`, also for the arguments. Vincent 2011.

    Raises:
        UsageError: a number that is not above 0.
    """
    return {"score_matching": (1.0, ScoreMatching(sigma=sigma, beta=beta, seed=seed))}


def contrastive(model: JointEmbedding, principle: Terms | None = None) -> Objective:
    """`model` trained with negatives: pairs pull their energy down, pairs that do not belong together push theirs up.

    Args:
        model: the energy; give it the cost that the principle is made for (`cosine` for most).
        principle: weighted terms, InfoNCE by default. Terms with state belong to one objective: make new ones for another.

    Example:
        >>> objective = contrastive(model, triplet(negatives=Mined(1)))
    """
    return Objective(model, info_nce() if principle is None else principle)
