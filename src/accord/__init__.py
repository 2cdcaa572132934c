"""Regularized latent-variable energy-based models with joint embedding.

A model maps (x, y) to an energy, which is a function of z. A minimiser turns an energy into a minimum, whose value is the
free energy F(x, y). An objective is a weighted sum of plain functions of that inference.

Names are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accord.baselines.flow_matching import FlowMatchingDensity as FlowMatchingDensity
    from accord.baselines.generative import generative as generative
    from accord.baselines.generative import likelihood as likelihood
    from accord.baselines.probabilistic import CommonWidthGaussian as CommonWidthGaussian
    from accord.baselines.probabilistic import FlowDensity as FlowDensity
    from accord.baselines.probabilistic import GaussianDensity as GaussianDensity
    from accord.baselines.probabilistic import MixtureDensity as MixtureDensity
    from accord.data.augment import Augmentation as Augmentation
    from accord.data.augment import VectorAugmentation as VectorAugmentation
    from accord.data.augment_series import SeriesAugmentation as SeriesAugmentation
    from accord.data.augment_text import TextAugmentation as TextAugmentation
    from accord.data.loader import Loader as Loader
    from accord.data.pair import Pair as Pair
    from accord.data.pairing import Pairing as Pairing
    from accord.data.pairing import TwoViews as TwoViews
    from accord.data.pairing import two_views as two_views
    from accord.data.pairing_future import future as future
    from accord.data.pairing_hidden import masked as masked
    from accord.data.pairing_masked import MaskedBlocks as MaskedBlocks
    from accord.data.pairing_masked import masked_blocks as masked_blocks
    from accord.data.pairing_parts import Columns as Columns
    from accord.data.pairing_parts import Halves as Halves
    from accord.data.pairing_parts import columns as columns
    from accord.data.pairing_parts import halves as halves
    from accord.data.pairing_restored import Restoring as Restoring
    from accord.data.pairing_restored import restoring as restoring
    from accord.data.pairing_sides import sides as sides
    from accord.data.random import Draws as Draws
    from accord.data.samples import BadItem as BadItem
    from accord.data.samples import Samples as Samples
    from accord.data.samples import split as split
    from accord.data.series_sources import SeriesOptions as SeriesOptions
    from accord.data.sources import check_source as check_source
    from accord.data.sources import open_source as open_source
    from accord.data.synthetic import Ellipse as Ellipse
    from accord.data.synthetic import Forks as Forks
    from accord.data.synthetic import Jump as Jump
    from accord.data.synthetic import Torus as Torus
    from accord.errors import AccordError as AccordError
    from accord.evaluate.search import Found as Found
    from accord.evaluate.search import search as search
    from accord.model.amortize import Amortize as Amortize
    from accord.model.amortize import Recognition as Recognition
    from accord.model.audio import LogMel as LogMel
    from accord.model.batch_norm import BatchNorm1d as BatchNorm1d
    from accord.model.batch_norm import BatchNorm2d as BatchNorm2d
    from accord.model.centred import CentredDivergence as CentredDivergence
    from accord.model.codebook import Codebook as Codebook
    from accord.model.codebook import ConditionalPrior as ConditionalPrior
    from accord.model.continuous import Gaussian as Gaussian
    from accord.model.continuous import GaussianWalk as GaussianWalk
    from accord.model.continuous import LowDimensional as LowDimensional
    from accord.model.continuous import Noisy as Noisy
    from accord.model.continuous import Sparse as Sparse
    from accord.model.coordinate import Coordinate as Coordinate
    from accord.model.density import Density as Density
    from accord.model.descend import Descend as Descend
    from accord.model.encoder import Branch as Branch
    from accord.model.encoder import Encoder as Encoder
    from accord.model.energy import Cost as Cost
    from accord.model.energy import Energy as Energy
    from accord.model.energy import cosine as cosine
    from accord.model.energy import smooth_l1 as smooth_l1
    from accord.model.energy import squared_error as squared_error
    from accord.model.joint_embedding import JointEmbedding as JointEmbedding
    from accord.model.langevin import Langevin as Langevin
    from accord.model.latent import Deterministic as Deterministic
    from accord.model.latent import Latent as Latent
    from accord.model.markov import Markov as Markov
    from accord.model.markov import Viterbi as Viterbi
    from accord.model.matching import LocalMatching as LocalMatching
    from accord.model.minimize import BestOf as BestOf
    from accord.model.minimize import Enumerate as Enumerate
    from accord.model.minimize import Minimizer as Minimizer
    from accord.model.minimize import Minimum as Minimum
    from accord.model.mlp import MLP as MLP
    from accord.model.multiscale import MultiScale as MultiScale
    from accord.model.newton import gauss_newton as gauss_newton
    from accord.model.newton import steepest as steepest
    from accord.model.normalize import Standardize as Standardize
    from accord.model.predictor import DictionaryPredictor as DictionaryPredictor
    from accord.model.predictor import IdentityPredictor as IdentityPredictor
    from accord.model.predictor import MLPPredictor as MLPPredictor
    from accord.model.predictor import Predictor as Predictor
    from accord.model.projector import Projector as Projector
    from accord.model.projector import Prototypes as Prototypes
    from accord.model.resnet import ResNet as ResNet
    from accord.model.resnet import resnet18 as resnet18
    from accord.model.resnet import resnet34 as resnet34
    from accord.model.resnet import resnet50 as resnet50
    from accord.model.series import SeriesConv as SeriesConv
    from accord.model.series import SeriesTransformer as SeriesTransformer
    from accord.model.sparse_coding import Ista as Ista
    from accord.model.sparse_coding import Lista as Lista
    from accord.model.tabular import Tabular as Tabular
    from accord.model.teacher import MovingAverage as MovingAverage
    from accord.model.teacher import StopGradient as StopGradient
    from accord.model.text import ByteNGrams as ByteNGrams
    from accord.model.text import ByteTransformer as ByteTransformer
    from accord.model.variational import Variational as Variational
    from accord.model.vit import ViT as ViT
    from accord.model.vit import vit_base as vit_base
    from accord.model.vit import vit_small as vit_small
    from accord.model.vit import vit_tiny as vit_tiny
    from accord.objective.contrast import Contrast as Contrast
    from accord.objective.contrastive import align_uniform as align_uniform
    from accord.objective.contrastive import contrastive as contrastive
    from accord.objective.contrastive import contrastive_divergence as contrastive_divergence
    from accord.objective.contrastive import dcl as dcl
    from accord.objective.contrastive import info_nce as info_nce
    from accord.objective.contrastive import logistic as logistic
    from accord.objective.contrastive import score_matching as score_matching
    from accord.objective.contrastive import siamese as siamese
    from accord.objective.contrastive import siglip as siglip
    from accord.objective.contrastive import spectral as spectral
    from accord.objective.contrastive import square_square as square_square
    from accord.objective.contrastive import triplet as triplet
    from accord.objective.distillation import byol as byol
    from accord.objective.distillation import dino as dino
    from accord.objective.distillation import distilled as distilled
    from accord.objective.distillation import jepa as jepa
    from accord.objective.distillation import simsiam as simsiam
    from accord.objective.latent_terms import UsageEntropy as UsageEntropy
    from accord.objective.loss import Inference as Inference
    from accord.objective.loss import Loss as Loss
    from accord.objective.loss import Objective as Objective
    from accord.objective.loss import Term as Term
    from accord.objective.loss import Terms as Terms
    from accord.objective.loss import free_energy as free_energy
    from accord.objective.negatives import InBatch as InBatch
    from accord.objective.negatives import Mined as Mined
    from accord.objective.negatives import Negatives as Negatives
    from accord.objective.negatives import Sampled as Sampled
    from accord.objective.principles import barlow_twins as barlow_twins
    from accord.objective.principles import coding_rate as coding_rate
    from accord.objective.principles import mmcr as mmcr
    from accord.objective.principles import rdmreg as rdmreg
    from accord.objective.principles import regularized as regularized
    from accord.objective.principles import sigreg as sigreg
    from accord.objective.principles import vicreg as vicreg
    from accord.objective.principles import vicregl as vicregl
    from accord.objective.principles import visreg as visreg
    from accord.objective.temporal import InverseDynamics as InverseDynamics
    from accord.objective.temporal import straight as straight
    from accord.objective.temporal import temporal_similarity as temporal_similarity
    from accord.train.checkpoint import load_weights as load_weights
    from accord.train.fit import Fit as Fit
    from accord.train.fit import fit as fit
    from accord.train.optim import LARS as LARS
    from accord.train.optim import SGD as SGD
    from accord.train.optim import AdamW as AdamW


_NAMES = {
    "accord.baselines.flow_matching": "FlowMatchingDensity",
    "accord.baselines.generative": "generative likelihood",
    "accord.baselines.probabilistic": "CommonWidthGaussian FlowDensity GaussianDensity MixtureDensity",
    "accord.data.augment": "Augmentation VectorAugmentation",
    "accord.data.augment_series": "SeriesAugmentation",
    "accord.data.augment_text": "TextAugmentation",
    "accord.data.loader": "Loader",
    "accord.data.pair": "Pair",
    "accord.data.pairing": "Pairing TwoViews two_views",
    "accord.data.pairing_future": "future",
    "accord.data.pairing_hidden": "masked",
    "accord.data.pairing_sides": "sides",
    "accord.data.pairing_masked": "MaskedBlocks masked_blocks",
    "accord.data.pairing_parts": "Columns Halves columns halves",
    "accord.data.pairing_restored": "Restoring restoring",
    "accord.data.random": "Draws",
    "accord.data.samples": "BadItem Samples split",
    "accord.data.series_sources": "SeriesOptions",
    "accord.data.sources": "check_source open_source",
    "accord.data.synthetic": "Ellipse Forks Jump Torus",
    "accord.errors": "AccordError",
    "accord.evaluate.search": "Found search",
    "accord.model.amortize": "Amortize Recognition",
    "accord.model.audio": "LogMel",
    "accord.model.batch_norm": "BatchNorm1d BatchNorm2d",
    "accord.model.centred": "CentredDivergence",
    "accord.model.codebook": "Codebook ConditionalPrior",
    "accord.model.continuous": "Gaussian GaussianWalk LowDimensional Noisy Sparse",
    "accord.model.coordinate": "Coordinate",
    "accord.model.density": "Density",
    "accord.model.descend": "Descend",
    "accord.model.encoder": "Branch Encoder",
    "accord.model.energy": "Cost Energy cosine smooth_l1 squared_error",
    "accord.model.joint_embedding": "JointEmbedding",
    "accord.model.langevin": "Langevin",
    "accord.model.latent": "Deterministic Latent",
    "accord.model.markov": "Markov Viterbi",
    "accord.model.matching": "LocalMatching",
    "accord.model.minimize": "BestOf Enumerate Minimizer Minimum",
    "accord.model.mlp": "MLP",
    "accord.model.multiscale": "MultiScale",
    "accord.model.newton": "gauss_newton steepest",
    "accord.model.normalize": "Standardize",
    "accord.model.predictor": "DictionaryPredictor IdentityPredictor MLPPredictor Predictor",
    "accord.model.projector": "Projector Prototypes",
    "accord.model.resnet": "ResNet resnet18 resnet34 resnet50",
    "accord.model.series": "SeriesConv SeriesTransformer",
    "accord.model.sparse_coding": "Ista Lista",
    "accord.model.tabular": "Tabular",
    "accord.model.teacher": "MovingAverage StopGradient",
    "accord.model.text": "ByteNGrams ByteTransformer",
    "accord.model.variational": "Variational",
    "accord.model.vit": "ViT vit_base vit_small vit_tiny",
    "accord.objective.contrast": "Contrast",
    "accord.objective.contrastive": "align_uniform contrastive contrastive_divergence dcl info_nce logistic "
    "score_matching siamese siglip spectral square_square triplet",
    "accord.objective.distillation": "byol dino distilled jepa simsiam",
    "accord.objective.latent_terms": "UsageEntropy",
    "accord.objective.loss": "Inference Loss Objective Term Terms free_energy",
    "accord.objective.negatives": "InBatch Mined Negatives Sampled",
    "accord.objective.principles": "barlow_twins coding_rate mmcr rdmreg regularized sigreg vicreg vicregl visreg",
    "accord.objective.temporal": "InverseDynamics straight temporal_similarity",
    "accord.train.checkpoint": "load_weights",
    "accord.train.fit": "Fit fit",
    "accord.train.optim": "AdamW LARS SGD",
}
"""Public names by the file they live in."""
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "LARS",
    "MLP",
    "SGD",
    "AccordError",
    "AdamW",
    "Amortize",
    "Augmentation",
    "BadItem",
    "BatchNorm1d",
    "BatchNorm2d",
    "BestOf",
    "Branch",
    "ByteNGrams",
    "ByteTransformer",
    "CentredDivergence",
    "Codebook",
    "Columns",
    "CommonWidthGaussian",
    "ConditionalPrior",
    "Contrast",
    "Coordinate",
    "Cost",
    "Density",
    "Descend",
    "Deterministic",
    "DictionaryPredictor",
    "Draws",
    "Ellipse",
    "Encoder",
    "Energy",
    "Enumerate",
    "Fit",
    "FlowDensity",
    "FlowMatchingDensity",
    "Forks",
    "Found",
    "Gaussian",
    "GaussianDensity",
    "GaussianWalk",
    "Halves",
    "IdentityPredictor",
    "InBatch",
    "Inference",
    "InverseDynamics",
    "Ista",
    "JointEmbedding",
    "Jump",
    "Langevin",
    "Latent",
    "Lista",
    "Loader",
    "LocalMatching",
    "LogMel",
    "Loss",
    "LowDimensional",
    "MLPPredictor",
    "Markov",
    "MaskedBlocks",
    "Mined",
    "Minimizer",
    "Minimum",
    "MixtureDensity",
    "MovingAverage",
    "MultiScale",
    "Negatives",
    "Noisy",
    "Objective",
    "Pair",
    "Pairing",
    "Predictor",
    "Projector",
    "Prototypes",
    "Recognition",
    "ResNet",
    "Restoring",
    "Sampled",
    "Samples",
    "SeriesAugmentation",
    "SeriesConv",
    "SeriesOptions",
    "SeriesTransformer",
    "Sparse",
    "Standardize",
    "StopGradient",
    "Tabular",
    "Term",
    "Terms",
    "TextAugmentation",
    "Torus",
    "TwoViews",
    "UsageEntropy",
    "Variational",
    "VectorAugmentation",
    "ViT",
    "Viterbi",
    "align_uniform",
    "barlow_twins",
    "byol",
    "check_source",
    "coding_rate",
    "columns",
    "contrastive",
    "contrastive_divergence",
    "cosine",
    "dcl",
    "dino",
    "distilled",
    "fit",
    "free_energy",
    "future",
    "gauss_newton",
    "generative",
    "halves",
    "info_nce",
    "jepa",
    "likelihood",
    "load_weights",
    "logistic",
    "masked",
    "masked_blocks",
    "mmcr",
    "open_source",
    "rdmreg",
    "regularized",
    "resnet18",
    "resnet34",
    "resnet50",
    "restoring",
    "score_matching",
    "search",
    "siamese",
    "sides",
    "siglip",
    "sigreg",
    "simsiam",
    "smooth_l1",
    "spectral",
    "split",
    "square_square",
    "squared_error",
    "steepest",
    "straight",
    "temporal_similarity",
    "triplet",
    "two_views",
    "vicreg",
    "vicregl",
    "visreg",
    "vit_base",
    "vit_small",
    "vit_tiny",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'accord' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
