"""Training principles without negatives and without a regularizer: predict what a teacher makes of y.

The teacher is the encoder of y: a `MovingAverage` of the encoder of x, or itself without gradient (`StopGradient`). What each
principle minimises is its energy: it differs from the others in the cost, the predictor and the pairs of the model, and the terms
here only say in what units.
"""

from __future__ import annotations

from accord.errors import UsageError
from accord.model.joint_embedding import JointEmbedding
from accord.model.teacher import Teacher
from accord.objective.loss import Objective, Terms, free_energy


def byol() -> Terms:
    r"""BYOL: $2 - 2 \cos(\mathrm{Pred}(s_x), \bar s_y)$, mean over pairs: twice the free energy under `cosine`.

    With a `MovingAverage` as encoder of y, an `MLPPredictor` and pairs that count both ways (of which the authors take the sum, here
    the mean is taken). Grill et al. 2020, arXiv:2006.07733.
    """
    return {"free_energy": (2.0, free_energy)}


def simsiam() -> Terms:
    r"""SimSiam: $-\tfrac12 \cos(\mathrm{Pred}(s_1), s_2) - \tfrac12 \cos(\mathrm{Pred}(s_2), s_1)$, plus 1: the free energy under `cosine`.

    With `StopGradient` as encoder of y, an `MLPPredictor` and pairs that count both ways. Chen, He 2021, arXiv:2011.10566.
    """
    return {"free_energy": (1.0, free_energy)}


def dino() -> Terms:
    r"""DINO: $\mathrm{KL}(p \,\|\, q)$ of the teacher's to the student's prototypes: the free energy under `CentredDivergence`.

    The gradient is that of the authors' cross-entropy, mean over pairs.
    With a `MovingAverage` as encoder of y, `Prototypes` at the end of the projector, and no predictor. Caron et al. 2021,
    arXiv:2104.14294.
    """
    return {"free_energy": (1.0, free_energy)}


def jepa() -> Terms:
    r"""I-JEPA: the distance of the prediction to what the teacher makes of hidden blocks, mean over blocks: the free energy.

    With a `MovingAverage` as encoder of y, a predictor that is told where a block lies (`Pair.action`), and
    ``masked_blocks(whole=True)``. The cost is `smooth_l1` or `squared_error`. Unlike I-JEPA a block is described by the mean over its
    patches, not by each, and the predictor sees the mean over the visible ones. Assran et al. 2023, arXiv:2301.08243.
    """
    return {"free_energy": (1.0, free_energy)}


def distilled(model: JointEmbedding, principle: Terms | None = None, *, symmetric: bool = True) -> Objective:
    """`model` trained to predict what its teacher makes of y; nothing but the teacher keeps the embeddings from collapsing.

    Args:
        model: the energy; its encoder of y is a teacher whose student is its encoder of x.
        principle: weighted terms, BYOL by default.
        symmetric: pairs count both ways; False where x and y cannot be exchanged (`jepa`, small crops).

    Raises:
        UsageError: if the model has no teacher, or a teacher of another student.

    In a loop of your own call ``objective.before_step(progress)`` before and ``objective.after_step()`` after each step.

    Example:
        >>> model = JointEmbedding(encoder, MovingAverage(encoder), MLPPredictor(dim=128), cost=cosine)
        >>> objective = distilled(model, byol())
    """
    if not isinstance(model.encoder_y, Teacher) or model.encoder_y.student is not model.encoder_x:
        raise UsageError(
            "the encoder of y is no teacher of the encoder of x: both would agree on a constant",
            where="encoder_y",
            help="use MovingAverage(encoder) or StopGradient(encoder), with the encoder of x",
            code="E217",
        )
    return Objective(model, byol() if principle is None else principle, symmetric=symmetric)
