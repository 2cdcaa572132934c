"""The only file that turns names into objects: one literal dictionary per slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from accord import recipe as r
from accord.data.augment import Augmentation, VectorAugmentation
from accord.data.pairing import Pairing, two_views
from accord.errors import UsageError
from accord.model.encoder import Encoder
from accord.model.energy import Cost, cosine, smooth_l1, squared_error
from accord.model.external import hugging_face_backbone, timm_backbone
from accord.model.joint_embedding import JointEmbedding
from accord.model.mlp import MLP
from accord.model.multiscale import MultiScale
from accord.model.normalize import Standardize
from accord.model.predictor import IdentityPredictor, MLPPredictor, Predictor
from accord.model.projector import Projector
from accord.model.resnet import resnet18, resnet34, resnet50
from accord.model.vit import vit_base, vit_small, vit_tiny
from accord.objective.loss import Objective, Terms
from accord.objective.principles import barlow_twins, regularized, sigreg, vicreg, visreg

COSTS: dict[str, Cost] = {"squared_error": squared_error, "smooth_l1": smooth_l1, "cosine": cosine}

PRINCIPLES: dict[str, Callable[..., Terms]] = {
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "sigreg": sigreg,
    "visreg": visreg,
}

AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {
    "photo": Augmentation.photo,
    "grey_photo": Augmentation.grey_photo,
    "digits": Augmentation.digits,
}
