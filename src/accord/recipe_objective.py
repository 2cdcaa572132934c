"""The part of a recipe that says by which principle a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accord.recipe_base import Count, Finite, Fraction, NotNegative, Positive, Section
from accord.recipe_rivals import Rival


class VICReg(Section):
    """Bardes, Ponce, LeCun 2022, arXiv:2105.04906, weights in the convention of the authors' code."""

    name: Literal["vicreg"]
    invariance: NotNegative = 25.0
    variance: NotNegative = 25.0
    covariance: NotNegative = 1.0


class VICRegL(Section):
    """Bardes, Ponce, LeCun 2022, arXiv:2210.01571: VICReg of images (alpha) and of their positions, of which some are matched."""

    name: Literal["vicregl"]
    invariance: NotNegative = 25.0
    variance: NotNegative = 25.0
    covariance: NotNegative = 1.0
    alpha: Fraction = 0.75
    matches: Count = 6


class BarlowTwins(Section):
    """Zbontar et al. 2021, arXiv:2103.03230."""

    name: Literal["barlow_twins"]
    off_diagonal: NotNegative = 0.005


class SIGReg(Section):
    """Balestriero, LeCun 2025, arXiv:2511.08544."""

    name: Literal["sigreg"]
    weight: Fraction = 0.05
    slices: Count = 1024


class VISReg(Section):
    """arXiv:2606.02572."""

    name: Literal["visreg"]
    weight: Fraction = 0.9
    slices: Count = 4096


class MMCR(Section):
    """Yerxa, Kuang, Simoncelli, Chung 2023, arXiv:2303.03307."""

    name: Literal["mmcr"]
    local: NotNegative = 5e-3


class CodingRate(Section):
    """Yu et al. 2020, arXiv:2006.08558; Tong, Chen, Ma, LeCun 2023, arXiv:2304.03977 (EMP-SSL)."""

    name: Literal["coding_rate"]
    invariance: NotNegative = 200.0
    eps: Positive = 0.2


class RDMReg(Section):
    """Kuang et al. 2026, arXiv:2602.01456: rectified embeddings, which are sparse."""

    name: Literal["rdmreg"]
    invariance: NotNegative = 25.0
    weight: NotNegative = 250.0
    mu: Finite = 0.0
    p: Positive = 1.0
    slices: Count = 1024


class Contrastive(Section):
    """What principles with negatives have in common: all others of the batch, `count` at random, or the `count` of lowest energy."""

    negatives: Literal["in_batch", "uniform", "hardest", "semi_hard"] = "in_batch"
    count: Count = 16


class InfoNCE(Contrastive):
    """Van den Oord, Li, Vinyals 2018, arXiv:1807.03748; `within` makes it NT-Xent (Chen et al. 2020, arXiv:2002.05709)."""

    name: Literal["info_nce"]
    temperature: Positive = 0.2
    within: bool = False


class DCL(Contrastive):
    """Yeh et al. 2022, arXiv:2110.06848."""

    name: Literal["dcl"]
    temperature: Positive = 0.2
    within: bool = False


class SigLIP(Contrastive):
    """Zhai, Mustafa, Kolesnikov, Beyer 2023, arXiv:2303.15343."""

    name: Literal["siglip"]
    scale: Positive = 10.0
    bias: Finite = -10.0


class Triplet(Contrastive):
    """Schroff, Kalenichenko, Philbin 2015, arXiv:1503.03832."""

    name: Literal["triplet"]
    margin: NotNegative = 0.5
    by_distance: NotNegative = 0.0


class Siamese(Contrastive):
    """Hadsell, Chopra, LeCun 2006 (DrLIM)."""

    name: Literal["siamese"]
    margin: Positive = 1.0


class SquareSquare(Contrastive):
    """LeCun, Chopra, Hadsell, Ranzato, Huang 2006."""

    name: Literal["square_square"]
    margin: Positive = 1.0


class Logistic(Contrastive):
    """LeCun, Chopra, Hadsell, Ranzato, Huang 2006."""

    name: Literal["logistic"]
    temperature: Positive = 0.1


class Spectral(Contrastive):
    """HaoChen, Wei, Gaidon, Ma 2021, arXiv:2106.04156."""

    name: Literal["spectral"]
    mu: Positive = 1.0


class AlignUniform(Section):
    """Wang, Isola 2020, arXiv:2005.10242."""

    name: Literal["align_uniform"]
    alignment: NotNegative = 1.0
    uniformity: NotNegative = 1.0
    t: Positive = 2.0


class ContrastiveDivergence(Section):
    """Hinton 2002: for a y that is its own embedding (encoder_y.name = "identity")."""

    name: Literal["contrastive_divergence"]
    steps: Count = 20
    step_size: Positive = 0.5
    noise: NotNegative = 0.1
    alpha: NotNegative = 0.1


class ScoreMatching(Section):
    """Vincent 2011: for a y that is its own embedding (encoder_y.name = "identity")."""

    name: Literal["score_matching"]
    sigma: Positive = 0.2
    beta: Positive | None = None


GivenYSection = ContrastiveDivergence | ScoreMatching
ContrastiveSection = InfoNCE | DCL | SigLIP | Triplet | Siamese | SquareSquare | Logistic | Spectral | AlignUniform


class Distilled(Section):
    """What principles with a teacher as encoder of y have in common: whether pairs count both ways, (x, y) and (y, x)."""

    symmetric: bool = True


class BYOL(Distilled):
    """Grill et al. 2020, arXiv:2006.07733: twice the free energy, whose cost is the cosine."""

    name: Literal["byol"]


class SimSiam(Distilled):
    """Chen, He 2021, arXiv:2011.10566: the free energy, whose cost is the cosine."""

    name: Literal["simsiam"]


class DINO(Distilled):
    """Caron et al. 2021, arXiv:2104.14294: the free energy, whose cost is the divergence from a centred, sharpened teacher."""

    name: Literal["dino"]
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.04
    centre_momentum: Fraction = 0.9


class JEPA(Distilled):
    """Assran et al. 2023, arXiv:2301.08243: the free energy of hidden blocks, within the whole image."""

    name: Literal["jepa"]
    symmetric: bool = False


DistilledSection = BYOL | SimSiam | DINO | JEPA

RegularizedSection = VICReg | VICRegL | BarlowTwins | SIGReg | VISReg | MMCR | CodingRate | RDMReg

ObjectiveSection = Annotated[
    RegularizedSection | ContrastiveSection | GivenYSection | DistilledSection | Rival, Field(discriminator="name")
]
